//! `salamad`, the core: strangers' connections, the store in its state directory, two channels, the journal.
//! Trusts: nothing that comes over a connection.
//! Touches: what landlock grants (state read-write, configuration read-only), the listening socket, datagram sockets to journal and systemd
//! that were opened before.
//! Next: `lifecycle` builds the runtime once this is on.

use libc::{EACCES, ENOSYS};

use super::Condition::{Bits, Is};
use super::shared::{ALL_DENY, CHANNEL, COMPUTE, NO_CLONE3, NO_CONNECT, NO_TCP_DENY, THREADS};
use super::{Allowed, Denial, Denied, Policy, Refused, always, bits, dies, fails, refused, when};
use crate::sys::attempt::Act;

/// Threads, epoll, accepted connections, files under the state directory. No program, no process, no new connection.
pub const POLICY: Policy = Policy {
    name: "core",
    allowed: &[COMPUTE, THREADS, CHANNEL, EVENTS, CONNECTIONS, FILES, PROGRAMS],
    refused: REFUSED,
    denied: &[ALL_DENY, NO_TCP_DENY, DENIED],
};

const EVENTS: &[Allowed] = &[
    always(libc::SYS_epoll_create1, "tokio"),
    always(libc::SYS_epoll_ctl, "tokio"),
    always(libc::SYS_epoll_wait, "tokio"),
    always(libc::SYS_epoll_pwait, "tokio, with a newer glibc"),
    always(libc::SYS_eventfd2, "tokio wakes its own threads"),
    always(libc::SYS_poll, "waiting on one descriptor in a blocking thread"),
    always(libc::SYS_ppoll, "as above, with a newer glibc"),
    when(
        libc::SYS_socketpair,
        &[Is(0, bits(libc::AF_UNIX))],
        "tokio's signal pipe; the channel of a new child. Its two ends lead nowhere else",
    ),
];

const CONNECTIONS: &[Allowed] = &[
    always(libc::SYS_accept4, "connections to the listening socket that was opened before"),
    always(libc::SYS_recvfrom, "TLS in"),
    when(libc::SYS_sendto, &[Bits(3, NO_CONNECT, 0)], "TLS out, datagrams to the journal; never a connection"),
    always(libc::SYS_readv, "TLS in"),
    always(libc::SYS_writev, "TLS out"),
    always(libc::SYS_shutdown, "connections are closed in order"),
    always(libc::SYS_setsockopt, "no-delay, time limits"),
    always(libc::SYS_getsockopt, "errors of a socket"),
    always(libc::SYS_getsockname, "own address, for the log"),
    always(libc::SYS_getpeername, "address of a peer, for admission and audit"),
    when(libc::SYS_ioctl, &[Is(1, 0x5421)], "FIONBIO: the standard library makes sockets non-blocking by it"),
    when(libc::SYS_ioctl, &[Is(1, 0x5401)], "TCGETS: is standard error a terminal?"),
    always(libc::SYS_fcntl, "flags of descriptors, locks of the store"),
];

const FILES: &[Allowed] = &[
    always(libc::SYS_openat, "segments and the store; landlock says where"),
    always(libc::SYS_read, "files, eventfds"),
    always(libc::SYS_write, "files, eventfds, standard error"),
    always(libc::SYS_pread64, "the store"),
    always(libc::SYS_pwrite64, "the store"),
    always(libc::SYS_lseek, "segments"),
    always(libc::SYS_fsync, "durability"),
    always(libc::SYS_fdatasync, "durability"),
    always(libc::SYS_ftruncate, "the store grows and shrinks"),
    always(libc::SYS_fallocate, "the ballast file"),
    always(libc::SYS_flock, "one daemon a store"),
    always(libc::SYS_fstat, "sizes"),
    always(libc::SYS_newfstatat, "sizes, with glibc's fstat"),
    always(libc::SYS_statx, "sizes, with the standard library's metadata"),
    always(libc::SYS_statfs, "free space"),
    always(libc::SYS_fstatfs, "free space"),
    always(libc::SYS_getdents64, "which segments there are"),
    always(libc::SYS_mkdir, "a directory a call"),
    always(libc::SYS_mkdirat, "a directory a call"),
    always(libc::SYS_rmdir, "erasure"),
    always(libc::SYS_unlink, "erasure"),
    always(libc::SYS_unlinkat, "erasure"),
    always(libc::SYS_rename, "files appear whole or not at all"),
    always(libc::SYS_renameat, "as above"),
    always(libc::SYS_renameat2, "as above"),
];

const PROGRAMS: &[Allowed] = &[
    always(libc::SYS_waitid, "how the keeper and the fork server ended; they were started before"),
    always(libc::SYS_getrusage, "processor time, for the metrics"),
];

const REFUSED: &[Refused] = &[
    NO_CLONE3,
    refused(libc::SYS_copy_file_range, ENOSYS, "the standard library copies by reading and writing then"),
    refused(libc::SYS_sendfile, ENOSYS, "as above"),
    refused(libc::SYS_splice, ENOSYS, "as above"),
    refused(libc::SYS_readlink, EACCES, "canonical paths; paths are made so before confinement"),
    refused(
        libc::SYS_memfd_create,
        ENOSYS,
        "the journal library asks for one for a line over 200 KB; that line is lost, the daemon is not",
    ),
];

const DENIED: &[Denied] = &[
    Denied { act: Act::ReadPasswd, by: Denial::Landlock },
    Denied { act: Act::CreateFile, by: Denial::Landlock },
    fails(Act::Memfd, ENOSYS),
    // An accepted connection that is reset by connect(AF_UNSPEC) could be connected again, to anywhere.
    dies(Act::Connect),
    dies(Act::Fork),
];
