//! What the kernel offers and what it lets this process use.
//! Trusts: the kernel's answers.
//! Touches: resource limits and memory locks of this process.
//! Next: `sandbox` applies them.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;

use nix::errno::Errno;
use nix::sys::mman::{MlockAllFlags, mlockall};
use nix::sys::resource::{Resource, setrlimit};

/// Version of the kernel's landlock interface; 0 when it has none.
pub fn landlock_abi() -> i32 {
    const CREATE_RULESET_VERSION: u32 = 1;
    // SAFETY: with this flag, a null pointer and size 0 the kernel returns a number and touches no memory (landlock_create_ruleset(2)).
    let answer = unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, std::ptr::null::<u8>(), 0_usize, CREATE_RULESET_VERSION) };
    i32::try_from(answer).unwrap_or(0).max(0)
}

/// Keeps all memory of this process, now and later, out of swap.
///
/// # Errors
/// `ENOMEM` when the limit on locked memory is too low.
pub fn lock_all_memory() -> io::Result<()> {
    Ok(mlockall(MlockAllFlags::MCL_CURRENT | MlockAllFlags::MCL_FUTURE)?)
}

/// Sets the soft and the hard limit.
///
/// # Errors
/// `EPERM` when raising a hard limit without the right to.
pub fn set_limit(resource: Resource, soft: u64, hard: u64) -> io::Result<()> {
    Ok(setrlimit(resource, soft, hard)?)
}

/// Tells how much address space this process has, also after it may open no file any more.
#[derive(Debug)]
pub struct AddressSpace {
    statm: File,
    page: u64,
}

impl AddressSpace {
    /// To be opened before confinement.
    ///
    /// # Errors
    /// When `/proc` is not mounted.
    pub fn open() -> io::Result<Self> {
        // SAFETY: takes a number and touches no memory.
        let page = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
        let page = u64::try_from(page).map_err(|_| io::Error::from(Errno::EINVAL))?;
        // Resolved now: the link leads to the process that opens it, not to the one that reads it.
        let statm = File::open(fs::canonicalize("/proc/self")?.join("statm"))?;
        Ok(Self { statm, page })
    }

    /// Bytes of address space of the process that opened this.
    ///
    /// # Errors
    /// When the kernel's answer cannot be read.
    pub fn bytes(&self) -> io::Result<u64> {
        let mut text = [0; 128];
        let len = self.statm.read_at(&mut text, 0)?;
        let pages: Option<u64> = text
            .get(..len)
            .and_then(|read| std::str::from_utf8(read).ok())
            .and_then(|read| read.split(' ').next())
            .and_then(|pages| pages.parse().ok());
        pages.and_then(|pages| pages.checked_mul(self.page)).ok_or_else(|| io::ErrorKind::InvalidData.into())
    }
}
