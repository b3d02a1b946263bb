//! A real journald in a mount namespace of its own.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

const START_LIMIT: Duration = Duration::from_secs(20);

/// Runs until dropped.
pub struct Journal {
    journald: Child,
}

impl Journal {
    pub fn start() -> Self {
        let script = "mount -t tmpfs tmpfs /run && mkdir -p /run/log/journal && exec /lib/systemd/systemd-journald";
        let journald = Command::new("unshare")
            .args(["--mount", "--propagation", "private", "sh", "-c", script])
            .stderr(Stdio::null())
            .spawn()
            .expect("unshare is missing: apt-get install util-linux");
        let journal = Self { journald };
        let began = Instant::now();
        while !journal.root().join("run/systemd/journal/socket").exists() {
            assert!(began.elapsed() < START_LIMIT, "journald did not start: apt-get install systemd, and run the tests as root");
            thread::yield_now();
        }
        journal
    }

    /// The file system as the namespace sees it.
    pub fn root(&self) -> PathBuf {
        PathBuf::from(format!("/proc/{}/root", self.journald.id()))
    }

    /// Where the journal's files are, seen from outside.
    pub fn files(&self) -> PathBuf {
        self.root().join("run/log/journal")
    }

    /// The words before a command that make it run where this journal is.
    pub fn launcher(&self) -> Vec<String> {
        vec!["nsenter".to_owned(), format!("--mount=/proc/{}/ns/mnt", self.journald.id()), "--".to_owned()]
    }

    /// All entries of the program `identifier`.
    pub fn entries(&self, identifier: &str) -> Vec<Value> {
        let read = self.read(&["--output=json", &format!("SYSLOG_IDENTIFIER={identifier}")]);
        String::from_utf8_lossy(&read).lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }

    /// The words of all entries of the program `identifier`, once `count` of them hold `mark`: journald takes its time.
    pub fn lines_until(&self, identifier: &str, mark: &str, count: usize) -> String {
        let began = Instant::now();
        loop {
            let entries = self.entries(identifier);
            let lines: String = entries.iter().filter_map(|entry| entry["MESSAGE"].as_str()).map(|line| format!("{line}\n")).collect();
            if lines.matches(mark).count() >= count {
                return lines;
            }
            assert!(began.elapsed() < START_LIMIT, "no {mark}: {lines}");
            thread::yield_now();
        }
    }

    /// Every field of every entry as it was sent: in the files, long ones are compressed.
    pub fn exported(&self) -> Vec<u8> {
        self.read(&["--output=export"])
    }

    fn read(&self, arguments: &[&str]) -> Vec<u8> {
        let launcher = self.launcher();
        let mut journalctl = Command::new(&launcher[0]);
        journalctl.args(&launcher[1..]).args(["journalctl", "--directory=/run/log/journal", "--all", "--quiet"]).args(arguments);
        journalctl.output().unwrap().stdout
    }
}

impl Drop for Journal {
    fn drop(&mut self) {
        let _ = self.journald.kill();
        let _ = self.journald.wait();
    }
}
