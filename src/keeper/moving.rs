//! The calls' DEKs under the record KEK of the epoch that counts, and the moves from one epoch to the next that the core asks for.
//! Trusts: nothing that the core says but how its store is; it could destroy its calls anyway.
//! Touches: by [`Places`] the TPM and the key directory.
//! Next: `serve` answers with what is done here.

use std::collections::HashSet;

use crate::base::clock::Timestamp;
use crate::base::ids::CallId;
use crate::base::secret::Secret;
use crate::base::told::told;
use crate::ipc::keeper::{DEK_BYTES, EpochReply, EpochRequest, ErasureClaim, KeeperDenial, REWRAP_MAX, WrappedDek};

use super::epoch::{Epoch, EpochError, Epochs, Places};
use super::erasure;
use super::hierarchy::{DeriveError, KEY_BYTES};
use super::places::PlacesError;
use super::signer::EcKey;
use super::wrap::{DekWrapper, UnwrapError, WrapError};

type BoxedPlaces = Box<dyn Places<Error = PlacesError>>;

/// Makes and opens the calls' DEKs.
pub struct Deks {
    record_kek: Secret<KEY_BYTES>,
    places: BoxedPlaces,
    epochs: Epochs,
    /// Of the epoch that counts; nothing until that is known.
    now: Option<DekWrapper>,
    /// Of the epoch that the core moves to.
    next: Option<DekWrapper>,
    /// Of all that are there, while it is not known which counts: for who only reads, as a check does after a move was cut off.
    either: Vec<DekWrapper>,
    signer: EcKey,
    /// The calls whose keys are of the epoch that counts, since the last whole move of this life; before one, nobody knows.
    living: Option<Calls>,
    /// Those whose keys were wrapped for the next one.
    rewrapped: Calls,
    /// The operator's word, with a paper, that there is no newer store than the one that is there.
    lost: bool,
    /// In the move that was begun: re-wrapped, of so many.
    moved: (usize, usize),
    /// A move was begun in this start; which epoch counts is settled before.
    begun: bool,
    /// Messages of re-wrapping for the next epoch that was written last.
    messages: u32,
    /// Moves that the TPM is still to count.
    uncounted: u32,
}

/// So many messages of re-wrapping belong to a move: twice ten million calls. What is more has the limit of a minute.
const MESSAGES_OF_A_MOVE: u32 = 20_000;

/// Ids are random: half of one tells it from all others. One that was made to look like another's only loses its certificate.
type Calls = HashSet<[u8; 8]>;

fn short(call: CallId) -> [u8; 8] {
    let mut short = [0; 8];
    short.iter_mut().zip(call.as_bytes()).for_each(|(to, from)| *to = *from);
    short
}

/// What was done, for the journal.
pub struct Said {
    /// In a word.
    pub what: &'static str,
    /// The epoch that counts then.
    pub number: Option<u32>,
    /// Calls concerned; of a move that is over, those that were re-wrapped.
    pub calls: usize,
    /// Of so many that were to be, of a move that is over.
    pub of: Option<usize>,
    /// The call, of a certificate.
    pub call: Option<CallId>,
    /// Why not.
    pub failure: Option<String>,
}

impl Deks {
    /// Reads the places. `lost`: the operator's word, with a paper, that there is no newer store than the one that is there.
    ///
    /// # Errors
    /// [`DeksError`].
    pub fn open(record_kek: Secret<KEY_BYTES>, mut places: BoxedPlaces, signer: EcKey, lost: bool) -> Result<Self, DeksError> {
        let epochs = Epochs::open(places.as_mut())?;
        let mut deks = Self {
            record_kek,
            places,
            epochs,
            now: None,
            next: None,
            either: Vec::new(),
            signer,
            living: None,
            rewrapped: Calls::new(),
            lost,
            moved: (0, 0),
            begun: false,
            messages: 0,
            uncounted: 0,
        };
        deks.derive()?;
        Ok(deks)
    }

