//! From the sealed files to the open keys of one mode.
//! Trusts: the TPM, once its storage root has the recorded name.
//! Touches: the key directory and the TPM; for the console both are closed again, for the daemon they stay open ([`Held`]).
//! Next: `src/bin/salama-keeper.rs` confines the process and lets `serve` answer.

use std::cell::RefCell;
use std::io::{self, Stderr};
use std::rc::Rc;

use nix::unistd::geteuid;
use ring::rand::{SecureRandom, SystemRandom};

use crate::base::clock::{Clock as _, SystemClock};
use crate::base::exit::Exit;
use crate::base::secret::Secret;
use crate::ipc::keeper::{Counter, Leave, Standing, TpmLockout};
use crate::ipc::key_log::Series;
use crate::sandbox::landlock::Grant;
use crate::sandbox::policy::{self, Policy};
use crate::sandbox::privilege::PrivilegeError;
use crate::sandbox::process::{ConfineError, HardenError, LockMemoryError};

use super::args::ServeArgs;
use super::chain::{Chain, ChainError};
use super::container::MacKey;
use super::directory::{self, DirectoryError};
use super::erasure::{self, ErasureKeyError};
use super::grant::Grants;
use super::held::{self, Held, HeldError, TctiError};
use super::hierarchy::{DeriveError, Purpose};
use super::journal::Journal;
use super::keyring::{self, Keyring, KeyringError};
use super::ledger::{Alone, Before, Ledger, LedgerError, Machine};
use super::limits::{Limits, LimitsError};
use super::moving::{Deks, DeksError};
use super::owner::{OwnerAuth, OwnerAuthError};
use super::pin::{self, PinError};
use super::places::{self, LivePlaces, PlacesError};
use super::replace::OpenDirectory;
use super::rollback::Rollback;
use super::serve::{Greeting, Keys};
use super::slots::{self, SlotError};
use super::tpm::lockout::Lockout;
use super::tpm::{Address, Tpm, TpmError};
use super::wrap::WrapError;

/// Keys and greeting of one mode.
pub struct Opened {
    /// What it answers with.
    pub keys: Keys,
    /// How often.
    pub limits: Limits,
    /// Who may allow more; nobody at the console.
    pub grants: Option<Grants>,
    /// Its lines, of which the first is written.
    pub journal: Journal<Stderr>,
    /// What outlives this start.
    pub ledger: (Ledger, Before),
    /// What it says first.
    pub greeting: Greeting,
    /// What stays open, of the daemon's.
    pub held: Option<Rc<RefCell<Held>>>,
    /// How it is to be confined.
    pub policy: &'static Policy,
    /// What it keeps of the world.
    pub access: Vec<Grant>,
}

/// The account to serve as: the one named or, for root, the owner of the keys. Nobody but these two may start a keeper.
///
/// # Errors
/// [`StartError::Directory`] when there is no key directory, or it is another's.
pub fn account(args: &ServeArgs) -> Result<Option<String>, StartError> {
    directory::check_operator(&args.directory)?;
    match &args.user {
        Some(user) => Ok(Some(user.clone())),
        None if geteuid().is_root() => Ok(Some(directory::owner(&args.directory)?.to_string())),
        None => Ok(None),
    }
}

