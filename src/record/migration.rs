//! The schema version of the store, and the way from an older one to the present: step by step, each one durable commit.
//! Trusts: the index key, which seals the version like every record.
//! Touches: the database; a copy of it beside it before the first step.
//! Next: [`super::store`] opens nothing that is not of the present schema.
//!
//! | schema | what changed |
//! |---|---|
//! | 1 | the first; it has no table `store` and names no version |
//! | 2 | table `store` with the version |
//! | 3 | table `erasure`; records `rollback` (table `store`) and `epoch` (table `counter`), which come later |
//!
//! A step changes what is sealed under the index key, or tables. What is sealed under a call's own key is never open here; its tables
//! carry versions of their own ([`super::schema::Table::version`]).

#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use redb::{Database, ReadableDatabase, TableHandle, WriteTransaction};

use super::copy::{self, CopyError};
use super::database::{definition, guarded, transact};
use super::envelope::{Envelope, OpenError, SealError, SealedRecord};
use super::index::IndexKeys;
use super::schema::{Slot, Table};

/// The schema that this program reads and writes.
pub const SCHEMA: u16 = 3;

/// From one schema to the next, inside one transaction that also writes the new version down.
pub(in crate::record) struct Step {
    pub(in crate::record) from: u16,
    pub(in crate::record) change: fn(&WriteTransaction, &Envelope) -> Result<(), StepError>,
}

/// All steps, oldest first. A new table needs no change of its own: each step makes all tables that are not there.
pub(in crate::record) const STEPS: &[Step] = &[Step { from: 1, change: |_, _| Ok(()) }, Step { from: 2, change: |_, _| Ok(()) }];

/// Why one step was not taken; nothing of it is stored.
#[derive(Debug, thiserror::Error)]
pub enum StepError {
    /// The database.
    #[error("the store failed")]
    Store(#[from] redb::Error),
    /// A record.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// A record.
    #[error(transparent)]
    Seal(#[from] SealError),
}

/// Why the store is not of the schema that this program reads. It is as it was, or between two steps; the next start goes on.
#[derive(Debug, thiserror::Error)]
pub enum MigrateError {
    /// A newer program wrote it.
    #[error("{path} was written by a newer Salama (schema {found}, this program reads {SCHEMA}); {}", way_back(.copy.as_deref()))]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its schema.
        found: u16,
        /// The copy that was kept when it was lifted from this program's schema, if it is there.
        copy: Option<PathBuf>,
    },
    /// The version is there but is not ours.
    #[error(
        "the schema version in {path} does not open: the store was damaged, or belongs to other keys than those in the key directory; restore store and keys from one backup"
    )]
    Sealed {
        /// The file.
        path: PathBuf,
        /// How.
        #[source]
        source: OpenError,
    },
    /// Tables of something else.
    #[error("{path} is no store of Salama's; move it away, or name another directory in the settings")]
    Foreign {
        /// The file.
        path: PathBuf,
    },
    /// It could not be read.
    #[error("{path} cannot be read; check the disk, or restore a backup")]
    Read {
        /// The file.
        path: PathBuf,
        /// What redb says.
        #[source]
        source: Arc<redb::Error>,
    },
    /// No copy, no change.
    #[error("{path} has to be lifted to schema {SCHEMA}, and no copy of it can be kept; nothing was changed")]
    Copy {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: Box<CopyError>,
    },
    /// A step failed.
    #[error("{path} could not be lifted from schema {from} to {}; it still is of schema {from}: check the disk and start again", .from + 1)]
    Step {
        /// The file.
        path: PathBuf,
        /// From which.
        from: u16,
        /// Why.
        #[source]
        source: Box<StepError>,
    },
}

fn way_back(copy: Option<&Path>) -> String {
    match copy {
        Some(copy) => format!(
            "install the newer one again, or go back to the store of before the update by renaming {} to its name: calls that came since are lost then, and a Salama that compares stores with the TPM's counter takes it only with `salama recover --accept-rollback`",
            copy.display()
        ),
        None => "install the newer one again, or restore a backup of before the update".to_owned(),
    }
}

/// Where the copy of a store of schema `version` is kept.
pub(in crate::record) fn kept_copy(path: &Path, version: u16) -> PathBuf {
    path.with_extension(format!("schema-{version}.redb"))
}

/// Gives a new store its tables, and lifts an older one; keeps a copy of it first.
pub(in crate::record) fn bring_up_to_date(database: &Database, path: &Path, index: &IndexKeys) -> Result<(), MigrateError> {
    let mut keep = |from: u16| copy::write(database, &kept_copy(path, from), &mut |_| ()).map(drop);
    lift(database, path, index.envelope(), STEPS, &mut keep)
}

