//! Forking, starting programs and ending, without surprises.
//! Trusts: `/proc/self/task` to tell how many threads there are.
//! Touches: processes.
//! Next: `sandbox` forks throw-away children, the fork server its children, `supervisor` starts programs.

use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command};
use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::signal::{SigHandler, Signal, signal};
use nix::unistd::{ForkResult, Pid};

/// How long a thread that has ended may still be listed.
const LISTED_MAX: Duration = Duration::from_secs(1);

/// Proof that this process had one thread when it was asked, and so may fork and be confined.
/// Whoever holds it starts no thread before the last fork; the policies of the processes that fork see to it.
#[derive(Debug)]
pub struct SingleThreaded(());

impl SingleThreaded {
    /// Counts the threads of this process. The kernel tells that a thread has ended shortly before it takes it off its list, so those
    /// that were joined are waited for.
    ///
    /// # Errors
    /// `Other` when there is more than one; what `/proc` says when it cannot be read.
    pub fn prove() -> io::Result<Self> {
        let until = Instant::now() + LISTED_MAX;
        loop {
            match fs::read_dir("/proc/self/task")?.count() {
                1 => return Ok(Self(())),
                threads if Instant::now() >= until => {
                    return Err(io::Error::other(format!("the process already has {threads} threads")));
                }
                _ => thread::yield_now(),
            }
        }
    }
}

/// Which side of a fork this is.
#[derive(Debug)]
pub enum Forked {
    /// The new process.
    Child,
    /// The old one, and the new one's id.
    Parent(Pid),
}

/// Splits the process in two.
///
/// # Errors
/// `EAGAIN` or `ENOMEM`.
pub fn fork(_: &SingleThreaded) -> io::Result<Forked> {
    // SAFETY: with one thread no lock can be held by a thread that the child lacks, so the child may do all that the parent may (fork(2)).
    match unsafe { nix::unistd::fork() }? {
        ForkResult::Child => Ok(Forked::Child),
        ForkResult::Parent { child } => Ok(Forked::Parent(child)),
    }
}

/// Ends the process at once, without destructors or exit handlers: what a forked child owes its parent.
pub fn exit_now(code: u8) -> ! {
    // SAFETY: always allowed; nothing of this process is used afterwards.
    unsafe { libc::_exit(libc::c_int::from(code)) }
}

/// Makes a process that a limit on file sizes stops fail in its write instead of dying.
///
/// # Errors
/// What the kernel says.
pub fn ignore_file_size_signal() -> io::Result<()> {
    // SAFETY: no handler of ours is installed; ignoring a signal runs no code.
    unsafe { signal(Signal::SIGXFSZ, SigHandler::SigIgn) }?;
    Ok(())
}

/// Starts `command` with `socket` as its descriptor `number` and nothing else but the standard streams.
///
/// # Errors
/// When the program cannot be started.
pub fn start_with_descriptor(mut command: Command, socket: OwnedFd, number: RawFd) -> io::Result<Child> {
    // `Command` opens a pipe of its own to learn of a failed exec. Holding a duplicate at the lowest free number from
    // `number` on keeps that pipe from being given `number`, where the dup2 below would destroy it.
    let reserve = duplicate_from(socket.as_fd().as_raw_fd(), number)?;
    let source = reserve.as_raw_fd();
    let install = move || {
        if source == number {
            // dup2 onto itself would leave close-on-exec on, and the program without its channel.
            // SAFETY: F_SETFD takes a number and a flag.
            Errno::result(unsafe { libc::fcntl(number, libc::F_SETFD, 0) })?;
        } else {
            // SAFETY: dup2 takes two numbers; in this forked process nothing else uses `number` before the exec.
            Errno::result(unsafe { libc::dup2(source, number) })?;
        }
        Ok(())
    };
    // SAFETY: the closure makes only async-signal-safe calls (fcntl, dup2) and allocates nothing.
    unsafe { command.pre_exec(install) };
    command.spawn()
}

/// A close-on-exec duplicate at the lowest free number that is at least `from`.
fn duplicate_from(fd: RawFd, from: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: takes numbers only.
    let duplicate = Errno::result(unsafe { libc::fcntl(fd, libc::F_DUPFD_CLOEXEC, from) })?;
    // SAFETY: the kernel has just made this descriptor for us alone.
    Ok(unsafe { OwnedFd::from_raw_fd(duplicate) })
}
