//! What a copy of the store does to files, one operation each, so that a disk of a test's own can fail at any of them.
//! Trusts: the file system.
//! Touches: files beside the store.
//! Next: [`super::copy`] says what and in which order.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use redb::backends::FileBackend;
use redb::{DatabaseError, StorageBackend, StorageError};

use super::database;

/// The operations.
pub(in crate::record) trait Files {
    /// A file that a database is written into.
    type Opened: StorageBackend;

    /// Removes a file; one that is gone is no error.
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// Makes a file that is not there yet, and opens it.
    fn create(&self, path: &Path) -> io::Result<Self::Opened>;
    /// Makes durable what was written into a file, by whomever.
    fn sync(&self, path: &Path) -> io::Result<()>;
    /// Gives a file another name, in the place of what has that name.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Makes the names in the directory of `path` durable.
    fn sync_names(&self, path: &Path) -> io::Result<()>;
}

/// Those of the machine.
pub(in crate::record) struct Machine;

impl Files for Machine {
    type Opened = FileBackend;

    fn remove(&self, path: &Path) -> io::Result<()> {
        match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    fn create(&self, path: &Path) -> io::Result<FileBackend> {
        let made = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(path)?;
        FileBackend::new(made).map_err(|error| match error {
            DatabaseError::Storage(StorageError::Io(cause)) => cause,
            error => io::Error::other(error),
        })
    }

    fn sync(&self, path: &Path) -> io::Result<()> {
        File::open(path)?.sync_all()
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn sync_names(&self, path: &Path) -> io::Result<()> {
        database::sync_directory(path.parent().unwrap_or(path))
    }
}
