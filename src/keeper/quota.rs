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
mod tests {
    use super::*;
    use crate::base::clock::{ManualClock, Timestamp};

    const READ: Use = Use::Unwrap(UnwrapPurpose::Read);
    const LIMIT: Limit = Limit { per_minute: 3, per_hour: 10, ceiling_per_hour: 15 };

    const fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn quota() -> Quota<ManualClock> {
        let limits = Limits { new: LIMIT, job: LIMIT, read: LIMIT, ..Limits::default() };
        Quota::new(&limits, ManualClock::at(Timestamp::from_unix_millis(1_700_000_000_000)))
    }

    /// How many of `kind` are allowed now.
    fn takes(quota: &mut Quota<ManualClock>, kind: Use) -> u32 {
        (0..100).take_while(|_| quota.take(kind).is_ok()).fold(0, |count, _| count + 1)
    }

    #[test]
    fn each_kind_of_use_has_its_own_limit() {
        let mut quota = quota();
        assert_eq!(
            [takes(&mut quota, READ), takes(&mut quota, Use::Unwrap(UnwrapPurpose::Job)), takes(&mut quota, Use::NewDek)],
            [3, 3, 3]
        );
    }

    #[test]
    fn a_spent_minute_comes_back_a_minute_after_each_use() {
        let mut quota = quota();
        assert_eq!(takes(&mut quota, READ), 3);
        let exceeded = quota.take(READ).unwrap_err();
        assert_eq!((exceeded.bound, exceeded.wait <= seconds(61), exceeded.wait >= seconds(60)), (Bound::Minute, true, true));
        quota.clock().advance(seconds(59));
        assert_eq!(takes(&mut quota, READ), 0);
        quota.clock().advance(seconds(2));
        assert!(quota.take(READ).is_ok());
    }

    /// A start right behind this one, by what was put down.
    fn started_again(put_down: Vec<Used>, since: Duration) -> Quota<ManualClock> {
        let mut next = quota();
        next.remember(&Before::Used(Some(seconds(0)), put_down), since);
        next
    }

    /// Reads of the last hour.
    fn hours(quota: &mut Quota<ManualClock>) -> u32 {
        let now = quota.now();
        quota.meter(READ).all.used(now)
    }

    #[test]
    fn what_was_used_is_free_after_an_hour_however_often_the_keeper_is_started() {
        for life in [5, 59, 61, 150] {
            let mut at = seconds(100_030);
            let mut start = started_again(Vec::new(), at);
            assert_eq!(takes(&mut start, READ), 3);
            let free = seconds(100_020 + 3660);
            while at < free {
                assert_eq!(hours(&mut start), 3, "{life} {at:?}");
                start.clock().advance(seconds(life));
                at += seconds(life);
                let put_down = start.used_in_the_end();
                start = quota();
                start.remember(&Before::Used(Some(at), put_down), at + seconds(1));
                at += seconds(1);
            }
            assert_eq!(hours(&mut start), 0, "{life}");
        }
    }

    #[test]
    fn a_start_every_three_minutes_never_meets_the_limit_of_twenty_four_an_hour() {
        let (mut at, mut put_down) = (seconds(50), Vec::new());
        for start in 0..60 {
            let mut quota = Quota::new(&Limits::default(), ManualClock::at(Timestamp::from_unix_millis(0)));
            quota.remember(&Before::Used(Some(at), put_down), at);
            assert!(quota.take(Use::Count).is_ok(), "{start}");
            quota.clock().advance(seconds(180));
            at += seconds(180);
            put_down = quota.used_in_the_end();
        }
    }

    #[test]
    fn what_was_used_counts_after_a_start_too_and_a_kill_gives_nothing_back() {
        let mut killed = quota();
        let mut put_down = Vec::new();
        for _ in 0..3 {
            killed.take(READ).unwrap();
            put_down = killed.must_put_down(READ).unwrap_or(put_down);
        }
        let mut next = started_again(put_down, seconds(0));
        assert_eq!(takes(&mut next, READ), 3);
        next.clock().advance(seconds(61));
        assert_eq!(takes(&mut next, READ), 3);
        next.clock().advance(seconds(61));
        assert_eq!(takes(&mut next, READ), 1, "ten an hour, over both starts");
        let exceeded = next.take(READ).unwrap_err();
        assert_eq!((exceeded.bound, exceeded.used), (Bound::Hour, 10));
        assert_eq!(takes(&mut started_again(next.used_in_the_end(), seconds(0)), READ), 0);
        assert_eq!(takes(&mut started_again(next.used_in_the_end(), seconds(3700)), READ), 3);
    }

    #[test]
    fn a_hundred_starts_in_an_hour_open_no_more_than_one() {
        let (mut put_down, mut opened) = (Vec::new(), 0);
        for _ in 0..100 {
            let mut start = started_again(put_down.clone(), seconds(10));
            while start.take(READ).is_ok() {
                put_down = start.must_put_down(READ).unwrap_or(put_down);
                opened += 1;
            }
        }
        assert_eq!(opened, 10);
    }

