//! The keyslots while they are changed: opened, authenticated, and in nobody else's hands.
//! Trusts: the root key that opened them.
//! Touches: the key directory; the TPM, to destroy halves that are left over.
//! Next: the commands change it and save it.

use std::io;

use crate::base::clock::Clock;
use crate::base::secret::Secret;
use crate::ipc::key_log::Series;
use crate::keeper::directory::KEYSLOTS;
use crate::keeper::epoch::Epoch;
use crate::keeper::hierarchy::{KEY_BYTES, Root};
use crate::keeper::keyslots::{EpochPlaces, Half, Keyslots, Kind};
use crate::keeper::ledger::{Alone, LedgerError};
use crate::keeper::places::{self, PlacesError};
use crate::keeper::recovery::Carried;
use crate::keeper::replace::Exclusive;
use crate::keeper::slots::{authenticate, file_mac, mark};
use crate::keeper::tpm::{StorageRoot, Tpm, TpmError};

use super::lines::Lines;
use super::{Desk, ManageError};

/// What only the operator can see to.
const LEFT_ELSEWHERE: &str = "; the TPM of another machine still holds what opened the calls: with a copy of the disk from then it opens \
                              calls that were erased since. Clear that TPM; or take the disk there once more and say `salama keys verify` of a paper's slot";

/// Open for change.
pub(super) struct Book {
    exclusive: Exclusive,
    /// What it says.
    pub(super) keyslots: Keyslots,
    /// What its slots open to.
    pub(super) root_key: Secret<KEY_BYTES>,
    /// The same, ready to derive.
    pub(super) root: Root,
    /// The erasure epochs that may count, oldest first; none in boxes of before there were any.
    pub(super) epochs: Vec<Epoch>,
    /// The slot that opened it.
    pub(super) opened_by: u32,
    /// What is said of it.
    pub(super) lines: Lines,
}

impl Book {
    /// Writes the file.
    pub(super) fn save(&mut self) -> Result<(), ManageError> {
        let file = self.keyslots.write(&file_mac(&self.root)?)?;
        Ok(self.exclusive.replace(KEYSLOTS, &file)?)
    }

    /// Puts another file of the key directory in place.
    pub(super) fn replace(&self, name: &str, file: &[u8]) -> Result<(), ManageError> {
        Ok(self.exclusive.replace(name, file)?)
    }

    /// What paper is to carry. None may carry less than those before it: the newest epoch could be lost with them.
    pub(super) fn epochs_for_paper(&self) -> Result<Vec<&Epoch>, ManageError> {
        let Some(places) = &self.keyslots.epoch else { return Ok(Vec::new()) };
        let newest = self.epochs.iter().map(Epoch::number).max();
        if newest.is_none() || newest < places.carried.iter().copied().max() {
            return Err(TpmError::EpochGone.into());
        }
        Ok(self.epochs.iter().collect())
    }

    /// The slots with a code or shares.
    pub(super) fn printed(&self) -> impl Iterator<Item = u32> {
        self.keyslots.slots.iter().filter(|slot| !matches!(slot.kind, Kind::Tpm(_))).map(|slot| slot.id)
    }

    /// Whether a slot needs this half.
    fn needs(&self, half: &Half) -> bool {
        let same = |other: &Half| other.index == half.index && other.storage_root.name == half.storage_root.name;
        let of_epoch = self.keyslots.epoch.iter().flat_map(EpochPlaces::halves);
        self.keyslots.slots.iter().filter_map(|slot| slot.kind.half()).chain(of_epoch).any(|other| same(&other))
    }
}

