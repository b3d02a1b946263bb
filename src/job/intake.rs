//! A recording comes in: admitted, sealed as it arrives, durable, queued. One that was sent before is only compared.
//! Trusts: `api` has checked the metadata; the bytes are a stranger's and are only sealed, never read.
//! Touches: the store, `STATE/audio`, the keeper.
//! Next: the queue.

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use ring::digest;

use super::calls::{Arrival, CallsError};
use super::desk::{Desk, DeskError};
use super::header::{Header, Remembered, StoredMetadata};
use super::moves::Unstored;
use super::queue::Place;
use super::spec::{CallMetadata, CallState};
use crate::audit::event::Who;
use crate::audit::{self, Event};
use crate::base::ids::CallId;
use crate::record::envelope::Envelope;
use crate::record::index::KeyedHash;
use crate::record::schema::{Slot, Table};
use crate::record::segments::{SegmentWriter, Spare};
use crate::record::store::{Batch, Outcome, StoreError};

/// How long an idempotency key is remembered.
pub(super) const IDEMPOTENCY_LIFETIME: Duration = Duration::from_hours(24);

/// A recording on its way in; dropping it removes everything of it.
pub(super) struct Incoming {
    desk: Arc<Desk>,
    metadata: KeyedHash,
    /// Only with an idempotency key is the recording ever compared with another.
    body: Option<digest::Context>,
    fate: Fate,
}

/// What is to become of a recording.
enum Fate {
    /// A call of its own.
    Kept(Box<Kept>),
    /// Its key came before, with the same metadata: it must be the same recording, and needs neither room nor key.
    Compared(Remembered),
}

/// A recording that is sealed as it comes in.
struct Kept {
    call: CallId,
    owner: String,
    metadata: StoredMetadata,
    idempotency: Option<KeyedHash>,
    /// Its key waits in the desk until it is stored.
    unstored: Unstored,
    envelope: Envelope,
    writer: SegmentWriter,
    _place: Place,
}

impl Incoming {
    /// `known? > room on disk? > room in the queue? > key > file`
    pub(super) fn admit(desk: &Arc<Desk>, owner: &str, metadata: &CallMetadata, key: Option<&str>) -> Result<Self, DeskError> {
        let stored = StoredMetadata::of(metadata)?;
        let metadata_hash = desk.index.digest(&[b"metadata", stored.json()]);
        let idempotency = key.map(|key| desk.index.idempotency(owner, key));
        if let Some(known) = idempotency.map(|hash| desk.remembered(hash)).transpose()?.flatten() {
            // Only its end tells whether this is the same recording: until then it must not be taken for one that is kept.
            return if known.metadata == metadata_hash {
                Ok(Self::new(desk, metadata_hash, true, Fate::Compared(known)))
            } else {
                Err(DeskError::Refused(CallsError::IdempotencyConflict))
            };
        }
        if !desk.space.admits(0) {
            audit::record(&Event::SpaceLow);
            return Err(DeskError::Refused(CallsError::Full));
        }
        let place = desk.queue.reserve().ok_or(DeskError::Refused(CallsError::QueueFull))?;
        let call = CallId::random()?;
        let (envelope, unstored) = desk.new_key(call)?;
        let writer = desk.segments.create(call, &envelope)?;
        let owner = owner.to_owned();
        let kept = Kept { call, owner, metadata: stored, idempotency, unstored, envelope, writer, _place: place };
        Ok(Self::new(desk, metadata_hash, idempotency.is_some(), Fate::Kept(Box::new(kept))))
    }

    fn new(desk: &Arc<Desk>, metadata: KeyedHash, has_key: bool, fate: Fate) -> Self {
        Self { desk: Arc::clone(desk), metadata, body: has_key.then(|| digest::Context::new(&digest::SHA256)), fate }
    }

    /// Takes the next bytes into the digest and into memory, and gives how many: fewer than all of them when [`Self::piece`] is to be
    /// called first.
    pub(super) fn take(&mut self, bytes: &[u8]) -> usize {
        let taken = match &mut self.fate {
            Fate::Kept(kept) => kept.writer.take(bytes),
            Fate::Compared(_) => bytes.len(),
        };
        if let Some(body) = &mut self.body {
            body.update(bytes.split_at(taken).0);
        }
        taken
    }

    /// What has been taken, as work that seals and writes it, to be begun in order and away from the connections' threads.
    pub(super) fn piece(&mut self) -> Result<impl FnOnce() -> Result<Spare, DeskError> + Send + 'static, DeskError> {
        let Fate::Kept(kept) = &mut self.fate else { return Err(DeskError::NotFound) };
        let (desk, piece) = (Arc::clone(&self.desk), kept.writer.piece()?);
        Ok(move || {
            desk.has_room(piece.bytes())?;
            Ok(piece.write()?)
        })
    }

    /// Keeps the memory of a piece that was written for the next one.
    pub(super) fn reuse(&mut self, spare: Spare) {
        if let Fate::Kept(kept) = &mut self.fate {
            kept.writer.reuse(spare);
        }
    }

    /// The recording is complete. One with a key that came before must be the same to the byte; then the answer is the first one's call.
    pub(super) fn finish(self) -> Result<Arrival, DeskError> {
        let Self { desk, metadata, body, fate } = self;
        let body = body.map(|body| desk.index.digest(&[b"body", body.finish().as_ref()]));
        match (fate, body) {
            (Fate::Kept(kept), body) => kept.finish(&desk, metadata, body),
            (Fate::Compared(first), Some(body)) => desk.repeated(&first, metadata, body),
            (Fate::Compared(_), None) => Err(DeskError::NotFound),
        }
    }
}

