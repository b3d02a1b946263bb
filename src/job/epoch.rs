//! Erasure that outlives copies of the disk: after calls were erased, every other call's key is wrapped anew and the old epoch destroyed.
//! Trusts: the keeper, to destroy an epoch only when it is told that the next one is stored.
//! Touches: the store, the keeper.
//! Next: [`super::calls`] asks for a move at once; else the thread [`run`] moves at most once an interval.
//!
//! ```text
//! begin > re-wrap what is stored > (uploads wait) > re-wrap the rest > all of it and the number in one commit > (uploads go on) >
//! the keeper destroys the old epoch > certificates of the erasures
//! ```

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::border::KeyError;
use super::desk::{Desk, DeskError, record_fault};
use super::header::Header;
use super::spec::{CallState, ErasureView, Scope};
use crate::audit::{self, Event};
use crate::base::clock::Timestamp;
use crate::base::ids::CallId;
use crate::ipc::keeper::{EpochReply, EpochRequest, ErasedClass, ErasureCertificate, ErasureClaim, REWRAP_MAX, WrappedDek};
use crate::record::envelope::SealedRecord;
use crate::record::schema::{Slot, Table};
use crate::record::store::{Batch, Outcome};

/// From a move that failed to the next try.
const AGAIN: Duration = Duration::from_secs(60);
/// Longest time between two looks at the clock.
const LOOK: Duration = Duration::from_secs(20);

/// In the slot [`Slot::epoch`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct StoredEpoch {
    /// Of all wrapped keys in the store.
    pub number: u32,
    /// When it came to count.
    pub since: Timestamp,
}

/// Table `erasure`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct StoredErasure {
    pub owner: String,
    pub erased: Timestamp,
    pub classes: Vec<ErasedClass>,
    /// Its key was wrapped under this epoch.
    pub epoch: u32,
    pub certificate: Option<ErasureCertificate>,
}

impl StoredErasure {
    /// Of a call that is erased now.
    pub(super) fn of(header: &Header, epoch: u32, now: Timestamp) -> Self {
        let mut classes = vec![ErasedClass::Recording, ErasedClass::Metadata];
        if header.state == CallState::Done {
            classes.extend([ErasedClass::RedactedTranscript, ErasedClass::ClearTranscript]);
        }
        Self { owner: header.owner.clone(), erased: now, classes, epoch, certificate: None }
    }
}

/// What a desk knows of moves.
#[derive(Default)]
pub(super) struct Moves {
    /// Wrapped keys of uploads that are not stored yet. Held while a key is made, while a batch with one is handed to the writer, and
    /// while a move commits: so that each key is in the store, or here, or of the new epoch.
    unstored: Mutex<HashMap<CallId, WrappedDek>>,
    /// Held by who moves.
    moving: Mutex<()>,
    due: Mutex<Due>,
    changed: Condvar,
    /// Of the move that goes on, for who waits: calls re-wrapped, and all.
    done: AtomicU64,
    all: AtomicU64,
}

#[derive(Default)]
struct Due {
    erasures: bool,
    stop: bool,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The key of an upload, until it is stored or given up.
pub(super) struct Unstored {
    desk: Arc<Desk>,
    call: CallId,
}

impl Drop for Unstored {
    fn drop(&mut self) {
        lock(&self.desk.moves.unstored).remove(&self.call);
    }
}

impl Desk {
    /// Makes a key for a new call.
    pub(super) fn new_key(self: &Arc<Self>, call: CallId) -> Result<(crate::record::envelope::Envelope, Unstored), DeskError> {
        let mut unstored = lock(&self.moves.unstored);
        let (dek, wrapped) = self.keys.new_dek(call)?;
        unstored.insert(call, wrapped);
        Ok((crate::record::envelope::Envelope::of_call(dek), Unstored { desk: Arc::clone(self), call }))
    }

    /// Runs `submit` with the wrapped key of an upload as it is now; no move comes in between.
    pub(super) fn with_unstored<T>(&self, call: CallId, submit: impl FnOnce(&WrappedDek) -> Result<T, DeskError>) -> Result<T, DeskError> {
        let unstored = lock(&self.moves.unstored);
        submit(unstored.get(&call).ok_or(DeskError::NotFound)?)
    }

    /// The epoch that counts, and its record.
    pub(super) fn epoch(&self) -> Result<(StoredEpoch, SealedRecord), DeskError> {
        let slot = Slot::epoch();
        let sealed = self.store.get(&slot)?.ok_or(DeskError::NotFound)?;
        Ok((self.index.envelope().open_value(&slot, &sealed)?, sealed))
    }