/// `version > copy > step, step, …`: a crash between leaves the copy, and a store that says at which step it is.
pub(in crate::record) fn lift(
    database: &Database,
    path: &Path,
    index: &Envelope,
    steps: &[Step],
    keep: &mut dyn FnMut(u16) -> Result<(), CopyError>,
) -> Result<(), MigrateError> {
    let newest = steps.last().map_or(SCHEMA, |step| step.from + 1);
    let Some(found) = version(database, path, index)? else {
        let step = |error| MigrateError::Step { path: path.to_owned(), from: 0, source: Box::new(error) };
        return write_down(database, index, newest, |_, _| Ok(())).map_err(step);
    };
    if found > newest {
        let copy = Some(kept_copy(path, newest)).filter(|copy| copy.exists());
        return Err(MigrateError::Newer { path: path.to_owned(), found, copy });
    }
    if found < newest {
        // Written anew after a crash too: nobody has served from this store in between, so it is the same or better.
        keep(found).map_err(|error| MigrateError::Copy { path: path.to_owned(), source: Box::new(error) })?;
    }
    for step in steps.iter().filter(|step| step.from >= found) {
        let failed = |error| MigrateError::Step { path: path.to_owned(), from: step.from, source: Box::new(error) };
        write_down(database, index, step.from + 1, step.change).map_err(failed)?;
        tracing::info!(from = step.from, to = step.from + 1, "the store was lifted to another schema");
    }
    Ok(())
}

/// The schema of the store; none of one that was only just made.
pub(in crate::record) fn version(database: &Database, path: &Path, index: &Envelope) -> Result<Option<u16>, MigrateError> {
    let failed = |source| MigrateError::Read { path: path.to_owned(), source: Arc::new(source) };
    let Some(marked) = is_marked(database, path)? else { return Ok(None) };
    if !marked {
        return Ok(Some(1));
    }
    let slot = Slot::schema();
    let sealed = stored(database, &slot).map_err(failed)?.unwrap_or_else(|| SealedRecord::from_stored(&[]));
    let version = index.open_value(&slot, &sealed).map_err(|source| MigrateError::Sealed { path: path.to_owned(), source })?;
    Ok(Some(version))
}

/// Whether the store has a version written down; none without any table.
pub(in crate::record) fn is_marked(database: &Database, path: &Path) -> Result<Option<bool>, MigrateError> {
    let failed = |source| MigrateError::Read { path: path.to_owned(), source: Arc::new(source) };
    let names = guarded(|| Ok(database.begin_read()?.list_tables()?.map(|table| table.name().to_owned()).collect::<Vec<_>>()));
    let names = names.map_err(failed)?;
    let has = |table: Table| names.iter().any(|name| name == table.name());
    match (has(Table::Store), has(Table::Header)) {
        (true, _) => Ok(Some(true)),
        (false, true) => Ok(Some(false)),
        (false, false) if names.is_empty() => Ok(None),
        (false, false) => Err(MigrateError::Foreign { path: path.to_owned() }),
    }
}

/// Whether a store of this schema, or one of which that is not known, may have no such table: the next start makes it.
pub(in crate::record) const fn may_lack(table: Table, schema: Option<u16>) -> bool {
    match (table, schema) {
        (Table::Store, Some(schema)) => schema < 2,
        (Table::Erasure, Some(schema)) => schema < 3,
        (Table::Erasure, None) => true,
        _ => false,
    }
}

fn stored(database: &Database, slot: &Slot) -> Result<Option<SealedRecord>, redb::Error> {
    guarded(|| {
        let table = database.begin_read()?.open_table(definition(slot.table()))?;
        Ok(table.get(slot.key())?.map(|value| SealedRecord::from_stored(value.value())))
    })
}

/// One step: the change, all tables, and the version that the store has with it.
fn write_down(
    database: &Database,
    index: &Envelope,
    version: u16,
    change: impl FnOnce(&WriteTransaction, &Envelope) -> Result<(), StepError>,
) -> Result<(), StepError> {
    let slot = Slot::schema();
    let sealed = index.seal_value(&slot, &version)?;
    let mut changed = Ok(());
    let written = transact(database, |transaction| {
        for table in Table::ALL {
            drop(transaction.open_table(definition(table))?);
        }
        changed = change(transaction, index);
        if changed.is_err() {
            // The transaction is dropped with all that was done in it.
            return Err(redb::Error::TransactionPoisoned);
        }
        transaction.open_table(definition(slot.table()))?.insert(slot.key(), sealed.as_stored())?;
        Ok(())
    });
    changed?;
    Ok(written?)
}
