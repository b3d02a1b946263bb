//! How often each kind of key use may happen, and how often it did.
//! Trusts: the steady clock, which nobody sets; what the ledger says of the start before.
//! Touches: nothing.
//! Next: `serve` asks before each use, and has the ledger put down what will be used before it is.
//!
//! ```text
//! use > all uses of the hour below the ceiling? > minute and hour below their limits: done
//!                                               > else one use of a grant that is left: done
//! ```

use std::time::Duration;

use crate::base::clock::Clock;
use crate::ipc::keeper::{KeeperCounters, UnwrapPurpose};

use super::ledger::{Before, Used};
use super::limits::{Limit, Limits};
use super::window::{Past, Window};

/// A kind of use that is limited and counted apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Use {
    /// Making a DEK.
    NewDek,
    /// Opening a DEK.
    Unwrap(UnwrapPurpose),
    /// Signing a TLS handshake.
    SignTls,
    /// Issuing a client's certificate.
    Issue,
    /// Counting up in the TPM.
    Count,
    /// Looking at a grant.
    Grant,
    /// Beginning a move of the erasure epoch.
    Begin,
    /// Signing that a call is erased.
    Certify,
    /// Wrapping keys for the next epoch.
    Rewrap,
    /// What else is asked about the epoch.
    Settle,
    /// Trying whether a DEK would open.
    Verify,
}

/// What the next start remembers, each with its number in the ledger: calls that were opened, and what wears the TPM. The rest opens nothing.
const LASTING: [(u8, Use); 4] =
    [(1, Use::Unwrap(UnwrapPurpose::Job)), (2, Use::Unwrap(UnwrapPurpose::Read)), (3, Use::Count), (4, Use::Begin)];
/// Calls that are put down at once, before the first of them: a part of the minute's, and no more than so many. A start that is killed loses at
/// most these.
const PUT_DOWN_PART: u32 = 8;
const PUT_DOWN_MAX: u32 = 10;

/// Grants of one kind that can be at work at once.
const GRANTS_AT_ONCE: usize = 8;
/// After an incident, uses of the same kind cause no other for so long: one story, one line.
const INCIDENT_PAUSE: Duration = Duration::from_secs(60);

/// The same for uses that are allowed and more than an office has.
const HALF_PAUSE: Duration = Duration::from_hours(1);

/// Which limit was met.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bound {
    /// The minute's.
    Minute,
    /// The hour's.
    Hour,
    /// What no grant lifts.
    Ceiling,
}

/// A use that is not allowed now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exceeded {
    /// Which limit.
    pub bound: Bound,
    /// Until when, if nothing more is asked.
    pub wait: Duration,
    /// Uses within the hour, grants included.
    pub used: u32,
    /// There was none of this kind within the last minute: worth an incident.
    pub fresh: bool,
}

/// Uses that somebody granted on top.
#[derive(Debug)]
struct Extra {
    left: u32,
    until: Duration,
}

/// One kind's limit and what was used of it.
#[derive(Debug)]
struct Meter {
    limit: Limit,
    minute: Window,
    hour: Window,
    all: Window,
    extras: Vec<Extra>,
    incident: Option<Duration>,
    half: Option<Duration>,
    /// Put down already, but not used; good for the minute in which they were.
    ahead: u32,
    ahead_in: u64,
}

impl Meter {
    fn new(limit: Limit, now: Duration) -> Self {
        let hour = || Window::of_an_hour(now);
        let (minute, ahead_in) = (Window::of_a_minute(now), minute_of(now));
        Self { limit, minute, hour: hour(), all: hour(), extras: Vec::new(), incident: None, half: None, ahead: 0, ahead_in }
    }

    /// Nobody knows what was used, so all of it was but for a little, by which an honest box comes up.
    fn fill(&mut self, now: Duration) {
        let used = self.limit.per_hour.saturating_sub((self.limit.per_hour / 12).max(1));
        self.hour.count_many(used, now);
        self.all.count_many(used, now);
    }

    /// Whether the use that was just counted must be put down first.
    fn goes_ahead(&mut self, several: bool, now: Duration) -> bool {
        let most = (self.limit.per_minute / PUT_DOWN_PART).min(PUT_DOWN_MAX);
        let more = if several { most.saturating_sub(1) } else { 0 };
        let put_down = self.ahead > 0 && self.ahead_in == minute_of(now);
        self.ahead = if put_down { self.ahead.saturating_sub(1) } else { more };
        self.ahead_in = minute_of(now);
        !put_down
    }

    /// Nothing is put down that was not used.
    const fn none_ahead(&mut self) {
        self.ahead = 0;
    }

    fn past(&mut self, now: Duration) -> (Past, Past) {
        let ahead = if self.ahead_in == minute_of(now) { self.ahead } else { 0 };
        (self.hour.past(now).and_now(ahead), self.all.past(now).and_now(ahead))
    }

