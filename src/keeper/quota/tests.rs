//! What each limit lets through: over minutes, hours, starts, clocks and grants.
//! Trusts: nothing.
//! Touches: memory.
//! Next: nobody.

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
    assert_eq!([takes(&mut quota, READ), takes(&mut quota, Use::Unwrap(UnwrapPurpose::Job)), takes(&mut quota, Use::NewDek)], [3, 3, 3]);
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
