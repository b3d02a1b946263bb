//! A recovery secret in the hands of several trustees: any t of n open the slot, fewer know nothing.
//! Trusts: `vsss-rs` for Shamir's scheme over GF(256) in constant time.
//! Touches: nothing.
//! Next: `recovery` takes the joined secret for its code.
//!
//! ```text
//! share = number u8 | threshold u8 | set u16 BE | 32 bytes
//! ```

use vsss_rs::Gf256;
use zeroize::Zeroizing;

use super::random::{Drawn, RandomError};

const SECRET: usize = 32;
/// Trustees at most.
pub const COUNT_MAX: u8 = 16;

/// A share that was read.
pub struct Share {
    /// Which of them.
    pub number: u8,
    /// How many are needed.
    pub threshold: u8,
    /// Shares of one set belong together.
    pub set: u16,
    value: Zeroizing<Vec<u8>>,
}

/// Splits a secret into `count` shares of which any `threshold` are enough.
///
/// # Errors
/// [`ShareError`].
pub fn split(secret: &[u8], threshold: u8, count: u8, set: u16) -> Result<Vec<Zeroizing<Vec<u8>>>, ShareError> {
    if threshold < 2 || count < threshold || count > COUNT_MAX || secret.len() != SECRET {
        return Err(ShareError::Numbers);
    }
    // A coefficient is taken from four random bytes.
    let mut random = Drawn::new(4 * SECRET * usize::from(threshold))?;
    let parts = Gf256::split_bytes(usize::from(threshold), usize::from(count), secret, &mut random);
    let parts = random.enough(parts)?.map_err(|_| ShareError::Numbers)?;
    let [high, low] = set.to_be_bytes();
    let mut shares = Vec::with_capacity(parts.len());
    for part in parts.into_iter().map(Zeroizing::new) {
        let (number, value) = part.split_first().ok_or(ShareError::Numbers)?;
        let mut share = Zeroizing::new(Vec::with_capacity(4 + SECRET));
        share.extend([*number, threshold, high, low]);
        share.extend(value);
        shares.push(share);
    }
    Ok(shares)
}

impl Share {
    /// From its bytes.
    ///
    /// # Errors
    /// [`ShareError::Malformed`].
    pub fn read(bytes: &[u8]) -> Result<Self, ShareError> {
        match bytes {
            &[number, threshold, high, low, ref value @ ..] if number != 0 && value.len() == SECRET => {
                let mut part = Zeroizing::new(Vec::with_capacity(1 + SECRET));
                part.push(number);
                part.extend(value);
                Ok(Self { number, threshold, set: u16::from_be_bytes([high, low]), value: part })
            }
            _ => Err(ShareError::Malformed),
        }
    }
}

/// Puts shares together. Too few, or wrong ones, give a wrong secret: the slot's public key tells.
///
/// # Errors
/// [`ShareError`] for shares that cannot belong together.
pub fn join(shares: &[Share]) -> Result<Zeroizing<Vec<u8>>, ShareError> {
    let values: Zeroizing<Vec<Vec<u8>>> = Zeroizing::new(shares.iter().map(|share| share.value.to_vec()).collect());
    Gf256::combine_bytes(&*values).map(Zeroizing::new).map_err(|_| ShareError::Together)
}

/// What is wrong with shares.
#[derive(Debug, thiserror::Error)]
pub enum ShareError {
    /// Of how many.
    #[error("shares are at least 2 of 2 and at most {COUNT_MAX} of {COUNT_MAX}, and not more may be needed than there are")]
    Numbers,
    /// No share.
    #[error("this is no share")]
    Malformed,
    /// Two of the same, or of different lengths.
    #[error("these shares do not belong together")]
    Together,
    /// Randomness.
    #[error(transparent)]
    Random(#[from] RandomError),
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shares() -> Vec<Zeroizing<Vec<u8>>> {
        split(&[0x5a; SECRET], 3, 5, 0x1234).unwrap()
    }

    fn joined(shares: &[Zeroizing<Vec<u8>>], which: &[usize]) -> Result<Vec<u8>, ShareError> {
        let read: Vec<Share> = which.iter().map(|at| Share::read(&shares[*at]).unwrap()).collect();
        join(&read).map(|secret| secret.to_vec())
    }

    #[test]
    fn any_three_of_five_open_and_no_two_do() {
        let shares = shares();
        for first in 0..5 {
            for second in first + 1..5 {
                assert_ne!(joined(&shares, &[first, second]).unwrap(), [0x5a; SECRET]);
                for third in second + 1..5 {
                    assert_eq!(joined(&shares, &[third, first, second]).unwrap(), [0x5a; SECRET]);
                }
            }
        }
    }

    #[test]
    fn a_share_says_its_number_threshold_and_set() {
        let shares = shares();
        let facts: Vec<_> = shares.iter().map(|share| Share::read(share).unwrap()).map(|share| (share.threshold, share.set)).collect();
        assert_eq!(facts, [(3, 0x1234); 5]);
        assert!(matches!(joined(&shares, &[1, 1, 2]), Err(ShareError::Together)));
        assert!(matches!(Share::read(&shares[0][..35]), Err(ShareError::Malformed)));
    }

    #[test]
    fn impossible_numbers_are_refused() {
        for (threshold, count) in [(0, 3), (1, 3), (4, 3), (2, 17)] {
            assert!(matches!(split(&[1; SECRET], threshold, count, 1), Err(ShareError::Numbers)), "{threshold} of {count}");
        }
    }
}
