//! AES-256-GCM around each record, bound to the one place where it may lie.
//! Trusts: the random number generator; 96-bit random nonces stay below 2^32 values under one sub-key.
//! Touches: nothing.
//! Next: [`super::store`] takes nothing but the [`SealedRecord`] made here.
//!
//! Layout: version u16 LE, nonce 12, ciphertext, tag 16.
//! Associated data: `salama record 1`, table name, 0, version, key (NIST SP 800-38D for GCM; the binding stops moving values between rows).

use std::sync::LazyLock;

use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::error::Unspecified;
use ring::hkdf;
use ring::rand::{SecureRandom, SystemRandom};
use serde::Serialize;
use serde::de::DeserializeOwned;
use zeroize::{Zeroize, Zeroizing};

use crate::base::secret::{Secret, Wiped, leaving_no_trace};

use super::schema::{Custody, Slot};

/// Bytes of a key.
pub const KEY_BYTES: usize = 32;
const VERSION_BYTES: usize = 2;
const AAD_DOMAIN: &[u8] = b"salama record 1";

/// A value that only its key opens, and only in its slot.
#[derive(Clone, PartialEq, Eq)]
pub struct SealedRecord(Vec<u8>);

impl SealedRecord {
    /// As the database gave it; whether it is one of ours shows when it is opened.
    pub(in crate::record) fn from_stored(bytes: &[u8]) -> Self {
        Self(bytes.to_vec())
    }

    /// Whether it could be a record of `slot` as far as shows without the key: its version and its least length.
    pub(in crate::record) fn has_form_of(&self, slot: &Slot) -> bool {
        let version = self.0.first_chunk::<VERSION_BYTES>();
        version == Some(&slot.table().version().to_le_bytes()) && self.0.len() >= VERSION_BYTES + NONCE_LEN + AES_256_GCM.tag_len()
    }

    /// For the database.
    pub(in crate::record) fn as_stored(&self) -> &[u8] {
        &self.0
    }
}

/// A key that seals and opens records of one custody. Wiped on drop.
///
/// Ciphers are made for one operation at a time from sub-keys by table, so no expanded key outlives it.
pub struct Envelope {
    custody: Custody,
    key: Secret<KEY_BYTES>,
}

