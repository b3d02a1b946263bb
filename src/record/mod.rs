//! What lies on disk: sealed records in one database, sealed recordings in one directory, nothing in clear.
//! Trusts: the keys it is handed, not the disk: every byte read back is authenticated in its place.
//! Touches: the state directory.
//! Next: `job` decides what is sealed and when; [`store`] and [`segments`] keep it.
//!
//! ```text
//! STATE/store.redb       SealedRecord values only; keys are random ids, job numbers or keyed hashes
//! STATE/store.schema-N.redb  the store as it was before it was lifted from schema N; gone with the first erasure
//! STATE/store.rollback-COUNT.redb  an older store that was taken with the operator's leave; as above
//! STATE/audio.rollback-COUNT/ID.seg  a recording that this older store did not know; back with the store that does, or as above
//! STATE/audio/ID.seg     a recording in sealed chunks; ID.part while it comes in
//! STATE/ballast          really allocated zeros, given up when a full disk would stop an erasure
//! ```

mod batch;
pub mod check;
pub mod compact;
pub mod copy;
pub mod database;
pub mod envelope;
pub mod epoch;
pub mod erasure;
#[cfg(test)]
mod faults;
#[cfg(test)]
mod faulty_directory;
#[cfg(test)]
mod faulty_disk;
mod files;
pub mod index;
mod landed;
pub mod migration;
pub mod rollback;
pub mod schema;
pub mod segments;
#[cfg(test)]
pub(crate) mod small_disk;
mod snapshot;
pub mod space;
pub mod store;
#[cfg(test)]
mod tests;
mod writer;
