//! A slot that a printed code opens: HPKE to a public key whose private key is derived from the code.
//! Trusts: the code's 256 random bits.
//! Touches: nothing.
//! Next: `slots` opens by it; whoever holds the root key encrypts to it again without the code.
//!
//! RFC 9180, base mode: DHKEM(X25519, HKDF-SHA256), HKDF-SHA256, ChaCha20Poly1305; `ikm` is the code.

use hpke::aead::ChaCha20Poly1305;
use hpke::kdf::HkdfSha256;
use hpke::kem::X25519HkdfSha256;
use hpke::{Deserializable as _, Kem as _, OpModeR, OpModeS, Serializable as _, single_shot_open, single_shot_seal_with_rng};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::base::secret::Secret;

use super::epoch::{Epoch, PLACE_BYTES};
use super::hierarchy::KEY_BYTES;
use super::random::{Drawn, RandomError};

const INFO: &[u8] = b"salama recovery slot 1";
/// First byte of what is encrypted: the root key alone.
const ROOT_ALONE: u8 = 1;
/// First byte of what is encrypted: the root key, then one erasure epoch or two, each number u32 BE and secret.
const WITH_EPOCHS: u8 = 2;

/// What only the code opens. Not secret itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Encrypted {
    /// X25519.
    pub public_key: [u8; 32],
    /// The encapsulated key.
    pub encapsulated: [u8; 32],
    /// A version, the root key, the erasure epochs.
    pub ciphertext: Vec<u8>,
}

/// The public key of a code.
pub fn public_key(code: &[u8]) -> [u8; 32] {
    X25519HkdfSha256::derive_keypair(code).1.to_bytes().into()
}

/// What a code opens.
pub struct Carried {
    /// The root key.
    pub root_key: Secret<KEY_BYTES>,
    /// The erasure epochs that may count, oldest first; none in slots of before there were any.
    pub epochs: Vec<Epoch>,
}

/// Encrypts the root key and the epochs to a public key, for the slot of this number.
///
/// # Errors
/// [`RecoveryError`].
pub fn encrypt(public_key: [u8; 32], slot: u32, root_key: &Secret<KEY_BYTES>, epochs: &[&Epoch]) -> Result<Encrypted, RecoveryError> {
    let recipient = <X25519HkdfSha256 as hpke::Kem>::PublicKey::from_bytes(&public_key).map_err(|_| RecoveryError::Slot)?;
    let mut plain = Zeroizing::new(Vec::with_capacity(1 + KEY_BYTES + epochs.len() * PLACE_BYTES));
    plain.push(if epochs.is_empty() { ROOT_ALONE } else { WITH_EPOCHS });
    plain.extend(root_key.expose());
    for epoch in epochs {
        plain.extend(epoch.number().to_be_bytes());
        plain.extend(epoch.secret().expose());
    }
    let mut random = Drawn::new(64)?;
    let sealed = single_shot_seal_with_rng::<ChaCha20Poly1305, HkdfSha256, X25519HkdfSha256>(
        &OpModeS::Base,
        &recipient,
        INFO,
        &plain,
        &slot.to_be_bytes(),
        &mut random,
    );
    let (encapsulated, ciphertext) = random.enough(sealed)?.map_err(|_| RecoveryError::Slot)?;
    Ok(Encrypted { public_key, encapsulated: encapsulated.to_bytes().into(), ciphertext })
}

/// Opens the root key and the epochs by a code.
///
/// # Errors
/// [`RecoveryError::OtherCode`] for the code of another slot or box.
pub fn decrypt(encrypted: &Encrypted, slot: u32, code: &[u8]) -> Result<Carried, RecoveryError> {
    let (private, public) = X25519HkdfSha256::derive_keypair(code);
    if <[u8; 32]>::from(public.to_bytes()) != encrypted.public_key {
        return Err(RecoveryError::OtherCode);
    }
    let encapsulated =
        <X25519HkdfSha256 as hpke::Kem>::EncappedKey::from_bytes(&encrypted.encapsulated).map_err(|_| RecoveryError::Slot)?;
    let plain = single_shot_open::<ChaCha20Poly1305, HkdfSha256, X25519HkdfSha256>(
        &OpModeR::Base,
        &private,
        &encapsulated,
        INFO,
        &encrypted.ciphertext,
        &slot.to_be_bytes(),
    );
    let plain = Zeroizing::new(plain.map_err(|_| RecoveryError::Slot)?);
    read(&plain).ok_or(RecoveryError::Slot)
}

