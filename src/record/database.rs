//! The database file: opened, or made where none is, and brought to the present schema.
//! Trusts: redb's lock on the file; its crash safety with quick repair.
//! Touches: `STATE/store.redb`.
//! Next: [`super::store`] reads and commits, [`super::migration`] lifts what an older version wrote.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};
use redb::backends::FileBackend;
use redb::{Builder, Database, Durability, TableDefinition, WriteTransaction};

use super::copy;
use super::migration::MigrateError;
use super::schema::Table;
use super::segments::SegmentDirectory;

/// The database below the state directory.
pub(in crate::record) const FILE: &str = "store.redb";
/// Memory for redb's page cache, bytes: well under the daemon's budget, well over a day's headers.
pub(in crate::record) const CACHE_BYTES: usize = 32 << 20;
/// How often a file that was replaced while it was opened is opened again.
const REPLACED_MAX: u32 = 3;

/// A table as redb knows it: keys and sealed values are bytes.
pub(in crate::record) type Definition<'a> = TableDefinition<'a, &'static [u8], &'static [u8]>;

pub(in crate::record) const fn definition(table: Table) -> Definition<'static> {
    TableDefinition::new(table.name())
}

/// Why the store cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenStoreError {
    /// Another daemon has it.
    #[error("{path} is in use: another salamad runs with this state directory")]
    InUse {
        /// The file.
        path: PathBuf,
    },
    /// Opening needs a few pages, and there are none.
    #[error("{path} cannot be opened because the disk is full; free some space on it")]
    Full {
        /// The file.
        path: PathBuf,
    },
    /// The file cannot be opened, or is damaged beyond what a crash leaves.
    #[error("{path} cannot be opened; check its owner and the disk, or restore a backup")]
    Open {
        /// The file.
        path: PathBuf,
        /// What redb says.
        #[source]
        source: Arc<redb::Error>,
    },
    /// The store is gone and its recordings are not: a new store would have all of them swept.
    #[error("{path} is missing, but {audio} holds recordings; restore the store from a backup, or move that directory away to begin anew")]
    Missing {
        /// The file.
        path: PathBuf,
        /// Where the recordings lie.
        audio: PathBuf,
    },
    /// It is of another version, or of another box.
    #[error(transparent)]
    Schema(#[from] MigrateError),
    /// An earlier failure closed it.
    #[error("the store is closed after a failure; check the disk")]
    Closed,
    /// The writer thread could not be started.
    #[error("the store's writer thread could not be started")]
    Thread(#[source] io::Error),
}

impl OpenStoreError {
    /// Why redb did not open `path`.
    pub(in crate::record) fn of(path: &Path, source: redb::Error) -> Self {
        let path = path.to_owned();
        match source {
            redb::Error::DatabaseAlreadyOpen => Self::InUse { path },
            redb::Error::Io(cause) if is_full(&cause) => Self::Full { path },
            source => Self::Open { path, source: Arc::new(source) },
        }
    }

    /// Whether the file was there and could be read, but holds no sound database.
    pub fn is_damage(&self) -> bool {
        let Self::Open { source, .. } = self else { return false };
        match &**source {
            redb::Error::Corrupted(_) | redb::Error::RepairAborted | redb::Error::UpgradeRequired(_) => true,
            // redb says so of a file that does not begin as its files do, or ends too early.
            redb::Error::Io(cause) => matches!(cause.kind(), io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof),
            _ => false,
        }
    }
}

/// No space left, or none for this user.
pub(in crate::record) fn is_full(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOSPC | libc::EDQUOT))
}

/// Opens the database, or makes one where no recordings are that an older one knew.
pub(in crate::record) fn open(path: &Path) -> Result<Database, OpenStoreError> {
    let failed = |error: io::Error| OpenStoreError::of(path, error.into());
    // Two that start at once: the second finds what the first has made, and that it is in use.
    let turn = File::open(path.parent().unwrap_or(path)).map_err(failed)?;
    turn.lock().map_err(failed)?;
    if is_absent(path).map_err(failed)? {
        not_lost(path)?;
        make(path).map_err(|source| OpenStoreError::of(path, source))?;
    }
    drop(turn);
    open_existing(path)
}

