//! The box's certificates with their private keys, each key wrapped by its own key of the hierarchy.
//! Trusts: `container` for authenticity.
//! Touches: nothing.
//! Next: the daemon's keeper takes the TLS key and never opens the CA's; the console's keeper the other way round.

use rustls_pki_types::CertificateDer;
use serde::{Deserialize, Serialize};

use super::ca::{Authority, BoxName, IssueError};
use super::container::{self, ContainerError};
use super::hierarchy::{DeriveError, Purpose, Root};
use super::signer::{EcKey, KeyError};
use super::slots::file_mac;
use super::wrap::{UnwrapError, WrapError, WrappingKey};

/// As stored.
#[derive(Serialize, Deserialize)]
struct Stored {
    box_name: String,
    ca: Vec<u8>,
    ca_key: Vec<u8>,
    server_chain: Vec<Vec<u8>>,
    tls_key: Vec<u8>,
}

/// Certificates, and private keys that are still wrapped.
pub struct Keyring {
    box_name: BoxName,
    stored: Stored,
}

/// What a new keyring is made of.
pub struct NewKeyring<'a> {
    /// The box.
    pub box_name: &'a BoxName,
    /// The authority's certificate.
    pub ca: &'a CertificateDer<'static>,
    /// Its private key, PKCS#8.
    pub ca_key: &'a [u8],
    /// The server's chain, leaf first.
    pub server_chain: &'a [CertificateDer<'static>],
    /// The server's private key, PKCS#8.
    pub tls_key: &'a [u8],
}

/// The keyring's file, with both private keys wrapped.
///
/// # Errors
/// [`KeyringError`].
pub fn create(root: &Root, new: &NewKeyring<'_>) -> Result<Vec<u8>, KeyringError> {
    let owner = new.box_name.as_str().as_bytes();
    let stored = Stored {
        box_name: new.box_name.as_str().to_owned(),
        ca: new.ca.to_vec(),
        ca_key: ca_wrap(root)?.wrap(owner, new.ca_key)?,
        server_chain: new.server_chain.iter().map(|certificate| certificate.to_vec()).collect(),
        tls_key: tls_wrap(root)?.wrap(owner, new.tls_key)?,
    };
    Ok(container::write(container::KEYRING, &stored, &file_mac(root)?)?)
}

/// Reads and authenticates the keyring's file.
///
/// # Errors
/// [`KeyringError`].
pub fn open(root: &Root, file: &[u8]) -> Result<Keyring, KeyringError> {
    let stored = container::read::<Stored>(container::KEYRING, file)?.authenticate(&file_mac(root)?)?;
    Ok(Keyring { box_name: BoxName::new(&stored.box_name)?, stored })
}

impl Keyring {
    /// The box.
    pub fn box_name(&self) -> &str {
        self.box_name.as_str()
    }

    /// The authority's certificate.
    pub fn ca(&self) -> CertificateDer<'static> {
        self.stored.ca.clone().into()
    }

    /// The server's chain, leaf first.
    pub fn server_chain(&self) -> Vec<CertificateDer<'static>> {
        self.stored.server_chain.iter().cloned().map(CertificateDer::from).collect()
    }

    /// Opens the server's private key.
    ///
    /// # Errors
    /// [`KeyringError`].
    pub fn open_tls_key(&self, root: &Root) -> Result<EcKey, KeyringError> {
        let pkcs8 = tls_wrap(root)?.unwrap(self.box_name.as_str().as_bytes(), &self.stored.tls_key)?;
        Ok(EcKey::from_pkcs8(&pkcs8)?)
    }

    /// Opens the authority's private key.
    ///
    /// # Errors
    /// [`KeyringError`].
    pub fn open_authority(&self, root: &Root) -> Result<Authority, KeyringError> {
        let pkcs8 = ca_wrap(root)?.unwrap(self.box_name.as_str().as_bytes(), &self.stored.ca_key)?;
        Ok(Authority::open(self.box_name.clone(), self.ca(), EcKey::from_pkcs8(&pkcs8)?)?)
    }
}

fn ca_wrap(root: &Root) -> Result<WrappingKey, KeyringError> {
    Ok(WrappingKey::new(&root.derive(Purpose::CaWrap)?, "ca key")?)
}

fn tls_wrap(root: &Root) -> Result<WrappingKey, KeyringError> {
    Ok(WrappingKey::new(&root.derive(Purpose::TlsWrap)?, "tls key")?)
}

/// Why the keyring could not be written or read.
#[derive(Debug, thiserror::Error)]
pub enum KeyringError {
    /// Its file.
    #[error("the file {} cannot be used", super::directory::KEYRING)]
    File(#[from] ContainerError),
    /// Derivation.
    #[error(transparent)]
    Derive(#[from] DeriveError),
    /// Wrapping.
    #[error(transparent)]
    Wrap(#[from] WrapError),
    /// Unwrapping.
    #[error(transparent)]
    Unwrap(#[from] UnwrapError),
    /// A private key.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The authority.
    #[error(transparent)]
    Authority(#[from] IssueError),
}
