//! Token buckets: how often one key may pass, with what is left and how long to wait.
//! Trusts: the key was made by us (an identity, never a stranger's text).
//! Touches: the monotonic clock, through governor.
//! Next: `api` turns a refusal into 429.

use std::hash::Hash;
use std::num::NonZeroU32;
use std::time::Duration;

use governor::clock::{Clock, DefaultClock, Reference};
use governor::middleware::StateInformationMiddleware;
use governor::state::keyed::HashMapStateStore;
use governor::{Quota, RateLimiter};

/// Keys that are remembered at most; more than that are forgotten once their bucket is full again.
const KEYS_MAX: usize = 10_000;

/// One bucket for each key.
pub struct Buckets<K: Hash + Eq + Clone, C: Clock = DefaultClock> {
    limiter: RateLimiter<K, HashMapStateStore<K>, C, StateInformationMiddleware>,
    clock: C,
    per_minute: NonZeroU32,
}

/// What a bucket says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Allowance {
    /// Requests a minute, which is also the largest burst.
    pub per_minute: u32,
    /// Requests that may follow at once.
    pub remaining: u32,
    /// How long to wait, when this one may not pass.
    pub wait: Option<Duration>,
}

impl<K: Hash + Eq + Clone> Buckets<K> {
    /// `per_minute` requests a minute, all of them at once when a minute was quiet.
    pub fn new(per_minute: NonZeroU32) -> Self {
        Self::with_clock(per_minute, DefaultClock::default())
    }
}

impl<K: Hash + Eq + Clone, C: Clock + Clone> Buckets<K, C> {
    /// As [`Buckets::new`], on another clock.
    pub fn with_clock(per_minute: NonZeroU32, clock: C) -> Self {
        let limiter = RateLimiter::new(Quota::per_minute(per_minute), HashMapStateStore::default(), clock.clone());
        Self { limiter, clock, per_minute }
    }

    /// Takes one token of `key`.
    pub fn take(&self, key: &K) -> Allowance {
        if self.limiter.len() >= KEYS_MAX {
            self.limiter.retain_recent();
        }
        let per_minute = self.per_minute.get();
        match self.limiter.check_key(key) {
            Ok(state) => Allowance { per_minute, remaining: state.remaining_burst_capacity(), wait: None },
            Err(not_until) => {
                let wait = not_until.earliest_possible().duration_since(self.clock.now());
                Allowance { per_minute, remaining: 0, wait: Some(wait.into()) }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use governor::clock::FakeRelativeClock;

    use super::*;

    #[test]
    fn the_request_after_the_last_token_waits_and_then_passes() {
        let clock = FakeRelativeClock::default();
        let buckets = Buckets::with_clock(NonZeroU32::new(2).unwrap(), clock.clone());
        let taken = [buckets.take(&"asha"), buckets.take(&"asha"), buckets.take(&"asha")];
        assert_eq!(taken.map(|allowance| allowance.remaining), [1, 0, 0]);
        assert_eq!(taken[2].wait, Some(Duration::from_secs(30)));
        clock.advance(Duration::from_secs(30));
        assert_eq!(buckets.take(&"asha").wait, None);
    }

    #[test]
    fn one_key_does_not_spend_the_tokens_of_another() {
        let buckets = Buckets::with_clock(NonZeroU32::MIN, FakeRelativeClock::default());
        assert_eq!(buckets.take(&"asha").wait, None);
        assert_eq!(buckets.take(&"juma").wait, None);
    }

    #[test]
    fn full_buckets_are_forgotten_when_the_table_is_full() {
        let clock = FakeRelativeClock::default();
        let buckets = Buckets::with_clock(NonZeroU32::MIN, clock.clone());
        for key in 0..KEYS_MAX {
            buckets.take(&key);
        }
        clock.advance(Duration::from_secs(120));
        buckets.take(&KEYS_MAX);
        assert!(buckets.limiter.len() < KEYS_MAX);
    }
}
