//! Whether a grant counts: text, box, start, number, time, certificate, role, signature, not used before.
//! Trusts: the box's own authority. Not the core that relays it.
//! Touches: nothing.
//! Next: `quota` adds the uses; `journal` says who allowed them.

use std::collections::BTreeSet;
use std::time::Duration;

use rustls_pki_types::{CertificateDer, UnixTime};
use webpki::ring::ECDSA_P256_SHA256;
use webpki::{EndEntityCert, KeyUsage, anchor_from_trusted_cert};
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::FromDer;

use crate::base::clock::Timestamp;
use crate::ipc::burst::{BurstGrant, COUNT_MAX, GrantFault, LIFETIME_MAX, ROLE, SignedGrant, TEXT_MAX};
use crate::ipc::keeper::{StartId, UnwrapPurpose};

/// Grants that one start takes. None is ever forgotten, so that no clock makes an old one new; an office needs some in a year.
const USED_MAX: usize = 1024;
/// Longest certificate; the authority's own have some 600 bytes.
const CERTIFICATE_MAX: usize = 4096;

/// Judges grants.
pub struct Grants {
    authority: CertificateDer<'static>,
    box_name: String,
    start: StartId,
    used: BTreeSet<[u8; 16]>,
}

/// A grant that counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Accepted {
    /// `role/name` of who signed it.
    pub by: String,
    /// Which calls.
    pub purpose: UnwrapPurpose,
    /// How many more.
    pub count: u32,
    /// For how long from now on.
    pub lifetime: Duration,
    nonce: [u8; 16],
}

impl Grants {
    /// For one start of the keeper of one box.
    pub const fn new(authority: CertificateDer<'static>, box_name: String, start: StartId) -> Self {
        Self { authority, box_name, start, used: BTreeSet::new() }
    }

    /// Judges one grant.
    ///
    /// # Errors
    /// [`GrantFault`].
    pub fn judge(&self, signed: &SignedGrant, now: Timestamp) -> Result<Accepted, GrantFault> {
        let now = now.unix_millis() / 1000;
        let grant = Some(&signed.text).filter(|text| text.len() <= TEXT_MAX).and_then(|text| BurstGrant::read(text));
        let grant = grant.ok_or(GrantFault::Malformed)?;
        let name = self.signer(signed, now)?;
        let checks = [
            (grant.box_name == self.box_name, GrantFault::OtherBox),
            (grant.start == self.start, GrantFault::OtherStart),
            ((1..=COUNT_MAX).contains(&grant.count), GrantFault::Count),
            (grant.until.checked_sub(grant.from).is_some_and(|lifetime| (1..=LIFETIME_MAX).contains(&lifetime)), GrantFault::Lifetime),
            (grant.from <= now, GrantFault::NotYet),
            (now < grant.until, GrantFault::Expired),
            (!self.used.contains(&grant.nonce), GrantFault::Used),
            (self.used.len() < USED_MAX, GrantFault::TooMany),
        ];
        if let Some((_, fault)) = checks.into_iter().find(|(holds, _)| !holds) {
            return Err(fault);
        }
        let lifetime = Duration::from_secs(grant.until.saturating_sub(now));
        Ok(Accepted { by: format!("{ROLE}/{name}"), purpose: grant.purpose, count: grant.count, lifetime, nonce: grant.nonce })
    }

    /// From now on it was used.
    pub fn use_up(&mut self, grant: &Accepted) {
        self.used.insert(grant.nonce);
    }

    /// The name of the person whose certificate signed the text.
    fn signer(&self, signed: &SignedGrant, now: u64) -> Result<String, GrantFault> {
        if signed.certificate.len() > CERTIFICATE_MAX {
            return Err(GrantFault::Certificate);
        }
        let der = CertificateDer::from(signed.certificate.as_slice());
        let leaf = EndEntityCert::try_from(&der).map_err(|_| GrantFault::Certificate)?;
        let anchor = anchor_from_trusted_cert(&self.authority).map_err(|_| GrantFault::Certificate)?;
        let moment = UnixTime::since_unix_epoch(Duration::from_secs(now));
        leaf.verify_for_usage(&[ECDSA_P256_SHA256], &[anchor], &[], moment, KeyUsage::client_auth(), None, None)
            .map_err(|_| GrantFault::Certificate)?;
        let name = self.supervisor(&signed.certificate)?;
        leaf.verify_signature(ECDSA_P256_SHA256, signed.text.as_bytes(), &signed.signature).map_err(|_| GrantFault::Signature)?;
        Ok(name)
    }

