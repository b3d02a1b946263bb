//! Erasure that outlives copies of the disk: after calls were erased, every other call's key is wrapped anew and the old epoch destroyed.
//! Trusts: the keeper, to destroy an epoch only when it is told that the next one is stored.
//! Touches: the store, the keeper.
//! Next: [`super::calls`] asks for a move at once; else the thread [`run`] moves at most once an interval.
//!
//! ```text
//! begin > re-wrap what is stored > (uploads wait) > re-wrap the rest > all of it and the number in one commit >
//! the keeper destroys the old epoch > (uploads go on) > certificates of the erasures
//! ```

use std::collections::HashMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, MutexGuard, PoisonError};
use std::time::Duration;

use super::border::KeyError;
use super::desk::{Desk, DeskError, record_fault};
use super::moves::{Pivot, Turn, Unstored, Uploads, lock};
use super::spec::{ErasureView, Scope};
use crate::audit::{self, Event};
use crate::base::clock::Timestamp;
use crate::base::ids::CallId;
use crate::ipc::keeper::{EpochReply, EpochRequest, KeeperDenial, REWRAP_MAX, WrappedDek};
use crate::record::envelope::{Envelope, SealedRecord};
use crate::record::epoch::StoredEpoch;
use crate::record::schema::{Slot, Table};
use crate::record::store::{Batch, Outcome};

/// From a move that failed to the next try.
const AGAIN: Duration = Duration::from_secs(60);
/// Longest time between two looks at the clock.
const LOOK: Duration = Duration::from_secs(20);

impl Desk {
    /// Makes a key for a new call.
    pub(super) fn new_key(self: &Arc<Self>, call: CallId) -> Result<(Envelope, Unstored), DeskError> {
        let mut uploads = lock(&self.moves.uploads);
        uploads.without_doubt()?;
        let (dek, wrapped) = self.keys.new_dek(call)?;
        uploads.keys.insert(call, wrapped);
        Ok((Envelope::of_call(dek), Unstored { desk: Arc::clone(self), call }))
    }

    /// Runs `submit` with the wrapped key of an upload as it is now; no move comes in between. An upload whose key was lost is refused.
    pub(super) fn with_unstored<T>(&self, call: CallId, submit: impl FnOnce(&WrappedDek) -> Result<T, DeskError>) -> Result<T, DeskError> {
        let uploads = lock(&self.moves.uploads);
        uploads.without_doubt()?;
        submit(uploads.keys.get(&call).ok_or(KeyError::WrongKey)?)
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
        let calls = self.store.view(|snapshot| snapshot.all(Table::WrappedDek))?.len();
        let told = if stored.is_none() && calls > 0 { Some(0) } else { stored };
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
        let open = self.open_erasures()?;
        if open.values().any(|epoch| *epoch < number) {
            // An earlier life ended between the commit and the certificates; whether it has told this already, nobody knows.
            audit::record(&Event::EpochMoved { epoch: number, calls: u64::try_from(calls).unwrap_or(u64::MAX) });
        }
        let due = !open.is_empty() || number == 0;
        *self.moves.open() = open;
        if due {
            self.move_is_due();
        }
        Ok(())
    }

    /// A call was erased: that is final once this epoch is destroyed.
    pub(super) fn erasure_is_open(&self, call: CallId, epoch: u32) {
        self.moves.open().insert(call, epoch);
        self.move_is_due();
    }

    pub(super) fn move_is_due(&self) {
        lock(&self.moves.due).erasures = true;
        self.moves.changed.notify_all();
    }

    /// The keeper makes no more certificates for so long.
    pub(super) fn certificates_are_left(&self, wait: Duration) {
        lock(&self.moves.due).certificates = Some(wait);
        self.moves.changed.notify_all();
    }

    /// Ends [`run`].
    pub(super) fn stop_moves(&self) {
        lock(&self.moves.due).stop = true;
        self.moves.changed.notify_all();
    }

    /// As [`Self::erasure`], after a move that is made now unless the erasure is certified already.
    pub(super) fn erase_for_good(&self, scope: &Scope, call: CallId) -> Result<ErasureView, DeskError> {
        self.erasure(scope, call)?;
        let mut turn = lock(&self.moves.moving);
        if self.erasure(scope, call)?.certificate.is_none() {
            self.move_epoch(&mut turn).inspect_err(|_| self.move_is_due())?;
            self.count_move_or_later();
        }
        drop(turn);
        self.erasure(scope, call)
    }

    /// The story of a move; by one thread at a time.
    fn move_epoch(&self, turn: &mut Turn) -> Result<(), DeskError> {
        let before = self.epoch()?.0.number;
        let doubt = self.resolve_doubt(before);
        let pending = self.moves.open().values().any(|epoch| *epoch >= before);
        let last = turn.pivot.as_ref().filter(|pivot| pivot.number == before);
        let has_moved = last.is_some();
        if has_moved && !doubt {
            // Only what follows has failed, if anything.
            self.finish(turn, &mut lock(&self.moves.uploads))?;
        }
        let number = if has_moved && !pending && !doubt { before } else { self.move_on(turn)? };
        self.certify(number)
    }

