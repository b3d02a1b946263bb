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

/// Why a recording did not go where it belongs.
#[derive(Debug, thiserror::Error)]
#[error("{path} cannot be {step}")]
pub struct AsideError {
    path: PathBuf,
    step: String,
    /// What the system said.
    pub(in crate::record) source: io::Error,
}

impl AsideError {
    fn at(path: &Path, step: &str) -> impl Fn(io::Error) -> Self {
        move |source| Self { path: path.to_owned(), step: step.to_owned(), source }
    }

    /// Whether only people can change it, so that a next try is in vain.
    pub fn is_refusal(&self) -> bool {
        // EACCES, EPERM.
        self.source.kind() == io::ErrorKind::PermissionDenied
    }
}

/// How many recordings went where.
#[derive(Debug, Default, PartialEq, Eq)]
pub(in crate::record) struct Moved {
    /// Into another directory.
    pub(in crate::record) recordings: u64,
    /// Nowhere: their calls are erased.
    pub(in crate::record) removed: u64,
}

impl SegmentDirectory {
    /// The directories of recordings that were put aside, beside the state directory's others.
    pub(in crate::record) fn aside(state: &Path) -> Result<Vec<PathBuf>, AsideError> {
        let failed = AsideError::at(state, "listed");
        let mut found = Vec::new();
        for entry in fs::read_dir(state).map_err(&failed)? {
            let entry = entry.map_err(&failed)?;
            if entry.file_name().to_str().is_some_and(is_ours) && entry.file_type().map_err(&failed)?.is_dir() {
                found.push(entry.path());
            }
        }
        found.sort();
        Ok(found)
    }

    /// Where this one's recording lies, of all places where recordings were put aside.
    pub(in crate::record) fn aside_with(state: &Path, call: CallId) -> Result<Vec<Self>, AsideError> {
        let places = Self::aside(state)?.into_iter().map(|path| Self { path });
        Ok(places.filter(|place| place.file(call, FINISHED).symlink_metadata().is_ok()).collect())
    }

    /// Moves the finished recordings below `state` of calls that are not `known` into the directory of this `count` beside them. Those of
    /// erased calls are removed: no sweep looks there.
    pub(in crate::record) fn put_aside(state: &Path, count: u64, known: &KnownCalls) -> Result<Moved, AsideError> {
        let (from, mut to) = (Self::below(state), Destination::new(state, state.join(format!("{ASIDE}{count}"))));
        let mut went = Moved::default();
        for (call, path) in recordings(&from)?.into_iter().filter(|(call, _)| !known.holds(*call)) {
            if known.erased(call) {
                removed(&path, &mut went)?;
            } else {
                to.take(&path, &mut went)?;
            }
        }
        [&to.path, &from].into_iter().try_for_each(|directory| durable(directory))?;
        Ok(went)
    }

    /// Moves the recordings of calls that are `known` back from wherever they were put aside, unless there is one, and removes there those
    /// of erased calls.
    pub(in crate::record) fn take_back(state: &Path, known: &KnownCalls) -> Result<Moved, AsideError> {
        let (mut to, mut went) = (Destination::new(state, Self::below(state)), Moved::default());
        for from in Self::aside(state)? {
            for (call, path) in recordings(&from)? {
                if known.holds(call) {
                    to.take(&path, &mut went)?;
                } else if known.erased(call) {
                    removed(&path, &mut went)?;
                }
            }
            [&to.path, &from].into_iter().try_for_each(|directory| durable(directory))?;
            match fs::remove_dir(&from) {
                Err(error) if error.kind() != io::ErrorKind::DirectoryNotEmpty => return Err(AsideError::at(&from, "removed")(error)),
                _ => {}
            }
        }
        durable(state)?;
        Ok(went)
    }
}

/// Whether a directory of this name is one that [`SegmentDirectory::put_aside`] makes.
fn is_ours(name: &str) -> bool {
    let count = name.strip_prefix(ASIDE).and_then(|count| count.parse::<u64>().ok());
    count.is_some_and(|count| name == format!("{ASIDE}{count}"))
}

/// The finished recordings in a directory, and whose they are by their names; none where it is absent.
fn recordings(directory: &Path) -> Result<Vec<(Option<CallId>, PathBuf)>, AsideError> {
    let failed = AsideError::at(directory, "listed");
    let entries = match fs::read_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(&failed)?,
    };
    let mut found = Vec::new();
    for entry in entries {
        let path = entry.map_err(&failed)?.path();
        if path.extension().is_some_and(|extension| extension == FINISHED) {
            found.push((path.file_stem().and_then(|stem| stem.to_str()).and_then(|stem| stem.parse().ok()), path));
        }
    }
    Ok(found)
}

/// A directory that recordings go into, made for the first of them.
struct Destination<'a> {
    state: &'a Path,
    path: PathBuf,
    is_there: bool,
}

impl<'a> Destination<'a> {
    const fn new(state: &'a Path, path: PathBuf) -> Self {
        Self { state, path, is_there: false }
    }

    /// Its own name is durable before anything is in it: a recording that went into a directory without one would be lost without power. A
    /// recording stays where it is when one of its name is there already.
    fn take(&mut self, recording: &Path, went: &mut Moved) -> Result<(), AsideError> {
        if !self.is_there {
            match fs::create_dir(&self.path) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(AsideError::at(&self.path, "made")(error)),
                _ => durable(self.state)?,
            }
            self.is_there = true;
        }
        let Some(name) = recording.file_name() else { return Ok(()) };
        match renameat2(AT_FDCWD, recording, AT_FDCWD, &self.path.join(name), RenameFlags::RENAME_NOREPLACE) {
            Ok(()) => went.recordings += 1,
            Err(Errno::EEXIST) => {}
            Err(error) => return Err(AsideError::at(recording, &format!("moved to {}", self.path.display()))(error.into())),
        }
        Ok(())
    }
}

fn removed(recording: &Path, went: &mut Moved) -> Result<(), AsideError> {
    fs::remove_file(recording).map_err(AsideError::at(recording, "removed"))?;
    went.removed += 1;
    Ok(())
}

/// Makes the directory's entries durable, where it is there.
fn durable(directory: &Path) -> Result<(), AsideError> {
    match File::open(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        opened => opened.and_then(|opened| opened.sync_all()).map_err(AsideError::at(directory, "made durable")),
    }
}
