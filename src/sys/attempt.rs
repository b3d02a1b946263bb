//! Acts that a confined process must not be able to do, each as one bare system call.
//! Trusts: nothing; run only in throw-away children of the self-check.
//! Touches: as little as the act allows when it is not denied.
//! Next: `sandbox::self_check` judges the outcome.

use std::ffi::CString;
use std::ptr;

use libc::{c_int, c_long};
use nix::errno::Errno;

use crate::base::ids::CallId;

const NOWHERE: *const u8 = ptr::null();

/// One act. What counts is whether the kernel lets the call in: arguments are real where they decide that, else harmless.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Act {
    /// `openat(O_RDONLY)` of `/etc/passwd`, which anyone may read.
    ReadPasswd,
    /// `openat(O_CREAT | O_EXCL)` in `/tmp`, where anyone may.
    CreateFile,
    /// `openat2`, the newer way to open.
    Openat2,
    /// An IPv4 stream socket.
    TcpSocket,
    /// An IPv4 datagram socket, which landlock does not cover.
    UdpSocket,
    /// An IPv6 stream socket.
    Tcp6Socket,
    /// A netlink socket, door to much kernel code.
    NetlinkSocket,
    /// A packet socket.
    PacketSocket,
    /// A Unix stream socket.
    UnixSocket,
    /// A Unix datagram socket.
    UnixDatagramSocket,
    /// `sendto(MSG_FASTOPEN)`, which connects.
    SendtoFastOpen,
    /// `sendmsg(MSG_FASTOPEN)`, which connects.
    SendmsgFastOpen,
    /// `connect` on the channel's descriptor.
    Connect,
    /// A TCP connection to this machine's port 1, which nobody listens on and nobody is granted.
    TcpConnect,
    /// `bind`.
    Bind,
    /// `execve`.
    Execve,
    /// `execveat`.
    Execveat,
    /// `fork` as glibc does it.
    Fork,
    /// `clone` into new namespaces.
    CloneNamespaces,
    /// `clone3`, whose flags no filter can read.
    Clone3,
    /// `unshare` of the user namespace.
    Unshare,
    /// `setns`.
    Setns,
    /// `ptrace(PTRACE_TRACEME)`.
    Ptrace,
    /// Reading another process' memory.
    ProcessVmReadv,
    /// Taking a descriptor out of another process.
    PidfdGetfd,
    /// `kill(parent, 0)`.
    KillParent,
    /// `tgkill` of the parent.
    TgkillParent,
    /// `mount`.
    Mount,
    /// `chroot`.
    Chroot,
    /// `mmap(PROT_WRITE | PROT_EXEC)`.
    MapExecutable,
    /// `mprotect(PROT_EXEC)` of own memory.
    MakeExecutable,
    /// `memfd_create`, a file to execute from.
    Memfd,
    /// `chmod`, which landlock does not cover.
    Chmod,
    /// `fchmodat`.
    Fchmodat,
    /// `chown`.
    Chown,
    /// `utimensat`.
    Utimensat,
    /// `symlinkat`.
    Symlink,
    /// `io_uring_setup`: system calls that no filter sees.
    IoUring,
    /// `bpf`.
    Bpf,
    /// `userfaultfd`.
    Userfaultfd,
    /// `perf_event_open`.
    PerfEvent,
    /// `keyctl`.
    Keyctl,
    /// `add_key`.
    AddKey,
    /// `setresuid(0, 0, 0)`.
    BecomeRoot,
    /// `capset`.
    Capset,
    /// `prctl(PR_SET_DUMPABLE, 1)`.
    BecomeDumpable,
    /// `personality`.
    Personality,
    /// `seccomp`, to learn of or add filters.
    Seccomp,
    /// `init_module`.
    InitModule,
    /// `reboot` with wrong magic numbers.
    Reboot,
    /// `ioctl(TIOCSTI)`: typing into a terminal.
    TypeIntoTerminal,
}

/// An act with all that must be known before confinement, so that it then is exactly one system call.
#[derive(Clone, Copy, Debug)]
pub struct Attempt {
    act: Act,
    parent: c_long,
    /// Names a file as nobody can foresee: one that is there already would look like a hole, and the daemon would not start.
    file: Option<CallId>,
}

impl Attempt {
    /// Gets ready, against this process' parent; before confinement.
    pub fn new(act: Act) -> Self {
        // SAFETY: always succeeds and touches no memory (getppid(2)).
        Self::against(act, unsafe { libc::getppid() })
    }

    /// Gets ready, where the act needs one, against this process.
    pub fn against(act: Act, process: libc::pid_t) -> Self {
        let file = if act == Act::CreateFile { CallId::random().ok() } else { None };
        Self { act, parent: c_long::from(process), file }
    }

