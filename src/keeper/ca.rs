//! The box's own certificate authority: one server certificate, one client certificate a person or machine.
//! Trusts: of a certificate request, its public key alone. Role and name come from the console.
//! Touches: nothing.
//! Next: `provision` makes the authority and the server's certificate, `serve` (console) issues to clients.
//!
//! # Form of a client's identity
//! A client certificate carries exactly one subject alternative name, a URI:
//!
//! ```text
//! salama://BOX/ROLE/NAME        for example  salama://nairobi-1/counsellor/amina
//! BOX   [a-z0-9][a-z0-9.-]{0,62}        the box that issued it
//! ROLE  one of ROLES
//! NAME  [a-z0-9][a-z0-9._-]{0,63}       the person or machine
//! ```
//!
//! The subject (`CN=NAME, OU=ROLE, O=BOX`) is for people; no program decides by it.

use std::net::IpAddr;
use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyUsagePurpose, SanType,
    SerialNumber, SubjectPublicKeyInfo,
};
use ring::rand::{SecureRandom, SystemRandom};
use rustls_pki_types::{CertificateDer, DnsName};
use time::OffsetDateTime;
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::prelude::FromDer;

use crate::base::clock::Timestamp;

use super::signer::EcKey;

/// The roles that a certificate can carry.
pub const ROLES: [&str; 8] = ["recorder", "counsellor", "case_worker", "supervisor", "admin", "model_steward", "auditor", "monitor"];

/// Longest validity of a client's certificate, days.
pub const CLIENT_DAYS_MAX: u16 = 825;

const CA_DAYS: u16 = 3653;
const DAY: Duration = Duration::from_secs(24 * 60 * 60);
/// Certificates begin a little in the past, for clients whose clocks are slow.
const SLOW_CLOCKS: Duration = Duration::from_secs(60 * 60);
const SERIAL_BYTES: usize = 16;

/// A box's name, as its certificates carry it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BoxName(String);

impl BoxName {
    /// Checks the form that the module's header gives.
    ///
    /// # Errors
    /// [`IssueError::BoxName`].
    pub fn new(name: &str) -> Result<Self, IssueError> {
        let tail = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'.' | b'-');
        if well_formed(name, 63, tail) { Ok(Self(name.to_owned())) } else { Err(IssueError::BoxName) }
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

fn well_formed(name: &str, longest: usize, tail: impl Fn(&u8) -> bool) -> bool {
    let first = name.bytes().next().is_some_and(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit());
    first && name.len() <= longest && name.as_bytes().iter().all(tail)
}

/// Whom a client's certificate names.
#[derive(Clone, Copy, Debug)]
pub struct Client<'a> {
    /// One of [`ROLES`].
    pub role: &'a str,
    /// See the module's header.
    pub name: &'a str,
}

impl Client<'_> {
    fn check(&self) -> Result<(), IssueError> {
        let tail = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'.' | b'_' | b'-');
        if !ROLES.contains(&self.role) {
            return Err(IssueError::Role);
        }
        if well_formed(self.name, 64, tail) { Ok(()) } else { Err(IssueError::Name) }
    }
}

/// The authority's certificate with its open private key.
pub struct Authority {
    certificate: CertificateDer<'static>,
    issuer: Issuer<'static, EcKey>,
    box_name: BoxName,
}

impl Authority {
    /// A new authority, signed by itself: ten years, no authority below it.
    ///
    /// # Errors
    /// [`IssueError`] when signing fails.
    pub fn create(box_name: BoxName, key: EcKey, now: Timestamp) -> Result<Self, IssueError> {
        let mut params = valid_for(now, CA_DAYS)?;
        params.distinguished_name =
            subject([(DnType::CommonName, "Salama certificate authority"), (DnType::OrganizationName, box_name.as_str())]);
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let certificate = params.self_signed(&key).map_err(IssueError::Sign)?.der().clone();
        Self::open(box_name, certificate, key)
    }

    /// From the stored certificate and the unwrapped key.
    ///
    /// # Errors
    /// [`IssueError::Certificate`] when the certificate is malformed.
    pub fn open(box_name: BoxName, certificate: CertificateDer<'static>, key: EcKey) -> Result<Self, IssueError> {
        let issuer = Issuer::from_ca_cert_der(&certificate, key).map_err(IssueError::Certificate)?;
        Ok(Self { certificate, issuer, box_name })
    }