    /// At the start: tells the keeper which epoch the store is of. A store without a number is new, or of before there were epochs.
    pub(super) fn settle_epoch(&self) -> Result<(), DeskError> {
        let stored = match self.epoch() {
            Ok((stored, _)) => Some(stored.number),
            Err(DeskError::NotFound) => None,
            Err(error) => return Err(error),
        };
        let told = match stored {
            None if !self.store.view(|snapshot| snapshot.all(Table::WrappedDek))?.is_empty() => Some(0),
            stored => stored,
        };
        let EpochReply::At { number } = self.keys.epoch(EpochRequest::Settle { store: told })? else {
            return Err(KeyError::Unavailable.into());
        };
        if stored.is_none() {
            let slot = Slot::epoch();
            // Calls of no epoch need not wait for theirs.
            let since = if number == 0 { Timestamp::from_unix_millis(0) } else { self.clock.now() };
            let sealed = self.index.envelope().seal_value(&slot, &StoredEpoch { number, since })?;
            let _ = self.store.commit(Batch::new().put(slot, sealed))?;
        }
        let open = self.erasures()?.iter().any(|(_, erasure, _)| erasure.certificate.is_none());
        if open || number == 0 {
            self.erasure_is_due();
        }
        Ok(())
    }

    /// A call was erased: the epoch is to move.
    pub(super) fn erasure_is_due(&self) {
        lock(&self.moves.due).erasures = true;
        self.moves.changed.notify_all();
    }

    /// Ends [`run`].
    pub(super) fn stop_moves(&self) {
        lock(&self.moves.due).stop = true;
        self.moves.changed.notify_all();
    }

    /// What is kept of an erased call.
    pub(super) fn erasure(&self, scope: &Scope, call: CallId) -> Result<ErasureView, DeskError> {
        let slot = Slot::erasure(call);
        let sealed = self.store.get(&slot)?.ok_or(DeskError::NotFound)?;
        let erasure: StoredErasure = self.index.envelope().open_value(&slot, &sealed)?;
        match scope {
            Scope::OwnedBy(owner) if *owner != erasure.owner => Err(DeskError::NotFound),
            _ => Ok(self.view_of(call, erasure)),
        }
    }

    fn view_of(&self, call: CallId, erasure: StoredErasure) -> ErasureView {
        let progress = (self.moves.done.load(Ordering::Relaxed), self.moves.all.load(Ordering::Relaxed));
        ErasureView::new(call, erasure.erased, erasure.epoch, erasure.certificate, progress)
    }

    /// As [`Self::erasure`], after a move that is made now unless the erasure is certified already.
    pub(super) fn erase_for_good(&self, scope: &Scope, call: CallId) -> Result<ErasureView, DeskError> {
        self.erasure(scope, call)?;
        let turn = lock(&self.moves.moving);
        if self.erasure(scope, call)?.certificate.is_none() {
            self.move_epoch()?;
            self.count_move_or_later();
        }
        drop(turn);
        self.erasure(scope, call)
    }

    /// Moves the epoch if calls were erased since the last move.
    fn move_if_due(&self) -> Result<(), DeskError> {
        let _turn = lock(&self.moves.moving);
        self.move_epoch()?;
        self.count_move()
    }

    /// The story of a move; by one thread at a time.
    fn move_epoch(&self) -> Result<(), DeskError> {
        let (before, _) = self.epoch()?;
        if before.number > 0 && !self.erasures()?.iter().any(|(_, erasure, _)| erasure.epoch >= before.number) {
            // An earlier move was not finished.
            self.keys.epoch(EpochRequest::Committed { number: before.number })?;
            return self.certify(before.number);
        }
        let EpochReply::At { number } = self.keys.epoch(EpochRequest::Begin)? else { return Err(KeyError::Unavailable.into()) };
        let moved = self.rewrap_all(number);
        self.moves.all.store(0, Ordering::Relaxed);
        let calls = match moved {
            Ok(calls) => calls,
            Err(error) => {
                // The first error is the one to tell; a keeper that is gone has nothing to give up.
                let _ = self.keys.epoch(EpochRequest::Abort);
                return Err(error);
            }
        };
        self.keys.epoch(EpochRequest::Committed { number })?;
        audit::record(&Event::EpochMoved { epoch: number, calls });
        self.certify(number)
    }

    /// Every wrapped key under the next epoch, in one durable commit with its number. Gives how many.
    fn rewrap_all(&self, number: u32) -> Result<u64, DeskError> {
        let mut known = HashMap::new();
        self.rewrap_stored(&mut known)?;
        let mut unstored = lock(&self.moves.unstored);
        // What was handed to the writer before is stored after this.
        let _ = self.store.commit(Batch::new())?;
        let stored = self.rewrap_stored(&mut known)?;
        let waiting: Vec<(CallId, WrappedDek)> = unstored.iter().map(|(call, wrapped)| (*call, wrapped.clone())).collect();
        let rewrapped = self.rewrap(&waiting)?;
        let mut batch = Batch::new();
        let calls = u64::try_from(stored.len()).unwrap_or(u64::MAX);
        for (slot, old) in stored {
            if let Some((before, Some(new))) = known.remove(slot.key())
                && before == old
            {
                batch.exchange(slot, old, new);
            }
        }
        let slot = Slot::epoch();
        let sealed = self.index.envelope().seal_value(&slot, &StoredEpoch { number, since: self.clock.now() })?;
        if let Some((slot, sealed)) = self.will_count()? {
            batch = batch.put(slot, sealed);
        }
        if self.store.commit(batch.put(slot, sealed))? != Outcome::Committed {
            return Err(DeskError::NotFound);
        }
        for ((call, _), new) in waiting.iter().zip(rewrapped) {
            unstored.extend(new.map(|new| (*call, new)));
        }
        Ok(calls)
    }

