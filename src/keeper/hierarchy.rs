//! All long-term keys from one root: HKDF-SHA-256, one label a purpose.
//! Trusts: the root key is uniformly random.
//! Touches: nothing.
//! Next: `wrap`, `keyring`, `container` and the greeting take one key each; the daemon's keeper keeps the root for its recovery slots.
//!
//! A TPM slot has keys of its own, from what its TPM seals ([`SlotKey`]).

use ring::hkdf::{HKDF_SHA256, KeyType, Prk, Salt};
use zeroize::Zeroizing;

use crate::base::secret::Secret;

/// Bytes of the root key and of every key derived from it.
pub const KEY_BYTES: usize = 32;

/// Separates these keys from those of any other program that might be handed the same root.
const SALT: &[u8] = b"salama root key v1";

/// What a derived key is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// Wraps the calls' DEKs.
    RecordKek,
    /// Keyed hashes and sealed record headers, in the core.
    Index,
    /// Signs checkpoints of the audit trail.
    Audit,
    /// Access tokens.
    Token,
    /// Wraps the certificate authority's private key.
    CaWrap,
    /// Wraps the TLS server's private key.
    TlsWrap,
    /// Authenticates the files of the key directory.
    FileMac,
    /// The password of the TPM's lockout hierarchy.
    TpmLockout,
    /// The password of the counter against older copies of the store.
    TpmRollback,
    /// Marks places in the TPM's NV memory as this box's. The only derived value that is not secret.
    NvMark,
    /// The password of the places in NV memory that hold the erasure epoch.
    TpmEpoch,
    /// Wraps the private key that signs certificates of erasure.
    ErasureWrap,
    /// Signs the keeper's own lines: the seed of an Ed25519 key.
    AuditSign,
}

/// Every purpose with its label. A label is never changed or reused: that would change or mix keys of boxes in use.
pub const LABELS: [(Purpose, &str); 13] = [
    (Purpose::RecordKek, "record kek"),
    (Purpose::Index, "index"),
    (Purpose::Audit, "audit"),
    (Purpose::Token, "token"),
    (Purpose::CaWrap, "ca wrap"),
    (Purpose::TlsWrap, "tls wrap"),
    (Purpose::FileMac, "file mac"),
    (Purpose::TpmLockout, "tpm lockout"),
    (Purpose::TpmRollback, "tpm rollback"),
    (Purpose::NvMark, "nv mark"),
    (Purpose::TpmEpoch, "tpm epoch"),
    (Purpose::ErasureWrap, "erasure wrap"),
    (Purpose::AuditSign, "audit sign"),
];

/// As [`SALT`], for what a TPM slot seals.
const SLOT_SALT: &[u8] = b"salama slot key v1";
/// Label of the half's password, from the sealed key.
const NV_AUTH: &str = "nv auth";
/// Label of the key that wraps the root key, from the sealed key and then the half.
const WRAP: &str = "wrap";

/// As [`SALT`], for what the record KEK and an epoch's secret give.
const EPOCH_SALT: &[u8] = b"salama record kek v2";
/// Label of the record KEK of an erasure epoch, from the record KEK and then the epoch's secret.
const EPOCH_KEK: &str = "epoch kek";

/// The root key, ready to derive. ring keeps the extracted key in memory that is locked but not wiped: drop the process, not only the value.
pub struct Root(Prk);

impl Root {
    /// From what the TPM opened.
    pub fn new(root: &Secret<KEY_BYTES>) -> Self {
        Self(Salt::new(HKDF_SHA256, SALT).extract(root.expose()))
    }

    /// The key for `purpose`.
    ///
    /// # Errors
    /// [`DeriveError`], which the lengths used here exclude.
    pub fn derive(&self, purpose: Purpose) -> Result<Secret<KEY_BYTES>, DeriveError> {
        let label = LABELS.iter().find(|(known, _)| *known == purpose).ok_or(DeriveError)?.1;
        expand(&self.0, label)
    }
}

/// What a TPM slot seals: with the half in NV it leads to the key that wraps the root key.
pub struct SlotKey(Secret<KEY_BYTES>);

impl SlotKey {
    /// From what the TPM opened, or from random bytes.
    pub const fn new(sealed: Secret<KEY_BYTES>) -> Self {
        Self(sealed)
    }

    /// To be sealed.
    pub const fn sealed(&self) -> &Secret<KEY_BYTES> {
        &self.0
    }

    /// The password of the place in NV memory that has the other half.
    ///
    /// # Errors
    /// As [`Root::derive`].
    pub fn half_password(&self) -> Result<Secret<KEY_BYTES>, DeriveError> {
        expand(&Salt::new(HKDF_SHA256, SLOT_SALT).extract(self.0.expose()), NV_AUTH)
    }

    /// Wraps the root key.
    ///
    /// # Errors
    /// As [`Root::derive`].
    pub fn wrap_key(&self, half: &Secret<KEY_BYTES>) -> Result<Secret<KEY_BYTES>, DeriveError> {
        expand(&Salt::new(HKDF_SHA256, SLOT_SALT).extract(&*joined(&self.0, half)), WRAP)
    }
}

/// The record KEK of an erasure epoch: without its secret, nobody who has the root key comes to it.
///
/// # Errors
/// As [`Root::derive`].
pub fn epoch_kek(record_kek: &Secret<KEY_BYTES>, secret: &Secret<KEY_BYTES>) -> Result<Secret<KEY_BYTES>, DeriveError> {
    expand(&Salt::new(HKDF_SHA256, EPOCH_SALT).extract(&*joined(record_kek, secret)), EPOCH_KEK)
}

