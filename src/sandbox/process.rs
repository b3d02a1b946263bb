//! The way into confinement, one step a type: `harden` > `drop_privileges` > `confine`. Each step consumes the one before.
//! Trusts: the kernel; every step is verified, and the last one tried out in throw-away children first.
//! Touches: this process, for good.
//! Next: whoever holds a [`Confined`] may serve.

use std::io;
use std::os::fd::RawFd;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::prctl;
use nix::sys::resource::{RLIM_INFINITY, Resource, getrlimit};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::stat::{Mode, umask};

use super::landlock::{self, LandlockError, LandlockReport};
use super::policy::Policy;
use super::privilege::{self, Identity, PrivilegeError};
use super::seccomp::{Filters, SeccompError};
use super::self_check::{self, SelfCheckError};
use crate::sys::attempt::{Act, Attempt};
use crate::sys::descriptors::close_all_but;
use crate::sys::limits::{AddressSpace, lock_all_memory, lock_present_memory, reserve_memory, set_limit};
use crate::sys::process::{Forked, SingleThreaded, fork};

pub use super::landlock::Grant;

/// A process without stray descriptors that leaves no dumps. It may still do anything else.
#[derive(Debug)]
#[must_use]
pub struct Hardened(());

/// A process without privileges, or with those alone that [`Hardened::keep_files`] leaves.
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
    /// System calls that the policy allows.
    pub system_calls: usize,
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
    /// Signals.
    #[error("the signals that stop the service could not be put off")]
    Signals(#[source] io::Error),
}

impl Hardened {
    /// From here on what stops the whole service at once, be it systemd or a terminal, does not end this process: it ends in order,
    /// with its channel.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn outlive_a_stop(&self) -> Result<(), HardenError> {
        let stops = [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP].into_iter().collect::<SigSet>();
        stops.thread_block().map_err(|errno| HardenError::Signals(errno.into()))
    }

    /// Keeps keys out of swap: sets memory aside to work in and locks it; and locks what is mapped later too, where there is no
    /// limit. As root it lifts the limit first, if it may.
    ///
    /// # Errors
    /// When the limit is too low and this process has no right to ignore it.
    pub fn lock_memory(&self) -> Result<LockedMemory, LockMemoryError> {
        let limit = lift_memory_lock_limit().map_err(LockMemoryError::Size)?;
        reserve_memory();
        let needed = AddressSpace::open().and_then(|space| space.bytes()).map_err(LockMemoryError::Size)?;
        let failed = |source| LockMemoryError::Lock { limit, needed, source };
        if limit == RLIM_INFINITY {
            lock_all_memory().map_err(failed)?;
            return Ok(LockedMemory::All);
        }
        // Under a limit, a later mapping past it would fail, and the process with it: only what is there now is locked.
        lock_present_memory().map_err(failed)?;
        Ok(LockedMemory::Reserve)
    }

    /// Second step: becomes `user` (a name or a number) when started as root, and empties all sets of capabilities.
    ///
    /// # Errors
    /// Whatever is left of root's power.
    pub fn drop_privileges(self, user: Option<&str>) -> Result<Unprivileged, PrivilegeError> {
        privilege::drop_all(user).map(|identity| Unprivileged { identity })
    }
}

impl Hardened {
    /// Second step of a program that the operator runs: it stays who it is, and root keeps nothing but the way to files of other accounts.
    ///
    /// # Errors
    /// Whatever else is left of root's power.
    pub fn keep_files(self) -> Result<Unprivileged, PrivilegeError> {
        privilege::keep_files().map(|identity| Unprivileged { identity })
    }
}

/// What [`Hardened::lock_memory`] has locked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LockedMemory {
    /// All, whatever is mapped later included.
    All,
    /// What was there, with a reserve of heap and stack to work in.
    Reserve,
}

/// Memory could not be locked.
#[derive(Debug, thiserror::Error)]
pub enum LockMemoryError {
    /// Sizes or limits could not be read.
    #[error("the limit on locked memory could not be read or set")]
    Size(#[source] io::Error),
    /// The limit is too low.
    #[error(
        "memory cannot be locked against swapping: {limit} bytes may be locked, {needed} are needed; start as root or raise the limit (LimitMEMLOCK=64M, ulimit -l)"
    )]
    Lock {
        /// What may be locked.
        limit: u64,
        /// What must be.
        needed: u64,
        /// What the kernel says.
        #[source]
        source: io::Error,
    },
}

/// Gives the limit as it is then.
fn lift_memory_lock_limit() -> io::Result<u64> {
    let resource = Resource::RLIMIT_MEMLOCK;
    if set_limit(resource, RLIM_INFINITY, RLIM_INFINITY).is_ok() {
        return Ok(RLIM_INFINITY);
    }
    // Not root, or root without CAP_SYS_RESOURCE, as in many containers: as much as there is.
    let (_, hard) = getrlimit(resource)?;
    set_limit(resource, hard, hard)?;
    Ok(hard)
}

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
        let report = ConfinementReport {
            policy: policy.name,
            identity: self.identity,
            landlock: confinement.landlock,
            system_calls: policy.allowed.iter().map(|table| table.len()).sum(),
            acts_denied,
            self_check,
        };
        Ok(Confined { report, single_threaded })
    }
}

impl Confined {
    /// How.
    pub const fn report(&self) -> &ConfinementReport {
        &self.report
    }

    /// For the one confined process whose policy lets it fork: tries `policy` out in throw-away children of this process.
    ///
    /// # Errors
    /// As [`Unprivileged::confine`].
    pub fn prepare_offspring(self, policy: &'static Policy) -> Result<Offspring, ConfineError> {
        let confinement = Confinement::prepare(policy, &[])?;
        let acts_denied = self_check::run(&self.single_threaded, &confinement)?;
        Ok(Offspring { parent: self, confinement, acts_denied })
    }
}

/// The right to fork children that are confined once more, by a policy that this process has tried out.
#[derive(Debug)]
pub struct Offspring {
    parent: Confined,
    confinement: Confinement<'static>,
    acts_denied: usize,
}

impl Offspring {
    /// How the parent is confined.
    pub const fn parent(&self) -> &Confined {
        &self.parent
    }

    /// Acts forbidden to children that were tried and denied.
    pub const fn acts_denied(&self) -> usize {
        self.acts_denied
    }

    /// Splits the process in two. The child owes a call of [`Self::confine_child`] before it reads what a stranger sent.
    ///
    /// # Errors
    /// `EAGAIN` or `ENOMEM`.
    pub fn fork(&self) -> io::Result<Forked> {
        fork(&self.parent.single_threaded)
    }

    /// In a forked child: confines it, and looks that it took hold. The tries that end in death were made before, once for all children.
    ///
    /// # Errors
    /// As [`Unprivileged::confine`]. A child in which this failed must end.
    pub fn confine_child(&self) -> Result<(), ConfineError> {
        let witness = Attempt::new(Act::ReadPasswd);
        self.confinement.apply()?;
        match witness.perform() {
            Err(Errno::EACCES) => Ok(()),
            Ok(()) | Err(_) => Err(ConfineError::Child),
        }
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
    /// A child could open a file although it was confined.
    #[error("a child of the fork server could open a file after it was confined")]
    Child,
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
