//! Is this store the newest that this box has had? The TPM counts each time one is taken up and each move of the erasure epoch, and the
//! store says to what.
//! Trusts: the TPM's counter, as the keeper tells it; the index key, which seals what the store says.
//! Touches: one record of the store; when the operator lets another than the newest be taken, a copy beside it, and the recordings that it does not know.
//! Next: `main` takes the store up before anybody is served; `job` counts with each move of the epoch.
//!
//! ```text
//! expected = n + 1, durable > the TPM counts to n + 1 > confirmed = n + 1, durable
//! ```
//! Whatever is cut off between, the counter is at `confirmed` or at `expected`. A copy of before says lower numbers for ever.
//!
//! | the store says | the TPM is at | | leave that takes it |
//! |---|---|---|---|
//! | an epoch that is in no place | anything | refused: its calls open nowhere | none |
//! | no epoch, holds no call | two epochs | refused: not mounted? | accepted |
//! | anything | nothing | refused: the counter is gone | none |
//! | nothing, holds nothing | n | refused: not mounted? | first (a new store), accepted |
//! | nothing, holds calls | n | refused: from before the counting | moved, accepted |
//! | c, expects e | c .. e | the newest | |
//! | c, expects e | more than e | refused: older | moved, accepted |
//! | c, expects e | less than c | refused: cleared or another TPM | moved, accepted |
//! | what does not open | anything | refused: damaged or changed | moved, accepted |
//! | keyslots changed k times | anything, keyslots of fewer changes | refused: the key directory is older | moved, accepted |
//!
//! What this does not find: the record is bound to its place, not to the other records. Whoever can write the disk, and copies it out of the
//! newest store into an older one, makes that one look like the newest ([`tests`] shows it). The erasure epoch does not fall for that.

mod refusal;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::error::Error;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use redb::{Database, ReadableDatabase, ReadableTableMetadata};
use serde::{Deserialize, Serialize};

use self::refusal::Refused;
pub use self::refusal::TakeUpError;
use super::copy;
use super::database::{OpenStoreError, definition, guarded, transact};
use super::envelope::{Envelope, OpenError, SealError, SealedRecord};
use super::epoch;
use super::index::IndexKeys;
use super::schema::{Slot, Table};
use super::segments::{KnownCalls, Moved, SegmentDirectory};
use super::store::{OpenStore, Store, StoreError};
use crate::base::ids::CallId;
use crate::ipc::keeper::{Counted, Counter, Leave};

/// What the store says of the counter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Says {
    /// What it will be, or is.
    expected: u64,
    /// What it surely was.
    confirmed: u64,
    /// How often the keyslots had been changed then.
    keys: u64,
}

/// What a start found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TakenUp {
    /// The newest store, or the first.
    Newest,
    /// Another one, with leave.
    WithLeave {
        /// What it said.
        said: Option<u64>,
        /// What the TPM said.
        counted: u64,
        /// Its copy.
        copy: PathBuf,
    },
}

impl OpenStore {
    /// Whether [`Self::take_up`] would take the store. Writes nothing and counts nothing.
    ///
    /// # Errors
    /// [`TakeUpError`].
    pub fn is_newest(&self, index: &IndexKeys, counter: Counter) -> Result<(), TakeUpError> {
        let path = self.path();
        let judged = self.with(|database| Ok(judged(database, &path, index.envelope(), counter)))?;
        match judged? {
            (Err(refused), _) if !refused.is_lifted_by(counter.leave) => Err(refused),
            _ => Ok(()),
        }
    }

    /// Compares the store with the TPM's counter, counts, and writes down to what. `count` counts from where the counter was said to be.
    /// `taken` hears of a store that is taken with leave, before anything that ends the leave.
    ///
    /// # Errors
    /// [`TakeUpError`].
    pub fn take_up<E: Error + Send + Sync + 'static>(
        &self,
        index: &IndexKeys,
        counter: Counter,
        taken: impl FnOnce(&TakenUp),
        count: impl FnOnce(u64) -> Result<Counted, E>,
    ) -> Result<TakenUp, TakeUpError> {
        let path = self.path();
        let mut keep = |database: &Database, counted| {
            let copy = kept_copy(&path, counted);
            let failed = |source| TakeUpError::Copy { path: path.clone(), source: Box::new(source) };
            copy::write(database, &copy, &mut |_| ()).map_err(failed)?;
            put_aside(database, &path, index.envelope(), counted)?;
            Ok(copy)
        };
        self.with(|database| {
            let count = |from| {
                // Only now it is sure that it is taken; and nobody has looked for the recordings of its calls yet.
                take_back(database, &path, index.envelope())?;
                count(from).map_err(|error| TakeUpError::Count(Arc::new(error)))
            };
            Ok(take_up(database, &path, index.envelope(), counter, (&mut keep, taken), count))
        })?
    }
}

