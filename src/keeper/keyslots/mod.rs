//! The file `keyslots`: every way to the root key, like the header of a LUKS2 disk.
//! Trusts: `container` for damage and forgery; nothing of the body before that.
//! Touches: nothing.
//! Next: `slots` opens by it, `manage` changes it, `directory` reads and writes it.

use serde::{Deserialize, Serialize};

use super::container::{self, ContainerError, MacKey, Unauthenticated};
use super::recovery::Encrypted;
use super::tpm::StorageRoot;
use super::tpm::policy::Policy;
use super::tpm::seal::Sealed;
use super::tpm::{nv, places};

/// Slots at most.
pub const SLOTS_MAX: usize = 16;

/// Rounds of PBKDF2-HMAC-SHA-256 over a PIN. The TPM limits tries; this slows each guess at what a stolen and opened TPM gave. About 50 ms.
/// A file that asks for fewer would give away more to whoever bent it, and for more keep the keeper busy before it is authenticated.
pub const PIN_ROUNDS: u32 = 100_000;

/// The body of the file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Keyslots {
    /// One more with each version of the file.
    pub generation: u64,
    /// The number of the next slot; none is used twice.
    pub next: u32,
    /// Names of the storage roots of the TPMs whose lockout hierarchies have, or are about to get, the password derived from the root key.
    pub lockout: Vec<Vec<u8>>,
    /// Halves that belong to no slot (any more, or yet): to be destroyed by the next change.
    pub leftovers: Vec<Half>,
    /// The ways in.
    pub slots: Vec<Slot>,
    /// Where the erasure epoch is; nowhere in boxes of before there were epochs, until their first start.
    pub epoch: Option<EpochPlaces>,
}

/// The body of a file of version 1: nothing of epochs. postcard knows no missing fields.
#[derive(Deserialize)]
struct Version1 {
    generation: u64,
    next: u32,
    lockout: Vec<Vec<u8>>,
    leftovers: Vec<Half>,
    slots: Vec<Slot>,
}

impl From<Version1> for Keyslots {
    fn from(Version1 { generation, next, lockout, leftovers, slots }: Version1) -> Self {
        Self { generation, next, lockout, leftovers, slots, epoch: None }
    }
}

/// The two places of the erasure epoch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EpochPlaces {
    /// In which TPM.
    pub storage_root: StorageRoot,
    /// Index of the first; the second is the next.
    pub first: u32,
    /// The numbers of the epochs that codes and shares open, oldest first.
    pub carried: Vec<u32>,
}

impl EpochPlaces {
    /// Both, as what may be left over.
    pub fn halves(&self) -> [Half; 2] {
        [self.first, self.first.saturating_add(1)].map(|index| Half { storage_root: self.storage_root.clone(), index })
    }
}

/// A place in the NV memory of one TPM.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Half {
    /// Which TPM.
    pub storage_root: StorageRoot,
    /// The index.
    pub index: u32,
}

/// One way in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Slot {
    /// Its number.
    pub id: u32,
    /// Unix milliseconds.
    pub made: u64,
    /// When it was last seen to open, Unix milliseconds. No slot counts before it has been opened once.
    pub opened: u64,
    /// Which way.
    pub kind: Kind,
}

/// The sorts of ways.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Kind {
    /// This machine's TPM.
    Tpm(TpmSlot),
    /// A printed code.
    Recovery(Encrypted),
    /// Shares of one.
    Shares(SharesSlot),
}

/// What the TPM needs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TpmSlot {
    /// The storage root that it was sealed under.
    pub storage_root: StorageRoot,
    /// What must hold.
    pub policy: Policy,
    /// How a PIN becomes what the TPM compares.
    pub pin: Option<PinSalt>,
    /// The sealed slot key.
    pub sealed: Sealed,
    /// The NV index with the half of the wrapping key that can be destroyed; the other half is sealed.
    pub half: u32,
    /// The root key.
    pub wrapped: Vec<u8>,
}

/// Against tables of common PINs, should the sealed object ever be opened up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PinSalt {
    /// Random.
    pub salt: [u8; 16],
    /// [`PIN_ROUNDS`].
    pub rounds: u32,
}

/// A recovery code in several hands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SharesSlot {
    /// Opens with the joined secret.
    pub encrypted: Encrypted,
    /// How many are needed.
    pub threshold: u8,
    /// How many there are.
    pub count: u8,
    /// On each share.
    pub set: u16,
}

impl Kind {
    /// In one word.
    pub const fn word(&self) -> &'static str {
        match self {
            Self::Tpm(_) => "tpm",
            Self::Recovery(_) => "recovery",
            Self::Shares(_) => "shares",
        }
    }

    /// The half that it needs.
    pub fn half(&self) -> Option<Half> {
        match self {
            Self::Tpm(slot) => Some(Half { storage_root: slot.storage_root.clone(), index: slot.half }),
            Self::Recovery(_) | Self::Shares(_) => None,
        }
    }
}

impl Keyslots {
    /// Whether what is left over is of another TPM than the one that holds the epochs: it can only be destroyed there.
    pub fn has_leftovers_elsewhere(&self) -> bool {
        let here = self.epoch.as_ref().map(|places| &places.storage_root.name);
        self.leftovers.iter().any(|left| Some(&left.storage_root.name) != here)
    }

