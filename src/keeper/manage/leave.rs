//! The operator's leave to take a store that is older than the box, or that a new TPM knows nothing of.
//! Trusts: whoever has a code or shares.
//! Touches: the TPM's counter, the key directory.
//! Next: the daemon's next start uses it (`keeper::rollback`, `record::rollback`).

use crate::base::clock::Clock;
use crate::ipc::keeper::Leave;
use crate::ipc::keyslots::KeysReport;
use crate::keeper::rollback::{LEAVE, leave_file, password};
use crate::keeper::slots::file_mac;
use crate::keeper::tpm::{StorageRoot, Tpm};

use super::book::Book;
use super::{Desk, ManageError};

impl<C: Clock> Desk<'_, C> {
    pub(super) fn accept_rollback(&self, with: Option<u32>) -> Result<KeysReport, ManageError> {
        let mut book = self.open_by_paper(with)?;
        let here = self.this_tpm(&book, false)?.0.storage_root().clone();
        book.lines.announce(None, None)?;
        // It is in force once it is in its file: nothing that can fail comes between that and the line.
        book.save()?;
        let at = self.give_leave(&book, &here, Leave::Accepted)?;
        book.lines.done();
        let done =
            format!("the next start of the daemon takes the store that it finds, and keeps a copy of it (counter {at}); start it now");
        Ok(self.report(&book, done))
    }

    /// For the state that the counter of this TPM is in now; where it is gone, or another box's, it is made.
    pub(super) fn give_leave(&self, book: &Book, here: &StorageRoot, leave: Leave) -> Result<u64, ManageError> {
        let at = Tpm::connect(self.tpm, Some(here))?.make_counter(&password(&book.root)?)?;
        book.replace(LEAVE, &leave_file(&file_mac(&book.root)?, at, leave)?)?;
        Ok(at)
    }
}