    /// Reads a place as a move does, in a session with the TPM, so that a confinement that is too narrow shows at the start.
    ///
    /// # Errors
    /// [`PlacesError`].
    pub fn try_out(&mut self) -> Result<(), PlacesError> {
        self.places.read(0).map(drop)
    }

    /// The numbers of the epochs in the TPM's places.
    pub fn epochs(&self) -> [Option<u32>; 2] {
        self.epochs.numbers()
    }

    /// A new random DEK for `call`, open and wrapped.
    ///
    /// # Errors
    /// [`WrapError`], also while it is not known which epoch counts.
    pub fn new_dek(&mut self, call: CallId) -> Result<(Secret<DEK_BYTES>, WrappedDek), WrapError> {
        let made = self.now.as_ref().ok_or(WrapError)?.new_dek(call)?;
        if let Some(living) = &mut self.living {
            living.insert(short(call));
        }
        Ok(made)
    }

    /// Opens the DEK of `call`, of the epoch that counts or of the one that the core moves to; of any that is there, until that is settled.
    ///
    /// # Errors
    /// [`UnwrapError`]: damaged, another call's, or of an epoch that is gone.
    pub fn open_dek(&self, call: CallId, wrapped: &WrappedDek) -> Result<Secret<DEK_BYTES>, UnwrapError> {
        let by = |wrapper: &Option<DekWrapper>| wrapper.as_ref().ok_or(UnwrapError)?.open(call, wrapped);
        let opened = by(&self.now).or_else(|_| by(&self.next));
        opened.or_else(|error| self.either.iter().find_map(|wrapper| wrapper.open(call, wrapped).ok()).ok_or(error))
    }

    /// Does what the core asks; and says it for the journal.
    pub fn epoch(&mut self, request: EpochRequest, now: Timestamp) -> (Said, Result<EpochReply, KeeperDenial>) {
        let mut said = Said { what: word(&request), number: None, calls: 0, of: None, call: None, failure: None };
        let done = match request {
            EpochRequest::Settle { .. } if self.begun => Err(EpochError::Unsettled),
            EpochRequest::Settle { store } => {
                (self.living, self.rewrapped) = (None, Calls::new());
                self.epochs.settle(self.places.as_mut(), store, self.lost).map(|number| EpochReply::At { number })
            }
            EpochRequest::Begin => {
                (self.moved, self.begun) = ((0, 0), true);
                self.begin().map(|number| EpochReply::At { number })
            }
            EpochRequest::Committed { number } => {
                (said.calls, said.of) = (self.moved.0, Some(self.moved.1));
                self.committed(number).map(|()| EpochReply::Done)
            }
            EpochRequest::Abort => {
                self.epochs.abort();
                Ok(EpochReply::Done)
            }
            EpochRequest::Rewrap(calls) => {
                said.calls = calls.len();
                return self.answered(said, |deks| deks.rewrap(&calls));
            }
            EpochRequest::Certify(claim) => {
                said.call = Some(claim.call);
                return self.answered(said, |deks| deks.certify(&claim, now));
            }
        };
        let done = done.map_err(|error| {
            said.failure = Some(told(&error));
            denial(&error)
        });
        let derived = self.derive();
        said.number = self.epochs.current().map(Epoch::number);
        (said, derived.map_err(|_| KeeperDenial::Internal).and(done))
    }

    fn answered(
        &mut self,
        mut said: Said,
        answer: impl FnOnce(&mut Self) -> Result<EpochReply, KeeperDenial>,
    ) -> (Said, Result<EpochReply, KeeperDenial>) {
        let done = answer(self);
        said.number = self.epochs.current().map(Epoch::number);
        said.failure = done.as_ref().err().map(ToString::to_string);
        (said, done)
    }

    fn begin(&mut self) -> Result<u32, EpochError<PlacesError>> {
        let made = self.epochs.made();
        let begun = self.epochs.begin(self.places.as_mut());
        if self.epochs.made() != made {
            self.rewrapped.clear();
            self.messages = 0;
        }
        begun
    }

