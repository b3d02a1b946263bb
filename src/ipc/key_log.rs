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
//! The first line of a chain is the event `chain_begun`, the last of one that was ended in order `chain_ended`. The first says whose chain
//! it is (`of`), the number of this start (`start`, one more each time), and of the chain before it the name (`before`) and how many lines it
//! surely had (`lines`): a start that was taken out, doubled or moved is found as a line is. The daemon's keeper and the console's count
//! apart, and their chains may lie between each other.

use ring::digest::{SHA256, digest};
use ring::signature::{ED25519, UnparsedPublicKey};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::base::hex::unhex;

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
/// The event of a change of the keyslots.
pub const SLOTS: &str = "key_slots";
/// Longest line that is looked at, bytes; real ones have some 500.
pub const LINE_MAX: usize = 16 * 1024;

/// SHA-256 of a line.
pub fn digest_of(line: &[u8]) -> [u8; 32] {
    let mut sum = [0; 32];
    sum.copy_from_slice(digest(&SHA256, line).as_ref());
    sum
}

/// Whose chain it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Series {
    /// Of the keeper beside the daemon.
    Daemon,
    /// Of the keeper at the console.
    Console,
}

/// Reads lines one after the other.
pub struct Verifier {
    key: [u8; 32],
    may_begin_late: bool,
    /// Behind the last line of each series, and of a chain whose beginning was not seen.
    at: Vec<Place>,
    report: Report,
}

/// Behind one line.
struct Place {
    chain: [u8; 16],
    /// Not known of a chain whose beginning was not seen.
    begun: Option<(Series, u64)>,
    next: u64,
    prev: [u8; 32],
    ended: bool,
    /// A change of the keyslots was begun, and nothing says yet that it was made.
    changing: bool,
}

/// What was found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Report {
    /// Starts of the keeper.
    pub chains: u64,
    /// Chains without a last line, the newest not counted: the keeper was killed, or lines are missing at their end.
    pub without_end: u64,
    /// Signed lines.
    pub lines: u64,
    /// Incidents among them.
    pub incidents: u64,
    /// Changes of the keyslots that were made.
    pub slot_changes: u64,
    /// Changes of the keyslots that were begun and not said to be made: they may be in force.
    pub slot_changes_open: u64,
    /// Lines of others, which were passed over.
    pub others: u64,
    /// Things that are wrong.
    pub faults: u64,
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

/// What a chain's first line says besides.
#[derive(Deserialize)]
struct Begun {
    of: Series,
    start: u64,
    before: Option<String>,
    lines: Option<u64>,
}

/// What a line on the keyslots says besides.
#[derive(Deserialize)]
struct OfSlots {
    outcome: Outcome,
}

/// How far a change is.
#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Outcome {
    Begun,
    Done,
    #[serde(other)]
    Other,
}

impl Verifier {
    /// For lines that `key` signed. With `part`, the first chains may begin in their middle.
    pub fn new(key: [u8; 32], part: bool) -> Self {
        Self { key, may_begin_late: part, at: Vec::new(), report: Report::default() }
    }

    /// The next line, without its line feed; `number` counts the lines of the input from 1.
    ///
    /// # Errors
    /// [`LogFault`]: what is wrong with it. The next line can be given all the same: what is not signed is passed over, and what is signed
    /// is where it goes on from.
    pub fn line(&mut self, number: u64, line: &[u8]) -> Result<(), LogFault> {
        let judged = self.judge(number, line);
        self.report.faults = self.report.faults.saturating_add(u64::from(judged.is_err()));
        judged
    }

    fn judge(&mut self, number: u64, line: &[u8]) -> Result<(), LogFault> {
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
        self.report.lines = self.report.lines.saturating_add(1);
        self.report.incidents = self.report.incidents.saturating_add(u64::from(parts.is(INCIDENT)));
        let prev = digest_of(line);
        let judged = match self.at.iter_mut().find(|place| place.chain == parts.chain) {
            Some(place) => place.goes_on(number, &parts, prev),
            None => self.begins(number, &parts, prev),
        };
        self.count_changes(&parts);
        judged
    }

    fn count_changes(&mut self, parts: &Parts<'_>) {
        let Some(outcome) = parts.outcome() else { return };
        let changing = self.at.iter_mut().find(|place| place.chain == parts.chain).map(|place| &mut place.changing);
        let report = &mut self.report;
        match outcome {
            Outcome::Begun => {
                report.slot_changes_open = report.slot_changes_open.saturating_add(1);
                changing.into_iter().for_each(|changing| *changing = true);
            }
            Outcome::Done => {
                report.slot_changes = report.slot_changes.saturating_add(1);
                let told = changing.is_some_and(std::mem::take);
                report.slot_changes_open = report.slot_changes_open.saturating_sub(u64::from(told));
            }
            Outcome::Other => {}
        }
    }

