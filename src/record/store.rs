//! The store: sealed records in redb, snapshot readers, one writer thread.
//! Trusts: redb's crash safety with quick repair; nothing that it reads back, which only opens when it is genuine.
//! Touches: `STATE/store.redb`, `STATE/ballast`.
//! Next: [`super::writer`] commits; `job` reads and submits.

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock, mpsc};
use std::thread::JoinHandle;

use redb::Database;

pub use super::batch::{Batch, Outcome};
pub use super::database::OpenStoreError;
use super::database::{self, is_full};
use super::envelope::SealedRecord;
use super::index::IndexKeys;
use super::schema::Slot;
pub use super::snapshot::Snapshot;
use super::space::Ballast;
use super::{copy, migration, writer};
use crate::base::told::told;

/// Batches that may wait for the writer before submitters do.
const WAITING_MAX: usize = 256;

/// An opened store that runs no thread yet, so that it can be opened before confinement.
pub struct OpenStore {
    shared: Arc<Shared>,
}

/// Why a read or a commit failed. Nothing of a failed batch is stored; after `Failed`, when the store cannot be opened again either,
/// nobody knows: then all of it may be found stored at the next start, or nothing.
#[derive(Clone, Debug, thiserror::Error)]
pub enum StoreError {
    /// No space left.
    #[error("the disk is full; free some space on it")]
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
            redb::Error::Io(cause) if is_full(cause) => Self::Full,
            _ => Self::Failed(Arc::new(error)),
        }
    }
}

/// Opens the database; again after a failure.
pub(in crate::record) type Opener = Box<dyn Fn() -> Result<Database, OpenStoreError> + Send + Sync>;

/// What the writer and the readers share.
pub(in crate::record) struct Shared {
    opener: Opener,
    /// The state since the last commit, for readers: to open it costs more than to read a record. Before the database, so that it
    /// is dropped first.
    snapshot: Mutex<Option<Arc<Snapshot>>>,
    database: RwLock<Option<Database>>,
    pub(in crate::record) ballast: Ballast,
    ballast_gone: AtomicBool,
    copies_gone: Mutex<bool>,
    commits: AtomicU64,
    #[cfg(test)]
    pub(in crate::record) trouble: Mutex<Trouble>,
}

/// What a test lets go wrong.
#[cfg(test)]
#[derive(Default)]
pub(in crate::record) struct Trouble {
    /// The next commit that writes here is stored, or is not; nobody is told which.
    pub(in crate::record) loses_answer: Option<(Slot, bool)>,
    /// The database cannot be opened.
    pub(in crate::record) shut: bool,
}

impl OpenStore {
    /// Opens or makes the store in the state directory, lifts it to the present schema and holds `ballast` bytes.
    ///
    /// # Errors
    /// [`OpenStoreError`]. A disk too full for the ballast is no error: see [`Store::has_ballast`].
    pub fn open(state: &Path, ballast: u64, index: &IndexKeys) -> Result<Self, OpenStoreError> {
        let path = state.join(database::FILE);
        let opened = path.clone();
        let store = Self::open_by(Box::new(move || database::open(&opened)), Ballast::new(state, ballast))?;
        store.with(|database| {
            copy::remove_unfinished(&path).map_err(|error| OpenStoreError::of(&path, error.into()))?;
            if migration::is_marked(database, &path)?.is_none() {
                database::not_lost(&path)?;
            }
            Ok(migration::bring_up_to_date(database, &path, index)?)
        })?;
        Ok(store)
    }

    /// Opens what `opener` opens, of whatever schema it is.
    pub(in crate::record) fn open_by(opener: Opener, ballast: Ballast) -> Result<Self, OpenStoreError> {
        let database = opener()?;
        let held = ballast.hold().is_ok();
        Ok(Self {
            shared: Arc::new(Shared {
                opener,
                snapshot: Mutex::new(None),
                database: RwLock::new(Some(database)),
                ballast,
                ballast_gone: AtomicBool::new(!held),
                copies_gone: Mutex::new(false),
                commits: AtomicU64::new(0),
                #[cfg(test)]
                trouble: Mutex::default(),
            }),
        })
    }

    /// Its file.
    pub(in crate::record) fn path(&self) -> std::path::PathBuf {
        self.shared.ballast.beside(database::FILE)
    }

    /// Works on the database before anybody else does.
    pub(in crate::record) fn with<T>(&self, work: impl FnOnce(&Database) -> Result<T, OpenStoreError>) -> Result<T, OpenStoreError> {
        let database = self.shared.database.read().unwrap_or_else(PoisonError::into_inner);
        // It is open until a commit fails, and there was none.
        work(database.as_ref().ok_or(OpenStoreError::Closed)?)
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
        self.inner.shared.view(read)
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

    /// Removes the copies of other stores that migrations and starts with leave kept: each holds the keys of calls that may be erased next.
    ///
    /// # Errors
    /// When one cannot be removed.
    pub(in crate::record) fn forget_copies(&self) -> Result<(), copy::ForgetError> {
        let shared = &self.inner.shared;
        let mut gone = shared.copies_gone.lock().unwrap_or_else(PoisonError::into_inner);
        if !*gone {
            // None is made while this store is open: once they are durably gone, they are.
            copy::forget_kept(&shared.ballast.beside(database::FILE))?;
            *gone = true;
        }
        Ok(())
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

    /// Lets the next commit that writes `slot` be stored, or not, with its answer lost; then the database stays shut.
    #[cfg(test)]
    pub(crate) fn lose_answer_for_test(&self, slot: Slot, stored: bool) {
        self.inner.shared.trouble.lock().unwrap_or_else(PoisonError::into_inner).loses_answer = Some((slot, stored));
    }

    /// Lets it open again.
    #[cfg(test)]
    pub(crate) fn open_for_test(&self) {
        self.inner.shared.trouble.lock().unwrap_or_else(PoisonError::into_inner).shut = false;
        self.inner.shared.reopen();
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

impl Shared {
    /// Reads on what the last commit left.
    pub(in crate::record) fn view<T, E: From<StoreError>>(&self, read: impl FnOnce(&Snapshot) -> Result<T, E>) -> Result<T, E> {
        let database = self.database.read().unwrap_or_else(PoisonError::into_inner);
        let database = database.as_ref().ok_or(StoreError::Closed)?;
        let snapshot = self.newest(database)?;
        read(&snapshot)
    }

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
        let written = database::transact(database, write);
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
        #[cfg(test)]
        if self.trouble.lock().unwrap_or_else(PoisonError::into_inner).shut {
            return;
        }
        match (self.opener)() {
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
