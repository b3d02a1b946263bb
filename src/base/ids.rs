//! Identifiers that strangers may name: fixed size, fixed alphabet, so none is ever a path or a query.
//! Trusts: nothing; parsing accepts exactly what printing gives.
//! Touches: the operating system's random number generator.
//! Next: `record` uses them as keys, `api` parses them from paths.

use std::fmt;
use std::str::FromStr;

use ring::rand::{SecureRandom, SystemRandom};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

const CALL_ID_BYTES: usize = 16;

/// A call's name: 128 random bits, printed as 32 lower-case hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CallId([u8; CALL_ID_BYTES]);

impl CallId {
    /// A new id from the operating system's generator.
    ///
    /// # Errors
    /// [`NoRandomness`] when the generator fails, which Linux does not do after boot.
    pub fn random() -> Result<Self, NoRandomness> {
        let mut bytes = [0; CALL_ID_BYTES];
        SystemRandom::new().fill(&mut bytes).map_err(|_| NoRandomness)?;
        Ok(Self(bytes))
    }

    /// The raw bytes, as the store's key.
    pub const fn as_bytes(&self) -> &[u8; CALL_ID_BYTES] {
        &self.0
    }

    /// From the store's key.
    pub const fn from_bytes(bytes: [u8; CALL_ID_BYTES]) -> Self {
        Self(bytes)
    }
}

/// The operating system gave no random bytes.
#[derive(Debug, thiserror::Error)]
#[error("the operating system's random number generator failed; reboot the machine")]
pub struct NoRandomness;

/// Text that is not a call id.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("a call id is 32 lower-case hexadecimal digits")]
pub struct InvalidCallId;

impl FromStr for CallId {
    type Err = InvalidCallId;

    fn from_str(text: &str) -> Result<Self, InvalidCallId> {
        let digits: &[u8; 2 * CALL_ID_BYTES] = text.as_bytes().try_into().map_err(|_| InvalidCallId)?;
        let mut bytes = [0; CALL_ID_BYTES];
        let (pairs, _) = digits.as_chunks::<2>();
        for (byte, [high, low]) in bytes.iter_mut().zip(pairs) {
            *byte = hex_digit(*high)? << 4 | hex_digit(*low)?;
        }
        Ok(Self(bytes))
    }
}

fn hex_digit(digit: u8) -> Result<u8, InvalidCallId> {
    match digit {
        b'0'..=b'9' => Ok(digit - b'0'),
        b'a'..=b'f' => Ok(digit - b'a' + 10),
        _ => Err(InvalidCallId),
    }
}

impl fmt::Display for CallId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for CallId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CallId({self})")
    }
}

impl Serialize for CallId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for CallId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_printed_id_is_read_back() {
        let id = CallId::from_bytes(*b"\x00\x01\xfe\xffabcdefghijkl");
        assert_eq!(id.to_string().parse(), Ok(id));
    }

    #[test]
    fn paths_capitals_and_wrong_lengths_are_no_call_ids() {
        let hostile = [
            "",
            "../../../../etc/passwd",
            "00",
            "GG010203040506070809101112131415",
            "0001FE0304050607080910111213141A",
            "../../../../../../../../etc/passw",
            "000102030405060708090a0b0c0d0e0f00",
        ];
        for text in hostile {
            assert_eq!(text.parse::<CallId>(), Err(InvalidCallId), "{text}");
        }
    }
}
