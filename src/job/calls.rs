//! The desk of calls: everything the API may do with them, in one place.
//! Trusts: the caller holds the `Permit` for what it asks.
//! Touches: `record`, `keys`, `supervisor`, `audit`.
//! Next: `api` turns answers and errors into replies.

use bytes::Bytes;
use tokio::sync::mpsc;

use super::spec::{CallEvent, CallExport, CallMetadata, CallPage, CallView, RedactedText, Scope, Transcript};
use crate::base::ids::CallId;

/// Handle to the desk; cheap to clone.
#[derive(Clone)]
pub struct Calls {}

/// The beginning of an upload.
pub enum Admission {
    /// New: push the recording's bytes.
    New(Upload),
    /// The same uploader has sent this idempotency key before with the same metadata: the call as it is now.
    Repeated(CallView),
}

/// A recording on its way in. Dropping it forgets everything of it.
pub struct Upload {}

impl Upload {
    /// Seals the next bytes of the recording.
    ///
    /// # Errors
    /// `TooLarge` past the limit, `Full` when the disk is, `Internal` else.
    pub async fn push(&mut self, _bytes: Bytes) -> Result<(), CallsError> {
        todo!()
    }

    /// The recording is complete: makes it and its call durable and queues the job.
    ///
    /// # Errors
    /// `Empty` for no bytes at all; as [`Self::push`].
    pub async fn finish(self) -> Result<CallView, CallsError> {
        todo!()
    }
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
    #[error("too many calls were opened in a short time; try again later")]
    KeyLimit,
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
    /// Begins an upload by `owner` (`role/name`).
    ///
    /// # Errors
    /// `QueueFull`, `Full`, `IdempotencyConflict`, `KeyLimit`, `Internal`.
    pub async fn admit(&self, _owner: &str, _metadata: CallMetadata, _idempotency_key: Option<&str>) -> Result<Admission, CallsError> {
        todo!()
    }

    /// A page of the calls in `scope`, newest first.
    ///
    /// # Errors
    /// `BadCursor`, `Internal`.
    pub async fn list(&self, _scope: &Scope, _cursor: Option<&str>, _limit: u16) -> Result<CallPage, CallsError> {
        todo!()
    }

    /// One call.
    ///
    /// # Errors
    /// `NotFound` also when it is outside `scope`.
    pub async fn get(&self, _scope: &Scope, _id: CallId) -> Result<CallView, CallsError> {
        todo!()
    }

    /// The redacted transcript.
    ///
    /// # Errors
    /// `NotFound`, `NoTranscript`, `KeyLimit`, `Internal`.
    pub async fn transcript(&self, _scope: &Scope, _id: CallId) -> Result<Transcript, CallsError> {
        todo!()
    }

    /// Events after number `after`, then live ones; the channel closes after the final state.
    ///
    /// # Errors
    /// `NotFound`.
    pub async fn watch(&self, _scope: &Scope, _id: CallId, _after: u64) -> Result<mpsc::Receiver<CallEvent>, CallsError> {
        todo!()
    }

    /// Stops the job. Cancelling a cancelled call is no error.
    ///
    /// # Errors
    /// `NotFound`, `AlreadyFinal`.
    pub async fn cancel(&self, _scope: &Scope, _id: CallId) -> Result<CallView, CallsError> {
        todo!()
    }

    /// Erases the call: stops its child, deletes its wrapped key, records and segments.
    ///
    /// # Errors
    /// `NotFound`.
    pub async fn delete(&self, _scope: &Scope, _id: CallId) -> Result<(), CallsError> {
        todo!()
    }

    /// The export document.
    ///
    /// # Errors
    /// `NotFound`, `KeyLimit`, `Internal`.
    pub async fn export(&self, _scope: &Scope, _id: CallId) -> Result<CallExport, CallsError> {
        todo!()
    }

    /// Redacts a text in a child; nothing is stored.
    ///
    /// # Errors
    /// `TextLength`, `Busy`, `Worker`.
    pub async fn redact_text(&self, _text: String) -> Result<RedactedText, CallsError> {
        todo!()
    }
}
