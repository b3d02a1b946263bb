//! The erasure epoch: a secret in the TPM's NV memory, mixed into the record KEK and replaced after calls were erased.
//! Trusts: that what is overwritten in NV memory is gone.
//! Touches: nothing; [`Places`] does.
//! Next: `moving` runs the protocol for the core, `recovery` carries epochs to paper.
//!
//! ```text
//! place = number u32 BE | secret 32 B                          two of them; ff.. where nothing is (any more)
//! begin      (hold keyslots) [other place <- n+1]  [recovery slots carry n and n+1]
//! core       every live DEK under n+1, and the number n+1, in one durable commit: from here on n+1 counts
//! committed  [place of n <- ff] [recovery slots carry n+1]
//! aborted    n+1 stays in its place until the next move writes over it; it counts no more, for what was wrapped by it may lie on the disk
//! start      the store says which counts: the one before it is finished off, the one after it is as aborted. A store that never held a
//!            call must not say which while there are two: either may be the one of all calls
//! ```
//! `[ ]` is one write. Wherever it is cut off, the epoch that counts is in a place and in every recovery slot. A move that failed before
//! anything was wrapped by n+1 is tried again with the same one, so that failing wears nothing.

use ring::rand::{SecureRandom, SystemRandom};

use crate::base::secret::Secret;

use super::hierarchy::{DeriveError, KEY_BYTES, epoch_kek};
use super::random::RandomError;

/// Bytes of a place.
pub const PLACE_BYTES: usize = size_of::<u32>() + KEY_BYTES;
/// No epoch has this number: the place is empty.
const EMPTY: u32 = u32::MAX;

/// One epoch. Number 0 is none: boxes that were set up before there were epochs have their record KEK without a secret.
pub struct Epoch {
    number: u32,
    secret: Secret<KEY_BYTES>,
}

impl Epoch {
    /// Without a secret.
    ///
    /// # Errors
    /// None; the type is the shared one.
    pub fn none() -> Result<Self, RandomError> {
        Ok(Self { number: 0, secret: Secret::try_fill(|_| Ok(()))? })
    }

    /// A new one of this number.
    ///
    /// # Errors
    /// [`RandomError`].
    pub fn new(number: u32) -> Result<Self, RandomError> {
        Ok(Self { number, secret: Secret::try_fill(|to| SystemRandom::new().fill(to).map_err(|_| RandomError))? })
    }

    /// From number and secret.
    pub fn from_parts(number: u32, secret: &[u8; KEY_BYTES]) -> Option<Self> {
        let secret = Secret::try_fill(|to| {
            to.copy_from_slice(secret);
            Ok::<(), RandomError>(())
        });
        secret.ok().filter(|_| number != EMPTY).map(|secret| Self { number, secret })
    }

    /// Its number.
    pub const fn number(&self) -> u32 {
        self.number
    }

    /// Its secret, to be carried elsewhere.
    pub const fn secret(&self) -> &Secret<KEY_BYTES> {
        &self.secret
    }

    /// The record KEK of this epoch.
    ///
    /// # Errors
    /// [`DeriveError`].
    pub fn kek(&self, record_kek: &Secret<KEY_BYTES>) -> Result<Secret<KEY_BYTES>, DeriveError> {
        if self.number == 0 {
            return Secret::try_fill(|to| {
                to.copy_from_slice(record_kek.expose());
                Ok(())
            });
        }
        epoch_kek(record_kek, &self.secret)
    }

    /// As a place holds it.
    ///
    /// # Errors
    /// None; the type is the shared one.
    pub fn to_place(epoch: Option<&Self>) -> Result<Secret<PLACE_BYTES>, RandomError> {
        Secret::try_fill(|to| {
            to.fill(0xff);
            if let (Some(epoch), Some((number, secret))) = (epoch, to.split_first_chunk_mut()) {
                *number = epoch.number.to_be_bytes();
                secret.copy_from_slice(epoch.secret.expose());
            }
            Ok(())
        })
    }

    /// What a place holds.
    pub fn of_place(place: &Secret<PLACE_BYTES>) -> Option<Self> {
        let (number, secret) = place.expose().split_first_chunk()?;
        Self::from_parts(u32::from_be_bytes(*number), secret.try_into().ok()?)
    }
}

