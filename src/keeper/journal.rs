//! One signed line of JSON on standard error for each use of a key; the service's journal takes it from there.
//! Trusts: nothing that a request carries: call ids and our own words only, no bytes of a request, no name but that of a verified
//! certificate.
//! Touches: standard error.
//! Next: `serve` replies once the line is written.

use std::io::{self, Write};
use std::time::Duration;

use serde::Serialize;

use crate::base::clock::Timestamp;
use crate::base::hex::hex;
use crate::base::ids::CallId;
use crate::ipc::burst::{GrantFault, purpose_word};
use crate::ipc::keeper::{KeeperDenial, UnwrapPurpose};
use crate::ipc::key_log::{BEGUN, ENDED, INCIDENT, Series};
use crate::sandbox::process::ConfinementReport;

use super::chain::Chain;
use super::grant::Accepted;
use super::ledger::Number;
use super::moving::Said;
use super::quota::{Bound, Use};
use super::window::Window;

/// Handshakes and refusals that get a line each minute. A stranger can cause both at will, so a flood is summed up; a DEK's use never is.
const COMMON_LINES_PER_MINUTE: u32 = 60;
/// Before an incident: syslog's priority 3, an error. The journal takes it off the line and files the line under it.
const ALARM: &[u8] = b"<3>";

/// Writes the lines.
pub struct Journal<W> {
    out: W,
    chain: Chain,
    series: Series,
    number: Number,
    common: Window,
    suppressed: u64,
    /// The last write failed: a piece of a line may stand there, and the next must not be taken for its end.
    torn: bool,
}

/// A chain's first line.
#[derive(Serialize)]
struct BegunLine {
    event: &'static str,
    time: String,
    key: String,
    of: Series,
    start: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    before: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    lines: Option<u64>,
}

/// What needs somebody's eyes.
#[derive(Serialize)]
struct IncidentLine {
    event: &'static str,
    time: String,
    reason: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    kind: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    used_in_hour: Option<u32>,
}

/// A grant that counts.
#[derive(Serialize)]
struct GrantLine<'a> {
    event: &'static str,
    time: String,
    by: &'a str,
    kind: &'static str,
    extra: u32,
    seconds: u64,
}

/// Why an incident is one.
#[derive(Clone, Copy, Debug)]
pub enum Incident {
    /// A limit was met.
    Limit(Bound, u32),
    /// More than an office has at its peak, though it is allowed.
    Half(u32),
    /// Somebody relayed a grant that is none.
    Grant(GrantFault),
    /// The other side broke the protocol; the keeper ends.
    Protocol,
    /// What was used before this start cannot be read.
    UsesLost,
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
    of: Option<usize>,
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
    /// Onto `out`; `steady` is the time by which floods are summed up.
    pub fn new(out: W, chain: Chain, series: Series, number: Number, steady: Duration) -> Self {
        Self { out, chain, series, number, common: Window::of_a_minute(steady), suppressed: 0, torn: false }
    }

    /// Begins the chain.
    ///
    /// # Errors
    /// What the kernel says. It is tried again with the first line.
    pub fn begin(&mut self, now: Timestamp) -> io::Result<()> {
        if !self.chain.is_new() {
            return Ok(());
        }
        let Number { start, before } = self.number;
        let (before, lines) = (before.map(|(chain, _)| hex(&chain)), before.map(|(_, lines)| lines));
        let key = hex(&self.chain.public_key());
        self.write_one(&BegunLine { event: BEGUN, time: now.rfc3339(), key, of: self.series, start, before, lines })
    }

    /// Lines that the chain has.
    pub const fn lines(&self) -> u64 {
        self.chain.lines()
    }