impl Kept {
    /// `recording durable > call durable > queued`, unless another upload with the same key was faster.
    fn finish(self, desk: &Desk, metadata_hash: KeyedHash, body: Option<KeyedHash>) -> Result<Arrival, DeskError> {
        let Self { call, owner, metadata, idempotency, unstored, envelope, writer, _place } = self;
        desk.has_room(writer.gathered())?;
        let audio_bytes = writer.finish()?;
        let now = desk.clock.now();
        let header = Header {
            call,
            job: 0,
            owner,
            state: CallState::Queued,
            created: now,
            updated: now,
            audio_bytes,
            audio_ms: None,
            audio: None,
            failure: None,
            attempts: 0,
            event: 1,
            idempotency,
        };
        let remembered = body.map(|body| Remembered { call, metadata: metadata_hash, body, at: now });
        desk.hub.open(call);
        let stored = desk.store_new(header, &metadata, &envelope, remembered.as_ref());
        drop(unstored);
        if !matches!(stored, Ok(Some(_))) {
            desk.hub.forget(call);
        }
        // After a failure nobody knows whether the call is stored: then its recording stays, and the next start keeps or removes it.
        let unknown = matches!(stored, Err(DeskError::Store(StoreError::Failed(_) | StoreError::Closed)));
        if !unknown && !matches!(stored, Ok(Some(_))) {
            // No call refers to the file; if it cannot be removed now, the next start does.
            let _ = desk.segments.remove(call);
        }
        match stored? {
            Some(header) => {
                desk.tally.came(header.state);
                desk.hub.state(&header);
                desk.queue.push(header.job, call);
                audit::record(&Event::CallAccepted { call, who: Who::from_owner(&header.owner), bytes: audio_bytes });
                Ok(Arrival::New(desk.view(&header)))
            }
            None => {
                let first = idempotency.map(|hash| desk.remembered(hash)).transpose()?.flatten().ok_or(DeskError::NotFound)?;
                desk.repeated(&first, metadata_hash, body.ok_or(DeskError::NotFound)?)
            }
        }
    }
}

impl Desk {
    /// Whether `bytes` more of a recording may be written.
    fn has_room(&self, bytes: u64) -> Result<(), DeskError> {
        if self.space.admits(bytes) { Ok(()) } else { Err(DeskError::Refused(CallsError::Full)) }
    }

    /// What is remembered of an idempotency key, unless it has expired or its call is gone.
    fn remembered(&self, hash: KeyedHash) -> Result<Option<Remembered>, DeskError> {
        let slot = Slot::idempotency(&hash);
        let Some(sealed) = self.store.get(&slot)? else { return Ok(None) };
        let remembered: Remembered = self.index.envelope().open_value(&slot, &sealed)?;
        if self.clock.now().since(remembered.at) < IDEMPOTENCY_LIFETIME {
            return Ok(Some(remembered));
        }
        let forget = Batch::new().require_unchanged(slot.clone(), sealed).delete(slot);
        self.store.commit(forget).map(drop)?;
        Ok(None)
    }

    /// Stores a new call; none when its idempotency key was taken meanwhile.
    fn store_new(
        &self,
        mut header: Header,
        metadata: &StoredMetadata,
        envelope: &Envelope,
        remembered: Option<&Remembered>,
    ) -> Result<Option<Header>, DeskError> {
        let call = header.call;
        let index = self.index.envelope();
        let (dek, content) = (Slot::of_call(Table::WrappedDek, call), Slot::of_call(Table::Metadata, call));
        let mut batch = Batch::new().put(content.clone(), envelope.seal_value(&content, metadata)?);
        if let (Some(slot), Some(remembered)) = (header.idempotency.as_ref().map(Slot::idempotency), remembered) {
            batch = batch.require_absent(slot.clone()).put(slot.clone(), index.seal_value(&slot, remembered)?);
        }
        let pending = {
            let mut last_job = self.last_job.lock().unwrap_or_else(PoisonError::into_inner);
            header.job = *last_job + 1;
            for slot in [Slot::queue(header.job), Slot::by_job(header.job), Slot::by_owner(&self.index.owner(&header.owner), header.job)] {
                let sealed = index.seal_value(&slot, &call)?;
                batch = batch.put(slot, sealed);
            }
            let (counter, slot) = (Slot::counter(), Slot::of_call(Table::Header, call));
            batch = batch.put(counter.clone(), index.seal_value(&counter, &header.job)?);
            batch = batch.put(slot.clone(), index.seal_value(&slot, &header)?);
            *last_job = header.job;
            self.with_unstored(call, |wrapped| Ok(self.store.submit(batch.put(dek.clone(), index.seal_value(&dek, wrapped)?))?))?
        };
        Ok((pending.wait()? == Outcome::Committed).then_some(header))
    }

    /// The call of the first upload with an idempotency key, for one that is the same.
    fn repeated(&self, first: &Remembered, metadata: KeyedHash, body: KeyedHash) -> Result<Arrival, DeskError> {
        if (first.metadata, first.body) != (metadata, body) {
            return Err(DeskError::Refused(CallsError::IdempotencyConflict));
        }
        Ok(Arrival::Repeated(self.view(&self.stored_header(first.call)?.0)))
    }
}
