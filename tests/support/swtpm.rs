//! A software TPM of a test's own: `swtpm` on a free pair of ports, its state in a temporary directory.
//! Trusts: the `swtpm` package.
//! Touches: two TCP ports on the loopback interface, a temporary directory.
//! Next: tests hand [`Swtpm::tcti`] to the keeper.

#![allow(dead_code, reason = "each test program uses its own part of this")]

use std::fs;
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use tempfile::TempDir;

const START_LIMIT: Duration = Duration::from_secs(20);

/// Runs until dropped.
pub struct Swtpm {
    process: Child,
    port: u16,
    state: TempDir,
}

impl Swtpm {
    /// A new TPM with a seed of its own.
    pub fn start() -> Self {
        Self::start_with_log(1)
    }

    /// As [`Self::start`]; at level 20 the log holds every command and response in hexadecimal, as a listener on the bus would see them.
    pub fn start_with_log(level: u8) -> Self {
        // Two that start at once could find the same ports free, and each take the other's answer for its own.
        static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
        let _turn = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
        let state = tempfile::tempdir().expect("a temporary directory");
        let deadline = Instant::now() + START_LIMIT;
        loop {
            let port = free_pair();
            let mut process = spawn(&state, port, level);
            if listens(&mut process, [port, port + 1], deadline) {
                return Self { process, port, state };
            }
            // Another test may have taken the ports in between; swtpm has ended and the next pair is tried.
            assert!(Instant::now() < deadline, "swtpm did not start: {}", fs::read_to_string(state.path().join("log")).unwrap_or_default());
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

    /// What was logged.
    pub fn log(&self) -> String {
        fs::read_to_string(self.log_file()).expect("swtpm writes its log")
    }

    /// Runs one of the tpm2-tools against this TPM.
    pub fn tool(&self, name: &str, args: &[&str]) -> Output {
        let ran = Command::new(name).args(args).env("TPM2TOOLS_TCTI", self.tcti()).current_dir(self.state.path()).output();
        let output = ran.unwrap_or_else(|error| panic!("{name} cannot be run ({error}): apt-get install tpm2-tools"));
        assert!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stderr));
        output
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.process.id()
    }

    /// The TPM is gone: its ports no longer answer.
    pub fn stop(&mut self) {
        self.process.kill().expect("its own child");
        self.process.wait().expect("its own child");
    }

    /// The directory that [`Self::tool`] runs in.
    pub fn directory(&self) -> PathBuf {
        self.state.path().to_owned()
    }

    fn log_file(&self) -> PathBuf {
        self.state.path().join("log")
    }
}

impl Drop for Swtpm {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn spawn(state: &TempDir, port: u16, level: u8) -> Child {
    let directory = state.path().display();
    Command::new("swtpm")
        .args(["socket", "--tpm2", "--flags", "not-need-init,startup-clear", "--seccomp", "action=kill"])
        .args(["--tpmstate", &format!("dir={directory},mode=0600")])
        .args(["--server", &format!("type=tcp,port={port},bindaddr=127.0.0.1")])
        .args(["--ctrl", &format!("type=tcp,port={},bindaddr=127.0.0.1", port + 1)])
        .args(["--log", &format!("level={level},file={directory}/log,truncate")])
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap_or_else(|error| panic!("swtpm cannot be run ({error}): apt-get install swtpm"))
}

/// Two neighbouring ports that were free a moment ago: libtss2 always takes the second for control.
pub fn free_pair() -> u16 {
    loop {
        let first = TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
        let port = first.local_addr().expect("an address").port();
        if port < u16::MAX && TcpListener::bind(("127.0.0.1", port + 1)).is_ok() {
            return port;
        }
    }
}

/// Waits until the process listens on both ports; `false` when it ended first. That somebody accepts there says nothing: when another
/// test's TPM was faster, it is that one.
fn listens(process: &mut Child, ports: [u16; 2], deadline: Instant) -> bool {
    while Instant::now() < deadline {
        if process.try_wait().expect("its own child").is_some() {
            return false;
        }
        if ports.iter().all(|port| has_listener(process.id(), *port).unwrap_or(false)) {
            return true;
        }
        std::thread::yield_now();
    }
    panic!("swtpm did not listen within {START_LIMIT:?}");
}

/// Whether one of the process' descriptors is the socket that listens on the port (proc(5), `net/tcp`). Nothing when the process is gone.
fn has_listener(process: u32, port: u16) -> Option<bool> {
    const LISTEN: &str = "0A";
    let table = fs::read_to_string(format!("/proc/{process}/net/tcp")).ok()?;
    let row = table
        .lines()
        .map(|line| line.split_whitespace().collect::<Vec<_>>())
        .find(|row| row.get(1).is_some_and(|local| local.ends_with(&format!(":{port:04X}"))) && row.get(3) == Some(&LISTEN))?;
    let socket = format!("socket:[{}]", row.get(9)?);
    let mut descriptors = fs::read_dir(format!("/proc/{process}/fd")).ok()?.flatten();
    Some(descriptors.any(|entry| fs::read_link(entry.path()).is_ok_and(|target| target.as_os_str() == &*socket)))
}
