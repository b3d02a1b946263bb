//! Changing a file of the key directory: whole and durable, or not at all; by one program at a time.
//! Trusts: the file system to rename atomically, and to keep what fsync was told to.
//! Touches: the key directory.
//! Next: `manage` changes the keyslots by it.
//!
//! New file beside the old, fsync, rename over it, fsync of the directory. A crash leaves the old file or the new one, never a part, and
//! at most a partial file under another name, which the next change writes over.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, fchown};
use std::path::{Path, PathBuf};

use nix::unistd::geteuid;

use super::directory::DirectoryError;

/// The right to change the directory; given back when dropped, also by a crash.
pub struct Exclusive {
    path: PathBuf,
    directory: File,
}

impl Exclusive {
    /// Takes the right.
    ///
    /// # Errors
    /// [`DirectoryError::Locked`] while somebody else has it.
    pub fn take(path: &Path) -> Result<Self, DirectoryError> {
        let failed = |source| DirectoryError::Read { path: path.to_owned(), source };
        let directory = OpenOptions::new().read(true).custom_flags(libc::O_DIRECTORY | libc::O_NOFOLLOW).open(path).map_err(failed)?;
        match directory.try_lock() {
            Ok(()) => Ok(Self { path: path.to_owned(), directory }),
            Err(TryLockError::WouldBlock) => Err(DirectoryError::Locked(path.to_owned())),
            Err(TryLockError::Error(source)) => Err(failed(source)),
        }
    }

    /// Puts `bytes` in the place of the file `name`. It belongs to whom the directory belongs to.
    ///
    /// # Errors
    /// [`DirectoryError::Write`]; then the old file is still there, unless only the last fsync failed.
    pub fn replace(&self, name: &str, bytes: &[u8]) -> Result<(), DirectoryError> {
        let (target, partial) = (self.path.join(name), self.path.join(format!(".{name}.partial")));
        let write = || {
            // One that a crash left could be anything by now.
            remove_if_there(&partial)?;
            let written = self.write(&partial, bytes).and_then(|()| fs::rename(&partial, &target));
            if written.is_err() {
                // Nothing more can be done about it than to say the first error.
                let _ = fs::remove_file(&partial);
            }
            written?;
            self.directory.sync_all()
        };
        write().map_err(|source| DirectoryError::Write { path: target.clone(), source })
    }

    fn write(&self, partial: &Path, bytes: &[u8]) -> io::Result<()> {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(partial)?;
        file.write_all(bytes)?;
        if geteuid().is_root() {
            let owner = self.directory.metadata()?;
            fchown(&file, Some(owner.uid()), Some(owner.gid()))?;
        }
        file.sync_all()
    }
}

fn remove_if_there(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_replaced_also_over_what_a_crash_left() {
        let base = tempfile::tempdir().unwrap();
        fs::write(base.path().join("keyslots"), "old").unwrap();
        fs::write(base.path().join(".keyslots.partial"), "half of something").unwrap();
        let exclusive = Exclusive::take(base.path()).unwrap();
        exclusive.replace("keyslots", b"new").unwrap();
        assert_eq!(fs::read(base.path().join("keyslots")).unwrap(), b"new");
        assert_eq!(fs::read_dir(base.path()).unwrap().count(), 1);
    }

    #[test]
    fn two_programs_do_not_change_the_keys_at_once() {
        let base = tempfile::tempdir().unwrap();
        let first = Exclusive::take(base.path()).unwrap();
        assert!(matches!(Exclusive::take(base.path()), Err(DirectoryError::Locked(_))));
        drop(first);
        assert!(Exclusive::take(base.path()).is_ok());
    }
}