    /// From the epoch that counts to the next; gives its number.
    fn move_on(&self, turn: &mut Turn) -> Result<u32, DeskError> {
        let EpochReply::At { number } = self.keys.epoch(EpochRequest::Begin)? else { return Err(KeyError::Unavailable.into()) };
        let moved = self.rewrap_all(number);
        self.moves.all.store(0, Ordering::Relaxed);
        match moved {
            Ok((calls, mut uploads)) => {
                turn.pivot = Some(Pivot { number, calls, finished: false });
                uploads.keeper_behind = true;
                let finished = self.finish(turn, &mut uploads);
                // A key that was made before the keeper's answer would be of the old epoch.
                drop(uploads);
                finished.map(|()| number)
            }
            Err(error) => {
                if lock(&self.moves.uploads).in_doubt.is_none() {
                    // The first error is the one to tell; a keeper that is gone has nothing to give up.
                    let _ = self.keys.epoch(EpochRequest::Abort);
                }
                Err(error)
            }
        }
    }

    /// The keeper destroys the epoch before the one that the store has committed; once a move. Uploads wait, so nothing slow follows here.
    fn finish(&self, turn: &mut Turn, uploads: &mut Uploads) -> Result<(), DeskError> {
        let Some(pivot) = turn.pivot.as_mut().filter(|pivot| !pivot.finished) else { return Ok(()) };
        let answer = self.keys.epoch(EpochRequest::Committed { number: pivot.number });
        if matches!(answer, Ok(_) | Err(KeyError::Refused(KeeperDenial::EpochFailed))) {
            // In the second case too the next one counts, and only the end of the old one has failed.
            uploads.keeper_behind = false;
        }
        answer?;
        pivot.finished = true;
        audit::record(&Event::EpochMoved { epoch: pivot.number, calls: pivot.calls });
        Ok(())
    }

    /// Finds out whether the commit of a move is stored, of which that was not known. True if it is: then that move is to be made again,
    /// which re-wraps the keys of uploads and writes what is stored once more.
    fn resolve_doubt(&self, stored: u32) -> bool {
        let mut uploads = lock(&self.moves.uploads);
        match uploads.in_doubt {
            Some(number) if number == stored => true,
            Some(_) => {
                // What was wrapped for it may lie on the disk all the same: the keeper makes another one for the next try.
                let _ = self.keys.epoch(EpochRequest::Abort);
                uploads.in_doubt = None;
                false
            }
            None => false,
        }
    }

