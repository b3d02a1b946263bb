//! The operator's leave to take a store that is older than the box, or that a new TPM knows nothing of.
//! Trusts: whoever has a code or shares.
//! Touches: the TPM's counter, the key directory.
//! Next: the daemon's next start uses it (`keeper::rollback`, `record::rollback`).

use crate::base::clock::Clock;
use crate::ipc::keyslots::KeysReport;
use crate::keeper::rollback::{LEAVE, leave_file, password};
use crate::keeper::slots::file_mac;
use crate::keeper::tpm::TpmError;

use super::book::Book;
use super::{Desk, ManageError};

impl<C: Clock> Desk<'_, C> {
    pub(super) fn accept_rollback(&self, with: Option<u32>) -> Result<KeysReport, ManageError> {
        let mut book = self.open_by_paper(with)?;
        let at = self.give_leave(&book)?;
        book.save()?;
        let done =
            format!("the next start of the daemon takes the store that it finds, and keeps a copy of it (counter {at}); start it now");
        Ok(self.report(&book, done))
    }

    /// For the state that the counter is in now. One that has never counted does so once, to be in a state at all.
    pub(super) fn give_leave(&self, book: &Book) -> Result<u64, ManageError> {
        let (mut tpm, _) = self.this_tpm(book, false)?;
        let password = password(&book.root)?;
        let found = match tpm.counter(&password) {
            Err(TpmError::ForeignCounter) => tpm.new_counter(&password).map(|()| None),
            found => found,
        };
        let at = match found? {
            Some(at) => at,
            None => tpm.count(&password)?,
        };
        book.replace(LEAVE, &leave_file(&file_mac(&book.root)?, at, self.now())?)?;
        Ok(at)
    }
}