    #[test]
    fn what_nobody_can_read_any_more_counts_as_a_full_hour() {
        let mut quota = Quota::new(&Limits::default(), ManualClock::at(Timestamp::from_unix_millis(0)));
        quota.remember(&Before::Lost, seconds(0));
        assert_eq!((takes(&mut quota, READ), takes(&mut quota, Use::Count), takes(&mut quota, Use::Begin)), (100, 2, 1));
        quota.clock().advance(seconds(3661));
        assert_eq!(takes(&mut quota, READ), 100);
    }

    #[test]
    fn a_use_is_put_down_before_it_and_with_it_some_more_for_the_minute_only() {
        let wide = Limit { per_minute: 80, per_hour: 800, ceiling_per_hour: 800 };
        let mut quota = Quota::new(&Limits { read: wide, ..Limits::default() }, ManualClock::at(Timestamp::from_unix_millis(0)));
        let puts_down = |quota: &mut Quota<ManualClock>| {
            quota.take(READ).unwrap();
            quota.must_put_down(READ).map(|used| used[1].all.clone())
        };
        assert_eq!(puts_down(&mut quota), Some(Past(vec![(0, 10)])));
        assert!((0..9).all(|_| puts_down(&mut quota).is_none()));
        assert_eq!(puts_down(&mut quota), Some(Past(vec![(0, 20)])));
        quota.clock().advance(seconds(60));
        assert_eq!(puts_down(&mut quota), Some(Past(vec![(0, 10), (1, 11)])));
        assert_eq!(quota.used_in_the_end()[1].all, Past(vec![(0, 1), (1, 11)]));
    }

    #[test]
    fn a_clock_set_back_or_forward_gives_nothing() {
        let mut quota = quota();
        assert_eq!(takes(&mut quota, READ), 3);
        for wall in [0, u64::MAX / 2, 1_700_000_000_000] {
            quota.clock().set_wall(Timestamp::from_unix_millis(wall));
            assert_eq!(takes(&mut quota, READ), 0, "{wall}");
        }
    }

    #[test]
    fn a_grant_is_used_after_the_ordinary_and_ends_by_number_and_by_time() {
        let mut quota = quota();
        quota.grant(UnwrapPurpose::Read, 2, seconds(600));
        assert_eq!((takes(&mut quota, READ), takes(&mut quota, Use::Unwrap(UnwrapPurpose::Job))), (3 + 2, 3));
        quota.grant(UnwrapPurpose::Read, 2, seconds(5));
        quota.clock().advance(seconds(5));
        assert_eq!(takes(&mut quota, READ), 0);
    }

    #[test]
    fn no_grant_lifts_the_ceiling() {
        let mut quota = quota();
        for _ in 0..GRANTS_AT_ONCE {
            assert!(quota.has_room(UnwrapPurpose::Read));
            quota.grant(UnwrapPurpose::Read, 1000, seconds(3600));
        }
        assert!(!quota.has_room(UnwrapPurpose::Read));
        assert_eq!(takes(&mut quota, READ), 15);
        let exceeded = quota.take(READ).unwrap_err();
        assert_eq!((exceeded.bound, exceeded.used), (Bound::Ceiling, 15));
    }

    #[test]
    fn both_purposes_together_open_no_more_than_one_ceiling() {
        let mut quota = quota();
        for purpose in [UnwrapPurpose::Read, UnwrapPurpose::Job] {
            quota.grant(purpose, 1000, seconds(3600));
        }
        assert_eq!((takes(&mut quota, Use::Unwrap(UnwrapPurpose::Job)), takes(&mut quota, READ)), (15, 0));
        let exceeded = quota.take(READ).unwrap_err();
        assert_eq!((exceeded.bound, exceeded.wait > seconds(3500)), (Bound::Ceiling, true));
        quota.clock().advance(seconds(3661));
        assert!(quota.take(READ).is_ok());
    }

    #[test]
    fn who_stays_just_below_the_limit_is_an_incident_each_hour() {
        let mut quota = quota();
        let mut incidents = 0;
        // Nine in any hour, where ten are allowed.
        for _ in 0..9 * 5 {
            quota.take(READ).unwrap();
            incidents += usize::from(quota.passed_half(READ).is_some());
            quota.clock().advance(seconds(410));
        }
        assert_eq!((incidents, quota.counters().limited), (5, 0));
        assert_eq!(quota.counters().incidents, 5);
    }

    #[test]
    fn a_flood_is_one_incident_a_minute() {
        let mut quota = quota();
        takes(&mut quota, READ);
        for _ in 0..1000 {
            assert!(quota.take(READ).is_err());
        }
        assert_eq!((quota.counters().incidents, quota.counters().limited), (1, 1001));
        quota.clock().advance(seconds(60));
        assert!(quota.take(READ).is_err_and(|exceeded| exceeded.fresh));
    }

    #[test]
    fn a_limit_of_nothing_allows_nothing() {
        let mut meter = Meter::new(Limit::common(0), seconds(0));
        assert!(meter.take(seconds(1_000_000)).is_err());
    }
}