/// Why a record could not be sealed.
#[derive(Debug, thiserror::Error)]
pub enum SealError {
    /// A programming fault: this table's values are sealed by another key.
    #[error("records of table {0} are not sealed by this key")]
    WrongCustody(&'static str),
    /// The generator or the cipher failed.
    #[error("a cryptographic operation failed; reboot the machine")]
    Crypto,
    /// The value could not be encoded.
    #[error("a record could not be encoded")]
    Encode(#[source] postcard::Error),
}

/// Why a record could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// A programming fault: this table's values are sealed by another key.
    #[error("records of table {0} are not sealed by this key")]
    WrongCustody(&'static str),
    /// Written by another version of this program.
    #[error("a record of table {table} has version {found}, this program reads {expected}; update it or restore a backup")]
    Version {
        /// Where.
        table: &'static str,
        /// In the store.
        found: u16,
        /// Ours.
        expected: u16,
    },
    /// Changed, moved, truncated, or sealed by another key.
    #[error("a record of table {0} does not open: it was damaged, moved or belongs to another key")]
    Forged(&'static str),
    /// It opened, but what is inside is no such value.
    #[error("a record of table {0} opened but holds no valid value")]
    Decode(&'static str),
}

impl Envelope {
    /// For the records of one call, from its data-encryption key.
    pub const fn of_call(dek: Secret<KEY_BYTES>) -> Self {
        Self { custody: Custody::Call, key: dek }
    }

    pub(in crate::record) const fn of_index(key: Secret<KEY_BYTES>) -> Self {
        Self { custody: Custody::Index, key }
    }

    /// A sub-key for another purpose than records, for example the recording's chunks.
    ///
    /// # Errors
    /// `Crypto`, which ring does not give for these lengths.
    pub(in crate::record) fn sub_key(&self, label: &'static str) -> Result<Secret<KEY_BYTES>, SealError> {
        leaving_no_trace(|| derive(&self.key, &[b"salama sub-key 1 ", label.as_bytes()])).map_err(|_| SealError::Crypto)
    }

    /// Seals `plaintext` for `slot`.
    ///
    /// # Errors
    /// `WrongCustody` when the slot's table belongs to another kind of key; `Crypto`.
    pub fn seal(&self, slot: &Slot, plaintext: &[u8]) -> Result<SealedRecord, SealError> {
        let table = slot.table();
        if table.custody() != self.custody {
            return Err(SealError::WrongCustody(table.name()));
        }
        let version = table.version();
        let mut nonce = [0; NONCE_LEN];
        SystemRandom::new().fill(&mut nonce).map_err(|_| SealError::Crypto)?;
        let mut sealed = Vec::with_capacity(VERSION_BYTES + NONCE_LEN + plaintext.len() + AES_256_GCM.tag_len());
        sealed.extend_from_slice(&version.to_le_bytes());
        sealed.extend_from_slice(&nonce);
        sealed.extend_from_slice(plaintext);
        let body = sealed.get_mut(VERSION_BYTES + NONCE_LEN..).ok_or(SealError::Crypto)?;
        let aad = Aad::from(associated_data(slot, version));
        let nonce = Nonce::assume_unique_for_key(nonce);
        let Ok(tag) = leaving_no_trace(|| self.cipher(slot)?.seal_in_place_separate_tag(nonce, aad, body)) else {
            sealed.zeroize();
            return Err(SealError::Crypto);
        };
        sealed.extend_from_slice(tag.as_ref());
        Ok(SealedRecord(sealed))
    }

    /// Opens what [`Self::seal`] made for the same slot with the same key.
    ///
    /// # Errors
    /// `Forged` for everything that is not exactly that.
    pub fn open(&self, slot: &Slot, sealed: &SealedRecord) -> Result<Wiped, OpenError> {
        let table = slot.table();
        let forged = || OpenError::Forged(table.name());
        if table.custody() != self.custody {
            return Err(OpenError::WrongCustody(table.name()));
        }
        let (version, rest) = sealed.0.split_first_chunk::<VERSION_BYTES>().ok_or_else(forged)?;
        let version = u16::from_le_bytes(*version);
        if version != table.version() {
            return Err(OpenError::Version { table: table.name(), found: version, expected: table.version() });
        }
        let (nonce, body) = rest.split_first_chunk::<NONCE_LEN>().ok_or_else(forged)?;
        let mut body = Wiped::new(body.to_vec());
        let aad = Aad::from(associated_data(slot, version));
        let nonce = Nonce::assume_unique_for_key(*nonce);
        let opened = leaving_no_trace(|| Ok::<_, Unspecified>(self.cipher(slot)?.open_in_place(nonce, aad, &mut body)?.len()));
        let opened = opened.map_err(|_| forged())?;
        body.truncate(opened);
        Ok(body)
    }

    /// Encodes and seals a value.
    ///
    /// # Errors
    /// As [`Self::seal`]; `Encode` for types that postcard cannot hold.
    pub fn seal_value<T: Serialize>(&self, slot: &Slot, value: &T) -> Result<SealedRecord, SealError> {
        let plaintext = Zeroizing::new(postcard::to_stdvec(value).map_err(SealError::Encode)?);
        self.seal(slot, &plaintext)
    }

    /// Opens and decodes a value.
    ///
    /// # Errors
    /// As [`Self::open`]; `Decode` when it holds another type.
    pub fn open_value<T: DeserializeOwned>(&self, slot: &Slot, sealed: &SealedRecord) -> Result<T, OpenError> {
        let plaintext = self.open(slot, sealed)?;
        match postcard::take_from_bytes(&plaintext) {
            Ok((value, [])) => Ok(value),
            _ => Err(OpenError::Decode(slot.table().name())),
        }
    }

    fn cipher(&self, slot: &Slot) -> Result<LessSafeKey, Unspecified> {
        let key = derive(&self.key, &[b"salama record key 1 ", slot.table().name().as_bytes()])?;
        Ok(LessSafeKey::new(UnboundKey::new(&AES_256_GCM, key.expose())?))
    }
}

/// HKDF-SHA-256 (RFC 5869) with `info` naming the purpose.
pub(in crate::record) fn derive(key: &Secret<KEY_BYTES>, info: &[&[u8]]) -> Result<Secret<KEY_BYTES>, Unspecified> {
    static SALT: LazyLock<hkdf::Salt> = LazyLock::new(|| hkdf::Salt::new(hkdf::HKDF_SHA256, b"salama store 1"));
    let prk = SALT.extract(key.expose());
    Secret::try_fill(|to| prk.expand(info, hkdf::HKDF_SHA256)?.fill(to))
}

fn associated_data(slot: &Slot, version: u16) -> Vec<u8> {
    let name = slot.table().name().as_bytes();
    [AAD_DOMAIN, name, &[0], &version.to_le_bytes(), slot.key()].concat()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::base::ids::CallId;
    use crate::record::schema::Table;

    fn secret(fill: u8) -> Secret<KEY_BYTES> {
        Secret::try_fill(|to| {
            to.fill(fill);
            Ok::<(), ()>(())
        })
        .unwrap()
    }

    fn slot(table: Table, call: u8) -> Slot {
        Slot::of_call(table, CallId::from_bytes([call; 16]))
    }

    proptest! {
        #[test]
        fn what_was_sealed_is_opened(plaintext: Vec<u8>, call: u8) {
            let envelope = Envelope::of_call(secret(7));
            let sealed = envelope.seal(&slot(Table::Clear, call), &plaintext).unwrap();
            prop_assert_eq!(&*envelope.open(&slot(Table::Clear, call), &sealed).unwrap(), plaintext.as_slice());
        }

        #[test]
        fn a_changed_bit_is_noticed(plaintext: Vec<u8>, position: prop::sample::Index, bit in 0_u8..8) {
            let envelope = Envelope::of_call(secret(7));
            let slot = slot(Table::Clear, 1);
            let mut sealed = envelope.seal(&slot, &plaintext).unwrap();
            let at = position.index(sealed.0.len());
            sealed.0[at] ^= 1 << bit;
            prop_assert!(envelope.open(&slot, &sealed).is_err());
        }

        #[test]
        fn a_truncated_record_is_noticed(plaintext: Vec<u8>, keep: prop::sample::Index) {
            let envelope = Envelope::of_call(secret(7));
            let slot = slot(Table::Clear, 1);
            let mut sealed = envelope.seal(&slot, &plaintext).unwrap();
            sealed.0.truncate(keep.index(sealed.0.len()));
            prop_assert!(envelope.open(&slot, &sealed).is_err());
        }

        #[test]
        fn bytes_of_a_stranger_never_open(bytes: Vec<u8>) {
            let envelope = Envelope::of_call(secret(7));
            prop_assert!(envelope.open(&slot(Table::Clear, 1), &SealedRecord::from_stored(&bytes)).is_err());
        }
    }

    #[test]
    fn a_record_moved_to_another_key_does_not_open() {
        let envelope = Envelope::of_call(secret(7));
        let sealed = envelope.seal(&slot(Table::Clear, 1), b"content").unwrap();
        assert!(matches!(envelope.open(&slot(Table::Clear, 2), &sealed), Err(OpenError::Forged("clear"))));
    }

    #[test]
    fn a_record_moved_to_another_table_does_not_open() {
        let envelope = Envelope::of_call(secret(7));
        let sealed = envelope.seal(&slot(Table::Clear, 1), b"content").unwrap();
        assert!(matches!(envelope.open(&slot(Table::Redacted, 1), &sealed), Err(OpenError::Forged("redacted"))));
    }

    #[test]
    fn a_record_of_another_version_does_not_open() {
        let envelope = Envelope::of_call(secret(7));
        let slot = slot(Table::Clear, 1);
        let mut sealed = envelope.seal(&slot, b"content").unwrap();
        sealed.0[0] ^= 3;
        assert!(matches!(envelope.open(&slot, &sealed), Err(OpenError::Version { found: 2, expected: 1, .. })));
    }

    #[test]
    fn a_version_number_put_back_does_not_open_either() {
        let slot = slot(Table::Clear, 1);
        assert_ne!(associated_data(&slot, 1), associated_data(&slot, 2));
    }

    #[test]
    fn another_calls_key_does_not_open_it() {
        let sealed = Envelope::of_call(secret(7)).seal(&slot(Table::Clear, 1), b"content").unwrap();
        assert!(matches!(Envelope::of_call(secret(8)).open(&slot(Table::Clear, 1), &sealed), Err(OpenError::Forged(_))));
    }

    #[test]
    fn the_index_key_seals_no_content_and_a_calls_key_no_header() {
        let content = Envelope::of_index(secret(7)).seal(&slot(Table::Clear, 1), b"content");
        let header = Envelope::of_call(secret(7)).seal(&slot(Table::Header, 1), b"header");
        assert!(matches!(content, Err(SealError::WrongCustody("clear"))));
        assert!(matches!(header, Err(SealError::WrongCustody("header"))));
    }

    #[test]
    fn the_same_value_is_never_sealed_to_the_same_bytes() {
        let envelope = Envelope::of_call(secret(7));
        let slot = slot(Table::Clear, 1);
        assert!(envelope.seal(&slot, b"content").unwrap() != envelope.seal(&slot, b"content").unwrap());
    }
}
