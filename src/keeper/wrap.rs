//! Keys sealed by other keys: AES-256-GCM with associated data that says what is inside.
//! Trusts: the wrapping key; nothing of the wrapped bytes until their tag is checked.
//! Touches: the random number generator of the operating system.
//! Next: `serve` wraps DEKs, `keyring` the two private keys.
//!
//! ```text
//! wrapped key = version u8 (1) | epoch u32 BE (0 where there is none) | nonce 12 B | ciphertext | tag 16 B
//! associated data = what | 0x00 | version | epoch | owner
//! ```

use ring::aead::{AES_256_GCM, Aad, LessSafeKey, MAX_TAG_LEN, NONCE_LEN, Nonce, UnboundKey};
use ring::rand::{SecureRandom, SystemRandom};
use zeroize::Zeroizing;

use crate::base::ids::CallId;
use crate::base::secret::Secret;
use crate::ipc::keeper::{DEK_BYTES, WRAPPED_DEK_MAX, WrappedDek};

use super::hierarchy::KEY_BYTES;

const VERSION: u8 = 1;
/// Keys that are not calls' have no epoch.
const NO_EPOCH: u32 = 0;
const HEADER: usize = 1 + size_of::<u32>() + NONCE_LEN;

/// Bytes of a wrapped DEK.
pub const WRAPPED_DEK_BYTES: usize = HEADER + DEK_BYTES + MAX_TAG_LEN;
const _: () = assert!(WRAPPED_DEK_BYTES <= WRAPPED_DEK_MAX, "the channel's limit holds a wrapped DEK");

/// A key that wraps keys of one sort.
pub struct WrappingKey {
    key: LessSafeKey,
    what: &'static str,
    epoch: u32,
}

impl WrappingKey {
    /// `what` names the sort of key that is wrapped; it is bound into each of them.
    ///
    /// # Errors
    /// [`WrapError`] when the cipher refuses the key's length, which is fixed.
    pub fn new(key: &Secret<KEY_BYTES>, what: &'static str) -> Result<Self, WrapError> {
        Self::of_epoch(key, what, NO_EPOCH)
    }

    /// As [`Self::new`], for keys of one erasure epoch.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn of_epoch(key: &Secret<KEY_BYTES>, what: &'static str, epoch: u32) -> Result<Self, WrapError> {
        let key = UnboundKey::new(&AES_256_GCM, key.expose()).map_err(|_| WrapError)?;
        Ok(Self { key: LessSafeKey::new(key), what, epoch })
    }

    /// Wraps `secret` for `owner`. A random nonce each time: good for 2^32 keys, and a box makes a few thousand a day.
    ///
    /// # Errors
    /// [`WrapError`] when the random number generator or the cipher fails.
    pub fn wrap(&self, owner: &[u8], secret: &[u8]) -> Result<Vec<u8>, WrapError> {
        let mut nonce = [0; NONCE_LEN];
        SystemRandom::new().fill(&mut nonce).map_err(|_| WrapError)?;
        let mut sealed = Zeroizing::new(secret.to_vec());
        let tag = self
            .key
            .seal_in_place_separate_tag(Nonce::assume_unique_for_key(nonce), Aad::from(self.aad(owner, VERSION, self.epoch)), &mut sealed)
            .map_err(|_| WrapError)?;
        let mut wrapped = Vec::with_capacity(HEADER + sealed.len() + MAX_TAG_LEN);
        wrapped.push(VERSION);
        wrapped.extend(self.epoch.to_be_bytes());
        wrapped.extend(nonce);
        wrapped.extend(sealed.iter());
        wrapped.extend(tag.as_ref());
        Ok(wrapped)
    }

    /// Opens what [`Self::wrap`] made for the same owner.
    ///
    /// # Errors
    /// [`UnwrapError`] for anything else; it does not say what was wrong, so that nobody can search by it.
    pub fn unwrap(&self, owner: &[u8], wrapped: &[u8]) -> Result<Zeroizing<Vec<u8>>, UnwrapError> {
        let (header, sealed) = wrapped.split_first_chunk::<HEADER>().ok_or(UnwrapError)?;
        let ([version], rest) = header.split_first_chunk::<1>().ok_or(UnwrapError)?;
        let (epoch, nonce) = rest.split_first_chunk::<4>().ok_or(UnwrapError)?;
        let epoch = u32::from_be_bytes(*epoch);
        if *version != VERSION || epoch != self.epoch {
            return Err(UnwrapError);
        }
        let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| UnwrapError)?;
        let mut opened = Zeroizing::new(sealed.to_vec());
        let len = self.key.open_in_place(nonce, Aad::from(self.aad(owner, *version, epoch)), &mut opened).map_err(|_| UnwrapError)?.len();
        opened.truncate(len);
        Ok(opened)
    }

    fn aad(&self, owner: &[u8], version: u8, epoch: u32) -> Vec<u8> {
        let epoch = epoch.to_be_bytes();
        [self.what.as_bytes(), &[0], &[version], &epoch, owner].concat()
    }
}

/// Makes and opens the calls' DEKs.
pub struct DekWrapper(WrappingKey);

impl DekWrapper {
    /// Over the record KEK of an erasure epoch.
    ///
    /// # Errors
    /// As [`WrappingKey::new`].
    pub fn new(kek: &Secret<KEY_BYTES>, epoch: u32) -> Result<Self, WrapError> {
        Ok(Self(WrappingKey::of_epoch(kek, "dek", epoch)?))
    }