    /// `ca` says the form of a client's name.
    fn supervisor(&self, der: &[u8]) -> Result<String, GrantFault> {
        let (_, leaf) = X509Certificate::from_der(der).map_err(|_| GrantFault::Certificate)?;
        let names = leaf.subject_alternative_name().ok().flatten().ok_or(GrantFault::Certificate)?;
        let [GeneralName::URI(uri)] = names.value.general_names.as_slice() else { return Err(GrantFault::Certificate) };
        let path = uri.strip_prefix("salama://").and_then(|rest| rest.strip_prefix(self.box_name.as_str()));
        let (role, name) = path.and_then(|path| path.strip_prefix('/')?.split_once('/')).ok_or(GrantFault::Certificate)?;
        if role == ROLE { Ok(name.to_owned()) } else { Err(GrantFault::Role) }
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair};

    use super::*;
    use crate::keeper::ca::{Authority, BoxName, Client};
    use crate::keeper::signer::EcKey;

    const NOW: Timestamp = Timestamp::from_unix_millis(1_700_000_000_000);
    const START: StartId = [7; 16];

    /// A box's authority, and a client of it that signs.
    struct Bench {
        authority: Authority,
        key: EcKey,
        certificate: Vec<u8>,
    }

    fn bench(role: &str, days: u16, from: Timestamp) -> Bench {
        let authority = Authority::create(BoxName::new("box-1").unwrap(), EcKey::generate().unwrap().0, from).unwrap();
        let (key, pkcs8) = EcKey::generate().unwrap();
        let pair = KeyPair::try_from(pkcs8.as_slice()).unwrap();
        let request = CertificateParams::default().serialize_request(&pair).unwrap();
        let chain = authority.issue_client(request.der(), Client { role, name: "juma" }, days, from).unwrap();
        Bench { authority, key, certificate: chain[0].to_vec() }
    }

    fn grant() -> BurstGrant {
        BurstGrant {
            box_name: "box-1".to_owned(),
            start: START,
            purpose: UnwrapPurpose::Read,
            count: 500,
            from: 1_699_999_900,
            until: 1_700_001_800,
            nonce: [1; 16],
        }
    }

    impl Bench {
        fn grants(&self) -> Grants {
            Grants::new(self.authority.certificate().clone(), "box-1".to_owned(), START)
        }

        fn signed(&self, grant: &BurstGrant) -> SignedGrant {
            let text = grant.to_string();
            SignedGrant { signature: self.key.sign(text.as_bytes()).unwrap(), text, certificate: self.certificate.clone() }
        }

        fn fault(&self, grant: &BurstGrant) -> GrantFault {
            self.grants().judge(&self.signed(grant), NOW).unwrap_err()
        }
    }

    #[test]
    fn a_supervisors_grant_counts_once() {
        let bench = bench("supervisor", 30, NOW);
        let mut grants = bench.grants();
        let accepted = grants.judge(&bench.signed(&grant()), NOW).unwrap();
        assert_eq!((accepted.by.as_str(), accepted.count, accepted.lifetime), ("supervisor/juma", 500, Duration::from_secs(1800)));
        grants.use_up(&accepted);
        // With a new signature, too: it is the grant that counts once.
        assert_eq!(grants.judge(&bench.signed(&grant()), NOW), Err(GrantFault::Used));
        let earlier = Timestamp::from_unix_millis(NOW.unix_millis() - 50_000);
        assert_eq!(grants.judge(&bench.signed(&grant()), earlier), Err(GrantFault::Used));
    }

    #[test]
    fn no_other_role_grants() {
        for role in super::super::ca::ROLES.into_iter().filter(|role| *role != "supervisor") {
            assert_eq!(bench(role, 30, NOW).fault(&grant()), GrantFault::Role, "{role}");
        }
    }

