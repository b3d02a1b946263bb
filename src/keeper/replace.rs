//! Changing a file of the key directory: whole and durable, or not at all; by one program at a time.
//! Trusts: the file system to rename atomically, and to keep what fsync was told to.
//! Touches: the key directory.
//! Next: `manage` changes the keyslots by it.
//!
//! New file beside the old, fsync, rename over it, fsync of the directory. A crash leaves the old file or the new one, never a part, and
//! at most a partial file under another name, which the next change writes over.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, fchown};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use nix::errno::Errno;
use nix::fcntl::{OFlag, openat, renameat};
use nix::sys::stat::Mode;
use nix::unistd::{UnlinkatFlags, geteuid, unlinkat};

use super::directory::{DirectoryError, FILE_MAX};

/// The key directory, held open: a process that can open nothing else any more still changes its files by this.
#[derive(Clone)]
pub struct OpenDirectory {
    path: PathBuf,
    descriptor: Arc<File>,
    /// User and group; read once, before confinement.
    owner: (u32, u32),
}

impl OpenDirectory {
    /// Opens it.
    ///
    /// # Errors
    /// [`DirectoryError::Read`].
    pub fn open(path: &Path) -> Result<Self, DirectoryError> {
        let opened = OpenOptions::new().read(true).custom_flags(libc::O_DIRECTORY | libc::O_NOFOLLOW).open(path);
        let found = opened.and_then(|descriptor| Ok((descriptor.metadata()?, descriptor)));
        let (found, descriptor) = found.map_err(|source| DirectoryError::Read { path: path.to_owned(), source })?;
        Ok(Self { path: path.to_owned(), descriptor: Arc::new(descriptor), owner: (found.uid(), found.gid()) })
    }

    /// For the confinement to grant.
    pub fn descriptor(&self) -> Arc<File> {
        Arc::clone(&self.descriptor)
    }

    /// Takes the right to change it.
    ///
    /// # Errors
    /// [`DirectoryError::Locked`] while somebody else has it.
    pub fn exclusive(&self) -> Result<Exclusive, DirectoryError> {
        match self.descriptor.try_lock() {
            Ok(()) => Ok(Exclusive { directory: self.clone() }),
            Err(TryLockError::WouldBlock) => Err(DirectoryError::Locked(self.path.clone())),
            Err(TryLockError::Error(source)) => Err(DirectoryError::Read { path: self.path.clone(), source }),
        }
    }

    /// Reads a file.
    ///
    /// # Errors
    /// [`DirectoryError::Missing`], [`DirectoryError::Read`].
    pub fn read(&self, name: &str) -> Result<Vec<u8>, DirectoryError> {
        let path = || self.path.join(name);
        let failed = |source| DirectoryError::Read { path: path(), source };
        let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let file = match openat(&*self.descriptor, name, flags, Mode::empty()) {
            Ok(file) => File::from(file),
            Err(Errno::ENOENT) => return Err(DirectoryError::Missing(path())),
            Err(errno) => return Err(failed(errno.into())),
        };
        let mut bytes = Vec::new();
        file.take(FILE_MAX).read_to_end(&mut bytes).map_err(failed)?;
        Ok(bytes)
    }

    /// Opens a file that is written in place, by one program only; makes it where there is none.
    ///
    /// # Errors
    /// [`DirectoryError::Write`].
    pub fn open_for_writing(&self, name: &str) -> Result<File, DirectoryError> {
        let open = || {
            let flags = OFlag::O_RDWR | OFlag::O_CREAT | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
            let file = File::from(openat(&*self.descriptor, name, flags, Mode::S_IRUSR | Mode::S_IWUSR)?);
            self.hand_over(&file)?;
            Ok(file)
        };
        open().map_err(|source| DirectoryError::Write { path: self.path.join(name), source })
    }

    /// To whom the directory belongs.
    fn hand_over(&self, file: &File) -> io::Result<()> {
        if geteuid().is_root() {
            let (user, group) = self.owner;
            fchown(file, Some(user), Some(group))?;
        }
        Ok(())
    }

    fn unlink(&self, name: &str) -> io::Result<()> {
        match unlinkat(&*self.descriptor, name, UnlinkatFlags::NoRemoveDir) {
            Ok(()) | Err(Errno::ENOENT) => Ok(()),
            Err(errno) => Err(errno.into()),
        }
    }
}

