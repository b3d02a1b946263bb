//! The store: sealed records in redb, snapshot readers, one writer thread.
//! Trusts: redb's crash safety with quick repair; nothing that it reads back, which only opens when it is genuine.
//! Touches: `STATE/store.redb`, `STATE/ballast`.
//! Next: [`super::writer`] commits; `job` reads and submits.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock, mpsc};
use std::thread::JoinHandle;

use redb::{Builder, Database, Durability, ReadOnlyTable, ReadableDatabase, TableDefinition, TableHandle};

use super::envelope::SealedRecord;
use super::schema::{Slot, Table};
use super::segments::SegmentDirectory;
use super::space::Ballast;
use super::writer;
use crate::base::told::told;

/// Memory for redb's page cache, bytes: well under the daemon's budget, well over a day's headers.
const CACHE_BYTES: usize = 32 << 20;
/// Batches that may wait for the writer before submitters do.
const WAITING_MAX: usize = 256;

pub(in crate::record) const fn definition(table: Table) -> TableDefinition<'static, &'static [u8], &'static [u8]> {
    TableDefinition::new(table.name())
}

/// An opened store that runs no thread yet, so that it can be opened before confinement.
pub struct OpenStore {
    shared: Arc<Shared>,
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
    /// The writer thread could not be started.
    #[error("the store's writer thread could not be started")]
    Thread(#[source] io::Error),
}

/// Why a read or a commit failed. Nothing of a failed batch is stored.
#[derive(Clone, Debug, thiserror::Error)]
pub enum StoreError {
    /// No space left.
    #[error("the disk is full")]
    Full,
    /// The disk or the file system failed.
    #[error("the store failed; check the disk")]
    Failed(#[source] Arc<redb::Error>),
    /// An earlier failure closed the store and it could not be opened again yet.
    #[error("the store is closed after a failure; check the disk")]
    Closed,
}

impl From<redb::Error> for StoreError {
    fn from(error: redb::Error) -> Self {
        match &error {
            redb::Error::Io(cause) if matches!(cause.raw_os_error(), Some(libc::ENOSPC | libc::EDQUOT)) => Self::Full,
            _ => Self::Failed(Arc::new(error)),
        }
    }
}

/// What the writer and the readers share.
pub(in crate::record) struct Shared {
    path: PathBuf,
    /// The state since the last commit, for readers: to open it costs more than to read a record. Before the database, so that it
    /// is dropped first.
    snapshot: Mutex<Option<Arc<Snapshot>>>,
    database: RwLock<Option<Database>>,
    pub(in crate::record) ballast: Ballast,
    ballast_gone: AtomicBool,
    commits: AtomicU64,
}

impl OpenStore {
    /// Opens or makes the store in the state directory and holds `ballast` bytes.
    ///
    /// # Errors
    /// [`OpenStoreError`]. A disk too full for the ballast is no error: see [`Store::has_ballast`].
    pub fn open(state: &Path, ballast: u64) -> Result<Self, OpenStoreError> {
        let path = state.join("store.redb");
        let database = open_database(&path)?;
        let ballast = Ballast::new(state, ballast);
        let held = ballast.hold().is_ok();
        Ok(Self {
            shared: Arc::new(Shared {
                path,
                snapshot: Mutex::new(None),
                database: RwLock::new(Some(database)),
                ballast,
                ballast_gone: AtomicBool::new(!held),
                commits: AtomicU64::new(0),
            }),
        })
    }

    /// Starts the writer thread.
    ///
    /// # Errors
    /// `Thread`.
    pub fn start(self) -> Result<Store, OpenStoreError> {
        self.start_with(writer::run)
    }

