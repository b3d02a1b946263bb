//! How often something happened within the last minute or hour.
//! Trusts: its clock never goes back; one that does all the same stands still.
//! Touches: nothing.
//! Next: `quota` has three for each kind of use, `journal` one for its common lines.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// How many slots ago, and how much was counted there.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Past(pub Vec<(u8, u32)>);

impl Past {
    /// This much more, just now.
    #[must_use]
    pub fn and_now(mut self, uses: u32) -> Self {
        match self.0.first_mut() {
            Some((0, count)) => *count = count.saturating_add(uses),
            _ if uses > 0 => self.0.insert(0, (0, uses)),
            _ => {}
        }
        self
    }
}

/// Slots of a span; one more is kept, because the span reaches into the oldest.
const SPAN: u64 = 60;
const SLOTS: usize = 61;

/// Counts of the last 60 seconds or minutes, one a second or minute. What lies in the oldest slot counts to its end: within any span as
/// long as 60 slots there are never more than what was counted.
#[derive(Debug)]
pub struct Window {
    slot_ms: u64,
    counts: [u32; SLOTS],
    newest: u64,
}

impl Window {
    /// Of the last minute.
    pub fn of_a_minute(now: Duration) -> Self {
        Self::new(1000, now)
    }

    /// Of the last hour.
    pub fn of_an_hour(now: Duration) -> Self {
        Self::new(60_000, now)
    }

    fn new(slot_ms: u64, now: Duration) -> Self {
        let mut window = Self { slot_ms, counts: [0; SLOTS], newest: 0 };
        window.newest = window.slot_of(now);
        window
    }

    /// What is counted, for another start to begin with.
    pub fn past(&mut self, now: Duration) -> Past {
        self.advance(now);
        let counted = (0..=SPAN).map(|back| (back, self.counted_in(self.newest.saturating_sub(back))));
        Past(counted.filter(|(_, count)| *count > 0).filter_map(|(back, count)| Some((u8::try_from(back).ok()?, count))).collect())
    }

    /// Counts what another start had counted up to `at` by the same clock, each in its own slot: nothing gets younger by being handed over.
    /// `at` nothing: by a clock that ended when this one began; what is still in doubt counts.
    pub fn remember(&mut self, past: &Past, at: Option<Duration>, now: Duration) {
        self.advance(now);
        let last = self.slot_of(at.unwrap_or_default());
        for (back, count) in &past.0 {
            let slot = last.saturating_sub(u64::from(at.map_or(back.saturating_sub(1), |_| *back)));
            // A time to come, which cannot be, counts as now.
            if slot.saturating_add(SPAN) >= self.newest {
                self.count_in(slot.min(self.newest), *count);
            }
        }
    }

    /// Counts `uses` as of now.
    pub fn count_many(&mut self, uses: u32, now: Duration) {
        self.advance(now);
        self.count_in(self.newest, uses);
    }

    /// How much was counted within the span that ends now.
    pub fn used(&mut self, now: Duration) -> u32 {
        self.advance(now);
        self.counts.iter().fold(0, |sum, count| sum.saturating_add(*count))
    }

    /// Counts one.
    pub fn count(&mut self, now: Duration) {
        self.advance(now);
        self.count_in(self.newest, 1);
    }

    /// Takes one back that was counted just now.
    pub fn uncount(&mut self) {
        if let Some(count) = self.counts.get_mut(place(self.newest)) {
            *count = count.saturating_sub(1);
        }
    }

    /// How long until fewer than `limit` are counted, when nothing more is.
    pub fn wait(&mut self, limit: u32, now: Duration) -> Duration {
        let used = self.used(now);
        if used < limit {
            return Duration::ZERO;
        }
        let mut left = used;
        for slot in self.newest.saturating_sub(SPAN)..=self.newest {
            left = left.saturating_sub(self.counted_in(slot));
            if left < limit {
                return self.end_of(slot).saturating_sub(now);
            }
        }
        // A limit of nothing.
        self.end_of(self.newest).saturating_sub(now)
    }

