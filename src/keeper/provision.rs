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
use super::tpm::nv::Mark;
use super::tpm::policy::Policy;
use super::tpm::{Address, Tpm};

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
/// [`ProvisionError`]; then nothing was left behind.
pub fn provision(plan: &Plan<'_>, clock: &impl Clock) -> Result<(), ProvisionError> {
    let box_name = BoxName::new(plan.box_name)?;
    let directory = NewDirectory::begin(plan.directory, plan.owner)?;
    let root_key = slots::random().map_err(SlotError::from)?;
    let root = Root::new(&root_key);
    let half = Half::make(plan, &root_key, &root)?;
    let mut keyslots = Keyslots::with(Kind::Tpm(half.slot.clone()), clock.now().unix_millis());
    let places = NewPlaces::make(plan, &half.slot, &root)?;
    keyslots.epoch = Some(places.at.clone());
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
    let mac = slots::file_mac(&root).map_err(SlotError::from)?;
    let file = keyslots.write(&mac).map_err(KeyslotsError::from).map_err(SlotError::from)?;
    directory.add(directory::KEYSLOTS, &file)?;
    // One of another box on this TPM gives way to it: last, so that a set-up that fails leaves that box whole.
    let counted = half.counter(&root)?;
    let leave = leave_file(&mac, counted, Leave::First).map_err(KeyslotsError::from).map_err(SlotError::from)?;
    directory.add(LEAVE, &leave)?;
    // From the rename on the box is there, also when it could not be made durable: its half and places stay.
    directory.commit(|| {
        half.keep();
        places.keep();
    })?;
    Ok(())
}

/// The first slot, whose place in the TPM's NV memory is given back unless the box comes to be.
/// A set-up that is killed in between leaves a place of 32 bytes that nobody uses.
struct Half<'a> {
    tpm: Address<'a>,
    slot: TpmSlot,
    mark: Mark,
    index: Option<u32>,
}

impl<'a> Half<'a> {
    fn make(plan: &Plan<'a>, root_key: &Secret<KEY_BYTES>, root: &Root) -> Result<Self, SlotError> {
        let address = Address { tcti: plan.tpm, owner: plan.owner_auth };
        let mut tpm = Tpm::connect(address, None)?;
        let (index, mark) = (tpm.free_index()?, slots::mark(root)?);
        let made = slots::make_tpm(&mut tpm, index, Policy::default(), None, root_key, root);
        if made.is_err() {
            // The first error is the one to tell.
            let _ = tpm.destroy_half(index, &mark);
        }
        // TPMs hold few objects at a time: this one's go before the slot is opened by the whole way.
        drop(tpm);
        let half = Self { tpm: address, slot: made?, mark, index: Some(index) };
        slots::open_tpm(&half.slot, address, None)?;
        Ok(half)
    }

    /// The counter against older copies of the store.
    fn counter(&self, root: &Root) -> Result<u64, SlotError> {
        Ok(Tpm::connect(self.tpm, Some(&self.slot.storage_root))?.make_counter(&rollback::password(root)?)?)
    }

    fn keep(mut self) {
        self.index = None;
    }
}

impl Drop for Half<'_> {
    fn drop(&mut self) {
        if let Some(index) = self.index {
            let _ = Tpm::connect(self.tpm, Some(&self.slot.storage_root)).and_then(|mut tpm| tpm.destroy_half(index, &self.mark));
        }
    }
}

/// The erasure epoch's places, given back like the [`Half`].
struct NewPlaces<'a> {
    tpm: Address<'a>,
    at: EpochPlaces,
    mark: Mark,
    kept: bool,
}

impl<'a> NewPlaces<'a> {
    fn make(plan: &Plan<'a>, slot: &TpmSlot, root: &Root) -> Result<Self, PlacesError> {
        let address = Address { tcti: plan.tpm, owner: plan.owner_auth };
        let mut tpm = Tpm::connect(address, Some(&slot.storage_root))?;
        let first = Epoch::new(1)?;
        let at = EpochPlaces { storage_root: slot.storage_root.clone(), first: tpm.free_places()?, carried: vec![first.number()] };
        let new = Self { tpm: address, at, mark: slots::mark(root)?, kept: false };
        places::make(&mut tpm, &new.at, root, &[first])?;
        Ok(new)
    }

    fn keep(mut self) {
        self.kept = true;
    }
}

impl Drop for NewPlaces<'_> {
    fn drop(&mut self) {
        let halves = if self.kept { None } else { Some(self.at.halves()) };
        for half in halves.into_iter().flatten() {
            let _ = Tpm::connect(self.tpm, Some(&half.storage_root)).and_then(|mut tpm| tpm.destroy_half(half.index, &self.mark));
        }
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
