//! Small secrets in the TPM's NV memory that can be destroyed for good, which a sealed blob on a disk cannot.
//! Trusts: the connection's storage root; values travel in sessions that are salted to it.
//! Touches: the TPM's NV memory, in a range of its own.
//! Next: `slots` keeps half of what opens a TPM slot there.

use super::error::{Step, TpmError};
use super::index::{is_anothers, is_empty, secret, with_secret};
use super::{Tpm, places};
use crate::base::secret::Secret;

/// Bytes of a half.
pub const HALF_BYTES: usize = 32;
/// What tells the places of one box from those of another in the same TPM: stands in the public area as a policy that nobody satisfies.
pub type Mark = [u8; 32];
/// First of our indices: in the range that the TPM's owner defines (TCG "Registry of reserved TPM 2.0 handles", 2.2).
const FIRST: u32 = 0x0181_5a00;
/// How many there may be.
const COUNT: u32 = 128;

/// The number of one of our indices.
pub const fn is_ours(index: u32) -> bool {
    is_half(index) || places::is_ours(index) || places::is_ours(index.saturating_sub(1))
}

const fn is_half(index: u32) -> bool {
    index >= FIRST && index < FIRST + COUNT
}

impl Tpm<'_> {
    /// An index that nothing is at.
    ///
    /// # Errors
    /// [`TpmError::NvFull`] when all of ours are taken.
    pub fn free_index(&mut self) -> Result<u32, TpmError> {
        let taken = self.taken(FIRST, COUNT)?;
        (FIRST..FIRST + COUNT).find(|index| !taken.contains(index)).ok_or(TpmError::NvFull)
    }

    /// Makes the index and writes `half` into it. Whoever reads it must know `auth`, the TPM's owner included.
    ///
    /// # Errors
    /// [`TpmError`]. The index may be there then.
    pub fn write_half(&mut self, index: u32, mark: &Mark, auth: &Secret<HALF_BYTES>, half: &Secret<HALF_BYTES>) -> Result<(), TpmError> {
        self.define(auth, with_secret(index, mark, HALF_BYTES))?;
        let handle = self.index(index)?.ok_or(TpmError::HalfGone)?;
        self.nv_write(handle, auth, half).map_err(TpmError::at(Step::NvWrite))
    }

    /// Reads a half.
    ///
    /// # Errors
    /// [`TpmError::HalfGone`] when there is none, or it is not the one that `auth` belongs to.
    pub fn read_half(&mut self, index: u32, auth: &Secret<HALF_BYTES>) -> Result<Secret<HALF_BYTES>, TpmError> {
        let handle = self.index(index)?.ok_or(TpmError::HalfGone)?;
        match self.nv_read(handle, auth, HALF_BYTES) {
            Ok(read) => secret(&read).ok_or(TpmError::HalfGone),
            Err(error) if is_anothers(error) || is_empty(error) => Err(TpmError::HalfGone),
            Err(error) => Err(TpmError::at(Step::NvRead)(error)),
        }
    }

    /// Destroys a half, or a place of the erasure epoch, if it is there and has this box's mark.
    ///
    /// # Errors
    /// [`TpmError`].
    pub fn destroy_half(&mut self, index: u32, mark: &Mark) -> Result<(), TpmError> {
        let Some(handle) = self.index(index)? else { return Ok(()) };
        let found = self.context.execute_without_session(|tpm| tpm.nv_read_public(handle)).map_err(TpmError::at(Step::NvUndefine))?.0;
        if !is_ours(index) || found.authorization_policy().value() != mark {
            return Ok(());
        }
        self.undefine(handle)
    }
}
