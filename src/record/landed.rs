//! Whether a commit that failed is stored after all.
//! Trusts: the writer, whose commits follow one another; that each sealing has a nonce of its own, so that equal bytes are the same write.
//! Touches: nothing.
//! Next: [`super::writer`] answers that it is durable, or why it is not.
//!
//! The last thing in a commit is one sync, by which the new roots count. When it fails, the roots may be on the disk or not, and what was
//! written before them is. A caller that is told of a failure undoes the rest of its work (an upload removes its recording), so it must
//! not be told of one that did not happen. The store that was opened again says which it is, and to open it has written and synced the
//! page with the roots once more: what it shows is durable.

use std::collections::BTreeMap;

use super::envelope::SealedRecord;
use super::schema::Slot;
use super::store::{Outcome, Shared, StoreError};
use super::writer::Submission;

/// Whether the store holds what it would if `group`, which came to `outcomes`, had been committed as the last thing.
pub(in crate::record) fn whole(shared: &Shared, group: &[Submission], outcomes: &[Outcome]) -> bool {
    if group.len() != outcomes.len() {
        return false;
    }
    let committed = group.iter().zip(outcomes).filter(|(_, outcome)| **outcome == Outcome::Committed);
    let changes = committed.flat_map(|(submission, _)| submission.batch.changes.iter());
    // The last change of a slot is the one that stays.
    let last: BTreeMap<&Slot, Option<&SealedRecord>> = changes.map(|(slot, value)| (slot, value.as_ref())).collect();
    let held = shared.view(|snapshot| {
        for (slot, value) in &last {
            if snapshot.get(slot)?.as_ref() != *value {
                return Ok::<_, StoreError>(false);
            }
        }
        Ok(true)
    });
    held.unwrap_or(false)
}