    /// Wraps the DEK of `call` once more by the key of another epoch.
    ///
    /// # Errors
    /// As [`WrappingKey::unwrap`].
    pub fn rewrap(&self, call: CallId, wrapped: &WrappedDek, to: &Self) -> Result<WrappedDek, UnwrapError> {
        let opened = self.0.unwrap(call.as_bytes(), &wrapped.0)?;
        if opened.len() != DEK_BYTES {
            return Err(UnwrapError);
        }
        to.0.wrap(call.as_bytes(), &opened).map(WrappedDek).map_err(|_| UnwrapError)
    }

    /// A new random DEK for `call`, open and wrapped.
    ///
    /// # Errors
    /// As [`WrappingKey::wrap`].
    pub fn new_dek(&self, call: CallId) -> Result<(Secret<DEK_BYTES>, WrappedDek), WrapError> {
        let dek: Secret<DEK_BYTES> = Secret::try_fill(|to| SystemRandom::new().fill(to).map_err(|_| WrapError))?;
        let wrapped = self.0.wrap(call.as_bytes(), dek.expose())?;
        Ok((dek, WrappedDek(wrapped)))
    }

    /// Opens the DEK of `call`.
    ///
    /// # Errors
    /// As [`WrappingKey::unwrap`]: damaged, or another call's.
    pub fn open(&self, call: CallId, wrapped: &WrappedDek) -> Result<Secret<DEK_BYTES>, UnwrapError> {
        let opened = self.0.unwrap(call.as_bytes(), &wrapped.0)?;
        Secret::try_fill(|to| {
            let from: &[u8; DEK_BYTES] = opened.as_slice().try_into().map_err(|_| UnwrapError)?;
            to.copy_from_slice(from);
            Ok(())
        })
    }
}

/// The random number generator or the cipher failed.
#[derive(Debug, thiserror::Error)]
#[error("a key could not be wrapped: the random number generator or the cipher failed")]
pub struct WrapError;

/// The wrapped key does not open.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("a wrapped key does not open: it is damaged or belongs elsewhere")]
pub struct UnwrapError;

#[cfg(test)]
mod tests {
    use super::*;

    fn wrapper(byte: u8) -> DekWrapper {
        let kek = Secret::try_fill(|to: &mut [u8; KEY_BYTES]| {
            to.fill(byte);
            Ok::<(), ()>(())
        })
        .unwrap();
        DekWrapper::new(&kek, u32::from(byte)).unwrap()
    }

    const CALL: CallId = CallId::from_bytes(*b"0123456789abcdef");
    const OTHER: CallId = CallId::from_bytes(*b"0123456789abcdeg");

    #[test]
    fn a_wrapped_dek_opens_for_its_call_only() {
        let (dek, wrapped) = wrapper(1).new_dek(CALL).unwrap();
        assert_eq!(wrapper(1).open(CALL, &wrapped).unwrap().expose(), dek.expose());
        assert!(wrapper(1).open(OTHER, &wrapped).is_err());
        assert!(wrapper(2).open(CALL, &wrapped).is_err());
    }

    #[test]
    fn a_rewrapped_dek_opens_by_the_new_key_only() {
        let (dek, old) = wrapper(1).new_dek(CALL).unwrap();
        let new = wrapper(1).rewrap(CALL, &old, &wrapper(2)).unwrap();
        assert_eq!(wrapper(2).open(CALL, &new).unwrap().expose(), dek.expose());
        assert!(wrapper(1).open(CALL, &new).is_err());
        assert!(wrapper(1).rewrap(OTHER, &old, &wrapper(2)).is_err());
        let same_key_other_epoch = DekWrapper(
            WrappingKey::of_epoch(
                &Secret::try_fill(|to: &mut [u8; KEY_BYTES]| {
                    to.fill(1);
                    Ok::<(), ()>(())
                })
                .unwrap(),
                "dek",
                9,
            )
            .unwrap(),
        );
        assert!(same_key_other_epoch.open(CALL, &old).is_err());
    }

    #[test]
    fn a_wrapped_dek_with_any_bit_flipped_or_cut_anywhere_is_refused() {
        let (_, wrapped) = wrapper(1).new_dek(CALL).unwrap();
        assert_eq!(wrapped.0.len(), WRAPPED_DEK_BYTES);
        for bit in 0..wrapped.0.len() * 8 {
            let mut flipped = wrapped.clone();
            flipped.0[bit / 8] ^= 1 << (bit % 8);
            assert!(wrapper(1).open(CALL, &flipped).is_err(), "bit {bit}");
        }
        for len in 0..wrapped.0.len() {
            assert!(wrapper(1).open(CALL, &WrappedDek(wrapped.0[..len].to_vec())).is_err(), "cut to {len}");
        }
    }

    #[test]
    fn the_same_call_gets_a_new_dek_and_a_new_nonce_each_time() {
        let (one, wrapped_one) = wrapper(1).new_dek(CALL).unwrap();
        let (two, wrapped_two) = wrapper(1).new_dek(CALL).unwrap();
        assert_ne!(one.expose(), two.expose());
        assert_ne!(wrapped_one.0[5..17], wrapped_two.0[5..17]);
    }

    #[test]
    fn a_key_of_one_sort_is_not_taken_for_another() {
        let key = Secret::try_fill(|_: &mut [u8; KEY_BYTES]| Ok::<(), ()>(())).unwrap();
        let wrapped = WrappingKey::new(&key, "ca key").unwrap().wrap(b"box", b"secret").unwrap();
        assert!(WrappingKey::new(&key, "tls key").unwrap().unwrap(b"box", &wrapped).is_err());
    }
}
