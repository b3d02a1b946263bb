//! What `salama store` and the `salamad` that it starts say to each other: words about the progress, then one last word.
//! Trusts: nothing.
//! Touches: nothing.
//! Next: `lifecycle::maintenance` says it, `cli::store` shows it.

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::base::ids::CallId;

/// Faults that a report names; more are counted.
pub const FAULTS_TOLD_MAX: usize = 500;

/// Most bytes of a path in a report, so that a report full of faults fits a message.
const PATH_SHOWN_MAX: usize = 200;

/// One message.
#[derive(Debug, Serialize, Deserialize)]
pub enum Word {
    /// How far the work is.
    At(Progress),
    /// The last word of `check`.
    Checked(CheckReport),
    /// The last word of `compact`.
    Compacted(CompactReport),
    /// The last word of work that was not done.
    Refused(Refusal),
}

/// How far the work is: `done` of `of`, when that is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// At what.
    pub stage: Stage,
    /// How much.
    pub done: u64,
    /// Of how much; 0 when unknown.
    pub of: u64,
}

/// What is being done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// The key keeper opens the keys.
    Keys,
    /// The database checks its pages.
    Pages,
    /// Records are opened.
    Records,
    /// Calls' own records and recordings are opened.
    Calls,
    /// Records are copied.
    Copying,
    /// The copy is compared.
    Comparing,
}

/// Why nothing was done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// Of which kind.
    pub kind: RefusalKind,
    /// For people: what, and what to do.
    pub words: String,
}

/// Kinds of refusals, by what the caller can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RefusalKind {
    /// A daemon runs: stop it.
    InUse,
    /// The store is another user's.
    NotAllowed,
    /// There is no store.
    Absent,
    /// No room, or the disk fails.
    Disk,
    /// The store is damaged; `check` says how.
    Damaged,
    /// The settings.
    Settings,
    /// Anything else.
    Failed,
}

/// What `salama store check` found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckReport {
    /// The database.
    pub store: String,
    /// Its length, bytes.
    pub bytes: u64,
    /// Its schema, when the keys were open.
    pub schema: Option<u16>,
    /// Why there were no keys; then only form and presence were checked, no seal.
    pub without_keys: Option<String>,
    /// Calls in it.
    pub calls: u64,
    /// Records in it.
    pub records: u64,
    /// Records that were opened under their keys.
    pub opened: u64,
    /// Calls of which only the key was tried, because the keeper opens so many at a time and no more.
    pub keys_only: u64,
    /// Recordings of which both ends were opened.
    pub recordings: u64,
    /// Copies of older stores beside it.
    pub copies: Vec<String>,
    /// What is wrong, at most [`FAULTS_TOLD_MAX`].
    pub faults: Vec<StoreFault>,
    /// Faults that are not named.
    pub more_faults: u64,
}

impl CheckReport {
    /// Nothing is damaged, as far as was looked.
    pub fn is_sound(&self) -> bool {
        self.more_faults == 0 && self.faults.iter().all(StoreFault::is_harmless)
    }
}

/// A path for a report: as it can be shown, and not longer than reports have room for.
pub fn shown(path: &Path) -> String {
    let mut shown = path.to_string_lossy().into_owned();
    shown.truncate(shown.floor_char_boundary(PATH_SHOWN_MAX));
    shown
}

impl StoreFault {
    /// What a crash leaves, or somebody put there: nothing is lost by it.
    pub const fn is_harmless(&self) -> bool {
        matches!(self, Self::PagesRepaired | Self::RecordingWithoutCall { .. } | Self::Stray { .. })
    }
}

/// Something that is wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StoreFault {
    /// The database's own checks failed and cannot be made good.
    Pages {
        /// In the words of the database.
        why: String,
    },
    /// The database's own bookkeeping was wrong and was made anew. All commits are two-phase, so no record is lost by it.
    PagesRepaired,
    /// A table is missing or cannot be read to its end.
    Table {
        /// Which.
        table: String,
    },
    /// The schema version is missing or does not open.
    Schema,
    /// A record does not open, or its key has no form of its table.
    Record {
        /// Where.
        table: String,
        /// Of which call, where that shows.
        call: Option<CallId>,
        /// How.
        why: RecordFault,
    },
    /// A call without its key: nothing of it can be opened.
    KeyMissing {
        /// Which.
        call: CallId,
    },
    /// The keeper does not open the call's key.
    KeyRefused {
        /// Which.
        call: CallId,
    },
    /// Records that name a call which is not there.
    NoCall {
        /// Where.
        table: String,
        /// Which.
        call: CallId,
    },
    /// A call that a table does not name which should.
    Unnamed {
        /// Where.
        table: String,
        /// Which.
        call: CallId,
    },
    /// The number of the last job is missing.
    CounterMissing,
    /// A call without its recording.
    RecordingMissing {
        /// Which.
        call: CallId,
    },
    /// A recording that does not open at both ends.
    RecordingDamaged {
        /// Which.
        call: CallId,
    },
    /// A recording whose call is not in the store: its upload or its erasure was cut off by a crash.
    RecordingWithoutCall {
        /// Which.
        call: CallId,
    },
    /// A file that is none of the store's.
    Stray {
        /// Which.
        file: String,
    },
}

/// How a record is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RecordFault {
    /// Its seal does not hold: changed, moved, cut, or another key's.
    Seal,
    /// Another version than this program's.
    Version,
    /// It opens, but holds something else.
    Content,
    /// Its key.
    Key,
}

/// What `salama store compact` did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CompactReport {
    /// The database.
    pub store: String,
    /// Records in it.
    pub records: u64,
    /// Bytes on the disk before.
    pub before: u64,
    /// Bytes on the disk after.
    pub after: u64,
}