    fn advance(&mut self, now: Duration) {
        let slot = self.slot_of(now);
        for back in 0..slot.saturating_sub(self.newest).min(SPAN + 1) {
            if let Some(count) = self.counts.get_mut(place(slot - back)) {
                *count = 0;
            }
        }
        self.newest = self.newest.max(slot);
    }

    fn counted_in(&self, slot: u64) -> u32 {
        self.counts.get(place(slot)).copied().unwrap_or_default()
    }

    fn count_in(&mut self, slot: u64, uses: u32) {
        if let Some(count) = self.counts.get_mut(place(slot)) {
            *count = count.saturating_add(uses);
        }
    }

    /// Numbered so that there are slots before the first moment.
    fn slot_of(&self, now: Duration) -> u64 {
        u64::try_from(now.as_millis()).unwrap_or(u64::MAX) / self.slot_ms + SPAN + 1
    }

    /// When a slot counts no more.
    const fn end_of(&self, slot: u64) -> Duration {
        Duration::from_millis(slot.saturating_mul(self.slot_ms))
    }
}

fn place(slot: u64) -> usize {
    usize::try_from(slot % (SPAN + 1)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn a_use_counts_for_a_whole_minute_and_is_gone_a_second_later() {
        let mut window = Window::of_a_minute(at(100));
        window.count(at(100));
        for (second, counted) in [(100, 1), (159, 1), (160, 1), (161, 0)] {
            assert_eq!(window.used(at(second)), counted, "{second}");
        }
    }

    #[test]
    fn the_wait_is_exact() {
        let mut window = Window::of_a_minute(at(0));
        window.count(at(0));
        window.count(at(10));
        assert_eq!([window.wait(3, at(10)), window.wait(2, at(10)), window.wait(1, at(10))], [at(0), at(51), at(61)]);
        assert_eq!((window.wait(2, at(60)), window.wait(2, at(61))), (at(1), at(0)));
        assert_eq!(window.wait(0, at(500)), at(61), "nothing is never allowed");
    }

    #[test]
    fn a_clock_that_goes_back_stands_still() {
        let mut window = Window::of_an_hour(at(10_000));
        window.count(at(10_000));
        window.count(at(5));
        assert_eq!((window.used(at(5)), window.used(at(10_000)), window.used(at(13_660))), (2, 2, 0));
    }

    #[test]
    fn a_past_counts_for_an_hour_by_the_same_clock_and_until_it_is_surely_so_old_by_another() {
        let mut before = Window::of_an_hour(at(0));
        before.count(at(0));
        before.count(at(1800));
        let past = before.past(at(1859));
        assert_eq!(past.clone().and_now(5), Past(vec![(0, 6), (30, 1)]));
        let counted = |ended: Option<u64>, now: u64| {
            let mut window = Window::of_an_hour(at(0));
            window.remember(&past, ended.map(at), at(now));
            window.used(at(now))
        };
        for (now, used) in [(1859, 2), (3659, 2), (3660, 1), (5459, 1), (5460, 0)] {
            assert_eq!(counted(Some(1859), now), used, "{now}");
        }
        for (now, used) in [(0, 2), (1919, 2), (1920, 1), (3659, 1), (3660, 0)] {
            assert_eq!(counted(None, now), used, "{now}");
        }
        assert_eq!(counted(Some(9000), 60), 2, "a time to come");
    }

    proptest! {
        #[test]
        fn no_span_holds_more_than_was_allowed(limit in 1_u32..50, steps in prop::collection::vec(0_u64..4_000, 1..400)) {
            let (mut window, mut now, mut taken) = (Window::of_a_minute(at(7)), 7_000, Vec::new());
            for step in steps {
                now += step;
                let moment = Duration::from_millis(now);
                let wait = window.wait(limit, moment);
                prop_assert_eq!(wait.is_zero(), window.used(moment) < limit);
                if wait.is_zero() {
                    window.count(moment);
                    taken.push(now);
                } else {
                    prop_assert!(window.used(moment + wait) < limit);
                    now += u64::try_from(wait.as_millis()).unwrap();
                }
            }
            for (first, from) in taken.iter().enumerate() {
                let within = taken[first..].iter().filter(|at| **at <= from + 60_000).count();
                prop_assert!(within <= limit as usize);
            }
        }
    }
}
