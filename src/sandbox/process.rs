//! The way into confinement, one step a type: `harden` > `drop_privileges` > `confine`. Each step consumes the one before.
//! Trusts: the kernel; every step is verified, and the last one tried out in throw-away children first.
//! Touches: this process, for good.
//! Next: whoever holds a [`Confined`] may serve.

use std::io;
use std::os::fd::RawFd;
use std::time::{Duration, Instant};

use nix::sys::prctl;
use nix::sys::resource::{RLIM_INFINITY, Resource};
use nix::sys::stat::{Mode, umask};
use nix::unistd::geteuid;

use super::landlock::{self, LandlockError, LandlockReport};
use super::policy::Policy;
use super::privilege::{self, Identity, PrivilegeError};
use super::seccomp::{Filters, SeccompError};
use super::self_check::{self, SelfCheckError};
use crate::sys::descriptors::close_all_but;
use crate::sys::limits::{lock_all_memory, set_limit};
use crate::sys::process::SingleThreaded;

pub use super::landlock::Grant;

/// A process without stray descriptors that leaves no dumps. It may still do anything else.
#[derive(Debug)]
#[must_use]
pub struct Hardened(());

/// A process without privileges.
#[derive(Debug)]
#[must_use]
pub struct Unprivileged {
    identity: Identity,
}

/// Proof that this process is confined. Nothing serves without it.
#[derive(Debug)]
#[must_use]
pub struct Confined {
    report: ConfinementReport,
    single_threaded: SingleThreaded,
}

/// How a process is confined, for the journal.
#[derive(Clone, Debug)]
pub struct ConfinementReport {
    /// Kind of process.
    pub policy: &'static str,
    /// Account that it runs as.
    pub identity: Identity,
    /// What landlock enforces, and what it lacks here.
    pub landlock: LandlockReport,
    /// Forbidden acts that were tried and denied.
    pub acts_denied: usize,
    /// How long that took.
    pub self_check: Duration,
}

/// First step, at the start of the program: closes every descriptor but the standard streams and `keep`, allows no core dump
/// and no look into this process' memory, and makes new files private.
///
/// # Errors
/// When the kernel refuses a step.
pub fn harden(keep: &[RawFd]) -> Result<Hardened, HardenError> {
    let standard = [libc::STDIN_FILENO, libc::STDOUT_FILENO, libc::STDERR_FILENO];
    close_all_but(&[&standard, keep].concat()).map_err(HardenError::Descriptors)?;
    set_limit(Resource::RLIMIT_CORE, 0, 0).map_err(HardenError::CoreDumps)?;
    prctl::set_dumpable(false).map_err(|errno| HardenError::Dumpable(errno.into()))?;
    umask(Mode::S_IRWXG | Mode::S_IRWXO);
    Ok(Hardened(()))
}

/// Why [`harden`] failed.
#[derive(Debug, thiserror::Error)]
pub enum HardenError {
    /// Closing strays.
    #[error("stray descriptors could not be closed; Salama needs Linux 5.19 or newer")]
    Descriptors(#[source] io::Error),
    /// Core dumps.
    #[error("core dumps could not be forbidden")]
    CoreDumps(#[source] io::Error),
    /// Looking into memory.
    #[error("the process could not be made undumpable")]
    Dumpable(#[source] io::Error),
}

impl Hardened {
    /// Keeps keys out of swap: locks all memory, now and later. As root it lifts the limit first.
    ///
    /// # Errors
    /// When the limit on locked memory is too low for this process.
    pub fn lock_memory(&self) -> Result<(), LockMemoryError> {
        if geteuid().is_root() {
            // Root of a container often may lock memory but not raise limits. Then the limit counts again once privileges are
            // gone, and a process must have reserved what it needs by then.
            match set_limit(Resource::RLIMIT_MEMLOCK, RLIM_INFINITY, RLIM_INFINITY) {
                Err(error) if error.kind() != io::ErrorKind::PermissionDenied => return Err(LockMemoryError(error)),
                _ => {}
            }
        }
        lock_all_memory().map_err(LockMemoryError)
    }

    /// Second step: becomes `user` (a name or a number) when started as root, and empties all sets of capabilities.
    ///
    /// # Errors
    /// Whatever is left of root's power.
    pub fn drop_privileges(self, user: Option<&str>) -> Result<Unprivileged, PrivilegeError> {
        privilege::drop_all(user).map(|identity| Unprivileged { identity })
    }
}

/// Memory could not be locked.
#[derive(Debug, thiserror::Error)]
#[error("memory could not be locked against swapping; start as root or raise the limit (ulimit -l, LimitMEMLOCK=64M)")]
pub struct LockMemoryError(#[source] io::Error);

impl Unprivileged {
    /// Last step: tries every act that the policy denies in throw-away children confined by it, then confines this process.
    ///
    /// # Errors
    /// When the kernel lacks or refuses a part, when any act is not denied as the policy says, or when there is more than one thread.
    pub fn confine(self, policy: &'static Policy, grants: &[Grant]) -> Result<Confined, ConfineError> {
        let single_threaded = SingleThreaded::prove().map_err(ConfineError::Threads)?;
        let confinement = Confinement::prepare(policy, grants)?;
        let started = Instant::now();
        let acts_denied = self_check::run(&single_threaded, &confinement)?;
        let self_check = started.elapsed();
        confinement.apply()?;
        let report =
            ConfinementReport { policy: policy.name, identity: self.identity, landlock: confinement.landlock, acts_denied, self_check };
        Ok(Confined { report, single_threaded })
    }
}

impl Confined {
    /// How.
    pub const fn report(&self) -> &ConfinementReport {
        &self.report
    }

    /// The right to fork, for the one confined process whose policy lets it.
    pub const fn single_threaded(&self) -> &SingleThreaded {
        &self.single_threaded
    }
}

/// Why a process could not be confined.
#[derive(Debug, thiserror::Error)]
pub enum ConfineError {
    /// Threads were started too early; they would stay outside.
    #[error("the process cannot be confined, because threads were started before")]
    Threads(#[source] io::Error),
    /// Landlock.
    #[error(transparent)]
    Landlock(#[from] LandlockError),
    /// Seccomp.
    #[error(transparent)]
    Seccomp(#[from] SeccompError),
    /// An act was not denied.
    #[error(transparent)]
    SelfCheck(#[from] SelfCheckError),
}

/// A policy made ready for the running kernel: to be tried, then applied.
#[derive(Debug)]
pub struct Confinement<'a> {
    policy: &'static Policy,
    landlock: LandlockReport,
    filters: Filters,
    grants: &'a [Grant],
}

impl<'a> Confinement<'a> {
    /// Compiles the policy and looks what the kernel offers.
    ///
    /// # Errors
    /// `Landlock` or `Seccomp`.
    pub fn prepare(policy: &'static Policy, grants: &'a [Grant]) -> Result<Self, ConfineError> {
        Ok(Self { policy, landlock: landlock::probe()?, filters: Filters::compile(policy)?, grants })
    }

    /// The policy.
    pub const fn policy(&self) -> &'static Policy {
        self.policy
    }

    /// Confines this process, for good: landlock first, because afterwards its system calls need not be allowed.
    ///
    /// # Errors
    /// `Landlock` or `Seccomp`. A process in which this failed is confined in part and must end.
    pub fn apply(&self) -> Result<(), ConfineError> {
        landlock::restrict(&self.landlock, self.grants)?;
        Ok(self.filters.apply()?)
    }
}
