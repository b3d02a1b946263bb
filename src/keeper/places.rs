//! The erasure epoch's places in the TPM, and the recovery slots that carry it, as the daemon's keeper writes them while it serves.
//! Trusts: the TPM and the key directory that were opened at the start.
//! Touches: the TPM's NV memory, the file `keyslots`.
//! Next: `epoch` says in which order.

use std::cell::RefCell;
use std::rc::Rc;

use crate::base::secret::Secret;

use super::container::ContainerError;
use super::directory::{DirectoryError, KEYSLOTS};
use super::epoch::{Epoch, Places};
use super::held::Held;
use super::hierarchy::{DeriveError, KEY_BYTES, Purpose, Root};
use super::keyslots::{EpochPlaces, Half, Keyslots, KeyslotsError, Kind};
use super::random::RandomError;
use super::recovery::{self, RecoveryError};
use super::replace::{Exclusive, OpenDirectory};
use super::slots::{file_mac, mark};
use super::tpm::{Tpm, TpmError};

/// Makes both places, and writes the epochs into them.
///
/// # Errors
/// [`PlacesError`]. Either may be there then.
pub fn make(tpm: &mut Tpm<'_>, at: &EpochPlaces, root: &Root, epochs: &[Epoch]) -> Result<(), PlacesError> {
    let (auth, mark) = (root.derive(Purpose::TpmEpoch)?, mark(root)?);
    for (Half { index, .. }, epoch) in at.halves().into_iter().zip(0..2).map(|(half, place)| (half, epochs.get(place))) {
        tpm.make_place(index, &mark, &auth)?;
        tpm.write_place(index, &auth, &Epoch::to_place(epoch)?)?;
    }
    Ok(())
}

/// The epochs that are there, oldest first.
///
/// # Errors
/// [`PlacesError`].
pub fn read_all(tpm: &mut Tpm<'_>, at: &EpochPlaces, root: &Root) -> Result<Vec<Epoch>, PlacesError> {
    let auth = root.derive(Purpose::TpmEpoch)?;
    let mut epochs = Vec::new();
    for Half { index, .. } in at.halves() {
        epochs.extend(tpm.read_place(index, &auth)?.as_ref().and_then(Epoch::of_place));
    }
    epochs.sort_by_key(Epoch::number);
    Ok(epochs)
}

/// The places of the box, made now where it was set up before there were any: its calls are of no epoch then, until the first move.
///
/// # Errors
/// [`PlacesError`]; [`TpmError::EpochGone`] when the epoch was left in another TPM.
pub fn of_box(tpm: &mut Tpm<'_>, keyslots: &mut Keyslots, root: &Root, directory: &OpenDirectory) -> Result<EpochPlaces, PlacesError> {
    match &keyslots.epoch {
        Some(places) if places.storage_root.name == tpm.storage_root().name => return Ok(places.clone()),
        Some(_) => return Err(TpmError::EpochGone.into()),
        None => {}
    }
    let exclusive = directory.exclusive()?;
    let save =
        |keyslots: &mut Keyslots| -> Result<(), PlacesError> { Ok(exclusive.replace(KEYSLOTS, &keyslots.write(&file_mac(root)?)?)?) };
    let new = EpochPlaces { storage_root: tpm.storage_root().clone(), first: tpm.free_places()?, carried: Vec::new() };
    keyslots.leftovers.extend(new.halves());
    save(keyslots)?;
    make(tpm, &new, root, &[Epoch::none()?])?;
    keyslots.leftovers.retain(|left| !new.halves().contains(left));
    keyslots.epoch = Some(new.clone());
    save(keyslots)?;
    Ok(new)
}

/// While the daemon serves.
pub struct LivePlaces {
    held: Rc<RefCell<Held>>,
    first: u32,
    auth: Secret<KEY_BYTES>,
    root: Root,
    root_key: Secret<KEY_BYTES>,
    exclusive: Option<Exclusive>,
}

