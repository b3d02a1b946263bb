//! The desk of calls: everything the API may do with them, in one place.
//! Trusts: the caller holds the `Permit` for what it asks.
//! Touches: `record`, `keys`, `supervisor`, `audit`.
//! Next: `api` turns answers and errors into replies.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::{Semaphore, mpsc};

use super::border::{Children, KeyError, KeySource};
use super::desk::{Desk, DeskError, record_fault};
use super::epoch;
use super::events::Hub;
use super::hindrance::Hindrance;
use super::intake::Incoming;
use super::moves::Moves;
use super::runner;
pub use super::settings::JobSettings;
use super::spec::{CallEvent, CallExport, CallMetadata, CallPage, CallView, ErasureView, RedactedText, Scope, Transcript};
use super::tally::{Counts, Tally};
use super::upload::{Upload, off_thread};
use crate::base::clock::Clock;
use crate::base::ids::CallId;
use crate::ipc::keeper::KeeperDenial;
use crate::ipc::worker::TEXT_CHARS_MAX;
use crate::record::index::IndexKeys;
use crate::record::segments::SegmentDirectory;
use crate::record::space::Space;
use crate::record::store::Store;

/// What the desk is made of.
pub struct CallsParts {
    /// The running store.
    pub store: Store,
    /// Sub-keys of the keeper's index key.
    pub index: IndexKeys,
    /// The keeper.
    pub keeper: Arc<dyn KeySource>,
    /// Where children come from.
    pub supervisor: Arc<dyn Children>,
    /// Limits.
    pub settings: JobSettings,
    /// Wall-clock time.
    pub clock: Arc<dyn Clock>,
}

/// Handle to the desk; cheap to clone.
#[derive(Clone)]
pub struct Calls {
    desk: Arc<Desk>,
    texts: Arc<Semaphore>,
    runners: Arc<Mutex<Vec<JoinHandle<()>>>>,
}

/// Why the desk cannot open.
#[derive(Debug, thiserror::Error)]
pub enum OpenCallsError {
    /// The directory of recordings cannot be used.
    #[error("the directory of recordings cannot be used; check the state directory and its owner")]
    Segments(#[source] crate::record::segments::SegmentError),
    /// What opens the store was destroyed.
    #[error(transparent)]
    OtherEpoch(KeeperDenial),
    /// What an earlier life left cannot be read.
    #[error("the calls of an earlier run cannot be read: {reason}")]
    Recover {
        /// The faults, without content.
        reason: String,
    },
    /// No thread.
    #[error("a runner thread could not be started")]
    Thread(#[source] std::io::Error),
}

/// How the desk is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeskHealth {
    /// The store is open and its writer lives.
    pub store: bool,
    /// Erasures on a full disk are safe.
    pub ballast: bool,
    /// Uploads are admitted as far as the disk goes.
    pub space: bool,
    /// The fork server lives.
    pub workers: bool,
    /// All runner threads live, or the desk stops: no call would wait for ever.
    pub runners: bool,
    /// What calls were set back for that wait to be tried again.
    pub hindrances: BTreeSet<Hindrance>,
    /// Calls that wait.
    pub waiting: usize,
    /// Calls that run and texts that are redacted.
    pub running: usize,
    /// Durable commits since the start.
    pub commits: u64,
}

/// What a complete upload is.
#[derive(Debug)]
pub enum Arrival {
    /// A new call, durable and queued.
    New(CallView),
    /// The same recording as the same uploader sent before with the same idempotency key and metadata: its call as it is now.
    Repeated(CallView),
}

/// Why the desk refuses.
#[derive(Debug, thiserror::Error)]
pub enum CallsError {
    /// No such call, or not one the reader may see.
    #[error("there is no such call")]
    NotFound,
    /// The recording has no bytes.
    #[error("the recording is empty")]
    Empty,
    /// The recording is larger than the limit.
    #[error("the recording is larger than {limit} bytes")]
    TooLarge {
        /// Bytes.
        limit: u64,
    },
    /// An idempotency key came again with another recording or metadata.
    #[error("this Idempotency-Key was used before for another request")]
    IdempotencyConflict,
    /// The call has no transcript yet, or never will.
    #[error("the call has no transcript: it is {0:?}")]
    NoTranscript(super::spec::CallState),
    /// The call has ended, so it cannot be cancelled.
    #[error("the call has already ended: it is {0:?}")]
    AlreadyFinal(super::spec::CallState),
    /// As many calls wait as may.
    #[error("the queue is full; try again later")]
    QueueFull,
    /// The disk is full, or nearly.
    #[error("the disk is full")]
    Full,
    /// The keeper's limit is reached.
    #[error("the key keeper's limit is reached; try again later")]
    KeyLimit {
        /// Until when.
        wait: Duration,
    },
    /// Erasures were made final too often.
    #[error("erasures were made final too often in a short time; this one becomes final by itself")]
    FinalLater {
        /// Until when.
        wait: Duration,
    },
    /// The text is empty or too long.
    #[error("the text must have 1 to {max} characters")]
    TextLength {
        /// Most characters.
        max: usize,
    },
    /// A cursor that this appliance did not give.
    #[error("the cursor is not one that this appliance gave")]
    BadCursor,
    /// The work failed in the worker.
    #[error("the worker failed: {0}")]
    Worker(crate::ipc::worker::CallFailure),
    /// No worker is free for text now.
    #[error("all workers are busy; try again later")]
    Busy,
    /// A fault of ours; its cause is in the journal.
    #[error("the appliance failed; its journal says why")]
    Internal,
}

impl Calls {
    /// Opens the desk: clears up after an earlier life, starts the runner threads. Only after confinement.
    ///
    /// # Errors
    /// [`OpenCallsError`].
    pub fn open(parts: CallsParts) -> Result<Self, OpenCallsError> {
        let CallsParts { store, index, keeper, supervisor, settings, clock } = parts;
        let recover = |error: DeskError| {
            record_fault("recover", None, &error);
            OpenCallsError::Recover { reason: error.to_string() }
        };
        let last_job = Desk::last_job_stored(&store, &index).map_err(recover)?;
        let desk = Arc::new(Desk {
            segments: SegmentDirectory::open(&settings.state).map_err(OpenCallsError::Segments)?,
            space: Space::new(&settings.state, settings.reserve),
            hub: Hub::default(),
            queue: Desk::empty_queue(settings.queue),
            last_job: Mutex::new(last_job),
            running: Mutex::new(HashMap::new()),
            tally: Tally::default(),
            moves: Moves::default(),
            keys: keeper,
            children: supervisor,
            store,
            index,
            settings,
            clock,
        });
        desk.settle_epoch().map_err(|error| match error {
            DeskError::Key(KeyError::OtherEpoch(denial)) => OpenCallsError::OtherEpoch(denial),
            error => recover(error),
        })?;
        desk.recover().map_err(recover)?;
        let runner = |number| {
            let desk = Arc::clone(&desk);
            std::thread::Builder::new().name(format!("runner-{number}")).spawn(move || runner::run(&desk))
        };
        let runners: Result<Vec<_>, _> = (0..desk.settings.concurrent.max(1)).map(runner).collect();
        let runners = Arc::new(Mutex::new(runners.map_err(OpenCallsError::Thread)?));
        let mover = Arc::clone(&desk);
        let mover = std::thread::Builder::new().name("epoch".into()).spawn(move || epoch::run(&mover)).map_err(OpenCallsError::Thread)?;
        runners.lock().unwrap_or_else(PoisonError::into_inner).push(mover);
        let texts = Arc::new(Semaphore::new(desk.settings.text_concurrent.max(1).into()));
        Ok(Self { desk, texts, runners })
    }

