//! From the keyslots to the root key: by this machine's TPM, by a code, by shares.
//! Trusts: `keyslots` for damage, `tpm` and `recovery` for the secret; the file's HMAC once the root key is there.
//! Touches: the TPM.
//! Next: `provision` and `manage` make slots, [`open`] gives the root key at each start.

use std::num::NonZeroU32;

use ring::pbkdf2::{PBKDF2_HMAC_SHA256, derive};
use ring::rand::{SecureRandom, SystemRandom};

use crate::base::secret::{Secret, SecretText};

use super::container::{MacKey, Unauthenticated};
use super::hierarchy::{DeriveError, KEY_BYTES, Purpose, Root, SlotKey};
use super::keyslots::{Keyslots, KeyslotsError, Kind, PIN_ROUNDS, PinSalt, TpmSlot};
use super::random::RandomError;
use super::tpm::nv::Mark;
use super::tpm::policy::Policy;
use super::tpm::{Address, Tpm, TpmError};
use super::wrap::{UnwrapError, WrapError, WrappingKey};

/// The slots, once the root key says that they are its own.
///
/// # Errors
/// [`SlotError`].
pub fn authenticate(file: Unauthenticated<Keyslots>, root: &Root) -> Result<Keyslots, SlotError> {
    Ok(file.authenticate(&file_mac(root)?).map_err(KeyslotsError::from)?)
}

/// What a start without people opens.
pub struct Opened<'a> {
    /// The root key.
    pub root_key: Secret<KEY_BYTES>,
    /// The same, ready to derive.
    pub root: Root,
    /// The file, authenticated.
    pub keyslots: Keyslots,
    /// The TPM that opened it.
    pub tpm: Tpm<'a>,
}

/// Opens the root key by the first of the TPM's slots that opens. A PIN is tried once: the TPM counts the wrong ones.
///
/// # Errors
/// [`SlotError`]: what the last slot of this TPM said; where a PIN was wrong or is missing, that.
pub fn open<'a>(file: &[u8], address: Address<'a>, pin: Option<&SecretText>) -> Result<Opened<'a>, SlotError> {
    let file = Keyslots::read(file)?;
    let mut refused = SlotError::NoTpmSlot;
    let mut found = None;
    for slot in &file.before_authentication().slots {
        let Kind::Tpm(slot) = &slot.kind else { continue };
        if slot.pin.is_some() && refused.is_of_pin() {
            continue;
        }
        match open_tpm_keeping(slot, address, pin) {
            Ok(opened) => {
                found = Some(opened);
                break;
            }
            // A slot for another machine says nothing of this one's.
            Err(SlotError::Tpm(TpmError::OtherTpm)) if !matches!(refused, SlotError::NoTpmSlot) => {}
            Err(_) if refused.is_of_pin() => {}
            Err(error) => refused = error,
        }
    }
    let (root_key, tpm) = found.ok_or(refused)?;
    let root = Root::new(&root_key);
    let keyslots = authenticate(file, &root)?;
    Ok(Opened { root_key, root, keyslots, tpm })
}

/// Opens the root key by one slot of the TPM.
///
/// # Errors
/// [`SlotError`].
pub fn open_tpm(slot: &TpmSlot, address: Address<'_>, pin: Option<&SecretText>) -> Result<Secret<KEY_BYTES>, SlotError> {
    Ok(open_tpm_keeping(slot, address, pin)?.0)
}

fn open_tpm_keeping<'a>(slot: &TpmSlot, address: Address<'a>, pin: Option<&SecretText>) -> Result<(Secret<KEY_BYTES>, Tpm<'a>), SlotError> {
    let pin = match (&slot.pin, pin) {
        (None, _) => None,
        (Some(salt), Some(pin)) => Some(pin_value(*salt, pin)?),
        (Some(_), None) => return Err(SlotError::PinNeeded),
    };
    let mut tpm = Tpm::connect(address, Some(&slot.storage_root))?;
    let key = tpm.unseal(&slot.policy, pin.as_ref(), &slot.sealed)?;
    let key = SlotKey::new(key);
    let other = tpm.read_half(slot.half, &key.half_password()?)?;
    let opened = wrapping(&key, &other)?.unwrap(&slot.half.to_be_bytes(), &slot.wrapped)?;
    let root_key = Secret::try_fill(|to| {
        let from: &[u8; KEY_BYTES] = opened.as_slice().try_into().map_err(|_| UnwrapError)?;
        to.copy_from_slice(from);
        Ok::<(), SlotError>(())
    })?;
    Ok((root_key, tpm))
}