    fn take(&mut self, now: Duration) -> Result<(), Exceeded> {
        let Limit { per_minute, per_hour, ceiling_per_hour } = self.limit;
        let ceiling = self.all.wait(ceiling_per_hour, now);
        let (minute, hour) = (self.minute.wait(per_minute, now), self.hour.wait(per_hour, now));
        if ceiling.is_zero() && minute.is_zero() && hour.is_zero() {
            self.minute.count(now);
            self.hour.count(now);
        } else if !ceiling.is_zero() || !self.take_extra(now) {
            // Where no grant reaches, the ceiling is the hour's limit.
            let bound = match ceiling_per_hour > per_hour && !ceiling.is_zero() {
                true => Bound::Ceiling,
                false if hour > minute => Bound::Hour,
                false => Bound::Minute,
            };
            return Err(self.exceeded(bound, ceiling.max(hour).max(minute), now));
        }
        self.all.count(now);
        Ok(())
    }

    /// Of the grant that ends first.
    fn take_extra(&mut self, now: Duration) -> bool {
        self.extras.retain(|extra| extra.left > 0 && now < extra.until);
        let first = self.extras.iter_mut().min_by_key(|extra| extra.until);
        first.is_some_and(|extra| {
            extra.left -= 1;
            true
        })
    }

    fn exceeded(&mut self, bound: Bound, wait: Duration, now: Duration) -> Exceeded {
        let fresh = self.incident.is_none_or(|before| now.saturating_sub(before) >= INCIDENT_PAUSE);
        if fresh {
            self.incident = Some(now);
        }
        Exceeded { bound, wait, used: self.all.used(now), fresh }
    }
}

const fn minute_of(now: Duration) -> u64 {
    now.as_secs() / 60
}

/// The meters and the counters.
pub struct Quota<C> {
    clock: C,
    /// What lies between the machine's start and the clock's zero, where uses are handed over from start to start.
    ahead: Duration,
    new_deks: Meter,
    unwraps_job: Meter,
    unwraps_read: Meter,
    tls_signatures: Meter,
    certificates: Meter,
    grants: Meter,
    counters: KeeperCounters,
    issued: u64,
    counts: Meter,
    begins: Meter,
    certified: Meter,
    rewrapped: Meter,
    settled: Meter,
    verified: Meter,
    /// Of kinds that the core is told no number of.
    untold: u64,
}

impl<C: Clock> Quota<C> {
    /// Nothing counted.
    pub fn new(limits: &Limits, clock: C) -> Self {
        let now = clock.steady();
        let meter = |limit| Meter::new(limit, now);
        Self {
            clock,
            ahead: Duration::ZERO,
            new_deks: meter(limits.new),
            unwraps_job: meter(limits.job),
            unwraps_read: meter(limits.read),
            tls_signatures: meter(limits.handshake),
            certificates: meter(limits.certificate),
            grants: meter(limits.grant),
            counts: meter(limits.start),
            begins: meter(limits.erasure),
            certified: meter(limits.certify),
            rewrapped: meter(limits.rewrap),
            settled: meter(limits.settle),
            verified: meter(limits.verify),
            counters: KeeperCounters::default(),
            issued: 0,
            untold: 0,
        }
    }

    /// Counts what was used before this start. `ahead` lies between the machine's start and the clock's zero: all starts count by the
    /// machine's time, so that what they hand over stays as old as it is.
    pub fn remember(&mut self, before: &Before, ahead: Duration) {
        self.ahead = ahead;
        let now = self.now();
        for (number, kind) in LASTING {
            let meter = self.meter(kind);
            match before {
                Before::Lost => meter.fill(now),
                Before::Used(at, all) => {
                    for Used { hour, all, .. } in all.iter().filter(|used| used.kind == number) {
                        meter.hour.remember(hour, *at, now);
                        meter.all.remember(all, *at, now);
                    }
                }
            }
        }
    }

    /// A use that was taken just now did not come about, and harmed nothing.
    pub fn give_back(&mut self, kind: Use) {
        let meter = self.meter(kind);
        for window in [&mut meter.minute, &mut meter.hour, &mut meter.all] {
            window.uncount();
        }
    }

    /// What is to be put down before the use that was just taken; nothing when it was put down with another.
    pub fn must_put_down(&mut self, kind: Use) -> Option<Vec<Used>> {
        let now = self.now();
        let lasts = LASTING.iter().any(|(_, lasting)| *lasting == kind);
        (lasts && self.meter(kind).goes_ahead(matches!(kind, Use::Unwrap(_)), now)).then(|| self.used())
    }

    /// It could not be put down: the next try begins anew.
    pub const fn not_put_down(&mut self, kind: Use) {
        self.meter(kind).none_ahead();
    }

    /// What was used and nothing more, for an end in order.
    pub fn used_in_the_end(&mut self) -> Vec<Used> {
        LASTING.iter().for_each(|(_, kind)| self.meter(*kind).none_ahead());
        self.used()
    }

    fn used(&mut self) -> Vec<Used> {
        let now = self.now();
        let one = |(number, kind): &(u8, Use)| {
            let (hour, all) = self.meter(*kind).past(now);
            Used { kind: *number, hour, all }
        };
        LASTING.iter().map(one).collect()
    }

