//! What all work on calls shares, and the one way in which a call changes its state.
//! Trusts: the store's compare-and-swap.
//! Touches: the store, the hub, running children.
//! Next: [`super::intake`], [`super::reading`], [`super::runner`], [`super::text`] work on it.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use super::border::{Children, KeyError, KeySource, Kill, WorkerChild};
use super::calls::{CallsError, JobSettings};
use super::events::Hub;
use super::header::{Header, Remembered, StoredErasure};
use super::moves::Moves;
use super::queue::Queue;
use super::spec::{CallState, Scope};
use super::state::Change;
use super::tally::Tally;
use crate::audit::{self, Event};
use crate::base::clock::Clock;
use crate::base::ids::{CallId, NoRandomness};
use crate::base::told::told;
use crate::ipc::keeper::{UnwrapPurpose, WrappedDek};
use crate::ipc::worker::{CallFailure, ChildExit};
use crate::record::envelope::{Envelope, OpenError, SealError, SealedRecord};
use crate::record::erasure::{self, EraseError};
use crate::record::index::IndexKeys;
use crate::record::schema::{Slot, Table};
use crate::record::segments::{SegmentDirectory, SegmentError};
use crate::record::space::Space;
use crate::record::store::{Batch, Outcome, Store, StoreError};

/// Shared by the facade, the runners and uploads.
pub(super) struct Desk {
    pub store: Store,
    pub segments: SegmentDirectory,
    pub space: Space,
    pub index: IndexKeys,
    pub keys: Arc<dyn KeySource>,
    pub children: Arc<dyn Children>,
    pub settings: JobSettings,
    pub clock: Arc<dyn Clock>,
    pub hub: Hub,
    pub queue: Arc<Queue>,
    /// The last job number; held while a batch with the next one is handed to the writer, so that they are stored in order.
    pub last_job: Mutex<u64>,
    /// Who stops the child of each call that runs, and of each text under an id of its own.
    pub running: Mutex<HashMap<CallId, Box<dyn Kill>>>,
    pub tally: Tally,
    pub moves: Moves,
}

