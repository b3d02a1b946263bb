//! A person's word that more calls than usual may be opened for a while: the text that is signed, and what can be wrong with it.
//! Trusts: nothing; whoever relays it may be taken over.
//! Touches: nothing.
//! Next: `cli` writes and signs it, `api` relays it, the keeper alone judges it.
//!
//! ```text
//! salama burst grant 1
//! box nairobi-1
//! start 9f0c5e7d1b2a4c6e8f1d3b5a7c9e0f2d       the keeper's start that it is for: another start takes it no more
//! kind read                                    or job
//! count 500
//! from 1700000000                              seconds since 1970
//! until 1700001800
//! nonce 0f1e2d3c4b5a69788796a5b4c3d2e1f0       a grant counts once
//! ```
//! Every line ends with a line feed. There is one way to write a grant; whatever reads otherwise is none.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::base::hex::{hex, unhex};

use super::keeper::{StartId, UnwrapPurpose};

/// Most uses of one grant.
pub const COUNT_MAX: u32 = 2000;
/// Longest time for which a grant counts, seconds.
pub const LIFETIME_MAX: u64 = 3600;
/// Longest text.
pub const TEXT_MAX: usize = 512;
/// The one role whose word counts: whoever may read and erase every call. See `authz::policy`, which says the same to the API.
pub const ROLE: &str = "supervisor";

/// The first line: no signature over anything else can be taken for one over a grant.
const TITLE: &str = "salama burst grant 1";

/// What is allowed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BurstGrant {
    /// The box.
    pub box_name: String,
    /// The keeper's start.
    pub start: StartId,
    /// Which calls.
    pub purpose: UnwrapPurpose,
    /// How many more.
    pub count: u32,
    /// From when on, seconds since 1970.
    pub from: u64,
    /// Until when.
    pub until: u64,
    /// Random.
    pub nonce: [u8; 16],
}

/// A grant with its signature, as it is relayed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SignedGrant {
    /// The text.
    pub text: String,
    /// ECDSA P-256 with SHA-256 over the text, ASN.1 DER.
    pub signature: Vec<u8>,
    /// The signer's certificate, DER.
    pub certificate: Vec<u8>,
}

impl BurstGrant {
    /// Reads a text, if it is one.
    pub fn read(text: &str) -> Option<Self> {
        let mut lines = text.lines();
        let mut field = |name: &str| lines.next().and_then(|line| line.strip_prefix(name)).map(str::to_owned);
        if !field(TITLE)?.is_empty() {
            return None;
        }
        let grant = Self {
            box_name: field("box ")?,
            start: unhex(&field("start ")?)?,
            purpose: purpose(&field("kind ")?)?,
            count: field("count ")?.parse().ok()?,
            from: field("from ")?.parse().ok()?,
            until: field("until ")?.parse().ok()?,
            nonce: unhex(&field("nonce ")?)?,
        };
        // One way to write it: no sign, no leading zero, nothing after it.
        (grant.to_string() == text).then_some(grant)
    }
}

impl fmt::Display for BurstGrant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { box_name, start, purpose, count, from, until, nonce } = self;
        writeln!(f, "{TITLE}\nbox {box_name}\nstart {}\nkind {}", hex(start), purpose_word(*purpose))?;
        writeln!(f, "count {count}\nfrom {from}\nuntil {until}\nnonce {}", hex(nonce))
    }
}

/// The word for it in grants, lines and settings.
pub const fn purpose_word(purpose: UnwrapPurpose) -> &'static str {
    match purpose {
        UnwrapPurpose::Job => "job",
        UnwrapPurpose::Read => "read",
    }
}

fn purpose(word: &str) -> Option<UnwrapPurpose> {
    [UnwrapPurpose::Job, UnwrapPurpose::Read].into_iter().find(|purpose| purpose_word(*purpose) == word)
}

/// Why a grant does not count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum GrantFault {
    /// The text.
    #[error("the grant is not written as grants are: make it with `salama burst` of this version")]
    Malformed,
    /// The box.
    #[error("the grant is for another box")]
    OtherBox,
    /// The start.
    #[error("the grant is for another start of the key keeper: the daemon was restarted since; make a new one")]
    OtherStart,
    /// Its number.
    #[error("a grant is for 1 to {COUNT_MAX} calls")]
    Count,
    /// Its time.
    #[error("a grant counts for at most {LIFETIME_MAX} seconds, and ends after it begins")]
    Lifetime,
    /// Too early.
    #[error("the grant does not count yet: compare the clocks of the two machines")]
    NotYet,
    /// Too late.
    #[error("the grant has expired: make a new one, and compare the clocks of the two machines")]
    Expired,
    /// The certificate.
    #[error("the certificate that signed the grant is not of this box's authority, not of a client, or not valid now")]
    Certificate,
    /// Who.
    #[error("the grant is signed by a role that may not: it takes a {ROLE}")]
    Role,
    /// The signature.
    #[error("the signature is not by the certificate's key over this very grant")]
    Signature,
    /// Again.
    #[error("the grant was used before: each counts once")]
    Used,
    /// Too many.
    #[error("as many grants are at work as can be: wait until one has ended")]
    TooMany,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn grant() -> BurstGrant {
        BurstGrant {
            box_name: "nairobi-1".to_owned(),
            start: [0x9f; 16],
            purpose: UnwrapPurpose::Read,
            count: 500,
            from: 1_700_000_000,
            until: 1_700_001_800,
            nonce: [0x0f; 16],
        }
    }

    #[test]
    fn a_grant_is_eight_lines_that_a_person_can_read() {
        let text = "salama burst grant 1\nbox nairobi-1\nstart 9f9f9f9f9f9f9f9f9f9f9f9f9f9f9f9f\nkind read\ncount 500\n\
                    from 1700000000\nuntil 1700001800\nnonce 0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f\n";
        assert_eq!(grant().to_string(), text);
        assert_eq!(BurstGrant::read(text), Some(grant()));
        assert!(text.len() < TEXT_MAX / 2);
    }

    #[test]
    fn there_is_one_way_to_write_a_grant() {
        let text = grant().to_string();
        let bent = [
            text.replace("count 500", "count +500"),
            text.replace("count 500", "count 0500"),
            text.replace("count 500", "count  500"),
            text.replace("9f9f", "9F9F"),
            text.replace('\n', "\r\n"),
            text.trim_end().to_owned(),
            format!("{text}\n"),
            format!("{text}count 9\n"),
            text.replace("grant 1", "grant 2"),
            text.replace("kind read", "kind Read"),
            text.replace("kind read\ncount 500", "count 500\nkind read"),
            String::new(),
        ];
        for text in bent {
            assert_eq!(BurstGrant::read(&text), None, "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn no_text_is_read_but_what_is_written(text in "\\PC*|salama burst grant 1\n(.|\n)*") {
            prop_assert!(BurstGrant::read(&text).is_none_or(|grant| grant.to_string() == text));
        }

        #[test]
        fn every_grant_reads_back(count: u32, from: u64, until: u64, nonce: [u8; 16], start: [u8; 16]) {
            let grant = BurstGrant { count, from, until, nonce, start, ..grant() };
            prop_assert_eq!(BurstGrant::read(&grant.to_string()), Some(grant));
        }
    }
}
