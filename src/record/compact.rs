//! A store without the room that erased records left: a whole copy in its place.
//! Trusts: the copy, once it was compared.
//! Touches: `STATE/store.redb` and a part beside it.
//! Next: `lifecycle::maintenance` runs it while no daemon does.
//!
//! Until the copy is whole, compared and durable, the store is what it was; then one rename. A crash at any point leaves one good store.

#[cfg(test)]
mod tests;

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use super::copy::{self, CopyError, CopyProgress};
use super::database::{self, OpenStoreError};
use crate::ipc::maintenance::{CompactReport, Progress, Stage, shown};

/// Why the store was not compacted, or is not known to be; it is whole.
#[derive(Debug, thiserror::Error)]
pub enum CompactError {
    /// It could not be opened.
    #[error(transparent)]
    Open(#[from] OpenStoreError),
    /// There is none.
    #[error("there is no store in {path}")]
    Absent {
        /// Where.
        path: std::path::PathBuf,
    },
    /// It could not be copied.
    #[error("the store could not be compacted; it is whole, as it was before or compacted")]
    Copy(#[from] CopyError),
    /// Its size could not be read.
    #[error("the store's file cannot be looked at; check the disk")]
    Size(#[source] io::Error),
}

/// Compacts the store of a state directory, of whatever schema. Needs no keys.
///
/// # Errors
/// [`CompactError`].
pub fn compact(state: &Path, tell: &mut dyn FnMut(Progress)) -> Result<CompactReport, CompactError> {
    let path = state.join(database::FILE);
    let before = match on_disk(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(CompactError::Absent { path: state.to_owned() }),
        before => before.map_err(CompactError::Size)?,
    };
    let database = database::open_existing(&path)?;
    copy::remove_unfinished(&path).map_err(CompactError::Size)?;
    let records = copy::write(&database, &path, &mut |progress| {
        tell(match progress {
            CopyProgress::Written(done, of) => Progress { stage: Stage::Copying, done, of },
            CopyProgress::Compared(done, of) => Progress { stage: Stage::Comparing, done, of },
        });
    })?;
    // Held until its file has lost its name, so that nobody writes to it in between. Closing may commit, and panic over damaged pages;
    // they are nobody's any more.
    let _ = catch_unwind(AssertUnwindSafe(move || drop(database)));
    let after = on_disk(&path).map_err(CompactError::Size)?;
    Ok(CompactReport { store: shown(&path), records, before, after })
}

fn on_disk(path: &Path) -> io::Result<u64> {
    Ok(fs::metadata(path)?.blocks().saturating_mul(512))
}