    /// Re-wraps and seals what is stored and not in `known`; gives all that is stored.
    fn rewrap_stored(&self, known: &mut Rewrapped) -> Result<Vec<(Slot, SealedRecord)>, DeskError> {
        let stored = self.store.view(|snapshot| snapshot.all(Table::WrappedDek))?;
        self.moves.all.store(u64::try_from(stored.len()).unwrap_or(u64::MAX), Ordering::Relaxed);
        let new: Vec<&(Slot, SealedRecord)> =
            stored.iter().filter(|(slot, sealed)| known.get(slot.key()).is_none_or(|(before, _)| before != sealed)).collect();
        for some in new.chunks(REWRAP_MAX) {
            let mut calls = Vec::with_capacity(some.len());
            for (slot, sealed) in some {
                let call = slot.call().ok_or(DeskError::NotFound)?;
                calls.push((call, self.index.envelope().open_value(slot, sealed)?));
            }
            for ((slot, sealed), new) in some.iter().zip(self.rewrap(&calls)?) {
                if new.is_none() {
                    record_fault("re-wrap key", slot.call(), &KeyError::WrongKey);
                }
                let new = new.map(|new| self.index.envelope().seal_value(slot, &new)).transpose()?;
                known.insert(slot.key().to_vec(), (sealed.clone(), new));
            }
            self.moves.done.store(u64::try_from(known.len()).unwrap_or(u64::MAX), Ordering::Relaxed);
        }
        Ok(stored)
    }

    fn rewrap(&self, calls: &[(CallId, WrappedDek)]) -> Result<Vec<Option<WrappedDek>>, DeskError> {
        let mut all = Vec::with_capacity(calls.len());
        for some in calls.chunks(REWRAP_MAX) {
            match self.keys.epoch(EpochRequest::Rewrap(some.to_vec()))? {
                EpochReply::Rewrapped(new) if new.len() == some.len() => all.extend(new),
                _ => return Err(KeyError::Unavailable.into()),
            }
        }
        Ok(all)
    }

    fn erasures(&self) -> Result<Vec<(Slot, StoredErasure, SealedRecord)>, DeskError> {
        let stored = self.store.view(|snapshot| snapshot.all(Table::Erasure))?;
        let opened = stored.into_iter().map(|(slot, sealed)| {
            let erasure = self.index.envelope().open_value(&slot, &sealed)?;
            Ok((slot, erasure, sealed))
        });
        opened.collect()
    }

    /// Certificates for what was erased before the epoch `number`.
    fn certify(&self, number: u32) -> Result<(), DeskError> {
        for (slot, mut erasure, sealed) in self.erasures()? {
            if erasure.certificate.is_some() || erasure.epoch >= number {
                continue;
            }
            let call = slot.call().ok_or(DeskError::NotFound)?;
            let StoredErasure { erased, ref classes, epoch, .. } = erasure;
            let claim = ErasureClaim { call, erased, classes: classes.clone(), epoch };
            let EpochReply::Certificate(certificate) = self.keys.epoch(EpochRequest::Certify(claim))? else {
                return Err(KeyError::Unavailable.into());
            };
            erasure.certificate = Some(certificate);
            let new = self.index.envelope().seal_value(&slot, &erasure)?;
            let _ = self.store.commit(Batch::new().require_unchanged(slot.clone(), sealed).put(slot, new))?;
            audit::record(&Event::ErasureCertified { call, epoch });
        }
        Ok(())
    }

    /// Waits until a move is due; false when the desk stops.
    fn wait_for_due(&self) -> bool {
        let mut due = lock(&self.moves.due);
        loop {
            if due.stop {
                return false;
            }
            let since = self.epoch().map_or(Timestamp::from_unix_millis(0), |(stored, _)| stored.since);
            if due.erasures && self.clock.now().since(since) >= self.settings.epoch_interval {
                due.erasures = false;
                return true;
            }
            due = self.moves.changed.wait_timeout(due, LOOK).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

/// By key of the slot: what was stored, and the same under the next epoch, if it opened.
type Rewrapped = HashMap<Vec<u8>, (SealedRecord, Option<SealedRecord>)>;

/// The thread that moves the epoch after erasures, at most once an interval.
pub(super) fn run(desk: &Desk) {
    while desk.wait_for_due() {
        if let Err(error) = desk.move_if_due() {
            record_fault("move erasure epoch", None, &error);
            // Until it succeeds; the keeper's own limit holds as well.
            desk.erasure_is_due();
            desk.queue.pause(AGAIN);
        }
    }
}