    /// Does it.
    ///
    /// # Errors
    /// The kernel's answer when the call was let in, or answered by a filter, and failed.
    pub fn perform(self) -> Result<(), Errno> {
        match self.act {
            Act::ReadPasswd | Act::Openat2 | Act::Chmod | Act::Fchmodat | Act::Chown | Act::Utimensat | Act::Symlink => self.on_files(),
            Act::CreateFile => create_file(self.file.ok_or(Errno::EINVAL)?),
            Act::TcpSocket => socket(libc::AF_INET, libc::SOCK_STREAM),
            Act::UdpSocket => socket(libc::AF_INET, libc::SOCK_DGRAM),
            Act::Tcp6Socket => socket(libc::AF_INET6, libc::SOCK_STREAM),
            Act::NetlinkSocket => socket(libc::AF_NETLINK, libc::SOCK_RAW),
            Act::PacketSocket => socket(libc::AF_PACKET, libc::SOCK_RAW),
            Act::UnixSocket => socket(libc::AF_UNIX, libc::SOCK_STREAM),
            Act::UnixDatagramSocket => socket(libc::AF_UNIX, libc::SOCK_DGRAM),
            Act::TcpConnect => tcp_connect(),
            Act::Fork => fork_and_end(),
            Act::MapExecutable => map(libc::PROT_READ | libc::PROT_WRITE | libc::PROT_EXEC).map(drop),
            Act::MakeExecutable => make_executable(),
            _ => self.with_harmless_arguments(),
        }
    }

    fn on_files(self) -> Result<(), Errno> {
        let passwd = c"/etc/passwd".as_ptr();
        let here = libc::AT_FDCWD;
        // SAFETY: all paths are nul-terminated constants; the kernel writes to none of the pointers.
        let result = unsafe {
            match self.act {
                Act::ReadPasswd => libc::syscall(libc::SYS_openat, here, passwd, libc::O_RDONLY, 0),
                Act::Openat2 => libc::syscall(libc::SYS_openat2, here, passwd, NOWHERE, 0),
                Act::Chmod => libc::syscall(libc::SYS_chmod, passwd, 0o644),
                Act::Fchmodat => libc::syscall(libc::SYS_fchmodat, here, passwd, 0o644),
                Act::Chown => libc::syscall(libc::SYS_fchownat, here, passwd, -1, -1, 0),
                Act::Utimensat => libc::syscall(libc::SYS_utimensat, here, passwd, NOWHERE, 0),
                _ => libc::syscall(libc::SYS_symlinkat, NOWHERE, here, NOWHERE),
            }
        };
        Errno::result(result).map(drop)
    }

    fn with_harmless_arguments(self) -> Result<(), Errno> {
        let Self { act, parent, .. } = self;
        let number = act.call();
        // SAFETY: every pointer is null, which the kernel answers with EFAULT, and every number below is either a query, out of
        // range, or has no lasting effect on a process that ends right after.
        let result = unsafe {
            match act {
                Act::Connect | Act::Bind => libc::syscall(number, 3, NOWHERE, 0),
                // No descriptor has this number: a call that is let in is answered with EBADF.
                Act::SendtoFastOpen => libc::syscall(number, -1, NOWHERE, 0, c_long::from(libc::MSG_FASTOPEN), NOWHERE, 0),
                Act::SendmsgFastOpen => libc::syscall(number, -1, NOWHERE, c_long::from(libc::MSG_FASTOPEN)),
                Act::CloneNamespaces => libc::syscall(number, c_long::from(libc::CLONE_NEWUSER | libc::CLONE_THREAD), 0, 0, 0, 0),
                Act::Unshare => libc::syscall(number, c_long::from(libc::CLONE_NEWUSER)),
                Act::Ptrace => libc::syscall(number, c_long::from(libc::PTRACE_TRACEME), 0, 0, 0),
                Act::KillParent => libc::syscall(number, parent, 0),
                Act::TgkillParent => libc::syscall(number, parent, parent, 0),
                Act::BecomeDumpable => libc::syscall(number, c_long::from(libc::PR_SET_DUMPABLE), 1, 0, 0, 0),
                Act::Personality => libc::syscall(number, 0xffff_ffff_u32),
                Act::Seccomp => libc::syscall(number, libc::SECCOMP_GET_ACTION_AVAIL, 0, NOWHERE),
                Act::TypeIntoTerminal => libc::syscall(number, 2, libc::TIOCSTI, NOWHERE),
                _ => libc::syscall(number, NOWHERE, NOWHERE, NOWHERE, NOWHERE, NOWHERE, NOWHERE),
            }
        };
        Errno::result(result).map(drop)
    }
}

