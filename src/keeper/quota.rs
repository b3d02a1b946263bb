//! How often each kind of key use may happen, and how often it did.
//! Trusts: the steady clock, which nobody sets.
//! Touches: nothing.
//! Next: `serve` asks before each use.
//!
//! ```text
//! use > all uses of the hour below the ceiling? > minute and hour below their limits: done
//!                                               > else one use of a grant that is left: done
//! ```

use std::time::Duration;

use crate::base::clock::Clock;
use crate::ipc::keeper::{KeeperCounters, UnwrapPurpose};

use super::limits::{COUNTS, Limit, Limits};
use super::window::Window;

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
}

/// Grants of one kind that can be at work at once.
const GRANTS_AT_ONCE: usize = 8;
/// After an incident, uses of the same kind cause no other for so long: one story, one line.
const INCIDENT_PAUSE: Duration = Duration::from_secs(60);

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
}

impl Meter {
    /// A start counts as an hour of work before it but for a minute's: else whoever can make the daemon end gets an hour's worth each time.
    fn new(limit: Limit, now: Duration) -> Self {
        let past = limit.per_hour.saturating_sub(limit.per_minute);
        let hour = || Window::of_an_hour(now).with_past(past);
        Self { limit, minute: Window::of_a_minute(now), hour: hour(), all: hour(), extras: Vec::new(), incident: None }
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

/// The meters and the counters.
pub struct Quota<C> {
    clock: C,
    new_deks: Meter,
    unwraps_job: Meter,
    unwraps_read: Meter,
    tls_signatures: Meter,
    certificates: Meter,
    grants: Meter,
    counters: KeeperCounters,
    issued: u64,
    counts: Meter,
    counted: u64,
}

impl<C: Clock> Quota<C> {
    /// Nothing counted.
    pub fn new(limits: &Limits, clock: C) -> Self {
        let now = clock.steady();
        let meter = |limit| Meter::new(limit, now);
        Self {
            clock,
            new_deks: meter(limits.new),
            unwraps_job: meter(limits.job),
            unwraps_read: meter(limits.read),
            tls_signatures: meter(limits.handshake),
            certificates: meter(limits.certificate),
            grants: meter(limits.grant),
            counts: meter(COUNTS),
            counters: KeeperCounters::default(),
            issued: 0,
            counted: 0,
        }
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
        }
    }

    /// Takes one use of this kind. Tries of the use that fail afterwards are used up too; what is refused here is not.
    ///
    /// # Errors
    /// [`Exceeded`].
    pub fn take(&mut self, kind: Use) -> Result<(), Exceeded> {
        let now = self.clock.steady();
        let taken = self.meter(kind).take(now);
        if let Err(exceeded) = taken {
            self.counters.limited = self.counters.limited.saturating_add(1);
            self.counters.incidents = self.counters.incidents.saturating_add(u64::from(exceeded.fresh));
        }
        taken
    }

    /// Adds uses on top, for `lifetime` from now. False when as many grants are at work as can be.
    pub fn grant(&mut self, purpose: UnwrapPurpose, count: u32, lifetime: Duration) -> bool {
        let now = self.clock.steady();
        let extras = &mut self.meter(Use::Unwrap(purpose)).extras;
        extras.retain(|extra| extra.left > 0 && now < extra.until);
        let room = extras.len() < GRANTS_AT_ONCE;
        if room {
            extras.push(Extra { left: count, until: now.saturating_add(lifetime) });
        }
        room
    }

    /// Counts a use that was done; how many of its kind were.
    pub const fn count_done(&mut self, kind: Use) -> u64 {
        let counter = match kind {
            Use::NewDek => &mut self.counters.new_deks,
            Use::Unwrap(UnwrapPurpose::Job) => &mut self.counters.unwraps_job,
            Use::Unwrap(UnwrapPurpose::Read) => &mut self.counters.unwraps_read,
            Use::SignTls => &mut self.counters.tls_signatures,
            Use::Issue => &mut self.issued,
            Use::Count => &mut self.counted,
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

    #[test]
    fn a_start_gives_a_minutes_worth_and_the_hour_comes_back_bit_by_bit() {
        let mut quota = quota();
        assert_eq!(takes(&mut quota, READ), 3);
        quota.clock().advance(seconds(61));
        assert_eq!(takes(&mut quota, READ), 1);
        let exceeded = quota.take(READ).unwrap_err();
        assert_eq!((exceeded.bound, exceeded.used), (Bound::Hour, 10));
        let mut gained = 0;
        for _ in 0..55 {
            quota.clock().advance(seconds(60));
            gained += takes(&mut quota, READ);
        }
        assert_eq!(gained, 6);
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
        assert!(quota.grant(UnwrapPurpose::Read, 2, seconds(600)));
        assert_eq!((takes(&mut quota, READ), takes(&mut quota, Use::Unwrap(UnwrapPurpose::Job))), (3 + 2, 3));
        assert!(quota.grant(UnwrapPurpose::Read, 2, seconds(5)));
        quota.clock().advance(seconds(5));
        assert_eq!(takes(&mut quota, READ), 0);
    }

    #[test]
    fn no_grant_lifts_the_ceiling() {
        let mut quota = quota();
        for _ in 0..GRANTS_AT_ONCE {
            assert!(quota.grant(UnwrapPurpose::Read, 1000, seconds(3600)));
        }
        assert!(!quota.grant(UnwrapPurpose::Read, 1000, seconds(3600)));
        // The start counts as seven of the fifteen.
        assert_eq!(takes(&mut quota, READ), 8);
        let exceeded = quota.take(READ).unwrap_err();
        assert_eq!((exceeded.bound, exceeded.used), (Bound::Ceiling, 15));
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
