//! A file system of a test's own: a small one, which can be filled to the last block, or one that lacks something.
//! Trusts: nothing.
//! Touches: a tmpfs or ramfs, unmounted on drop.
//! Next: the tests of full disks.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::fcntl::{FallocateFlags, fallocate};

use super::space::Space;

/// Mounted until dropped.
pub(crate) struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    pub(crate) fn mount(mib: u32) -> Self {
        Self::of("tmpfs", &format!("size={mib}m"))
    }

    /// One that refuses `O_DIRECT`; it has no limit.
    pub(crate) fn without_direct_writes() -> Self {
        let disk = Self::of("ramfs", "mode=700");
        let opened = OpenOptions::new().create(true).truncate(true).write(true).custom_flags(libc::O_DIRECT).open(disk.path().join("try"));
        assert_eq!(opened.err().and_then(|error| error.raw_os_error()), Some(libc::EINVAL), "ramfs takes O_DIRECT here: find another");
        disk
    }

    fn of(kind: &str, options: &str) -> Self {
        let at = tempfile::tempdir().unwrap();
        let status = Command::new("mount").args(["-t", kind, "-o", options, kind]).arg(at.path()).status();
        assert!(status.is_ok_and(|status| status.success()), "mounting a {kind} failed: run the tests as root with CAP_SYS_ADMIN");
        Self(at)
    }

    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }

    pub(crate) fn free(&self) -> u64 {
        Space::new(self.path(), 0).free().unwrap()
    }

    /// Takes all blocks but `free` bytes.
    pub(crate) fn fill(&self, free: u64) {
        let taken = i64::try_from(self.free().checked_sub(free).unwrap()).unwrap();
        let file = OpenOptions::new().create(true).write(true).truncate(true).open(self.filler()).unwrap();
        fallocate(&file, FallocateFlags::empty(), 0, taken).unwrap();
        assert_eq!(self.free(), free);
    }

    /// Gives the blocks back.
    pub(crate) fn relieve(&self) {
        fs::remove_file(self.filler()).unwrap();
    }

    fn filler(&self) -> PathBuf {
        self.path().join("filler")
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.path()).status();
    }
}
