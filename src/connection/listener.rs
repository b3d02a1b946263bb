//! The one listening socket: handed in by systemd, or bound.
//! Trusts: systemd's `LISTEN_PID` and `LISTEN_FDS`.
//! Touches: the network, once, before confinement.
//! Next: [`super::serve`] accepts from it.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::RawFd;

use crate::sys::descriptors::take_inherited;

/// Why there is no socket.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// `LISTEN_FDS` or `LISTEN_PID` are not numbers, or a descriptor they name is not open.
    #[error("systemd handed a socket in, but it cannot be taken over; check salama.socket")]
    Adopt(#[source] io::Error),
    /// More than one.
    #[error("systemd handed {count} sockets in; salama.socket must have exactly one ListenStream=")]
    TooMany {
        /// How many.
        count: usize,
    },
    /// Not TCP.
    #[error("the socket that systemd handed in is no TCP socket; salama.socket needs ListenStream= with a port")]
    NotTcp(#[source] io::Error),
    /// The address is taken, or not one of this machine's.
    #[error("the daemon cannot listen on {address}; is another program there, or is it no address of this machine?")]
    Bind {
        /// Which.
        address: SocketAddr,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// The descriptors that systemd handed in, to be kept when strays are closed.
///
/// # Errors
/// `Adopt` when the environment does not say which.
pub fn inherited() -> Result<Vec<RawFd>, ListenError> {
    Ok(sd_notify::listen_fds().map_err(ListenError::Adopt)?.collect())
}

/// Takes systemd's socket over; binds `address` when there is none. To be called once, before any thread.
///
/// # Errors
/// [`ListenError`].
pub fn open(address: SocketAddr) -> Result<TcpListener, ListenError> {
    let mut inherited = sd_notify::listen_fds().map_err(ListenError::Adopt)?;
    let listener = match (inherited.len(), inherited.next()) {
        (1, Some(fd)) => TcpListener::from(take_inherited(fd).map_err(ListenError::Adopt)?),
        // The standard library sets SO_REUSEADDR, so that a restart need not wait for old connections.
        (0, _) => TcpListener::bind(address).map_err(|source| ListenError::Bind { address, source })?,
        (count, _) => return Err(ListenError::TooMany { count }),
    };
    listener.local_addr().map_err(ListenError::NotTcp)?;
    listener.set_nonblocking(true).map_err(ListenError::NotTcp)?;
    Ok(listener)
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpStream;
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn a_taken_address_is_named() {
        let taken = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let address = taken.local_addr().unwrap();
        let error = open(address).unwrap_err();
        assert!(error.to_string().contains(&address.to_string()), "{error}");
    }

    /// Runs itself once more under systemd's own tool; the inner run answers on the socket that it was handed.
    #[test]
    fn the_socket_that_systemd_hands_in_is_taken_over() {
        if std::env::var_os("LISTEN_FDS").is_some() {
            let listener = open(SocketAddr::from(([127, 0, 0, 1], 1))).unwrap();
            listener.set_nonblocking(false).unwrap();
            return listener.accept().unwrap().0.write_all(b"adopted").unwrap();
        }
        let free = TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap();
        let mut inner = Command::new("systemd-socket-activate")
            .arg("--listen")
            .arg(free.to_string())
            .arg(std::env::current_exe().unwrap())
            .args(["--exact", "connection::listener::tests::the_socket_that_systemd_hands_in_is_taken_over"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("systemd-socket-activate is missing; run: apt-get install systemd");
        let mut stream = loop {
            match TcpStream::connect(free) {
                Ok(stream) => break stream,
                Err(_) => assert!(inner.try_wait().unwrap().is_none(), "systemd-socket-activate ended"),
            }
        };
        let mut said = String::new();
        stream.read_to_string(&mut said).unwrap();
        assert_eq!(said, "adopted");
        assert!(inner.wait().unwrap().success());
    }
}
