//! `salama-keeper`: answers requests on one channel; has read its key files and left the TPM before it is confined.
//! Trusts: nothing that comes over the channel.
//! Touches: its channel, its memory, standard error.
//! Next: the keeper's request loop.

use super::Condition::{Bits, Is};
use super::shared::{ALL_DENY, CHANNEL, NO_FILES, NO_FILES_DENY, STDERR};
use super::{Allowed, Denied, Policy, always, bits, dies, when};
use crate::sys::attempt::Act;

/// The least of all: not even threads. In steady state it makes four calls: recvmsg, getrandom, write, sendmsg.
pub const POLICY: Policy =
    Policy { name: "keeper", allowed: &[ANSWER, CHANNEL, STDERR], refused: NO_FILES, denied: &[ALL_DENY, NO_FILES_DENY, NO_OFFSPRING] };

const ANSWER: &[Allowed] = &[
    always(libc::SYS_getrandom, "DEKs, nonces of wrapped keys and of signatures"),
    always(libc::SYS_clock_gettime, "limits and log lines, where the vDSO cannot answer"),
    always(libc::SYS_futex, "locks of the standard library"),
    always(libc::SYS_brk, "heap, should the reserved part not do"),
    when(libc::SYS_mmap, &[Bits(2, bits(libc::PROT_EXEC), 0)], "heap, should the reserved part not do; never executable"),
    always(libc::SYS_munmap, "giving memory back"),
    always(libc::SYS_mremap, "growing large messages in place"),
    always(libc::SYS_madvise, "giving memory back"),
    always(libc::SYS_close, "a descriptor that came with a message, and the channel at the end"),
    when(libc::SYS_fcntl, &[Is(1, bits(libc::F_GETFD))], "builds with debug assertions look before they close"),
    always(libc::SYS_getpid, "the self-check names its file by it"),
    always(libc::SYS_sigaltstack, "the runtime puts its signal stack away at the end"),
    always(libc::SYS_rt_sigreturn, "return from a signal handler"),
    always(libc::SYS_exit_group, "end of the process"),
];

const NO_OFFSPRING: &[Denied] = &[dies(Act::Fork)];
