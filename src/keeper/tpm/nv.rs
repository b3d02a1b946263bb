//! Small secrets in the TPM's NV memory that can be destroyed for good, which a sealed blob on a disk cannot.
//! Trusts: the connection's storage root; values travel in sessions that are salted to it.
//! Touches: the TPM's NV memory, in a range of its own.
//! Next: `slots` keeps half of what opens a TPM slot there.

use tss_esapi::Result as TssResult;
use tss_esapi::attributes::NvIndexAttributesBuilder;
use tss_esapi::constants::response_code::Tss2ResponseCodeKind as Kind;
use tss_esapi::constants::{CapabilityType, SessionType};
use tss_esapi::handles::{NvIndexHandle, NvIndexTpmHandle, TpmHandle};
use tss_esapi::interface_types::algorithm::HashingAlgorithm;
use tss_esapi::interface_types::resource_handles::{NvAuth, Provision};
use tss_esapi::structures::{Auth, CapabilityData, Digest, MaxNvBuffer, NvPublic};

use super::error::{Step, TpmError, kind};
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
        let listed = self.context.execute_without_session(|tpm| tpm.get_capability(CapabilityType::Handles, FIRST, COUNT));
        let (CapabilityData::Handles(taken), _) = listed.map_err(TpmError::at(Step::Properties))? else {
            return Err(TpmError::NvFull);
        };
        let taken: Vec<u32> = taken.into_inner().into_iter().map(u32::from).collect();
        (FIRST..FIRST + COUNT).find(|index| !taken.contains(index)).ok_or(TpmError::NvFull)
    }

    /// Makes the index and writes `half` into it. Whoever reads it must know `auth`, the TPM's owner included.
    ///
    /// # Errors
    /// [`TpmError`]. The index may be there then.
    pub fn write_half(&mut self, index: u32, mark: &Mark, auth: &Secret<HALF_BYTES>, half: &Secret<HALF_BYTES>) -> Result<(), TpmError> {
        let handle = self.as_owner(Step::NvDefine, |tpm, session| {
            let public = public(index, mark)?;
            let auth = Auth::try_from(auth.expose().as_slice())?;
            tpm.execute_with_session(Some(session), |tpm| tpm.nv_define_space(Provision::Owner, Some(auth), public))
        })?;
        let write = |tpm: &mut Self| {
            tpm.context.tr_set_auth(handle.into(), Auth::try_from(auth.expose().as_slice())?)?;
            let value = MaxNvBuffer::try_from(half.expose().as_slice())?;
            tpm.in_session(SessionType::Hmac, |tpm, session| {
                tpm.execute_with_session(Some(session), |tpm| tpm.nv_write(NvAuth::NvIndex(handle), handle, value, 0))
            })
        };
        write(self).map_err(TpmError::at(Step::NvWrite))
    }

    /// Reads a half.
    ///
    /// # Errors
    /// [`TpmError::HalfGone`] when there is none, or it is not the one that `auth` belongs to.
    pub fn read_half(&mut self, index: u32, auth: &Secret<HALF_BYTES>) -> Result<Secret<HALF_BYTES>, TpmError> {
        let Some(handle) = self.index(index)? else { return Err(TpmError::HalfGone) };
        let read = |tpm: &mut Self| {
            tpm.context.tr_set_auth(handle.into(), Auth::try_from(auth.expose().as_slice())?)?;
            tpm.in_session(SessionType::Hmac, |tpm, session| {
                let length = u16::try_from(HALF_BYTES).unwrap_or(u16::MAX);
                tpm.execute_with_session(Some(session), |tpm| tpm.nv_read(NvAuth::NvIndex(handle), handle, length, 0))
            })
        };
        let value = read(self).map_err(|error| match kind(error) {
            Some(Kind::AuthFail | Kind::BadAuth | Kind::NvUninitialized | Kind::NvRange | Kind::NvAuthorization) => TpmError::HalfGone,
            _ => TpmError::at(Step::NvRead)(error),
        })?;
        Secret::try_fill(|to| {
            let from: &[u8; HALF_BYTES] = value.value().try_into().map_err(|_| TpmError::HalfGone)?;
            to.copy_from_slice(from);
            Ok(())
        })
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
        self.as_owner(Step::NvUndefine, |tpm, session| {
            tpm.execute_with_session(Some(session), |tpm| tpm.nv_undefine_space(Provision::Owner, handle))
        })
    }

    pub(super) fn index(&mut self, index: u32) -> Result<Option<NvIndexHandle>, TpmError> {
        let handle = NvIndexTpmHandle::new(index).map_err(TpmError::at(Step::NvRead))?;
        match self.context.execute_without_session(|tpm| tpm.tr_from_tpm_public(TpmHandle::NvIndex(handle))) {
            Ok(found) => Ok(Some(NvIndexHandle::from(found))),
            Err(error) if matches!(kind(error), Some(Kind::Handle)) => Ok(None),
            Err(error) => Err(TpmError::at(Step::NvRead)(error)),
        }
    }
}

fn public(index: u32, mark: &Mark) -> TssResult<NvPublic> {
    let attributes = NvIndexAttributesBuilder::new().with_auth_read(true).with_auth_write(true).with_no_da(true).build()?;
    NvPublic::builder()
        .with_nv_index(NvIndexTpmHandle::new(index)?)
        .with_index_name_algorithm(HashingAlgorithm::Sha256)
        .with_index_attributes(attributes)
        .with_index_auth_policy(Digest::try_from(mark.as_slice())?)
        .with_data_area_size(HALF_BYTES)
        .build()
}