/// A store without any record beside recordings is none that knew them: it was lost, and the recordings would be swept.
///
/// # Errors
/// [`OpenStoreError::Missing`].
pub(in crate::record) fn not_lost(path: &Path) -> Result<(), OpenStoreError> {
    let state = path.parent().unwrap_or(path);
    if SegmentDirectory::holds_recordings(state).map_err(|error| OpenStoreError::of(path, error.into()))? {
        return Err(OpenStoreError::Missing { path: path.to_owned(), audio: SegmentDirectory::below(state) });
    }
    Ok(())
}

/// redb does not open again what a crash or a full disk left of a database that it was making. So a new one has its name only once it is
/// whole, and never takes the name of another.
fn make(path: &Path) -> Result<(), redb::Error> {
    let part = copy::unfinished(path);
    for leftover in [&part, path] {
        match fs::remove_file(leftover) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error.into()),
            _ => {}
        }
    }
    let file = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(&part)?;
    builder().create_with_backend(FileBackend::new(file)?)?.close()?;
    File::open(&part)?.sync_all()?;
    renameat2(AT_FDCWD, &part, AT_FDCWD, path, RenameFlags::RENAME_NOREPLACE).map_err(io::Error::from)?;
    Ok(sync_directory(path.parent().unwrap_or(path))?)
}

/// Opens the database that is there.
pub(in crate::record) fn open_existing(path: &Path) -> Result<Database, OpenStoreError> {
    open_file(path).map_err(|source| OpenStoreError::of(path, source))
}

/// A compaction replaces the file. Who opened the old one just before, and got its lock just after, would write to a file that has no
/// name any more: so the lock counts only when the name still leads to the file.
fn open_file(path: &Path) -> Result<Database, redb::Error> {
    for _ in 0..REPLACED_MAX {
        let file = OpenOptions::new().read(true).write(true).open(path)?;
        let found = file.metadata()?;
        if found.len() == 0 {
            // redb would make a new database of it.
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
        }
        let opened = identity(&found);
        let database = guarded(|| Ok(builder().create_with_backend(FileBackend::new(file)?)?))?;
        if fs::metadata(path).is_ok_and(|named| identity(&named) == opened) {
            return Ok(database);
        }
    }
    Err(redb::Error::DatabaseAlreadyOpen)
}

/// redb trusts pages that no checksum has covered yet, and where they are damaged some of its code panics.
pub(in crate::record) fn guarded<T>(read: impl FnOnce() -> Result<T, redb::Error>) -> Result<T, redb::Error> {
    catch_unwind(AssertUnwindSafe(read)).unwrap_or_else(|_| Err(redb::Error::Corrupted("pages lead nowhere".to_owned())))
}

fn identity(file: &fs::Metadata) -> (u64, u64) {
    (file.dev(), file.ino())
}

/// How every database of ours is opened.
pub(in crate::record) fn builder() -> Builder {
    let mut builder = Builder::new();
    builder.set_cache_size(CACHE_BYTES);
    builder.set_repair_callback(|session| {
        // Quick repair makes this needless after a crash: it means damage, or another program's hand.
        tracing::warn!(percent = session.progress() * 100.0, "the store was not closed in order and is being repaired");
    });
    builder
}

/// An empty file is as good as none: redb makes a new database of it.
fn is_absent(path: &Path) -> io::Result<bool> {
    match fs::metadata(path) {
        Ok(found) => Ok(found.len() == 0),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(true),
        Err(error) => Err(error),
    }
}

/// Whether a daemon has the store of this state directory, without reading a byte of it. It may come the moment after: whoever opens
/// the store is told again.
///
/// # Errors
/// When the file cannot be opened; an absent one is in nobody's use.
pub fn is_in_use(state: &Path) -> io::Result<bool> {
    let file = match File::open(state.join(FILE)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        file => file?,
    };
    match file.try_lock_shared() {
        Ok(()) => Ok(false),
        Err(TryLockError::WouldBlock) => Ok(true),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

/// One durable transaction.
pub(in crate::record) fn transact<T>(
    database: &Database,
    write: impl FnOnce(&WriteTransaction) -> Result<T, redb::Error>,
) -> Result<T, redb::Error> {
    let mut transaction = database.begin_write()?;
    transaction.set_durability(Durability::Immediate)?;
    // Without it a crash costs seconds of repair at the next start; the price is about twice the commit time.
    transaction.set_quick_repair(true);
    let written = write(&transaction)?;
    transaction.commit()?;
    Ok(written)
}

/// Makes the directory's entries durable.
pub(in crate::record) fn sync_directory(directory: &Path) -> io::Result<()> {
    File::open(directory)?.sync_all()
}
