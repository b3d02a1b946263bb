//! The TPM: a storage root that is recognised, salted sessions, sealed secrets, halves in NV, the lockout.
//! Trusts: a TPM whose storage root has the recorded name. Nothing on the bus: each session that carries a secret is salted and encrypted.
//! Touches: the TPM, by libtss2. Every object and session is flushed when the context is dropped, also after an error.
//! Next: `slots` opens the root key by it, `manage` makes and removes its slots.

pub mod error;
pub mod lockout;
pub mod nv;
pub mod policy;
#[path = "../../sys/tpm.rs"]
mod raw;
mod root;
pub mod seal;

use tss_esapi::attributes::SessionAttributesBuilder;
use tss_esapi::constants::SessionType;
use tss_esapi::handles::{KeyHandle, SessionHandle};
use tss_esapi::interface_types::algorithm::HashingAlgorithm;
use tss_esapi::interface_types::resource_handles::Hierarchy;
use tss_esapi::interface_types::session_handles::AuthSession;
use tss_esapi::structures::{Auth, SymmetricDefinition};
use tss_esapi::tcti_ldr::TctiNameConf;
use tss_esapi::{Context, Error as TssError, Result as TssResult};

pub use error::{Step, TpmError};
pub use root::StorageRoot;

use super::owner::OwnerAuth;

/// Where the TPM is, and the password of its owner hierarchy when it has one.
#[derive(Clone, Copy)]
pub struct Address<'a> {
    /// A TCTI name such as `device:/dev/tpmrm0`.
    pub tcti: &'a str,
    /// The password.
    pub owner: Option<&'a OwnerAuth>,
}

/// A connection with the storage root loaded.
pub struct Tpm<'a> {
    context: Context,
    address: Address<'a>,
    root: KeyHandle,
    root_record: StorageRoot,
}

impl<'a> Tpm<'a> {
    /// Connects. With `pinned`, the storage root must be the recorded one; nothing secret moves before that is known. Without, this is
    /// its first use, and what is found is what will be recorded.
    ///
    /// # Errors
    /// [`TpmError`]; [`TpmError::OtherTpm`] for another storage root: another TPM, or this one after a clear, or somebody in between.
    pub fn connect(address: Address<'a>, pinned: Option<&StorageRoot>) -> Result<Self, TpmError> {
        let tcti: TctiNameConf = address.tcti.parse().map_err(TpmError::Address)?;
        let mut context = Context::new(tcti).map_err(TpmError::Absent)?;
        let (root, root_record) = match pinned {
            Some(pinned) => root::recognise(&mut context, address.owner, pinned)?,
            None => root::choose(&mut context, address.owner)?,
        };
        Ok(Self { context, address, root, root_record })
    }

    /// The storage root, to be recorded.
    pub const fn storage_root(&self) -> &StorageRoot {
        &self.root_record
    }

    /// Runs `work` in a session that is salted to the storage root (so that a listener on the bus cannot derive its keys) and encrypts
    /// parameters in both directions. TPMs hold few sessions at a time: it is flushed afterwards, also after an error.
    fn in_session<T>(&mut self, kind: SessionType, work: impl FnOnce(&mut Context, AuthSession) -> TssResult<T>) -> TssResult<T> {
        let root = self.root;
        let session = salted(&mut self.context, root, kind)?;
        let done = work(&mut self.context, session);
        let flushed = self.context.flush_context(SessionHandle::from(session).into());
        let done = done?;
        flushed.map(|()| done)
    }

    /// As [`Self::in_session`], authorised by the owner: for making and removing NV indices.
    fn as_owner<T>(&mut self, step: Step, work: impl FnOnce(&mut Context, AuthSession) -> TssResult<T>) -> Result<T, TpmError> {
        let owner = self.address.owner;
        let auth = match owner {
            Some(owner) => Auth::try_from(owner.expose()),
            None => Ok(Auth::default()),
        };
        let done = auth.and_then(|auth| {
            self.context.tr_set_auth(Hierarchy::Owner.into(), auth)?;
            self.in_session(SessionType::Hmac, work)
        });
        done.map_err(|error| match owner {
            Some(_) if error::is_wrong_password(error) => TpmError::WrongOwnerPassword(error),
            None if error::is_wrong_password(error) => TpmError::OwnerPassword(error),
            _ => TpmError::at(step)(error),
        })
    }
}

fn salted(tpm: &mut Context, root: KeyHandle, kind: SessionType) -> TssResult<AuthSession> {
    let session = tpm
        .start_auth_session(Some(root), None, None, kind, SymmetricDefinition::AES_128_CFB, HashingAlgorithm::Sha256)?
        .ok_or(TssError::WrapperError(tss_esapi::WrapperErrorKind::WrongValueFromTpm))?;
    let (attributes, mask) = SessionAttributesBuilder::new().with_continue_session(true).with_decrypt(true).with_encrypt(true).build();
    tpm.tr_sess_set_attributes(session, attributes, mask)?;
    Ok(session)
}
