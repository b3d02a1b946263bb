//! The TLS server's key, as rustls wants it: here the handle, in the keeper the key.
//! Trusts: nothing; the keeper itself refuses what is no TLS 1.3 handshake.
//! Touches: the channel to the keeper.
//! Next: `connection` puts it into its TLS configuration.

use std::fmt;
use std::sync::Arc;

use rustls::pki_types::SubjectPublicKeyInfoDer;
use rustls::sign::{Signer, SigningKey};
use rustls::{Error, OtherError, SignatureAlgorithm, SignatureScheme};

use super::Keeper;

/// A signing key whose private half stays in the keeper. ECDSA P-256 with SHA-256 only, which suits TLS 1.3 only.
pub fn signing_key(keeper: Keeper) -> Arc<dyn SigningKey> {
    Arc::new(KeeperKey(keeper))
}

struct KeeperKey(Keeper);

impl SigningKey for KeeperKey {
    fn choose_scheme(&self, offered: &[SignatureScheme]) -> Option<Box<dyn Signer>> {
        if !offered.contains(&SignatureScheme::ECDSA_NISTP256_SHA256) {
            return None;
        }
        Some(Box::new(Self(self.0.clone())))
    }

    fn public_key(&self) -> Option<SubjectPublicKeyInfoDer<'_>> {
        None
    }

    fn algorithm(&self) -> SignatureAlgorithm {
        SignatureAlgorithm::ECDSA
    }
}

impl Signer for KeeperKey {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, Error> {
        self.0.sign_tls(message).map_err(|error| Error::Other(OtherError(Arc::new(error))))
    }

    fn scheme(&self) -> SignatureScheme {
        SignatureScheme::ECDSA_NISTP256_SHA256
    }
}

impl fmt::Debug for KeeperKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KeeperKey")
    }
}
