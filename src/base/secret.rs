//! Bytes that must not be printed, copied or left behind.
//! Trusts: the process is not dumpable and its memory is locked (`sandbox` sees to both).
//! Touches: only its own memory, which it wipes on drop.
//! Next: `keeper` and `keys` make ciphers of it.

use std::fmt;
use std::ops::{Deref, DerefMut};

use serde::de::{Error as _, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

/// `N` secret bytes on the heap: wiped on drop, neither `Clone` nor printable.
#[derive(Zeroize, ZeroizeOnDrop)]
pub struct Secret<const N: usize>(Box<[u8; N]>);

impl<const N: usize> Secret<N> {
    /// Fills a new secret in place, so that no copy stays on the stack.
    ///
    /// # Errors
    /// What `fill` returns.
    pub fn try_fill<E>(fill: impl FnOnce(&mut [u8; N]) -> Result<(), E>) -> Result<Self, E> {
        let mut secret = Self(Box::new([0; N]));
        fill(&mut secret.0)?;
        Ok(secret)
    }

    /// The bytes, for the one call that needs them.
    pub const fn expose(&self) -> &[u8; N] {
        &self.0
    }
}

/// Plain bytes of any length: wiped on drop with the speed of `memset`, where `Zeroizing<Vec<u8>>` writes byte by byte.
pub struct Wiped(Vec<u8>);

impl Wiped {
    /// Takes bytes over. The vector must not have grown since they came, or the place before is not wiped.
    pub const fn new(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }

    /// Forgets what comes after the first `len` bytes; it is wiped with the rest.
    pub fn truncate(&mut self, len: usize) {
        self.0.truncate(len);
    }
}

impl Deref for Wiped {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl DerefMut for Wiped {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.0
    }
}

impl Drop for Wiped {
    fn drop(&mut self) {
        self.0.clear();
        // Within its capacity: nothing is moved.
        self.0.resize(self.0.capacity(), 0);
        zeroize::optimization_barrier(self.0.as_slice());
    }
}

/// A secret on its way over an inherited channel between two of our own processes.
/// The only place where a secret is encoded: a [`Secret`] itself has no serde.
pub struct SecretInTransit<const N: usize>(pub Secret<N>);

impl<const N: usize> Serialize for SecretInTransit<N> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(self.0.expose())
    }
}

impl<'de, const N: usize> Deserialize<'de> for SecretInTransit<N> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_bytes(SecretVisitor::<N>)
    }
}

struct SecretVisitor<const N: usize>;

impl<'de, const N: usize> Visitor<'de> for SecretVisitor<N> {
    type Value = SecretInTransit<N>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{N} bytes")
    }

    fn visit_bytes<E: serde::de::Error>(self, bytes: &[u8]) -> Result<Self::Value, E> {
        if bytes.len() != N {
            return Err(E::invalid_length(bytes.len(), &self));
        }
        Secret::try_fill(|to| {
            to.copy_from_slice(bytes);
            Ok(())
        })
        .map(SecretInTransit)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, _: A) -> Result<Self::Value, A::Error> {
        Err(A::Error::custom("a secret travels as bytes"))
    }
}

/// Words that were typed or are shown once, on their way over an inherited channel: wiped on drop, neither `Clone` nor printable.
pub struct SecretText(Zeroizing<String>);

impl SecretText {
    /// Takes words over. The string must not have grown since they came, or the place before is not wiped.
    pub fn new(text: String) -> Self {
        Self(Zeroizing::new(text))
    }

    /// The words, for the one call that needs them.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl Serialize for SecretText {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for SecretText {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(Self::new)
    }
}

/// Runs `work`, then overwrites the stack that it used: ciphers leave their expanded keys there, and hashes what they were given.
///
/// What `work` returns is not wiped; return secrets as [`Secret`], whose bytes are on the heap.
pub fn leaving_no_trace<T>(work: impl FnOnce() -> T) -> T {
    let done = one_frame_down(work);
    wipe_below();
    done
}

/// A frame of its own for `work`, so that [`wipe_below`] takes its place afterwards.
#[inline(never)]
fn one_frame_down<T>(work: impl FnOnce() -> T) -> T {
    work()
}

#[inline(never)]
fn wipe_below() {
    /// More than the key schedules and hash states of one record or chunk: these take about 3 KiB.
    const DEPTH: usize = 12 << 10;
    std::hint::black_box(&mut [0_u8; DEPTH]);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two traits give every printable type this name, one every other: it means something for those only that cannot be printed.
    trait Unprintable<Which> {
        const IS: bool = true;
    }
    struct Printable;
    impl<T> Unprintable<()> for T {}
    impl<T: fmt::Debug> Unprintable<Printable> for T {}
    struct Shown;
    impl<T: fmt::Display> Unprintable<Shown> for T {}

    /// It does not compile once one of them can be printed; a type that holds one cannot derive it then either.
    #[test]
    fn no_secret_can_be_printed() {
        let unprintable = [
            <Secret<32> as Unprintable<_>>::IS,
            <SecretInTransit<32> as Unprintable<_>>::IS,
            <SecretText as Unprintable<_>>::IS,
            <Wiped as Unprintable<_>>::IS,
        ];
        assert!(unprintable.iter().all(|is| *is));
    }

    #[test]
    fn a_secret_of_the_wrong_length_is_not_taken_from_a_channel() {
        let sent = postcard::to_stdvec(&SecretInTransit(Secret::<4>::try_fill(|_| Ok::<(), ()>(())).unwrap())).expect("encodes");
        assert!(postcard::from_bytes::<SecretInTransit<5>>(&sent).is_err());
    }
}
