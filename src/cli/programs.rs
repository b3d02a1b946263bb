//! The other programs of Salama, and files that this one writes.
//! Trusts: the directory that this program was started from.
//! Touches: files that do not exist yet.
//! Next: `init`, `enrol` and `model`.

use std::fs::OpenOptions;
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

/// The key keeper, beside the running program.
///
/// # Errors
/// What the kernel says of `/proc/self/exe`.
pub fn keeper() -> io::Result<PathBuf> {
    Ok(std::env::current_exe()?.with_file_name("salama-keeper"))
}

/// The worker, beside the running program.
///
/// # Errors
/// What the kernel says of `/proc/self/exe`.
pub fn worker() -> io::Result<PathBuf> {
    Ok(std::env::current_exe()?.with_file_name("salama-worker"))
}

/// Writes a file that must not exist yet, with this mode from its first moment on.
///
/// # Errors
/// What the kernel says; `AlreadyExists` for a file or link of that name.
pub fn write_new(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}
