//! `salama-keeper`: answers requests on one channel. Beside the daemon it keeps the TPM and the key directory, at the console neither.
//! Trusts: nothing that comes over the channel.
//! Touches: its channel, its memory, standard error; beside the daemon the TPM and the key directory, both opened before.
//! Next: the keeper's request loop.

use libc::{EACCES, c_long};

use super::Condition::{Bits, Is};
use super::shared::{ALL_DENY, CHANNEL, NO_CLONE3, NO_FILES, NO_FILES_DENY, NO_TCP_DENY, STDERR};
use super::{Allowed, Denial, Denied, Policy, Refused, always, bits, dies, refused, when};
use crate::sys::attempt::Act;

/// At the console: has left the TPM and the key files. The least of all: not even threads. In steady state it makes four calls: recvmsg,
/// getrandom, write, sendmsg.
pub const POLICY: Policy = Policy {
    name: "keeper",
    allowed: &[ANSWER, CHANNEL, STDERR],
    refused: NO_FILES,
    denied: &[ALL_DENY, NO_TCP_DENY, NO_FILES_DENY, NO_OFFSPRING],
};

/// Beside the daemon, with a TPM that is a device: its descriptor is open, nothing else is opened but files of the key directory.
pub const DEVICE: Policy = Policy {
    name: "keeper-device",
    allowed: &[ANSWER, CHANNEL, KEY_DIRECTORY, TPM],
    refused: SOME_FILES,
    denied: &[ALL_DENY, NO_TCP_DENY, SOME_FILES_DENY, NO_CONNECT_DENY, NO_OFFSPRING],
};

/// Beside the daemon, with a software TPM, for tests and demonstrations: libtss2 connects to it anew for each command. Landlock says to
/// which two ports.
pub const SOFTWARE: Policy = Policy {
    name: "keeper-software",
    allowed: &[ANSWER, CHANNEL, KEY_DIRECTORY, TPM, TCP],
    refused: SOME_FILES,
    denied: &[ALL_DENY, SOME_FILES_DENY, OTHER_PORTS_DENY, NO_OFFSPRING],
};

/// At the console, changing the keyslots, with a TPM that is a device: it is opened for each part of the work, so landlock grants its path.
pub const KEYS_DEVICE: Policy = Policy {
    name: "keeper-keys-device",
    allowed: &[ANSWER, CHANNEL, KEY_DIRECTORY, TPM, DESK],
    refused: SOME_FILES,
    denied: &[ALL_DENY, NO_TCP_DENY, SOME_FILES_DENY, NO_CONNECT_DENY, NO_OFFSPRING],
};

/// At the console, changing the keyslots, with a software TPM.
pub const KEYS_SOFTWARE: Policy = Policy {
    name: "keeper-keys-software",
    allowed: &[ANSWER, CHANNEL, KEY_DIRECTORY, TPM, TCP, DESK],
    refused: SOME_FILES,
    denied: &[ALL_DENY, SOME_FILES_DENY, OTHER_PORTS_DENY, NO_OFFSPRING],
};

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

/// One file of the key directory is replaced: new file, fsync, rename, fsync of the directory.
const KEY_DIRECTORY: &[Allowed] = &[
    always(libc::SYS_openat, "the keyslots and what replaces them; landlock says where"),
    always(libc::SYS_read, "the keyslots, and the TPM's responses"),
    always(libc::SYS_write, "the keyslots, the TPM's commands, log lines: to what is open, and nothing else can be opened"),
    always(libc::SYS_pwrite64, "how often keys were used, written in place into a file that is open"),
    always(libc::SYS_fsync, "durability"),
    always(libc::SYS_flock, "one program at a time changes the keys"),
    always(libc::SYS_renameat, "the keyslots are replaced whole or not at all"),
    always(libc::SYS_unlinkat, "what a crash left half written"),
    always(libc::SYS_geteuid, "only root has to give new files away"),
];

/// What the operator's work needs besides.
const DESK: &[Allowed] = &[
    always(libc::SYS_fchown, "root gives a file that it made to whom the key directory belongs to"),
    always(libc::SYS_pread64, "the number of the console's last start"),
    always(libc::SYS_clock_nanosleep, "another keeper at the console that is just ending is waited for"),
    always(libc::SYS_sched_getaffinity, "how many processors there are, when the TPM's address is taken apart"),
];

/// libtss2's way to a device: `tcti-device` polls, reads and writes one descriptor.
const TPM: &[Allowed] = &[
    always(libc::SYS_poll, "waiting for the TPM's response"),
    always(libc::SYS_ppoll, "as above, with a newer glibc"),
    always(libc::SYS_restart_syscall, "any wait goes on after the process was stopped (Ctrl-Z) or the machine slept"),
];

/// libtss2's way to a software TPM (`tcti-swtpm`).
const TCP: &[Allowed] = &[
    when(
        libc::SYS_socket,
        &[Is(0, bits(libc::AF_INET)), Bits(1, SOCKET_KIND, bits(libc::SOCK_STREAM))],
        "a connection a command; landlock says to where",
    ),
    always(libc::SYS_connect, "as above"),
];

/// The part of socket(2)'s second argument that is the kind; above are flags.
const SOCKET_KIND: u32 = 0xf;

/// As [`NO_FILES`], without the call that opens.
const SOME_FILES: &[Refused] =
    &[looked(libc::SYS_statx), looked(libc::SYS_newfstatat), looked(libc::SYS_readlink), looked(libc::SYS_access), NO_CLONE3];

const fn looked(call: c_long) -> Refused {
    refused(call, EACCES, "libraries look whether a file is there before they open it; to them none is")
}

const SOME_FILES_DENY: &[Denied] =
    &[Denied { act: Act::ReadPasswd, by: Denial::Landlock }, Denied { act: Act::CreateFile, by: Denial::Landlock }, dies(Act::Memfd)];

const NO_CONNECT_DENY: &[Denied] = &[dies(Act::Connect)];

const OTHER_PORTS_DENY: &[Denied] = &[Denied { act: Act::TcpConnect, by: Denial::Landlock }];

const NO_OFFSPRING: &[Denied] = &[dies(Act::Fork)];
