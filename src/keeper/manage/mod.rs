//! `salama-keeper keys`: lists, adds, removes, renews and tries the ways to the root key, with the operator at the console.
//! Trusts: the operator: root, or the owner of the key directory.
//! Touches: the TPM, the key directory, its channel.
//! Next: `cli::keys` asks people and shows what it is told to.
//!
//! ```text
//! add      [leftovers += half] > half made, key sealed, slot opened by the whole way > [slot in, leftovers -= half]
//! reseal   the same, the second write takes the old slot out and its half into leftovers > halves destroyed > [leftovers cleared]
//! remove   another slot opened > [slot out, leftovers += half] > halves destroyed > [leftovers cleared]
//! printed  shown > typed again > opened by what was typed > [slot in]
//! ```
//! `[ ]` is one write of the file, whole or not at all. Whatever is cut off anywhere, a slot counts from one write on and until one write,
//! and the next change destroys what was left over.

mod book;
mod leave;
mod lines;
mod printed;
mod talk;
mod tpm_slots;
mod unlock;
mod view;

use std::io;

use crate::base::clock::Clock;
use crate::base::exit::Exit;
use crate::base::hex::hex;
use crate::base::secret::SecretText;
use crate::base::told::told;
use crate::ipc::channel::{Channel, ChannelError};
use crate::ipc::keyslots::{ConsoleWord, KeeperWord, KeysReport, NewSlot, Task};
use crate::sandbox::privilege::PrivilegeError;
use crate::sandbox::process::{ConfineError, Confined, HardenError, Hardened};

use super::args::KeysArgs;
use super::chain::{Chain, ChainError};
use super::code::CodeError;
use super::container::ContainerError;
use super::directory::{self, DirectoryError};
use super::held::{self, TctiError};
use super::hierarchy::DeriveError;
use super::keyslots::{KeyslotsError, Kind};
use super::ledger::{LedgerError, Machine};
use super::owner::{OwnerAuth, OwnerAuthError};
use super::pin::{self, PinError};
use super::places::PlacesError;
use super::random::RandomError;
use super::recovery::RecoveryError;
use super::replace::OpenDirectory;
use super::shares::ShareError;
use super::slots::SlotError;
use super::tpm::{Address, TpmError};
use book::Book;

/// No change of slots changes the root key.
const OLD_PAPER: &str = "; destroy the old paper: with a copy of the key directory from before it still gives the keys";

/// One conversation with the operator.
struct Desk<'a, C> {
    channel: &'a Channel,
    directory: OpenDirectory,
    tpm: Address<'a>,
    pin: Option<SecretText>,
    /// For the lines; absent where there are none.
    machine: Option<Machine>,
    what: &'static str,
    clock: &'a C,
    /// No word of the conversation is heard before, but the task.
    _confined: Confined,
}

/// Hears what is to be done, does it, and says how it went.
///
/// # Errors
/// [`ChannelError`] when the console is gone or breaks the protocol; what was not done by then is not done.
pub fn run(hardened: Hardened, args: &KeysArgs, channel: &Channel, clock: &impl Clock) -> Result<Exit, ChannelError> {
    let Some(ConsoleWord::Task(task)) = channel.recv()? else { return Err(ChannelError::Malformed) };
    match perform(hardened, args, channel, clock, task) {
        Ok(report) => {
            channel.send(&KeeperWord::Done(Box::new(report)))?;
            Ok(Exit::Ok)
        }
        // The operator has gone; there is nobody to tell.
        Err(ManageError::HungUp) => Ok(Exit::Failed),
        Err(ManageError::Channel(error)) => Err(error),
        Err(error) => {
            let exit = error.exit();
            channel.send(&KeeperWord::Refused { reason: told(&error), exit: exit.code() })?;
            Ok(exit)
        }
    }
}

/// `operator > key directory > secrets > confined (no way back) > the task`
fn perform(hardened: Hardened, args: &KeysArgs, channel: &Channel, clock: &impl Clock, task: Task) -> Result<KeysReport, ManageError> {
    directory::check_operator(&args.directory)?;
    directory::check_private(&args.directory)?;
    let directory = OpenDirectory::open(&args.directory)?;
    let machine = task.leaves_lines().then(|| Machine::look(clock.steady())).transpose()?;
    let owner = args.owner_auth.as_deref().map(OwnerAuth::read).transpose()?;
    let pin = args.pin.as_deref().map(pin::read).transpose()?;
    let tpm = Address { tcti: &args.tpm, owner: owner.as_ref() };
    let (policy, grants) = held::confinement_of_the_desk(&args.tpm, &directory)?;
    // The chain of lines, which begins when the root key is open, is to have an end.
    hardened.outlive_a_stop()?;
    let confined = hardened.keep_files()?.confine(policy, &grants)?;
    let desk = Desk { channel, directory, tpm, pin, machine, what: word_of(&task), clock, _confined: confined };
    match task {
        Task::List => desk.list(),
        Task::Policy { pcrs, values } => desk.policy(pcrs, &values),
        Task::Verify { slot } => desk.verify(slot),
        Task::Add { new: NewSlot::Tpm(conditions), with } => desk.add_tpm(&conditions, with),
        Task::Add { new: NewSlot::Recovery, with } => desk.add_code(with),
        Task::Add { new: NewSlot::Shares { threshold, count }, with } => desk.add_shares(threshold, count, with),
        Task::Remove { slot, with } => desk.remove(slot, with),
        Task::Rotate { slot, with } => desk.rotate(slot, with),
        Task::Reseal { slot, conditions, with } => desk.reseal(slot, &conditions, with),
        Task::Approve { slot, approval, with } => desk.approve(slot, &approval, with),
        Task::AcceptRollback { with } => desk.accept_rollback(with),
        Task::Unlock { with } => desk.forgive(with),
    }
}

