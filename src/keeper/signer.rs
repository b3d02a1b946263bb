//! Private keys on P-256, and the one thing that the TLS key signs.
//! Trusts: nothing that it is asked to sign.
//! Touches: the random number generator of the operating system.
//! Next: `ca` issues with one, `serve` signs handshakes with the other.

use rcgen::{PKCS_ECDSA_P256_SHA256, PublicKeyData, SignatureAlgorithm};
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair};
use zeroize::Zeroizing;

/// A private key on P-256 that signs with SHA-256.
pub struct EcKey(EcdsaKeyPair);

impl EcKey {
    /// A new key and its PKCS#8 encoding, for wrapping.
    ///
    /// # Errors
    /// [`KeyError::Generate`] when the random number generator fails.
    pub fn generate() -> Result<(Self, Zeroizing<Vec<u8>>), KeyError> {
        let document =
            EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &SystemRandom::new()).map_err(|_| KeyError::Generate)?;
        let pkcs8 = Zeroizing::new(document.as_ref().to_vec());
        Ok((Self::from_pkcs8(&pkcs8)?, pkcs8))
    }

    /// From an unwrapped PKCS#8 encoding.
    ///
    /// # Errors
    /// [`KeyError::Malformed`].
    pub fn from_pkcs8(pkcs8: &[u8]) -> Result<Self, KeyError> {
        EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, pkcs8, &SystemRandom::new()).map(Self).map_err(|_| KeyError::Malformed)
    }

    /// ASN.1 DER signature over SHA-256 of `message`.
    ///
    /// # Errors
    /// [`KeyError::Sign`] when the random number generator fails.
    pub fn sign(&self, message: &[u8]) -> Result<Vec<u8>, KeyError> {
        let signature = self.0.sign(&SystemRandom::new(), message).map_err(|_| KeyError::Sign)?;
        Ok(signature.as_ref().to_vec())
    }
}

/// Why a private key could not be made or used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// None could be made.
    #[error("no private key could be made: the random number generator failed")]
    Generate,
    /// The bytes are no P-256 key.
    #[error("an unwrapped private key is no P-256 key")]
    Malformed,
    /// It could not sign.
    #[error("a signature could not be made: the random number generator failed")]
    Sign,
}

impl PublicKeyData for EcKey {
    fn der_bytes(&self) -> &[u8] {
        self.0.public_key().as_ref()
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        &PKCS_ECDSA_P256_SHA256
    }
}

impl rcgen::SigningKey for EcKey {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rcgen::Error> {
        Self::sign(self, message).map_err(|_| rcgen::Error::RemoteKeyError)
    }
}

/// RFC 8446, 4.4.3: 64 spaces, the context string, a zero byte, the transcript hash (SHA-256 or SHA-384).
pub fn is_server_certificate_verify(content: &[u8]) -> bool {
    const PADDING: [u8; 64] = [b' '; 64];
    const CONTEXT: &[u8] = b"TLS 1.3, server CertificateVerify\0";
    let hash = content.strip_prefix(&PADDING).and_then(|rest| rest.strip_prefix(CONTEXT));
    hash.is_some_and(|hash| matches!(hash.len(), 32 | 48))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn content(padding: usize, context: &[u8], hash: usize) -> Vec<u8> {
        [vec![b' '; padding], context.to_vec(), vec![7; hash]].concat()
    }

    #[test]
    fn only_a_server_certificate_verify_of_tls_1_3_is_signable() {
        const SERVER: &[u8] = b"TLS 1.3, server CertificateVerify\0";
        for hash in [32, 48] {
            assert!(is_server_certificate_verify(&content(64, SERVER, hash)));
        }
        let refused = [
            content(64, b"TLS 1.3, client CertificateVerify\0", 32),
            content(63, SERVER, 32),
            content(65, SERVER, 32),
            content(64, SERVER, 0),
            content(64, SERVER, 31),
            content(64, SERVER, 33),
            content(64, SERVER, 64),
            content(64, b"TLS 1.3, server CertificateVerify ", 32),
            content(0, SERVER, 32),
            content(64, b"", 32),
            Vec::new(),
        ];
        for bytes in refused {
            assert!(!is_server_certificate_verify(&bytes), "{bytes:?}");
        }
    }

    #[test]
    fn a_key_reads_back_from_its_encoding() {
        let (key, pkcs8) = EcKey::generate().unwrap();
        assert_eq!(EcKey::from_pkcs8(&pkcs8).unwrap().der_bytes(), key.der_bytes());
        assert_eq!(EcKey::from_pkcs8(&pkcs8[1..]).err(), Some(KeyError::Malformed));
    }
}
