//! The PIN of the TPM's keyslot, from a file.
//! Trusts: whoever starts the keeper to name the file; systemd gives it as the credential `tpm-pin`.
//! Touches: that file, once, before confinement.
//! Next: `slots` makes of it what the TPM compares.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use crate::base::secret::SecretText;

/// Longest PIN, bytes.
pub const BYTES_MAX: usize = 256;

/// Reads the PIN: all of the file but one newline at its end.
///
/// # Errors
/// [`PinError`] names the file.
pub fn read(path: &Path) -> Result<SecretText, PinError> {
    let unreadable = |source| PinError::Read { path: path.to_owned(), source };
    let malformed = || PinError::Malformed(path.to_owned());
    let mut file = File::open(path).map_err(unreadable)?;
    // One more for the newline, one more to tell a file that is too long. Read in place: nothing of it stays in a buffer.
    let mut read = Zeroizing::new([0; BYTES_MAX + 2]);
    let mut length = 0;
    while let Some(rest) = read.get_mut(length..).filter(|rest| !rest.is_empty()) {
        match file.read(rest).map_err(unreadable)? {
            0 => break,
            more => length += more,
        }
    }
    let bytes = read.get(..length).unwrap_or_default();
    let text = std::str::from_utf8(bytes.strip_suffix(b"\n").unwrap_or(bytes)).map_err(|_| malformed())?;
    if text.is_empty() || text.len() > BYTES_MAX {
        return Err(malformed());
    }
    Ok(SecretText::new(text.to_owned()))
}

/// Why there is no PIN.
#[derive(Debug, thiserror::Error)]
pub enum PinError {
    /// The file.
    #[error("the PIN in {} cannot be read; check the credential tpm-pin or the file after --pin", .path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// What the kernel says.
        #[source]
        source: io::Error,
    },
    /// Empty, too long, or no text.
    #[error("{} holds no PIN: it must have 1 to {BYTES_MAX} bytes of UTF-8", .0.display())]
    Malformed(PathBuf),
}
