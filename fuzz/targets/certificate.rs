//! Certificates and requests: `identity::peer` of a client's certificate, `keeper::ca` of what somebody wants to be certified.
//! Trusts: nothing. In the daemon rustls has verified a certificate before; here nobody has.
//! Touches: nothing.
//! Next: `authz` asks the identity; the console hands out the certificate.

use std::sync::OnceLock;

use salama::base::clock::Timestamp;
use salama::identity::peer::{Claim, NAME_MAX, Role};

use super::Target;
use crate::keeper::ca::{Authority, BoxName, Client};
use crate::keeper::signer::EcKey;

/// A certificate, DER.
pub const IDENTITY: Target = Target { name: "certificate", run: identity, corpus: "certificate", smoke: 8000, ..BASE };
/// A request, DER.
pub const REQUEST: Target = Target { name: "certificate_request", run: request, corpus: "request", smoke: 4000, ..BASE };

const BASE: Target = Target {
    name: "",
    run: identity,
    seeds: Vec::new,
    corpus: "",
    words: &[
        b"salama://",
        b"salama://box/admin/a",
        b"/counsellor/",
        b"\x55\x1d\x11",
        b"\x30\x80",
        b"\x30\x84\xff\xff\xff\xff",
        b"\x86",
        b"\xa3",
        b"\x02\x01\x00",
        b"\x17\x0d",
        b"\x18\x0f99991231235959Z",
        b"\x05\x00",
        b"\x00\x00",
        b"\x04\x82",
    ],
    memory: 256 << 10,
    longest: 4096,
    smoke: 0,
};

/// Promise: whatever the bytes, a certificate names nobody or exactly one box, known role and name in the small alphabet.
fn identity(data: &[u8]) {
    if let Ok(claim) = Claim::read(data) {
        for word in [claim.name(), claim.box_name()] {
            let small = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'_' | b'-');
            assert!((1..=NAME_MAX).contains(&word.len()) && word.bytes().all(small), "{word:?}");
        }
        assert!(Role::ALL.contains(&claim.role()));
        let uri = format!("salama://{}/{}/{}", claim.box_name(), claim.role(), claim.name());
        assert!(data.windows(uri.len()).any(|window| window == uri.as_bytes()), "{uri} is not in the certificate");
    }
}

/// Promise: a request is refused, or certified for exactly the role and name that the operator gave; of its own wishes nothing is taken.
fn request(data: &[u8]) {
    static AUTHORITY: OnceLock<Authority> = OnceLock::new();
    let now = Timestamp::from_unix_millis(1_800_000_000_000);
    let authority = AUTHORITY.get_or_init(|| {
        let (key, _) = EcKey::generate().unwrap();
        Authority::create(BoxName::new("box").unwrap(), key, now).unwrap()
    });
    if let Ok(chain) = authority.issue_client(data, Client { role: "counsellor", name: "asha" }, 90, now) {
        let claim = Claim::read(&chain[0]).expect("our own certificate is read");
        assert_eq!((claim.box_name(), claim.role(), claim.name()), ("box", Role::Counsellor, "asha"));
    }
}