/// As the lines say it.
const fn word_of(task: &Task) -> &'static str {
    match task {
        Task::List => "list",
        Task::Policy { .. } => "policy",
        Task::Verify { .. } => "verify",
        Task::Add { .. } => "add",
        Task::Remove { .. } => "remove",
        Task::Rotate { .. } => "rotate",
        Task::Reseal { .. } => "reseal",
        Task::Approve { .. } => "approve",
        Task::AcceptRollback { .. } => "accept_rollback",
        Task::Unlock { .. } => "unlock",
    }
}

impl<C: Clock> Desk<'_, C> {
    fn now(&self) -> u64 {
        self.clock.now().unix_millis()
    }

    fn verify(&self, slot: u32) -> Result<KeysReport, ManageError> {
        let mut book = self.open(Some(slot), None)?;
        book.save()?;
        let left = self.settle(&mut book)?;
        let log_key = hex(&Chain::begin(&book.root)?.public_key());
        Ok(self.report(&book, format!("slot {slot} opens{left}; the keeper's lines verify with the key {log_key} (salama audit verify)")))
    }

    fn remove(&self, slot: u32, with: Option<u32>) -> Result<KeysReport, ManageError> {
        if with == Some(slot) {
            return Err(ManageError::WithItself(slot));
        }
        let mut book = self.open(with, Some(slot))?;
        let removed = book.keyslots.remove(slot)?;
        book.lines.announce(Some(removed.kind.word()), Some(slot))?;
        book.save()?;
        book.lines.done();
        let left = self.settle(&mut book)?;
        let paper = if matches!(removed.kind, Kind::Tpm(_)) { "" } else { OLD_PAPER };
        Ok(self.report(&book, format!("slot {slot} is removed; slot {} was opened before{paper}{left}", book.opened_by)))
    }

    fn rotate(&self, slot: Option<u32>, with: Option<u32>) -> Result<KeysReport, ManageError> {
        let mut book = self.open(with, None)?;
        let which: Vec<u32> = match slot {
            Some(slot) => vec![slot],
            None => book.printed().collect(),
        };
        if which.is_empty() {
            return Err(ManageError::NothingPrinted);
        }
        let mut renewed = Vec::new();
        let left = self.renew_each(&mut book, &which, &mut renewed).map_err(|cause| cause.after(&renewed))?;
        Ok(self.report(&book, format!("new secrets for slot {}{OLD_PAPER}{left}", listed(&renewed))))
    }

    /// One after the other; `renewed` has those that are in force.
    fn renew_each(&self, book: &mut Book, which: &[u32], renewed: &mut Vec<u32>) -> Result<String, ManageError> {
        for id in which {
            let kind = book.keyslots.slot(*id).ok_or(KeyslotsError::NoSlot(*id))?.kind.clone();
            self.renew(book, *id, &kind)?;
            renewed.push(*id);
        }
        self.settle(book)
    }
}

