//! Descriptors by number: closing strays, taking over an inherited one, asking for a length.
//! Trusts: the caller knows which numbers are in use; that is why these run at the start of a process.
//! Touches: the descriptor table of this process.
//! Next: `sandbox::process` and the fork server's children.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use nix::errno::Errno;

/// Closes every descriptor that is not in `keep`.
///
/// Only for the start of a process, before anything else in it owns a descriptor: an owner elsewhere would later
/// close a number that means something else.
///
/// # Errors
/// What the kernel says; `ENOSYS` before Linux 5.9.
pub fn close_all_but(keep: &[RawFd]) -> io::Result<()> {
    let mut keep: Vec<u32> = keep.iter().filter_map(|fd| u32::try_from(*fd).ok()).collect();
    keep.sort_unstable();
    keep.dedup();
    let mut first = 0;
    for kept in keep {
        if kept > first {
            close_range(first, kept - 1)?;
        }
        first = kept + 1;
    }
    close_range(first, u32::MAX)
}

fn close_range(first: u32, last: u32) -> io::Result<()> {
    // SAFETY: takes numbers only and touches no memory; the contract of `close_all_but` covers the owners.
    let result = unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) };
    Ok(Errno::result(result).map(drop)?)
}

/// Becomes the owner of a descriptor that this process was started with, and marks it close-on-exec.
///
/// To be called once for a number, at the start of a process.
///
/// # Errors
/// `EBADF` when the process was started without it.
pub fn take_inherited(fd: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: F_SETFD takes a number and a flag; a number that is not open is answered with EBADF.
    let result = unsafe { libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC) };
    Errno::result(result)?;
    // SAFETY: it is open, as fcntl has just told, and by the contract above nobody else in this process owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Makes `/dev/null` the standard input and output, so that no text for people can be read as data or mixed with it.
///
/// # Errors
/// When `/dev/null` cannot be opened or duplicated.
pub fn silence_standard_streams() -> io::Result<()> {
    let null = open_null()?;
    for standard in [libc::STDIN_FILENO, libc::STDOUT_FILENO] {
        // SAFETY: takes two numbers; the standard streams are owned by nobody and may be replaced at any time.
        let result = unsafe { libc::dup2(null.as_raw_fd(), standard) };
        Errno::result(result)?;
    }
    Ok(())
}

/// `/dev/null`, for [`silence_standard_error`] in a process that may open nothing any more.
///
/// # Errors
/// When it cannot be opened.
pub fn open_null() -> io::Result<File> {
    File::options().read(true).write(true).open("/dev/null")
}

/// Makes `null` the standard error, by `dup3`, which all processors have.
///
/// # Errors
/// What the kernel says.
pub fn silence_standard_error(null: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: takes numbers only; standard error is owned by nobody and may be replaced at any time.
    Ok(Errno::result(unsafe { libc::dup3(null.as_raw_fd(), libc::STDERR_FILENO, 0) }).map(drop)?)
}
