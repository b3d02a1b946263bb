//! Erasure, in an order that a crash at any point leaves safe.
//! Trusts: the caller knows everything that names the call.
//! Touches: the store, then `STATE/audio`.
//! Next: `job` calls [`erase`] for a permitted deletion and [`sweep`] at start.
//!
//! First the copy goes that a migration kept of the store. One durable commit removes the wrapped key with every record: from then on nothing opens the rest.
//! Only then the recording's file goes. A crash in between leaves a file without a call, which the next start sweeps.

use crate::base::ids::CallId;

use super::copy::ForgetError;
use super::schema::{Slot, Table};
use super::segments::{SegmentDirectory, SegmentError};
use super::store::{Batch, Outcome, Store, StoreError};

/// Why a call was not erased, or not wholly yet.
#[derive(Debug, thiserror::Error)]
pub enum EraseError {
    /// Nothing was erased.
    #[error("the call was not erased: the store refused")]
    Store(#[from] StoreError),
    /// Nothing was erased.
    #[error("the call was not erased: {0}")]
    Copy(#[source] ForgetError),
    /// The key and the records are gone; the sealed file is left and is swept at the next start.
    #[error("the call's key is erased, its sealed recording is left on disk until the next start")]
    Recording(#[source] SegmentError),
}

/// Erases `call`: everything in [`Table::OF_CALL`] and what `references` names. `batch` may carry requirements.
///
/// # Errors
/// [`EraseError`]. `Conflict` when a requirement of the batch did not hold.
pub fn erase(
    store: &Store,
    segments: &SegmentDirectory,
    call: CallId,
    batch: Batch,
    references: impl IntoIterator<Item = Slot>,
) -> Result<Outcome, EraseError> {
    let batch = Table::OF_CALL.into_iter().map(|table| Slot::of_call(table, call)).chain(references).fold(batch, Batch::delete);
    // Before the commit: after it, a crash would leave a copy with the key of an erased call, and nobody who knows.
    store.forget_copies().map_err(EraseError::Copy)?;
    let outcome = store.commit(batch.freeing())?;
    if outcome == Outcome::Committed {
        segments.remove(call).map_err(EraseError::Recording)?;
        store.restore_ballast();
    }
    Ok(outcome)
}

/// Removes the files of uploads that were cut off and of calls that were erased. Returns how many.
///
/// # Errors
/// `Store` when the calls cannot be listed, `Recording` when a file cannot be removed.
pub fn sweep(store: &Store, segments: &SegmentDirectory) -> Result<u64, EraseError> {
    let headers = store.view(|snapshot| snapshot.all(Table::Header))?;
    let known: std::collections::BTreeSet<CallId> = headers.iter().filter_map(|(slot, _)| slot.call()).collect();
    segments.sweep(|call| known.contains(&call)).map_err(EraseError::Recording)
}