/// Where a copy is kept of a store that is taken with leave at this state of the counter: a start that failed is made up by the next.
fn kept_copy(path: &Path, counted: u64) -> PathBuf {
    path.with_extension(format!("rollback-{counted}.redb"))
}

/// The recordings of calls that the store does not know go into a directory of their own: the next sweep would remove them, and the newest
/// store may yet be found.
fn put_aside(database: &Database, path: &Path, index: &Envelope, counted: u64) -> Result<(), TakeUpError> {
    let moved = SegmentDirectory::put_aside(path.parent().unwrap_or(path), counted, &known(database, path, index)?);
    let Moved { recordings, removed } = moved.map_err(|source| TakeUpError::Aside { path: path.to_owned(), source })?;
    if recordings > 0 {
        tracing::info!(recordings, counted, "recordings that the store does not know were put aside");
    }
    told_of_removed(removed);
    Ok(())
}

/// Of the recordings that were put aside for another store, those whose calls this one knows come back: it is the newest, found after all.
fn take_back(database: &Database, path: &Path, index: &Envelope) -> Result<(), TakeUpError> {
    let (state, failed) = (path.parent().unwrap_or(path), |source| TakeUpError::Back { path: path.to_owned(), source });
    if SegmentDirectory::aside(state).map_err(failed)?.is_empty() {
        return Ok(());
    }
    let Moved { recordings, removed } = SegmentDirectory::take_back(state, &known(database, path, index)?).map_err(failed)?;
    if recordings > 0 {
        tracing::info!(recordings, "recordings that were put aside for an older store are back");
    }
    told_of_removed(removed);
    Ok(())
}

fn told_of_removed(recordings: u64) {
    if recordings > 0 {
        tracing::info!(recordings, "recordings of erased calls were removed");
    }
}

/// The calls that the store knows. One is erased only where what is kept of it opens: nobody gets a recording removed with a row that he made.
fn known(database: &Database, path: &Path, index: &Envelope) -> Result<KnownCalls, TakeUpError> {
    let known = guarded(|| {
        let transaction = database.begin_read()?;
        let calls = |table, wanted: &dyn Fn(&Slot, &[u8]) -> bool| -> Result<BTreeSet<CallId>, redb::Error> {
            let mut calls = BTreeSet::new();
            for entry in transaction.open_table(definition(table))?.range::<&[u8]>(..)? {
                let (key, value) = entry?;
                let slot = Slot::found(table, key.value());
                calls.extend(slot.call().filter(|_| wanted(&slot, value.value())));
            }
            Ok(calls)
        };
        let opens = |slot: &Slot, value: &[u8]| index.open(slot, &SealedRecord::from_stored(value)).is_ok();
        Ok(KnownCalls { held: calls(Table::Header, &|_, _| true)?, erased: calls(Table::Erasure, &opens)? })
    });
    known.map_err(|error| TakeUpError::Store(OpenStoreError::of(path, error)))
}

/// What is done for a store that is taken with leave: kept, and told of.
type WithLeave<'a, T> = (&'a mut dyn FnMut(&Database, u64) -> Result<PathBuf, TakeUpError>, T);

fn take_up(
    database: &Database,
    path: &Path,
    index: &Envelope,
    counter: Counter,
    (keep, told): WithLeave<'_, impl FnOnce(&TakenUp)>,
    count: impl FnOnce(u64) -> Result<Counted, TakeUpError>,
) -> Result<TakenUp, TakeUpError> {
    let Some(counted) = counter.value else { return Err(TakeUpError::NoCounter { path: path.to_owned() }) };
    let taken = match judged(database, path, index, counter)? {
        (Ok(()), _) => TakenUp::Newest,
        (Err(TakeUpError::Absent { .. }), _) if counter.leave == Leave::First => TakenUp::Newest,
        (Err(refused), says) if refused.is_lifted_by(counter.leave) => {
            let copy = keep(database, counted)?;
            let taken = TakenUp::WithLeave { said: says.map(|says| says.confirmed), counted, copy };
            told(&taken);
            taken
        }
        (Err(refused), _) => return Err(refused),
    };
    write(database, path, index, Says::before(counted, counter.keys))?;
    let counted = count(counted)?;
    write(database, path, index, Says::after(counted))?;
    Ok(taken)
}

/// The table above: nothing, or why the store is refused; and what it says, where that opens.
type Judged = (Result<(), TakeUpError>, Option<Says>);