    /// Stops the work: children are stopped, their calls wait again, durable, without losing an attempt. Blocks until the runners have ended.
    pub fn stop(&self) {
        self.desk.queue.stop();
        self.desk.stop_moves();
        // A child that is registered after this is stopped by who registers it.
        self.desk.stop_children();
        let runners = std::mem::take(&mut *self.runners.lock().unwrap_or_else(PoisonError::into_inner));
        for runner in runners {
            // A runner that panicked has ended, too; its call is found running at the next start.
            let _ = runner.join();
        }
    }

    /// How the desk is, for health and metrics. Blocks for a moment when the ballast is taken back.
    pub fn health(&self) -> DeskHealth {
        let desk = &self.desk;
        let space = desk.space.admits(0);
        DeskHealth {
            store: desk.store.is_open(),
            // Room may have come back by other ways than an erasure.
            ballast: if space { desk.store.restore_ballast() } else { desk.store.has_ballast() },
            space,
            workers: !desk.children.lost(),
            runners: self.runners_live(),
            hindrances: desk.queue.hindrances(),
            waiting: desk.queue.len(),
            running: desk.running.lock().unwrap_or_else(PoisonError::into_inner).len(),
            commits: desk.store.commits(),
        }
    }

    /// A runner ends by itself only when the desk stops; else it panicked.
    fn runners_live(&self) -> bool {
        let ended = self.runners.lock().unwrap_or_else(PoisonError::into_inner).iter().any(JoinHandle::is_finished);
        !ended || self.desk.queue.is_stopping()
    }

    /// What was counted, for metrics.
    pub fn counts(&self) -> Counts {
        self.desk.tally.read()
    }

    /// Begins an upload by `owner` (`role/name`). One whose key and metadata came before is admitted too, even when nothing else
    /// is: [`Upload::finish`] compares the recordings.
    ///
    /// # Errors
    /// `QueueFull`, `Full`, `KeyLimit`, `Internal`; `IdempotencyConflict` when the key came before with other metadata.
    pub async fn admit(&self, owner: &str, metadata: CallMetadata, idempotency_key: Option<&str>) -> Result<Upload, CallsError> {
        let (desk, owner, key) = (Arc::clone(&self.desk), owner.to_owned(), idempotency_key.map(str::to_owned));
        let limit = desk.settings.max_audio_bytes;
        off_thread("admit", None, move || Ok(Upload::new(Incoming::admit(&desk, &owner, &metadata, key.as_deref())?, limit))).await
    }

