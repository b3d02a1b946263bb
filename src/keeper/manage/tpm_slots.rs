//! Slots of the TPM: made, sealed again, approved beforehand; and the TPM's protection against guessing.
//! Trusts: the storage root that the box has recorded. A TPM that it never saw is taken only by whoever has a code, shares or another slot.
//! Touches: the TPM, the key directory, the channel to the console.
//! Next: `slots::open` opens them at each start.

use ring::signature::{ECDSA_P256_SHA256_FIXED, UnparsedPublicKey};

use crate::base::clock::Clock;
use crate::base::secret::SecretText;
use crate::ipc::keeper::Leave;
use crate::ipc::keyslots::{ApprovalFile, AuthorityFile, Conditions, KeysReport, Wanted};
use crate::keeper::hierarchy::Purpose;
use crate::keeper::keyslots::{Half, KeyslotsError, Kind, TpmSlot};
use crate::keeper::slots::{make_tpm, open_tpm};
use crate::keeper::tpm::policy::{Approval, Authority, Pcrs, Policy, approved_state};
use crate::keeper::tpm::{StorageRoot, Tpm, TpmError, lockout};

use super::book::Book;
use super::{Desk, ManageError};

/// Shorter PINs are guessed in the tries that a TPM allows.
const PIN_MIN: usize = 6;
/// Its kind, in a line.
const TPM: &str = "tpm";
/// Approvals of one slot.
const APPROVALS_MAX: usize = 16;

