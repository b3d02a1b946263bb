//! The TPM counts each move of the erasure epoch: a copy of the store from before it is older than the box from then on.
//! Trusts: the keeper, which counts once for one question.
//! Touches: one record of the store, the keeper.
//! Next: [`super::epoch`] moves; `record::rollback` compares at the next start.
//!
//! ```text
//! the move's commit says that the TPM will count > the keeper destroys the old epoch > the TPM counts > the store says that it has
//! ```
//! Cut off anywhere, the next move or the next start goes on from there.

use super::desk::{Desk, DeskError, record_fault};
use crate::record::envelope::SealedRecord;
use crate::record::rollback::{Says, SaysError};
use crate::record::schema::Slot;
use crate::record::store::Batch;

impl From<SaysError> for DeskError {
    fn from(error: SaysError) -> Self {
        match error {
            SaysError::Store(error) => error.into(),
            SaysError::Open(error) => error.into(),
        }
    }
}

impl Desk {
    /// For the commit of a move: that the TPM will count. Nothing where the store was never taken up.
    pub(super) fn will_count(&self) -> Result<Option<(Slot, SealedRecord)>, DeskError> {
        let says = Says::of(&self.store, self.index.envelope())?;
        Ok(says.map(|says| says.will_count(self.index.envelope())).transpose()?)
    }

    /// For who waits for an erasure, which is final without it: what fails is tried again by the thread that moves the epoch.
    pub(super) fn count_move_or_later(&self) {
        if let Err(error) = self.count_move() {
            record_fault("count epoch move", None, &error);
            self.move_is_due();
        }
    }

    /// After it: counts what the store says is to be counted, if it was not.
    pub(super) fn count_move(&self) -> Result<(), DeskError> {
        let says = Says::of(&self.store, self.index.envelope())?;
        let Some(from) = says.and_then(Says::to_count) else { return Ok(()) };
        let (slot, sealed) = Says::has_counted(self.keys.count(from)?, self.index.envelope())?;
        let _ = self.store.commit(Batch::new().put(slot, sealed))?;
        Ok(())
    }
}