fn read(plain: &[u8]) -> Option<Carried> {
    let (version, rest) = plain.split_first()?;
    let (root_key, rest) = rest.split_first_chunk::<KEY_BYTES>()?;
    let root_key = Secret::try_fill(|to| {
        to.copy_from_slice(root_key);
        Ok::<(), RandomError>(())
    });
    let (places, []) = rest.as_chunks::<PLACE_BYTES>() else { return None };
    let epoch = |place: &[u8; PLACE_BYTES]| {
        let (number, secret) = place.split_first_chunk()?;
        Epoch::from_parts(u32::from_be_bytes(*number), secret.try_into().ok()?)
    };
    let epochs = places.iter().map(epoch).collect::<Option<Vec<Epoch>>>()?;
    let right = matches!((*version, epochs.len()), (ROOT_ALONE, 0) | (WITH_EPOCHS, 1 | 2));
    root_key.ok().filter(|_| right).map(|root_key| Carried { root_key, epochs })
}

/// Why a code did not open a slot.
#[derive(Debug, thiserror::Error)]
pub enum RecoveryError {
    /// It is another's.
    #[error("the code is whole, but it is not of this slot: it was replaced, or belongs to another box")]
    OtherCode,
    /// The slot is damaged or moved.
    #[error("the slot does not open by its own code: the file was changed. Restore the key directory from a backup")]
    Slot,
    /// Randomness.
    #[error(transparent)]
    Random(#[from] RandomError),
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret(byte: u8) -> Secret<32> {
        Secret::try_fill(|to| {
            to.fill(byte);
            Ok::<(), ()>(())
        })
        .unwrap()
    }

    #[test]
    fn the_key_pair_of_a_code_is_that_of_the_rfc() {
        // RFC 9180, A.2.1.1 (DHKEM(X25519, HKDF-SHA256), HKDF-SHA256, ChaCha20Poly1305): ikmR and pkRm.
        let ikm = [
            0x1a, 0xc0, 0x1f, 0x18, 0x1f, 0xdf, 0x9f, 0x35, 0x27, 0x97, 0x65, 0x51, 0x61, 0xc5, 0x8b, 0x75, 0xc6, 0x56, 0xa6, 0xcc, 0x27,
            0x16, 0xdc, 0xb6, 0x63, 0x72, 0xda, 0x83, 0x55, 0x42, 0xe1, 0xdf,
        ];
        let public: String = public_key(&ikm).iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(public, "4310ee97d88cc1f088a5576c77ab0cf5c3ac797f3d95139c6c84b5429c59662a");
    }

    #[test]
    fn only_its_own_code_opens_a_slot() {
        let code = [7; 32];
        let slot = encrypt(public_key(&code), 3, &secret(9), &[]).unwrap();
        assert_eq!(decrypt(&slot, 3, &code).unwrap().root_key.expose(), &[9; 32]);
        assert!(matches!(decrypt(&slot, 3, &[8; 32]), Err(RecoveryError::OtherCode)));
    }

    #[test]
    fn a_slot_that_was_moved_or_changed_does_not_open() {
        let code = [7; 32];
        let slot = encrypt(public_key(&code), 3, &secret(9), &[]).unwrap();
        assert!(matches!(decrypt(&slot, 4, &code), Err(RecoveryError::Slot)));
        for byte in 0..slot.ciphertext.len() {
            let mut bent = slot.clone();
            bent.ciphertext[byte] ^= 1;
            assert!(decrypt(&bent, 3, &code).is_err(), "byte {byte}");
        }
        for byte in 0..32 {
            let mut bent = slot.clone();
            bent.encapsulated[byte] ^= 1;
            assert!(decrypt(&bent, 3, &code).is_err(), "byte {byte}");
        }
    }

    #[test]
    fn a_code_carries_one_epoch_or_two_and_slots_of_before_none() {
        let code = [7; 32];
        let epochs = [Epoch::new(4).unwrap(), Epoch::new(5).unwrap()];
        for some in [&[][..], &[&epochs[0]], &[&epochs[0], &epochs[1]]] {
            let slot = encrypt(public_key(&code), 3, &secret(9), some).unwrap();
            let carried = decrypt(&slot, 3, &code).unwrap();
            assert_eq!(carried.root_key.expose(), &[9; 32]);
            let of = |epoch: &Epoch| (epoch.number(), *epoch.secret().expose());
            assert_eq!(carried.epochs.iter().map(of).collect::<Vec<_>>(), some.iter().map(|epoch| of(epoch)).collect::<Vec<_>>());
        }
        for wrong in [&[1; 33 + 36][..], &[2; 33], &[2; 33 + 35], &[2; 33 + 3 * 36], &[3; 33], &[1; 32], &[]] {
            assert!(read(wrong).is_none(), "{}", wrong.len());
        }
    }

    #[test]
    fn nothing_is_encrypted_to_a_point_that_leads_nowhere() {
        assert!(encrypt([0; 32], 1, &secret(9), &[]).is_err());
    }
}
