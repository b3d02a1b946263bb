//! What needs no key: the slots as the file says them, the TPM's state, the text that an authority signs.
//! Trusts: nothing; what is shown of a file is not authenticated until a slot opens.
//! Touches: the key directory, the TPM.
//! Next: the console.

use crate::base::clock::{Clock, Timestamp};
use crate::ipc::keyslots::{KeysReport, LockoutView, SlotView};
use crate::keeper::directory::KEYSLOTS;
use crate::keeper::keyslots::{Keyslots, Kind, Slot, TpmSlot};
use crate::keeper::tpm::Tpm;
use crate::keeper::tpm::policy::{Pcrs, approval_text, measured};

use super::book::Book;
use super::{Desk, ManageError};

impl<C: Clock> Desk<'_, C> {
    pub(super) fn list(&self) -> Result<KeysReport, ManageError> {
        let file = Keyslots::read(&self.directory.read(KEYSLOTS)?)?;
        Ok(self.report_of(file.before_authentication(), String::new()))
    }

    pub(super) fn policy(&self, pcrs: u32, values: &[(u8, [u8; 32])]) -> Result<KeysReport, ManageError> {
        let pcrs = Pcrs::new(pcrs).filter(|pcrs| !pcrs.is_empty()).ok_or(ManageError::Pcrs)?;
        if !values.iter().all(|(number, _)| pcrs.numbers().any(|known| known == *number)) {
            return Err(ManageError::Pcrs);
        }
        let mut now = Tpm::connect(self.tpm, None)?.values(pcrs)?;
        for (number, value) in pcrs.numbers().zip(&mut now) {
            if let Some((_, given)) = values.iter().find(|(given, _)| *given == number) {
                *value = *given;
            }
        }
        let text = approval_text(&measured(pcrs, &now));
        Ok(KeysReport { done: format!("to be signed for PCR {}", pcrs.words()), policy: Some(text), ..KeysReport::default() })
    }

    pub(super) fn report(&self, book: &Book, mut done: String) -> KeysReport {
        if book.lines.is_unsaid() {
            done.push_str("; the line that says so could not be written: see that the journal takes lines");
        }
        self.report_of(&book.keyslots, done)
    }

    fn report_of(&self, keyslots: &Keyslots, done: String) -> KeysReport {
        let first = keyslots.slots.iter().find_map(|slot| match &slot.kind {
            Kind::Tpm(tpm) => Some(tpm),
            Kind::Recovery(_) | Kind::Shares(_) => None,
        });
        let guarded = first.is_some_and(|tpm| keyslots.lockout.contains(&tpm.storage_root.name));
        let state = first.map(|tpm| Tpm::connect(self.tpm, Some(&tpm.storage_root)).and_then(|mut tpm| tpm.lockout()));
        let (lockout, tpm_trouble) = match state {
            None => (None, None),
            Some(Ok(state)) => {
                let view = LockoutView {
                    failed: state.failed,
                    tries: state.tries,
                    forgiven_after: state.forgiven_after,
                    locked: state.locked,
                    guarded: state.guarded && guarded,
                };
                (Some(view), None)
            }
            Some(Err(error)) => (None, Some(error.to_string())),
        };
        let slots = keyslots.slots.iter().map(view).collect();
        KeysReport { done, slots, generation: keyslots.generation, lockout, tpm_trouble, policy: None }
    }
}

fn view(slot: &Slot) -> SlotView {
    let time = |at: u64| (at > 0).then(|| Timestamp::from_unix_millis(at).rfc3339());
    SlotView { id: slot.id, kind: slot.kind.word().to_owned(), needs: needs(&slot.kind), made: time(slot.made), opened: time(slot.opened) }
}

fn needs(kind: &Kind) -> String {
    match kind {
        Kind::Tpm(slot) => needs_of_tpm(slot),
        Kind::Recovery(_) => "the code".to_owned(),
        Kind::Shares(slot) => format!("{} of {} shares", slot.threshold, slot.count),
    }
}

fn needs_of_tpm(slot: &TpmSlot) -> String {
    let mut words = vec!["this TPM".to_owned()];
    let pcrs = slot.policy.pcrs();
    match &slot.policy.authority {
        Some(authority) => words.push(format!("PCR {} as approved ({} states)", pcrs.words(), authority.approvals.len())),
        None if !pcrs.is_empty() => words.push(format!("PCR {} as sealed", pcrs.words())),
        None => {}
    }
    if slot.pin.is_some() {
        words.push("a PIN".to_owned());
    }
    words.join(", ")
}