/// For the daemon: record KEK, TLS key, index key; the TPM and the key directory stay open. The CA's private key stays wrapped.
///
/// # Errors
/// [`StartError`].
pub fn open_daemon(args: &ServeArgs) -> Result<Opened, StartError> {
    let directory = OpenDirectory::open(&args.directory)?;
    with_root(args, |OpenBox { opened, keyring, limits, chain }| {
        let slots::Opened { root_key, root, mut keyslots, mut tpm } = opened;
        let at = places::of_box(&mut tpm, &mut keyslots, &root, &directory)?;
        let signer = erasure::of_box(&directory, &root)?;
        let rollback = Rollback::begin(&mut tpm, &root, &directory, keyslots.generation)?;
        let counter = rollback.counter();
        let lockout = lockout_now(&mut tpm);
        let (policy, access) = held::confinement(&args.tpm, &directory)?;
        let held = Rc::new(RefCell::new(Held { tpm: tpm.rest()?, directory, generation: keyslots.generation }));
        let (record_kek, index, tls) = (root.derive(Purpose::RecordKek)?, root.derive(Purpose::Index)?, keyring.open_tls_key(&root)?);
        let mac = root.derive(Purpose::FileMac)?;
        let live = LivePlaces::new(Rc::clone(&held), &at, root, root_key)?;
        let deks = Deks::open(record_kek, Box::new(live), signer, counter.leave == Leave::Accepted)?;
        let counter = Counter { epochs: deks.epochs(), ..counter };
        let keys = Keys::Daemon { deks: Box::new(deks), tls: Box::new(tls), rollback: Some(Box::new(rollback)) };
        let grants = Some(Grants::new(keyring.ca(), keyring.box_name().to_owned(), chain.start()));
        let greeting = Greeting { counter, ..greeting(&keyring, &chain, index, lockout) };
        let kept = held.borrow().directory.clone();
        let alone = Alone::take(&kept, Series::Daemon)?;
        let (journal, ledger) = begin_chain(chain, alone, &mac, Machine::look(SystemClock.steady())?)?;
        Ok(Opened { keys, limits, grants, journal, ledger, greeting, held: Some(held), policy, access })
    })
}

/// For the console: the CA's key only.
///
/// # Errors
/// [`StartError`].
pub fn open_console(args: &ServeArgs) -> Result<Opened, StartError> {
    with_root(args, |OpenBox { opened, keyring, limits, chain }| {
        let keys = Keys::Console { authority: Box::new(keyring.open_authority(&opened.root)?) };
        let nothing = Secret::try_fill(|to| SystemRandom::new().fill(to).map_err(|_| WrapError))?;
        let greeting = greeting(&keyring, &chain, nothing, None);
        let mac = opened.root.derive(Purpose::FileMac)?;
        let alone = Alone::take(&OpenDirectory::open(&args.directory)?, Series::Console)?;
        let (journal, ledger) = begin_chain(chain, alone, &mac, Machine::look(SystemClock.steady())?)?;
        let (policy, access) = (&policy::keeper::POLICY, Vec::new());
        Ok(Opened { keys, limits, grants: None, journal, ledger, greeting, held: None, policy, access })
    })
}

/// The start gets its number and says it at once, before anything else can fail: a number that nobody has said would look like a start
/// that somebody has taken out of the lines.
///
/// # Errors
/// [`LedgerError`].
pub fn begin_chain(
    chain: Chain,
    alone: Alone,
    mac: &Secret<{ super::hierarchy::KEY_BYTES }>,
    machine: Machine,
) -> Result<(Journal<Stderr>, (Ledger, Before)), LedgerError> {
    let (steady, series) = (SystemClock.steady(), alone.series);
    let (mut ledger, before) = Ledger::open(alone, MacKey::new(mac), machine)?;
    let number = ledger.begin(chain.start())?;
    let mut journal = Journal::new(io::stderr(), chain, series, number, steady);
    // A log that takes nothing shows at the first use of a key, which is then refused.
    let _ = journal.begin(SystemClock.now());
    Ok((journal, (ledger, before)))
}

/// What both modes begin with.
struct OpenBox<'a> {
    opened: slots::Opened<'a>,
    keyring: Keyring,
    limits: Limits,
    chain: Chain,
}