fn listed(slots: &[u32]) -> String {
    slots.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

/// Why nothing was changed, or not all.
#[derive(Debug, thiserror::Error)]
pub enum ManageError {
    /// The console.
    #[error(transparent)]
    Channel(#[from] ChannelError),
    /// The operator has gone.
    #[error("the console closed the conversation")]
    HungUp,
    /// The directory.
    #[error(transparent)]
    Directory(#[from] DirectoryError),
    /// The TPM owner's password.
    #[error(transparent)]
    OwnerAuth(#[from] OwnerAuthError),
    /// The PIN's file.
    #[error(transparent)]
    Pin(#[from] PinError),
    /// A slot.
    #[error(transparent)]
    Slot(#[from] SlotError),
    /// The rules of slots.
    #[error(transparent)]
    Keyslots(#[from] KeyslotsError),
    /// The file could not be encoded.
    #[error(transparent)]
    File(#[from] ContainerError),
    /// The TPM.
    #[error(transparent)]
    Tpm(#[from] TpmError),
    /// A code.
    #[error(transparent)]
    Code(#[from] CodeError),
    /// A recovery slot.
    #[error(transparent)]
    Recovery(#[from] RecoveryError),
    /// Shares.
    #[error(transparent)]
    Share(#[from] ShareError),
    /// The erasure epoch.
    #[error(transparent)]
    Places(#[from] PlacesError),
    /// Derivation.
    #[error(transparent)]
    Derive(#[from] DeriveError),
    /// Randomness.
    #[error(transparent)]
    Random(#[from] RandomError),
    /// The lines' key.
    #[error(transparent)]
    Chain(#[from] ChainError),
    /// The kind of TPM.
    #[error(transparent)]
    Tcti(#[from] TctiError),
    /// Signals.
    #[error(transparent)]
    Harden(#[from] HardenError),
    /// Root's power.
    #[error(transparent)]
    Privilege(#[from] PrivilegeError),
    /// Confinement.
    #[error(transparent)]
    Confine(#[from] ConfineError),
    /// The file that numbers the console's starts.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// No change without its line.
    #[error("nothing was changed: the signed line on it could not be written. See that the journal, or the file after --lines, takes it")]
    Lines(#[source] io::Error),
    /// Too many wrong answers.
    #[error("nothing was changed: the answers were wrong. The last: {0}")]
    GivenUp(String),
    /// Some slots have new secrets already.
    #[error(
        "slot {renewed} has a new secret already: keep the new paper, or PIN, the old one no longer opens the box. What came after that failed"
    )]
    Partly {
        /// Which.
        renewed: String,
        /// Why not all.
        #[source]
        cause: Box<Self>,
    },
    /// A slot cannot vouch for its own removal.
    #[error("slot {0} cannot be removed by opening it: open another one (--with), so that a way in is sure to be left")]
    WithItself(u32),
    /// No code and no shares.
    #[error("no slot has a code or shares: make one first (salama keys add recovery)")]
    NothingPrinted,
    /// Nothing to forgive.
    #[error("no slot has a PIN, or it was made for a TPM that is not here: the TPM's count of wrong tries is not the box's")]
    NoPin,
    /// Not of the TPM.
    #[error("slot {0} is not of the TPM")]
    NotTpm(u32),
    /// Several or none.
    #[error("say which slot: {0}")]
    Which(&'static str),
    /// Nobody that the box knows.
    #[error(
        "this TPM is none that the box has used: if it is a new machine's, or this one was cleared, say so (--new-tpm); if not, somebody \
         may have put a device between the machine and its TPM, and nothing was given to it"
    )]
    UnknownTpm,
    /// PCRs.
    #[error("PCRs are 0 to 23, at most eight at once")]
    Pcrs,
    /// An approval.
    #[error(
        "the approval is not of the slot's PCRs, or not signed by its authority: sign what `salama keys policy` writes for them, as it is"
    )]
    Approval,
    /// What was made does not open.
    #[error("the new slot was made, but did not open to the same key: nothing was changed. The TPM may be faulty")]
    DoesNotOpen,
}

impl ManageError {
    /// Says besides which slots have new secrets, to whoever is still there.
    fn after(self, renewed: &[u32]) -> Self {
        match self {
            Self::HungUp | Self::Channel(_) => self,
            cause if renewed.is_empty() => cause,
            cause => Self::Partly { renewed: listed(renewed), cause: Box::new(cause) },
        }
    }

    const fn exit(&self) -> Exit {
        match self {
            Self::Partly { cause, .. } => cause.exit(),
            Self::Directory(DirectoryError::NotOperator) => Exit::Denied,
            Self::Directory(DirectoryError::Absent(_)) | Self::Tcti(_) => Exit::Config,
            Self::Directory(DirectoryError::Locked(_))
            | Self::Slot(SlotError::Tpm(TpmError::Busy { .. }))
            | Self::Tpm(TpmError::Busy { .. }) => Exit::Unavailable,
            Self::Keyslots(KeyslotsError::NoSlot(_)) => Exit::NotFound,
            Self::Code(_) | Self::Recovery(_) | Self::Share(_) | Self::GivenUp(_) | Self::Approval => Exit::BadInput,
            Self::WithItself(_) | Self::NothingPrinted | Self::NoPin | Self::NotTpm(_) | Self::Which(_) | Self::Pcrs | Self::UnknownTpm => {
                Exit::Usage
            }
            Self::Keyslots(KeyslotsError::Last | KeyslotsError::Full) => Exit::Failed,
            Self::Ledger(LedgerError::InUse) => Exit::Unavailable,
            Self::Directory(_)
            | Self::OwnerAuth(_)
            | Self::Pin(_)
            | Self::Slot(_)
            | Self::Keyslots(_)
            | Self::Tpm(_)
            | Self::Places(_)
            | Self::Ledger(_)
            | Self::Lines(_) => Exit::Io,
            Self::Harden(_)
            | Self::Privilege(_)
            | Self::Confine(_)
            | Self::Channel(_)
            | Self::HungUp
            | Self::Derive(_)
            | Self::Random(_)
            | Self::Chain(_)
            | Self::DoesNotOpen
            | Self::File(_) => Exit::Failed,
        }
    }
}
