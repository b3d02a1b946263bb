//! Files, TCP and signals: only what was granted, enforced by landlock with all that the running kernel knows.
//! Trusts: the kernel's word on its landlock version; what is asked for must be enforced, or start-up ends.
//! Touches: the landlock domain of this process; opens the granted paths.
//! Next: [`super::process`] applies it before seccomp.

use std::fmt;
use std::fs::File;
use std::os::fd::AsFd as _;
use std::path::PathBuf;
use std::sync::Arc;

use landlock::{
    ABI, Access, AccessFs, AccessNet, BitFlags, CompatLevel, Compatible, NetPort, PathBeneath, PathFd, PathFdError, Ruleset, RulesetAttr,
    RulesetCreated, RulesetCreatedAttr, RulesetError, RulesetStatus, Scope,
};

use crate::sys::limits::landlock_abi;

/// The least that is accepted: Linux 5.19, so Debian 12's own 6.1 has it. Version 1 cannot stop moving files between directories.
pub const FLOOR: i32 = 2;

/// Something outside of itself that a confined process keeps.
#[derive(Clone, Debug)]
pub enum Grant {
    /// A directory and all below: files may be made, read, written, moved within and deleted; nothing may be executed.
    ReadWrite(PathBuf),
    /// As [`Self::ReadWrite`], for a directory that this process has open, also where it could not find the way to it any more.
    ReadWriteOpen(Arc<File>),
    /// A file, or a directory and all below, may be read.
    ReadOnly(PathBuf),
    /// A Unix socket that may be connected to or sent to; better the directory that holds it, since a socket that is made anew
    /// is another one. Kernels before ABI 9 do not ask.
    Socket(PathBuf),
    /// A TCP port that may be connected to, on any machine. Kernels before ABI 4 do not ask.
    Connect(u16),
}

impl Grant {
    /// The kernel refuses rights that only directories can have on anything else.
    fn files(&self, directory: bool, abi: ABI) -> BitFlags<AccessFs> {
        let wanted = match self {
            Self::ReadWrite(_) | Self::ReadWriteOpen(_) => {
                AccessFs::ReadFile
                    | AccessFs::ReadDir
                    | AccessFs::WriteFile
                    | AccessFs::Truncate
                    | AccessFs::MakeReg
                    | AccessFs::MakeDir
                    | AccessFs::RemoveFile
                    | AccessFs::RemoveDir
                    | AccessFs::Refer
            }
            Self::ReadOnly(_) => AccessFs::ReadFile | AccessFs::ReadDir,
            Self::Socket(_) => AccessFs::ResolveUnix.into(),
            Self::Connect(_) => BitFlags::EMPTY,
        };
        let known = wanted & AccessFs::from_all(abi);
        if directory { known } else { known & AccessFs::from_file(abi) }
    }

    fn add(&self, created: RulesetCreated, abi: ABI) -> Result<RulesetCreated, LandlockError> {
        match self {
            Self::ReadWrite(path) | Self::ReadOnly(path) | Self::Socket(path) => {
                let access = self.files(path.is_dir(), abi);
                if access.is_empty() {
                    return Ok(created);
                }
                let opened = PathFd::new(path).map_err(|source| LandlockError::Path { path: path.clone(), source })?;
                created.add_rule(PathBeneath::new(opened, access)).map_err(LandlockError::Rule)
            }
            Self::ReadWriteOpen(directory) => {
                created.add_rule(PathBeneath::new(directory.as_fd(), self.files(true, abi))).map_err(LandlockError::Rule)
            }
            Self::Connect(_) if AccessNet::from_all(abi).is_empty() => Ok(created),
            Self::Connect(port) => created.add_rule(NetPort::new(*port, AccessNet::ConnectTcp)).map_err(LandlockError::Rule),
        }
    }
}

/// What landlock enforces here, for the journal and for `salama doctor`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LandlockReport {
    /// Version of the running kernel.
    pub kernel_abi: i32,
    /// Version that is enforced: the kernel's, or the newest that this program knows.
    pub enforced_abi: i32,
    /// What a newer kernel would add.
    pub missing: Vec<Missing>,
}

/// A protection that the running kernel does not have; seccomp and the systemd unit cover it meanwhile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Missing {
    /// ABI 3.
    Truncate,
    /// ABI 4.
    Tcp,
    /// ABI 5.
    DeviceIoctl,
    /// ABI 6.
    SignalsAndAbstractSockets,
    /// ABI 9.
    UnixSockets,
}

impl Missing {
    const ALL: [(i32, Self); 5] =
        [(3, Self::Truncate), (4, Self::Tcp), (5, Self::DeviceIoctl), (6, Self::SignalsAndAbstractSockets), (9, Self::UnixSockets)];

