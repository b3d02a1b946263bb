//! Recordings that a store which was taken with leave does not know: beside the others until a store is taken that knows them, or a call is erased.
//! Trusts: the store, which says what calls it has.
//! Touches: `STATE/audio`, `STATE/audio.rollback-COUNT`.
//! Next: [`crate::record::rollback`] says when, [`crate::record::copy`] removes them with the copy of that store.
//!
//! Each recording goes by one rename, which never overwrites: cut off anywhere, each is in one place, and the next start goes on.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};

use super::{FINISHED, SegmentDirectory};
use crate::base::ids::CallId;

/// What the names of the directories begin with.
const ASIDE: &str = "audio.rollback-";

/// The calls that a store knows.
pub(in crate::record) struct KnownCalls {
    /// It has them.
    pub(in crate::record) held: BTreeSet<CallId>,
    /// It had them: the sealed recording of one that was cut off while it was erased may be left.
    pub(in crate::record) erased: BTreeSet<CallId>,
}

impl KnownCalls {
    fn holds(&self, call: Option<CallId>) -> bool {
        call.is_some_and(|call| self.held.contains(&call))
    }

    fn erased(&self, call: Option<CallId>) -> bool {
        call.is_some_and(|call| self.erased.contains(&call))
    }
}

impl SegmentDirectory {
    /// The directories of recordings that were put aside, beside the state directory's others.
    pub(in crate::record) fn aside(state: &Path) -> io::Result<Vec<PathBuf>> {
        let mut found = Vec::new();
        for entry in fs::read_dir(state)? {
            let entry = entry?;
            if entry.file_name().to_str().is_some_and(|name| name.starts_with(ASIDE)) && entry.file_type()?.is_dir() {
                found.push(entry.path());
            }
        }
        found.sort();
        Ok(found)
    }

    /// Whether a recording of `call` was put aside.
    pub(in crate::record) fn is_aside(state: &Path, call: CallId) -> bool {
        Self::aside(state).is_ok_and(|aside| aside.iter().any(|aside| aside.join(format!("{call}.{FINISHED}")).is_file()))
    }

    /// Moves the finished recordings below `state` of calls that are not `known` into the directory of this `count` beside them. Those of
    /// erased calls are removed: no sweep looks there.
    pub(in crate::record) fn put_aside(state: &Path, count: u64, known: &KnownCalls) -> io::Result<()> {
        let (from, to) = (Self::below(state), state.join(format!("{ASIDE}{count}")));
        for (call, path) in recordings(&from)?.into_iter().filter(|(call, _)| !known.holds(*call)) {
            if known.erased(call) {
                fs::remove_file(&path)?;
            } else {
                make(&to)?;
                moved(&path, &to)?;
            }
        }
        [&to, &from, state].into_iter().try_for_each(durable)
    }

    /// Moves the recordings of calls that are `known` back from wherever they were put aside, unless there is one, and removes there those
    /// of erased calls. Returns how many are back.
    pub(in crate::record) fn take_back(state: &Path, known: &KnownCalls) -> io::Result<u64> {
        let (to, mut back) = (Self::below(state), 0);
        for from in Self::aside(state)? {
            for (call, path) in recordings(&from)? {
                if known.holds(call) {
                    make(&to)?;
                    back += u64::from(moved(&path, &to)?);
                } else if known.erased(call) {
                    fs::remove_file(&path)?;
                }
            }
            [&to, &from].into_iter().try_for_each(durable)?;
            match fs::remove_dir(&from) {
                Err(error) if error.kind() != io::ErrorKind::DirectoryNotEmpty => return Err(error),
                _ => {}
            }
        }
        durable(state)?;
        Ok(back)
    }
}

/// The finished recordings in a directory, and whose they are by their names; none where it is absent.
fn recordings(directory: &Path) -> io::Result<Vec<(Option<CallId>, PathBuf)>> {
    let entries = match fs::read_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut found = Vec::new();
    for entry in entries {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == FINISHED) {
            found.push((path.file_stem().and_then(|stem| stem.to_str()).and_then(|stem| stem.parse().ok()), path));
        }
    }
    Ok(found)
}

/// Whether it went; it stays where one of its name is there already.
fn moved(path: &Path, to: &Path) -> io::Result<bool> {
    let Some(name) = path.file_name() else { return Ok(false) };
    match renameat2(AT_FDCWD, path, AT_FDCWD, &to.join(name), RenameFlags::RENAME_NOREPLACE) {
        Err(Errno::EEXIST) => Ok(false),
        went => went.map(|()| true).map_err(io::Error::from),
    }
}

fn make(directory: &Path) -> io::Result<()> {
    match fs::create_dir(directory) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        _ => Ok(()),
    }
}

/// Makes the directory's entries durable, where it is there.
fn durable(directory: impl AsRef<Path>) -> io::Result<()> {
    match File::open(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        directory => directory?.sync_all(),
    }
}