    /// By which uses are counted.
    fn now(&self) -> Duration {
        self.ahead.saturating_add(self.clock.steady())
    }

    /// The clock that it was made with.
    pub const fn clock(&self) -> &C {
        &self.clock
    }

    const fn meter(&mut self, kind: Use) -> &mut Meter {
        match kind {
            Use::NewDek => &mut self.new_deks,
            Use::Unwrap(UnwrapPurpose::Job) => &mut self.unwraps_job,
            Use::Unwrap(UnwrapPurpose::Read) => &mut self.unwraps_read,
            Use::SignTls => &mut self.tls_signatures,
            Use::Issue => &mut self.certificates,
            Use::Grant => &mut self.grants,
            Use::Count => &mut self.counts,
            Use::Begin => &mut self.begins,
            Use::Certify => &mut self.certified,
            Use::Rewrap => &mut self.rewrapped,
            Use::Settle => &mut self.settled,
            Use::Verify => &mut self.verified,
        }
    }

    /// Takes one use of this kind. Tries of the use that fail afterwards are used up too; what is refused here is not.
    ///
    /// # Errors
    /// [`Exceeded`].
    pub fn take(&mut self, kind: Use) -> Result<(), Exceeded> {
        let now = self.now();
        let taken = self.both(kind, now).and_then(|()| self.meter(kind).take(now));
        if let Err(exceeded) = taken {
            self.counters.limited = self.counters.limited.saturating_add(1);
            self.counters.incidents = self.counters.incidents.saturating_add(u64::from(exceeded.fresh));
        }
        taken
    }

    /// Whether one more grant can be at work.
    pub fn has_room(&mut self, purpose: UnwrapPurpose) -> bool {
        let now = self.now();
        let extras = &mut self.meter(Use::Unwrap(purpose)).extras;
        extras.retain(|extra| extra.left > 0 && now < extra.until);
        extras.len() < GRANTS_AT_ONCE
    }

    /// Adds uses on top, for `lifetime` from now, where there is room.
    pub fn grant(&mut self, purpose: UnwrapPurpose, count: u32, lifetime: Duration) {
        let until = self.now().saturating_add(lifetime);
        if self.has_room(purpose) {
            self.meter(Use::Unwrap(purpose)).extras.push(Extra { left: count, until });
        }
    }

    /// The use that was just taken is the first past half of the hour's limit: more than an office has at its peak, though all of it is
    /// allowed. How much was used within the hour; once an hour.
    pub fn passed_half(&mut self, kind: Use) -> Option<u32> {
        let now = self.now();
        let Use::Unwrap(_) = kind else { return None };
        let meter = self.meter(kind);
        let used = meter.all.used(now);
        let told = meter.half.is_some_and(|before| now.saturating_sub(before) < HALF_PAUSE);
        if told || used <= meter.limit.per_hour / 2 {
            return None;
        }
        meter.half = Some(now);
        self.count_incident();
        Some(used)
    }

    /// Calls that may be opened within an hour for both purposes together, with all grants: the core names the purpose, so to have two
    /// gives it nothing.
    fn both(&mut self, kind: Use, now: Duration) -> Result<(), Exceeded> {
        let Use::Unwrap(purpose) = kind else { return Ok(()) };
        let other = match purpose {
            UnwrapPurpose::Job => UnwrapPurpose::Read,
            UnwrapPurpose::Read => UnwrapPurpose::Job,
        };
        let other = self.meter(Use::Unwrap(other));
        let (others, ceiling) = (other.all.used(now), other.limit.ceiling_per_hour);
        let meter = self.meter(kind);
        let left = ceiling.max(meter.limit.ceiling_per_hour).saturating_sub(others);
        let wait = meter.all.wait(left, now);
        if wait.is_zero() { Ok(()) } else { Err(meter.exceeded(Bound::Ceiling, wait, now)) }
    }

    /// Counts a use that was done; how many of its kind were.
    pub const fn count_done(&mut self, kind: Use) -> u64 {
        let counter = match kind {
            Use::NewDek => &mut self.counters.new_deks,
            Use::Unwrap(UnwrapPurpose::Job) => &mut self.counters.unwraps_job,
            Use::Unwrap(UnwrapPurpose::Read) => &mut self.counters.unwraps_read,
            Use::SignTls => &mut self.counters.tls_signatures,
            Use::Issue => &mut self.issued,
            Use::Count | Use::Begin | Use::Certify | Use::Rewrap | Use::Settle | Use::Verify => &mut self.untold,
            Use::Grant => &mut self.counters.grants,
        };
        *counter = counter.saturating_add(1);
        *counter
    }

    /// Counts a refusal; how many there were.
    pub const fn count_denied(&mut self) -> u64 {
        self.counters.denied = self.counters.denied.saturating_add(1);
        self.counters.denied
    }

    /// Counts an incident that no limit caused.
    pub const fn count_incident(&mut self) {
        self.counters.incidents = self.counters.incidents.saturating_add(1);
    }

    /// What was counted.
    pub const fn counters(&self) -> KeeperCounters {
        self.counters
    }
}

#[cfg(test)]
mod tests;