    /// Starts `writer` as the writer thread.
    pub(in crate::record) fn start_with(
        self,
        writer: impl FnOnce(&Shared, &mpsc::Receiver<writer::Submission>) + Send + 'static,
    ) -> Result<Store, OpenStoreError> {
        let (submit, submitted) = mpsc::sync_channel(WAITING_MAX);
        let shared = Arc::clone(&self.shared);
        let thread = std::thread::Builder::new()
            .name("store-writer".into())
            .spawn(move || writer(&shared, &submitted))
            .map_err(OpenStoreError::Thread)?;
        Ok(Store { inner: Arc::new(Inner { shared: self.shared, submit: Some(submit), thread: Some(thread) }) })
    }
}

/// The running store; cheap to clone. The last one dropped ends the writer and closes the file.
#[derive(Clone)]
pub struct Store {
    inner: Arc<Inner>,
}

struct Inner {
    shared: Arc<Shared>,
    submit: Option<mpsc::SyncSender<writer::Submission>>,
    thread: Option<JoinHandle<()>>,
}

impl Drop for Inner {
    fn drop(&mut self) {
        drop(self.submit.take());
        if let Some(thread) = self.thread.take() {
            // A writer that panicked has nothing left to wait for.
            let _ = thread.join();
        }
    }
}

/// Changes that become durable together or not at all.
#[derive(Default)]
pub struct Batch {
    pub(in crate::record) requirements: Vec<Requirement>,
    pub(in crate::record) changes: Vec<(Slot, Option<SealedRecord>)>,
    pub(in crate::record) exchanges: Vec<(Slot, SealedRecord, SealedRecord)>,
    pub(in crate::record) frees: bool,
}

pub(in crate::record) enum Requirement {
    Absent(Slot),
    Unchanged(Slot, SealedRecord),
}

impl Batch {
    /// An empty batch.
    pub fn new() -> Self {
        Self::default()
    }

    /// Nothing is stored unless `slot` is empty.
    #[must_use]
    pub fn require_absent(mut self, slot: Slot) -> Self {
        self.requirements.push(Requirement::Absent(slot));
        self
    }

    /// Nothing is stored unless `slot` still holds what was read from it. Each sealing has its own nonce, so equal bytes are the same write.
    #[must_use]
    pub fn require_unchanged(mut self, slot: Slot, read: SealedRecord) -> Self {
        self.requirements.push(Requirement::Unchanged(slot, read));
        self
    }

    /// Stores a value.
    #[must_use]
    pub fn put(mut self, slot: Slot, value: SealedRecord) -> Self {
        self.changes.push((slot, Some(value)));
        self
    }

    /// Stores `new` where `old` still is; where it is not, that slot alone is left as it is.
    pub fn exchange(&mut self, slot: Slot, old: SealedRecord, new: SealedRecord) {
        self.exchanges.push((slot, old, new));
    }

    /// Removes a value; an empty slot is no error.
    #[must_use]
    pub fn delete(mut self, slot: Slot) -> Self {
        self.changes.push((slot, None));
        self
    }

    /// Marks an erasure: on a full disk the ballast is given up for it.
    #[must_use]
    pub const fn freeing(mut self) -> Self {
        self.frees = true;
        self
    }
}

/// What became of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Outcome {
    /// Durable.
    Committed,
    /// A requirement did not hold; nothing was stored.
    Conflict,
}

/// A batch that the writer has and that is not durable yet.
#[must_use]
pub struct Pending {
    answer: mpsc::Receiver<Result<Outcome, StoreError>>,
}

impl Pending {
    /// Waits until the batch is durable. Blocks: not for async code.
    ///
    /// # Errors
    /// [`StoreError`]; then nothing of the batch is stored.
    pub fn wait(self) -> Result<Outcome, StoreError> {
        self.answer.recv().map_err(|_| StoreError::Closed)?
    }
}

impl Store {
    /// Waits until the batch is durable. Blocks: not for async code.
    ///
    /// # Errors
    /// [`StoreError`]; then nothing of the batch is stored.
    pub fn commit(&self, batch: Batch) -> Result<Outcome, StoreError> {
        self.submit(batch)?.wait()
    }

    /// Hands a batch to the writer, which stores batches in the order in which they were handed over.
    ///
    /// # Errors
    /// `Closed`.
    pub fn submit(&self, batch: Batch) -> Result<Pending, StoreError> {
        let (reply, answer) = mpsc::sync_channel(1);
        let submit = self.inner.submit.as_ref().ok_or(StoreError::Closed)?;
        submit.send(writer::Submission { batch, reply }).map_err(|_| StoreError::Closed)?;
        Ok(Pending { answer })
    }

    /// Reads on one consistent snapshot. Keep it short: the store cannot be reopened meanwhile.
    ///
    /// # Errors
    /// What `read` returns; `Closed`.
    pub fn view<T, E: From<StoreError>>(&self, read: impl FnOnce(&Snapshot) -> Result<T, E>) -> Result<T, E> {
        let database = self.inner.shared.database.read().unwrap_or_else(PoisonError::into_inner);
        let database = database.as_ref().ok_or(StoreError::Closed)?;
        let snapshot = self.inner.shared.newest(database)?;
        read(&snapshot)
    }

