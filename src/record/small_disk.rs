//! A small file system of a test's own, which can be filled to the last block.
//! Trusts: nothing.
//! Touches: a tmpfs, unmounted on drop.
//! Next: the tests of full disks.

use std::fs::{self, OpenOptions};
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::fcntl::{FallocateFlags, fallocate};

use super::space::Space;

/// Mounted until dropped.
pub(crate) struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    pub(crate) fn mount(mib: u32) -> Self {
        let at = tempfile::tempdir().unwrap();
        let status = Command::new("mount").args(["-t", "tmpfs", "-o", &format!("size={mib}m"), "tmpfs"]).arg(at.path()).status();
        assert!(status.is_ok_and(|status| status.success()), "mounting a tmpfs failed: run the tests as root with CAP_SYS_ADMIN");
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
