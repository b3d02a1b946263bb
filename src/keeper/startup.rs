//! From the sealed files to the open keys of one mode.
//! Trusts: the TPM, once its storage root has the recorded name.
//! Touches: the key directory and the TPM; both are closed again when these functions return.
//! Next: `src/bin/salama-keeper.rs` confines the process and lets `serve` answer.

use nix::unistd::geteuid;
use ring::rand::{SecureRandom, SystemRandom};

use crate::base::exit::Exit;
use crate::base::secret::Secret;
use crate::sandbox::privilege::PrivilegeError;
use crate::sandbox::process::{ConfineError, HardenError, LockMemoryError};

use super::args::ServeArgs;
use super::directory::{self, DirectoryError};
use super::hierarchy::{DeriveError, Purpose, Root};
use super::keyring::{self, Keyring, KeyringError};
use super::owner::{OwnerAuth, OwnerAuthError};
use super::pin::{self, PinError};
use super::serve::{Greeting, Keys};
use super::slots::{self, SlotError};
use super::tpm::Address;
use super::wrap::{DekWrapper, WrapError};

/// Keys and greeting of one mode.
pub struct Opened {
    /// What it answers with.
    pub keys: Keys,
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
    let (root, keyring) = open_root(args)?;
    let deks = DekWrapper::new(&root.derive(Purpose::RecordKek)?)?;
    let keys = Keys::Daemon { deks: Box::new(deks), tls: Box::new(keyring.open_tls_key(&root)?) };
    Ok(Opened { keys, greeting: greeting(&keyring, root.derive(Purpose::Index)?) })
}

/// For the console: the CA's key only.
///
/// # Errors
/// [`StartError`].
pub fn open_console(args: &ServeArgs) -> Result<Opened, StartError> {
    let (root, keyring) = open_root(args)?;
    let keys = Keys::Console { authority: Box::new(keyring.open_authority(&root)?) };
    let nothing = Secret::try_fill(|to| SystemRandom::new().fill(to).map_err(|_| WrapError))?;
    Ok(Opened { keys, greeting: greeting(&keyring, nothing) })
}

/// TPM > root key > TPM closed: no context outlives [`slots::open`].
fn open_root(args: &ServeArgs) -> Result<(Root, Keyring), StartError> {
    let files = directory::read(&args.directory)?;
    let owner = args.owner_auth.as_deref().map(OwnerAuth::read).transpose()?;
    let pin = args.pin.as_deref().map(pin::read).transpose()?;
    let root = slots::open(&files.slots, Address { tcti: &args.tpm, owner: owner.as_ref() }, pin.as_ref())?;
    let keyring = keyring::open(&root, &files.keyring)?;
    Ok((root, keyring))
}

fn greeting(keyring: &Keyring, index_key: Secret<{ super::hierarchy::KEY_BYTES }>) -> Greeting {
    Greeting { server_chain: keyring.server_chain(), client_ca: keyring.ca(), index_key }
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
            Self::Directory(DirectoryError::Absent(_)) => Exit::Config,
            // Started again and again, a service would use up the tries of the PIN.
            Self::Slot(error) if error.is_of_pin() => Exit::Config,
            Self::Directory(_) | Self::Pin(_) | Self::OwnerAuth(_) | Self::Slot(_) | Self::Keyring(_) => Exit::Io,
            Self::Privilege(PrivilegeError::Root | PrivilegeError::UnknownUser { .. }) => Exit::Config,
            Self::Harden(_) | Self::LockMemory(_) | Self::Derive(_) | Self::Wrap(_) | Self::Privilege(_) | Self::Confine(_) => Exit::Failed,
        }
    }
}
