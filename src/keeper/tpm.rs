//! One secret sealed in the TPM, and opened again.
//! Trusts: a TPM whose storage root has the recorded name. Nothing on the bus: each session that carries the secret is salted and encrypted.
//! Touches: the TPM, by libtss2. Every object and session is flushed when the context is dropped, also after an error.
//! Next: `slots` stores what [`seal`] gives; `provision` and the start-up of the daemon call [`seal`] and [`unseal`].

use serde::{Deserialize, Serialize};
use tss_esapi::attributes::{ObjectAttributesBuilder, SessionAttributesBuilder};
use tss_esapi::constants::response_code::Tss2ResponseCodeKind;
use tss_esapi::constants::{CommandCode, SessionType};
use tss_esapi::handles::{KeyHandle, SessionHandle};
use tss_esapi::interface_types::algorithm::{HashingAlgorithm, PublicAlgorithm};
use tss_esapi::interface_types::ecc::EccCurve;
use tss_esapi::interface_types::resource_handles::Hierarchy;
use tss_esapi::interface_types::session_handles::{AuthSession, PolicySession};
use tss_esapi::structures::{
    Auth, Digest, EccPoint, KeyedHashScheme, Private, Public, PublicBuilder, PublicEccParametersBuilder, PublicKeyedHashParameters,
    SensitiveData, SymmetricDefinition, SymmetricDefinitionObject,
};
use tss_esapi::tcti_ldr::TctiNameConf;
use tss_esapi::traits::{Marshall, UnMarshall};
use tss_esapi::{Context, Error as TssError};

use super::owner::OwnerAuth;
use crate::base::secret::Secret;

/// Bytes of the sealed secret.
pub const SEALED_BYTES: usize = 32;

/// A secret as only one TPM can open it. Not secret itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sealed {
    /// TPM name of the storage root that it was sealed under; tells a foreign or cleared TPM, and an interposer, before any secret moves.
    pub storage_root: Vec<u8>,
    /// `TPM2B_PUBLIC`.
    pub public: Vec<u8>,
    /// `TPM2B_PRIVATE`, encrypted by the storage root.
    pub private: Vec<u8>,
}

/// Seals `secret` under the storage root of the TPM at `address` (a TCTI name such as `device:/dev/tpmrm0`).
///
/// The object can be opened by a policy session alone, and only by `TPM2_Unseal`; it is exempt from dictionary-attack lockout because no
/// password guards it. PCR policy and PIN come with the other keyslots.
///
/// # Errors
/// [`TpmError`], naming the step.
pub fn seal(address: &str, owner: Option<&OwnerAuth>, secret: &Secret<SEALED_BYTES>) -> Result<Sealed, TpmError> {
    let mut tpm = connect(address)?;
    let (root, storage_root) = storage_root(&mut tpm, owner)?;
    let policy = unseal_only_policy(&mut tpm).map_err(TpmError::at(Step::Policy))?;
    let session = salted_session(&mut tpm, root, SessionType::Hmac).map_err(TpmError::at(Step::Session))?;
    let template = sealed_template(policy).map_err(TpmError::at(Step::Seal))?;
    let sensitive = SensitiveData::try_from(secret.expose().as_slice()).map_err(TpmError::at(Step::Seal))?;
    let created = tpm
        .execute_with_session(Some(session), |tpm| tpm.create(root, template, None, Some(sensitive), None, None))
        .map_err(TpmError::at(Step::Seal))?;
    let public = created.out_public.marshall().map_err(TpmError::at(Step::Seal))?;
    Ok(Sealed { storage_root, public, private: created.out_private.to_vec() })
}

/// Opens what [`seal`] gave.
///
/// # Errors
/// [`TpmError::OtherTpm`] when the storage root has another name: another TPM, or this one after a clear. Otherwise the step that failed.
pub fn unseal(address: &str, owner: Option<&OwnerAuth>, sealed: &Sealed) -> Result<Secret<SEALED_BYTES>, TpmError> {
    let mut tpm = connect(address)?;
    let (root, name) = storage_root(&mut tpm, owner)?;
    if name != sealed.storage_root {
        return Err(TpmError::OtherTpm);
    }
    let session = salted_session(&mut tpm, root, SessionType::Hmac).map_err(TpmError::at(Step::Session))?;
    let public = Public::unmarshall(&sealed.public).map_err(TpmError::at(Step::Load))?;
    let private = Private::try_from(sealed.private.clone()).map_err(TpmError::at(Step::Load))?;
    let object = tpm.execute_with_session(Some(session), |tpm| tpm.load(root, private, public)).map_err(TpmError::at(Step::Load))?;
    let policy = salted_session(&mut tpm, root, SessionType::Policy).map_err(TpmError::at(Step::Session))?;
    PolicySession::try_from(policy)
        .and_then(|policy| tpm.policy_command_code(policy, CommandCode::Unseal))
        .map_err(TpmError::at(Step::Policy))?;
    let opened = tpm.execute_with_session(Some(policy), |tpm| tpm.unseal(object.into())).map_err(TpmError::at(Step::Unseal))?;
    Secret::try_fill(|to| {
        let from: &[u8; SEALED_BYTES] = opened.value().try_into().map_err(|_| TpmError::WrongLength)?;
        to.copy_from_slice(from);
        Ok(())
    })
}

