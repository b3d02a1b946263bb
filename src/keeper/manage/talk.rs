//! Asking and showing.
//! Trusts: nothing that was typed.
//! Touches: the channel to the console.
//! Next: `unlock` and `printed`.

use crate::base::clock::Clock;
use crate::base::secret::SecretText;
use crate::ipc::channel::ChannelError;
use crate::ipc::keyslots::{ConsoleWord, KeeperWord, Sheet, Wanted};

use super::{Desk, ManageError};

/// How often something is asked before it is given up.
const ATTEMPTS: usize = 3;

impl<C: Clock> Desk<'_, C> {
    /// Asks until `take` takes the answer; what it says of a wrong one is shown with the next question.
    pub(super) fn ask_until<T>(
        &self,
        wanted: Wanted,
        mut problem: Option<String>,
        mut take: impl FnMut(&SecretText) -> Result<T, String>,
    ) -> Result<T, ManageError> {
        for _ in 0..ATTEMPTS {
            match take(&self.ask(wanted, problem.take())?) {
                Ok(taken) => return Ok(taken),
                Err(said) => problem = Some(said),
            }
        }
        Err(ManageError::GivenUp(problem.unwrap_or_default()))
    }

    /// Asks once.
    pub(super) fn ask(&self, wanted: Wanted, problem: Option<String>) -> Result<SecretText, ManageError> {
        self.channel.send(&KeeperWord::Ask { wanted, problem })?;
        match self.channel.recv()? {
            Some(ConsoleWord::Answer(answer)) => Ok(answer),
            Some(_) => Err(ChannelError::Malformed.into()),
            None => Err(ManageError::HungUp),
        }
    }

    /// Shows a secret and waits until it was shown.
    pub(super) fn show(&self, sheet: Sheet) -> Result<(), ManageError> {
        self.channel.send(&KeeperWord::Show(sheet))?;
        match self.channel.recv()? {
            Some(ConsoleWord::Shown) => Ok(()),
            Some(_) => Err(ChannelError::Malformed.into()),
            None => Err(ManageError::HungUp),
        }
    }
}
