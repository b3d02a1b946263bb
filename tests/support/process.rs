//! What a running process holds: its memory, and files that have no name any more. For root.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::FileExt as _;

use super::needles::Search;

/// The names of what occurs in the memory of process `pid`, each with the mapping that it lies in.
pub fn memory_holds(pid: u32, search: &Search) -> BTreeSet<(String, String)> {
    let memory =
        File::open(format!("/proc/{pid}/mem")).unwrap_or_else(|error| panic!("the memory of {pid} ({error}): run the tests as root"));
    let mut found = BTreeSet::new();
    for line in fs::read_to_string(format!("/proc/{pid}/maps")).unwrap().lines() {
        let mut words = line.split_whitespace();
        let (start, end) = words.next().unwrap().split_once('-').unwrap();
        let readable = words.next().unwrap().starts_with('r');
        let name = words.nth(3).unwrap_or("anonymous");
        if !readable || name.starts_with("[v") {
            continue;
        }
        let place = |number| u64::from_str_radix(number, 16).unwrap();
        let mapping = Mapping { memory: &memory, at: place(start), end: place(end) };
        found.extend(search.reader(mapping).unwrap().into_iter().map(|what| (what, name.to_owned())));
    }
    found
}

/// Reads as zeros what the kernel does not give.
struct Mapping<'a> {
    memory: &'a File,
    at: u64,
    end: u64,
}

impl Read for Mapping<'_> {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        const PAGE: u64 = 4096;
        let room = usize::try_from(self.end - self.at).unwrap().min(to.len());
        let read = match self.memory.read_at(&mut to[..room], self.at) {
            Ok(read) => read,
            // A page that is not there, or was given back in the meantime.
            Err(_) => {
                let page = usize::try_from(PAGE - self.at % PAGE).unwrap().min(room);
                to[..page].fill(0);
                page
            }
        };
        self.at += u64::try_from(read).unwrap();
        Ok(read)
    }
}

/// The names of what occurs in regular files that process `pid` has open, deleted ones included. The kernel's own files in /proc
/// hold nothing of a disk: memory, for one, is searched by [`memory_holds`].
pub fn open_files_hold(pid: u32, search: &Search) -> BTreeSet<(String, String)> {
    let mut found = BTreeSet::new();
    for entry in fs::read_dir(format!("/proc/{pid}/fd")).unwrap().filter_map(Result::ok) {
        if fs::metadata(entry.path()).is_ok_and(|file| file.is_file()) {
            let link = fs::read_link(entry.path()).map(|link| link.display().to_string()).unwrap_or_default();
            if link.starts_with("/proc/") {
                continue;
            }
            found.extend(search.file(&entry.path()).into_iter().map(|what| (what, link.clone())));
        }
    }
    found
}

/// Stops a process where it is until dropped.
pub struct Paused(u32);

impl Paused {
    pub fn new(pid: u32) -> Self {
        signal(pid, "STOP");
        Self(pid)
    }
}

impl Drop for Paused {
    fn drop(&mut self) {
        signal(self.0, "CONT");
    }
}

/// Sends a signal to a process of the test's own.
pub fn signal(pid: u32, name: &str) {
    let sent = std::process::Command::new("kill").arg(format!("-{name}")).arg(pid.to_string()).status().unwrap();
    assert!(sent.success(), "{name} to {pid}");
}