    /// Every wrapped key under the next epoch, in one durable commit with its number. Gives how many; uploads wait until the other is dropped.
    fn rewrap_all(&self, number: u32) -> Result<(u64, MutexGuard<'_, Uploads>), DeskError> {
        let mut known = HashMap::new();
        self.rewrap_stored(&mut known)?;
        let mut uploads = lock(&self.moves.uploads);
        // What was handed to the writer before is stored after this.
        let _ = self.store.commit(Batch::new())?;
        let stored = self.rewrap_stored(&mut known)?;
        let waiting: Vec<(CallId, WrappedDek)> = uploads.keys.iter().map(|(call, wrapped)| (*call, wrapped.clone())).collect();
        let rewrapped = self.rewrap(&waiting)?;
        // On a full disk too: what was erased to make room is to be final.
        let mut batch = Batch::new().freeing();
        let calls = u64::try_from(stored.len()).unwrap_or(u64::MAX);
        for (slot, old) in stored {
            if let Some((before, new)) = known.remove(slot.key())
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
        self.commit_pivot(batch.put(slot, sealed), number, &mut uploads)?;
        for ((call, _), new) in waiting.into_iter().zip(rewrapped) {
            match new {
                Some(new) => drop(uploads.keys.insert(call, new)),
                // Its upload is refused when it ends.
                None => {
                    uploads.keys.remove(&call);
                    record_fault("re-wrap key of upload", Some(call), &KeyError::WrongKey);
                }
            }
        }
        Ok((calls, uploads))
    }

    /// The commit on which a move turns: it counts when it is stored, whatever the store said.
    fn commit_pivot(&self, batch: Batch, number: u32, uploads: &mut Uploads) -> Result<(), DeskError> {
        let failure = match self.store.commit(batch) {
            Ok(Outcome::Committed) => {
                uploads.in_doubt = None;
                return Ok(());
            }
            Ok(Outcome::Conflict) => return Err(DeskError::NotFound),
            Err(failure) => failure,
        };
        match self.epoch() {
            Ok((stored, _)) if stored.number == number => {
                uploads.in_doubt = None;
                Ok(())
            }
            Ok(_) => Err(failure.into()),
            Err(_) => {
                uploads.in_doubt = Some(number);
                Err(failure.into())
            }
        }
    }

    /// Re-wraps and seals what is stored and not in `known`; gives all that is stored.
    fn rewrap_stored(&self, known: &mut Rewrapped) -> Result<Vec<(Slot, SealedRecord)>, DeskError> {
        let stored = self.store.view(|snapshot| snapshot.all(Table::WrappedDek))?;
        self.moves.all.store(u64::try_from(stored.len()).unwrap_or(u64::MAX), Ordering::Relaxed);
        let new: Vec<&(Slot, SealedRecord)> =
            stored.iter().filter(|(slot, sealed)| known.get(slot.key()).is_none_or(|(before, _)| before != sealed)).collect();
        let mut shut: usize = 0;
        for some in new.chunks(REWRAP_MAX) {
            let mut calls = Vec::with_capacity(some.len());
            for (slot, sealed) in some {
                let call = slot.call().ok_or(DeskError::NotFound)?;
                calls.push((call, self.index.envelope().open_value(slot, sealed)?));
            }
            for ((slot, sealed), new) in some.iter().zip(self.rewrap(&calls)?) {
                match new {
                    Some(new) => drop(known.insert(slot.key().to_vec(), (sealed.clone(), self.index.envelope().seal_value(slot, &new)?))),
                    None => {
                        shut = shut.saturating_add(1);
                        record_fault("re-wrap key", slot.call(), &KeyError::WrongKey);
                    }
                }
            }
            self.moves.done.store(u64::try_from(known.len()).unwrap_or(u64::MAX), Ordering::Relaxed);
        }
        // The store's own seal was whole, so it is the epoch that does not fit: to destroy one now could destroy the one that does.
        if shut == 0 { Ok(stored) } else { Err(DeskError::Shut { calls: shut }) }
    }

    fn rewrap(&self, calls: &[(CallId, WrappedDek)]) -> Result<Vec<Option<WrappedDek>>, DeskError> {
        let mut all = Vec::with_capacity(calls.len());
        for some in calls.chunks(REWRAP_MAX) {
            match self.rewrapped(some)? {
                EpochReply::Rewrapped(new) if new.len() == some.len() => all.extend(new),
                _ => return Err(KeyError::Unavailable.into()),
            }
        }
        Ok(all)
    }

    /// One message, as soon as the keeper's limit lets: a move that is given up has worn the TPM for nothing, and its next try is as long.
    fn rewrapped(&self, calls: &[(CallId, WrappedDek)]) -> Result<EpochReply, KeyError> {
        loop {
            match self.keys.epoch(EpochRequest::Rewrap(calls.to_vec())) {
                Err(KeyError::RateLimited { wait }) if !self.stops_within(wait) => {}
                answer => return answer,
            }
        }
    }

    /// Waits so long; true at once when the desk stops.
    fn stops_within(&self, wait: Duration) -> bool {
        let due = lock(&self.moves.due);
        let (due, _) = self.moves.changed.wait_timeout_while(due, wait, |due| !due.stop).unwrap_or_else(PoisonError::into_inner);
        due.stop
    }

    /// Makes the certificates that the keeper's limit has left.
    fn certify_rest(&self) -> Result<(), DeskError> {
        let _turn = lock(&self.moves.moving);
        if lock(&self.moves.uploads).wait() {
            // The next try of the move makes them.
            self.move_is_due();
            return Ok(());
        }
        self.certify(self.epoch()?.0.number)
    }

    /// Waits until something is due; nothing when the desk stops.
    fn wait_for_due(&self) -> Option<Task> {
        let mut due = lock(&self.moves.due);
        loop {
            if due.stop {
                return None;
            }
            let (since, now) = (self.epoch().map_or(Timestamp::from_unix_millis(0), |(stored, _)| stored.since), self.clock.now());
            // A clock that was ahead once must not put it off until it is there again.
            let over = now.since(since) >= self.settings.epoch_interval || since > now;
            if due.erasures && (over || lock(&self.moves.uploads).wait()) {
                due.erasures = false;
                return Some(Task::Move);
            }
            if let Some(wait) = due.certificates.take() {
                return Some(Task::Certify { wait });
            }
            due = self.moves.changed.wait_timeout(due, LOOK).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

/// By key of the slot: what was stored, and the same under the next epoch.
type Rewrapped = HashMap<Vec<u8>, (SealedRecord, SealedRecord)>;

/// What the thread has to do.
enum Task {
    Move,
    Certify { wait: Duration },
}

/// The thread that moves the epoch after erasures, at most once an interval.
pub(super) fn run(desk: &Desk) {
    while let Some(task) = desk.wait_for_due() {
        let done = match task {
            Task::Move => {
                let mut turn = lock(&desk.moves.moving);
                desk.move_epoch(&mut turn).and_then(|()| desk.count_move())
            }
            Task::Certify { wait } => {
                desk.stops_within(wait.min(AGAIN));
                desk.certify_rest()
            }
        };
        if let Err(error) = done {
            record_fault("move erasure epoch", None, &error);
            // Until it succeeds; the keeper's own limit holds as well.
            desk.move_is_due();
            desk.stops_within(AGAIN);
        }
    }
}