/// The right to change the directory; given back when dropped, also by a crash.
pub struct Exclusive {
    directory: OpenDirectory,
}

impl Drop for Exclusive {
    fn drop(&mut self) {
        // Closing gives it back too; but the descriptor may be one that is kept.
        let _ = self.directory.descriptor.unlock();
    }
}

impl Exclusive {
    /// Opens the directory and takes the right.
    ///
    /// # Errors
    /// As [`OpenDirectory::open`] and [`OpenDirectory::exclusive`].
    #[cfg(test)]
    pub fn take(path: &Path) -> Result<Self, DirectoryError> {
        OpenDirectory::open(path)?.exclusive()
    }

    /// Puts `bytes` in the place of the file `name`. It belongs to whom the directory belongs to.
    ///
    /// # Errors
    /// [`DirectoryError::Write`]; then the old file is still there, unless only the last fsync failed.
    pub fn replace(&self, name: &str, bytes: &[u8]) -> Result<(), DirectoryError> {
        let (directory, partial) = (&self.directory.descriptor, format!(".{name}.partial"));
        let write = || {
            // One that a crash left could be anything by now.
            self.directory.unlink(&partial)?;
            let renamed = || Ok(renameat(&**directory, partial.as_str(), &**directory, name)?);
            let written = self.write(&partial, bytes).and_then(|()| renamed());
            if written.is_err() {
                // Nothing more can be done about it than to say the first error.
                let _ = self.directory.unlink(&partial);
            }
            written?;
            directory.sync_all()
        };
        write().map_err(|source| DirectoryError::Write { path: self.directory.path.join(name), source })
    }

    /// Does what [`Self::replace`] does, but for the last step: the file stays as it is.
    ///
    /// # Errors
    /// [`DirectoryError::Write`].
    pub fn try_out(&self, name: &str, bytes: &[u8]) -> Result<(), DirectoryError> {
        let (directory, partial) = (&self.directory.descriptor, format!(".{name}.partial"));
        let tried = || {
            self.directory.unlink(&partial)?;
            let written = self.write(&partial, bytes);
            let renamed = renameat(&**directory, partial.as_str(), &**directory, partial.as_str());
            self.directory.unlink(&partial)?;
            written?;
            renamed?;
            directory.sync_all()
        };
        tried().map_err(|source| DirectoryError::Write { path: self.directory.path.join(name), source })
    }

    fn write(&self, partial: &str, bytes: &[u8]) -> io::Result<()> {
        let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let mut file = File::from(openat(&*self.directory.descriptor, partial, flags, Mode::S_IRUSR | Mode::S_IWUSR)?);
        file.write_all(bytes)?;
        self.directory.hand_over(&file)?;
        file.sync_all()
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

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
    fn a_change_is_tried_out_without_one() {
        let base = tempfile::tempdir().unwrap();
        fs::write(base.path().join("keyslots"), "old").unwrap();
        let exclusive = Exclusive::take(base.path()).unwrap();
        exclusive.try_out("keyslots", b"new").unwrap();
        assert_eq!(fs::read(base.path().join("keyslots")).unwrap(), b"old");
        assert_eq!(fs::read_dir(base.path()).unwrap().count(), 1);
        drop(exclusive);
        let gone = OpenDirectory::open(base.path()).unwrap();
        fs::remove_file(base.path().join("keyslots")).unwrap();
        fs::remove_dir(base.path()).unwrap();
        assert!(matches!(gone.exclusive().unwrap().try_out("keyslots", b"new"), Err(DirectoryError::Write { .. })));
    }

    #[test]
    fn two_programs_do_not_change_the_keys_at_once() {
        let base = tempfile::tempdir().unwrap();
        let first = Exclusive::take(base.path()).unwrap();
        assert!(matches!(Exclusive::take(base.path()), Err(DirectoryError::Locked(_))));
        drop(first);
        assert!(Exclusive::take(base.path()).is_ok());
    }
    #[test]
    fn the_right_is_given_back_also_when_the_directory_stays_open() {
        let base = tempfile::tempdir().unwrap();
        let kept = OpenDirectory::open(base.path()).unwrap();
        drop(kept.exclusive().unwrap());
        Exclusive::take(base.path()).unwrap().replace("keyslots", b"new").unwrap();
        assert_eq!(kept.read("keyslots").unwrap(), b"new");
        assert!(matches!(kept.read("other"), Err(DirectoryError::Missing(_))));
    }
}
