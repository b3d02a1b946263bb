//! A TPM that holds one command back: a proxy before `swtpm` where a test stops whoever asked, before the TPM has done it or just after.

use std::io::{self, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use super::faulty_tpm::{packet, pass_control};
use super::swtpm::{Swtpm, free_pair};

/// Longest time until somebody sends the command.
const LIMIT: Duration = Duration::from_secs(120);

/// Whether the TPM has done it when it is held back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Done {
    NotYet,
    Already,
}

struct Stop {
    code: u32,
    /// How many of the code pass before.
    passes: usize,
    done: Done,
    reached: Sender<()>,
    release: Receiver<()>,
}

/// Proxies for as long as the test program runs.
pub struct Gate {
    port: u16,
    next: Arc<Mutex<Option<Stop>>>,
}

/// A stop that was set; whoever waits there is let go, without an answer, when this is dropped.
pub struct Held {
    reached: Receiver<()>,
    _release: Sender<()>,
}

impl Held {
    /// Waits until the command is held back.
    pub fn wait(&self) {
        self.reached.recv_timeout(LIMIT).expect("the command never came");
    }
}

impl Gate {
    /// All commands pass until [`Self::hold`].
    pub fn before(swtpm: &Swtpm) -> Self {
        let next = Arc::new(Mutex::new(None));
        loop {
            let port = free_pair();
            let bound: io::Result<Vec<_>> = [port, port + 1].iter().map(|port| TcpListener::bind(("127.0.0.1", *port))).collect();
            let Ok(mut listeners) = bound else { continue };
            let (control, commands) = (listeners.pop().unwrap(), listeners.pop().unwrap());
            let (to, stops) = (swtpm.port(), Arc::clone(&next));
            thread::spawn(move || {
                for client in commands.incoming().flatten() {
                    let stops = Arc::clone(&stops);
                    // It ends with its connection.
                    thread::spawn(move || pass_commands(client, to, &stops));
                }
            });
            thread::spawn(move || {
                for client in control.incoming().flatten() {
                    thread::spawn(move || pass_control(client, to + 1));
                }
            });
            return Self { port, next };
        }
    }

    /// Holds the next command of this code back.
    pub fn hold(&self, code: u32, done: Done) -> Held {
        self.hold_after(0, code, done)
    }

    /// Lets some commands of this code pass, and holds the next one back.
    pub fn hold_after(&self, passes: usize, code: u32, done: Done) -> Held {
        let ((reached, seen), (release, released)) = (channel(), channel());
        *self.next.lock().unwrap_or_else(PoisonError::into_inner) = Some(Stop { code, passes, done, reached, release: released });
        Held { reached: seen, _release: release }
    }

    pub fn tcti(&self) -> String {
        format!("swtpm:host=127.0.0.1,port={}", self.port)
    }
}

impl Stop {
    /// Counts the commands of its code.
    const fn is_reached(&mut self, code: u32) -> bool {
        if self.code != code {
            return false;
        }
        let reached = self.passes == 0;
        self.passes = self.passes.saturating_sub(1);
        reached
    }
}

fn pass_commands(mut client: TcpStream, port: u16, stops: &Mutex<Option<Stop>>) -> io::Result<()> {
    let mut tpm = TcpStream::connect(("127.0.0.1", port))?;
    loop {
        let command = packet(&mut client)?;
        let code = u32::from_be_bytes(command[6..10].try_into().unwrap());
        let stop = stops.lock().unwrap_or_else(PoisonError::into_inner).take_if(|stop| stop.is_reached(code));
        if let Some(Stop { done, reached, release, .. }) = stop {
            if done == Done::Already {
                tpm.write_all(&command)?;
                packet(&mut tpm)?;
            }
            // The TPM takes one connection at a time.
            drop(tpm);
            let _ = reached.send(());
            let _ = release.recv();
            return Ok(());
        }
        tpm.write_all(&command)?;
        client.write_all(&packet(&mut tpm)?)?;
    }
}
