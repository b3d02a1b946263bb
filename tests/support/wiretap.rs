//! Listens between a keeper and its TPM: a proxy that writes down every byte, both ways, and how long the TPM took to answer.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use super::swtpm::{Swtpm, free_pair};

/// Listens for as long as the test program runs.
pub struct Wiretap {
    port: u16,
    heard: Heard,
    watch: Arc<Mutex<Watch>>,
}

/// From the first byte of a question to the first of its answer, summed up over both ports.
#[derive(Default)]
struct Watch {
    asked: Option<Instant>,
    waited: Duration,
}

/// One entry a connection and direction, so that nothing stands between two halves of a secret.
type Heard = Arc<Mutex<Vec<Vec<u8>>>>;

impl Wiretap {
    /// Two ports that lead to those of `swtpm`.
    pub fn before(swtpm: &Swtpm) -> Self {
        let (heard, watch) = (Heard::default(), Arc::<Mutex<Watch>>::default());
        loop {
            let port = free_pair();
            let Ok(listeners) =
                [port, port + 1].map(|port| TcpListener::bind(("127.0.0.1", port))).into_iter().collect::<Result<Vec<_>, _>>()
            else {
                continue;
            };
            for (number, listener) in (0..).zip(listeners) {
                let (heard, watch, to) = (Arc::clone(&heard), Arc::clone(&watch), swtpm.port() + number);
                thread::spawn(move || listener.incoming().flatten().for_each(|client| connect(client, to, &heard, &watch)));
            }
            return Self { port, heard, watch };
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

    /// How long the TPM was waited for.
    pub fn waited(&self) -> Duration {
        locked(&self.watch).waited
    }

    /// Everything that was said, one stream after the other.
    pub fn heard(&self) -> Vec<u8> {
        locked(&self.heard).concat()
    }
}

fn locked<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

fn connect(client: TcpStream, port: u16, heard: &Heard, watch: &Arc<Mutex<Watch>>) {
    // A TPM that was stopped is a closed connection, as without the proxy.
    let Ok(tpm) = TcpStream::connect(("127.0.0.1", port)) else { return };
    for (from, to, tick) in [(&client, &tpm, asked as fn(&mut Watch)), (&tpm, &client, answered)] {
        let (from, to, heard, watch) = (from.try_clone().unwrap(), to.try_clone().unwrap(), Arc::clone(heard), Arc::clone(watch));
        thread::spawn(move || pass_on(from, to, &heard, || tick(&mut locked(&watch))));
    }
}

fn asked(watch: &mut Watch) {
    watch.asked.get_or_insert_with(Instant::now);
}

fn answered(watch: &mut Watch) {
    watch.waited += watch.asked.take().map(|since| since.elapsed()).unwrap_or_default();
}

fn pass_on(mut from: TcpStream, mut to: TcpStream, heard: &Heard, tick: impl Fn()) {
    let stream = {
        let mut heard = locked(heard);
        heard.push(Vec::new());
        heard.len() - 1
    };
    let mut bytes = [0; 4096];
    while let Ok(read @ 1..) = from.read(&mut bytes) {
        tick();
        locked(heard)[stream].extend_from_slice(&bytes[..read]);
        if to.write_all(&bytes[..read]).is_err() {
            break;
        }
    }
    // One side is done; the other learns it.
    let _ = to.shutdown(Shutdown::Write);
}