    /// The authority's certificate.
    pub const fn certificate(&self) -> &CertificateDer<'static> {
        &self.certificate
    }

    /// The server's chain, leaf first. `names` are DNS names without wildcards or IP addresses.
    ///
    /// # Errors
    /// [`IssueError::ServerName`] for a name that is neither, or none at all; [`IssueError`] when signing fails.
    pub fn issue_server(
        &self,
        key: &EcKey,
        names: &[String],
        days: u16,
        now: Timestamp,
    ) -> Result<Vec<CertificateDer<'static>>, IssueError> {
        let common_name = names.first().ok_or(IssueError::ServerName)?;
        let mut params = leaf(now, days, ExtendedKeyUsagePurpose::ServerAuth)?;
        params.subject_alt_names = names.iter().map(|name| server_name(name)).collect::<Result<_, _>>()?;
        params.distinguished_name =
            subject([(DnType::CommonName, common_name.as_str()), (DnType::OrganizationName, self.box_name.as_str())]);
        let leaf = params.signed_by(key, &self.issuer).map_err(IssueError::Sign)?;
        Ok(vec![leaf.der().clone(), self.certificate.clone()])
    }

    /// A client's chain, leaf first, for the public key in `csr_der` (PKCS#10, DER). All else in the request is ignored.
    ///
    /// # Errors
    /// [`IssueError`]: role, name or days out of range, or a request that is malformed, not signed by its own key or not on P-256.
    pub fn issue_client(
        &self,
        csr_der: &[u8],
        client: Client<'_>,
        days: u16,
        now: Timestamp,
    ) -> Result<Vec<CertificateDer<'static>>, IssueError> {
        client.check()?;
        if !(1..=CLIENT_DAYS_MAX).contains(&days) {
            return Err(IssueError::Days);
        }
        let key = requested_key(csr_der)?;
        let uri = format!("salama://{}/{}/{}", self.box_name.as_str(), client.role, client.name);
        let mut params = leaf(now, days, ExtendedKeyUsagePurpose::ClientAuth)?;
        params.subject_alt_names = vec![SanType::URI(uri.try_into().map_err(IssueError::Sign)?)];
        params.distinguished_name = subject([
            (DnType::CommonName, client.name),
            (DnType::OrganizationalUnitName, client.role),
            (DnType::OrganizationName, self.box_name.as_str()),
        ]);
        let leaf = params.signed_by(&key, &self.issuer).map_err(IssueError::Sign)?;
        Ok(vec![leaf.der().clone(), self.certificate.clone()])
    }
}

/// The public key of a request, once the request proves possession of the private one.
fn requested_key(csr_der: &[u8]) -> Result<SubjectPublicKeyInfo, IssueError> {
    let (rest, request) = X509CertificationRequest::from_der(csr_der).map_err(|_| IssueError::Request)?;
    if !rest.is_empty() {
        return Err(IssueError::Request);
    }
    let key = SubjectPublicKeyInfo::from_der(request.certification_request_info.subject_pki.raw).map_err(|_| IssueError::Request)?;
    if rcgen::PublicKeyData::algorithm(&key) != &rcgen::PKCS_ECDSA_P256_SHA256 {
        return Err(IssueError::Request);
    }
    request.verify_signature().map_err(|_| IssueError::Request)?;
    Ok(key)
}

fn server_name(name: &str) -> Result<SanType, IssueError> {
    if let Ok(address) = name.parse::<IpAddr>() {
        return Ok(SanType::IpAddress(address));
    }
    DnsName::try_from(name).map_err(|_| IssueError::ServerName)?;
    Ok(SanType::DnsName(name.try_into().map_err(|_| IssueError::ServerName)?))
}

fn leaf(now: Timestamp, days: u16, usage: ExtendedKeyUsagePurpose) -> Result<CertificateParams, IssueError> {
    let mut params = valid_for(now, days)?;
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![usage];
    params.use_authority_key_identifier_extension = true;
    Ok(params)
}

fn valid_for(now: Timestamp, days: u16) -> Result<CertificateParams, IssueError> {
    let now = OffsetDateTime::from_unix_timestamp_nanos(i128::from(now.unix_millis()) * 1_000_000).map_err(|_| IssueError::Clock)?;
    let mut params = CertificateParams::default();
    params.not_before = now.checked_sub(SLOW_CLOCKS.try_into().map_err(|_| IssueError::Clock)?).ok_or(IssueError::Clock)?;
    params.not_after = now.checked_add((DAY * u32::from(days)).try_into().map_err(|_| IssueError::Clock)?).ok_or(IssueError::Clock)?;
    params.serial_number = Some(random_serial()?);
    Ok(params)
}