/// Where epochs are kept. Each write is durable when it returns, or it may not have happened.
pub trait Places {
    /// Why it failed.
    type Error;

    /// Keeps everybody else from changing the recovery slots until [`Self::release`].
    fn hold(&mut self) -> Result<(), Self::Error>;

    /// Ends it.
    fn release(&mut self);

    /// Reads a place, 0 or 1.
    fn read(&mut self, place: usize) -> Result<Option<Epoch>, Self::Error>;

    /// Writes a place, and looks that it was written.
    fn write(&mut self, place: usize, epoch: Option<&Epoch>) -> Result<(), Self::Error>;

    /// Whether places or halves of before may still be in another machine's TPM.
    fn are_elsewhere(&mut self) -> Result<bool, Self::Error>;

    /// The numbers that the recovery slots carry.
    fn carried(&mut self) -> Result<Vec<u32>, Self::Error>;

    /// Encrypts these, and the root key, to all recovery slots.
    fn carry(&mut self, epochs: &[&Epoch]) -> Result<(), Self::Error>;
}

/// The two places, and which of them counts.
pub struct Epochs {
    here: [Option<Epoch>; 2],
    /// The place that counts; unknown while both could.
    current: Option<usize>,
    /// The other place is the next epoch's, and the core re-wraps.
    begun: bool,
    /// The other place holds a next epoch by which nothing was wrapped yet.
    unused: bool,
    /// Next epochs that were written in this life, or may have been.
    made: u64,
}

impl Epochs {
    /// Reads both places.
    ///
    /// # Errors
    /// That of the places.
    pub fn open<P: Places + ?Sized>(places: &mut P) -> Result<Self, P::Error> {
        let here = [places.read(0)?, places.read(1)?];
        let current = match &here {
            [Some(_), None] => Some(0),
            [None, Some(_)] => Some(1),
            _ => None,
        };
        Ok(Self { here, current, begun: false, unused: false, made: 0 })
    }

    /// The epoch that counts, once that is known.
    pub fn current(&self) -> Option<&Epoch> {
        self.here.get(self.current?)?.as_ref()
    }

    /// The epoch that the core is moving to.
    pub fn next(&self) -> Option<&Epoch> {
        let current = self.current.filter(|_| self.begun)?;
        self.here.get(1 - current)?.as_ref()
    }

    /// All that are in a place.
    pub fn here(&self) -> impl Iterator<Item = &Epoch> {
        self.here.iter().flatten()
    }

    /// What is in the places.
    pub fn numbers(&self) -> [Option<u32>; 2] {
        self.here.each_ref().map(|epoch| epoch.as_ref().map(Epoch::number))
    }

    /// Whether an epoch of this number is in a place.
    pub fn holds(&self, number: u32) -> bool {
        self.here().any(|epoch| epoch.number == number)
    }

    /// The store says which epoch counts: the last one that it committed; nothing when it has never held a call. Finishes what was cut off.
    /// `lost`: the operator's word that there is no other store.
    ///
    /// # Errors
    /// [`EpochError::Other`] when that epoch is gone: the store is a copy from before an erasure; [`EpochError::EmptyStore`] when an empty
    /// store would have to say which of two counts.
    pub fn settle<P: Places + ?Sized>(&mut self, places: &mut P, store: Option<u32>, lost: bool) -> Result<u32, EpochError<P::Error>> {
        let numbers = self.numbers();
        let newest = numbers.into_iter().flatten().max();
        if store.is_none() && !lost && numbers.iter().all(Option::is_some) {
            return Err(EpochError::EmptyStore);
        }
        let Some(number) = store.or(newest) else { return Err(EpochError::Nothing) };
        let Some(current) = numbers.iter().position(|here| *here == Some(number)) else {
            let here = newest.unwrap_or_default();
            return Err(if number > here { EpochError::Older { here } } else { EpochError::Other { here } });
        };
        self.current = Some(current);
        (self.begun, self.unused) = (false, false);
        self.finish(places)?;
        Ok(number)
    }