impl LivePlaces {
    /// Of this box.
    ///
    /// # Errors
    /// [`DeriveError`].
    pub fn new(held: Rc<RefCell<Held>>, at: &EpochPlaces, root: Root, root_key: Secret<KEY_BYTES>) -> Result<Self, DeriveError> {
        Ok(Self { held, first: at.first, auth: root.derive(Purpose::TpmEpoch)?, root, root_key, exclusive: None })
    }

    fn index(&self, place: usize) -> u32 {
        self.first.saturating_add(u32::from(place != 0))
    }

    fn keyslots(&self) -> Result<Keyslots, PlacesError> {
        let file = self.held.borrow().directory.read(KEYSLOTS)?;
        Ok(Keyslots::read(&file)?.authenticate(&file_mac(&self.root)?)?)
    }
}

impl Places for LivePlaces {
    type Error = PlacesError;

    fn hold(&mut self) -> Result<(), PlacesError> {
        self.exclusive = Some(self.held.borrow().directory.exclusive()?);
        Ok(())
    }

    fn release(&mut self) {
        self.exclusive = None;
    }

    fn read(&mut self, place: usize) -> Result<Option<Epoch>, PlacesError> {
        let index = self.index(place);
        let read = self.held.borrow_mut().tpm.with(|tpm| tpm.read_place(index, &self.auth))?;
        Ok(read.as_ref().and_then(Epoch::of_place))
    }

    fn write(&mut self, place: usize, epoch: Option<&Epoch>) -> Result<(), PlacesError> {
        let (index, value) = (self.index(place), Epoch::to_place(epoch)?);
        Ok(self.held.borrow_mut().tpm.with(|tpm| tpm.write_place(index, &self.auth, &value))?)
    }

    fn are_elsewhere(&mut self) -> Result<bool, PlacesError> {
        Ok(self.keyslots()?.has_leftovers_elsewhere())
    }

    fn carried(&mut self) -> Result<Vec<u32>, PlacesError> {
        Ok(self.keyslots()?.epoch.map(|places| places.carried).unwrap_or_default())
    }

    fn carry(&mut self, epochs: &[&Epoch]) -> Result<(), PlacesError> {
        let held = self.exclusive.take();
        let exclusive = held.map_or_else(|| self.held.borrow().directory.exclusive(), Ok)?;
        let mut keyslots = self.keyslots()?;
        for slot in &mut keyslots.slots {
            let encrypted = match &mut slot.kind {
                Kind::Tpm(_) => continue,
                Kind::Recovery(encrypted) => encrypted,
                Kind::Shares(shares) => &mut shares.encrypted,
            };
            *encrypted = recovery::encrypt(encrypted.public_key, slot.id, &self.root_key, epochs)?;
        }
        if let Some(places) = &mut keyslots.epoch {
            places.carried = epochs.iter().map(|epoch| epoch.number()).collect();
        }
        let file = keyslots.write(&file_mac(&self.root)?)?;
        exclusive.replace(KEYSLOTS, &file)?;
        self.held.borrow_mut().generation = keyslots.generation;
        Ok(())
    }
}

/// Why places or recovery slots could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum PlacesError {
    /// The TPM.
    #[error(transparent)]
    Tpm(#[from] TpmError),
    /// The key directory.
    #[error(transparent)]
    Directory(#[from] DirectoryError),
    /// The keyslots.
    #[error(transparent)]
    Keyslots(#[from] KeyslotsError),
    /// Their file.
    #[error("the file {KEYSLOTS} cannot be used")]
    File(#[from] ContainerError),
    /// A recovery slot.
    #[error(transparent)]
    Recovery(#[from] RecoveryError),
    /// Derivation.
    #[error(transparent)]
    Derive(#[from] DeriveError),
    /// Randomness.
    #[error(transparent)]
    Random(#[from] RandomError),
}
