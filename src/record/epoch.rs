//! Of which erasure epoch the store's keys are, and whether the TPM has that one.
//! Trusts: the keeper, which says what is in the TPM's places.
//! Touches: nothing; one record of the store is read.
//! Next: [`super::rollback`] takes no store up whose calls nothing opens; `job::epoch` moves.

use redb::{Database, ReadableDatabase as _, ReadableTableMetadata as _};
use serde::{Deserialize, Serialize};

use super::database::{definition, guarded};
use super::envelope::{Envelope, OpenError, SealedRecord};
use super::schema::{Slot, Table};
use crate::base::clock::Timestamp;
use crate::ipc::keeper::KeeperDenial;

/// In the slot [`Slot::epoch`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredEpoch {
    /// Of all wrapped keys in the store.
    pub number: u32,
    /// When it came to count.
    pub since: Timestamp,
}

/// What a store says of its epoch: nothing when it has never held a call, and 0 of calls that are of none.
///
/// # Errors
/// The database; inside, what does not open.
pub(in crate::record) fn said(database: &Database, index: &Envelope) -> Result<Result<Option<u32>, OpenError>, redb::Error> {
    let slot = Slot::epoch();
    let (sealed, calls) = guarded(|| {
        let transaction = database.begin_read()?;
        let sealed =
            transaction.open_table(definition(slot.table()))?.get(slot.key())?.map(|value| SealedRecord::from_stored(value.value()));
        Ok((sealed, !transaction.open_table(definition(Table::WrappedDek))?.is_empty()?))
    })?;
    let Some(sealed) = sealed else { return Ok(Ok(calls.then_some(0))) };
    Ok(index.open_value(&slot, &sealed).map(|stored: StoredEpoch| Some(stored.number)))
}

/// What the keeper will say when it is told of this store, as far as it depends on the epochs that are `here`.
///
/// # Errors
/// `OtherEpoch`, `OlderKeys`, `EmptyStore`.
pub(in crate::record) fn fits(said: Option<u32>, here: [Option<u32>; 2]) -> Result<(), KeeperDenial> {
    match (said, here.into_iter().flatten().max()) {
        (None, _) if here.iter().all(Option::is_some) => Err(KeeperDenial::EmptyStore),
        (Some(number), Some(newest)) if !here.contains(&Some(number)) => {
            Err(if number > newest { KeeperDenial::OlderKeys } else { KeeperDenial::OtherEpoch })
        }
        // Without any, the keeper knows more.
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_store_fits_when_its_epoch_is_in_a_place_and_an_empty_one_decides_between_no_two() {
        for said in [None, Some(4)] {
            assert_eq!(fits(said, [Some(4), None]), Ok(()));
            assert_eq!(fits(said, [None, None]), Ok(()), "the keeper says why");
        }
        let two = [Some(5), Some(4)];
        assert_eq!([fits(Some(4), two), fits(Some(5), two)], [Ok(()), Ok(())]);
        assert_eq!(fits(Some(3), two), Err(KeeperDenial::OtherEpoch));
        assert_eq!(fits(Some(6), two), Err(KeeperDenial::OlderKeys));
        assert_eq!(fits(None, two), Err(KeeperDenial::EmptyStore));
    }
}
