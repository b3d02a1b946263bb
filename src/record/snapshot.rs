//! One consistent view of the store.
//! Trusts: nothing that it reads, which only opens when it is genuine.
//! Touches: the database, reading.
//! Next: [`super::store`] keeps the newest one for all readers.

use redb::{Database, ReadOnlyTable, ReadableDatabase};

use super::database::definition;
use super::envelope::SealedRecord;
use super::schema::{Slot, Table};
use super::store::StoreError;

type Opened = ReadOnlyTable<&'static [u8], &'static [u8]>;

/// A consistent view.
pub struct Snapshot {
    tables: Vec<(Table, Opened)>,
}

impl Snapshot {
    pub(in crate::record) fn open(database: &Database) -> Result<Self, redb::Error> {
        let transaction = database.begin_read()?;
        let tables = Table::ALL.iter().map(|table| Ok((*table, transaction.open_table(definition(*table))?)));
        Ok(Self { tables: tables.collect::<Result<_, redb::Error>>()? })
    }

    fn table(&self, wanted: Table) -> Result<&Opened, StoreError> {
        // All are opened, in a short list.
        self.tables.iter().find(|(table, _)| *table == wanted).map(|(_, opened)| opened).ok_or(StoreError::Closed)
    }

    /// One record.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn get(&self, slot: &Slot) -> Result<Option<SealedRecord>, StoreError> {
        let value = self.table(slot.table())?.get(slot.key()).map_err(redb::Error::from)?;
        Ok(value.map(|value| SealedRecord::from_stored(value.value())))
    }

    /// At most `limit` records of `table` whose keys are `prefix` followed by a job number below `before`, highest first.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn newest(&self, table: Table, prefix: &[u8], before: u64, limit: usize) -> Result<Vec<(Slot, SealedRecord)>, StoreError> {
        let lowest = [prefix, &0_u64.to_be_bytes()].concat();
        let end = [prefix, &before.to_be_bytes()].concat();
        let range = self.table(table)?.range(lowest.as_slice()..end.as_slice()).map_err(redb::Error::from)?;
        let found = range.rev().take(limit).map(|entry| found(table, entry));
        found.collect()
    }

    /// All records of `table`, by key.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn all(&self, table: Table) -> Result<Vec<(Slot, SealedRecord)>, StoreError> {
        let range = self.table(table)?.range::<&[u8]>(..).map_err(redb::Error::from)?;
        range.map(|entry| found(table, entry)).collect()
    }
}

type Entry<'a> = (redb::AccessGuard<'a, &'static [u8]>, redb::AccessGuard<'a, &'static [u8]>);

fn found(table: Table, entry: Result<Entry<'_>, redb::StorageError>) -> Result<(Slot, SealedRecord), StoreError> {
    let (key, value) = entry.map_err(redb::Error::from)?;
    Ok((Slot::found(table, key.value()), SealedRecord::from_stored(value.value())))
}
