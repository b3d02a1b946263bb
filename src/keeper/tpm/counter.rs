//! A number in the TPM's NV memory that only goes up. No copy of any disk takes it back.
//! Trusts: the connection's storage root; the number's password travels in sessions that are salted to it.
//! Touches: one NV index of its own.
//! Next: `keeper::rollback` tells the core of it and counts when the core asks.
//!
//! A counter that is made anew begins above all that any counter of this TPM has ever had (TPM 2.0 Part 3, TPM2_NV_Increment): whoever
//! may make and remove indices, the TPM's owner, cannot take it back either.

use tss_esapi::Result as TssResult;
use tss_esapi::attributes::NvIndexAttributesBuilder;
use tss_esapi::constants::NvIndexType;
use tss_esapi::handles::{NvIndexHandle, NvIndexTpmHandle};
use tss_esapi::interface_types::algorithm::HashingAlgorithm;
use tss_esapi::structures::NvPublic;

use super::Tpm;
use super::error::{Step, TpmError};
use super::index::{is_anothers, is_empty};
use crate::base::secret::Secret;
use crate::keeper::hierarchy::KEY_BYTES;

/// Beside the halves (see `nv`), which end before it.
const INDEX: u32 = 0x0181_5a90;

impl Tpm<'_> {
    /// How far the counter is.
    ///
    /// # Errors
    /// [`TpmError`]: [`TpmError::CounterGone`] where there is none that has counted, [`TpmError::ForeignCounter`] for one of another box.
    pub fn counter(&mut self, password: &Secret<KEY_BYTES>) -> Result<u64, TpmError> {
        let handle = self.index(INDEX)?.ok_or(TpmError::CounterGone)?;
        let read = self.read_counter(handle, password);
        self.close(handle).map_err(TpmError::at(Step::NvRead))?;
        read.map_err(|error| match error {
            empty if is_empty(empty) => TpmError::CounterGone,
            anothers if is_anothers(anothers) => TpmError::ForeignCounter,
            error => TpmError::at(Step::NvRead)(error),
        })
    }

    /// How far the counter is; made, and counted up once so that it is anywhere, where there is none. One of another box that was set up on
    /// this TPM gives way. Only for who has set the box up or has its paper: a daemon that found none would be told that nothing is older.
    ///
    /// # Errors
    /// [`TpmError`]; it needs the TPM's owner.
    pub fn make_counter(&mut self, password: &Secret<KEY_BYTES>) -> Result<u64, TpmError> {
        let found = self.counter(password);
        if !matches!(found, Err(TpmError::CounterGone | TpmError::ForeignCounter)) {
            return found;
        }
        let there = self.index(INDEX)?;
        if let Some(handle) = there.filter(|_| matches!(found, Err(TpmError::ForeignCounter))) {
            self.undefine(handle)?;
            self.define(password, public())?;
        } else if there.is_none() {
            self.define(password, public())?;
        }
        self.count(password)
    }

    /// Counts one, and says to what.
    ///
    /// # Errors
    /// [`TpmError`]. It may have counted then.
    pub fn count(&mut self, password: &Secret<KEY_BYTES>) -> Result<u64, TpmError> {
        let handle = self.index(INDEX)?.ok_or(TpmError::CounterGone)?;
        let counted = self.nv_increment(handle, password).map_err(TpmError::at(Step::NvCount));
        let read = counted.and_then(|()| self.read_counter(handle, password).map_err(TpmError::at(Step::NvRead)));
        // A daemon counts for years.
        self.close(handle).map_err(TpmError::at(Step::NvRead))?;
        read
    }

    fn read_counter(&mut self, handle: NvIndexHandle, password: &Secret<KEY_BYTES>) -> TssResult<u64> {
        let read = self.nv_read(handle, password, size_of::<u64>())?;
        let wrong = tss_esapi::Error::WrapperError(tss_esapi::WrapperErrorKind::WrongValueFromTpm);
        Ok(u64::from_be_bytes(read.value().try_into().map_err(|_| wrong)?))
    }
}

fn public() -> TssResult<NvPublic> {
    let attributes = NvIndexAttributesBuilder::new()
        .with_nv_index_type(NvIndexType::Counter)
        .with_auth_read(true)
        .with_auth_write(true)
        .with_no_da(true)
        .build()?;
    NvPublic::builder()
        .with_nv_index(NvIndexTpmHandle::new(INDEX)?)
        .with_index_name_algorithm(HashingAlgorithm::Sha256)
        .with_index_attributes(attributes)
        .with_data_area_size(size_of::<u64>())
        .build()
}
