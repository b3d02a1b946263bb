//! What each kind of process may ask of the kernel: tables of system calls, each line with its reason.
//! Trusts: nothing; what no line names kills the process.
//! Touches: nothing.
//! Next: [`super::seccomp`] compiles a table, [`super::self_check`] tries what it denies.

pub mod child;
pub mod core;
pub mod forkserver;
pub mod keeper;
mod shared;

use libc::{c_int, c_long};

use crate::sys::attempt::Act;

/// The rules of one kind of process.
#[derive(Debug)]
pub struct Policy {
    /// The kind, for the journal.
    pub name: &'static str,
    /// What is let in. Lines for the same call widen each other.
    pub allowed: &'static [&'static [Allowed]],
    /// What is answered with an error instead of death, because libraries ask on their own and can do without.
    pub refused: &'static [Refused],
    /// What the self-check tries, and how it must end.
    pub denied: &'static [&'static [Denied]],
}

/// One allowed system call.
#[derive(Debug)]
pub struct Allowed {
    /// Its number.
    pub call: c_long,
    /// With which arguments.
    pub when: When,
    /// Who needs it.
    pub reason: &'static str,
}

/// Arguments that a line allows. Only the lower 32 bits are compared: all arguments named here are of type `int` or flags below 2^32.
#[derive(Clone, Copy, Debug)]
pub enum When {
    /// Any.
    Always,
    /// Those that meet all conditions.
    All(&'static [Condition]),
}

/// A condition on one argument.
#[derive(Clone, Copy, Debug)]
pub enum Condition {
    /// Argument number .0 is .1.
    Is(u8, u32),
    /// Of argument number .0, the bits .1 are .2.
    Bits(u8, u32, u32),
}

/// One system call that is answered with an error.
#[derive(Debug)]
pub struct Refused {
    /// Its number.
    pub call: c_long,
    /// The error.
    pub errno: c_int,
    /// Who asks, and why no is a fine answer.
    pub reason: &'static str,
}

/// An act that must be denied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Denied {
    /// What is tried.
    pub act: Act,
    /// How it must end.
    pub by: Denial,
}

/// How an act is denied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Denial {
    /// The process is killed by `SIGSYS`.
    Death,
    /// The seccomp filter answers with this error.
    Errno(c_int),
    /// Landlock or the file's permissions say no: `EACCES`, `EPERM` or `EROFS`.
    Landlock,
}

const fn always(call: c_long, reason: &'static str) -> Allowed {
    Allowed { call, when: When::Always, reason }
}

const fn when(call: c_long, conditions: &'static [Condition], reason: &'static str) -> Allowed {
    Allowed { call, when: When::All(conditions), reason }
}

const fn refused(call: c_long, errno: c_int, reason: &'static str) -> Refused {
    Refused { call, errno, reason }
}

const fn dies(act: Act) -> Denied {
    Denied { act, by: Denial::Death }
}

const fn fails(act: Act, errno: c_int) -> Denied {
    Denied { act, by: Denial::Errno(errno) }
}

/// Numbers that C declares as `int` although they are flags or enumerations that are never negative.
#[expect(clippy::as_conversions, reason = "evaluated at compile time on constants of libc that are never negative")]
const fn bits(constant: c_int) -> u32 {
    assert!(constant >= 0, "a negative constant is no set of flags");
    constant as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [&Policy; 8] = [
        &core::POLICY,
        &keeper::POLICY,
        &keeper::DEVICE,
        &keeper::SOFTWARE,
        &keeper::KEYS_DEVICE,
        &keeper::KEYS_SOFTWARE,
        &forkserver::POLICY,
        &child::POLICY,
    ];

    fn lines(policy: &Policy) -> impl Iterator<Item = &'static Allowed> {
        policy.allowed.iter().copied().flatten()
    }

    #[test]
    fn every_line_has_a_reason() {
        for policy in ALL {
            assert!(lines(policy).all(|line| !line.reason.is_empty()), "{}", policy.name);
            assert!(policy.refused.iter().all(|line| !line.reason.is_empty()), "{}", policy.name);
        }
    }

    #[test]
    fn no_call_is_both_allowed_and_refused() {
        for policy in ALL {
            for refused in policy.refused {
                assert!(lines(policy).all(|line| line.call != refused.call), "{}: call {}", policy.name, refused.call);
            }
        }
    }

    #[test]
    fn no_line_is_made_moot_by_a_wider_one_in_its_own_table() {
        for policy in ALL {
            for table in policy.allowed {
                for line in table.iter().filter(|line| matches!(line.when, When::Always)) {
                    assert_eq!(table.iter().filter(|other| other.call == line.call).count(), 1, "{}: call {}", policy.name, line.call);
                }
            }
        }
    }

    #[test]
    fn what_a_child_may_do_its_fork_server_may_too() {
        for line in lines(&child::POLICY) {
            let same = lines(&forkserver::POLICY).any(|wider| std::ptr::eq(wider, line));
            assert!(same, "filters stack: call {} of a child would die in the filter of the fork server", line.call);
        }
    }

    #[test]
    fn every_policy_denies_programs_forks_sockets_and_executable_memory() {
        for policy in ALL {
            let denied: Vec<Act> = policy.denied.iter().copied().flatten().map(|denied| denied.act).collect();
            let tcp = if policy.name.ends_with("-software") { Act::TcpConnect } else { Act::TcpSocket };
            for act in [Act::ReadPasswd, Act::CreateFile, Act::Execve, tcp, Act::UdpSocket, Act::MapExecutable, Act::MakeExecutable] {
                assert!(denied.contains(&act), "{} does not check {act:?}", policy.name);
            }
            assert_eq!(denied.contains(&Act::Fork), policy.name != "forkserver");
        }
    }
}