    /// One record.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn get(&self, slot: &Slot) -> Result<Option<SealedRecord>, StoreError> {
        self.view(|snapshot| snapshot.get(slot))
    }

    /// Durable commits since the start.
    pub fn commits(&self) -> u64 {
        self.inner.shared.commits.load(Ordering::Relaxed)
    }

    /// Whether the ballast is held; without it the next erasure on a full disk may fail.
    pub fn has_ballast(&self) -> bool {
        !self.inner.shared.ballast_gone.load(Ordering::Relaxed)
    }

    /// Whether the database is open and its writer lives.
    pub fn is_open(&self) -> bool {
        let writes = self.inner.thread.as_ref().is_some_and(|thread| !thread.is_finished());
        writes && self.inner.shared.is_open()
    }

    /// Closes the database as a failure does that it could not be opened after.
    #[cfg(test)]
    pub(crate) fn close_for_test(&self) {
        drop(self.inner.shared.database.write().unwrap_or_else(PoisonError::into_inner).take());
    }

    /// Takes the ballast back after it was given up and space was freed. Returns whether it is held now.
    pub fn restore_ballast(&self) -> bool {
        let shared = &self.inner.shared;
        if shared.ballast_gone.load(Ordering::Relaxed) && shared.ballast.hold().is_ok() {
            shared.ballast_gone.store(false, Ordering::Relaxed);
        }
        self.has_ballast()
    }
}

type Opened = ReadOnlyTable<&'static [u8], &'static [u8]>;

/// A consistent view.
pub struct Snapshot {
    tables: Vec<(Table, Opened)>,
}

impl Snapshot {
    fn open(database: &Database) -> Result<Self, redb::Error> {
        let transaction = database.begin_read()?;
        let tables = Table::ALL.iter().map(|table| Ok((*table, transaction.open_table(definition(*table))?)));
        Ok(Self { tables: tables.collect::<Result<_, redb::Error>>()? })
    }

    fn table(&self, wanted: Table) -> Result<&Opened, StoreError> {
        // All are opened, in a short list.
        self.tables.iter().find(|(table, _)| *table == wanted).map(|(_, opened)| opened).ok_or(StoreError::Closed)
    }

    /// One record.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn get(&self, slot: &Slot) -> Result<Option<SealedRecord>, StoreError> {
        let value = self.table(slot.table())?.get(slot.key()).map_err(redb::Error::from)?;
        Ok(value.map(|value| SealedRecord::from_stored(value.value())))
    }

    /// At most `limit` records of `table` whose keys are `prefix` followed by a job number below `before`, highest first.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn newest(&self, table: Table, prefix: &[u8], before: u64, limit: usize) -> Result<Vec<(Slot, SealedRecord)>, StoreError> {
        let lowest = [prefix, &0_u64.to_be_bytes()].concat();
        let end = [prefix, &before.to_be_bytes()].concat();
        let range = self.table(table)?.range(lowest.as_slice()..end.as_slice()).map_err(redb::Error::from)?;
        let found = range.rev().take(limit).map(|entry| found(table, entry));
        found.collect()
    }

    /// All records of `table`, by key.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn all(&self, table: Table) -> Result<Vec<(Slot, SealedRecord)>, StoreError> {
        let range = self.table(table)?.range::<&[u8]>(..).map_err(redb::Error::from)?;
        range.map(|entry| found(table, entry)).collect()
    }
}

type Entry<'a> = (redb::AccessGuard<'a, &'static [u8]>, redb::AccessGuard<'a, &'static [u8]>);

fn found(table: Table, entry: Result<Entry<'_>, redb::StorageError>) -> Result<(Slot, SealedRecord), StoreError> {
    let (key, value) = entry.map_err(redb::Error::from)?;
    Ok((Slot::found(table, key.value()), SealedRecord::from_stored(value.value())))
}