    /// Makes the next epoch. One that is begun already is offered again: the core may not know whether its store has it.
    ///
    /// # Errors
    /// [`EpochError`]; then the one that counts still does.
    pub fn begin<P: Places + ?Sized>(&mut self, places: &mut P) -> Result<u32, EpochError<P::Error>> {
        let (Some(current), Some(now)) = (self.current, self.current()) else { return Err(EpochError::Unsettled) };
        let number = now.number.checked_add(1).filter(|number| *number != EMPTY).ok_or(EpochError::Nothing)?;
        if !self.begun {
            // Before the write to the TPM, which would be for nothing while somebody is at the keyslots.
            places.hold().map_err(EpochError::Places)?;
            let made = self.make(places, 1 - current, number);
            places.release();
            made?;
            self.begun = true;
        }
        Ok(number)
    }

    fn make<P: Places + ?Sized>(&mut self, places: &mut P, other: usize, number: u32) -> Result<(), EpochError<P::Error>> {
        if !self.unused {
            let next = Epoch::new(number)?;
            self.made = self.made.saturating_add(1);
            places.write(other, Some(&next)).map_err(EpochError::Places)?;
            if let Some(place) = self.here.get_mut(other) {
                *place = Some(next);
            }
            self.unused = true;
        }
        match (self.current(), self.here.get(other).and_then(Option::as_ref)) {
            (Some(now), Some(next)) => places.carry(&[now, next]).map_err(EpochError::Places),
            _ => Err(EpochError::Unsettled),
        }
    }

    /// Whether [`Self::begin`] would write to the TPM.
    pub const fn wears(&self) -> bool {
        !self.begun && !self.unused
    }

    /// How many next epochs were made in this life, or may have been.
    pub const fn made(&self) -> u64 {
        self.made
    }

    /// Something was wrapped by the next epoch.
    pub const fn used(&mut self) {
        self.unused = false;
    }

    /// The core has committed: the epoch before is destroyed. Doing it again finishes what failed.
    ///
    /// # Errors
    /// [`EpochError`].
    pub fn committed<P: Places + ?Sized>(&mut self, places: &mut P, number: u32) -> Result<(), EpochError<P::Error>> {
        if let (Some(current), Some(next)) = (self.current, self.next())
            && next.number == number
        {
            self.current = Some(1 - current);
            (self.begun, self.unused) = (false, false);
        }
        match self.current() {
            Some(current) if current.number == number => self.finish(places),
            _ => Err(EpochError::Unsettled),
        }
    }

    /// The core has given the move up. By what was made for it nothing is wrapped any more, if anything was.
    pub const fn abort(&mut self) {
        self.begun = false;
    }

    /// Destroys what is older than the epoch that counts, everywhere.
    fn finish<P: Places + ?Sized>(&mut self, places: &mut P) -> Result<(), EpochError<P::Error>> {
        let (Some(current), Some(now)) = (self.current, self.current()) else { return Err(EpochError::Unsettled) };
        let (number, other) = (now.number, 1 - current);
        if self.here.get(other).and_then(Option::as_ref).is_some_and(|epoch| epoch.number < number) {
            places.write(other, None).map_err(EpochError::Places)?;
            if let Some(place) = self.here.get_mut(other) {
                *place = None;
            }
        }
        let carried = places.carried().map_err(EpochError::Places)?;
        if let Some(now) = self.current()
            && (!carried.contains(&number) || carried.iter().any(|carried| *carried < number))
        {
            places.carry(&[now]).map_err(EpochError::Places)?;
        }
        Ok(())
    }
}

/// Why an epoch did not move or settle.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum EpochError<E> {
    /// The store's is not there.
    #[error("the store is of an epoch that the TPM does not have; it has {here}")]
    Other {
        /// The newest that is there.
        here: u32,
    },
    /// The store's is of a time after these.
    #[error("the store is of an epoch that the TPM has not yet had; it has {here}")]
    Older {
        /// The newest that is there.
        here: u32,
    },
    /// None is there, or none can follow.
    #[error("the TPM holds no epoch")]
    Nothing,
    /// An empty store, where a move was cut off.
    #[error(
        "the store has never held a call, and the TPM holds two epochs, of a move that was cut off: either may be the one of all calls"
    )]
    EmptyStore,
    /// Out of order.
    #[error("no epoch was begun, or the store has not said which one counts")]
    Unsettled,
    /// Writing or reading.
    #[error("{0}")]
    Places(E),
    /// Randomness.
    #[error(transparent)]
    Random(#[from] RandomError),
}

#[cfg(test)]
mod tests;