    fn begins(&mut self, line: u64, parts: &Parts<'_>, prev: [u8; 32]) -> Result<(), LogFault> {
        let seq = parts.seq;
        let (chain, next, ended) = (parts.chain, seq.saturating_add(1), parts.is(ENDED));
        let place = |begun| Place { chain, begun, next, prev, ended, changing: false };
        if seq != 0 {
            // One of the daemon's and one of the console's.
            let late = self.may_begin_late && self.at.len() < 2 && self.at.iter().all(|place| place.begun.is_none());
            self.report.chains = self.report.chains.saturating_add(1);
            self.at.push(place(None));
            return if late { Ok(()) } else { Err(LogFault::HeadMissing { line, seq }) };
        }
        let begun = parts.begun().filter(|_| parts.prev == [0; 32]).ok_or(LogFault::Unlinked { line, seq })?;
        let before = begun.before.as_deref().and_then(unhex::<16>);
        let named = self.at.iter().position(|place| Some(place.chain) == before);
        let last = named.or_else(|| self.at.iter().position(|place| place.begun.is_some_and(|(of, _)| of == begun.of)));
        let last = last.map(|at| self.at.swap_remove(at));
        let judged = last.as_ref().map_or(Ok(()), |last| last.is_before(line, &begun, before));
        // A chain that comes again stays behind the one that was there, so that what follows that one is judged by it.
        let again = matches!(judged, Err(LogFault::StartOutOfOrder { .. }));
        self.report.chains = self.report.chains.saturating_add(1);
        let unended = last.as_ref().is_some_and(|last| !last.ended);
        self.report.without_end = self.report.without_end.saturating_add(u64::from(unended && !again));
        match last {
            Some(last) if again => {
                self.at.push(Place { begun: None, ..place(None) });
                self.at.push(last);
            }
            _ => self.at.push(place(Some((begun.of, begun.start)))),
        }
        judged
    }

    /// What was found.
    ///
    /// # Errors
    /// [`LogFault::Empty`].
    pub fn finish(self) -> Result<Report, LogFault> {
        if self.report.lines == 0 { Err(LogFault::Empty) } else { Ok(self.report) }
    }
}

impl Place {
    fn goes_on(&mut self, line: u64, parts: &Parts<'_>, prev: [u8; 32]) -> Result<(), LogFault> {
        let (seq, next) = (parts.seq, self.next);
        if seq < next {
            return Err(LogFault::OutOfOrder { line, seq, expected: next });
        }
        let linked = seq > next || (parts.prev == self.prev && !self.ended);
        (self.next, self.prev, self.ended) = (seq.saturating_add(1), prev, parts.is(ENDED));
        match seq > next {
            true => Err(LogFault::Missing { line, first: next, last: seq.saturating_sub(1) }),
            false if linked => Ok(()),
            false => Err(LogFault::Unlinked { line, seq }),
        }
    }

    /// Whether the start that now begins comes right behind this one.
    fn is_before(&self, line: u64, begun: &Begun, named: Option<[u8; 16]>) -> Result<(), LogFault> {
        let start = begun.start;
        if let Some((_, last)) = self.begun {
            let expected = last.saturating_add(1);
            if start < expected {
                return Err(LogFault::StartOutOfOrder { line, start, expected });
            }
            if start > expected {
                return Err(LogFault::StartsMissing { line, first: expected, last: start.saturating_sub(1) });
            }
        }
        if named != Some(self.chain) {
            return Err(LogFault::OtherBefore { line, start });
        }
        let known = begun.lines.unwrap_or_default();
        if self.next < known { Err(LogFault::CutOff { line, start, first: self.next, last: known.saturating_sub(1) }) } else { Ok(()) }
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
            signature: unhex(signature)?,
            chain: unhex(chain)?,
            seq: seq.parse().ok()?,
            prev: unhex(prev)?,
            rest,
        })
    }

    fn begun(&self) -> Option<Begun> {
        self.members().filter(|_| self.is(BEGUN))
    }

    fn outcome(&self) -> Option<Outcome> {
        if self.is(SLOTS) { self.members::<OfSlots>().map(|line| line.outcome) } else { None }
    }

    fn members<T: DeserializeOwned>(&self) -> Option<T> {
        serde_json::from_str(&format!("{{{}}}", self.rest)).ok()
    }

    fn is(&self, event: &str) -> bool {
        self.rest.strip_prefix("\"event\":\"").and_then(|rest| rest.strip_prefix(event)).is_some_and(|rest| rest.starts_with('"'))
    }
}

/// What is wrong with a row of lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LogFault {
    /// Not one line.
    #[error("no signed line of the key keeper came: give the service's journal, for example `journalctl -t salama-keeper -o cat`")]
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
    /// Whole starts.
    #[error(
        "before line {line}, the starts {first} to {last} of the keeper are missing, with all their lines (a power cut just after a start leaves such a gap too)"
    )]
    StartsMissing {
        /// Of the input, from 1.
        line: u64,
        /// The first.
        first: u64,
        /// The last.
        last: u64,
    },
    /// A start again, or an older one.
    #[error(
        "line {line} begins start {start} of the keeper where start {expected} belongs: lines were put in again, or the key directory was put back"
    )]
    StartOutOfOrder {
        /// Of the input, from 1.
        line: u64,
        /// Its number.
        start: u64,
        /// The one that belongs there.
        expected: u64,
    },
    /// The start before is another.
    #[error("line {line} begins start {start} of the keeper, which came behind another start than the one that stands before it here")]
    OtherBefore {
        /// Of the input, from 1.
        line: u64,
        /// Its number.
        start: u64,
    },
    /// The end of the start before.
    #[error(
        "the start before line {line}, where start {start} begins, had lines {first} to {last} too: they were cut off (a power cut does that, too)"
    )]
    CutOff {
        /// Of the input, from 1.
        line: u64,
        /// The one that begins.
        start: u64,
        /// The first that is missing.
        first: u64,
        /// The last that surely was.
        last: u64,
    },
}
