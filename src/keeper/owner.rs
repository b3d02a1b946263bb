//! The password of the TPM's owner hierarchy, where a machine has one.
//! Trusts: whoever starts the keeper to name the file; systemd gives it as the credential `tpm-owner-auth`.
//! Touches: that file, once, before confinement.
//! Next: `tpm` proves its knowledge to the TPM when it makes the storage root key.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

/// Longest password, bytes: a TPM takes one as long as its longest digest (TCG TPM 2.0 Part 1, 19.6.4.3).
const BYTES_MAX: usize = 64;

/// The password: wiped on drop, neither `Clone` nor printable.
pub struct OwnerAuth {
    bytes: Zeroizing<[u8; BYTES_MAX]>,
    length: usize,
}

impl OwnerAuth {
    /// Reads the password: all bytes of the file but one newline at its end.
    ///
    /// # Errors
    /// [`OwnerAuthError`] names the file.
    pub fn read(path: &Path) -> Result<Self, OwnerAuthError> {
        let unreadable = |source| OwnerAuthError::Read { path: path.to_owned(), source };
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
        let text = read.get(..length).unwrap_or_default();
        let password = text.strip_suffix(b"\n").unwrap_or(text);
        let mut bytes = Zeroizing::new([0; BYTES_MAX]);
        match bytes.get_mut(..password.len()) {
            Some(to) if !password.is_empty() => to.copy_from_slice(password),
            _ => return Err(OwnerAuthError::Length(path.to_owned())),
        }
        Ok(Self { bytes, length: password.len() })
    }

    /// The bytes, for the one call that needs them.
    pub fn expose(&self) -> &[u8] {
        self.bytes.get(..self.length).unwrap_or_default()
    }
}

/// Why there is no password.
#[derive(Debug, thiserror::Error)]
pub enum OwnerAuthError {
    /// The file.
    #[error("the TPM owner's password in {} cannot be read; check the credential tpm-owner-auth or the file after --owner-auth", .path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// What the kernel says.
        #[source]
        source: io::Error,
    },
    /// Empty or too long.
    #[error("{} holds no password for a TPM: it must have 1 to {BYTES_MAX} bytes", .0.display())]
    Length(PathBuf),
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &[u8]) -> Result<Vec<u8>, OwnerAuthError> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        OwnerAuth::read(file.path()).map(|auth| auth.expose().to_vec())
    }

    #[test]
    fn one_newline_at_the_end_is_not_part_of_the_password() {
        assert_eq!(read(b"secret\n").unwrap(), b"secret");
        assert_eq!(read(b"secret").unwrap(), b"secret");
        assert_eq!(read(b"secret\n\n").unwrap(), b"secret\n");
        assert_eq!(read(&[[b'x'; 64].as_slice(), b"\n"].concat()).unwrap(), [b'x'; 64]);
    }

    #[test]
    fn a_password_that_no_tpm_takes_is_refused() {
        for text in [b"".as_slice(), b"\n", &[b'x'; 65], &[b'x'; 66], &[b'x'; 5000]] {
            assert!(matches!(read(text), Err(OwnerAuthError::Length(_))));
        }
    }
}
