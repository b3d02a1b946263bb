//! The keeper's signed lines: how one is written, and whether a row of them is whole.
//! Trusts: the public key that the reader was given. Nothing of a line until its signature is checked.
//! Touches: nothing.
//! Next: the keeper's `chain` writes them; `salama audit verify` reads them.
//!
//! ```text
//! {"chain":"32 hex","seq":N,"prev":"64 hex", ...members of the event... ,"sig":"128 hex"}
//! chain  random, one a start of the keeper          seq  from 0, one more a line
//! prev   SHA-256 of the whole line before, without its line feed; zeros in the first
//! sig    Ed25519 over "salama key log 1", a line feed, and the line up to `,"sig":`
//! ```
//! The first line of a chain is the event `chain_begun`, the last of one that was ended in order `chain_ended`.

use ring::digest::{SHA256, digest};
use ring::signature::{ED25519, UnparsedPublicKey};

use super::burst::bytes;

/// How every line begins.
pub const HEAD: &str = "{\"chain\":\"";
/// Before the signature.
pub const SIGNATURE: &str = ",\"sig\":\"";
/// Signed before each line.
pub const CONTEXT: &[u8] = b"salama key log 1\n";
/// The event of a chain's first line.
pub const BEGUN: &str = "chain_begun";
/// And of its last.
pub const ENDED: &str = "chain_ended";
/// The event of an incident.
pub const INCIDENT: &str = "incident";
/// Longest line that is looked at, bytes; real ones have some 500.
pub const LINE_MAX: usize = 16 * 1024;

/// SHA-256 of a line.
pub fn digest_of(line: &[u8]) -> [u8; 32] {
    let mut sum = [0; 32];
    sum.copy_from_slice(digest(&SHA256, line).as_ref());
    sum
}

/// Reads lines one after the other.
pub struct Verifier {
    key: [u8; 32],
    may_begin_late: bool,
    at: Option<Place>,
    report: Report,
}

/// Behind one line.
struct Place {
    chain: [u8; 16],
    next: u64,
    prev: [u8; 32],
    ended: bool,
}

/// What was found whole.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Report {
    /// Starts of the keeper.
    pub chains: u64,
    /// Chains without a last line, the newest not counted: the keeper was killed, or lines are missing at their end.
    pub without_end: u64,
    /// Signed lines.
    pub lines: u64,
    /// Incidents among them.
    pub incidents: u64,
    /// Lines of others, which were passed over.
    pub others: u64,
}

/// A line that was taken apart.
struct Parts<'a> {
    signed: &'a [u8],
    signature: [u8; 64],
    chain: [u8; 16],
    seq: u64,
    prev: [u8; 32],
    rest: &'a str,
}

impl Verifier {
    /// For lines that `key` signed. With `part`, the first chain may begin in its middle.
    pub fn new(key: [u8; 32], part: bool) -> Self {
        Self { key, may_begin_late: part, at: None, report: Report::default() }
    }

    /// The next line, without its line feed; `number` counts the lines of the input from 1.
    ///
    /// # Errors
    /// [`LogFault`]: the first thing that is wrong. What follows is not judged.
    pub fn line(&mut self, number: u64, line: &[u8]) -> Result<(), LogFault> {
        // Whoever shares the stream may have left the piece of a line before it.
        let begins = line.windows(HEAD.len()).rposition(|piece| piece == HEAD.as_bytes());
        let Some(line) = begins.and_then(|at| line.get(at..)) else {
            self.report.others = self.report.others.saturating_add(1);
            return Ok(());
        };
        let parts = Parts::of(line).ok_or(LogFault::Damaged { line: number })?;
        let message = [CONTEXT, parts.signed].concat();
        UnparsedPublicKey::new(&ED25519, self.key)
            .verify(&message, &parts.signature)
            .map_err(|_| LogFault::Forged { line: number, seq: parts.seq })?;
        self.follows(number, &parts)?;
        self.report.lines = self.report.lines.saturating_add(1);
        self.report.incidents = self.report.incidents.saturating_add(u64::from(parts.is(INCIDENT)));
        let next = parts.seq.saturating_add(1);
        self.at = Some(Place { chain: parts.chain, next, prev: digest_of(line), ended: parts.is(ENDED) });
        Ok(())
    }

