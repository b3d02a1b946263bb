//! The frame of every file in the key directory: sort, version, body, authentication, checksum.
//! Trusts: nothing of a file before its checksum, and nothing of what follows from it before its authentication.
//! Touches: nothing.
//! Next: `slots` and `keyring` say what the bodies are, `directory` reads and writes them.
//!
//! ```text
//! file = sort 16 B | version u16 BE | body | HMAC-SHA-256 32 B | SHA-256 32 B
//! ```
//! The checksum covers all before it and tells damage without any key. The HMAC covers sort, version and body under the key `file mac`,
//! which exists only once the TPM has opened the root key, and tells a file that someone else has put there.

use ring::digest::{SHA256, SHA256_OUTPUT_LEN, digest};
use ring::hmac;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::base::secret::Secret;

use super::hierarchy::KEY_BYTES;

const SORT_BYTES: usize = 16;
const HEADER: usize = SORT_BYTES + size_of::<u16>();

/// What sort of file it is, in one version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sort {
    magic: &'static [u8; SORT_BYTES],
    version: u16,
}

impl Sort {
    /// A further sort.
    pub const fn new(magic: &'static [u8; SORT_BYTES], version: u16) -> Self {
        Self { magic, version }
    }
}

/// All the ways to the root key.
pub const KEYSLOTS: Sort = Sort { magic: b"salama keyslots\n", version: 2 };
/// The same, of boxes that were set up before there were erasure epochs: read, and written as [`KEYSLOTS`] by the next change.
pub const KEYSLOTS_1: Sort = Sort { version: 1, ..KEYSLOTS };
/// The operator's leave to take an older store.
pub const ROLLBACK: Sort = Sort { magic: b"salama rollback\n", version: 1 };
/// Certificates and wrapped private keys.
pub const KEYRING: Sort = Sort { magic: b"salama keyring \n", version: 1 };

/// Writes a file.
///
/// # Errors
/// [`ContainerError::Body`] when the body cannot be encoded.
pub fn write(sort: Sort, body: &impl Serialize, mac: &MacKey) -> Result<Vec<u8>, ContainerError> {
    let body = postcard::to_stdvec(body).map_err(ContainerError::Body)?;
    let mut file = [sort.magic.as_slice(), &sort.version.to_be_bytes(), &body].concat();
    let tag = hmac::sign(&mac.0, &file);
    file.extend(tag.as_ref());
    let sum = digest(&SHA256, &file);
    file.extend(sum.as_ref());
    Ok(file)
}

/// A file whose checksum is right; not yet authenticated.
pub struct Unauthenticated<T> {
    signed: Vec<u8>,
    tag: [u8; SHA256_OUTPUT_LEN],
    body: T,
}

/// Reads a file as far as it can be without a key.
///
/// # Errors
/// [`ContainerError`]: damaged, of another sort or of another version.
pub fn read<T: DeserializeOwned>(sort: Sort, file: &[u8]) -> Result<Unauthenticated<T>, ContainerError> {
    let (rest, sum) = file.split_last_chunk::<SHA256_OUTPUT_LEN>().ok_or(ContainerError::Damaged)?;
    if digest(&SHA256, rest).as_ref() != sum {
        return Err(ContainerError::Damaged);
    }
    let (signed, tag) = rest.split_last_chunk::<SHA256_OUTPUT_LEN>().ok_or(ContainerError::Damaged)?;
    let (header, body) = signed.split_first_chunk::<HEADER>().ok_or(ContainerError::Damaged)?;
    let (magic, version) = header.split_first_chunk::<SORT_BYTES>().ok_or(ContainerError::Damaged)?;
    if magic != sort.magic {
        return Err(ContainerError::OtherSort);
    }
    let found = u16::from_be_bytes(version.try_into().map_err(|_| ContainerError::Damaged)?);
    if found != sort.version {
        return Err(ContainerError::OtherVersion { found, known: sort.version });
    }
    match postcard::take_from_bytes(body).map_err(ContainerError::Body)? {
        (body, []) => Ok(Unauthenticated { signed: signed.to_vec(), tag: *tag, body }),
        _ => Err(ContainerError::Damaged),
    }
}

impl<T> Unauthenticated<T> {
    /// For the step that leads to the key: opening the root key itself.
    pub const fn before_authentication(&self) -> &T {
        &self.body
    }

