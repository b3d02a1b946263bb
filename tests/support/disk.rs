//! A small disk for an appliance: a tmpfs in a mount namespace of its own, which can be filled to the last block.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use nix::fcntl::{FallocateFlags, fallocate};
use nix::sys::statvfs::statvfs;

const START_LIMIT: Duration = Duration::from_secs(20);

/// Mounted until dropped.
pub struct SmallDisk {
    holder: Child,
    at: PathBuf,
}

impl SmallDisk {
    /// Over `at`, which belongs to `salama` as it did before.
    pub fn over(at: &Path, mib: u32) -> Self {
        let script = format!(
            "mount -t tmpfs -o size={mib}m,mode=0700,uid=$(id -u salama),gid=$(id -g salama) tmpfs {at} && touch {at}/filler && exec sleep 600",
            at = at.display()
        );
        let holder = Command::new("unshare")
            .args(["--mount", "--propagation", "private", "sh", "-c", &script])
            .stdin(Stdio::null())
            .spawn()
            .expect("unshare is missing: apt-get install util-linux");
        let disk = Self { holder, at: at.to_owned() };
        let began = Instant::now();
        while !disk.filler().exists() {
            assert!(began.elapsed() < START_LIMIT, "no tmpfs could be mounted: run the tests as root");
            thread::yield_now();
        }
        disk
    }

    /// The words before a command that make it run where this disk is.
    pub fn launcher(&self) -> Vec<String> {
        vec!["nsenter".to_owned(), format!("--mount=/proc/{}/ns/mnt", self.holder.id()), "--".to_owned()]
    }

    /// The disk, seen from outside.
    pub fn path(&self) -> PathBuf {
        Path::new(&format!("/proc/{}/root", self.holder.id())).join(self.at.strip_prefix("/").unwrap())
    }

    pub fn free(&self) -> u64 {
        let stats = statvfs(&self.path()).unwrap();
        stats.blocks_available() * stats.fragment_size()
    }

    /// Takes all blocks but `free` bytes.
    pub fn fill(&self, free: u64) {
        let file = File::create(self.filler()).unwrap();
        let taken = self.free().checked_sub(free).expect("the disk has room");
        fallocate(&file, FallocateFlags::empty(), 0, taken.try_into().unwrap()).unwrap();
    }

    /// Gives the blocks back.
    pub fn relieve(&self) {
        File::create(self.filler()).unwrap();
    }

    /// The recordings and what else lies beside them.
    pub fn recordings(&self) -> usize {
        fs::read_dir(self.path().join("audio")).unwrap().count()
    }

    fn filler(&self) -> PathBuf {
        self.path().join("filler")
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}