    fn follows(&mut self, line: u64, parts: &Parts<'_>) -> Result<(), LogFault> {
        let seq = parts.seq;
        match &self.at {
            Some(at) if at.chain == parts.chain => match seq.cmp(&at.next) {
                std::cmp::Ordering::Greater => Err(LogFault::Missing { line, first: at.next, last: seq.saturating_sub(1) }),
                std::cmp::Ordering::Less => Err(LogFault::OutOfOrder { line, seq, expected: at.next }),
                std::cmp::Ordering::Equal if parts.prev == at.prev && !at.ended => Ok(()),
                std::cmp::Ordering::Equal => Err(LogFault::Unlinked { line, seq }),
            },
            before => {
                let unended = before.as_ref().is_some_and(|before| !before.ended);
                let late = seq != 0 && !(self.may_begin_late && before.is_none());
                if late {
                    return Err(LogFault::HeadMissing { line, seq });
                }
                if seq == 0 && !(parts.is(BEGUN) && parts.prev == [0; 32]) {
                    return Err(LogFault::Unlinked { line, seq });
                }
                self.report.without_end = self.report.without_end.saturating_add(u64::from(unended));
                self.report.chains = self.report.chains.saturating_add(1);
                Ok(())
            }
        }
    }

    /// What was found, when nothing was wrong.
    ///
    /// # Errors
    /// [`LogFault::Empty`].
    pub const fn finish(self) -> Result<Report, LogFault> {
        if self.report.lines == 0 { Err(LogFault::Empty) } else { Ok(self.report) }
    }
}

impl<'a> Parts<'a> {
    fn of(line: &'a [u8]) -> Option<Self> {
        let text = std::str::from_utf8(line.get(..line.len().min(LINE_MAX))?).ok()?;
        let (signed, signature) = text.strip_suffix("\"}")?.rsplit_once(SIGNATURE)?;
        let (chain, rest) = signed.strip_prefix(HEAD)?.split_once("\",\"seq\":")?;
        let (seq, rest) = rest.split_once(",\"prev\":\"")?;
        let (prev, rest) = rest.split_once("\",")?;
        Some(Self {
            signed: signed.as_bytes(),
            signature: bytes(signature)?,
            chain: bytes(chain)?,
            seq: seq.parse().ok()?,
            prev: bytes(prev)?,
            rest,
        })
    }

    fn is(&self, event: &str) -> bool {
        self.rest.strip_prefix("\"event\":\"").and_then(|rest| rest.strip_prefix(event)).is_some_and(|rest| rest.starts_with('"'))
    }
}

/// What is wrong with a row of lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LogFault {
    /// Not one line.
    #[error("no signed line of the key keeper came: give the service's journal, for example `journalctl -u salama -o cat`")]
    Empty,
    /// Not as lines are written.
    #[error("line {line} begins as the key keeper's lines do, but is cut or changed")]
    Damaged {
        /// Of the input, from 1.
        line: u64,
    },
    /// The signature.
    #[error("line {line}, which says that it is number {seq}, was changed or is not signed by this key")]
    Forged {
        /// Of the input, from 1.
        line: u64,
        /// What it says.
        seq: u64,
    },
    /// Lines between.
    #[error("before line {line}, the lines with the numbers {first} to {last} of its chain are missing")]
    Missing {
        /// Of the input, from 1.
        line: u64,
        /// The first that is missing.
        first: u64,
        /// The last.
        last: u64,
    },
    /// Again, or moved.
    #[error("line {line} is out of order: it has number {seq} where {expected} belongs")]
    OutOfOrder {
        /// Of the input, from 1.
        line: u64,
        /// Its number.
        seq: u64,
        /// The one that belongs there.
        expected: u64,
    },
    /// The start of a chain.
    #[error("line {line} begins a chain in its middle, at number {seq}: the lines before are missing (--part, where that is meant)")]
    HeadMissing {
        /// Of the input, from 1.
        line: u64,
        /// Its number.
        seq: u64,
    },
    /// Numbers fit, but it follows another line.
    #[error("line {line}, number {seq}, does not follow from the line before it: one of the two is not of this row")]
    Unlinked {
        /// Of the input, from 1.
        line: u64,
        /// Its number.
        seq: u64,
    },
}
