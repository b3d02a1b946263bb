//! One place in the TPM's NV memory: found, made, written, read, removed. What is in it is its owner's module's matter.
//! Trusts: the connection's storage root; values and passwords travel in sessions that are salted to it.
//! Touches: the TPM's NV memory.
//! Next: `nv` keeps halves of slots so, `places` the erasure epoch, `counter` the count.

use tss_esapi::attributes::NvIndexAttributesBuilder;
use tss_esapi::constants::response_code::Tss2ResponseCodeKind as Kind;
use tss_esapi::constants::{CapabilityType, SessionType};
use tss_esapi::handles::{NvIndexHandle, NvIndexTpmHandle, ObjectHandle, TpmHandle};
use tss_esapi::interface_types::algorithm::HashingAlgorithm;
use tss_esapi::interface_types::resource_handles::{NvAuth, Provision};
use tss_esapi::interface_types::session_handles::AuthSession;
use tss_esapi::structures::{Auth, CapabilityData, Digest, MaxNvBuffer, NvPublic};
use tss_esapi::{Context, Result as TssResult};

use super::Tpm;
use super::error::{Step, TpmError, kind};
use super::nv::Mark;
use crate::base::secret::Secret;

/// Bytes of a password.
pub const AUTH_BYTES: usize = 32;

impl Tpm<'_> {
    /// Which of `count` indices from `first` on are there.
    pub(super) fn taken(&mut self, first: u32, count: u32) -> Result<Vec<u32>, TpmError> {
        let listed = self.context.execute_without_session(|tpm| tpm.get_capability(CapabilityType::Handles, first, count));
        let (CapabilityData::Handles(taken), _) = listed.map_err(TpmError::at(Step::Properties))? else {
            return Err(TpmError::NvFull);
        };
        Ok(taken.into_inner().into_iter().map(u32::from).collect())
    }

    pub(super) fn index(&mut self, index: u32) -> Result<Option<NvIndexHandle>, TpmError> {
        let handle = NvIndexTpmHandle::new(index).map_err(TpmError::at(Step::NvRead))?;
        match self.context.execute_without_session(|tpm| tpm.tr_from_tpm_public(TpmHandle::NvIndex(handle))) {
            Ok(found) => Ok(Some(NvIndexHandle::from(found))),
            Err(error) if matches!(kind(error), Some(Kind::Handle)) => Ok(None),
            Err(error) => Err(TpmError::at(Step::NvRead)(error)),
        }
    }

    /// Makes an index that nobody uses who does not know `auth`.
    pub(super) fn define(&mut self, auth: &Secret<AUTH_BYTES>, public: TssResult<NvPublic>) -> Result<(), TpmError> {
        let handle = self.as_owner(Step::NvDefine, |tpm, session| {
            let (auth, public) = (Auth::try_from(auth.expose().as_slice())?, public?);
            tpm.execute_with_session(Some(session), |tpm| tpm.nv_define_space(Provision::Owner, Some(auth), public))
        })?;
        self.close(handle).map_err(TpmError::at(Step::NvDefine))
    }

    pub(super) fn undefine(&mut self, handle: NvIndexHandle) -> Result<(), TpmError> {
        self.as_owner(Step::NvUndefine, |tpm, session| {
            tpm.execute_with_session(Some(session), |tpm| tpm.nv_undefine_space(Provision::Owner, handle))
        })
    }

    pub(super) fn nv_write<const N: usize>(
        &mut self,
        handle: NvIndexHandle,
        auth: &Secret<AUTH_BYTES>,
        value: &Secret<N>,
    ) -> TssResult<()> {
        let value = MaxNvBuffer::try_from(value.expose().as_slice())?;
        self.by_password(handle, auth, |tpm| tpm.nv_write(NvAuth::NvIndex(handle), handle, value, 0))
    }

    pub(super) fn nv_read(&mut self, handle: NvIndexHandle, auth: &Secret<AUTH_BYTES>, bytes: usize) -> TssResult<MaxNvBuffer> {
        let bytes = u16::try_from(bytes).unwrap_or(u16::MAX);
        self.by_password(handle, auth, |tpm| tpm.nv_read(NvAuth::NvIndex(handle), handle, bytes, 0))
    }

    pub(super) fn nv_increment(&mut self, handle: NvIndexHandle, auth: &Secret<AUTH_BYTES>) -> TssResult<()> {
        self.by_password(handle, auth, |tpm| tpm.nv_increment(NvAuth::NvIndex(handle), handle))
    }

    /// In a session that is encrypted both ways.
    fn by_password<T>(
        &mut self,
        handle: NvIndexHandle,
        auth: &Secret<AUTH_BYTES>,
        work: impl FnOnce(&mut Context) -> TssResult<T>,
    ) -> TssResult<T> {
        self.context.tr_set_auth(handle.into(), Auth::try_from(auth.expose().as_slice())?)?;
        self.in_session(SessionType::Hmac, |tpm, session: AuthSession| tpm.execute_with_session(Some(session), work))
    }

    /// Gives what libtss2 remembers of an index back: a daemon asks for years.
    pub(super) fn close(&mut self, handle: NvIndexHandle) -> TssResult<()> {
        self.context.tr_close(&mut ObjectHandle::from(handle))
    }
}

/// An index with a secret of so many bytes, of the box that `mark` is of. Wrong passwords lock nothing.
pub(super) fn with_secret(index: u32, mark: &Mark, bytes: usize) -> TssResult<NvPublic> {
    let attributes = NvIndexAttributesBuilder::new().with_auth_read(true).with_auth_write(true).with_no_da(true).build()?;
    NvPublic::builder()
        .with_nv_index(NvIndexTpmHandle::new(index)?)
        .with_index_name_algorithm(HashingAlgorithm::Sha256)
        .with_index_attributes(attributes)
        .with_index_auth_policy(Digest::try_from(mark.as_slice())?)
        .with_data_area_size(bytes)
        .build()
}

/// What was read; nothing for another length.
pub(super) fn secret<const N: usize>(read: &MaxNvBuffer) -> Option<Secret<N>> {
    let from: &[u8; N] = read.value().try_into().ok()?;
    Secret::try_fill(|to| {
        to.copy_from_slice(from);
        Ok::<(), ()>(())
    })
    .ok()
}

/// Whether the index is there and not the one that the password belongs to.
pub(super) fn is_anothers(error: tss_esapi::Error) -> bool {
    matches!(kind(error), Some(Kind::AuthFail | Kind::BadAuth | Kind::NvRange | Kind::NvAuthorization))
}

/// Whether nothing was ever written there.
pub(super) fn is_empty(error: tss_esapi::Error) -> bool {
    matches!(kind(error), Some(Kind::NvUninitialized))
}
