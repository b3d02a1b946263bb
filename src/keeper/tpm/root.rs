//! The storage root key: everything of ours is sealed under it, every session is salted to it, and its name tells the TPM.
//! Trusts: at the first use whoever answers; later only the key whose name was recorded then.
//! Touches: the TPM.
//! Next: [`super::Tpm`] holds it for one connection.

use serde::{Deserialize, Serialize};
use tss_esapi::attributes::ObjectAttributesBuilder;
use tss_esapi::constants::SessionType;
use tss_esapi::handles::{KeyHandle, ObjectHandle, PersistentTpmHandle, SessionHandle, TpmHandle};
use tss_esapi::interface_types::algorithm::{HashingAlgorithm, PublicAlgorithm};
use tss_esapi::interface_types::ecc::EccCurve;
use tss_esapi::interface_types::resource_handles::Hierarchy;
use tss_esapi::interface_types::session_handles::AuthSession;
use tss_esapi::structures::{
    Auth, EccPoint, Public, PublicBuilder, PublicEccParametersBuilder, SymmetricDefinition, SymmetricDefinitionObject,
};
use tss_esapi::{Context, Error as TssError, Result as TssResult};

use super::error::{Step, TpmError, is_wrong_password};
use crate::keeper::owner::OwnerAuth;

/// Where machines keep their storage root (TCG "TPM v2.0 Provisioning Guidance", 7.8).
const PERSISTENT: u32 = 0x8100_0001;

/// The storage root as it is recorded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StorageRoot {
    /// Its TPM name: the hash of its public area.
    pub name: Vec<u8>,
    /// Its persistent handle, or 0 when it is made anew by the template each time.
    pub handle: u32,
}

/// The recorded storage root, or nothing. The name is computed from the very public area that sessions will be salted to.
pub(super) fn recognise(tpm: &mut Context, owner: Option<&OwnerAuth>, pinned: &StorageRoot) -> Result<(KeyHandle, StorageRoot), TpmError> {
    if let Some((key, name)) = persistent(tpm, pinned.handle)
        && name == pinned.name
    {
        return Ok((key, pinned.clone()));
    }
    // The persistent copy may have been evicted: the template makes the same key again.
    let (key, name) = make(tpm, owner)?;
    if name == pinned.name { Ok((key, StorageRoot { name, handle: 0 })) } else { Err(TpmError::OtherTpm) }
}

/// The machine's own persistent storage root when it has one of the template's kind, else the template's.
pub(super) fn choose(tpm: &mut Context, owner: Option<&OwnerAuth>) -> Result<(KeyHandle, StorageRoot), TpmError> {
    if let Some((key, name)) = persistent(tpm, PERSISTENT)
        && is_storage_root(tpm, key)
    {
        return Ok((key, StorageRoot { name, handle: PERSISTENT }));
    }
    let (key, name) = make(tpm, owner)?;
    Ok((key, StorageRoot { name, handle: 0 }))
}

/// The key at a persistent handle, if there is one.
fn persistent(tpm: &mut Context, handle: u32) -> Option<(KeyHandle, Vec<u8>)> {
    let handle = PersistentTpmHandle::new(handle).ok()?;
    let object: ObjectHandle = tpm.tr_from_tpm_public(TpmHandle::Persistent(handle)).ok()?;
    // libtss2 hashes the public area that it has, it does not repeat what it was told (Esys_TR_GetName).
    let name = tpm.tr_get_name(object).ok()?;
    Some((KeyHandle::from(object), name.value().to_vec()))
}

fn is_storage_root(tpm: &mut Context, key: KeyHandle) -> bool {
    let (Ok((found, _, _)), Ok(wanted)) = (tpm.read_public(key), template()) else { return false };
    match (found, wanted) {
        (
            Public::Ecc { object_attributes, name_hashing_algorithm, parameters, .. },
            Public::Ecc { object_attributes: attributes, name_hashing_algorithm: hashing, parameters: wanted, .. },
        ) => object_attributes == attributes && name_hashing_algorithm == hashing && parameters == wanted,
        _ => false,
    }
}

/// By the template: the same seed gives the same key each time, so it need not be stored.
///
/// An owner's password authorises by HMAC, so that it is not on the bus. There is no key yet to salt the session to: a listener could try
/// passwords on what it heard, which is why it should be a random one.
fn make(tpm: &mut Context, owner: Option<&OwnerAuth>) -> Result<(KeyHandle, Vec<u8>), TpmError> {
    let mut make = || {
        let template = template()?;
        let session = match owner {
            None => AuthSession::Password,
            Some(owner) => owner_session(tpm, owner)?,
        };
        let made = tpm.execute_with_session(Some(session), |tpm| tpm.create_primary(Hierarchy::Owner, template, None, None, None, None));
        if owner.is_some() {
            // TPMs hold few sessions at a time.
            tpm.flush_context(SessionHandle::from(session).into())?;
        }
        let made = made?;
        let name = tpm.tr_get_name(made.key_handle.into())?;
        Ok((made.key_handle, name.value().to_vec()))
    };
    make().map_err(|error| match owner {
        Some(_) if is_wrong_password(error) => TpmError::WrongOwnerPassword(error),
        _ => TpmError::at(Step::StorageRoot)(error),
    })
}

fn owner_session(tpm: &mut Context, owner: &OwnerAuth) -> TssResult<AuthSession> {
    tpm.tr_set_auth(Hierarchy::Owner.into(), Auth::try_from(owner.expose())?)?;
    tpm.start_auth_session(None, None, None, SessionType::Hmac, SymmetricDefinition::AES_128_CFB, HashingAlgorithm::Sha256)?
        .ok_or(TssError::WrapperError(tss_esapi::WrapperErrorKind::WrongValueFromTpm))
}

/// ECC P-256, AES-128-CFB, restricted to decrypting its children (TCG "TPM v2.0 Provisioning Guidance", storage root key).
fn template() -> TssResult<Public> {
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
