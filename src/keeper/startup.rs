//! From the sealed files to the open keys of one mode.
//! Trusts: the TPM, once its storage root has the recorded name.
//! Touches: the key directory and the TPM; both are closed again when these functions return.
//! Next: `src/bin/salama-keeper.rs` confines the process and lets `serve` answer.

use nix::unistd::geteuid;
use ring::rand::{SecureRandom, SystemRandom};

use crate::base::clock::{Clock, SystemClock};
use crate::base::exit::Exit;
use crate::base::secret::Secret;
use crate::ipc::keeper::{Standing, TpmLockout};
use crate::sandbox::privilege::PrivilegeError;
use crate::sandbox::process::{ConfineError, HardenError, LockMemoryError};

use super::args::ServeArgs;
use super::chain::{Chain, ChainError};
use super::directory::{self, DirectoryError};
use super::grant::Grants;
use super::hierarchy::{DeriveError, Purpose, Root};
use super::keyring::{self, Keyring, KeyringError};
use super::limits::{Limits, LimitsError};
use super::owner::{OwnerAuth, OwnerAuthError};
use super::pin::{self, PinError};
use super::serve::{Greeting, Keys};
use super::slots::{self, SlotError};
use super::tpm::{Address, TpmError, lockout};
use super::wrap::{DekWrapper, WrapError};

/// Keys and greeting of one mode.
pub struct Opened {
    /// What it answers with.
    pub keys: Keys,
    /// How often.
    pub limits: Limits,
    /// Who may allow more; nobody at the console.
    pub grants: Option<Grants>,
    /// What signs its lines.
    pub chain: Chain,
    /// What it says first.
    pub greeting: Greeting,
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

/// For the daemon: record KEK, TLS key, index key. The CA's private key stays wrapped.
///
/// # Errors
/// [`StartError`].
pub fn open_daemon(args: &ServeArgs) -> Result<Opened, StartError> {
    let OpenBox { root, keyring, limits, chain } = open_box(args)?;
    let deks = DekWrapper::new(&root.derive(Purpose::RecordKek)?)?;
    let keys = Keys::Daemon { deks: Box::new(deks), tls: Box::new(keyring.open_tls_key(&root)?) };
    let grants = Some(Grants::new(keyring.ca(), keyring.box_name().to_owned(), chain.start()));
    let greeting = greeting(&keyring, &chain, root.derive(Purpose::Index)?, lockout_now(args));
    Ok(Opened { keys, limits, grants, chain, greeting })
}

/// For the console: the CA's key only.
///
/// # Errors
/// [`StartError`].
pub fn open_console(args: &ServeArgs) -> Result<Opened, StartError> {
    let OpenBox { root, keyring, limits, chain } = open_box(args)?;
    let keys = Keys::Console { authority: Box::new(keyring.open_authority(&root)?) };
    let nothing = Secret::try_fill(|to| SystemRandom::new().fill(to).map_err(|_| WrapError))?;
    let greeting = greeting(&keyring, &chain, nothing, None);
    Ok(Opened { keys, limits, grants: None, chain, greeting })
}

/// What both modes begin with.
struct OpenBox {
    root: Root,
    keyring: Keyring,
    limits: Limits,
    chain: Chain,
}

/// TPM > root key > TPM closed: no context outlives [`slots::open`].
fn open_box(args: &ServeArgs) -> Result<OpenBox, StartError> {
    let files = directory::read(&args.directory)?;
    let limits = Limits::read(&files.limits)?;
    let owner = args.owner_auth.as_deref().map(OwnerAuth::read).transpose()?;
    let pin = args.pin.as_deref().map(pin::read).transpose()?;
    let root = slots::open(&files.slots, Address { tcti: &args.tpm, owner: owner.as_ref() }, pin.as_ref())?;
    let keyring = keyring::open(&root, &files.keyring)?;
    let chain = Chain::begin(&root)?;
    Ok(OpenBox { root, keyring, limits, chain })
}

/// For `salama status`. A TPM that does not tell keeps nobody from starting.
fn lockout_now(args: &ServeArgs) -> Option<TpmLockout> {
    let lockout::Lockout { failed, tries, locked, .. } = lockout::read(&args.tpm).ok()?;
    Some(TpmLockout { at: SystemClock.now(), failed, tries, locked })
}

fn greeting(keyring: &Keyring, chain: &Chain, index_key: Secret<{ super::hierarchy::KEY_BYTES }>, lockout: Option<TpmLockout>) -> Greeting {
    let standing = Standing { box_name: keyring.box_name().to_owned(), start: chain.start(), log_key: chain.public_key(), lockout };
    Greeting { server_chain: keyring.server_chain(), client_ca: keyring.ca(), index_key, standing }
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
    /// The keyring.
    #[error(transparent)]
    Keyring(#[from] KeyringError),
    /// The limits.
    #[error(transparent)]
    Limits(#[from] LimitsError),
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
            Self::Slot(SlotError::PinNeeded | SlotError::Tpm(TpmError::WrongPin(_) | TpmError::LockedOut(_))) => Exit::Config,
            Self::Directory(_) | Self::Pin(_) | Self::OwnerAuth(_) | Self::Slot(_) | Self::Keyring(_) => Exit::Io,
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