impl<C: Clock> Desk<'_, C> {
    /// Opens the root key by a slot (`with`; by any but `without` when absent), then the file by the root key.
    pub(super) fn open(&self, with: Option<u32>, without: Option<u32>) -> Result<Book, ManageError> {
        self.open_how(|keyslots| self.unlock(keyslots, with, without))
    }

    /// As [`Self::open`], but by a code or shares only.
    pub(super) fn open_by_paper(&self, with: Option<u32>) -> Result<Book, ManageError> {
        let named = |id: u32| with.is_none_or(|with| with == id);
        self.open_how(|keyslots| {
            let papers = keyslots.slots.iter().filter(|slot| named(slot.id) && !matches!(slot.kind, Kind::Tpm(_)));
            self.unlock_printed(papers, Some(ManageError::NothingPrinted))
        })
    }

    fn open_how(&self, unlock: impl FnOnce(&Keyslots) -> Result<(Carried, u32), ManageError>) -> Result<Book, ManageError> {
        let machine = self.machine.clone().ok_or(LedgerError::Time(io::ErrorKind::NotFound.into()))?;
        // Both before anybody types: what was typed in vain would have to be typed again.
        let (exclusive, alone) = (self.directory.exclusive()?, Alone::take(&self.directory, Series::Console)?);
        let unopened = Keyslots::read(&self.directory.read(KEYSLOTS)?)?;
        let (Carried { root_key, epochs }, opened_by) = unlock(unopened.before_authentication())?;
        let root = Root::new(&root_key);
        let mut keyslots = authenticate(unopened, &root)?;
        let lines = Lines::begin(&root, alone, machine, self.what, opened_by)?;
        keyslots.was_opened(opened_by, self.now());
        let epochs = if epochs.is_empty() { self.epochs_here(&keyslots, &root)? } else { epochs };
        Ok(Book { exclusive, keyslots, root_key, root, epochs, opened_by, lines })
    }

    /// What the TPM has, for who opened by it. Where it has nothing, whatever is written next could be the end of the epoch: paper has it.
    fn epochs_here(&self, keyslots: &Keyslots, root: &Root) -> Result<Vec<Epoch>, ManageError> {
        let Some(places) = &keyslots.epoch else { return Ok(Vec::new()) };
        let mut tpm = Tpm::connect(self.tpm, Some(&places.storage_root)).map_err(|error| match error {
            TpmError::OtherTpm => TpmError::EpochGone,
            error => error,
        })?;
        match places::read_all(&mut tpm, places, root)? {
            epochs if epochs.is_empty() => Err(TpmError::EpochGone.into()),
            epochs => Ok(epochs),
        }
    }

    /// Puts the epochs into this TPM where it has them not, or not any more, before a slot of it is in the file. Says whether they were put there.
    pub(super) fn move_epochs(&self, book: &mut Book, storage_root: &StorageRoot) -> Result<bool, ManageError> {
        let Some(old) = book.keyslots.epoch.clone() else { return Ok(false) };
        let mut tpm = Tpm::connect(self.tpm, Some(storage_root))?;
        if old.storage_root.name == storage_root.name {
            match places::read_all(&mut tpm, &old, &book.root) {
                Ok(epochs) if !epochs.is_empty() => return Ok(false),
                Ok(_) | Err(PlacesError::Tpm(TpmError::EpochGone)) => {}
                Err(error) => return Err(error.into()),
            }
        }
        if book.epochs.is_empty() {
            return Err(TpmError::EpochGone.into());
        }
        let new = EpochPlaces { storage_root: storage_root.clone(), first: tpm.free_places()?, carried: old.carried.clone() };
        book.keyslots.leftovers.extend(new.halves());
        book.save()?;
        places::make(&mut tpm, &new, &book.root, &book.epochs)?;
        book.keyslots.leftovers.retain(|left| !new.halves().contains(left));
        // Both were gone, and are made anew in the same place.
        book.keyslots.leftovers.extend(old.halves().into_iter().filter(|old| !new.halves().contains(old)));
        book.keyslots.epoch = Some(new);
        book.save()?;
        Ok(true)
    }

    /// Destroys what is left over in this TPM. What cannot be destroyed now stays on the list; says so in words for the report.
    pub(super) fn settle(&self, book: &mut Book) -> Result<String, ManageError> {
        let before = book.keyslots.leftovers.clone();
        let mark = mark(&book.root)?;
        let mut left = Vec::new();
        let mut trouble = None;
        for half in before.iter().filter(|half| !book.needs(half)) {
            match Tpm::connect(self.tpm, Some(&half.storage_root)).and_then(|mut tpm| tpm.destroy_half(half.index, &mark)) {
                Ok(()) => {}
                // In a TPM that is not here: of a machine that died, most likely.
                Err(TpmError::OtherTpm) => left.push(half.clone()),
                Err(error) => {
                    trouble = Some(error);
                    left.push(half.clone());
                }
            }
        }
        if left != before {
            book.keyslots.leftovers = left;
            book.save()?;
        }
        let trouble = trouble.map_or_else(String::new, |error| {
            format!("; its half in the TPM could not be destroyed yet ({error}), the next change tries again")
        });
        let elsewhere = if book.keyslots.has_leftovers_elsewhere() { LEFT_ELSEWHERE } else { "" };
        Ok(trouble + elsewhere)
    }
}
