//! A whole copy of the database, record by record in their order: small, without what erased records left in free pages.
//! Trusts: redb; what was copied is compared with what was read before it counts.
//! Touches: a file beside the database, which has its name only once it is whole and durable.
//! Next: [`super::migration`] keeps one before it changes a store, [`super::rollback`] one of a store that was taken with leave; [`super::compact`] puts one in the store's place.

#[cfg(test)]
pub(in crate::record) mod tests;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use redb::{Database, ReadTransaction, ReadableDatabase, ReadableTableMetadata, TableHandle};

use super::database::{self, Definition, guarded, is_full, transact};
use super::files::{Files, Machine};
use super::segments::SegmentDirectory;

/// Bytes of records in one transaction of the copy.
const BATCH_BYTES: usize = 4 << 20;
/// Records in one transaction of the copy, and between two words about the progress.
const BATCH_RECORDS: usize = 4000;
/// What the name of a copy ends in until it is whole.
const UNFINISHED: &str = "part";

/// How far a copy is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CopyProgress {
    /// Records written, of how many.
    Written(u64, u64),
    /// Records compared, of how many.
    Compared(u64, u64),
}

/// Why there is no copy. What was to be copied is untouched.
#[derive(Debug, thiserror::Error)]
pub enum CopyError {
    /// No room.
    #[error("there is no room for a copy: it takes up to {needed} bytes beside the store; free them")]
    Full {
        /// Bytes.
        needed: u64,
    },
    /// The store itself.
    #[error("the store cannot be read; `salama store check` says what is lost")]
    Read(#[source] redb::Error),
    /// The copy's database.
    #[error("the copy cannot be written; check the disk")]
    Write(#[source] redb::Error),
    /// The copy's file.
    #[error("the copy's file failed ({step}); check the disk")]
    File {
        /// Which step.
        step: &'static str,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The disk gave something else back.
    #[error("the copy does not hold what was written to it; check the disk and the memory of this machine")]
    Differs,
}

/// Copies `from` to a file named `to`, in the place of what has that name. Returns how many records that were.
pub(in crate::record) fn write(from: &Database, to: &Path, tell: &mut dyn FnMut(CopyProgress)) -> Result<u64, CopyError> {
    write_on(&Machine, from, to, tell)
}

/// `part > compared > closed > durable > renamed > the name durable`: a crash before the rename leaves what was there, and a
/// part that the next opening of the store removes.
pub(in crate::record) fn write_on(
    files: &impl Files,
    from: &Database,
    to: &Path,
    tell: &mut dyn FnMut(CopyProgress),
) -> Result<u64, CopyError> {
    let part = unfinished(to);
    let copied = guarded(|| {
        Ok(Source::of(from).map_err(CopyError::Read).and_then(|source| {
            write_part(files, &source, &part, tell)?;
            put_in_place(files, &source, &part, to)?;
            Ok(source.records)
        }))
    });
    let copied = copied.unwrap_or_else(|nowhere| Err(CopyError::Read(nowhere)));
    if copied.is_err() {
        // What cannot be removed now is when the store is opened next.
        let _ = files.remove(&part);
    }
    copied
}

/// What a copy is called until it is whole.
pub(in crate::record) fn unfinished(to: &Path) -> PathBuf {
    let mut name = to.as_os_str().to_owned();
    name.push(".");
    name.push(UNFINISHED);
    PathBuf::from(name)
}

/// Removes what a crash left of copies beside the database `path`: it may hold the keys of calls that are erased since.
pub(in crate::record) fn remove_unfinished(path: &Path) -> io::Result<()> {
    for part in beside(path, |name| name.ends_with(UNFINISHED))? {
        fs::remove_file(part)?;
    }
    Ok(())
}

/// Whether a file of this name is a copy that is not whole.
pub(in crate::record) fn is_unfinished(name: &str) -> bool {
    name.starts_with("store.") && name.ends_with(UNFINISHED)
}

/// The whole copies of other stores beside the database `path`.
pub(in crate::record) fn kept(path: &Path) -> io::Result<Vec<PathBuf>> {
    beside(path, |name| (name.contains(".schema-") || name.contains(".rollback-")) && !name.ends_with(UNFINISHED))
}

/// Why something is left of what was kept of other stores.
#[derive(Debug, thiserror::Error)]
pub enum ForgetError {
    /// The directory.
    #[error("it is not known whether other stores were kept in {path}; check the disk and who owns it")]
    List {
        /// Which.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// A store.
    #[error("{path}, a copy of the store from before an update or a start with leave, holds its key and cannot be removed; remove it")]
    Copy {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// Recordings.
    #[error("{path}, where recordings were put aside for an older store, may hold its recording and cannot be removed; remove it")]
    Aside {
        /// The directory.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

/// Removes the copies that were kept, and what was put aside with them: they hold the keys of all calls, so none may outlive the first erasure after it.
pub(in crate::record) fn forget_kept(path: &Path) -> Result<(), ForgetError> {
    let state = path.parent().unwrap_or(path);
    let unknown = |source| ForgetError::List { path: state.to_owned(), source };
    for copy in kept(path).map_err(unknown)? {
        fs::remove_file(&copy).map_err(|source| ForgetError::Copy { path: copy, source })?;
    }
    for aside in SegmentDirectory::aside(state).map_err(|error| unknown(error.source))? {
        fs::remove_dir_all(&aside).map_err(|source| ForgetError::Aside { path: aside, source })?;
    }
    // Also when there is none: it may have been removed, and the directory not synced, by somebody who failed then.
    database::sync_directory(state).map_err(unknown)
}

/// Files beside the database whose names begin as its does.
fn beside(path: &Path, wanted: impl Fn(&str) -> bool) -> io::Result<Vec<PathBuf>> {
    let (Some(directory), Some(stem)) = (path.parent(), path.file_stem().and_then(|stem| stem.to_str())) else { return Ok(Vec::new()) };
    let mut found = Vec::new();
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let name = entry.file_name();
        let ours = name.to_str().is_some_and(|name| {
            name != database::FILE && name.strip_prefix(stem).is_some_and(|rest| rest.starts_with('.')) && wanted(name)
        });
        if ours {
            found.push(entry.path());
        }
    }
    found.sort();
    Ok(found)
}

fn write_part(files: &impl Files, source: &Source, part: &Path, tell: &mut dyn FnMut(CopyProgress)) -> Result<(), CopyError> {
    files.remove(part).map_err(source.file("remove what is left of an earlier one"))?;
    let made = files.create(part).map_err(source.file("create"))?;
    let failed = |error| source.why(error);
    let mut copy = database::builder().create_with_backend(made).map_err(|error| failed(error.into()))?;
    let mut written = 0;
    for name in &source.tables {
        source.copy_table(&copy, name, &mut |more| {
            written += more;
            tell(CopyProgress::Written(written, source.records));
        })?;
    }
    // Whole pages at the front, and no more file than they need.
    copy.compact().map_err(|error| failed(error.into()))?;
    let mut compared = 0;
    for name in &source.tables {
        source.compare_table(&copy, name, &mut |more| {
            compared += more;
            tell(CopyProgress::Compared(compared, source.records));
        })?;
    }
    copy.close().map_err(|error| failed(error.into()))
}

fn put_in_place(files: &impl Files, source: &Source, part: &Path, to: &Path) -> Result<(), CopyError> {
    files.sync(part).map_err(source.file("sync"))?;
    files.rename(part, to).map_err(source.file("rename"))?;
    files.sync_names(to).map_err(source.file("sync directory"))
}

/// What is copied: one consistent view of all tables.
struct Source {
    transaction: ReadTransaction,
    tables: Vec<String>,
    records: u64,
}

type Record = (Vec<u8>, Vec<u8>);

impl Source {
    fn of(database: &Database) -> Result<Self, redb::Error> {
        let transaction = database.begin_read()?;
        let tables: Vec<String> = transaction.list_tables()?.map(|table| table.name().to_owned()).collect();
        let lengths = tables.iter().map(|name| Ok(transaction.open_table(Definition::new(name))?.len()?));
        let records = lengths.sum::<Result<u64, redb::Error>>()?;
        Ok(Self { transaction, tables, records })
    }

    fn records_of(&self, name: &str) -> Result<impl Iterator<Item = Result<Record, redb::Error>> + use<>, redb::Error> {
        let range = self.transaction.open_table(Definition::new(name))?.range::<&[u8]>(..)?;
        Ok(range.map(|entry| entry.map(|(key, value)| (key.value().to_vec(), value.value().to_vec())).map_err(redb::Error::from)))
    }

    fn copy_table(&self, copy: &Database, name: &str, tell: &mut dyn FnMut(u64)) -> Result<(), CopyError> {
        let mut records = self.records_of(name).map_err(CopyError::Read)?;
        loop {
            let batch = batch(&mut records).map_err(CopyError::Read)?;
            let written = transact(copy, |transaction| {
                // A table without records is a table too.
                let mut table = transaction.open_table(Definition::new(name))?;
                for (key, value) in &batch {
                    table.insert(key.as_slice(), value.as_slice())?;
                }
                Ok(())
            });
            written.map_err(|error| self.why(error))?;
            if batch.is_empty() {
                return Ok(());
            }
            tell(wide(batch.len()));
        }
    }

    fn compare_table(&self, copy: &Database, name: &str, tell: &mut dyn FnMut(u64)) -> Result<(), CopyError> {
        let theirs = copy
            .begin_read()
            .map_err(redb::Error::from)
            .and_then(|transaction| Ok(transaction.open_table(Definition::new(name))?.range::<&[u8]>(..)?));
        let mut theirs = theirs.map_err(CopyError::Write)?;
        let mut ours = self.records_of(name).map_err(CopyError::Read)?;
        loop {
            let batch = batch(&mut ours).map_err(CopyError::Read)?;
            for (key, value) in &batch {
                match theirs.next() {
                    Some(Ok((k, v))) if k.value() == key && v.value() == value => {}
                    Some(Err(error)) => return Err(CopyError::Write(error.into())),
                    _ => return Err(CopyError::Differs),
                }
            }
            if batch.is_empty() {
                return if theirs.next().is_none() { Ok(()) } else { Err(CopyError::Differs) };
            }
            tell(wide(batch.len()));
        }
    }

    /// What a failed step with the copy's file means.
    fn file(&self, step: &'static str) -> impl Fn(io::Error) -> CopyError {
        move |source| if is_full(&source) { CopyError::Full { needed: self.needed() } } else { CopyError::File { step, source } }
    }

    /// What a failed write of the copy means.
    fn why(&self, error: redb::Error) -> CopyError {
        match error {
            redb::Error::Io(cause) if is_full(&cause) => CopyError::Full { needed: self.needed() },
            error => CopyError::Write(error),
        }
    }

    /// Bytes that are room enough: pages are at least half full, and a compaction has some of them twice.
    fn needed(&self) -> u64 {
        let records = self.tables.iter().filter_map(|name| self.records_of(name).ok()).flatten().flatten();
        records.map(|(key, value)| wide(key.len() + value.len())).sum::<u64>().saturating_mul(3).max(4 << 20)
    }
}

/// The next records, as many as one transaction takes; none at the end.
fn batch(records: &mut impl Iterator<Item = Result<Record, redb::Error>>) -> Result<Vec<Record>, redb::Error> {
    let (mut batch, mut bytes) = (Vec::new(), 0);
    while bytes < BATCH_BYTES && batch.len() < BATCH_RECORDS {
        let Some(record) = records.next() else { break };
        let (key, value) = record?;
        bytes += key.len() + value.len();
        batch.push((key, value));
    }
    Ok(batch)
}

fn wide(len: usize) -> u64 {
    u64::try_from(len).unwrap_or(u64::MAX)
}
