//! Is this store the newest that this box has had? The TPM counts each time one is taken up, and the store says to what.
//! Trusts: the TPM's counter, as the keeper tells it; the index key, which seals what the store says.
//! Touches: one record of the store; a copy beside it when the operator lets an older one be taken.
//! Next: `main` takes the store up before anybody is served.
//!
//! ```text
//! expected = n + 1, durable > the TPM counts to n + 1 > confirmed = n + 1, durable
//! ```
//! Whatever is cut off between, the counter is at `expected` or one before it. A copy of before says a lower number for ever.
//!
//! | the store says | the TPM is at | |
//! |---|---|---|
//! | nothing, holds nothing | anything | a new store |
//! | nothing, holds calls | nothing yet | an older program's store: begins |
//! | nothing, holds calls | n | refused: from before the counting |
//! | begun | anything | the first time was cut off |
//! | expected e | e, e - 1 | the newest |
//! | expected e | more | refused: older |
//! | expected e | less, nothing | refused: cleared or another TPM |

#[cfg(test)]
mod tests;

use std::error::Error;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use redb::{Database, ReadableDatabase, ReadableTableMetadata};
use serde::{Deserialize, Serialize};

use super::copy::{self, CopyError};
use super::database::{OpenStoreError, definition, guarded, transact};
use super::envelope::{Envelope, OpenError, SealError, SealedRecord};
use super::index::IndexKeys;
use super::schema::{Slot, Table};
use super::store::OpenStore;
use crate::base::clock::Timestamp;
use crate::ipc::keeper::Counter;

/// What the store says of the counter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Says {
    /// It will count for the first time, to nobody knows what: a new counter begins where the TPM's others have been.
    Begun,
    /// It will be, or is, there.
    Counted {
        /// After this start.
        expected: u64,
        /// What it surely was.
        confirmed: u64,
    },
}

/// What a start found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TakenUp {
    /// The newest store.
    Newest,
    /// Another one, with the operator's leave.
    WithLeave {
        /// What it said.
        said: Option<u64>,
        /// What the TPM said.
        counted: u64,
        /// Its copy.
        copy: PathBuf,
    },
}