    fn committed(&mut self, number: u32) -> Result<(), EpochError<PlacesError>> {
        let counted = self.epochs.current().map(Epoch::number);
        let committed = self.epochs.committed(self.places.as_mut(), number);
        // Also when what follows has failed: it counts.
        if self.epochs.current().map(Epoch::number) != counted {
            self.living = Some(std::mem::take(&mut self.rewrapped));
            self.uncounted = self.uncounted.saturating_add(1);
        }
        committed
    }

    /// Each in its place; what is of the next epoch already stays as it is, what does not open is left out: nobody could read it before.
    fn rewrap(&mut self, calls: &[(CallId, WrappedDek)]) -> Result<EpochReply, KeeperDenial> {
        let (Some(now), Some(next)) = (&self.now, &self.next) else { return Err(KeeperDenial::EpochOutOfOrder) };
        if calls.len() > REWRAP_MAX {
            return Err(KeeperDenial::BadRequest);
        }
        self.epochs.used();
        self.messages = self.messages.saturating_add(1);
        let mut one = |(call, wrapped): &(CallId, WrappedDek)| {
            let new = now.rewrap(*call, wrapped, next).ok().or_else(|| next.open(*call, wrapped).ok().map(|_| wrapped.clone()))?;
            self.rewrapped.insert(short(*call));
            Some(new)
        };
        let rewrapped: Vec<_> = calls.iter().map(&mut one).collect();
        self.moved.0 = self.moved.0.saturating_add(rewrapped.iter().flatten().count());
        self.moved.1 = self.moved.1.saturating_add(rewrapped.len());
        Ok(EpochReply::Rewrapped(rewrapped))
    }

    /// Only what can be opened by nobody any more is certified to be erased: its epoch is destroyed, and its key was not wrapped anew
    /// when that happened, which only a keeper knows that was there.
    fn certify(&mut self, claim: &ErasureClaim, now: Timestamp) -> Result<EpochReply, KeeperDenial> {
        let number = self.epochs.current().map(Epoch::number).filter(|number| claim.epoch < *number && !self.epochs.holds(claim.epoch));
        let gone = self.living.as_ref().is_some_and(|living| !living.contains(&short(claim.call)));
        let number = number.filter(|_| gone).ok_or(KeeperDenial::EpochOutOfOrder)?;
        // A certificate must not promise more than is sure.
        let elsewhere = self.places.are_elsewhere().unwrap_or(true);
        erasure::certify(&self.signer, claim, erasure::Destroyed { epoch_now: number, elsewhere }, now)
            .map(EpochReply::Certificate)
            .map_err(|_| KeeperDenial::Internal)
    }

    /// Whether [`EpochRequest::Begin`] would write to the TPM: a move that is only tried again does not.
    pub const fn wears(&self) -> bool {
        self.epochs.wears()
    }

    /// Whether the move that is begun has paid for this: its end, and keys to re-wrap, as many as a move may have.
    pub fn is_paid(&self, request: &EpochRequest) -> bool {
        self.epochs.next().is_some_and(|next| match request {
            EpochRequest::Rewrap(_) => self.messages < MESSAGES_OF_A_MOVE,
            EpochRequest::Committed { number } => *number == next.number(),
            EpochRequest::Abort => true,
            EpochRequest::Settle { .. } | EpochRequest::Begin | EpochRequest::Certify(_) => false,
        })
    }

    /// Whether a move is still to be counted, which it has paid for. Each once.
    pub const fn takes_paid_count(&mut self) -> bool {
        let is_paid = self.uncounted > 0;
        self.uncounted = self.uncounted.saturating_sub(1);
        is_paid
    }

    /// How many next epochs were written to the TPM in this life, or may have been.
    pub const fn written(&self) -> u64 {
        self.epochs.made()
    }