/// Random, positive and of one length (RFC 5280, 4.1.2.2).
fn random_serial() -> Result<SerialNumber, IssueError> {
    let mut bytes = [0; SERIAL_BYTES];
    SystemRandom::new().fill(&mut bytes).map_err(|_| IssueError::Random)?;
    let [first, ..] = &mut bytes;
    *first = (*first & 0x7f) | 0x40;
    Ok(SerialNumber::from_slice(&bytes))
}

fn subject<const N: usize>(parts: [(DnType, &str); N]) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    for (kind, value) in parts {
        name.push(kind, value);
    }
    name
}

/// Why no certificate was issued.
#[derive(Debug, thiserror::Error)]
pub enum IssueError {
    /// The box's name.
    #[error("a box's name is 1 to 63 of a-z, 0-9, dot and hyphen, and begins with a letter or digit")]
    BoxName,
    /// The role.
    #[error("no such role; the roles are {}", ROLES.join(", "))]
    Role,
    /// The name.
    #[error("a name is 1 to 64 of a-z, 0-9, dot, underscore and hyphen, and begins with a letter or digit")]
    Name,
    /// The validity.
    #[error("a client's certificate is valid for 1 to {CLIENT_DAYS_MAX} days")]
    Days,
    /// The server's names.
    #[error("the server needs at least one name, each a DNS name without wildcard or an IP address")]
    ServerName,
    /// The request.
    #[error("the certificate request is malformed, not signed by its own key, or its key is not ECDSA P-256")]
    Request,
    /// The stored certificate.
    #[error("the stored certificate of the authority is malformed")]
    Certificate(#[source] rcgen::Error),
    /// Signing.
    #[error("a certificate could not be signed")]
    Sign(#[source] rcgen::Error),
    /// Randomness.
    #[error("the operating system's random number generator failed; reboot the machine")]
    Random,
    /// The machine's clock.
    #[error("the machine's clock is out of range; set it")]
    Clock,
}

#[cfg(test)]
mod tests {
    use rcgen::KeyPair;
    use x509_parser::extensions::GeneralName;
    use x509_parser::parse_x509_certificate;

    use super::*;

    const NOW: Timestamp = Timestamp::from_unix_millis(1_700_000_000_000);

    fn authority() -> Authority {
        Authority::create(BoxName::new("box-1").unwrap(), EcKey::generate().unwrap().0, NOW).unwrap()
    }

    fn request() -> Vec<u8> {
        CertificateParams::default().serialize_request(&KeyPair::generate().unwrap()).unwrap().der().to_vec()
    }

    #[test]
    fn a_client_has_exactly_one_name_and_it_is_a_uri() {
        let authority = authority();
        for role in ROLES {
            let chain = authority.issue_client(&request(), Client { role, name: "a.b_c-9" }, 1, NOW).unwrap();
            let (_, leaf) = parse_x509_certificate(&chain[0]).unwrap();
            let names = &leaf.subject_alternative_name().unwrap().unwrap().value.general_names;
            let expected = format!("salama://box-1/{role}/a.b_c-9");
            assert!(matches!(names.as_slice(), [GeneralName::URI(uri)] if *uri == expected), "{names:?}");
            assert_eq!(chain[1], *authority.certificate());
        }
    }

    #[test]
    fn a_certificate_begins_an_hour_ago_and_ends_on_its_day() {
        let chain = authority().issue_client(&request(), Client { role: "monitor", name: "m" }, 30, NOW).unwrap();
        let (_, leaf) = parse_x509_certificate(&chain[0]).unwrap();
        let now = i64::try_from(NOW.unix_millis() / 1000).unwrap();
        assert_eq!(leaf.validity().not_before.timestamp(), now - 3600);
        assert_eq!(leaf.validity().not_after.timestamp(), now + 30 * 86_400);
    }

    #[test]
    fn roles_names_and_days_out_of_range_are_refused() {
        let authority = authority();
        let issue = |role, name, days| authority.issue_client(&request(), Client { role, name }, days, NOW);
        for role in ["", "root", "Admin", "admin ", "admin/x"] {
            assert!(matches!(issue(role, "a", 1), Err(IssueError::Role)), "{role:?}");
        }
        let long = "a".repeat(65);
        for name in ["", ".", "..", "a/b", "a b", "A", "a\0", "é", "-a", "_a", long.as_str()] {
            assert!(matches!(issue("admin", name, 1), Err(IssueError::Name)), "{name:?}");
        }
        assert!(matches!(issue("admin", "a", 0), Err(IssueError::Days)));
        assert!(matches!(issue("admin", "a", CLIENT_DAYS_MAX + 1), Err(IssueError::Days)));
        for name in ["", "Box", "a_b", "a/b", "-a", &"a".repeat(64)] {
            assert!(BoxName::new(name).is_err(), "{name:?}");
        }
    }
}