impl Shared {
    /// What the last commit left. A reader that begins before a commit and finds it after is no fault: nobody has been told of that
    /// commit before the old snapshot was put away.
    fn newest(&self, database: &Database) -> Result<Arc<Snapshot>, StoreError> {
        let mut kept = self.snapshot.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(snapshot) = &*kept {
            return Ok(Arc::clone(snapshot));
        }
        let snapshot = Arc::new(Snapshot::open(database)?);
        *kept = Some(Arc::clone(&snapshot));
        Ok(snapshot)
    }

    /// The next reader takes a new one. Old pages are freed once the last reader of the old one has gone.
    fn put_snapshot_away(&self) {
        drop(self.snapshot.lock().unwrap_or_else(PoisonError::into_inner).take());
    }

    /// Runs `write` in one durable transaction and counts it.
    pub(in crate::record) fn transact<T>(
        &self,
        write: impl FnOnce(&redb::WriteTransaction) -> Result<T, redb::Error>,
    ) -> Result<T, StoreError> {
        let database = self.database.read().unwrap_or_else(PoisonError::into_inner);
        let database = database.as_ref().ok_or(StoreError::Closed)?;
        // Before, so that it keeps no pages from being used again; after, so that nobody reads what is old.
        self.put_snapshot_away();
        let written = transact(database, write);
        self.put_snapshot_away();
        let written = written?;
        self.commits.fetch_add(1, Ordering::Relaxed);
        Ok(written)
    }

    /// Whether the database is open.
    pub(in crate::record) fn is_open(&self) -> bool {
        self.database.read().unwrap_or_else(PoisonError::into_inner).is_some()
    }

    /// After a failed write redb takes no more until it is opened again (`PreviousIo`).
    pub(in crate::record) fn reopen(&self) {
        let mut database = self.database.write().unwrap_or_else(PoisonError::into_inner);
        self.put_snapshot_away();
        // The old one holds the file's lock until it is dropped.
        drop(database.take());
        match open_database(&self.path) {
            Ok(opened) => *database = Some(opened),
            Err(error) => tracing::error!(error = %told(&error), "the store could not be opened again after a failure"),
        }
    }

    pub(in crate::record) fn release_ballast(&self) {
        self.ballast_gone.store(true, Ordering::Relaxed);
        if let Err(error) = self.ballast.release() {
            tracing::error!(error = %error, "the ballast could not be given up");
        }
    }
}

fn transact<T>(database: &Database, write: impl FnOnce(&redb::WriteTransaction) -> Result<T, redb::Error>) -> Result<T, redb::Error> {
    let mut transaction = database.begin_write()?;
    transaction.set_durability(Durability::Immediate)?;
    // Without it a crash costs seconds of repair at the next start; the price is about twice the commit time.
    transaction.set_quick_repair(true);
    let written = write(&transaction)?;
    transaction.commit()?;
    Ok(written)
}

/// Opens the store, or makes one where no recordings are that an older one knew.
fn open_database(path: &Path) -> Result<Database, OpenStoreError> {
    let failed = |source| match source {
        redb::Error::DatabaseAlreadyOpen => OpenStoreError::InUse { path: path.to_owned() },
        source => OpenStoreError::Open { path: path.to_owned(), source: Arc::new(source) },
    };
    let state = path.parent().unwrap_or(path);
    if is_absent(path).map_err(|error| failed(error.into()))?
        && SegmentDirectory::holds_recordings(state).map_err(|error| failed(error.into()))?
    {
        return Err(OpenStoreError::Missing { path: path.to_owned(), audio: SegmentDirectory::below(state) });
    }
    create_database(path).map_err(failed)
}

/// An empty file is as good as none: redb makes a new database of it.
fn is_absent(path: &Path) -> io::Result<bool> {
    match std::fs::metadata(path) {
        Ok(found) => Ok(found.len() == 0),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(true),
        Err(error) => Err(error),
    }
}

fn create_database(path: &Path) -> Result<Database, redb::Error> {
    let database = Builder::new().set_cache_size(CACHE_BYTES).create(path)?;
    let known: Vec<String> = database.begin_read()?.list_tables()?.map(|table| table.name().to_owned()).collect();
    if Table::ALL.iter().any(|table| !known.iter().any(|name| name == table.name())) {
        transact(&database, |transaction| {
            Table::ALL.iter().try_for_each(|table| transaction.open_table(definition(*table)).map(drop)).map_err(redb::Error::from)
        })?;
    }
    Ok(database)
}