    /// A page of the calls in `scope`, newest first.
    ///
    /// # Errors
    /// `BadCursor`, `Internal`.
    pub async fn list(&self, scope: &Scope, cursor: Option<&str>, limit: u16) -> Result<CallPage, CallsError> {
        let (desk, scope, cursor) = (Arc::clone(&self.desk), scope.clone(), cursor.map(str::to_owned));
        off_thread("list calls", None, move || desk.page(&scope, cursor.as_deref(), limit)).await
    }

    /// One call.
    ///
    /// # Errors
    /// `NotFound` also when it is outside `scope`.
    pub async fn get(&self, scope: &Scope, id: CallId) -> Result<CallView, CallsError> {
        let (desk, scope) = (Arc::clone(&self.desk), scope.clone());
        off_thread("read call", Some(id), move || Ok(desk.view(&desk.header(&scope, id)?))).await
    }

    /// The redacted transcript.
    ///
    /// # Errors
    /// `NotFound`, `NoTranscript`, `KeyLimit`, `Internal`.
    pub async fn transcript(&self, scope: &Scope, id: CallId) -> Result<Transcript, CallsError> {
        let (desk, scope) = (Arc::clone(&self.desk), scope.clone());
        off_thread("read transcript", Some(id), move || desk.transcript(&scope, id)).await
    }

    /// Events after number `after`, then live ones; the channel closes after the final state, or when the reader lags too far:
    /// it then comes again with the last number it saw.
    ///
    /// # Errors
    /// `NotFound`.
    pub async fn watch(&self, scope: &Scope, id: CallId, after: u64) -> Result<mpsc::Receiver<CallEvent>, CallsError> {
        let (desk, scope) = (Arc::clone(&self.desk), scope.clone());
        off_thread("watch call", Some(id), move || desk.watch(&scope, id, after)).await
    }

    /// Stops the job. Cancelling a cancelled call is no error.
    ///
    /// # Errors
    /// `NotFound`, `AlreadyFinal`.
    pub async fn cancel(&self, scope: &Scope, id: CallId) -> Result<CallView, CallsError> {
        let (desk, scope) = (Arc::clone(&self.desk), scope.clone());
        off_thread("cancel call", Some(id), move || Ok(desk.view(&desk.cancel(&scope, id)?))).await
    }

    /// Erases the call: stops its child, deletes its wrapped key, records and segments.
    ///
    /// # Errors
    /// `NotFound`.
    pub async fn delete(&self, scope: &Scope, id: CallId) -> Result<(), CallsError> {
        let (desk, scope) = (Arc::clone(&self.desk), scope.clone());
        off_thread("erase call", Some(id), move || desk.erase(&scope, id)).await
    }

    /// How far the erasure of an erased call is: its certificate, once nothing can open the call any more, from old copies neither.
    ///
    /// # Errors
    /// `NotFound`.
    pub async fn erasure(&self, scope: &Scope, id: CallId) -> Result<ErasureView, CallsError> {
        let (desk, scope) = (Arc::clone(&self.desk), scope.clone());
        off_thread("read erasure", Some(id), move || desk.erasure(&scope, id)).await
    }

    /// Makes the erasure of an erased call final now, where it would be within the interval.
    ///
    /// # Errors
    /// `NotFound`, `FinalLater`, `Internal`.
    pub async fn erase_for_good(&self, scope: &Scope, id: CallId) -> Result<ErasureView, CallsError> {
        let (desk, scope) = (Arc::clone(&self.desk), scope.clone());
        let done = off_thread("move erasure epoch", Some(id), move || desk.erase_for_good(&scope, id)).await;
        done.map_err(|error| match error {
            CallsError::KeyLimit { wait } => CallsError::FinalLater { wait },
            error => error,
        })
    }

    /// The export document.
    ///
    /// # Errors
    /// `NotFound`, `KeyLimit`, `Internal`.
    pub async fn export(&self, scope: &Scope, id: CallId) -> Result<CallExport, CallsError> {
        let (desk, scope) = (Arc::clone(&self.desk), scope.clone());
        off_thread("export call", Some(id), move || desk.export(&scope, id)).await
    }

    /// Redacts a text in a child; nothing is stored.
    ///
    /// # Errors
    /// `TextLength`, `Busy`, `Worker`.
    pub async fn redact_text(&self, text: String) -> Result<RedactedText, CallsError> {
        if !(1..=TEXT_CHARS_MAX).contains(&text.chars().count()) {
            return Err(CallsError::TextLength { max: TEXT_CHARS_MAX });
        }
        // Held by the work itself, which goes on when the asker has gone away.
        let permit = Arc::clone(&self.texts).try_acquire_owned().map_err(|_| CallsError::Busy)?;
        let desk = Arc::clone(&self.desk);
        off_thread("redact text", None, move || {
            let _permit = permit;
            desk.redact(text)
        })
        .await
    }
}