/// TPM > root key > keyring.
fn with_root(args: &ServeArgs, then: impl FnOnce(OpenBox<'_>) -> Result<Opened, StartError>) -> Result<Opened, StartError> {
    let files = directory::read(&args.directory)?;
    let limits = Limits::read(&files.limits)?;
    let owner = args.owner_auth.as_deref().map(OwnerAuth::read).transpose()?;
    let pin = args.pin.as_deref().map(pin::read).transpose()?;
    let opened = slots::open(&files.slots, Address { tcti: &args.tpm, owner: owner.as_ref() }, pin.as_ref())?;
    let keyring = keyring::open(&opened.root, &files.keyring)?;
    let chain = Chain::begin(&opened.root)?;
    then(OpenBox { opened, keyring, limits, chain })
}

/// For `salama status`. A TPM that does not tell keeps nobody from starting.
fn lockout_now(tpm: &mut Tpm) -> Option<TpmLockout> {
    let Lockout { failed, tries, locked, .. } = tpm.lockout().ok()?;
    Some(TpmLockout { at: SystemClock.now(), failed, tries, locked })
}

/// Without the counter.
fn greeting(keyring: &Keyring, chain: &Chain, index_key: Secret<{ super::hierarchy::KEY_BYTES }>, lockout: Option<TpmLockout>) -> Greeting {
    let standing = Standing { box_name: keyring.box_name().to_owned(), start: chain.start(), log_key: chain.public_key(), lockout };
    Greeting { server_chain: keyring.server_chain(), client_ca: keyring.ca(), index_key, counter: Counter::default(), standing }
}

/// Why the keeper did not come to answer.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Hardening.
    #[error(transparent)]
    Harden(#[from] HardenError),
    /// Locking memory.
    #[error(transparent)]
    LockMemory(#[from] LockMemoryError),
    /// The key directory.
    #[error(transparent)]
    Directory(#[from] DirectoryError),
    /// The TPM owner's password.
    #[error(transparent)]
    OwnerAuth(#[from] OwnerAuthError),
    /// The PIN's file.
    #[error(transparent)]
    Pin(#[from] PinError),
    /// The keyslot or the TPM.
    #[error(transparent)]
    Slot(#[from] SlotError),
    /// The TPM, laid down for later.
    #[error(transparent)]
    Tpm(#[from] TpmError),
    /// The erasure epoch's places.
    #[error(transparent)]
    Places(#[from] PlacesError),
    /// The erasure epoch.
    #[error(transparent)]
    Deks(#[from] DeksError),
    /// The key for certificates of erasure.
    #[error(transparent)]
    Erasure(#[from] ErasureKeyError),
    /// What is kept, tried out.
    #[error(transparent)]
    Held(#[from] HeldError),
    /// The kind of TPM.
    #[error(transparent)]
    Tcti(#[from] TctiError),
    /// The keyring.
    #[error(transparent)]
    Keyring(#[from] KeyringError),
    /// The limits.
    #[error(transparent)]
    Limits(#[from] LimitsError),
    /// What outlives a start.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// The lines' key.
    #[error(transparent)]
    Chain(#[from] ChainError),
    /// Derivation.
    #[error(transparent)]
    Derive(#[from] DeriveError),
    /// The cipher or the random number generator.
    #[error(transparent)]
    Wrap(#[from] WrapError),
    /// Becoming an ordinary user.
    #[error(transparent)]
    Privilege(#[from] PrivilegeError),
    /// Confinement.
    #[error(transparent)]
    Confine(#[from] ConfineError),
}

impl StartError {
    /// The exit code that says it.
    pub const fn exit(&self) -> Exit {
        match self {
            Self::Directory(DirectoryError::NotOperator) => Exit::Denied,
            Self::Directory(DirectoryError::Absent(_)) | Self::Limits(_) => Exit::Config,
            // Started again and again, a service would use up the tries of the PIN.
            Self::Slot(error) if error.is_of_pin() => Exit::Config,
            Self::Slot(SlotError::Tpm(TpmError::ForeignCounter)) => Exit::Config,
            Self::Tcti(_) => Exit::Config,
            Self::Tpm(_)
            | Self::Places(_)
            | Self::Deks(_)
            | Self::Ledger(_)
            | Self::Erasure(_)
            | Self::Held(_)
            | Self::Directory(_)
            | Self::Pin(_)
            | Self::OwnerAuth(_)
            | Self::Slot(_)
            | Self::Keyring(_) => Exit::Io,
            Self::Privilege(PrivilegeError::Root | PrivilegeError::UnknownUser { .. }) => Exit::Config,
            Self::Harden(_)
            | Self::LockMemory(_)
            | Self::Chain(_)
            | Self::Derive(_)
            | Self::Wrap(_)
            | Self::Privilege(_)
            | Self::Confine(_) => Exit::Failed,
        }
    }
}