    fn derive(&mut self) -> Result<(), DeksError> {
        let wrapper = |epoch: Option<&Epoch>| -> Result<Option<DekWrapper>, DeksError> {
            epoch.map(|epoch| Ok(DekWrapper::new(&epoch.kek(&self.record_kek)?, epoch.number())?)).transpose()
        };
        (self.now, self.next) = (wrapper(self.epochs.current())?, wrapper(self.epochs.next())?);
        let unsettled = self.epochs.here().filter(|_| self.now.is_none());
        self.either = unsettled.filter_map(|epoch| wrapper(Some(epoch)).transpose()).collect::<Result<_, _>>()?;
        Ok(())
    }
}

const fn word(request: &EpochRequest) -> &'static str {
    match request {
        EpochRequest::Settle { .. } => "settle",
        EpochRequest::Begin => "begin",
        EpochRequest::Rewrap(_) => "rewrap",
        EpochRequest::Committed { .. } => "committed",
        EpochRequest::Abort => "abort",
        EpochRequest::Certify(_) => "certify",
    }
}

const fn denial<E>(error: &EpochError<E>) -> KeeperDenial {
    match error {
        EpochError::Other { .. } => KeeperDenial::OtherEpoch,
        EpochError::Older { .. } => KeeperDenial::OlderKeys,
        EpochError::Unsettled => KeeperDenial::EpochOutOfOrder,
        EpochError::EmptyStore => KeeperDenial::EmptyStore,
        EpochError::Nothing | EpochError::Places(_) | EpochError::Random(_) => KeeperDenial::EpochFailed,
    }
}

/// Why the DEKs' keys are not there.
#[derive(Debug, thiserror::Error)]
pub enum DeksError {
    /// The places.
    #[error(transparent)]
    Places(#[from] PlacesError),
    /// Derivation.
    #[error(transparent)]
    Derive(#[from] DeriveError),
    /// The cipher.
    #[error(transparent)]
    Wrap(#[from] WrapError),
}

/// Places of a test's own.
#[cfg(test)]
pub mod memory {
    use super::*;

    /// Two, and no recovery slot.
    #[derive(Default)]
    pub struct Memory {
        places: [Option<(u32, [u8; KEY_BYTES])>; 2],
        carried: Vec<u32>,
    }

    impl Places for Memory {
        type Error = PlacesError;

        fn hold(&mut self) -> Result<(), PlacesError> {
            Ok(())
        }

        fn release(&mut self) {}

        fn read(&mut self, place: usize) -> Result<Option<Epoch>, PlacesError> {
            Ok(self.places[place].and_then(|(number, secret)| Epoch::from_parts(number, &secret)))
        }

        fn write(&mut self, place: usize, epoch: Option<&Epoch>) -> Result<(), PlacesError> {
            self.places[place] = epoch.map(|epoch| (epoch.number(), *epoch.secret().expose()));
            Ok(())
        }

        fn are_elsewhere(&mut self) -> Result<bool, PlacesError> {
            Ok(false)
        }

        fn carried(&mut self) -> Result<Vec<u32>, PlacesError> {
            Ok(self.carried.clone())
        }

        fn carry(&mut self, epochs: &[&Epoch]) -> Result<(), PlacesError> {
            self.carried = epochs.iter().map(|epoch| epoch.number()).collect();
            Ok(())
        }
    }

    /// DEKs at epoch 1.
    pub fn deks() -> Deks {
        let mut places = Memory::default();
        places.write(0, Some(&Epoch::new(1).unwrap())).unwrap();
        of(places)
    }

    /// DEKs as each of these places has them, and of both at once.
    pub fn deks_cut_off() -> [Deks; 3] {
        let (first, second) = ((1, [1; KEY_BYTES]), (2, [2; KEY_BYTES]));
        [[Some(first), None], [None, Some(second)], [Some(first), Some(second)]].map(|places| of(Memory { places, carried: Vec::new() }))
    }

    fn of(places: Memory) -> Deks {
        let kek = Secret::try_fill(|_| Ok::<(), ()>(())).unwrap();
        Deks::open(kek, Box::new(places), EcKey::generate().unwrap().0, false).unwrap()
    }
}

#[cfg(test)]
mod tests;
