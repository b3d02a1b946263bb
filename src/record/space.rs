//! Room on the disk: uploads are refused before it is full, erasures go through when it is.
//! Trusts: what the file system says of its free blocks.
//! Touches: `STATE/ballast`, `statvfs`.
//! Next: `job` asks before it takes an upload; the store's writer gives the ballast up for erasures.
//!
//! On a full disk redb cannot even delete: a commit writes new pages before it frees old ones.

use std::fs::{File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};

use nix::fcntl::{FallocateFlags, fallocate};
use nix::sys::statvfs::statvfs;

/// Blocks that are held so that they can be given up.
#[derive(Debug)]
pub struct Ballast {
    path: PathBuf,
    bytes: u64,
}

impl Ballast {
    /// `bytes` of ballast in the state directory; [`Self::hold`] allocates them.
    pub fn new(state: &Path, bytes: u64) -> Self {
        Self { path: state.join("ballast"), bytes }
    }

    /// Another file in the same directory.
    pub(in crate::record) fn beside(&self, name: &str) -> PathBuf {
        self.path.with_file_name(name)
    }

    /// Really allocates the ballast; what is already there stays.
    ///
    /// # Errors
    /// When there is no room for it.
    pub fn hold(&self) -> io::Result<()> {
        let file = OpenOptions::new().write(true).create(true).truncate(false).open(&self.path)?;
        if self.bytes == 0 {
            return Ok(());
        }
        let len = i64::try_from(self.bytes).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
        match fallocate(&file, FallocateFlags::empty(), 0, len) {
            Ok(()) => file.sync_all(),
            Err(error) => {
                file.set_len(0)?;
                Err(error.into())
            }
        }
    }

    /// Gives the blocks back to the file system.
    ///
    /// # Errors
    /// What the file system says.
    pub fn release(&self) -> io::Result<()> {
        let file = File::options().write(true).open(&self.path)?;
        file.set_len(0)?;
        file.sync_all()
    }
}

/// The free-space watermark.
#[derive(Clone, Debug)]
pub struct Space {
    state: PathBuf,
    reserve: u64,
}

impl Space {
    /// Keeps `reserve` bytes free on the file system of the state directory.
    pub fn new(state: &Path, reserve: u64) -> Self {
        Self { state: state.to_path_buf(), reserve }
    }

    /// Whether `bytes` more may be written. A file system that does not answer counts as full.
    pub fn admits(&self, bytes: u64) -> bool {
        self.free().is_ok_and(|free| free >= self.reserve.saturating_add(bytes))
    }

    /// Free bytes for a process without privileges.
    ///
    /// # Errors
    /// What the file system says.
    pub fn free(&self) -> io::Result<u64> {
        let stats = statvfs(&self.state)?;
        Ok(stats.blocks_available().saturating_mul(stats.fragment_size()))
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;

    #[test]
    fn ballast_is_really_allocated_and_really_released() {
        let state = tempfile::tempdir().unwrap();
        let ballast = Ballast::new(state.path(), 1 << 20);
        let blocks = || std::fs::metadata(state.path().join("ballast")).unwrap().blocks();
        ballast.hold().unwrap();
        let held = blocks();
        ballast.release().unwrap();
        assert!(held >= 2048, "{held} blocks of 512 bytes");
        assert_eq!(blocks(), 0);
    }

    #[test]
    fn the_watermark_refuses_before_the_disk_is_full() {
        let state = tempfile::tempdir().unwrap();
        let free = Space::new(state.path(), 0).free().unwrap();
        assert!(Space::new(state.path(), 0).admits(free / 2));
        assert!(!Space::new(state.path(), free / 2).admits(free));
    }

    #[test]
    fn a_file_system_that_does_not_answer_counts_as_full() {
        assert!(!Space::new(Path::new("/nowhere"), 0).admits(0));
    }
}