/// What was being done when the TPM refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Making the storage root key.
    StorageRoot,
    /// Opening an encrypted session.
    Session,
    /// Building the policy.
    Policy,
    /// Sealing the root key.
    Seal,
    /// Loading the sealed root key.
    Load,
    /// Opening the root key.
    Unseal,
}

impl Step {
    const fn words(self) -> &'static str {
        match self {
            Self::StorageRoot => "making the storage root key",
            Self::Session => "opening an encrypted session",
            Self::Policy => "building the unseal policy",
            Self::Seal => "sealing the root key",
            Self::Load => "loading the sealed root key",
            Self::Unseal => "opening the root key",
        }
    }
}

/// Why the TPM did not seal or open the root key.
#[derive(Debug, thiserror::Error)]
pub enum TpmError {
    /// The address is no TCTI name.
    #[error("the TPM's address is not understood; write it as device:/dev/tpmrm0 (tests: swtpm:host=127.0.0.1,port=2321)")]
    Address(#[source] TssError),
    /// Nobody answers there.
    #[error(
        "no TPM answers at the configured address: enable the TPM in the machine's firmware, check that the device exists, that this \
         user may open it (group tss) and that no other program holds it"
    )]
    Absent(#[source] TssError),
    /// Its storage root is not the recorded one.
    #[error(
        "this TPM is not the one that the keys were sealed by, or it has been cleared: put the keys back into the machine they were made \
         on; keys sealed by a cleared TPM are lost and the box must be set up again"
    )]
    OtherTpm,
    /// It has no room or no time.
    #[error("the TPM is busy ({} failed): stop other programs that use it, or restart the machine, then try again", .step.words())]
    Busy {
        /// What was being done.
        step: Step,
        /// What the TPM said.
        #[source]
        source: TssError,
    },
    /// It wants a password for its owner hierarchy.
    #[error(
        "the TPM's owner hierarchy has a password: give it to salamad as the systemd credential tpm-owner-auth (LoadCredential=) and to \
         salama init and enrol with --owner-auth FILE, or remove it (tpm2_changeauth -c owner -p PASSWORD)"
    )]
    OwnerPassword(#[source] TssError),
    /// It does not take the password given.
    #[error("the TPM refuses the owner password given: correct the file of the credential tpm-owner-auth or of --owner-auth")]
    WrongOwnerPassword(#[source] TssError),
    /// It refused.
    #[error("the TPM refused ({} failed): the sealed key or the TPM's state has changed", .step.words())]
    Refused {
        /// What was being done.
        step: Step,
        /// What the TPM said.
        #[source]
        source: TssError,
    },
    /// The sealed secret has not the length of a root key.
    #[error("what the TPM opened is no root key: the slot file belongs to another program")]
    WrongLength,
}

impl TpmError {
    fn at(step: Step) -> impl Fn(TssError) -> Self {
        move |source| match kind(source) {
            Some(
                Tss2ResponseCodeKind::Retry
                | Tss2ResponseCodeKind::ObjectMemory
                | Tss2ResponseCodeKind::SessionMemory
                | Tss2ResponseCodeKind::SessionHandles
                | Tss2ResponseCodeKind::ObjectHandles
                | Tss2ResponseCodeKind::Yielded
                | Tss2ResponseCodeKind::Testing,
            ) => Self::Busy { step, source },
            _ if step == Step::StorageRoot && is_wrong_password(source) => Self::OwnerPassword(source),
            _ => Self::Refused { step, source },
        }
    }
}

fn kind(error: TssError) -> Option<Tss2ResponseCodeKind> {
    match error {
        TssError::Tss2Error(code) => code.kind(),
        TssError::WrapperError(_) => None,
    }
}

fn is_wrong_password(error: TssError) -> bool {
    matches!(kind(error), Some(Tss2ResponseCodeKind::AuthFail | Tss2ResponseCodeKind::BadAuth))
}

fn connect(address: &str) -> Result<Context, TpmError> {
    let address: TctiNameConf = address.parse().map_err(TpmError::Address)?;
    Context::new(address).map_err(TpmError::Absent)
}

/// The storage root key: the same template and seed give the same key each time, so it is made anew and never stored.
///
/// An owner's password authorises by HMAC, so that it is not on the bus. There is no key yet to salt the session to: a listener could try
/// passwords on what it heard, which is why it should be a random one.
fn storage_root(tpm: &mut Context, owner: Option<&OwnerAuth>) -> Result<(KeyHandle, Vec<u8>), TpmError> {
    let mut make = || {
        let template = storage_root_template()?;
        let session = match owner {
            None => AuthSession::Password,
            Some(owner) => owner_session(tpm, owner)?,
        };
        let made = tpm.execute_with_session(Some(session), |tpm| tpm.create_primary(Hierarchy::Owner, template, None, None, None, None))?;
        if owner.is_some() {
            // TPMs hold few sessions at a time.
            tpm.flush_context(SessionHandle::from(session).into())?;
        }
        let name = tpm.tr_get_name(made.key_handle.into())?;
        Ok((made.key_handle, name.value().to_vec()))
    };
    make().map_err(|error| match owner {
        Some(_) if is_wrong_password(error) => TpmError::WrongOwnerPassword(error),
        _ => TpmError::at(Step::StorageRoot)(error),
    })
}

fn owner_session(tpm: &mut Context, owner: &OwnerAuth) -> tss_esapi::Result<AuthSession> {
    tpm.tr_set_auth(Hierarchy::Owner.into(), Auth::try_from(owner.expose())?)?;
    tpm.start_auth_session(None, None, None, SessionType::Hmac, SymmetricDefinition::AES_128_CFB, HashingAlgorithm::Sha256)?
        .ok_or(TssError::WrapperError(tss_esapi::WrapperErrorKind::WrongValueFromTpm))
}

/// ECC P-256, AES-128-CFB, restricted to decrypting its children (TCG "TPM v2.0 Provisioning Guidance", storage root key).
fn storage_root_template() -> tss_esapi::Result<Public> {
    let attributes = ObjectAttributesBuilder::new()
        .with_fixed_tpm(true)
        .with_fixed_parent(true)
        .with_sensitive_data_origin(true)
        .with_user_with_auth(true)
        .with_no_da(true)
        .with_decrypt(true)
        .with_restricted(true)
        .build()?;
    let curve =
        PublicEccParametersBuilder::new_restricted_decryption_key(SymmetricDefinitionObject::AES_128_CFB, EccCurve::NistP256).build()?;
    PublicBuilder::new()
        .with_public_algorithm(PublicAlgorithm::Ecc)
        .with_name_hashing_algorithm(HashingAlgorithm::Sha256)
        .with_object_attributes(attributes)
        .with_ecc_parameters(curve)
        .with_ecc_unique_identifier(EccPoint::default())
        .build()
}

/// A sealed object without `userWithAuth`: the policy is the only way in.
fn sealed_template(policy: Digest) -> tss_esapi::Result<Public> {
    let attributes = ObjectAttributesBuilder::new().with_fixed_tpm(true).with_fixed_parent(true).with_no_da(true).build()?;
    PublicBuilder::new()
        .with_public_algorithm(PublicAlgorithm::KeyedHash)
        .with_name_hashing_algorithm(HashingAlgorithm::Sha256)
        .with_object_attributes(attributes)
        .with_auth_policy(policy)
        .with_keyed_hash_parameters(PublicKeyedHashParameters::new(KeyedHashScheme::Null))
        .with_keyed_hash_unique_identifier(Digest::default())
        .build()
}

/// The digest of "by `TPM2_Unseal` only", as the TPM itself computes it.
fn unseal_only_policy(tpm: &mut Context) -> tss_esapi::Result<Digest> {
    let trial = tpm
        .start_auth_session(None, None, None, SessionType::Trial, SymmetricDefinition::AES_128_CFB, HashingAlgorithm::Sha256)?
        .ok_or(TssError::WrapperError(tss_esapi::WrapperErrorKind::WrongValueFromTpm))?;
    let policy = PolicySession::try_from(trial)?;
    tpm.policy_command_code(policy, CommandCode::Unseal)?;
    tpm.policy_get_digest(policy)
}

/// Salted to the storage root (so that a listener on the bus cannot derive its keys) and encrypting both directions.
fn salted_session(tpm: &mut Context, root: KeyHandle, kind: SessionType) -> tss_esapi::Result<AuthSession> {
    let session = tpm
        .start_auth_session(Some(root), None, None, kind, SymmetricDefinition::AES_128_CFB, HashingAlgorithm::Sha256)?
        .ok_or(TssError::WrapperError(tss_esapi::WrapperErrorKind::WrongValueFromTpm))?;
    let (attributes, mask) = SessionAttributesBuilder::new().with_continue_session(true).with_decrypt(true).with_encrypt(true).build();
    tpm.tr_sess_set_attributes(session, attributes, mask)?;
    Ok(session)
}
