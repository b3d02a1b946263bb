//! The tables of the store, what their keys are, and whose key seals their values.
//! Trusts: nothing.
//! Touches: nothing.
//! Next: [`super::envelope`] binds a value to its [`Slot`], [`super::store`] keeps it there.

use crate::base::ids::CallId;

use super::index::KeyedHash;

/// Which key seals a table's values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Custody {
    /// A sub-key of the keeper's index key, open while the daemon runs: what is needed to find and run calls, no content.
    Index,
    /// The call's own data-encryption key, open only while that call is served.
    Call,
}

/// A table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Table {
    /// State, owner, times and sizes of a call, by call id.
    Header,
    /// The call's data-encryption key as the keeper wrapped it, by call id.
    WrappedDek,
    /// What the uploader said of the call, by call id.
    Metadata,
    /// The redacted transcript, by call id.
    Redacted,
    /// The clear transcript, by call id. Served by nothing yet.
    Clear,
    /// What was redacted and where, by call id.
    Entities,
    /// Calls that wait or run, by job number.
    Queue,
    /// Call ids by job number.
    ByJob,
    /// Call ids by keyed hash of the owner and job number.
    ByOwner,
    /// Idempotency keys, by keyed hash of owner and key.
    Idempotency,
    /// The highest job number given; the erasure epoch.
    Counter,
    /// What is true of the store as a whole, by name: its schema version, the count at which it was taken up.
    Store,
    /// Calls that were erased, by call id: until the erasure is certified, and the certificate from then on.
    Erasure,
}

impl Table {
    /// All tables.
    pub const ALL: [Self; 13] = [
        Self::Header,
        Self::WrappedDek,
        Self::Metadata,
        Self::Redacted,
        Self::Clear,
        Self::Entities,
        Self::Queue,
        Self::ByJob,
        Self::ByOwner,
        Self::Idempotency,
        Self::Counter,
        Self::Store,
        Self::Erasure,
    ];

    /// The tables with one record a call, keyed by its id.
    pub const OF_CALL: [Self; 6] = [Self::Header, Self::WrappedDek, Self::Metadata, Self::Redacted, Self::Clear, Self::Entities];

    /// Its name in the database and in the associated data of its values.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Header => "header",
            Self::WrappedDek => "wrapped_dek",
            Self::Metadata => "metadata",
            Self::Redacted => "redacted",
            Self::Clear => "clear",
            Self::Entities => "entities",
            Self::Queue => "queue",
            Self::ByJob => "by_job",
            Self::ByOwner => "by_owner",
            Self::Idempotency => "idempotency",
            Self::Counter => "counter",
            Self::Store => "store",
            Self::Erasure => "erasure",
        }
    }

    /// Version of its values' encoding; raised when a stored type changes.
    pub const fn version(self) -> u16 {
        1
    }

    /// Whose key seals its values.
    pub const fn custody(self) -> Custody {
        match self {
            Self::Metadata | Self::Redacted | Self::Clear | Self::Entities => Custody::Call,
            Self::Header
            | Self::WrappedDek
            | Self::Queue
            | Self::ByJob
            | Self::ByOwner
            | Self::Idempotency
            | Self::Counter
            | Self::Store
            | Self::Erasure => Custody::Index,
        }
    }
}

/// One place in the store.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Slot {
    table: Table,
    key: Vec<u8>,
}

impl Slot {
    /// The record of `call` in one of [`Table::OF_CALL`].
    pub fn of_call(table: Table, call: CallId) -> Self {
        Self { table, key: call.as_bytes().to_vec() }
    }

    /// The queue entry of job `job`.
    pub fn queue(job: u64) -> Self {
        Self { table: Table::Queue, key: job.to_be_bytes().to_vec() }
    }

    /// The call of job `job`.
    pub fn by_job(job: u64) -> Self {
        Self { table: Table::ByJob, key: job.to_be_bytes().to_vec() }
    }

    /// The call of job `job`, which belongs to `owner`.
    pub fn by_owner(owner: &KeyedHash, job: u64) -> Self {
        let mut key = owner.as_bytes().to_vec();
        key.extend_from_slice(&job.to_be_bytes());
        Self { table: Table::ByOwner, key }
    }

    /// An idempotency key.
    pub fn idempotency(key: &KeyedHash) -> Self {
        Self { table: Table::Idempotency, key: key.as_bytes().to_vec() }
    }

    /// The highest job number given.
    pub fn counter() -> Self {
        Self { table: Table::Counter, key: b"job".to_vec() }
    }

    /// The store's schema version.
    pub fn schema() -> Self {
        Self { table: Table::Store, key: b"schema".to_vec() }
    }

    /// What the store says of the TPM's counter.
    pub fn rollback() -> Self {
        Self { table: Table::Store, key: b"rollback".to_vec() }
    }

    /// The erasure epoch that all wrapped keys are of.
    pub fn epoch() -> Self {
        Self { table: Table::Counter, key: b"epoch".to_vec() }
    }

    /// What is kept of an erased call.
    pub fn erasure(call: CallId) -> Self {
        Self { table: Table::Erasure, key: call.as_bytes().to_vec() }
    }

    /// A slot as a scan of the store found it.
    pub(in crate::record) fn found(table: Table, key: &[u8]) -> Self {
        Self { table, key: key.to_vec() }
    }

    /// Its table.
    pub const fn table(&self) -> Table {
        self.table
    }

    /// Its key in the table.
    pub fn key(&self) -> &[u8] {
        &self.key
    }

    /// Whether the key has the form that keys of its table have.
    pub(in crate::record) fn is_well_formed(&self) -> bool {
        let bytes = match self.table {
            Table::Header | Table::WrappedDek | Table::Metadata | Table::Redacted | Table::Clear | Table::Entities | Table::Erasure => 16,
            Table::Queue | Table::ByJob => 8,
            Table::ByOwner => 32 + 8,
            Table::Idempotency => 32,
            Table::Counter => return *self == Self::counter() || *self == Self::epoch(),
            Table::Store => return *self == Self::schema() || *self == Self::rollback(),
        };
        self.key.len() == bytes
    }

    /// The job number at the end of the key, for tables that are ordered by it.
    pub fn job(&self) -> Option<u64> {
        match self.table {
            Table::Queue | Table::ByJob | Table::ByOwner => self.key.last_chunk().map(|job| u64::from_be_bytes(*job)),
            _ => None,
        }
    }

    /// The call id that the key is, for [`Table::OF_CALL`] and [`Table::Erasure`].
    pub fn call(&self) -> Option<CallId> {
        match self.table {
            Table::Header | Table::WrappedDek | Table::Metadata | Table::Redacted | Table::Clear | Table::Entities | Table::Erasure => {
                self.key.as_slice().try_into().ok().map(CallId::from_bytes)
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_is_sealed_by_the_calls_key_and_what_finds_calls_by_the_index_key() {
        let content: Vec<Table> = Table::ALL.into_iter().filter(|table| table.custody() == Custody::Call).collect();
        assert_eq!(content, [Table::Metadata, Table::Redacted, Table::Clear, Table::Entities]);
    }

    #[test]
    fn no_two_tables_share_a_name() {
        let names: std::collections::BTreeSet<&str> = Table::ALL.into_iter().map(Table::name).collect();
        assert_eq!(names.len(), Table::ALL.len());
    }

    #[test]
    fn job_numbers_sort_as_they_count() {
        assert!(Slot::by_job(255).key() < Slot::by_job(256).key());
        assert_eq!(Slot::queue(7).job(), Some(7));
    }
}