    /// A file with one slot.
    pub fn with(kind: Kind, now: u64) -> Self {
        let first = Slot { id: 1, made: now, opened: now, kind };
        Self { generation: 1, next: 2, lockout: Vec::new(), leftovers: Vec::new(), slots: vec![first], epoch: None }
    }

    /// The slot of this number.
    pub fn slot(&self, id: u32) -> Option<&Slot> {
        self.slots.iter().find(|slot| slot.id == id)
    }

    /// Puts a slot that has been opened once into the file; its number.
    ///
    /// # Errors
    /// [`KeyslotsError::Full`].
    pub fn add(&mut self, kind: Kind, now: u64) -> Result<u32, KeyslotsError> {
        if self.slots.len() >= SLOTS_MAX {
            return Err(KeyslotsError::Full);
        }
        let id = self.next;
        self.next = self.next.checked_add(1).ok_or(KeyslotsError::Full)?;
        self.slots.push(Slot { id, made: now, opened: now, kind });
        Ok(id)
    }

    /// Takes a slot out; its half is left over.
    ///
    /// # Errors
    /// [`KeyslotsError::Last`] or [`KeyslotsError::NoSlot`].
    pub fn remove(&mut self, id: u32) -> Result<Slot, KeyslotsError> {
        let at = self.slots.iter().position(|slot| slot.id == id).ok_or(KeyslotsError::NoSlot(id))?;
        if self.slots.len() == 1 {
            return Err(KeyslotsError::Last);
        }
        let slot = self.slots.remove(at);
        self.leftovers.extend(slot.kind.half());
        Ok(slot)
    }

    /// Puts another way in the place of a slot, which has been opened once; the old one's half is left over.
    ///
    /// # Errors
    /// [`KeyslotsError::NoSlot`].
    pub fn exchange(&mut self, id: u32, kind: Kind, now: u64) -> Result<(), KeyslotsError> {
        let slot = self.slots.iter_mut().find(|slot| slot.id == id).ok_or(KeyslotsError::NoSlot(id))?;
        let old = std::mem::replace(slot, Slot { id, made: now, opened: now, kind });
        self.leftovers.extend(old.kind.half());
        Ok(())
    }

    /// The slot of this number was opened just now.
    pub fn was_opened(&mut self, id: u32, now: u64) {
        self.slots.iter_mut().filter(|slot| slot.id == id).for_each(|slot| slot.opened = now);
    }

    /// The file's bytes, with the next generation.
    ///
    /// # Errors
    /// [`ContainerError`].
    pub fn write(&mut self, mac: &MacKey) -> Result<Vec<u8>, ContainerError> {
        self.generation = self.generation.saturating_add(1);
        container::write(container::KEYSLOTS, self, mac)
    }

    /// Reads a file as far as it can be without the root key: what leads to it.
    ///
    /// # Errors
    /// [`KeyslotsError`].
    pub fn read(file: &[u8]) -> Result<Unauthenticated<Self>, KeyslotsError> {
        let read = match container::read::<Self>(container::KEYSLOTS, file) {
            Err(ContainerError::OtherVersion { found: 1, .. }) => {
                container::read::<Version1>(container::KEYSLOTS_1, file)?.lifted(Self::from)
            }
            read => read?,
        };
        read.before_authentication().check()?;
        Ok(read)
    }

    /// What this program itself never writes otherwise.
    fn check(&self) -> Result<(), KeyslotsError> {
        let ids = self.slots.iter().map(|slot| slot.id);
        let unique = ids.clone().all(|id| id < self.next && ids.clone().filter(|other| *other == id).count() == 1);
        let mut halves = self.leftovers.iter().cloned().chain(self.slots.iter().filter_map(|slot| slot.kind.half()));
        let odd_pin = |tpm: &TpmSlot| tpm.policy.pin != tpm.pin.is_some() || tpm.pin.is_some_and(|pin| pin.rounds != PIN_ROUNDS);
        let odd = |slot: &Slot| matches!(&slot.kind, Kind::Tpm(tpm) if odd_pin(tpm));
        if unique
            && !self.slots.iter().any(odd)
            && !self.slots.is_empty()
            && self.slots.len() <= SLOTS_MAX
            && halves.all(|half| nv::is_ours(half.index))
            && self.epoch.as_ref().is_none_or(|epoch| places::is_ours(epoch.first))
        {
            Ok(())
        } else {
            Err(KeyslotsError::Senseless)
        }
    }
}

/// Why there is no slot.
#[derive(Debug, thiserror::Error)]
pub enum KeyslotsError {
    /// The file.
    #[error(transparent)]
    File(#[from] ContainerError),
    /// It contradicts itself.
    #[error("the keyslots contradict each other: restore the key directory from a backup")]
    Senseless,
    /// No more room.
    #[error("there are {SLOTS_MAX} slots already: remove one that is not needed")]
    Full,
    /// Not there.
    #[error("there is no slot {0}; `salama keys list` shows them")]
    NoSlot(u32),
    /// The only one.
    #[error("this is the only slot: without it nothing opens the keys. Add another first (salama keys add)")]
    Last,
}

#[cfg(test)]
mod tests;