/// Makes a slot of the TPM that opens to `root_key`, with its half at the NV index `half`, and opens it once by the whole way.
///
/// # Errors
/// [`SlotError`]. The index may be there then.
pub fn make_tpm(
    tpm: &mut Tpm<'_>,
    half: u32,
    policy: Policy,
    pin: Option<&SecretText>,
    root_key: &Secret<KEY_BYTES>,
    root: &Root,
) -> Result<TpmSlot, SlotError> {
    let key = SlotKey::new(random()?);
    let other: Secret<KEY_BYTES> = random()?;
    let salt = pin.map(|_| new_salt()).transpose()?;
    let value = match (salt, pin) {
        (Some(salt), Some(pin)) => Some(pin_value(salt, pin)?),
        _ => None,
    };
    tpm.write_half(half, &mark(root)?, &key.half_password()?, &other)?;
    let sealed = tpm.seal(&policy, value.as_ref(), key.sealed())?;
    let wrapped = wrapping(&key, &other)?.wrap(&half.to_be_bytes(), root_key.expose())?;
    let storage_root = tpm.storage_root().clone();
    Ok(TpmSlot { storage_root, policy, pin: salt, sealed, half, wrapped })
}

fn wrapping(key: &SlotKey, half: &Secret<KEY_BYTES>) -> Result<WrappingKey, SlotError> {
    Ok(WrappingKey::new(&key.wrap_key(half)?, "root key")?)
}

fn new_salt() -> Result<PinSalt, RandomError> {
    let mut salt = [0; 16];
    SystemRandom::new().fill(&mut salt).map_err(|_| RandomError)?;
    Ok(PinSalt { salt, rounds: PIN_ROUNDS })
}

/// What the TPM compares: always 32 bytes, so that a PIN may be a sentence.
fn pin_value(salt: PinSalt, pin: &SecretText) -> Result<Secret<KEY_BYTES>, SlotError> {
    let rounds = NonZeroU32::new(salt.rounds).ok_or(KeyslotsError::Senseless)?;
    Secret::try_fill(|to| {
        derive(PBKDF2_HMAC_SHA256, rounds, &salt.salt, pin.expose().as_bytes(), to);
        Ok(())
    })
}

/// Fresh random bytes.
///
/// # Errors
/// [`RandomError`].
pub fn random() -> Result<Secret<KEY_BYTES>, RandomError> {
    Secret::try_fill(|to| SystemRandom::new().fill(to).map_err(|_| RandomError))
}

/// What tells this box's halves from another's in the same TPM. Not secret: whoever lists the TPM's NV memory sees it.
///
/// # Errors
/// As [`Root::derive`].
pub fn mark(root: &Root) -> Result<Mark, DeriveError> {
    Ok(*root.derive(Purpose::NvMark)?.expose())
}

/// The key that authenticates the files of the key directory.
///
/// # Errors
/// As [`Root::derive`].
pub fn file_mac(root: &Root) -> Result<MacKey, DeriveError> {
    Ok(MacKey::new(&root.derive(Purpose::FileMac)?))
}

impl SlotError {
    /// Somebody must give a PIN, or another one: trying again would only use up the TPM's tries.
    pub const fn is_of_pin(&self) -> bool {
        matches!(self, Self::PinNeeded | Self::Tpm(TpmError::WrongPin(_) | TpmError::LockedOut(_)))
    }
}

/// Why the root key could not be sealed or opened.
#[derive(Debug, thiserror::Error)]
pub enum SlotError {
    /// The TPM.
    #[error(transparent)]
    Tpm(#[from] TpmError),
    /// The file.
    #[error("the file {} cannot be used", super::directory::KEYSLOTS)]
    Keyslots(#[from] KeyslotsError),
    /// Nothing for a start without people.
    #[error("no keyslot is for a TPM: make one (salama keys add tpm), which asks for a recovery code or shares")]
    NoTpmSlot,
    /// A PIN is needed.
    #[error(
        "the TPM's keyslot wants a PIN: give it to salamad as the systemd credential tpm-pin (LoadCredential=) and to salama enrol with --pin FILE"
    )]
    PinNeeded,
    /// The halves do not fit.
    #[error(
        "the TPM opened its part of the keyslot, but the root key in the file does not open with it: restore the key directory from a backup"
    )]
    Unwrap(#[from] UnwrapError),
    /// Wrapping.
    #[error(transparent)]
    Wrap(#[from] WrapError),
    /// Derivation.
    #[error(transparent)]
    Derive(#[from] DeriveError),
    /// Randomness.
    #[error(transparent)]
    Random(#[from] RandomError),
}
