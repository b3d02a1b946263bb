//! A verified client certificate made into an identity: role and name out of its one SAN URI.
//! Trusts: a TLS session whose verifier requires a certificate of the box's own CA.
//! Touches: nothing.
//! Next: [`crate::authz::permit`] asks it for role and name.

use std::fmt;
use std::sync::Arc;

use ring::digest;
use rustls::ServerConnection;
use x509_parser::prelude::{FromDer, GeneralName, ParsedExtension, X509Certificate};

use crate::base::clock::Timestamp;
use crate::base::hex::hex;

/// Scheme of the SAN URI: `salama://BOX/role/NAME`.
const SCHEME: &str = "salama://";
/// Longest name, bytes.
pub const NAME_MAX: usize = 64;

/// What a certificate makes its holder. Closed: a word that is not here is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Role {
    /// A PBX or call recorder that posts recordings.
    Recorder,
    /// A person who takes calls.
    Counsellor,
    /// A person who works on cases.
    CaseWorker,
    /// A person who reviews calls and erases them.
    Supervisor,
    /// A person who runs the box and reads no call.
    Admin,
    /// A person who proposes models.
    ModelSteward,
    /// A person who reads the audit trail.
    Auditor,
    /// A machine that watches the box.
    Monitor,
}

impl Role {
    /// Every role.
    pub const ALL: [Self; 8] = [
        Self::Recorder,
        Self::Counsellor,
        Self::CaseWorker,
        Self::Supervisor,
        Self::Admin,
        Self::ModelSteward,
        Self::Auditor,
        Self::Monitor,
    ];

    /// The word in the SAN URI and in `role/name`.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Recorder => "recorder",
            Self::Counsellor => "counsellor",
            Self::CaseWorker => "case_worker",
            Self::Supervisor => "supervisor",
            Self::Admin => "admin",
            Self::ModelSteward => "model_steward",
            Self::Auditor => "auditor",
            Self::Monitor => "monitor",
        }
    }

    /// From the word in a certificate.
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|role| role.word() == word)
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

/// What a certificate says of its holder. Proves nothing: anybody can write one.
#[derive(Debug)]
pub struct Claim {
    role: Role,
    name: String,
    box_name: String,
    valid_until: Timestamp,
}

/// A peer that TLS has verified. Made only by [`PeerIdentity::of`].
#[derive(Debug)]
pub struct PeerIdentity {
    claim: Claim,
    fingerprint: String,
}

/// Why a verified certificate names nobody here. The connection is closed; the peer is told nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PeerError {
    /// TLS has no certificate; with our verifier that cannot be.
    #[error("the peer has shown no certificate")]
    NoCertificate,
    /// Not X.509, or an extension of it is malformed or doubled.
    #[error("the certificate is malformed")]
    Malformed,
    /// Not exactly one SAN URI.
    #[error("the certificate must have exactly one URI among its alternative names")]
    NotOneUri,
    /// Not `salama://BOX/role/NAME`.
    #[error("the certificate's URI is not of the form salama://BOX/role/NAME")]
    Form,
    /// A role that this version does not know.
    #[error("the certificate's role is not known")]
    UnknownRole,
}

impl PeerIdentity {
    /// The peer of a TLS session whose handshake is complete.
    ///
    /// # Errors
    /// When the certificate does not name exactly one known role and name.
    pub fn of(session: &ServerConnection) -> Result<Arc<Self>, PeerError> {
        let leaf = session.peer_certificates().and_then(<[_]>::first).ok_or(PeerError::NoCertificate)?;
        Self::from_leaf(leaf.as_ref()).map(Arc::new)
    }

    fn from_leaf(der: &[u8]) -> Result<Self, PeerError> {
        let claim = Claim::read(der)?;
        Ok(Self { claim, fingerprint: fingerprint(der) })
    }

    /// Its role.
    pub const fn role(&self) -> Role {
        self.claim.role
    }

    /// Its name, unique in its role: `[a-z0-9._-]{1,64}`.
    pub fn name(&self) -> &str {
        &self.claim.name
    }

    /// The box that the certificate was issued for.
    pub fn box_name(&self) -> &str {
        &self.claim.box_name
    }

    /// `role/name`, as calls record their owner.
    pub fn owner(&self) -> String {
        format!("{}/{}", self.claim.role, self.claim.name)
    }

    /// SHA-256 of the certificate, hexadecimal.
    pub fn fingerprint(&self) -> &str {
        &self.fingerprint
    }

    /// End of the certificate's validity. TLS checks it at the handshake only; a connection may outlive it.
    pub const fn valid_until(&self) -> Timestamp {
        self.claim.valid_until
    }
}

/// SHA-256 of a certificate, DER; hexadecimal.
pub fn fingerprint(der: &[u8]) -> String {
    hex(digest::digest(&digest::SHA256, der).as_ref())
}

