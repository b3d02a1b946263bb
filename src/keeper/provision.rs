//! Setting a box up: root key, keyslot, certificate authority, TLS key. All of it or nothing.
//! Trusts: the operator at the console, who started it.
//! Touches: the TPM and the key directory, which must not hold anything yet.
//! Next: `cli::init` starts it through `salama-keeper provision`.

use std::path::Path;

use rustls_pki_types::CertificateDer;

use crate::base::clock::Clock;
use crate::base::secret::Secret;
use crate::ipc::keeper::Leave;

use super::ca::{Authority, BoxName, IssueError};
use super::directory::{self, DirectoryError, NewDirectory};
use super::epoch::Epoch;
use super::erasure::{self, ErasureKeyError};
use super::hierarchy::{KEY_BYTES, Root};
use super::keyring::{self, KeyringError, NewKeyring};
use super::keyslots::{EpochPlaces, Keyslots, KeyslotsError, Kind, TpmSlot};
use super::owner::OwnerAuth;
use super::places::{self, PlacesError};
use super::rollback::{self, LEAVE, leave_file};
use super::signer::{EcKey, KeyError};
use super::slots::{self, SlotError};
use super::tpm::policy::Policy;
use super::tpm::{Address, StorageRoot, Tpm};
use super::unfinished::{self, Note, Unfinished, UnfinishedError};

/// What the operator says of the new box.
pub struct Plan<'a> {
    /// Where the keys will be; missing or empty.
    pub directory: &'a Path,
    /// The TPM's TCTI name.
    pub tpm: &'a str,
    /// The password of its owner hierarchy, when it has one.
    pub owner_auth: Option<&'a OwnerAuth>,
    /// The box's name in its certificates.
    pub box_name: &'a str,
    /// DNS names and addresses of the server.
    pub server_names: &'a [String],
    /// Validity of the server's certificate, days.
    pub server_days: u16,
    /// The user that the keeper serves as.
    pub owner: Option<&'a str>,
}

/// Sets the box up. The root key exists only in this process's memory and, sealed, in the slot.
///
/// # Errors
/// [`ProvisionError`]; then nothing was left behind that the next set-up does not destroy.
pub fn provision(plan: &Plan<'_>, clock: &impl Clock) -> Result<(), ProvisionError> {
    let box_name = BoxName::new(plan.box_name)?;
    let address = Address { tcti: plan.tpm, owner: plan.owner_auth };
    let directory = NewDirectory::begin(plan.directory, plan.owner)?;
    unfinished::clear(plan.directory, directory.owner(), address)?;
    let root_key = slots::random().map_err(SlotError::from)?;
    let root = Root::new(&root_key);
    let mac = slots::file_mac(&root).map_err(SlotError::from)?;
    let found = Found::look(address)?;
    let unfinished = Unfinished::begin(address, &directory, found.note(&root)?, &mac)?;
    let (slot, places) = found.make(address, &root_key, &root)?;
    let mut keyslots = Keyslots::with(Kind::Tpm(slot), clock.now().unix_millis());
    keyslots.epoch = Some(places);
    let (ca_key, ca_pkcs8) = EcKey::generate()?;
    let (tls_key, tls_pkcs8) = EcKey::generate()?;
    let authority = Authority::create(box_name.clone(), ca_key, clock.now())?;
    let server_chain = authority.issue_server(&tls_key, plan.server_names, plan.server_days, clock.now())?;
    let new = NewKeyring {
        box_name: &box_name,
        ca: authority.certificate(),
        ca_key: &ca_pkcs8,
        server_chain: &server_chain,
        tls_key: &tls_pkcs8,
    };
    directory.add(directory::KEYRING, &keyring::create(&root, &new)?)?;
    for (name, bytes) in erasure::create(&root)?.1 {
        directory.add(name, &bytes)?;
    }
    directory.add(directory::CA_PEM, pem_text(authority.certificate()).as_bytes())?;
    let file = keyslots.write(&mac).map_err(KeyslotsError::from).map_err(SlotError::from)?;
    directory.add(directory::KEYSLOTS, &file)?;
    // One of another box on this TPM gives way to it: last, so that a set-up that fails leaves that box whole.
    let counted = found.counter(address, &root)?;
    let leave = leave_file(&mac, counted, Leave::First).map_err(KeyslotsError::from).map_err(SlotError::from)?;
    directory.add(LEAVE, &leave)?;
    // From the rename on the box is there, also when it could not be made durable: what it has in the TPM stays.
    directory.commit(|| unfinished.finish(plan.directory))?;
    Ok(())
}

/// Where in the TPM's NV memory the box will have its places.
struct Found {
    storage_root: StorageRoot,
    half: u32,
    first: u32,
}

impl Found {
    fn look(address: Address<'_>) -> Result<Self, SlotError> {
        let mut tpm = Tpm::connect(address, None)?;
        Ok(Self { storage_root: tpm.storage_root().clone(), half: tpm.free_index()?, first: tpm.free_places()? })
    }

    fn places(&self) -> EpochPlaces {
        EpochPlaces { storage_root: self.storage_root.clone(), first: self.first, carried: Vec::new() }
    }

    fn note(&self, root: &Root) -> Result<Note, SlotError> {
        let of_epoch = self.places().halves().map(|half| half.index);
        let places = [self.half].into_iter().chain(of_epoch).collect();
        Ok(Note { storage_root: self.storage_root.clone(), mark: slots::mark(root)?, places })
    }

    /// The first slot, opened once by the whole way, and the erasure epoch's places.
    fn make(&self, address: Address<'_>, root_key: &Secret<KEY_BYTES>, root: &Root) -> Result<(TpmSlot, EpochPlaces), ProvisionError> {
        let mut tpm = Tpm::connect(address, Some(&self.storage_root)).map_err(SlotError::from)?;
        let slot = slots::make_tpm(&mut tpm, self.half, Policy::default(), None, root_key, root)?;
        // TPMs hold few objects at a time: this one's go before the slot is opened.
        drop(tpm);
        slots::open_tpm(&slot, address, None)?;
        let mut tpm = Tpm::connect(address, Some(&slot.storage_root)).map_err(SlotError::from)?;
        let first = Epoch::new(1).map_err(PlacesError::from)?;
        let at = EpochPlaces { carried: vec![first.number()], ..self.places() };
        places::make(&mut tpm, &at, root, &[first])?;
        Ok((slot, at))
    }

    /// The counter against older copies of the store.
    fn counter(&self, address: Address<'_>, root: &Root) -> Result<u64, SlotError> {
        Ok(Tpm::connect(address, Some(&self.storage_root))?.make_counter(&rollback::password(root)?)?)
    }
}

fn pem_text(certificate: &CertificateDer<'_>) -> String {
    pem::encode(&pem::Pem::new("CERTIFICATE", certificate.as_ref()))
}

/// Why the box was not set up.
#[derive(Debug, thiserror::Error)]
pub enum ProvisionError {
    /// The key directory.
    #[error(transparent)]
    Directory(#[from] DirectoryError),
    /// What a set-up leaves that is cut off.
    #[error(transparent)]
    Unfinished(#[from] UnfinishedError),
    /// The TPM or the slot.
    #[error(transparent)]
    Slot(#[from] SlotError),
    /// The erasure epoch.
    #[error(transparent)]
    Places(#[from] PlacesError),
    /// The key for certificates of erasure.
    #[error(transparent)]
    Erasure(#[from] ErasureKeyError),
    /// A certificate.
    #[error(transparent)]
    Issue(#[from] IssueError),
    /// A private key.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The keyring.
    #[error(transparent)]
    Keyring(#[from] KeyringError),
}
