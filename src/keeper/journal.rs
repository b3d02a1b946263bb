//! One line of JSON on standard error for each use of a key; the service's journal takes it from there.
//! Trusts: nothing that a request carries: call ids and our own words only, no names, no bytes of a request.
//! Touches: standard error.
//! Next: `serve` replies once the line is written.

use std::io::{self, Write};

use serde::Serialize;

use crate::base::clock::Timestamp;
use crate::base::ids::CallId;
use crate::ipc::keeper::{KeeperDenial, UnwrapPurpose};
use crate::sandbox::process::ConfinementReport;

use super::moving::Said;
use super::quota::{Bucket, Use};

/// Handshakes and refusals that get a line each minute. A stranger can cause both at will, so a flood is summed up; a DEK's use never is.
const COMMON_LINES_PER_MINUTE: u32 = 600;

/// Writes the lines.
pub struct Journal<W> {
    out: W,
    common: Bucket,
    suppressed: u64,
}

/// What is said of one use.
#[derive(Serialize)]
struct Line {
    event: &'static str,
    time: String,
    kind: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    call: Option<CallId>,
    outcome: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'static str>,
    count: u64,
    #[serde(skip_serializing_if = "is_zero")]
    suppressed: u64,
}

const fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// What is said of the confinement.
#[derive(Serialize)]
struct ConfinedLine {
    event: &'static str,
    uid: u32,
    landlock_abi: i32,
    landlock_lacks: Vec<String>,
    acts_denied: usize,
    self_check_ms: u128,
}

/// What is said of the erasure epoch.
#[derive(Serialize)]
struct EpochLine<'a> {
    event: &'static str,
    time: String,
    what: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    number: Option<u32>,
    calls: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    call: Option<CallId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    failure: Option<&'a str>,
}

/// One use of a key, or one refused.
#[derive(Clone, Copy, Debug)]
pub struct KeyUse {
    /// Kind of use.
    pub kind: Use,
    /// The call it was for.
    pub call: Option<CallId>,
    /// Why not, when it was refused.
    pub denied: Option<KeeperDenial>,
    /// How often this happened since the start, this time included: uses of the kind, or refusals of all kinds.
    pub count: u64,
}

impl<W: Write> Journal<W> {
    /// Onto `out`.
    pub fn new(out: W, now: Timestamp) -> Self {
        Self { out, common: Bucket::new(COMMON_LINES_PER_MINUTE, now), suppressed: 0 }
    }

    /// Writes how this process is confined, once.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn confined(&mut self, report: &ConfinementReport) -> io::Result<()> {
        let line = ConfinedLine {
            event: "keeper_confined",
            uid: report.identity.uid.as_raw(),
            landlock_abi: report.landlock.enforced_abi,
            landlock_lacks: report.landlock.missing.iter().map(|missing| format!("{missing:?}")).collect(),
            acts_denied: report.acts_denied,
            self_check_ms: report.self_check.as_millis(),
        };
        self.write(&line)
    }

    /// Writes the line of one use, or counts it as suppressed.
    ///
    /// # Errors
    /// What the kernel says. The caller then gives no key: nothing is used unrecorded.
    pub fn record(&mut self, used: KeyUse, now: Timestamp) -> io::Result<()> {
        let common = used.denied.is_some() || used.kind == Use::SignTls;
        if common && !self.common.take(now) {
            self.suppressed = self.suppressed.saturating_add(1);
            return Ok(());
        }
        let line = Line {
            event: "key_use",
            time: now.rfc3339(),
            kind: kind_word(used.kind),
            call: used.call,
            outcome: if used.denied.is_some() { "denied" } else { "done" },
            reason: used.denied.map(denial_word),
            count: used.count,
            suppressed: self.suppressed,
        };
        self.write(&line)?;
        self.suppressed = 0;
        Ok(())
    }

    /// Writes a line on the erasure epoch.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn epoch(&mut self, said: &Said, now: Timestamp) -> io::Result<()> {
        let Said { what, number, calls, call, failure } = said;
        let failure = failure.as_deref();
        self.write(&EpochLine { event: "epoch", time: now.rfc3339(), what, number: *number, calls: *calls, call: *call, failure })
    }

    /// In one write, so that lines of several processes do not mix.
    fn write(&mut self, line: &impl Serialize) -> io::Result<()> {
        let mut text = serde_json::to_vec(line)?;
        text.push(b'\n');
        self.out.write_all(&text)
    }
}

const fn kind_word(kind: Use) -> &'static str {
    match kind {
        Use::NewDek => "new_dek",
        Use::Unwrap(UnwrapPurpose::Job) => "unwrap_job",
        Use::Unwrap(UnwrapPurpose::Read) => "unwrap_read",
        Use::SignTls => "sign_tls",
        Use::Issue => "issue_certificate",
        Use::Count => "count_start",
    }
}

const fn denial_word(denial: KeeperDenial) -> &'static str {
    match denial {
        KeeperDenial::RateLimited => "rate_limited",
        KeeperDenial::WrongKey => "wrong_key",
        KeeperDenial::NotSignable => "not_signable",
        KeeperDenial::ConsoleOnly => "not_in_this_mode",
        KeeperDenial::BadRequest => "bad_request",
        KeeperDenial::CounterElsewhere => "counter_elsewhere",
        KeeperDenial::Internal => "internal",
        KeeperDenial::OtherEpoch => "other_epoch",
        KeeperDenial::OlderKeys => "older_keys",
        KeeperDenial::EpochOutOfOrder => "epoch_out_of_order",
        KeeperDenial::EpochFailed => "epoch_failed",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_unix_millis(1_700_000_000_000);
    const DEK: KeyUse =
        KeyUse { kind: Use::Unwrap(UnwrapPurpose::Read), call: Some(CallId::from_bytes([0xab; 16])), denied: None, count: 7 };

    #[test]
    fn a_line_says_kind_call_outcome_and_count() {
        let mut out = Vec::new();
        Journal::new(&mut out, NOW).record(DEK, NOW).unwrap();
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "{\"event\":\"key_use\",\"time\":\"2023-11-14T22:13:20Z\",\"kind\":\"unwrap_read\",\
             \"call\":\"abababababababababababababababab\",\"outcome\":\"done\",\"count\":7}\n"
        );
    }

    #[test]
    fn a_flood_of_refusals_is_summed_up_and_no_dek_is_opened_unrecorded() {
        let mut out = Vec::new();
        let mut journal = Journal::new(&mut out, NOW);
        let refused = KeyUse { kind: Use::SignTls, call: None, denied: Some(KeeperDenial::NotSignable), count: 1 };
        for _ in 0..COMMON_LINES_PER_MINUTE + 50 {
            journal.record(refused, NOW).unwrap();
        }
        for _ in 0..1000 {
            journal.record(DEK, NOW).unwrap();
        }
        let text = String::from_utf8(out).unwrap();
        assert_eq!(text.matches("\"outcome\":\"done\"").count(), 1000);
        assert_eq!(text.lines().count(), 1600);
        assert_eq!(text.matches("\"suppressed\":50").count(), 1);
    }
}
