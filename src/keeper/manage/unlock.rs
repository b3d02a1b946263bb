//! Opening the root key by whatever slot the operator can open.
//! Trusts: nothing that was typed.
//! Touches: the TPM, the channel to the console.
//! Next: `book` authenticates the file by the root key.

use crate::base::clock::Clock;
use crate::base::secret::{Secret, SecretText};
use crate::base::told::told;
use crate::ipc::keyslots::Wanted;
use crate::keeper::code::{self, Sort};
use crate::keeper::hierarchy::KEY_BYTES;
use crate::keeper::keyslots::{Keyslots, KeyslotsError, Kind, SharesSlot, Slot, TpmSlot};
use crate::keeper::recovery::{self, Carried, Encrypted};
use crate::keeper::shares::{Share, join};
use crate::keeper::slots::{SlotError, open_tpm};
use crate::keeper::tpm::TpmError;

use super::{Desk, ManageError};

type Opened = (Carried, u32);

impl<C: Clock> Desk<'_, C> {
    /// By the slot `with`; else by the first that opens: those of the TPM, then codes, then shares. Never by `without`.
    pub(super) fn unlock(&self, keyslots: &Keyslots, with: Option<u32>, without: Option<u32>) -> Result<Opened, ManageError> {
        if let Some(id) = without
            && keyslots.slot(id).is_none()
        {
            return Err(KeyslotsError::NoSlot(id).into());
        }
        if let Some(id) = with {
            let slot = keyslots.slot(id).ok_or(KeyslotsError::NoSlot(id))?;
            return Ok((self.unlock_by(slot, None)?, id));
        }
        let usable = || keyslots.slots.iter().filter(|slot| Some(slot.id) != without);
        let mut refused = None;
        for slot in usable().filter(|slot| matches!(slot.kind, Kind::Tpm(_))) {
            match self.unlock_by(slot, None) {
                Ok(root_key) => return Ok((root_key, slot.id)),
                Err(error @ (ManageError::Channel(_) | ManageError::HungUp)) => return Err(error),
                Err(error) => refused = Some(error),
            }
        }
        self.unlock_printed(usable(), refused)
    }

    /// By a code or by shares only.
    pub(super) fn unlock_printed<'s>(
        &self,
        slots: impl Iterator<Item = &'s Slot> + Clone,
        refused: Option<ManageError>,
    ) -> Result<Opened, ManageError> {
        let problem = refused.as_ref().filter(|refused| !matches!(refused, ManageError::NothingPrinted)).map(|refused| told(refused));
        let codes: Vec<(u32, &Encrypted)> = slots.clone().filter_map(code_of).collect();
        if !codes.is_empty() {
            return self.unlock_codes(&codes, problem);
        }
        match (slots.into_iter().find(|slot| matches!(slot.kind, Kind::Shares(_))), refused) {
            (Some(slot), _) => Ok((self.unlock_by(slot, problem)?, slot.id)),
            (None, Some(refused)) => Err(refused),
            (None, None) => Err(KeyslotsError::Last.into()),
        }
    }

    fn unlock_by(&self, slot: &Slot, problem: Option<String>) -> Result<Carried, ManageError> {
        match &slot.kind {
            Kind::Tpm(tpm) => self.unlock_tpm(tpm, slot.id),
            Kind::Recovery(encrypted) => Ok(self.unlock_codes(&[(slot.id, encrypted)], problem)?.0),
            Kind::Shares(shares) => self.unlock_shares(shares, slot.id, problem),
        }
    }

    fn unlock_tpm(&self, slot: &TpmSlot, id: u32) -> Result<Carried, ManageError> {
        if slot.pin.is_none() {
            return Ok(by_tpm(open_tpm(slot, self.tpm, None)?));
        }
        match &self.pin {
            Some(pin) => Ok(by_tpm(open_tpm(slot, self.tpm, Some(pin))?)),
            None => {
                // Only what a person can type better is asked for again.
                let asked = self.ask_until(Wanted::Pin { slot: id }, None, |pin| match open_tpm(slot, self.tpm, Some(pin)) {
                    Err(SlotError::Tpm(TpmError::WrongPin(error))) => Err(TpmError::WrongPin(error).to_string()),
                    other => Ok(other),
                })?;
                Ok(by_tpm(asked?))
            }
        }
    }

    /// By whichever of these slots the typed code is for: people do not know the number of theirs.
    fn unlock_codes(&self, slots: &[(u32, &Encrypted)], problem: Option<String>) -> Result<Opened, ManageError> {
        let slot = slots.first().map_or(0, |(id, _)| *id);
        self.ask_until(Wanted::Code { slot }, problem, |typed| {
            let mut wrong = String::new();
            for (id, encrypted) in slots {
                match open_by_code(encrypted, *id, typed) {
                    Ok(root_key) => return Ok((root_key, *id)),
                    Err(words) => wrong = words,
                }
            }
            Err(wrong)
        })
    }

    fn unlock_shares(&self, slot: &SharesSlot, id: u32, mut problem: Option<String>) -> Result<Carried, ManageError> {
        let mut shares: Vec<Share> = Vec::new();
        while shares.len() < usize::from(slot.threshold) {
            let have = u8::try_from(shares.len()).unwrap_or(u8::MAX);
            let wanted = Wanted::Share { slot: id, have, need: slot.threshold };
            let share = self.ask_until(wanted, problem.take(), |typed| read_share(slot, &shares, typed))?;
            shares.push(share);
        }
        Ok(recovery::decrypt(&slot.encrypted, id, &join(&shares)?)?)
    }
}

const fn code_of(slot: &Slot) -> Option<(u32, &Encrypted)> {
    match &slot.kind {
        Kind::Recovery(encrypted) => Some((slot.id, encrypted)),
        Kind::Tpm(_) | Kind::Shares(_) => None,
    }
}

/// The TPM has the epochs elsewhere.
const fn by_tpm(root_key: Secret<KEY_BYTES>) -> Carried {
    Carried { root_key, epochs: Vec::new() }
}

/// What a typed code opens; in words what is wrong with it.
pub(super) fn open_by_code(encrypted: &Encrypted, id: u32, typed: &SecretText) -> Result<Carried, String> {
    let code = code::read(Sort::Code, typed).map_err(|error| error.to_string())?;
    recovery::decrypt(encrypted, id, &code).map_err(|error| error.to_string())
}

/// A typed share that fits the slot and those before it; in words what is wrong with it.
pub(super) fn read_share(slot: &SharesSlot, before: &[Share], typed: &SecretText) -> Result<Share, String> {
    let bytes = code::read(Sort::Share, typed).map_err(|error| error.to_string())?;
    let share = Share::read(&bytes).map_err(|error| error.to_string())?;
    if share.set != slot.set || share.threshold != slot.threshold || share.number > slot.count {
        return Err("this share is whole, but of another set".to_owned());
    }
    if before.iter().any(|other| other.number == share.number) {
        return Err(format!("share {} was given already", share.number));
    }
    Ok(share)
}
