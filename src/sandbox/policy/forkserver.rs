//! The fork server: forks children that hold its models, watches and kills them. Never touches what a stranger sent.
//! Trusts: `salamad`, to ask for children.
//! Touches: its channel, its children.
//! Next: [`super::child`] narrows this in each child.

use super::Condition::Is;
use super::shared::{ALL_DENY, CHANNEL, COMPUTE, NO_FILES, NO_FILES_DENY, NO_TCP_DENY, STDERR, THREADS};
use super::{Allowed, Policy, always, bits, when};

/// What a child may, and what it takes to make, confine, watch and end one.
pub const POLICY: Policy = Policy {
    name: "forkserver",
    allowed: &[COMPUTE, THREADS, CHANNEL, STDERR, OFFSPRING, CONFINING],
    refused: NO_FILES,
    denied: &[ALL_DENY, NO_TCP_DENY, NO_FILES_DENY],
};

/// What glibc forks with.
const FORK: u32 = bits(libc::CLONE_CHILD_SETTID | libc::CLONE_CHILD_CLEARTID | libc::SIGCHLD);

const OFFSPRING: &[Allowed] = &[
    when(libc::SYS_clone, &[Is(0, FORK)], "fork; exactly its flags"),
    always(libc::SYS_pidfd_open, "children are watched by descriptor"),
    always(libc::SYS_pidfd_send_signal, "a child whose call is cancelled is killed"),
    always(libc::SYS_waitid, "how a child ended"),
    always(libc::SYS_poll, "the channel and all children are watched at once"),
    always(libc::SYS_pread64, "its own address space, from /proc/self/statm opened before: the base of a child's limit"),
];

/// Used by a child between the fork and its own, narrower policy.
const CONFINING: &[Allowed] = &[
    always(libc::SYS_close_range, "a child keeps its channel and standard error, nothing else"),
    when(libc::SYS_dup3, &[Is(1, bits(libc::STDERR_FILENO))], "a child's standard error becomes /dev/null"),
    always(libc::SYS_getppid, "a child whose fork server is already gone ends"),
    always(libc::SYS_landlock_create_ruleset, "a child gets a landlock domain without any right"),
    always(libc::SYS_landlock_restrict_self, "as above"),
    when(libc::SYS_prlimit64, &[Is(0, 0)], "a child limits itself (process id 0), and only itself"),
    when(libc::SYS_prctl, &[Is(0, bits(libc::PR_SET_PDEATHSIG))], "a child dies with its fork server"),
    when(libc::SYS_prctl, &[Is(0, bits(libc::PR_SET_NO_NEW_PRIVS))], "asked for again before each filter"),
    when(libc::SYS_prctl, &[Is(0, bits(libc::PR_GET_NO_NEW_PRIVS))], "looked at before landlock"),
    when(libc::SYS_seccomp, &[Is(0, libc::SECCOMP_SET_MODE_FILTER)], "a child adds its own filters; filters only ever narrow"),
];
