//! The two places in the TPM's NV memory that hold the erasure epoch.
//! Trusts: the connection's storage root; values travel in sessions that are salted to it.
//! Touches: the TPM's NV memory, in a range of its own.
//! Next: `moving` reads and writes them while the daemon serves.

use tss_esapi::Result as TssResult;
use tss_esapi::attributes::NvIndexAttributesBuilder;
use tss_esapi::constants::response_code::Tss2ResponseCodeKind as Kind;
use tss_esapi::constants::{CapabilityType, SessionType};
use tss_esapi::handles::{NvIndexHandle, NvIndexTpmHandle, ObjectHandle};
use tss_esapi::interface_types::algorithm::HashingAlgorithm;
use tss_esapi::interface_types::resource_handles::{NvAuth, Provision};
use tss_esapi::structures::{Auth, CapabilityData, Digest, MaxNvBuffer, NvPublic};

use super::Tpm;
use super::error::{Step, TpmError, kind};
use super::nv::Mark;
use crate::base::secret::Secret;
use crate::keeper::epoch::PLACE_BYTES;

/// First of our indices, after those of the halves.
const FIRST: u32 = 0x0181_5a80;
/// As many boxes could share one TPM.
const PAIRS: u32 = 8;
/// Bytes of a password.
const AUTH_BYTES: usize = 32;

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
        let listed = self.context.execute_without_session(|tpm| tpm.get_capability(CapabilityType::Handles, FIRST, 2 * PAIRS));
        let (CapabilityData::Handles(taken), _) = listed.map_err(TpmError::at(Step::Properties))? else {
            return Err(TpmError::NvFull);
        };
        let taken: Vec<u32> = taken.into_inner().into_iter().map(u32::from).collect();
        let mut firsts = (0..PAIRS).map(|pair| FIRST + 2 * pair);
        firsts.find(|first| !taken.contains(first) && !taken.contains(&(first + 1))).ok_or(TpmError::NvFull)
    }

    /// Makes a place, with nothing in it. Whoever reads or writes it must know `auth`, the TPM's owner included.
    ///
    /// # Errors
    /// [`TpmError`].
    pub fn make_place(&mut self, index: u32, mark: &Mark, auth: &Secret<AUTH_BYTES>) -> Result<(), TpmError> {
        let handle = self.as_owner(Step::NvDefine, |tpm, session| {
            let public = public(index, mark)?;
            let auth = Auth::try_from(auth.expose().as_slice())?;
            tpm.execute_with_session(Some(session), |tpm| tpm.nv_define_space(Provision::Owner, Some(auth), public))
        })?;
        self.close(handle).map_err(TpmError::at(Step::NvDefine))
    }

    /// Writes a place, and reads it back.
    ///
    /// # Errors
    /// [`TpmError`].
    pub fn write_place(&mut self, index: u32, auth: &Secret<AUTH_BYTES>, value: &Secret<PLACE_BYTES>) -> Result<(), TpmError> {
        let Some(handle) = self.index(index)? else { return Err(TpmError::EpochGone) };
        let write = |tpm: &mut Self| -> TssResult<()> {
            tpm.context.tr_set_auth(handle.into(), Auth::try_from(auth.expose().as_slice())?)?;
            let value = MaxNvBuffer::try_from(value.expose().as_slice())?;
            tpm.in_session(SessionType::Hmac, |tpm, session| {
                tpm.execute_with_session(Some(session), |tpm| tpm.nv_write(NvAuth::NvIndex(handle), handle, value, 0))
            })
        };
        let written = write(self).map_err(refusal(Step::NvWrite));
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
        let Some(handle) = self.index(index)? else { return Err(TpmError::EpochGone) };
        let read = |tpm: &mut Self| {
            tpm.context.tr_set_auth(handle.into(), Auth::try_from(auth.expose().as_slice())?)?;
            tpm.in_session(SessionType::Hmac, |tpm, session| {
                let length = u16::try_from(PLACE_BYTES).unwrap_or(u16::MAX);
                tpm.execute_with_session(Some(session), |tpm| tpm.nv_read(NvAuth::NvIndex(handle), handle, length, 0))
            })
        };
        let value = read(self);
        self.close(handle).map_err(TpmError::at(Step::NvRead))?;
        let value = match value {
            Ok(value) => value,
            Err(error) if matches!(kind(error), Some(Kind::NvUninitialized)) => return Ok(None),
            Err(error) => return Err(refusal(Step::NvRead)(error)),
        };
        let place = Secret::try_fill(|to| {
            let from: &[u8; PLACE_BYTES] = value.value().try_into().map_err(|_| TpmError::EpochGone)?;
            to.copy_from_slice(from);
            Ok::<(), TpmError>(())
        })?;
        Ok(Some(place))
    }

    /// Gives what libtss2 remembers of an index back: a daemon asks for years.
    pub(super) fn close(&mut self, handle: NvIndexHandle) -> TssResult<()> {
        self.context.tr_close(&mut ObjectHandle::from(handle))
    }
}

fn refusal(step: Step) -> impl Fn(tss_esapi::Error) -> TpmError {
    move |error| match kind(error) {
        Some(Kind::AuthFail | Kind::BadAuth | Kind::NvRange | Kind::NvAuthorization) => TpmError::EpochGone,
        _ => TpmError::at(step)(error),
    }
}

fn public(index: u32, mark: &Mark) -> TssResult<NvPublic> {
    let attributes = NvIndexAttributesBuilder::new().with_auth_read(true).with_auth_write(true).with_no_da(true).build()?;
    NvPublic::builder()
        .with_nv_index(NvIndexTpmHandle::new(index)?)
        .with_index_name_algorithm(HashingAlgorithm::Sha256)
        .with_index_attributes(attributes)
        .with_index_auth_policy(Digest::try_from(mark.as_slice())?)
        .with_data_area_size(PLACE_BYTES)
        .build()
}