    fn of(abi: i32) -> Vec<Self> {
        Self::ALL.into_iter().filter(|(since, _)| *since > abi).map(|(_, missing)| missing).collect()
    }
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Truncate => "truncating files (Linux 6.2)",
            Self::Tcp => "TCP ports (Linux 6.7)",
            Self::DeviceIoctl => "device commands (Linux 6.10)",
            Self::SignalsAndAbstractSockets => "signals and abstract sockets (Linux 6.12)",
            Self::UnixSockets => "Unix sockets by path (Linux 7.1)",
        })
    }
}

/// Why landlock could not be put to work.
#[derive(Debug, thiserror::Error)]
pub enum LandlockError {
    /// The kernel has none, or it is switched off.
    #[error(
        "this kernel has no landlock; Salama needs Linux 5.19 or newer with landlock in its list of security modules (boot parameter lsm=)"
    )]
    Absent,
    /// The kernel's is too old.
    #[error("this kernel's landlock is version {abi}, and Salama needs {FLOOR}: install Linux 5.19 or newer")]
    TooOld {
        /// What it has.
        abi: i32,
    },
    /// A granted path cannot be opened.
    #[error("{path} cannot be opened to be granted")]
    Path {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: PathFdError,
    },
    /// The kernel refused a rule.
    #[error("the kernel refused a landlock rule")]
    Rule(#[source] RulesetError),
    /// Not all that was asked for is enforced.
    #[error("landlock is enforced only in part; is a system call filter around this service hiding it?")]
    Partial,
}

/// Looks what the running kernel offers.
///
/// # Errors
/// `Absent` or `TooOld`.
pub fn probe() -> Result<LandlockReport, LandlockError> {
    let kernel_abi = landlock_abi();
    if kernel_abi == 0 {
        return Err(LandlockError::Absent);
    }
    if kernel_abi < FLOOR {
        return Err(LandlockError::TooOld { abi: kernel_abi });
    }
    let enforced_abi = kernel_abi.min(newest_known());
    Ok(LandlockReport { kernel_abi, enforced_abi, missing: Missing::of(enforced_abi) })
}

fn newest_known() -> i32 {
    const NEWEST: i32 = 9;
    NEWEST
}

/// Puts this process, for good, into a domain that has the grants and nothing else. The process must have one thread.
///
/// # Errors
/// Whatever keeps any part of it from being enforced.
pub fn restrict(report: &LandlockReport, grants: &[Grant]) -> Result<(), LandlockError> {
    let abi = ABI::from(report.enforced_abi);
    let mut ruleset = Ruleset::default()
        .set_compatibility(CompatLevel::HardRequirement)
        .handle_access(AccessFs::from_all(abi))
        .map_err(LandlockError::Rule)?;
    if report.enforced_abi >= 4 {
        ruleset = ruleset.handle_access(AccessNet::from_all(abi)).map_err(LandlockError::Rule)?;
    }
    if report.enforced_abi >= 6 {
        ruleset = ruleset.scope(Scope::from_all(abi)).map_err(LandlockError::Rule)?;
    }
    let mut created = ruleset.create().map_err(LandlockError::Rule)?;
    for grant in grants {
        created = grant.add(created, abi)?;
    }
    match created.restrict_self().map_err(LandlockError::Rule)?.ruleset {
        RulesetStatus::FullyEnforced => Ok(()),
        RulesetStatus::PartiallyEnforced | RulesetStatus::NotEnforced => Err(LandlockError::Partial),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_kernel_lacks_is_named() {
        assert_eq!(Missing::of(2).len(), 5);
        assert_eq!(Missing::of(5), [Missing::SignalsAndAbstractSockets, Missing::UnixSockets]);
        assert!(Missing::of(9).is_empty());
    }

    #[test]
    fn the_newest_version_that_the_library_knows_is_the_one_asked_for() {
        assert_eq!(ABI::from(newest_known()), ABI::from(i32::MAX));
        assert_ne!(ABI::from(newest_known()), ABI::from(newest_known() - 1));
    }

    #[test]
    fn no_grant_lets_anything_be_executed() {
        let here = PathBuf::from("/");
        let open = Arc::new(File::open(&here).unwrap());
        for grant in [Grant::ReadWrite(here.clone()), Grant::ReadWriteOpen(open), Grant::ReadOnly(here.clone()), Grant::Socket(here)] {
            assert!(!grant.files(true, ABI::V9).contains(AccessFs::Execute));
        }
        assert!(Grant::Connect(1).files(true, ABI::V9).is_empty());
    }
}