fn joined(one: &Secret<KEY_BYTES>, other: &Secret<KEY_BYTES>) -> Zeroizing<[u8; 2 * KEY_BYTES]> {
    let mut both = Zeroizing::new([0; 2 * KEY_BYTES]);
    both.iter_mut().zip(one.expose().iter().chain(other.expose())).for_each(|(to, from)| *to = *from);
    both
}

fn expand(from: &Prk, label: &str) -> Result<Secret<KEY_BYTES>, DeriveError> {
    let info = [label.as_bytes()];
    let okm = from.expand(&info, Bytes).map_err(|_| DeriveError)?;
    Secret::try_fill(|to| okm.fill(to).map_err(|_| DeriveError))
}

/// A key could not be derived.
#[derive(Debug, thiserror::Error)]
#[error("a key could not be derived from the root key")]
pub struct DeriveError;

struct Bytes;

impl KeyType for Bytes {
    fn len(&self) -> usize {
        KEY_BYTES
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    fn root() -> Root {
        let bytes: Secret<KEY_BYTES> = Secret::try_fill(|to| {
            to.copy_from_slice(&std::array::from_fn::<u8, KEY_BYTES, _>(|at| u8::try_from(at).unwrap()));
            Ok::<(), ()>(())
        })
        .unwrap();
        Root::new(&bytes)
    }

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    #[test]
    fn derived_keys_are_those_that_openssl_derives() {
        // openssl kdf -keylen 32 -kdfopt digest:SHA256 -kdfopt hexkey:000102..1f -kdfopt salt:'salama root key v1' -kdfopt info:LABEL HKDF
        let known = [
            (Purpose::RecordKek, "63b191eab878cd23d8a4b8bd6aae5cf1ce8e52578aa0ab846f7d7f7d44cd62c7"),
            (Purpose::Index, "cbb492e7ed9e2b12e09c4098ea75b61fb2c1321bf8a7b94d88c57f701ab51238"),
            (Purpose::Audit, "8c74fb8f55e4a4bb22eae97beaaa51144486d9807681dd2f60aa4a75b8c39ef2"),
            (Purpose::Token, "a3fa4ca715ae23eab4161b056b95b3a823e2463d390af2b3ad7a921c5edcd21f"),
            (Purpose::CaWrap, "b47fc65c26164d4c03d516ee37b01ca897864af03dae1fe972fdfc748f888c2f"),
            (Purpose::TlsWrap, "4178975dfa0742b8bf12a9c044b8bb0970055ec92b08c6f782f5c13928c6b796"),
            (Purpose::FileMac, "095be9d125401c52b99e22ccd242422ae90af05a166f75db7f4c87e30a1b30bb"),
            (Purpose::TpmLockout, "1994ef9e1313e0913bbaa0321569cb7914c50304a74d4b6a668b616632199160"),
            (Purpose::TpmRollback, "adc4f8e2f83f76ef7c2b4589b68d203c911367beb5c4386934eddf306d2fd4fc"),
            (Purpose::NvMark, "00f44f6c53e2613214afea0684eb65f1cb0e7e096daf0422ce2d613b6258794a"),
            (Purpose::TpmEpoch, "1bfe272051de7c3a18cbfeddb810c617a10f8c9adc5acf9ade06e78ef3faf0cd"),
            (Purpose::ErasureWrap, "fb182ebd25914c87a4ec8d96da7ca2ab47b58a0052f929457d70ef74eb415690"),
            (Purpose::AuditSign, "82909ffacedf645fef9ca32046b8fd8f37ec6b9b2a86eec6e43be5135fb2db0d"),
        ];
        for (purpose, expected) in known {
            assert_eq!(hex(root().derive(purpose).unwrap().expose()), expected, "{purpose:?}");
        }
        assert_eq!(known.len(), LABELS.len());
    }

    #[test]
    fn an_epochs_kek_is_the_one_that_openssl_derives() {
        // As above, with the key twice, the salt 'salama record kek v2' and the label 'epoch kek'.
        let bytes = || {
            Secret::try_fill(|to: &mut [u8; KEY_BYTES]| {
                (0_u8..).zip(to).for_each(|(byte, to)| *to = byte);
                Ok::<(), ()>(())
            })
            .unwrap()
        };
        let kek = epoch_kek(&bytes(), &bytes()).unwrap();
        assert_eq!(hex(kek.expose()), "10a1a306f57a23ff596bfe58298d7dc9c6aeb3e2cd0d13c30793b9f87eec0ee0");
    }

    #[test]
    fn a_slots_keys_are_those_that_openssl_derives() {
        // As above, with the salt 'salama slot key v1'; for the second label the key twice.
        let bytes = || {
            Secret::try_fill(|to: &mut [u8; KEY_BYTES]| {
                (0_u8..).zip(to).for_each(|(byte, to)| *to = byte);
                Ok::<(), ()>(())
            })
            .unwrap()
        };
        let key = SlotKey::new(bytes());
        let known = [
            (key.half_password().unwrap(), "a55d0641831e855e7ab77c7d070f7413f9dbd3313339a558ba6bb24c43aa6f1f"),
            (key.wrap_key(&bytes()).unwrap(), "d69c8e5d0ecba9ac7c7804f012fd323d4cdbbcfcd256e30c44dc42401579d158"),
        ];
        for ((derived, expected), label) in known.iter().zip([NV_AUTH, WRAP]) {
            assert_eq!(hex(derived.expose()), *expected, "{label}");
        }
    }

    #[test]
    fn no_two_purposes_share_a_key() {
        let keys: HashSet<_> = LABELS.iter().map(|(purpose, _)| *root().derive(*purpose).unwrap().expose()).collect();
        assert_eq!(keys.len(), LABELS.len());
    }
}
