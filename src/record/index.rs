//! What can be found without opening a call: keyed hashes, the seal of headers, cursors nobody else can make.
//! Trusts: the index key that the keeper handed over at start.
//! Touches: nothing.
//! Next: `job` asks it for slots and seals.

use ring::hmac;

use crate::base::secret::Secret;

use super::envelope::{Envelope, KEY_BYTES, derive};

/// HMAC-SHA-256 of a name: equal for equal names, meaningless without the index key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
pub struct KeyedHash([u8; 32]);

impl KeyedHash {
    /// The bytes.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

/// The sub-keys of the keeper's index key.
pub struct IndexKeys {
    envelope: Envelope,
    owner: Secret<KEY_BYTES>,
    idempotency: Secret<KEY_BYTES>,
    digest: Secret<KEY_BYTES>,
    cursor: Secret<KEY_BYTES>,
}

/// The cipher library refused a derivation, which it does not for these lengths.
#[derive(Debug, thiserror::Error)]
#[error("the index key could not be used; reboot the machine")]
pub struct IndexKeyError;

impl IndexKeys {
    /// Derives them.
    ///
    /// # Errors
    /// Does not happen for a 32-byte key.
    pub fn derive(index_key: &Secret<KEY_BYTES>) -> Result<Self, IndexKeyError> {
        let key = |label: &[u8]| derive(index_key, &[b"salama index 1 ", label]).map_err(|_| IndexKeyError);
        Ok(Self {
            envelope: Envelope::of_index(key(b"records")?),
            owner: key(b"owner")?,
            idempotency: key(b"idempotency")?,
            digest: key(b"digest")?,
            cursor: key(b"cursor")?,
        })
    }

    /// Seals headers, queue entries and everything else that holds no content.
    pub const fn envelope(&self) -> &Envelope {
        &self.envelope
    }

    /// Where the calls of `owner` are listed.
    pub fn owner(&self, owner: &str) -> KeyedHash {
        keyed_hash(&self.owner, &[owner.as_bytes()])
    }

    /// Where the idempotency key `key` of `owner` is remembered.
    pub fn idempotency(&self, owner: &str, key: &str) -> KeyedHash {
        keyed_hash(&self.idempotency, &[owner.as_bytes(), key.as_bytes()])
    }

    /// A digest that tells two requests apart without telling what is in them.
    pub fn digest(&self, parts: &[&[u8]]) -> KeyedHash {
        keyed_hash(&self.digest, parts)
    }

    /// A cursor that continues after job `job` in the listing named by `listing`.
    pub fn cursor(&self, listing: &[u8], job: u64) -> String {
        let job = job.to_be_bytes();
        let tag = keyed_hash(&self.cursor, &[listing, &job]);
        job.iter().chain(&tag.0).map(|byte| format!("{byte:02x}")).collect()
    }

    /// The job number in a cursor that [`Self::cursor`] made for the same listing.
    pub fn read_cursor(&self, listing: &[u8], cursor: &str) -> Option<u64> {
        let bytes = from_hex::<40>(cursor)?;
        let (job, tag) = bytes.split_first_chunk::<8>()?;
        let key = hmac::Key::new(hmac::HMAC_SHA256, self.cursor.expose());
        hmac::verify(&key, &framed(&[listing, job]), tag).ok()?;
        Some(u64::from_be_bytes(*job))
    }
}

fn keyed_hash(key: &Secret<KEY_BYTES>, parts: &[&[u8]]) -> KeyedHash {
    let key = hmac::Key::new(hmac::HMAC_SHA256, key.expose());
    let mut hash = [0; 32];
    for (to, from) in hash.iter_mut().zip(hmac::sign(&key, &framed(parts)).as_ref()) {
        *to = *from;
    }
    KeyedHash(hash)
}

/// Each part after its length, so that no two lists of parts give the same bytes.
fn framed(parts: &[&[u8]]) -> Vec<u8> {
    let mut framed = Vec::new();
    for part in parts {
        framed.extend_from_slice(&u64::try_from(part.len()).unwrap_or(u64::MAX).to_be_bytes());
        framed.extend_from_slice(part);
    }
    framed
}

fn from_hex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let (pairs, []) = text.as_bytes().as_chunks::<2>() else { return None };
    let digit =
        |digit: u8| char::from(digit).to_digit(16).filter(|_| !digit.is_ascii_uppercase()).and_then(|value| u8::try_from(value).ok());
    let bytes: Option<Vec<u8>> = pairs.iter().map(|[high, low]| Some(digit(*high)? << 4 | digit(*low)?)).collect();
    bytes?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(fill: u8) -> IndexKeys {
        let key = Secret::try_fill(|to| {
            to.fill(fill);
            Ok::<(), ()>(())
        });
        IndexKeys::derive(&key.unwrap()).unwrap()
    }

    #[test]
    fn a_cursor_is_read_back_for_its_own_listing_only() {
        let cursor = keys(1).cursor(b"own a", 77);
        assert_eq!(keys(1).read_cursor(b"own a", &cursor), Some(77));
        assert_eq!(keys(1).read_cursor(b"own b", &cursor), None);
        assert_eq!(keys(2).read_cursor(b"own a", &cursor), None);
    }

    #[test]
    fn a_cursor_that_was_changed_is_refused() {
        let cursor = keys(1).cursor(b"all", 77);
        let forged = cursor.replacen("4d", "4e", 1);
        for hostile in [forged.as_str(), "", "zz", &cursor[1..], &cursor.to_uppercase(), "../../etc/passwd"] {
            assert_eq!(keys(1).read_cursor(b"all", hostile), None, "{hostile}");
        }
    }

    #[test]
    fn names_and_keys_cannot_be_glued_into_each_other() {
        assert_ne!(keys(1).idempotency("a", "bc"), keys(1).idempotency("ab", "c"));
    }

    #[test]
    fn hashes_of_one_purpose_say_nothing_of_another() {
        assert_ne!(keys(1).owner("a"), keys(1).digest(&[b"a"]));
    }
}