impl Claim {
    /// Reads a certificate, DER, whoever wrote it.
    ///
    /// # Errors
    /// When it does not name exactly one known role and name.
    pub fn read(der: &[u8]) -> Result<Self, PeerError> {
        let (rest, certificate) = X509Certificate::from_der(der).map_err(|_| PeerError::Malformed)?;
        if !rest.is_empty() {
            return Err(PeerError::Malformed);
        }
        let names = certificate.subject_alternative_name().map_err(|_| PeerError::Malformed)?.ok_or(PeerError::NotOneUri)?;
        if certificate.extensions().iter().any(|extension| matches!(extension.parsed_extension(), ParsedExtension::ParseError { .. })) {
            return Err(PeerError::Malformed);
        }
        let mut uris = names.value.general_names.iter().filter_map(|name| match name {
            GeneralName::URI(uri) => Some(*uri),
            _ => None,
        });
        let (Some(uri), None) = (uris.next(), uris.next()) else {
            return Err(PeerError::NotOneUri);
        };
        let (box_name, role, name) = split(uri)?;
        let seconds = u64::try_from(certificate.validity().not_after.timestamp()).unwrap_or(0);
        let valid_until = Timestamp::from_unix_millis(seconds.saturating_mul(1000));
        Ok(Self { role, name: name.to_owned(), box_name: box_name.to_owned(), valid_until })
    }

    /// As what.
    pub const fn role(&self) -> Role {
        self.role
    }

    /// As whom: `[a-z0-9._-]{1,64}`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// On which box: `[a-z0-9._-]{1,64}`.
    pub fn box_name(&self) -> &str {
        &self.box_name
    }
}

fn split(uri: &str) -> Result<(&str, Role, &str), PeerError> {
    let path = uri.strip_prefix(SCHEME).ok_or(PeerError::Form)?;
    let mut parts = path.split('/');
    let (Some(box_name), Some(role), Some(name), None) = (parts.next(), parts.next(), parts.next(), parts.next()) else {
        return Err(PeerError::Form);
    };
    if !is_word(box_name) || !is_word(name) {
        return Err(PeerError::Form);
    }
    Ok((box_name, Role::from_word(role).ok_or(PeerError::UnknownRole)?, name))
}

fn is_word(text: &str) -> bool {
    let allowed = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'_' | b'-');
    !text.is_empty() && text.len() <= NAME_MAX && text.bytes().all(allowed)
}

#[cfg(test)]
pub(crate) mod test_peers {
    //! Identities for tests of the modules that follow.
    use super::*;

    /// A peer that is valid for ever.
    pub(crate) fn peer(role: Role, name: &str) -> Arc<PeerIdentity> {
        peer_until(role, name, Timestamp::from_unix_millis(u64::MAX))
    }

    /// A peer whose certificate ends.
    pub(crate) fn peer_until(role: Role, name: &str, valid_until: Timestamp) -> Arc<PeerIdentity> {
        let (name, box_name) = (name.to_owned(), "box".to_owned());
        Arc::new(PeerIdentity { claim: Claim { role, name, box_name, valid_until }, fingerprint: "00".repeat(32) })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rcgen::{CertificateParams, KeyPair, SanType};

    use super::*;

    fn identity(uris: &[&str]) -> Result<PeerIdentity, PeerError> {
        let mut params = CertificateParams::new(vec!["client.example".to_owned()]).unwrap();
        params.subject_alt_names.extend(uris.iter().map(|uri| SanType::URI((*uri).try_into().unwrap())));
        let key = KeyPair::generate().unwrap();
        PeerIdentity::from_leaf(params.self_signed(&key).unwrap().der())
    }

    #[test]
    fn the_one_uri_names_role_and_name() {
        let peer = identity(&["salama://box-1/case_worker/asha.m"]).unwrap();
        assert_eq!((peer.role(), peer.name(), peer.owner().as_str()), (Role::CaseWorker, "asha.m", "case_worker/asha.m"));
        assert_eq!(peer.fingerprint().len(), 64);
    }

    #[test]
    fn a_certificate_without_exactly_one_uri_names_nobody() {
        assert_eq!(identity(&[]).unwrap_err(), PeerError::NotOneUri);
        assert_eq!(identity(&["salama://box/admin/a", "salama://box/monitor/a"]).unwrap_err(), PeerError::NotOneUri);
    }

    #[test]
    fn an_unknown_role_is_refused() {
        assert_eq!(identity(&["salama://box/root/a"]).unwrap_err(), PeerError::UnknownRole);
    }

    #[test]
    fn any_other_form_is_refused() {
        let long = format!("salama://box/admin/{}", "a".repeat(65));
        for uri in [
            "https://box/admin/a",
            "salama://box/admin",
            "salama://box/admin/",
            "salama:///admin/a",
            "salama://box/admin/a/b",
            "salama://box/admin/A",
            "salama://box/admin/a%2fb",
            "salama://user@box/admin/a",
            "salama://box/admin/a?x",
            long.as_str(),
        ] {
            assert_eq!(identity(&[uri]).unwrap_err(), PeerError::Form, "{uri}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_parser_panic(der in proptest::collection::vec(any::<u8>(), 0..512)) {
            prop_assert!(PeerIdentity::from_leaf(&der).is_err());
        }
    }
}