impl Act {
    /// The system call that decides.
    pub const fn call(self) -> c_long {
        match self {
            Self::ReadPasswd | Self::CreateFile => libc::SYS_openat,
            Self::Openat2 => libc::SYS_openat2,
            Self::TcpSocket
            | Self::UdpSocket
            | Self::Tcp6Socket
            | Self::NetlinkSocket
            | Self::PacketSocket
            | Self::UnixSocket
            | Self::UnixDatagramSocket => libc::SYS_socket,
            Self::SendtoFastOpen => libc::SYS_sendto,
            Self::SendmsgFastOpen => libc::SYS_sendmsg,
            Self::Connect | Self::TcpConnect => libc::SYS_connect,
            Self::Bind => libc::SYS_bind,
            Self::Execve => libc::SYS_execve,
            Self::Execveat => libc::SYS_execveat,
            Self::Fork | Self::CloneNamespaces => libc::SYS_clone,
            Self::Clone3 => libc::SYS_clone3,
            Self::Unshare => libc::SYS_unshare,
            Self::Setns => libc::SYS_setns,
            Self::Ptrace => libc::SYS_ptrace,
            Self::ProcessVmReadv => libc::SYS_process_vm_readv,
            Self::PidfdGetfd => libc::SYS_pidfd_getfd,
            Self::KillParent => libc::SYS_kill,
            Self::TgkillParent => libc::SYS_tgkill,
            Self::Mount => libc::SYS_mount,
            Self::Chroot => libc::SYS_chroot,
            Self::MapExecutable => libc::SYS_mmap,
            Self::MakeExecutable => libc::SYS_mprotect,
            Self::Memfd => libc::SYS_memfd_create,
            Self::Chmod => libc::SYS_chmod,
            Self::Fchmodat => libc::SYS_fchmodat,
            Self::Chown => libc::SYS_fchownat,
            Self::Utimensat => libc::SYS_utimensat,
            Self::Symlink => libc::SYS_symlinkat,
            Self::IoUring => libc::SYS_io_uring_setup,
            Self::Bpf => libc::SYS_bpf,
            Self::Userfaultfd => libc::SYS_userfaultfd,
            Self::PerfEvent => libc::SYS_perf_event_open,
            Self::Keyctl => libc::SYS_keyctl,
            Self::AddKey => libc::SYS_add_key,
            Self::BecomeRoot => libc::SYS_setresuid,
            Self::Capset => libc::SYS_capset,
            Self::BecomeDumpable => libc::SYS_prctl,
            Self::Personality => libc::SYS_personality,
            Self::Seccomp => libc::SYS_seccomp,
            Self::InitModule => libc::SYS_init_module,
            Self::Reboot => libc::SYS_reboot,
            Self::TypeIntoTerminal => libc::SYS_ioctl,
        }
    }
}

fn create_file(name: CallId) -> Result<(), Errno> {
    let path = CString::new(format!("/tmp/salama-self-check-{name}")).map_err(|_| Errno::EINVAL)?;
    let flags = libc::O_RDWR | libc::O_CREAT | libc::O_EXCL;
    // SAFETY: the path is nul-terminated and outlives both calls.
    let result = unsafe { libc::syscall(libc::SYS_openat, libc::AT_FDCWD, path.as_ptr(), flags, 0o600) };
    Errno::result(result)?;
    // SAFETY: as above. It was created after all: the caller reports that, and the file must not stay.
    unsafe { libc::unlink(path.as_ptr()) };
    Ok(())
}

fn socket(family: c_int, kind: c_int) -> Result<(), Errno> {
    // SAFETY: takes numbers only; the descriptor is left to the end of this throw-away process.
    Errno::result(unsafe { libc::socket(family, kind, 0) }).map(drop)
}

fn tcp_connect() -> Result<(), Errno> {
    // SAFETY: as in `socket`.
    let socket = Errno::result(unsafe { libc::socket(libc::AF_INET, libc::SOCK_STREAM, 0) })?;
    let address = libc::sockaddr_in {
        sin_family: libc::sa_family_t::try_from(libc::AF_INET).map_err(|_| Errno::EINVAL)?,
        sin_port: 1_u16.to_be(),
        sin_addr: libc::in_addr { s_addr: u32::from_ne_bytes([127, 0, 0, 1]) },
        sin_zero: [0; 8],
    };
    let length = libc::socklen_t::try_from(size_of_val(&address)).map_err(|_| Errno::EINVAL)?;
    // SAFETY: the address is a whole `sockaddr_in` that outlives the call, and its length is given.
    Errno::result(unsafe { libc::connect(socket, ptr::from_ref(&address).cast(), length) }).map(drop)
}

fn fork_and_end() -> Result<(), Errno> {
    // SAFETY: the self-check runs single-threaded, and a child that comes into being ends at once.
    match Errno::result(unsafe { libc::fork() })? {
        // SAFETY: ends the grandchild.
        0 => unsafe { libc::_exit(0) },
        _ => Ok(()),
    }
}

fn map(protection: c_int) -> Result<*mut libc::c_void, Errno> {
    // SAFETY: an anonymous private mapping at an address that the kernel picks disturbs nothing; nothing is run from it.
    let address = unsafe { libc::mmap(ptr::null_mut(), 4096, protection, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS, -1, 0) };
    if address == libc::MAP_FAILED { Err(Errno::last()) } else { Ok(address) }
}

fn make_executable() -> Result<(), Errno> {
    let page = map(libc::PROT_READ | libc::PROT_WRITE)?;
    // SAFETY: the page was mapped just above and is used by nobody.
    Errno::result(unsafe { libc::mprotect(page, 4096, libc::PROT_READ | libc::PROT_EXEC) }).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_of_a_self_check_has_a_name_that_nobody_can_take_before() {
        let names = [Attempt::new(Act::CreateFile), Attempt::new(Act::CreateFile)].map(|attempt| attempt.file.unwrap());
        assert_ne!(names[0], names[1]);
    }
}
