//! Why a store is not taken up, and what the operator can do.
//! Trusts: nothing.
//! Touches: nothing.
//! Next: `main` ends with it.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::ipc::keeper::{KeeperDenial, Leave};
use crate::record::copy::CopyError;
use crate::record::database::OpenStoreError;
use crate::record::envelope::{OpenError, SealError};
use crate::record::segments::AsideError;

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
    /// There is none, where one was.
    #[error(
        "{path} is new: there was no store in the state directory, or one that was never in use. But this TPM has counted to {counted}, so the box \
         has had one. Is the state directory mounted? Mount it, or put it back, and start again; nothing was counted. If it is gone for good: \
         `salama recover --accept-rollback` begins with an empty one, with a recovery code or shares"
    )]
    Absent {
        /// The file.
        path: PathBuf,
        /// Where the TPM is.
        counted: u64,
    },
    /// What opens its calls is not in the TPM, or would be decided by a store that has none.
    #[error(transparent)]
    Epoch(KeeperDenial),
    /// What it says of its epoch does not open.
    #[error(
        "what {path} says of the erasure epoch does not open: the store was damaged or changed by somebody, and nothing was changed now. Put the \
         newest state directory back, or restore a backup of it"
    )]
    EpochSealed {
        /// The file.
        path: PathBuf,
        /// How.
        #[source]
        source: OpenError,
    },
    /// The TPM is behind.
    #[error(
        "{path} was taken up for the last time at count {said}, but the TPM has counted only to {counted}: it was cleared or replaced, or its owner \
         removed the counter. If that was you (a new mainboard, a clear in the firmware): `salama recover --accept-rollback` takes this store with a \
         recovery code or shares and keeps a copy. If not, find out who did, and whether this store is the newest"
    )]
    Behind {
        /// The file.
        path: PathBuf,
        /// What it says.
        said: u64,
        /// Where the TPM is.
        counted: u64,
    },
    /// There is no counter.
    #[error(
        "the TPM has no counter that could tell whether {path} is the newest: the box was set up by a Salama from before there was one, or the TPM \
         was cleared, or its owner removed it. If you know why: `salama recover --accept-rollback` makes the counter and takes this store with a \
         recovery code or shares, and keeps a copy. If not, find out who did, and whether this store is the newest"
    )]
    NoCounter {
        /// The file.
        path: PathBuf,
    },
    /// The keyslots are older than the store.
    #[error(
        "the key directory is older than {path}: its keyslots had been changed {said} times when the store was last taken up, and now {found} times. \
         Somebody has put an older copy in its place, or restored a backup; slots that were removed since may be back. Put the newest one back. If \
         there is none: look through `salama keys list`, remove what must not open any more, and `salama recover --accept-rollback` goes on with \
         these keyslots by a recovery code or shares"
    )]
    OlderKeys {
        /// The file of the store.
        path: PathBuf,
        /// What it says.
        said: u64,
        /// What the keyslots say.
        found: u64,
    },
    /// What the store says of it does not open.
    #[error(
        "what {path} says of the TPM's counter does not open: the store was damaged or changed by somebody. Put the newest state directory back. If \
         there is none: `salama recover --accept-rollback` takes this store with a recovery code or shares and keeps a copy"
    )]
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
    /// Recordings of calls that it does not know.
    #[error(
        "recordings of calls that {path} does not know could not be put aside, so it was not taken: {source}. Check the disk and who owns that, and \
         start again"
    )]
    Aside {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: AsideError,
    },
    /// Recordings of calls that it does know.
    #[error(
        "recordings of calls that {path} knows were put aside earlier (`audio.rollback-COUNT` beside it) and could not be moved back, so this start \
         was not counted: {source}. Check the disk and who owns that, or move it away if those recordings are lost, and start again"
    )]
    Back {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: AsideError,
    },
    /// The database.
    #[error(transparent)]
    Store(#[from] OpenStoreError),
    /// The TPM.
    #[error("the TPM could not count this start; start again, and see the key keeper's lines in the journal")]
    Count(#[source] Arc<dyn Error + Send + Sync>),
}

impl TakeUpError {
    /// Whether the store was refused, which only people can change.
    pub fn is_refusal(&self) -> bool {
        match self {
            Self::Aside { source, .. } | Self::Back { source, .. } => source.is_refusal(),
            Self::Older { .. }
            | Self::Uncounted { .. }
            | Self::Absent { .. }
            | Self::Epoch(_)
            | Self::EpochSealed { .. }
            | Self::Behind { .. }
            | Self::NoCounter { .. }
            | Self::OlderKeys { .. }
            | Self::Sealed { .. } => true,
            Self::Copy { .. } | Self::Seal(_) | Self::Store(_) | Self::Count(_) => false,
        }
    }

    /// Whether a store that is refused so is taken with this leave.
    pub(super) const fn is_lifted_by(&self, leave: Leave) -> bool {
        match self {
            Self::Absent { .. } => matches!(leave, Leave::First | Leave::Accepted),
            Self::Epoch(KeeperDenial::EmptyStore) => matches!(leave, Leave::Accepted),
            Self::Older { .. } | Self::Uncounted { .. } | Self::Behind { .. } | Self::OlderKeys { .. } | Self::Sealed { .. } => {
                matches!(leave, Leave::Moved | Leave::Accepted)
            }
            _ => false,
        }
    }
}

/// What does not fit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refused {
    Older { said: u64, counted: u64 },
    Uncounted { counted: u64 },
    Absent { counted: u64 },
    Behind { said: u64, counted: u64 },
    OlderKeys { said: u64, found: u64 },
}

impl Refused {
    pub(super) fn of(self, path: &Path) -> TakeUpError {
        let path = path.to_owned();
        match self {
            Self::Older { said, counted } => TakeUpError::Older { path, said, counted },
            Self::Uncounted { counted } => TakeUpError::Uncounted { path, counted },
            Self::Absent { counted } => TakeUpError::Absent { path, counted },
            Self::Behind { said, counted } => TakeUpError::Behind { path, said, counted },
            Self::OlderKeys { said, found } => TakeUpError::OlderKeys { path, said, found },
        }
    }
}