/// Why a store is not taken up. It is as it was, but of the present schema.
#[derive(Debug, thiserror::Error)]
pub enum TakeUpError {
    /// An older one.
    #[error(
        "{path} is older than this box: it was taken up for the last time at count {said}, and the TPM has counted to {counted}. Somebody has put an \
         older copy of the state directory in its place, or restored a backup. Put the newest one back. If there is none: `salama recover \
         --accept-rollback` takes this one with a recovery code or shares and keeps a copy; what came since is lost"
    )]
    Older {
        /// The file.
        path: PathBuf,
        /// What it says.
        said: u64,
        /// Where the TPM is.
        counted: u64,
    },
    /// From before there was a counter.
    #[error(
        "{path} is older than this box: it is from before starts were counted, and the TPM has counted to {counted}. Somebody has put an older \
         copy of the state directory in its place, or restored a backup. Put the newest one back. If there is none: `salama recover \
         --accept-rollback` takes this one with a recovery code or shares and keeps a copy; what came since is lost"
    )]
    Uncounted {
        /// The file.
        path: PathBuf,
        /// Where the TPM is.
        counted: u64,
    },
    /// The TPM is behind.
    #[error(
        "{path} was taken up for the last time at count {said}, but the TPM {}: it was cleared or replaced, or its owner removed the counter. If \
         that was you (a new mainboard, a clear in the firmware): `salama recover --accept-rollback` takes this store with a recovery code or \
         shares and keeps a copy. If not, find out who did, and whether this store is the newest", told_of(*.counted)
    )]
    Behind {
        /// The file.
        path: PathBuf,
        /// What it says.
        said: u64,
        /// Where the TPM is.
        counted: Option<u64>,
    },
    /// What the store says of it does not open.
    #[error("what {path} says of the TPM's counter does not open: the store was damaged or changed by somebody; restore a backup")]
    Sealed {
        /// The file.
        path: PathBuf,
        /// How.
        #[source]
        source: OpenError,
    },
    /// Sealing.
    #[error(transparent)]
    Seal(#[from] SealError),
    /// No copy, no change.
    #[error("no copy of {path} can be kept, so it was not taken; nothing was changed")]
    Copy {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: Box<CopyError>,
    },
    /// The database.
    #[error(transparent)]
    Store(#[from] OpenStoreError),
    /// The TPM.
    #[error("the TPM could not count this start; start again, and see the key keeper's lines in the journal")]
    Count(#[source] Arc<dyn Error + Send + Sync>),
}

fn told_of(counted: Option<u64>) -> String {
    counted.map_or_else(|| "has not counted at all".to_owned(), |counted| format!("has counted only to {counted}"))
}

impl TakeUpError {
    /// Whether the store was refused for its age.
    pub const fn is_refusal(&self) -> bool {
        matches!(self, Self::Older { .. } | Self::Uncounted { .. } | Self::Behind { .. })
    }
}

impl OpenStore {
    /// Compares the store with the TPM's counter, counts, and writes down to what. `count` counts from where the counter was said to be.
    ///
    /// # Errors
    /// [`TakeUpError`].
    pub fn take_up<E: Error + Send + Sync + 'static>(
        &self,
        index: &IndexKeys,
        counter: Counter,
        now: Timestamp,
        count: impl FnOnce(Option<u64>) -> Result<u64, E>,
    ) -> Result<TakenUp, TakeUpError> {
        let path = self.path();
        let mut keep = |database: &Database| {
            let copy = kept_copy(&path, now);
            copy::write(database, &copy, &mut |_| ()).map(|_| copy)
        };
        let count = |from| count(from).map_err(|error| TakeUpError::Count(Arc::new(error)));
        self.with(|database| Ok(take_up(database, &path, index.envelope(), counter, &mut keep, count)))?
    }
}

/// Where a copy is kept of a store that is taken with leave.
fn kept_copy(path: &Path, now: Timestamp) -> PathBuf {
    let date: String = now.rfc3339().chars().filter(char::is_ascii_alphanumeric).collect();
    path.with_extension(format!("rollback-{date}.redb"))
}

type Keep<'a> = &'a mut dyn FnMut(&Database) -> Result<PathBuf, CopyError>;

fn take_up(
    database: &Database,
    path: &Path,
    index: &Envelope,
    counter: Counter,
    keep: Keep<'_>,
    count: impl FnOnce(Option<u64>) -> Result<u64, TakeUpError>,
) -> Result<TakenUp, TakeUpError> {
    let failed = |error| TakeUpError::Store(OpenStoreError::of(path, error));
    let says = read(database, path, index)?;
    let empty = || guarded(|| Ok(database.begin_read()?.open_table(definition(Table::Header))?.is_empty()?)).map_err(failed);
    let taken = match (judge(says, empty()?, counter.value), counter) {
        (Ok(()), _) => TakenUp::Newest,
        (Err(_), Counter { value: Some(counted), leave: true }) => {
            let copy = keep(database).map_err(|error| TakeUpError::Copy { path: path.to_owned(), source: Box::new(error) })?;
            TakenUp::WithLeave { said: says.and_then(Says::last), counted, copy }
        }
        (Err(refused), _) => return Err(refused.of(path)),
    };
    write(database, path, index, Says::before(counter.value))?;
    let counted = count(counter.value)?;
    write(database, path, index, Says::after(counted))?;
    Ok(taken)
}

impl Says {
    /// Durable before the TPM counts.
    fn before(counter: Option<u64>) -> Self {
        counter.map_or(Self::Begun, |now| Self::Counted { expected: now.saturating_add(1), confirmed: now })
    }

    /// Durable after it.
    const fn after(counted: u64) -> Self {
        Self::Counted { expected: counted, confirmed: counted }
    }

    const fn last(self) -> Option<u64> {
        match self {
            Self::Begun => None,
            Self::Counted { confirmed, .. } => Some(confirmed),
        }
    }
}

/// What does not fit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Refused {
    Older { said: u64, counted: u64 },
    Uncounted { counted: u64 },
    Behind { said: u64, counted: Option<u64> },
}

impl Refused {
    fn of(self, path: &Path) -> TakeUpError {
        let path = path.to_owned();
        match self {
            Self::Older { said, counted } => TakeUpError::Older { path, said, counted },
            Self::Uncounted { counted } => TakeUpError::Uncounted { path, counted },
            Self::Behind { said, counted } => TakeUpError::Behind { path, said, counted },
        }
    }
}

/// The table above.
const fn judge(says: Option<Says>, empty: bool, counter: Option<u64>) -> Result<(), Refused> {
    match (says, counter) {
        (None, Some(counted)) if !empty => Err(Refused::Uncounted { counted }),
        (None | Some(Says::Begun), _) => Ok(()),
        (Some(Says::Counted { confirmed, .. }), None) => Err(Refused::Behind { said: confirmed, counted: None }),
        (Some(Says::Counted { expected, confirmed }), Some(counted)) => {
            if counted > expected {
                Err(Refused::Older { said: confirmed, counted })
            } else if counted.saturating_add(1) < expected {
                Err(Refused::Behind { said: confirmed, counted: Some(counted) })
            } else {
                Ok(())
            }
        }
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
    let slot = Slot::rollback();
    let sealed = index.seal_value(&slot, &says)?;
    let written = transact(database, |transaction| {
        drop(transaction.open_table(definition(slot.table()))?.insert(slot.key(), sealed.as_stored())?);
        Ok(())
    });
    Ok(written.map_err(|error| OpenStoreError::of(path, error))?)
}
