//! A TPM at whose n-th command something goes wrong: a proxy before `swtpm` that refuses it by itself, or kills who asked once it is done.

use std::io::{self, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, AtomicUsize, Ordering};
use std::thread;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::swtpm::{Swtpm, free_pair};

/// Proxies for as long as the test program runs.
pub struct FaultyTpm {
    port: u16,
    left: Arc<AtomicUsize>,
    /// Whom to kill; nobody is 0.
    victim: Arc<AtomicI32>,
}

impl FaultyTpm {
    /// All commands pass until [`Self::refuse`].
    pub fn before(swtpm: &Swtpm, code: u32) -> Self {
        let (left, victim) = (Arc::new(AtomicUsize::new(usize::MAX)), Arc::new(AtomicI32::new(0)));
        loop {
            let port = free_pair();
            let bound: io::Result<Vec<_>> = [port, port + 1].iter().map(|port| TcpListener::bind(("127.0.0.1", *port))).collect();
            let Ok(mut listeners) = bound else { continue };
            let (control, commands) = (listeners.pop().unwrap(), listeners.pop().unwrap());
            let (to, counted, doomed) = (swtpm.port(), Arc::clone(&left), Arc::clone(&victim));
            thread::spawn(move || {
                for client in commands.incoming().flatten() {
                    let (counted, doomed) = (Arc::clone(&counted), Arc::clone(&doomed));
                    // It ends with its connection.
                    thread::spawn(move || pass_commands(client, to, &counted, &doomed, code));
                }
            });
            thread::spawn(move || {
                for client in control.incoming().flatten() {
                    thread::spawn(move || pass_control(client, to + 1));
                }
            });
            return Self { port, left, victim };
        }
    }

    /// Refuses the command after `pass` more.
    pub fn refuse(&self, pass: usize) {
        self.victim.store(0, Ordering::SeqCst);
        self.left.store(pass, Ordering::SeqCst);
    }

    /// Kills the process once the TPM has done the command after `pass` more, before it has the answer.
    #[allow(dead_code, reason = "each test program uses its own part")]
    pub fn kill(&self, pass: usize, process: u32) {
        self.victim.store(i32::try_from(process).unwrap(), Ordering::SeqCst);
        self.left.store(pass, Ordering::SeqCst);
    }

    /// Whether it has refused or killed since.
    pub fn has_refused(&self) -> bool {
        self.left.load(Ordering::SeqCst) > usize::MAX / 2
    }

    pub fn tcti(&self) -> String {
        format!("swtpm:host=127.0.0.1,port={}", self.port)
    }
}

fn pass_commands(mut client: TcpStream, port: u16, left: &AtomicUsize, victim: &AtomicI32, code: u32) -> io::Result<()> {
    let mut tpm = TcpStream::connect(("127.0.0.1", port))?;
    loop {
        let command = packet(&mut client)?;
        // Counts down past zero once, to a number that no test waits for.
        let hit = left.fetch_sub(1, Ordering::SeqCst) == 0;
        let victim = victim.load(Ordering::SeqCst);
        if hit && victim != 0 {
            tpm.write_all(&command)?;
            packet(&mut tpm)?;
            kill(Pid::from_raw(victim), Signal::SIGKILL)?;
            return Ok(());
        }
        if hit {
            let mut refusal = vec![0x80, 0x01, 0, 0, 0, 10];
            refusal.extend(code.to_be_bytes());
            client.write_all(&refusal)?;
        } else {
            tpm.write_all(&command)?;
            client.write_all(&packet(&mut tpm)?)?;
        }
    }
}

/// Tag, length of all, code, and the rest.
pub fn packet(from: &mut TcpStream) -> io::Result<Vec<u8>> {
    let mut packet = vec![0; 10];
    from.read_exact(&mut packet)?;
    let length = u32::from_be_bytes(packet[2..6].try_into().unwrap());
    let length = usize::try_from(length).unwrap();
    packet.resize(length, 0);
    from.read_exact(&mut packet[10..])?;
    Ok(packet)
}

pub fn pass_control(client: TcpStream, port: u16) {
    let Ok(tpm) = TcpStream::connect(("127.0.0.1", port)) else { return };
    let (mut from, mut to) = (tpm.try_clone().unwrap(), client.try_clone().unwrap());
    thread::spawn(move || io::copy(&mut from, &mut to));
    let (mut from, mut to) = (client, tpm);
    let _ = io::copy(&mut from, &mut to);
    let _ = to.shutdown(std::net::Shutdown::Write);
}
