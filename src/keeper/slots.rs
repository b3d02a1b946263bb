//! Keyslots: the ways to the root key. One sort yet, the TPM's; recovery codes and shares come beside it.
//! Trusts: `container` for damage, `tpm` for the secret.
//! Touches: the TPM.
//! Next: `provision` makes the slot, [`open`] gives the root key at each start.

use crate::base::secret::Secret;

use super::container::{self, ContainerError, MacKey};
use super::hierarchy::{DeriveError, KEY_BYTES, Purpose, Root};
use super::owner::OwnerAuth;
use super::tpm::{self, Sealed, TpmError};

/// Seals a root key into the TPM; the slot's file and the root, ready to derive.
///
/// # Errors
/// [`SlotError`].
pub fn create(tpm_address: &str, owner: Option<&OwnerAuth>, root_key: &Secret<KEY_BYTES>) -> Result<(Vec<u8>, Root), SlotError> {
    let sealed = tpm::seal(tpm_address, owner, root_key)?;
    let root = Root::new(root_key);
    let file = container::write(container::TPM_SLOT, &sealed, &file_mac(&root)?)?;
    Ok((file, root))
}

/// Opens the root key that `slot_file` holds.
///
/// # Errors
/// [`SlotError`].
pub fn open(tpm_address: &str, owner: Option<&OwnerAuth>, slot_file: &[u8]) -> Result<Root, SlotError> {
    let slot = container::read::<Sealed>(container::TPM_SLOT, slot_file)?;
    let root = Root::new(&tpm::unseal(tpm_address, owner, slot.before_authentication())?);
    slot.authenticate(&file_mac(&root)?)?;
    Ok(root)
}

/// The key that authenticates the files of the key directory.
///
/// # Errors
/// As [`Root::derive`].
pub fn file_mac(root: &Root) -> Result<MacKey, DeriveError> {
    Ok(MacKey::new(&root.derive(Purpose::FileMac)?))
}

/// Why the root key could not be sealed or opened.
#[derive(Debug, thiserror::Error)]
pub enum SlotError {
    /// The TPM.
    #[error(transparent)]
    Tpm(#[from] TpmError),
    /// The slot's file.
    #[error("the keyslot {} cannot be used", super::directory::TPM_SLOT)]
    File(#[from] ContainerError),
    /// Derivation.
    #[error(transparent)]
    Derive(#[from] DeriveError),
}
