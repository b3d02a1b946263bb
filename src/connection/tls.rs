//! Mutual TLS 1.3 and nothing else: no older version, no resumption, no early data, no peer without a certificate.
//! Trusts: the CA certificate and chain that the keeper gave; the key stays with the keeper and only signs.
//! Touches: nothing.
//! Next: [`crate::identity::peer`] reads the verified certificate.

use std::sync::Arc;

use rustls::crypto::ring::default_provider;
use rustls::server::{NoServerSessionStorage, VerifierBuilderError, WebPkiClientVerifier};
use rustls::sign::{CertifiedKey, SigningKey, SingleCertAndKey};
use rustls::{InconsistentKeys, RootCertStore, ServerConfig, version};
use rustls_pki_types::CertificateDer;

/// ALPN name of HTTP/2.
pub(super) const H2: &[u8] = b"h2";
const HTTP_1_1: &[u8] = b"http/1.1";

/// Why TLS cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The CA certificate is no trust anchor.
    #[error("the box's authority certificate is damaged; restore the keeper's directory")]
    Authority(#[source] rustls::Error),
    /// The verifier refuses it.
    #[error("the box's authority certificate cannot verify clients; restore the keeper's directory")]
    Verifier(#[source] VerifierBuilderError),
    /// Certificate and key do not belong together, or the chain is empty.
    #[error("the server certificate does not belong to the keeper's key; run `salama init` for a new one")]
    Certificate(#[source] rustls::Error),
    /// The provider lacks TLS 1.3, which ring does not.
    #[error("this build of the daemon has no TLS 1.3")]
    Version(#[source] rustls::Error),
}

/// The server's side: `chain` leaf first, `key` signs for it, `client_ca` is the only authority for clients.
///
/// # Errors
/// [`TlsError`].
pub fn server_config(
    chain: Vec<CertificateDer<'static>>,
    key: Arc<dyn SigningKey>,
    client_ca: CertificateDer<'static>,
) -> Result<Arc<ServerConfig>, TlsError> {
    let provider = Arc::new(default_provider());
    let mut roots = RootCertStore::empty();
    roots.add(client_ca).map_err(TlsError::Authority)?;
    let verifier =
        WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider)).build().map_err(TlsError::Verifier)?;
    let certified = CertifiedKey::new(chain, key);
    match certified.keys_match() {
        // The keeper's key does not show its public half; a wrong one fails each handshake at the client.
        Ok(()) | Err(rustls::Error::InconsistentKeys(InconsistentKeys::Unknown)) => {}
        Err(error) => return Err(TlsError::Certificate(error)),
    }

    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&version::TLS13])
        .map_err(TlsError::Version)?
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(Arc::new(SingleCertAndKey::from(certified)));
    config.alpn_protocols = vec![H2.to_vec(), HTTP_1_1.to_vec()];
    // A resumed session would skip the check of the client's certificate.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    config.max_early_data_size = 0;
    Ok(Arc::new(config))
}
