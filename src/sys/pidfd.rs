//! Processes by descriptor: no process id is ever reused under our hands.
//! Trusts: the kernel.
//! Touches: child processes of this one.
//! Next: the fork server watches its children by it, `supervisor` the two programs that it started.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use nix::errno::Errno;
use nix::sys::signal::Signal;
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};
use nix::unistd::Pid;

/// A child process.
#[derive(Debug)]
pub struct PidFd(OwnedFd);

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// By itself with this code.
    Code(i32),
    /// By this signal.
    Signal(i32),
}

/// Stands for any real-time signal.
const UNNAMED_SIGNAL: i32 = 32;

impl PidFd {
    /// Of a child that has not been waited for; close-on-exec.
    ///
    /// # Errors
    /// What the kernel says; `EMFILE` for too many descriptors.
    pub fn open(child: Pid) -> io::Result<Self> {
        // SAFETY: takes two numbers and touches no memory; pidfd_open(2) sets close-on-exec itself.
        let fd = Errno::result(unsafe { libc::syscall(libc::SYS_pidfd_open, child.as_raw(), 0) })?;
        let fd = RawFd::try_from(fd).map_err(|_| io::Error::from(Errno::EBADF))?;
        // SAFETY: the kernel has just made this descriptor for us alone.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    /// Sends a signal. A process that has ended is no error.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn signal(&self, signal: Signal) -> io::Result<()> {
        let number = number_of(signal);
        // SAFETY: a null siginfo asks the kernel to fill in what kill(2) would; no memory is touched.
        let result = unsafe { libc::syscall(libc::SYS_pidfd_send_signal, self.0.as_raw_fd(), number, std::ptr::null::<u8>(), 0) };
        match Errno::result(result) {
            Ok(_) | Err(Errno::ESRCH) => Ok(()),
            Err(errno) => Err(errno.into()),
        }
    }

    /// Waits until the process has ended, and reaps it.
    ///
    /// # Errors
    /// `ECHILD` when it was reaped before.
    pub fn wait(&self) -> io::Result<Ended> {
        loop {
            match self.wait_with(WaitPidFlag::WEXITED) {
                Ok(Some(ended)) => return Ok(ended),
                Ok(None) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Reaps the process if it has ended.
    ///
    /// # Errors
    /// `ECHILD` when it was reaped before.
    pub fn try_wait(&self) -> io::Result<Option<Ended>> {
        self.wait_with(WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG)
    }

    fn wait_with(&self, flags: WaitPidFlag) -> io::Result<Option<Ended>> {
        match waitid(Id::PIDFd(self.0.as_fd()), flags) {
            Ok(WaitStatus::Exited(_, code)) => Ok(Some(Ended::Code(code))),
            Ok(WaitStatus::Signaled(_, signal, _)) => Ok(Some(Ended::Signal(number_of(signal)))),
            Ok(_) => Ok(None),
            // nix has no name for real-time signals and says EINVAL after the process has been reaped.
            Err(Errno::EINVAL) => Ok(Some(Ended::Signal(UNNAMED_SIGNAL))),
            Err(errno) => Err(errno.into()),
        }
    }
}

#[expect(clippy::as_conversions, reason = "nix's Signal is a C-like enum of the signal numbers and offers no other way")]
const fn number_of(signal: Signal) -> i32 {
    signal as i32
}

impl AsFd for PidFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