/// Why work on a call stopped.
#[derive(Debug, thiserror::Error)]
pub(super) enum DeskError {
    #[error("there is no such call")]
    NotFound,
    #[error("the call is {0:?}, which does not allow this")]
    Impossible(CallState),
    #[error("refused: {0}")]
    Refused(CallsError),
    #[error("the store failed")]
    Store(#[from] StoreError),
    #[error("a record could not be sealed")]
    Seal(#[from] SealError),
    #[error("a record could not be opened")]
    Open(#[from] OpenError),
    #[error("the recording could not be kept or opened")]
    Segment(#[from] SegmentError),
    #[error("a key could not be made or opened")]
    Key(#[from] KeyError),
    #[error(
        "the erasure epoch stays as it is: {calls} keys of stored calls open by none that is there, see the lines before; erase those calls if they are lost"
    )]
    Shut { calls: usize },
    #[error("the call was not erased")]
    Erase(#[from] EraseError),
    #[error("stored metadata is not valid")]
    Metadata(#[from] serde_json::Error),
    #[error(transparent)]
    Random(#[from] NoRandomness),
}

impl DeskError {
    /// The answer for the outside; the cause of an `Internal` goes to the journal.
    pub(super) fn reply(self, step: &'static str, call: Option<CallId>) -> CallsError {
        match self {
            Self::NotFound => CallsError::NotFound,
            Self::Impossible(state) => CallsError::AlreadyFinal(state),
            Self::Refused(refusal) => refusal,
            Self::Store(StoreError::Full) | Self::Segment(SegmentError::Full(_)) | Self::Erase(EraseError::Store(StoreError::Full)) => {
                audit::record(&Event::SpaceLow);
                CallsError::Full
            }
            Self::Key(KeyError::RateLimited { wait }) => {
                audit::record(&Event::KeyLimit { step, call, wait_s: wait.as_secs() });
                CallsError::KeyLimit { wait }
            }
            error => {
                record_fault(step, call, &error);
                CallsError::Internal
            }
        }
    }
}

/// Puts an error and its causes, none of which hold content, into the journal.
pub(super) fn record_fault(step: &'static str, call: Option<CallId>, error: &dyn std::error::Error) {
    audit::record(&Event::Fault { call, step, cause: told(error) });
}

impl Desk {
    /// Reads a header as it is stored.
    pub(super) fn stored_header(&self, call: CallId) -> Result<(Header, SealedRecord), DeskError> {
        let slot = Slot::of_call(Table::Header, call);
        let sealed = self.store.get(&slot)?.ok_or(DeskError::NotFound)?;
        Ok((self.index.envelope().open_value(&slot, &sealed)?, sealed))
    }

    /// Reads the header of a call in `scope`.
    pub(super) fn header(&self, scope: &Scope, call: CallId) -> Result<Header, DeskError> {
        let (header, _) = self.stored_header(call)?;
        match scope {
            Scope::OwnedBy(owner) if *owner != header.owner => Err(DeskError::NotFound),
            _ => Ok(header),
        }
    }

    /// Opens a call's key.
    pub(super) fn open_key(&self, call: CallId, purpose: UnwrapPurpose) -> Result<Envelope, DeskError> {
        let slot = Slot::of_call(Table::WrappedDek, call);
        let mut sealed = self.store.get(&slot)?.ok_or(DeskError::NotFound)?;
        loop {
            let wrapped: WrappedDek = self.index.envelope().open_value(&slot, &sealed)?;
            match self.keys.unwrap_dek(call, &wrapped, purpose) {
                // The epoch may have moved between the two: then there is another one by now.
                Err(KeyError::WrongKey) => {
                    let now = self.store.get(&slot)?.ok_or(DeskError::NotFound)?;
                    if now == sealed {
                        return Err(KeyError::WrongKey.into());
                    }
                    sealed = now;
                }
                dek => return Ok(Envelope::of_call(dek?)),
            }
        }
    }

    /// Changes a call's state, durably, together with `records`; then tells the watchers.
    ///
    /// Read, decide, commit if nobody was faster; else again. States only move towards an end, so this ends too.
    pub(super) fn change(
        &self,
        call: CallId,
        change: Change,
        update: &dyn Fn(&mut Header),
        records: &[(Slot, SealedRecord)],
    ) -> Result<Header, DeskError> {
        let slot = Slot::of_call(Table::Header, call);
        loop {
            let (before, stored) = self.stored_header(call)?;
            let mut after = before.after(change, self.clock.now()).ok_or(DeskError::Impossible(before.state))?;
            update(&mut after);
            let sealed = self.index.envelope().seal_value(&slot, &after)?;
            let mut batch = Batch::new().require_unchanged(slot.clone(), stored).put(slot.clone(), sealed);
            for (slot, record) in records {
                batch = batch.put(slot.clone(), record.clone());
            }
            if after.state.is_final() {
                batch = batch.delete(Slot::queue(after.job));
            }
            if self.store.commit(batch)? == Outcome::Committed {
                self.tally.moved(before.state, after.state);
                self.hub.state(&after);
                return Ok(after);
            }
        }
    }

    /// Stops the child that works on `call`, if any.
    pub(super) fn stop_child(&self, call: CallId) {
        if let Some(killer) = self.running.lock().unwrap_or_else(PoisonError::into_inner).get(&call) {
            killer.kill();
        }
    }

    /// Ends a child and counts how.
    pub(super) fn end(&self, child: Box<dyn WorkerChild>) -> Option<ChildExit> {
        let exit = child.end();
        exit.into_iter().for_each(|exit| self.tally.ended(exit));
        exit
    }

    /// Stops all children.
    pub(super) fn stop_children(&self) {
        self.running.lock().unwrap_or_else(PoisonError::into_inner).values().for_each(|killer| killer.kill());
    }

    /// Cancels a call.
    pub(super) fn cancel(&self, scope: &Scope, call: CallId) -> Result<Header, DeskError> {
        let header = self.header(scope, call)?;
        if header.state == CallState::Cancelled {
            return Ok(header);
        }
        let header = self.change(call, Change::Cancel, &|_| (), &[])?;
        self.queue.remove(header.job);
        self.stop_child(call);
        audit::record(&Event::CallCancelled { call });
        Ok(header)
    }

    /// Erases a call.
    pub(super) fn erase(&self, scope: &Scope, call: CallId) -> Result<(), DeskError> {
        let slot = Slot::of_call(Table::Header, call);
        loop {
            self.header(scope, call)?;
            let (header, stored) = self.stored_header(call)?;
            // Its key must have been of the epoch that is written down, or it would be called erased too early.
            let (epoch, epoch_stored) = self.epoch()?;
            let kept = StoredErasure::of(&header, epoch.number, self.clock.now());
            let place = Slot::erasure(call);
            let kept = self.index.envelope().seal_value(&place, &kept)?;
            let batch =
                Batch::new().require_unchanged(slot.clone(), stored).require_unchanged(Slot::epoch(), epoch_stored).put(place, kept);
            let outcome = erasure::erase(&self.store, &self.segments, call, batch, self.references(&header));
            if matches!(outcome, Ok(Outcome::Conflict)) {
                continue;
            }
            if matches!(outcome, Ok(_) | Err(EraseError::Recording(_))) {
                self.tally.left(header.state);
                self.queue.remove(header.job);
                self.stop_child(call);
                self.hub.forget(call);
                audit::record(&Event::CallErased { call });
                self.erasure_is_open(call, epoch.number);
            }
            return match outcome {
                // The key is gone: what is left is noise, and the next start sweeps it.
                Err(error @ EraseError::Recording(_)) => {
                    record_fault("erase recording", Some(call), &error);
                    Ok(())
                }
                outcome => Ok(outcome.map(drop)?),
            };
        }
    }

    fn references(&self, header: &Header) -> Vec<Slot> {
        let owner = self.index.owner(&header.owner);
        let mut slots = vec![Slot::queue(header.job), Slot::by_job(header.job), Slot::by_owner(&owner, header.job)];
        slots.extend(header.idempotency.as_ref().map(Slot::idempotency));
        slots
    }

    /// What an earlier life of the daemon left: removes leftovers, counts the attempt of calls that ran, fills the queue.
    pub(super) fn recover(&self) -> Result<(), DeskError> {
        let files = erasure::sweep(&self.store, &self.segments)?;
        if files > 0 {
            audit::record(&Event::Swept { files });
        }
        self.forget_expired()?;
        self.count()?;
        let waiting = self.store.view(|snapshot| snapshot.all(Table::Queue))?;
        for (slot, sealed) in waiting {
            let call: CallId = match self.index.envelope().open_value(&slot, &sealed) {
                Ok(call) => call,
                Err(error) => {
                    record_fault("read queue", None, &error);
                    continue;
                }
            };
            match self.resume(call) {
                Ok(Some(header)) => self.queue.push(header.job, call),
                Ok(None) => {}
                Err(DeskError::NotFound) => self.store.commit(Batch::new().delete(slot)).map(drop)?,
                Err(error @ DeskError::Store(_)) => return Err(error),
                Err(error) => record_fault("resume call", Some(call), &error),
            }
        }
        Ok(())
    }

    /// Counts the calls of earlier lives, before any of them changes.
    fn count(&self) -> Result<(), DeskError> {
        for (slot, sealed) in self.store.view(|snapshot| snapshot.all(Table::Header))? {
            match self.index.envelope().open_value::<Header>(&slot, &sealed) {
                Ok(header) => self.tally.came(header.state),
                Err(error) => record_fault("count calls", None, &error),
            }
        }
        Ok(())
    }

    /// The header of a call that waits now, or none when it is final.
    fn resume(&self, call: CallId) -> Result<Option<Header>, DeskError> {
        let (header, _) = self.stored_header(call)?;
        if !header.state.is_final() {
            self.hub.open(call);
        }
        match header.state {
            CallState::Queued => {
                self.hub.state(&header);
                Ok(Some(header))
            }
            CallState::Running if header.attempts >= self.settings.attempts => {
                self.fail(call, CallFailure::TriedTooOften, None)?;
                Ok(None)
            }
            CallState::Running => {
                let header = self.change(call, Change::Interrupt { counted: true }, &|_| (), &[])?;
                audit::record(&Event::CallRequeued { call, reason: "the daemon ended while it ran" });
                Ok(Some(header))
            }
            CallState::Done | CallState::Failed | CallState::Cancelled => Ok(None),
        }
    }

    fn forget_expired(&self) -> Result<(), DeskError> {
        let now = self.clock.now();
        let mut batch = Batch::new();
        for (slot, sealed) in self.store.view(|snapshot| snapshot.all(Table::Idempotency))? {
            let remembered: Result<Remembered, _> = self.index.envelope().open_value(&slot, &sealed);
            if remembered.is_ok_and(|remembered| now.since(remembered.at) >= super::intake::IDEMPOTENCY_LIFETIME) {
                batch = batch.delete(slot);
            }
        }
        Ok(self.store.commit(batch).map(drop)?)
    }

    /// Ends a call without a transcript.
    pub(super) fn fail(&self, call: CallId, failure: CallFailure, exit: Option<i64>) -> Result<(), DeskError> {
        self.change(call, Change::Fail(failure), &|_| (), &[])?;
        audit::record(&Event::CallFailed { call, reason: reason(failure), exit });
        Ok(())
    }

    /// The last job number given in an earlier life.
    pub(super) fn last_job_stored(store: &Store, index: &IndexKeys) -> Result<u64, DeskError> {
        let newest = store.view(|snapshot| snapshot.newest(Table::ByJob, &[], u64::MAX, 1))?;
        let listed = newest.first().and_then(|(slot, _)| slot.job()).unwrap_or(0);
        let counted = match store.get(&Slot::counter())? {
            Some(sealed) => index.envelope().open_value(&Slot::counter(), &sealed)?,
            None => 0,
        };
        Ok(listed.max(counted))
    }

    pub(super) fn empty_queue(limit: usize) -> Arc<Queue> {
        Queue::new(limit, BTreeMap::new())
    }
}

/// The failure as the API names it.
pub(super) const fn reason(failure: CallFailure) -> &'static str {
    match failure {
        CallFailure::NotAudio => "not_audio",
        CallFailure::UnsupportedCodec => "unsupported_codec",
        CallFailure::Truncated => "truncated",
        CallFailure::Damaged => "damaged",
        CallFailure::Empty => "empty",
        CallFailure::TooLong => "too_long",
        CallFailure::SampleRate => "sample_rate",
        CallFailure::Channels => "channels",
        CallFailure::WorkerDied => "worker_died",
        CallFailure::TimedOut => "timed_out",
        CallFailure::WorkerMisbehaved => "worker_misbehaved",
        CallFailure::TriedTooOften => "tried_too_often",
        CallFailure::Unreadable => "unreadable",
        CallFailure::ModelFailed => "model_failed",
        CallFailure::RecordingUnread => "recording_unread",
        CallFailure::NoWorker => "no_worker",
        CallFailure::NoKey => "no_key",
        CallFailure::StoreFailed => "store_failed",
    }
}
