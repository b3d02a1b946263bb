//! Lines that several tables share.
//! Trusts: nothing.
//! Touches: nothing.
//! Next: the tables name them.

use libc::{EACCES, ENOSYS};

use super::Condition::{Bits, Is};
use super::{Allowed, Denied, Refused, always, bits, dies, fails, refused, when};
use crate::sys::attempt::Act;

const NOT_EXECUTABLE: &[super::Condition] = &[Bits(2, bits(libc::PROT_EXEC), 0)];
const ON_STDERR: &[super::Condition] = &[Is(0, bits(libc::STDERR_FILENO))];

/// The flag by which sending is connecting (TCP Fast Open, tcp(7)). Landlock looks at `connect` alone.
pub const NO_CONNECT: u32 = bits(libc::MSG_FASTOPEN);

/// What glibc makes a thread with: pthread_create's flags, which glibc has not changed since 2.3.
const THREAD: u32 = bits(
    libc::CLONE_VM
        | libc::CLONE_FS
        | libc::CLONE_FILES
        | libc::CLONE_SYSVSEM
        | libc::CLONE_SIGHAND
        | libc::CLONE_THREAD
        | libc::CLONE_SETTLS
        | libc::CLONE_PARENT_SETTID
        | libc::CLONE_CHILD_CLEARTID,
);

/// Memory, time, randomness, locks, ending: what any program needs to compute.
pub const COMPUTE: &[Allowed] = &[
    when(libc::SYS_mmap, NOT_EXECUTABLE, "heap and thread stacks; never executable"),
    when(libc::SYS_mprotect, NOT_EXECUTABLE, "guard pages and heap growth; never executable"),
    always(libc::SYS_munmap, "giving memory back"),
    always(libc::SYS_mremap, "growing large vectors in place"),
    always(libc::SYS_brk, "heap"),
    always(libc::SYS_madvise, "giving pages of ended threads back"),
    always(libc::SYS_futex, "locks and condition variables"),
    always(libc::SYS_getrandom, "keys of hash maps, nonces"),
    always(libc::SYS_clock_gettime, "time, where the vDSO cannot answer"),
    always(libc::SYS_clock_nanosleep, "waiting for a short time"),
    always(libc::SYS_restart_syscall, "a wait that was interrupted goes on"),
    always(libc::SYS_sched_yield, "spinning locks give way"),
    always(libc::SYS_rt_sigprocmask, "glibc masks signals around thread start and abort"),
    always(libc::SYS_rt_sigaction, "glibc installs its own signal when the first thread starts"),
    always(libc::SYS_rt_sigreturn, "return from a signal handler"),
    always(libc::SYS_sigaltstack, "stack overflow is noticed on a stack of its own"),
    always(libc::SYS_getpid, "log lines"),
    always(libc::SYS_gettid, "log lines, and glibc's thread bookkeeping"),
    when(libc::SYS_fcntl, &[Is(1, bits(libc::F_GETFD))], "builds with debug assertions look before they close"),
    always(libc::SYS_close, "descriptors are closed"),
    always(libc::SYS_exit, "end of a thread"),
    always(libc::SYS_exit_group, "end of the process"),
];

/// Starting threads, and nothing else that `clone` can do.
pub const THREADS: &[Allowed] = &[
    when(libc::SYS_clone, &[Is(0, THREAD)], "pthread_create; exactly its flags, so neither processes nor namespaces"),
    always(libc::SYS_set_robust_list, "each new thread registers its locks"),
    always(libc::SYS_rseq, "each new thread registers its restartable sequences"),
    always(libc::SYS_sched_getaffinity, "how many processors there are"),
    when(libc::SYS_prctl, &[Is(0, bits(libc::PR_SET_NAME))], "threads have names"),
];

/// Talking on the channel that the process was started with, and on no other socket: none can be made.
pub const CHANNEL: &[Allowed] = &[
    always(libc::SYS_recvmsg, "requests on the channel"),
    when(libc::SYS_sendmsg, &[Bits(2, NO_CONNECT, 0)], "answers on the channel; never a connection"),
];

/// Complaints of a process that has nothing else to write to. A child's go to /dev/null: they need not kill it.
pub const STDERR: &[Allowed] = &[when(libc::SYS_write, ON_STDERR, "last words and log lines on standard error")];

/// Threads and processes are made by `clone`, whose flags a filter sees.
pub const NO_CLONE3: Refused =
    refused(libc::SYS_clone3, ENOSYS, "its flags are in memory, where no filter can read them; glibc then falls back to clone");

/// For processes that open nothing at all.
pub const NO_FILES: &[Refused] = &[
    refused(libc::SYS_openat, EACCES, "glibc looks into /proc and /sys on its own when heaps and threads grow; it does without"),
    refused(libc::SYS_statx, EACCES, "libraries look whether a file is there before they open it; to them none is"),
    refused(libc::SYS_newfstatat, EACCES, "as above, with glibc's stat and fstat"),
    refused(libc::SYS_readlink, EACCES, "as above, with canonical paths"),
    refused(libc::SYS_access, EACCES, "as above, with access"),
    NO_CLONE3,
];

/// What no process of ours may do, after it is confined.
pub const ALL_DENY: &[Denied] = &[
    dies(Act::Openat2),
    dies(Act::UdpSocket),
    dies(Act::Tcp6Socket),
    dies(Act::NetlinkSocket),
    dies(Act::PacketSocket),
    dies(Act::UnixSocket),
    dies(Act::UnixDatagramSocket),
    dies(Act::Bind),
    dies(Act::SendtoFastOpen),
    dies(Act::SendmsgFastOpen),
    dies(Act::Execve),
    dies(Act::Execveat),
    dies(Act::CloneNamespaces),
    fails(Act::Clone3, ENOSYS),
    dies(Act::Unshare),
    dies(Act::Setns),
    dies(Act::Ptrace),
    dies(Act::ProcessVmReadv),
    dies(Act::PidfdGetfd),
    dies(Act::KillParent),
    dies(Act::TgkillParent),
    dies(Act::Mount),
    dies(Act::Chroot),
    dies(Act::MapExecutable),
    dies(Act::MakeExecutable),
    dies(Act::Chmod),
    dies(Act::Fchmodat),
    dies(Act::Chown),
    dies(Act::Utimensat),
    dies(Act::Symlink),
    dies(Act::IoUring),
    dies(Act::Bpf),
    dies(Act::Userfaultfd),
    dies(Act::PerfEvent),
    dies(Act::Keyctl),
    dies(Act::AddKey),
    dies(Act::BecomeRoot),
    dies(Act::Capset),
    dies(Act::BecomeDumpable),
    dies(Act::Personality),
    dies(Act::Seccomp),
    dies(Act::InitModule),
    dies(Act::Reboot),
    dies(Act::TypeIntoTerminal),
];

/// What all may not do but the keeper of a software TPM, which is reached by TCP.
pub const NO_TCP_DENY: &[Denied] = &[dies(Act::TcpSocket)];

/// What those that open nothing may not do besides.
pub const NO_FILES_DENY: &[Denied] =
    &[fails(Act::ReadPasswd, EACCES), fails(Act::CreateFile, EACCES), dies(Act::Connect), dies(Act::Memfd)];