impl<C: Clock> Desk<'_, C> {
    pub(super) fn add_tpm(&self, conditions: &Conditions, with: Option<u32>) -> Result<KeysReport, ManageError> {
        let mut book = self.open(with, None)?;
        let policy = self.policy_of(&book, conditions, Policy::default())?;
        let (id, new) = self.make_again(&mut book, None, policy, conditions.new_tpm)?;
        let left = self.settle(&mut book)?;
        Ok(self.report(&book, format!("slot {id} is made and opened once{}{left}", new_words(new))))
    }

    pub(super) fn reseal(&self, slot: Option<u32>, conditions: &Conditions, with: Option<u32>) -> Result<KeysReport, ManageError> {
        let mut book = self.open(with, None)?;
        let (id, old) = the_tpm_slot(&book, slot, |_| true)?;
        let policy = self.policy_of(&book, conditions, old.policy)?;
        let (_, new) = self.make_again(&mut book, Some(id), policy, conditions.new_tpm)?;
        let left = self.settle(&mut book)?;
        Ok(self.report(&book, format!("slot {id} is sealed anew and opened once{}{left}", new_words(new))))
    }

    pub(super) fn approve(&self, slot: Option<u32>, file: &ApprovalFile, with: Option<u32>) -> Result<KeysReport, ManageError> {
        let mut book = self.open(with, None)?;
        let (id, mut tpm) = the_tpm_slot(&book, slot, |slot| slot.policy.authority.is_some())?;
        let authority = tpm.policy.authority.as_mut().ok_or(ManageError::NotTpm(id))?;
        let approval = approval(&authority.point, authority.pcrs, file)?;
        if !authority.approvals.contains(&approval) {
            authority.approvals.push(approval);
        }
        // The oldest states are those of updates long past.
        let surplus = authority.approvals.len().saturating_sub(APPROVALS_MAX);
        authority.approvals.drain(..surplus);
        book.keyslots.slots.iter_mut().filter(|slot| slot.id == id).for_each(|slot| slot.kind = Kind::Tpm(tpm.clone()));
        book.lines.announce(Some(TPM), Some(id))?;
        book.save()?;
        book.lines.done();
        Ok(self.report(&book, format!("slot {id} opens in one more state of the machine")))
    }

    /// Forgives wrong PINs. Only a code or shares show that it is the operator who asks.
    pub(super) fn forgive(&self, with: Option<u32>) -> Result<KeysReport, ManageError> {
        let mut book = self.open_by_paper(with)?;
        let here = self.this_tpm(&book, false)?.0.storage_root().clone();
        if !book.keyslots.lockout.contains(&here.name) {
            return Err(ManageError::NoPin);
        }
        book.lines.announce(None, None)?;
        lockout::reset(self.tpm.tcti, &book.root.derive(Purpose::TpmLockout)?)?;
        book.lines.done();
        book.save()?;
        Ok(self.report(&book, "the TPM has forgiven all wrong PINs".to_owned()))
    }

    /// Makes a slot under `policy`, in the place of `old` or besides; its number, and whether the TPM is new to this box, if it may be.
    pub(super) fn make_again(
        &self,
        book: &mut Book,
        old: Option<u32>,
        policy: Policy,
        may_be_new: bool,
    ) -> Result<(u32, bool), ManageError> {
        let pin = if policy.pin {
            // A PIN is not asked for in vain; the TPM is not held while somebody types.
            drop(self.this_tpm(book, may_be_new)?);
            Some(self.new_pin()?)
        } else {
            None
        };
        let (mut tpm, new) = self.this_tpm(book, may_be_new)?;
        book.lines.announce(Some(TPM), Some(old.unwrap_or(book.keyslots.next)))?;
        let storage_root = tpm.storage_root().clone();
        if pin.is_some() {
            tpm = self.guard(book, tpm, &storage_root)?;
        }
        let half = Half { storage_root: storage_root.clone(), index: tpm.free_index()? };
        book.keyslots.leftovers.push(half.clone());
        book.save()?;
        let made = make_tpm(&mut tpm, half.index, policy, pin.as_ref(), &book.root_key, &book.root);
        // TPMs hold few objects at a time: these go before the slot is opened by the whole way.
        drop(tpm);
        let opened = made.and_then(|slot| Ok((open_tpm(&slot, self.tpm, pin.as_ref())?, slot)));
        let (opened, slot) = match opened {
            Ok(opened) => opened,
            Err(error) => {
                // The first error is the one to tell; what cannot be destroyed now is on the list.
                let _ = self.settle(book);
                return Err(error.into());
            }
        };
        if opened.expose() != book.root_key.expose() {
            let _ = self.settle(book);
            return Err(ManageError::DoesNotOpen);
        }
        if self.move_epochs(book, &storage_root)? || new {
            // Its counter knows nothing of the store that there is, which would be refused.
            self.give_leave(book, &storage_root, Leave::Moved)?;
        }
        book.keyslots.leftovers.retain(|left| *left != half);
        let id = match old {
            Some(id) => book.keyslots.exchange(id, Kind::Tpm(slot), self.now()).map(|()| id),
            None => book.keyslots.add(Kind::Tpm(slot), self.now()),
        }?;
        book.save()?;
        book.lines.done();
        Ok((id, new))
    }

    /// The TPM that is here, and whether the box does not know it yet. Somebody between the box and its TPM looks like a new one too,
    /// and would get what is sealed by it: it is taken only when the operator says so.
    pub(super) fn this_tpm(&self, book: &Book, may_be_new: bool) -> Result<(Tpm<'_>, bool), ManageError> {
        for known in self.known_roots(book) {
            match Tpm::connect(self.tpm, Some(&known)) {
                Err(TpmError::OtherTpm) => {}
                other => return Ok((other?, false)),
            }
        }
        if may_be_new { Ok((Tpm::connect(self.tpm, None)?, true)) } else { Err(ManageError::UnknownTpm) }
    }

    fn known_roots(&self, book: &Book) -> Vec<StorageRoot> {
        let of_slot = |kind: &Kind| match kind {
            Kind::Tpm(slot) => Some(slot.storage_root.clone()),
            Kind::Recovery(_) | Kind::Shares(_) => None,
        };
        book.keyslots.slots.iter().filter_map(|slot| of_slot(&slot.kind)).collect()
    }

    /// Before the first PIN: the TPM's lockout gets a password that only this box knows, and sensible limits. Each step can be done again.
    fn guard<'t>(&'t self, book: &mut Book, mut tpm: Tpm<'t>, root: &StorageRoot) -> Result<Tpm<'t>, ManageError> {
        if !book.keyslots.lockout.contains(&root.name) {
            if tpm.lockout()?.guarded {
                return Err(TpmError::ForeignLockout.into());
            }
            book.keyslots.lockout.push(root.name.clone());
            book.save()?;
        }
        let password = book.root.derive(Purpose::TpmLockout)?;
        tpm.guard_lockout(&password, true)?;
        drop(tpm);
        lockout::set_parameters(self.tpm.tcti, &password)?;
        Ok(Tpm::connect(self.tpm, Some(root))?)
    }

    fn new_pin(&self) -> Result<SecretText, ManageError> {
        self.ask_until(Wanted::NewPin, None, |pin| {
            let length = pin.expose().chars().count();
            if length < PIN_MIN || pin.expose().len() > crate::keeper::pin::BYTES_MAX {
                return Err(format!("a PIN has at least {PIN_MIN} characters and at most {} bytes", crate::keeper::pin::BYTES_MAX));
            }
            match self.ask(Wanted::NewPinAgain, None) {
                Ok(again) if again.expose() == pin.expose() => Ok(SecretText::new(pin.expose().to_owned())),
                Ok(_) => Err("the two were not the same".to_owned()),
                Err(error) => Err(error.to_string()),
            }
        })
    }

    /// `before` with what `conditions` changes, measured now.
    fn policy_of(&self, book: &Book, conditions: &Conditions, before: Policy) -> Result<Policy, ManageError> {
        let pcrs = match conditions.pcrs {
            Some(mask) => Pcrs::new(mask).ok_or(ManageError::Pcrs)?,
            None => before.pcrs(),
        };
        let authority = match &conditions.authority {
            Some(Some(AuthorityFile { point, approval: file })) => {
                let approvals = vec![approval(point, pcrs, file)?];
                Some(Authority { pcrs, point: point.clone(), approvals })
            }
            Some(None) => None,
            // It has approved of other PCRs.
            None if before.authority.as_ref().is_some_and(|authority| authority.pcrs != pcrs) => return Err(ManageError::Approval),
            None => before.authority,
        };
        let measured = match authority {
            None if !pcrs.is_empty() => Some(self.this_tpm(book, conditions.new_tpm)?.0.measure(pcrs)?),
            _ => None,
        };
        Ok(Policy { measured, authority, pin: conditions.pin.unwrap_or(before.pin) })
    }
}

