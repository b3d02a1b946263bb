//! Setting a box up: root key, keyslot, certificate authority, TLS key. All of it or nothing.
//! Trusts: the operator at the console, who started it.
//! Touches: the TPM and the key directory, which must not hold anything yet.
//! Next: `cli::init` starts it through `salama-keeper provision`.

use std::path::Path;

use ring::rand::{SecureRandom, SystemRandom};
use rustls_pki_types::CertificateDer;

use crate::base::clock::Clock;
use crate::base::secret::Secret;

use super::ca::{Authority, BoxName, IssueError};
use super::directory::{self, DirectoryError, NewDirectory};
use super::hierarchy::KEY_BYTES;
use super::keyring::{self, KeyringError, NewKeyring};
use super::owner::OwnerAuth;
use super::signer::{EcKey, KeyError};
use super::slots::{self, SlotError};

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
    let root_key: Secret<KEY_BYTES> = Secret::try_fill(|to| SystemRandom::new().fill(to).map_err(|_| ProvisionError::Random))?;
    let (slot, root) = slots::create(plan.tpm, plan.owner_auth, &root_key)?;
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
    directory.add(directory::CA_PEM, pem_text(authority.certificate()).as_bytes())?;
    directory.add(directory::TPM_SLOT, &slot)?;
    Ok(directory.commit()?)
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
    /// A certificate.
    #[error(transparent)]
    Issue(#[from] IssueError),
    /// A private key.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The keyring.
    #[error(transparent)]
    Keyring(#[from] KeyringError),
    /// Randomness.
    #[error("the operating system's random number generator failed; reboot the machine")]
    Random,
}
