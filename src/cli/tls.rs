//! The client's half of mutual TLS 1.3.
//! Trusts: exactly the appliance's own authority; never the system's.
//! Touches: the two PEM files.
//! Next: [`super::client`] connects with it.

use std::error::Error as StdError;
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::Arc;

use rustls::crypto::ring::sign::any_ecdsa_type;
use rustls::{AlertDescription, ClientConfig, Error as TlsError, RootCertStore, SignatureScheme};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use zeroize::Zeroizing;

use super::failure::Failure;
use super::output::warn;
use super::profile::Settings;

/// TLS 1.3 with our certificate, HTTP/1.1 inside.
pub(super) fn config(settings: &Settings) -> Result<ClientConfig, Failure> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(&settings.authority, &read(&settings.authority)?)? {
        roots.add(certificate).map_err(|error| wrong(&settings.authority, &format!("holds a certificate that is none ({error})")))?;
    }
    let pem = read(&settings.identity)?;
    let chain = certificates(&settings.identity, &pem)?;
    let key = PrivateKeyDer::from_pem_slice(&pem).map_err(|_| wrong(&settings.identity, "holds no private key in PEM"))?;
    if fs::metadata(&settings.identity).is_ok_and(|file| file.permissions().mode() & 0o077 != 0) {
        warn(&format!("warning: others can read the private key in {0}; run `chmod 600 {0}`", settings.identity.display()));
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|error| Failure::Configuration(error.to_string()))?
        .with_root_certificates(roots)
        .with_client_auth_cert(chain, key)
        .map_err(|error| wrong(&settings.identity, &format!("is no usable identity ({error})")))?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

/// The identity, for signing something else than a handshake.
pub(super) struct Signer {
    certificate: CertificateDer<'static>,
    key: Box<dyn rustls::sign::Signer>,
}

impl Signer {
    /// Reads the identity's file.
    pub(super) fn read(settings: &Settings) -> Result<Self, Failure> {
        let path = &settings.identity;
        let pem = read(path)?;
        let certificate = certificates(path, &pem)?.into_iter().next().ok_or_else(|| wrong(path, "holds no certificate in PEM"))?;
        let key = PrivateKeyDer::from_pem_slice(&pem).map_err(|_| wrong(path, "holds no private key in PEM"))?;
        let key = any_ecdsa_type(&key).ok().and_then(|key| key.choose_scheme(&[SignatureScheme::ECDSA_NISTP256_SHA256]));
        Ok(Self { certificate, key: key.ok_or_else(|| wrong(path, "holds no ECDSA P-256 key"))? })
    }

    /// Whose key signs, DER.
    pub(super) fn certificate(&self) -> &[u8] {
        &self.certificate
    }

    /// ASN.1 DER signature over SHA-256 of `message`.
    pub(super) fn sign(&self, message: &[u8]) -> Result<Vec<u8>, Failure> {
        self.key.sign(message).map_err(|error| Failure::Configuration(format!("your key does not sign: {error}")))
    }
}

fn read(path: &Path) -> Result<Zeroizing<Vec<u8>>, Failure> {
    fs::read(path).map(Zeroizing::new).map_err(|cause| Failure::Read { path: path.to_owned(), cause })
}

fn certificates(path: &Path, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, Failure> {
    let found: Vec<_> = CertificateDer::pem_slice_iter(pem).collect::<Result<_, _>>().map_err(|_| wrong(path, "is no PEM file"))?;
    if found.is_empty() { Err(wrong(path, "holds no certificate in PEM")) } else { Ok(found) }
}

fn wrong(path: &Path, what: &str) -> Failure {
    Failure::Configuration(format!("{} {what}", path.display()))
}

/// What went wrong in a connection to `server`: a refusal by either side of TLS is told apart from a broken line.
pub(super) fn explain(server: &str, error: &(dyn StdError + 'static), while_connecting: bool) -> Failure {
    let mut causes = Causes(Some(error));
    match causes.find_map(tls_error) {
        Some(TlsError::AlertReceived(alert)) => match refusal(*alert) {
            Some(words) => Failure::TlsRefused(format!("{server} {words}")),
            None => Failure::Broken { server: server.to_owned(), cause: format!("TLS alert {alert:?}") },
        },
        Some(TlsError::InvalidCertificate(reason)) => Failure::TlsRefused(format!(
            "the certificate of {server} is not accepted ({reason}); is --ca the certificate of this appliance, and is the address one of its names?"
        )),
        Some(other) => Failure::TlsRefused(format!("TLS with {server} failed: {other}")),
        None if while_connecting => Failure::Unreachable { server: server.to_owned(), cause: root(error) },
        None => Failure::Broken { server: server.to_owned(), cause: root(error) },
    }
}

/// Alerts by which a server refuses a client's certificate (RFC 8446, 6.2).
fn refusal(alert: AlertDescription) -> Option<&'static str> {
    Some(match alert {
        AlertDescription::CertificateRequired => "asks for a client certificate; give one with --identity",
        AlertDescription::UnknownCA => "does not know the authority of your certificate; was it issued by this appliance?",
        AlertDescription::CertificateExpired => "says that your certificate has expired; ask the administrator for a new one",
        AlertDescription::CertificateRevoked => "says that your certificate was revoked; ask the administrator",
        AlertDescription::BadCertificate
        | AlertDescription::CertificateUnknown
        | AlertDescription::UnsupportedCertificate
        | AlertDescription::DecryptError
        | AlertDescription::AccessDenied => "does not accept your certificate; was it issued by this appliance?",
        AlertDescription::ProtocolVersion => "does not speak TLS 1.3; is this a Salama appliance?",
        _ => return None,
    })
}

fn tls_error<'a>(error: &'a (dyn StdError + 'static)) -> Option<&'a TlsError> {
    error.downcast_ref::<TlsError>()
}

fn root(error: &(dyn StdError + 'static)) -> String {
    Causes(Some(error)).last().map_or_else(String::new, ToString::to_string)
}

/// An error and what caused it; unlike `source` alone this looks into the custom errors of `io::Error`.
struct Causes<'a>(Option<&'a (dyn StdError + 'static)>);

impl<'a> Iterator for Causes<'a> {
    type Item = &'a (dyn StdError + 'static);

    fn next(&mut self) -> Option<Self::Item> {
        let error = self.0?;
        let inside = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        self.0 = inside.map(|inside| -> &(dyn StdError + 'static) { inside }).or_else(|| error.source());
        Some(error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::exit::Exit;

    fn told(inner: TlsError) -> Failure {
        explain("box:1", &io::Error::new(io::ErrorKind::InvalidData, inner), true)
    }

    #[test]
    fn a_refused_certificate_is_a_denial_and_not_a_broken_line() {
        for alert in [AlertDescription::CertificateRequired, AlertDescription::UnknownCA, AlertDescription::CertificateExpired] {
            assert_eq!(told(TlsError::AlertReceived(alert)).exit(), Exit::Denied);
        }
        assert_eq!(told(TlsError::InvalidCertificate(rustls::CertificateError::UnknownIssuer)).exit(), Exit::Denied);
        assert_eq!(told(TlsError::AlertReceived(AlertDescription::InternalError)).exit(), Exit::Unavailable);
        assert_eq!(explain("box:1", &io::Error::from(io::ErrorKind::ConnectionRefused), true).exit(), Exit::Unavailable);
    }
}
