//! The operating system's random numbers, for crates that bring their own idea of a generator.
//! Trusts: the operating system.
//! Touches: the system call getrandom.
//! Next: `recovery` and `shares`.

use std::convert::Infallible;

use hpke::rand_core::{TryCryptoRng, TryRng};
use ring::rand::{SecureRandom, SystemRandom};
use zeroize::Zeroizing;

/// Random bytes that were drawn beforehand, because the crates' generators may not fail and the system's may.
pub struct Drawn {
    bytes: Zeroizing<Vec<u8>>,
    used: usize,
    short: bool,
}

impl Drawn {
    /// Draws `count` bytes.
    ///
    /// # Errors
    /// [`RandomError`].
    pub fn new(count: usize) -> Result<Self, RandomError> {
        let mut bytes = Zeroizing::new(vec![0; count]);
        SystemRandom::new().fill(&mut bytes).map_err(|_| RandomError)?;
        Ok(Self { bytes, used: 0, short: false })
    }

    /// Whether what was made with it may be used: not when more was asked for than was drawn.
    ///
    /// # Errors
    /// [`RandomError`].
    pub fn enough<T>(&self, made: T) -> Result<T, RandomError> {
        if self.short { Err(RandomError) } else { Ok(made) }
    }
}

impl TryRng for Drawn {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        let mut bytes = [0; 4];
        self.try_fill_bytes(&mut bytes)?;
        Ok(u32::from_le_bytes(bytes))
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        let mut bytes = [0; 8];
        self.try_fill_bytes(&mut bytes)?;
        Ok(u64::from_le_bytes(bytes))
    }

    fn try_fill_bytes(&mut self, to: &mut [u8]) -> Result<(), Infallible> {
        match self.bytes.get(self.used..self.used + to.len()) {
            Some(from) => {
                to.copy_from_slice(from);
                self.used += to.len();
            }
            None => self.short = true,
        }
        Ok(())
    }
}

impl TryCryptoRng for Drawn {}

/// The operating system's random number generator failed.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("the operating system's random number generator failed; reboot the machine")]
pub struct RandomError;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_made_of_too_little_is_not_used() {
        let mut drawn = Drawn::new(6).unwrap();
        let _ = drawn.try_next_u32();
        assert!(drawn.enough(()).is_ok());
        let _ = drawn.try_next_u32();
        assert!(drawn.enough(()).is_err());
    }
}
