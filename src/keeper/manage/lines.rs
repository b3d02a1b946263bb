//! The signed lines on one conversation: that the root key was opened, what was changed by it, and how that ended.
//! Trusts: nothing that was typed; of a task the words of its kind alone get into a line.
//! Touches: standard error, and the file that numbers the console's starts.
//! Next: `salama audit verify` reads them.
//!
//! ```text
//! chain_begun > key_slots opened > key_slots begun > (the change) > key_slots done | failed > chain_ended
//! ```
//! `failed` says that it did not end as it should: the change may be in force all the same, where the last step to the disk failed or only
//! what comes after it. Nothing is changed before its line `begun` is written, and counted in the file: the next start of the console says how many lines this
//! one had, so that a change cannot be cut off the end. Who cannot open the root key cannot sign either: tries that fail leave no line.

use std::io::{self, Stderr};

use serde::Serialize;

use crate::base::clock::{Clock as _, SystemClock, Timestamp};
use crate::ipc::key_log::SLOTS;
use crate::keeper::chain::Chain;
use crate::keeper::hierarchy::{Purpose, Root};
use crate::keeper::journal::Journal;
use crate::keeper::ledger::{Alone, Ledger, LedgerError, Machine};
use crate::keeper::startup::begin_chain;

use super::ManageError;

/// One conversation's.
pub(super) struct Lines {
    journal: Journal<Stderr>,
    ledger: Ledger,
    what: &'static str,
    opened_by: u32,
    /// Begun, and not yet known to be done.
    pending: Option<Slot>,
    unsaid: bool,
}

/// Of which a line speaks.
#[derive(Clone, Copy)]
struct Slot {
    kind: Option<&'static str>,
    number: Option<u32>,
}

#[derive(Serialize)]
struct Line {
    event: &'static str,
    time: String,
    what: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    kind: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    slot: Option<u32>,
    opened_by: u32,
    outcome: &'static str,
}

impl Lines {
    /// The root key was opened, by this slot, for this task.
    pub(super) fn begin(root: &Root, alone: Alone, machine: Machine, what: &'static str, opened_by: u32) -> Result<Self, ManageError> {
        let mac = root.derive(Purpose::FileMac)?;
        let (journal, (ledger, _)) = begin_chain(Chain::begin(root)?, alone, &mac, machine)?;
        let mut lines = Self { journal, ledger, what, opened_by, pending: None, unsaid: false };
        lines.say(Slot { kind: None, number: None }, "opened").map_err(ManageError::Lines)?;
        Ok(lines)
    }

    /// A change is about to be made; without its line it is not.
    pub(super) fn announce(&mut self, kind: Option<&'static str>, number: Option<u32>) -> Result<(), ManageError> {
        let slot = Slot { kind, number };
        self.say(slot, "begun").map_err(ManageError::Lines)?;
        self.pending = Some(slot);
        Ok(self.put_down()?)
    }

    /// It is made.
    pub(super) fn done(&mut self) {
        if let Some(slot) = self.pending.take() {
            self.unsaid |= self.say(slot, "done").is_err();
        }
    }

    /// Whether something was done of which the last line is missing.
    pub(super) const fn is_unsaid(&self) -> bool {
        self.unsaid
    }

    fn say(&mut self, slot: Slot, outcome: &'static str) -> io::Result<()> {
        let Self { what, opened_by, .. } = *self;
        let (now, Slot { kind, number }) = (SystemClock.now(), slot);
        self.journal.write(&Line { event: SLOTS, time: Timestamp::rfc3339(now), what, kind, slot: number, opened_by, outcome }, now)
    }

    fn put_down(&mut self) -> Result<(), LedgerError> {
        self.ledger.save(self.journal.lines(), Vec::new(), SystemClock.steady())
    }
}

impl Drop for Lines {
    fn drop(&mut self) {
        // Nobody is left to tell; what is missing shows in the numbers.
        if let Some(slot) = self.pending.take() {
            let _ = self.say(slot, "failed");
        }
        let _ = self.journal.ended(SystemClock.now());
        let _ = self.put_down();
    }
}
