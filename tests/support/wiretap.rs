//! Listens between a keeper and its TPM: a proxy that writes down every byte, both ways.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use super::swtpm::{Swtpm, free_pair};

/// Listens for as long as the test program runs.
pub struct Wiretap {
    port: u16,
    heard: Heard,
}

/// One entry a connection and direction, so that nothing stands between two halves of a secret.
type Heard = Arc<Mutex<Vec<Vec<u8>>>>;

impl Wiretap {
    /// Two ports that lead to those of `swtpm`.
    pub fn before(swtpm: &Swtpm) -> Self {
        let heard = Heard::default();
        loop {
            let port = free_pair();
            let Ok(listeners) =
                [port, port + 1].map(|port| TcpListener::bind(("127.0.0.1", port))).into_iter().collect::<Result<Vec<_>, _>>()
            else {
                continue;
            };
            for (number, listener) in (0..).zip(listeners) {
                let (heard, to) = (Arc::clone(&heard), swtpm.port() + number);
                thread::spawn(move || listener.incoming().flatten().for_each(|client| connect(client, to, &heard)));
            }
            return Self { port, heard };
        }
    }

    /// The address for libtss2.
    pub fn tcti(&self) -> String {
        format!("swtpm:host=127.0.0.1,port={}", self.port)
    }

    /// The first of its two ports.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Everything that was said, one stream after the other.
    pub fn heard(&self) -> Vec<u8> {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner).concat()
    }
}

fn connect(client: TcpStream, port: u16, heard: &Heard) {
    // A TPM that was stopped is a closed connection, as without the proxy.
    let Ok(tpm) = TcpStream::connect(("127.0.0.1", port)) else { return };
    for (from, to) in [(&client, &tpm), (&tpm, &client)] {
        let (from, to, heard) = (from.try_clone().unwrap(), to.try_clone().unwrap(), Arc::clone(heard));
        thread::spawn(move || pass_on(from, to, &heard));
    }
}

fn pass_on(mut from: TcpStream, mut to: TcpStream, heard: &Heard) {
    let stream = {
        let mut heard = heard.lock().unwrap_or_else(PoisonError::into_inner);
        heard.push(Vec::new());
        heard.len() - 1
    };
    let mut bytes = [0; 4096];
    while let Ok(read @ 1..) = from.read(&mut bytes) {
        heard.lock().unwrap_or_else(PoisonError::into_inner)[stream].extend_from_slice(&bytes[..read]);
        if to.write_all(&bytes[..read]).is_err() {
            break;
        }
    }
    // One side is done; the other learns it.
    let _ = to.shutdown(Shutdown::Write);
}