    /// The body, once the HMAC is right.
    ///
    /// # Errors
    /// [`ContainerError::Forged`].
    pub fn authenticate(self, mac: &MacKey) -> Result<T, ContainerError> {
        hmac::verify(&mac.0, &self.signed, &self.tag).map_err(|_| ContainerError::Forged)?;
        Ok(self.body)
    }

    /// An older version's body as the present one has it; what is authenticated stays the file's own bytes.
    pub fn lifted<N>(self, lift: impl FnOnce(T) -> N) -> Unauthenticated<N> {
        Unauthenticated { signed: self.signed, tag: self.tag, body: lift(self.body) }
    }
}

/// The key that authenticates the files.
pub struct MacKey(hmac::Key);

impl MacKey {
    /// From the root's `file mac` key.
    pub fn new(key: &Secret<KEY_BYTES>) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, key.expose()))
    }
}

/// Why a file was not taken.
#[derive(Debug, thiserror::Error)]
pub enum ContainerError {
    /// Checksum or length is wrong.
    #[error("the file is damaged or cut short: restore it from a backup of the key directory")]
    Damaged,
    /// It is some other file.
    #[error("the file is of another sort: restore the key directory from a backup")]
    OtherSort,
    /// Written by an older or newer program.
    #[error("the file has version {found}, this program reads version {known}: use the program that wrote it, or restore a backup")]
    OtherVersion {
        /// Version in the file.
        found: u16,
        /// Version that this program reads.
        known: u16,
    },
    /// Checksum right, content not of this sort.
    #[error("the file's content is malformed: restore it from a backup of the key directory")]
    Body(#[source] postcard::Error),
    /// Not written by this box.
    #[error("the file was not written by this box or was changed: restore the key directory from a backup and find out who changed it")]
    Forged,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mac(byte: u8) -> MacKey {
        MacKey(hmac::Key::new(hmac::HMAC_SHA256, &[byte; KEY_BYTES]))
    }

    fn file(sort: Sort) -> Vec<u8> {
        write(sort, &vec![1_u8, 2, 3], &mac(1)).unwrap()
    }

    fn opened(sort: Sort, bytes: &[u8], key: &MacKey) -> Result<Vec<u8>, ContainerError> {
        read::<Vec<u8>>(sort, bytes)?.authenticate(key)
    }

    /// What someone who can write files but has no key can do: repair the checksum.
    fn with_checksum_repaired(mut bytes: Vec<u8>) -> Vec<u8> {
        bytes.truncate(bytes.len() - SHA256_OUTPUT_LEN);
        let sum = digest(&SHA256, &bytes);
        bytes.extend(sum.as_ref());
        bytes
    }

    #[test]
    fn a_file_reads_back() {
        assert_eq!(opened(KEYSLOTS, &file(KEYSLOTS), &mac(1)).unwrap(), [1, 2, 3]);
    }

    #[test]
    fn any_flipped_bit_and_any_cut_is_named_damage() {
        let whole = file(KEYSLOTS);
        for bit in 0..whole.len() * 8 {
            let mut flipped = whole.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(matches!(opened(KEYSLOTS, &flipped, &mac(1)), Err(ContainerError::Damaged)), "bit {bit}");
        }
        for len in 0..whole.len() {
            assert!(matches!(opened(KEYSLOTS, &whole[..len], &mac(1)), Err(ContainerError::Damaged)), "cut to {len}");
        }
    }

    #[test]
    fn a_file_changed_by_someone_without_the_key_is_refused() {
        let mut changed = file(KEYSLOTS);
        changed[HEADER + 1] ^= 1;
        assert!(matches!(opened(KEYSLOTS, &with_checksum_repaired(changed), &mac(1)), Err(ContainerError::Forged)));
        assert!(matches!(opened(KEYSLOTS, &file(KEYSLOTS), &mac(2)), Err(ContainerError::Forged)));
    }

    #[test]
    fn another_version_and_another_sort_are_told_apart_from_damage() {
        let older = file(Sort { version: 0, ..KEYSLOTS });
        assert!(matches!(opened(KEYSLOTS, &older, &mac(1)), Err(ContainerError::OtherVersion { found: 0, known: 2 })));
        assert!(matches!(opened(KEYSLOTS, &file(KEYRING), &mac(1)), Err(ContainerError::OtherSort)));
    }
}
