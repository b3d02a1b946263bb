//! The two places in the TPM's NV memory that hold the erasure epoch.
//! Trusts: the connection's storage root; values travel in sessions that are salted to it.
//! Touches: the TPM's NV memory, in a range of its own.
//! Next: `moving` reads and writes them while the daemon serves.

use super::Tpm;
use super::error::{Step, TpmError};
use super::index::{AUTH_BYTES, is_anothers, is_empty, secret, with_secret};
use super::nv::Mark;
use crate::base::secret::Secret;
use crate::keeper::epoch::PLACE_BYTES;

/// First of our indices, after those of the halves.
const FIRST: u32 = 0x0181_5a80;
/// As many boxes could share one TPM.
const PAIRS: u32 = 8;

/// Whether it is the first of a pair of ours.
pub const fn is_ours(first: u32) -> bool {
    first >= FIRST && first < FIRST + 2 * PAIRS && first.is_multiple_of(2)
}

impl Tpm<'_> {
    /// The first index of a pair that nothing is at.
    ///
    /// # Errors
    /// [`TpmError::NvFull`] when all are taken.
    pub fn free_places(&mut self) -> Result<u32, TpmError> {
        let taken = self.taken(FIRST, 2 * PAIRS)?;
        let mut firsts = (0..PAIRS).map(|pair| FIRST + 2 * pair);
        firsts.find(|first| !taken.contains(first) && !taken.contains(&(first + 1))).ok_or(TpmError::NvFull)
    }

    /// Makes a place, with nothing in it. Whoever reads or writes it must know `auth`, the TPM's owner included.
    ///
    /// # Errors
    /// [`TpmError`].
    pub fn make_place(&mut self, index: u32, mark: &Mark, auth: &Secret<AUTH_BYTES>) -> Result<(), TpmError> {
        self.define(auth, with_secret(index, mark, PLACE_BYTES))
    }

    /// Writes a place, and reads it back.
    ///
    /// # Errors
    /// [`TpmError`].
    pub fn write_place(&mut self, index: u32, auth: &Secret<AUTH_BYTES>, value: &Secret<PLACE_BYTES>) -> Result<(), TpmError> {
        let handle = self.index(index)?.ok_or(TpmError::EpochGone)?;
        let written = self.nv_write(handle, auth, value).map_err(refusal(Step::NvWrite));
        self.close(handle).map_err(TpmError::at(Step::NvWrite))?;
        written?;
        match self.read_place(index, auth)? {
            Some(read) if read.expose() == value.expose() => Ok(()),
            _ => Err(TpmError::NotWritten),
        }
    }

    /// Reads a place; nothing where nothing was ever written.
    ///
    /// # Errors
    /// [`TpmError::EpochGone`] when it is not there, or not the one that `auth` belongs to.
    pub fn read_place(&mut self, index: u32, auth: &Secret<AUTH_BYTES>) -> Result<Option<Secret<PLACE_BYTES>>, TpmError> {
        let handle = self.index(index)?.ok_or(TpmError::EpochGone)?;
        let read = self.nv_read(handle, auth, PLACE_BYTES);
        self.close(handle).map_err(TpmError::at(Step::NvRead))?;
        match read {
            Ok(read) => secret(&read).map(Some).ok_or(TpmError::EpochGone),
            Err(error) if is_empty(error) => Ok(None),
            Err(error) => Err(refusal(Step::NvRead)(error)),
        }
    }
}

fn refusal(step: Step) -> impl Fn(tss_esapi::Error) -> TpmError {
    move |error| if is_anothers(error) { TpmError::EpochGone } else { TpmError::at(step)(error) }
}