    #[test]
    fn each_border_of_number_and_time_is_held() {
        let bench = bench("supervisor", 30, NOW);
        let now = NOW.unix_millis() / 1000;
        let with = |change: &dyn Fn(&mut BurstGrant)| {
            let mut grant = grant();
            change(&mut grant);
            bench.grants().judge(&bench.signed(&grant), NOW).map(|accepted| accepted.count)
        };
        assert_eq!(with(&|grant| grant.count = 0), Err(GrantFault::Count));
        assert_eq!(with(&|grant| grant.count = COUNT_MAX), Ok(COUNT_MAX));
        assert_eq!(with(&|grant| grant.count = COUNT_MAX + 1), Err(GrantFault::Count));
        assert_eq!(with(&|grant| grant.from = now), Ok(500));
        assert_eq!(with(&|grant| grant.from = now + 1), Err(GrantFault::NotYet));
        assert_eq!(with(&|grant| grant.until = now + 1), Ok(500));
        assert_eq!(with(&|grant| grant.until = now), Err(GrantFault::Expired));
        assert_eq!(with(&|grant| grant.until = grant.from + LIFETIME_MAX), Ok(500));
        assert_eq!(with(&|grant| grant.until = grant.from + LIFETIME_MAX + 1), Err(GrantFault::Lifetime));
        assert_eq!(with(&|grant| grant.until = grant.from - 1), Err(GrantFault::Lifetime));
        assert_eq!(with(&|grant| grant.box_name = "box-2".to_owned()), Err(GrantFault::OtherBox));
        assert_eq!(with(&|grant| grant.start = [8; 16]), Err(GrantFault::OtherStart));
    }

    #[test]
    fn a_certificate_of_another_authority_expired_or_of_no_client_grants_nothing() {
        let (ours, theirs) = (bench("supervisor", 30, NOW), bench("supervisor", 30, NOW));
        assert_eq!(ours.grants().judge(&theirs.signed(&grant()), NOW), Err(GrantFault::Certificate));
        let year_ago = Timestamp::from_unix_millis(NOW.unix_millis() - 400 * 86_400_000);
        assert_eq!(bench("supervisor", 30, year_ago).fault(&grant()), GrantFault::Certificate);

        let server = ours.authority.issue_server(&ours.key, &["salama.example".to_owned()], 30, NOW).unwrap();
        let mut signed = ours.signed(&grant());
        for certificate in [server[0].to_vec(), ours.authority.certificate().to_vec(), Vec::new(), vec![0x30; 5000]] {
            signed.certificate = certificate;
            assert_eq!(ours.grants().judge(&signed, NOW), Err(GrantFault::Certificate));
        }
    }

    #[test]
    fn a_signature_of_another_key_or_over_another_text_grants_nothing() {
        let bench = bench("supervisor", 30, NOW);
        let good = bench.signed(&grant());
        let other = EcKey::generate().unwrap().0;
        let larger = BurstGrant { count: 501, ..grant() }.to_string();
        for bad in [
            SignedGrant { signature: other.sign(good.text.as_bytes()).unwrap(), ..good.clone() },
            SignedGrant { text: larger, ..good.clone() },
            SignedGrant { signature: Vec::new(), ..good.clone() },
        ] {
            assert_eq!(bench.grants().judge(&bad, NOW), Err(GrantFault::Signature));
        }
        for text in [String::new(), "salama burst grant 1\n".repeat(100), good.text.replace("count 500", "count 0500")] {
            let signature = bench.key.sign(text.as_bytes()).unwrap();
            assert_eq!(bench.grants().judge(&SignedGrant { text, signature, ..good.clone() }, NOW), Err(GrantFault::Malformed));
        }
    }

    #[test]
    fn what_was_used_is_bounded() {
        let bench = bench("supervisor", 30, NOW);
        let mut grants = bench.grants();
        grants.used = (0..USED_MAX).map(|number| u128::try_from(number).unwrap().to_be_bytes()).collect();
        assert_eq!(grants.judge(&bench.signed(&grant()), NOW), Err(GrantFault::TooMany));
    }
}
