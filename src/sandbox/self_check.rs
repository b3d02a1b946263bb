//! Tries every act that a policy denies, each in a child of its own that is confined by that policy.
//! Trusts: only what happened to the child.
//! Touches: throw-away children; they end at once.
//! Next: [`super::process`] confines the process itself only when all were denied.

use std::io;

use nix::errno::Errno;

use super::policy::{Denial, Denied};
use super::process::Confinement;
use crate::sys::attempt::{Act, Attempt};
use crate::sys::pidfd::{Ended, PidFd};
use crate::sys::process::{Forked, SingleThreaded, exit_now, fork};

/// Exit codes of a throw-away child: 0 when the act succeeded, `errno` (at most 133) when it failed, this when it was never tried.
const NOT_CONFINED: u8 = 250;

/// Tries all acts that the policy denies; they run side by side. Gives their number.
///
/// # Errors
/// The first act that was not denied in the way that the policy says.
pub fn run(single_threaded: &SingleThreaded, confinement: &Confinement<'_>) -> Result<usize, SelfCheckError> {
    let mut trials = Vec::new();
    for denied in confinement.policy().denied.iter().copied().flatten() {
        trials.push((*denied, start(single_threaded, confinement, denied.act).map_err(SelfCheckError::Fork)?));
    }
    // All are waited for before any is judged, so that none is left behind.
    let endings: Vec<(Denied, io::Result<Ended>)> = trials.into_iter().map(|(denied, child)| (denied, child.wait())).collect();
    let tried = endings.len();
    for (denied, ended) in endings {
        judge(confinement.policy().name, denied, ended.map_err(SelfCheckError::Fork)?)?;
    }
    Ok(tried)
}

fn start(single_threaded: &SingleThreaded, confinement: &Confinement<'_>, act: Act) -> io::Result<PidFd> {
    match fork(single_threaded)? {
        Forked::Parent(child) => PidFd::open(child),
        Forked::Child => {
            let attempt = Attempt::new(act);
            exit_now(match confinement.apply().map(|()| attempt.perform()) {
                Err(_) => NOT_CONFINED,
                Ok(Ok(())) => 0,
                Ok(Err(errno)) => u8::try_from(number(errno)).unwrap_or(NOT_CONFINED),
            })
        }
    }
}

#[expect(clippy::as_conversions, reason = "nix's Errno is a C-like enum of the error numbers and offers no other way")]
const fn number(errno: Errno) -> i32 {
    errno as i32
}

/// An act passes only when it ended exactly as the policy says: a call that the kernel let in and refused for its arguments is a hole.
fn judge(policy: &'static str, denied: Denied, ended: Ended) -> Result<(), SelfCheckError> {
    let as_it_should = match (denied.by, ended) {
        (_, Ended::Code(code)) if code == i32::from(NOT_CONFINED) => return Err(SelfCheckError::NotConfined { policy, act: denied.act }),
        (Denial::Death, Ended::Signal(signal)) => signal == libc::SIGSYS,
        (Denial::Errno(errno), Ended::Code(code)) => code == errno,
        (Denial::Landlock, Ended::Code(code)) => [libc::EACCES, libc::EPERM, libc::EROFS].contains(&code),
        (Denial::Death, Ended::Code(_)) | (Denial::Errno(_) | Denial::Landlock, Ended::Signal(_)) => false,
    };
    if as_it_should { Ok(()) } else { Err(SelfCheckError::NotDenied { policy, act: denied.act, by: denied.by, ended }) }
}

/// The confinement does not hold what it promises. Nothing may be served.
#[derive(Debug, thiserror::Error)]
pub enum SelfCheckError {
    /// No throw-away child could be made or waited for.
    #[error("the self-check could not fork; is there a limit on processes?")]
    Fork(#[source] io::Error),
    /// A throw-away child could not be confined.
    #[error("the self-check of {policy} could not confine its child for {act:?}")]
    NotConfined {
        /// Of which policy.
        policy: &'static str,
        /// What it was for.
        act: Act,
    },
    /// An act was not denied, or not in the right way.
    #[error(
        "a process confined as {policy} could do {act:?}, or was stopped by something else than its policy ({by:?} expected, {ended:?} seen); it does not serve"
    )]
    NotDenied {
        /// Of which policy.
        policy: &'static str,
        /// What was tried.
        act: Act,
        /// How it should have ended.
        by: Denial,
        /// How it ended.
        ended: Ended,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(by: Denial, ended: Ended) -> bool {
        judge("test", Denied { act: Act::Execve, by }, ended).is_ok()
    }

    #[test]
    fn a_call_that_the_kernel_let_in_is_not_denied_although_it_failed() {
        assert!(judged(Denial::Death, Ended::Signal(libc::SIGSYS)));
        for let_in in [Ended::Code(0), Ended::Code(libc::EFAULT), Ended::Code(libc::EPERM), Ended::Signal(libc::SIGKILL)] {
            assert!(!judged(Denial::Death, let_in), "{let_in:?}");
        }
    }

    #[test]
    fn a_child_that_was_never_confined_proves_nothing() {
        for by in [Denial::Death, Denial::Errno(250), Denial::Landlock] {
            assert!(!judged(by, Ended::Code(i32::from(NOT_CONFINED))));
        }
    }

    #[test]
    fn an_error_must_be_the_one_that_the_policy_names() {
        assert!(judged(Denial::Errno(libc::EACCES), Ended::Code(libc::EACCES)));
        assert!(!judged(Denial::Errno(libc::EACCES), Ended::Code(libc::ENOENT)));
        assert!(judged(Denial::Landlock, Ended::Code(libc::EROFS)));
        assert!(!judged(Denial::Landlock, Ended::Code(0)));
    }
}