    /// Writes how this process is confined, once.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn confined(&mut self, report: &ConfinementReport, now: Timestamp) -> io::Result<()> {
        let line = ConfinedLine {
            event: "keeper_confined",
            uid: report.identity.uid.as_raw(),
            landlock_abi: report.landlock.enforced_abi,
            landlock_lacks: report.landlock.missing.iter().map(|missing| format!("{missing:?}")).collect(),
            acts_denied: report.acts_denied,
            self_check_ms: report.self_check.as_millis(),
        };
        self.write(&line, now)
    }

    /// Writes what needs somebody's eyes. Never summed up: the callers see to it that one story is one incident.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn incident(&mut self, incident: Incident, kind: Option<Use>, now: Timestamp) -> io::Result<()> {
        let (reason, used_in_hour) = match incident {
            Incident::Limit(Bound::Minute, used) => ("limit_of_the_minute", Some(used)),
            Incident::Limit(Bound::Hour, used) => ("limit_of_the_hour", Some(used)),
            Incident::Limit(Bound::Ceiling, used) => ("ceiling", Some(used)),
            Incident::Half(used) => ("half_of_the_hour", Some(used)),
            Incident::Grant(fault) => (fault_word(fault), None),
            Incident::Protocol => ("protocol", None),
            Incident::UsesLost => ("uses_before_lost", None),
        };
        let line = IncidentLine { event: INCIDENT, time: now.rfc3339(), reason, kind: kind.map(kind_word), used_in_hour };
        self.begin(now)?;
        self.write_one_behind(ALARM, &line)
    }

    /// Writes who allowed what.
    ///
    /// # Errors
    /// What the kernel says. The caller then lets the grant not count.
    pub fn granted(&mut self, granted: &Accepted, now: Timestamp) -> io::Result<()> {
        let Accepted { by, purpose, count, lifetime, .. } = granted;
        let (kind, seconds) = (purpose_word(*purpose), lifetime.as_secs());
        self.write(&GrantLine { event: "grant", time: now.rfc3339(), by, kind, extra: *count, seconds }, now)
    }

    /// Writes the last line.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn ended(&mut self, now: Timestamp) -> io::Result<()> {
        #[derive(Serialize)]
        struct EndedLine {
            event: &'static str,
            time: String,
            suppressed: u64,
        }
        self.write(&EndedLine { event: ENDED, time: now.rfc3339(), suppressed: self.suppressed }, now)
    }

    /// Writes the line of one use, or counts it as suppressed.
    ///
    /// # Errors
    /// What the kernel says. The caller then gives no key: nothing is used unrecorded.
    pub fn record(&mut self, used: KeyUse, now: Timestamp, steady: Duration) -> io::Result<()> {
        if (used.denied.is_some() || matches!(used.kind, Use::SignTls | Use::Verify)) && !self.has_room(steady) {
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
        self.write(&line, now)?;
        self.suppressed = 0;
        Ok(())
    }

    /// Whether one more of the common lines is written; else it is counted as suppressed.
    fn has_room(&mut self, steady: Duration) -> bool {
        let room = self.common.used(steady) < COMMON_LINES_PER_MINUTE;
        if room {
            self.common.count(steady);
        } else {
            self.suppressed = self.suppressed.saturating_add(1);
        }
        room
    }

    /// Writes a line on the erasure epoch. What fails, and each part of re-wrapping, is summed up in a flood; `committed` says all of it.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn epoch(&mut self, said: &Said, now: Timestamp, steady: Duration) -> io::Result<()> {
        let Said { what, number, calls, of, call, failure } = said;
        if (failure.is_some() || *what == "rewrap") && !self.has_room(steady) {
            return Ok(());
        }
        let failure = failure.as_deref();
        self.write(
            &EpochLine { event: "epoch", time: now.rfc3339(), what, number: *number, calls: *calls, of: *of, call: *call, failure },
            now,
        )
    }

    /// Writes a line of one of the keeper's own parts. A chain without its first line would be none.
    ///
    /// # Errors
    /// What the kernel says.
    pub(super) fn write(&mut self, line: &impl Serialize, now: Timestamp) -> io::Result<()> {
        self.begin(now)?;
        self.write_one(line)
    }

    /// In one write, so that lines of several processes do not mix. A line that could not be written is not counted: the next has its number.
    fn write_one(&mut self, line: &impl Serialize) -> io::Result<()> {
        self.write_one_behind(&[], line)
    }

    fn write_one_behind(&mut self, prefix: &[u8], line: &impl Serialize) -> io::Result<()> {
        let object = serde_json::to_string(line)?;
        let members = object.strip_prefix('{').and_then(|rest| rest.strip_suffix('}')).unwrap_or_default();
        let signed = self.chain.sign(members);
        let mut text = Vec::with_capacity(signed.text.len() + prefix.len() + 2);
        text.extend(self.torn.then_some(b'\n'));
        text.extend(prefix);
        text.extend(&signed.text);
        text.push(b'\n');
        let written = self.out.write_all(&text);
        self.torn = written.is_err();
        written?;
        self.chain.written(&signed);
        Ok(())
    }
}

const fn kind_word(kind: Use) -> &'static str {
    match kind {
        Use::NewDek => "new_dek",
        Use::Unwrap(UnwrapPurpose::Job) => "unwrap_job",
        Use::Unwrap(UnwrapPurpose::Read) => "unwrap_read",
        Use::SignTls => "sign_tls",
        Use::Issue => "issue_certificate",
        Use::Count => "count",
        Use::Begin => "epoch_begin",
        Use::Certify => "epoch_certify",
        Use::Rewrap => "epoch_rewrap",
        Use::Settle => "epoch_settle",
        Use::Verify => "verify_dek",
        Use::Grant => "grant",
    }
}

const fn denial_word(denial: KeeperDenial) -> &'static str {
    match denial {
        KeeperDenial::RateLimited { .. } => "rate_limited",
        KeeperDenial::WrongKey => "wrong_key",
        KeeperDenial::NotSignable => "not_signable",
        KeeperDenial::ConsoleOnly => "not_in_this_mode",
        KeeperDenial::BadRequest => "bad_request",
        KeeperDenial::CounterElsewhere => "counter_elsewhere",
        KeeperDenial::Grant(fault) => fault_word(fault),
        KeeperDenial::Internal => "internal",
        KeeperDenial::OtherEpoch => "other_epoch",
        KeeperDenial::OlderKeys => "older_keys",
        KeeperDenial::EpochOutOfOrder => "epoch_out_of_order",
        KeeperDenial::EpochFailed => "epoch_failed",
        KeeperDenial::EmptyStore => "empty_store",
    }
}

const fn fault_word(fault: GrantFault) -> &'static str {
    match fault {
        GrantFault::Malformed => "grant_malformed",
        GrantFault::OtherBox => "grant_of_another_box",
        GrantFault::OtherStart => "grant_of_another_start",
        GrantFault::Count => "grant_too_large",
        GrantFault::Lifetime => "grant_too_long",
        GrantFault::NotYet => "grant_too_early",
        GrantFault::Expired => "grant_expired",
        GrantFault::Certificate => "grant_certificate",
        GrantFault::Role => "grant_role",
        GrantFault::Signature => "grant_signature",
        GrantFault::Used => "grant_used_before",
        GrantFault::TooMany => "grants_too_many",
    }
}

#[cfg(test)]
mod tests;