const fn new_words(new: bool) -> &'static str {
    if new { ", by a TPM that this box did not know before" } else { "" }
}

/// The slot named, or the only one of the TPM that fits.
fn the_tpm_slot(book: &Book, named: Option<u32>, fits: fn(&TpmSlot) -> bool) -> Result<(u32, TpmSlot), ManageError> {
    let of_tpm = |id: u32, kind: &Kind| match kind {
        Kind::Tpm(slot) => Some((id, slot.clone())),
        Kind::Recovery(_) | Kind::Shares(_) => None,
    };
    if let Some(id) = named {
        let slot = book.keyslots.slot(id).ok_or(KeyslotsError::NoSlot(id))?;
        return of_tpm(id, &slot.kind).filter(|(_, slot)| fits(slot)).ok_or(ManageError::NotTpm(id));
    }
    let mut fitting = book.keyslots.slots.iter().filter_map(|slot| of_tpm(slot.id, &slot.kind)).filter(|(_, slot)| fits(slot));
    match (fitting.next(), fitting.next()) {
        (Some(one), None) => Ok(one),
        (Some(_), Some(_)) => Err(ManageError::Which("there are several of the TPM")),
        (None, _) => Err(ManageError::Which("none of the TPM fits")),
    }
}

/// An approval of these PCRs whose signature is right.
fn approval(point: &[u8], pcrs: Pcrs, file: &ApprovalFile) -> Result<Approval, ManageError> {
    let measured = approved_state(pcrs, &file.text).filter(|_| !pcrs.is_empty()).ok_or(ManageError::Approval)?;
    let key = [&[4], point].concat();
    let signed = UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, key).verify(&file.text, &file.signature);
    signed.map_err(|_| ManageError::Approval)?;
    Ok(Approval { measured, signature: file.signature.clone() })
}
