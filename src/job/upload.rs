//! A recording on its way in, as the API sees it: bytes are gathered on the connection's thread, sealed and written away from it.
//! Trusts: nothing of the bytes.
//! Touches: [`Incoming`], on threads that may block.
//! Next: [`super::calls`] admits one, `api` pushes the body into it.

use std::collections::VecDeque;

use bytes::Bytes;

use super::calls::{Arrival, CallsError};
use super::desk::{DeskError, record_fault};
use super::intake::Incoming;
use crate::base::ids::CallId;
use crate::record::segments::Spare;

/// Pieces of one upload that are sealed and written at a time: while the disk takes one, the next is sealed.
const PIECES_AT_ONCE: usize = 2;

/// A recording on its way in. Dropping it forgets everything of it; a piece that is being written ends by itself before.
pub struct Upload {
    /// Absent after a failure.
    incoming: Option<Box<Incoming>>,
    /// The oldest first.
    writing: VecDeque<JoinTask<Spare>>,
    bytes: u64,
    limit: u64,
}

impl Upload {
    /// At most `limit` bytes.
    pub(super) fn new(incoming: Incoming, limit: u64) -> Self {
        Self { incoming: Some(Box::new(incoming)), writing: VecDeque::with_capacity(PIECES_AT_ONCE), bytes: 0, limit }
    }

    /// Seals the next bytes of the recording.
    ///
    /// # Errors
    /// `TooLarge` past the limit, `Full` when the disk is, `Internal` else. After an error the upload is forgotten.
    pub async fn push(&mut self, bytes: Bytes) -> Result<(), CallsError> {
        self.bytes = self.bytes.saturating_add(u64::try_from(bytes.len()).unwrap_or(u64::MAX));
        if self.bytes > self.limit {
            self.forget().await;
            return Err(CallsError::TooLarge { limit: self.limit });
        }
        let mut left = &*bytes;
        loop {
            let incoming = self.incoming.as_mut().ok_or(CallsError::Internal)?;
            left = left.split_at(incoming.take(left)).1;
            if left.is_empty() {
                return Ok(());
            }
            self.write().await?;
        }
    }

    /// The recording is complete: makes it and its call durable and queues the job, unless it came before.
    ///
    /// # Errors
    /// `Empty` for no bytes at all; `IdempotencyConflict` when its key came before with another recording, and `NotFound` when
    /// that one's call was erased while this one came in; as [`Self::push`].
    pub async fn finish(mut self) -> Result<Arrival, CallsError> {
        if self.bytes == 0 {
            return Err(CallsError::Empty);
        }
        while !self.writing.is_empty() {
            self.written().await?;
        }
        let incoming = self.incoming.take().ok_or(CallsError::Internal)?;
        off_thread("finish upload", None, move || incoming.finish()).await
    }

    /// Begins to write what is gathered, once there are not too many pieces under way. A caller that goes away in the middle leaves
    /// those to end by themselves, and the upload to be forgotten then.
    async fn write(&mut self) -> Result<(), CallsError> {
        if self.writing.len() >= PIECES_AT_ONCE {
            self.written().await?;
        }
        let piece = self.incoming.as_mut().ok_or(CallsError::Internal)?.piece();
        match piece {
            Ok(piece) => self.writing.push_back(tokio::task::spawn_blocking(piece)),
            Err(error) => {
                self.forget().await;
                return Err(error.reply("write upload", None));
            }
        }
        Ok(())
    }

    /// Waits for the oldest piece. It tells why it failed; one after it could only say that there is a gap.
    async fn written(&mut self) -> Result<(), CallsError> {
        let Some(oldest) = self.writing.pop_front() else { return Ok(()) };
        match finished("write upload", None, oldest).await {
            Ok(spare) => {
                if let Some(incoming) = &mut self.incoming {
                    incoming.reuse(spare);
                }
                Ok(())
            }
            Err(error) => {
                self.forget().await;
                Err(error)
            }
        }
    }

    /// Before the answer, so that nothing of the recording is left by then.
    async fn forget(&mut self) {
        while let Some(piece) = self.writing.pop_front() {
            let _ = piece.await;
        }
        let incoming = self.incoming.take();
        // To remove a large file takes a while.
        let _ = tokio::task::spawn_blocking(move || drop(incoming)).await;
    }
}

/// Blocking work away from the connections' threads.
type JoinTask<T> = tokio::task::JoinHandle<Result<T, DeskError>>;

/// Runs blocking work away from the connections' threads.
pub(super) async fn off_thread<T: Send + 'static>(
    step: &'static str,
    call: Option<CallId>,
    work: impl FnOnce() -> Result<T, DeskError> + Send + 'static,
) -> Result<T, CallsError> {
    finished(step, call, tokio::task::spawn_blocking(work)).await
}

async fn finished<T>(step: &'static str, call: Option<CallId>, work: JoinTask<T>) -> Result<T, CallsError> {
    match work.await {
        Ok(answer) => answer.map_err(|error| error.reply(step, call)),
        Err(error) => {
            record_fault(step, call, &error);
            Err(CallsError::Internal)
        }
    }
}
