//! What is to be stored together.
//! Trusts: that values are sealed for the slots that they go to; nothing else opens.
//! Touches: nothing.
//! Next: [`super::store`] takes it, [`super::writer`] commits it.

use super::envelope::SealedRecord;
use super::schema::Slot;

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
