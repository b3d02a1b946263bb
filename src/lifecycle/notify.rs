//! What systemd is told: readiness, where the daemon listens, that it lives, that it stops.
//! Trusts: the environment that systemd set.
//! Touches: the socket that `NOTIFY_SOCKET` names, when it does; connected once, because a confined core can connect nothing.
//! Next: systemd, or a test that listens like it.

use std::ffi::OsStr;
use std::fmt::Write as _;
use std::io;
use std::net::SocketAddr;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{SocketAddr as UnixAddress, UnixDatagram};
use std::time::Duration;

use sd_notify::NotifyState;

/// The line to systemd; without one, nobody is told.
#[derive(Debug)]
pub struct Notifier(Option<UnixDatagram>);

impl Notifier {
    /// Connects to what `NOTIFY_SOCKET` names, when it is set; to be called before confinement. A daemon that cannot be heard
    /// still serves: systemd acts on silence by itself.
    pub fn connect() -> Self {
        let Some(name) = std::env::var_os("NOTIFY_SOCKET") else { return Self(None) };
        Self(connected(&name).inspect_err(|error| eprintln!("salamad: systemd's notify socket was not reached: {error}")).ok())
    }

    /// Ready, and where.
    pub fn ready(&self, address: SocketAddr) {
        self.tell(&[NotifyState::Status(&format!("listening on {address}")), NotifyState::Ready]);
    }

    /// Stopping: no new work is begun.
    pub fn stopping(&self) {
        self.tell(&[NotifyState::Stopping]);
    }

    /// Alive.
    pub fn alive(&self) {
        self.tell(&[NotifyState::Watchdog]);
    }

    fn tell(&self, states: &[NotifyState<'_>]) {
        let Some(socket) = &self.0 else { return };
        let message = states.iter().fold(String::new(), |mut message, state| {
            // Writing to a `String` cannot fail.
            let _ = writeln!(message, "{state}");
            message
        });
        if let Err(error) = socket.send(message.as_bytes()) {
            eprintln!("salamad: systemd was not notified: {error}");
        }
    }
}

/// A path, or with a leading `@` a name in the abstract namespace (sd_notify(3)).
fn connected(name: &OsStr) -> io::Result<UnixDatagram> {
    let address = match name.as_bytes().strip_prefix(b"@") {
        Some(abstract_name) => UnixAddress::from_abstract_name(abstract_name)?,
        None => UnixAddress::from_pathname(name)?,
    };
    let socket = UnixDatagram::unbound()?;
    socket.connect_addr(&address)?;
    Ok(socket)
}

/// How often systemd wants to hear that the daemon lives: half of its limit.
pub fn watchdog_interval() -> Option<Duration> {
    sd_notify::watchdog_enabled().map(|limit| limit / 2)
}
