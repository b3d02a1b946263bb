//! What the kernel offers and what it lets this process use.
//! Trusts: the kernel's answers.
//! Touches: resource limits and memory locks of this process.
//! Next: `sandbox` applies them.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;

use nix::errno::Errno;
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
/// `ENOMEM` or `EPERM` when the limit on locked memory is too low.
pub fn lock_all_memory() -> io::Result<()> {
    lock(libc::MCL_CURRENT | libc::MCL_FUTURE)
}

/// Keeps what this process has mapped by now out of swap.
///
/// # Errors
/// As [`lock_all_memory`].
pub fn lock_present_memory() -> io::Result<()> {
    lock(libc::MCL_CURRENT)
}

fn lock(what: libc::c_int) -> io::Result<()> {
    // On fault: a page is locked once it holds something; what was never touched holds no key and needs no memory.
    // SAFETY: takes flags only and changes no content of memory.
    Ok(Errno::result(unsafe { libc::mlockall(what | libc::MCL_ONFAULT) }).map(drop)?)
}

/// Heap that [`reserve_memory`] sets aside, bytes.
const HEAP_RESERVE: usize = 4 << 20;
/// Stack that [`reserve_memory`] sets aside, bytes.
const STACK_RESERVE: usize = 2 << 20;

/// Grows heap and stack once, so that a small program needs no new mapping afterwards: what it computes with lies in memory that
/// can be locked now. Only while there is one thread.
pub fn reserve_memory() {
    // SAFETY: sets parameters of glibc's allocator; allowed at any time while there is one thread (mallopt(3)).
    unsafe {
        // Large blocks come from the heap too, and the heap is never given back.
        libc::mallopt(libc::M_MMAP_MAX, 0);
        libc::mallopt(libc::M_TRIM_THRESHOLD, libc::c_int::MAX);
    }
    drop(std::hint::black_box(vec![1_u8; HEAP_RESERVE]));
    touch_stack();
}

#[inline(never)]
fn touch_stack() {
    std::hint::black_box(&mut [1_u8; STACK_RESERVE]);
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
