//! The TPM: a storage root that is recognised, salted sessions, sealed secrets, halves in NV, the lockout.
//! Trusts: a TPM whose storage root has the recorded name. Nothing on the bus: each session that carries a secret is salted and encrypted.
//! Touches: the TPM, by libtss2. Every object and session is flushed when the context is dropped, also after an error.
//! Next: `slots` opens the root key by it, `manage` makes and removes its slots.

pub mod counter;
pub mod error;
mod index;
pub mod lockout;
pub mod nv;
pub mod places;
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
use tss_esapi::utils::TpmsContext;
use tss_esapi::{Context, Error as TssError, Result as TssResult};

pub use error::{Step, TpmError};
pub use raw::keep_transport;
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
    owner: Option<&'a OwnerAuth>,
    root: KeyHandle,
    root_record: StorageRoot,
}

/// A connection that is kept while nothing is asked of the TPM. TPMs hold few objects at a time: it holds none there meanwhile.
pub struct RestingTpm {
    /// Nothing while it is awake.
    resting: Option<Resting>,
}

struct Resting {
    context: Context,
    root: Root,
    root_record: StorageRoot,
}

/// The storage root of a resting connection.
enum Root {
    /// At its persistent handle, where it stays.
    There(KeyHandle),
    /// Encrypted by the TPM for itself; good until the TPM is reset. No owner's password is needed to load it.
    Saved(TpmsContext),
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
        Ok(Self { context, owner: address.owner, root, root_record })
    }

    /// Keeps the connection for later, without the owner's password.
    ///
    /// # Errors
    /// [`TpmError`].
    pub fn rest(self) -> Result<RestingTpm, TpmError> {
        let Self { mut context, root, root_record, .. } = self;
        let root = put_down(&mut context, root, &root_record).map_err(TpmError::at(Step::StorageRoot))?;
        Ok(RestingTpm { resting: Some(Resting { context, root, root_record }) })
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
        let owner = self.owner;
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

impl RestingTpm {
    /// Runs `work` on the connection and lets it rest again.
    ///
    /// # Errors
    /// What `work` says; [`TpmError::Lost`] when the connection could not be taken up before.
    pub fn with<T, E: From<TpmError>>(&mut self, work: impl FnOnce(&mut Tpm<'static>) -> Result<T, E>) -> Result<T, E> {
        let Resting { mut context, root, root_record } = self.resting.take().ok_or(TpmError::Lost)?;
        let root = match root {
            Root::There(root) => root,
            Root::Saved(saved) => match context.context_load(saved.clone()) {
                Ok(loaded) => KeyHandle::from(loaded),
                Err(error) => {
                    // Busy for a moment, perhaps: what was saved is good for another try.
                    self.resting = Some(Resting { context, root: Root::Saved(saved), root_record });
                    return Err(TpmError::at(Step::StorageRoot)(error).into());
                }
            },
        };
        let mut tpm = Tpm { context, owner: None, root, root_record };
        let done = work(&mut tpm);
        let Tpm { mut context, root, root_record, .. } = tpm;
        // What cannot be put down stays loaded, and is used from there the next time.
        let root = put_down(&mut context, root, &root_record).unwrap_or(Root::There(root));
        self.resting = Some(Resting { context, root, root_record });
        done
    }
}

fn put_down(context: &mut Context, root: KeyHandle, record: &StorageRoot) -> TssResult<Root> {
    if record.handle != 0 {
        return Ok(Root::There(root));
    }
    let saved = context.context_save(root.into())?;
    context.flush_context(root.into())?;
    Ok(Root::Saved(saved))
}

fn salted(tpm: &mut Context, root: KeyHandle, kind: SessionType) -> TssResult<AuthSession> {
    let session = tpm
        .start_auth_session(Some(root), None, None, kind, SymmetricDefinition::AES_128_CFB, HashingAlgorithm::Sha256)?
        .ok_or(TssError::WrapperError(tss_esapi::WrapperErrorKind::WrongValueFromTpm))?;
    let (attributes, mask) = SessionAttributesBuilder::new().with_continue_session(true).with_decrypt(true).with_encrypt(true).build();
    tpm.tr_sess_set_attributes(session, attributes, mask)?;
    Ok(session)
}