fn judged(database: &Database, path: &Path, index: &Envelope, counter: Counter) -> Result<Judged, TakeUpError> {
    let failed = |error| TakeUpError::Store(OpenStoreError::of(path, error));
    let epoch = epoch::said(database, index).map_err(failed)?;
    let epoch = epoch.map_err(|source| TakeUpError::EpochSealed { path: path.to_owned(), source })?;
    if let Err(denial) = epoch::fits(epoch, counter.epochs) {
        return Ok((Err(TakeUpError::Epoch(denial)), None));
    }
    let says = match read(database, path, index) {
        Err(refused) if refused.is_refusal() => return Ok((Err(refused), None)),
        says => says?,
    };
    let Some(counted) = counter.value else { return Ok((Err(TakeUpError::NoCounter { path: path.to_owned() }), says)) };
    let empty = guarded(|| Ok(database.begin_read()?.open_table(definition(Table::Header))?.is_empty()?)).map_err(failed)?;
    Ok((judge(says, empty, counted, counter.keys).map_err(|refused| refused.of(path)), says))
}

impl Says {
    /// Durable before the TPM counts.
    const fn before(counted: u64, keys: u64) -> Self {
        Self { expected: counted.saturating_add(1), confirmed: counted, keys }
    }

    /// Durable after it.
    const fn after(Counted { at, keys }: Counted) -> Self {
        Self { expected: at, confirmed: at, keys }
    }

    /// What a store that was taken up says; nothing of one that never was.
    ///
    /// # Errors
    /// The store's.
    pub fn of(store: &Store, index: &Envelope) -> Result<Option<Self>, SaysError> {
        let slot = Slot::rollback();
        Ok(store.get(&slot)?.map(|sealed| index.open_value(&slot, &sealed)).transpose()?)
    }

    /// To be stored with what makes the store newer than all its copies: that the TPM will count.
    ///
    /// # Errors
    /// [`SealError`].
    pub fn will_count(self, index: &Envelope) -> Result<(Slot, SealedRecord), SealError> {
        Self::before(self.confirmed, self.keys).sealed(index)
    }

    /// From where the TPM is to count; nothing once it has.
    pub const fn to_count(self) -> Option<u64> {
        if self.expected > self.confirmed { Some(self.confirmed) } else { None }
    }

    /// To be stored once it has.
    ///
    /// # Errors
    /// [`SealError`].
    pub fn has_counted(counted: Counted, index: &Envelope) -> Result<(Slot, SealedRecord), SealError> {
        Self::after(counted).sealed(index)
    }

    fn sealed(self, index: &Envelope) -> Result<(Slot, SealedRecord), SealError> {
        let slot = Slot::rollback();
        let sealed = index.seal_value(&slot, &self)?;
        Ok((slot, sealed))
    }
}

/// Why it is not known what a store says.
#[derive(Debug, thiserror::Error)]
pub enum SaysError {
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The record.
    #[error("what the store says of the TPM's counter does not open")]
    Open(#[from] OpenError),
}

/// The table above, where there is a counter and a record that opens.
const fn judge(says: Option<Says>, empty: bool, counted: u64, keys: u64) -> Result<(), Refused> {
    match says {
        None if empty => Err(Refused::Absent { counted }),
        None => Err(Refused::Uncounted { counted }),
        Some(Says { expected, confirmed: said, .. }) if counted > expected => Err(Refused::Older { said, counted }),
        Some(Says { confirmed: said, .. }) if counted < said => Err(Refused::Behind { said, counted }),
        Some(Says { keys: said, .. }) if keys < said => Err(Refused::OlderKeys { said, found: keys }),
        Some(_) => Ok(()),
    }
}

fn read(database: &Database, path: &Path, index: &Envelope) -> Result<Option<Says>, TakeUpError> {
    let slot = Slot::rollback();
    let stored = guarded(|| {
        let table = database.begin_read()?.open_table(definition(slot.table()))?;
        Ok(table.get(slot.key())?.map(|value| SealedRecord::from_stored(value.value())))
    });
    let sealed = stored.map_err(|error| OpenStoreError::of(path, error))?;
    let opened = sealed.map(|sealed| index.open_value(&slot, &sealed)).transpose();
    opened.map_err(|source| TakeUpError::Sealed { path: path.to_owned(), source })
}

fn write(database: &Database, path: &Path, index: &Envelope, says: Says) -> Result<(), TakeUpError> {
    let (slot, sealed) = says.sealed(index)?;
    let written = transact(database, |transaction| {
        drop(transaction.open_table(definition(slot.table()))?.insert(slot.key(), sealed.as_stored())?);
        Ok(())
    });
    Ok(written.map_err(|error| OpenStoreError::of(path, error))?)
}
