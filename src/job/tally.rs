//! How many calls there are in each state, how children ended, how fast calls were: kept by counting, so that reading it costs nothing.
//! Trusts: [`super::desk`], which tells it of every durable change.
//! Touches: memory.
//! Next: `lifecycle::vitals` shows it in `/metrics`.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::spec::CallState;
use crate::ipc::worker::ChildExit;

/// Upper bounds of the real-time factor's buckets: 1 is as long as the recording.
const FACTOR_BOUNDS: [f64; 9] = [0.1, 0.2, 0.3, 0.5, 0.75, 1.0, 1.5, 2.0, 4.0];

/// The counts at one moment.
#[derive(Clone, Debug, PartialEq)]
pub struct Counts {
    /// Calls in the store, for each state.
    pub calls: Vec<(CallState, u64)>,
    /// How children ended since the start; kinds that never happened are left out.
    pub exits: Vec<(ChildExit, u64)>,
    /// Wall time of a finished call divided by its length, since the start.
    pub real_time_factor: Distribution,
}

/// Counted observations.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Distribution {
    /// Upper bounds, rising, each with the observations at or below it and above the bound before.
    pub buckets: Vec<(f64, u64)>,
    /// Sum of the observations.
    pub sum: f64,
    /// Number of the observations.
    pub count: u64,
}

/// Keeps the counts.
pub(super) struct Tally {
    counts: Mutex<Counts>,
}

impl Default for Tally {
    fn default() -> Self {
        let states = [CallState::Queued, CallState::Running, CallState::Done, CallState::Failed, CallState::Cancelled];
        let real_time_factor = Distribution { buckets: FACTOR_BOUNDS.map(|bound| (bound, 0)).into(), ..Distribution::default() };
        let counts = Counts { calls: states.map(|state| (state, 0)).into(), exits: Vec::new(), real_time_factor };
        Self { counts: Mutex::new(counts) }
    }
}

impl Tally {
    /// The counts now.
    pub(super) fn read(&self) -> Counts {
        self.lock().clone()
    }

    /// A call has come.
    pub(super) fn came(&self, state: CallState) {
        count(&mut self.lock().calls, state, |calls| calls.saturating_add(1));
    }

    /// A call was erased.
    pub(super) fn left(&self, state: CallState) {
        count(&mut self.lock().calls, state, |calls| calls.saturating_sub(1));
    }

    /// A call changed its state.
    pub(super) fn moved(&self, from: CallState, to: CallState) {
        let mut counts = self.lock();
        count(&mut counts.calls, from, |calls| calls.saturating_sub(1));
        count(&mut counts.calls, to, |calls| calls.saturating_add(1));
    }

    /// A child ended.
    pub(super) fn ended(&self, exit: ChildExit) {
        count(&mut self.lock().exits, exit, |exits| exits.saturating_add(1));
    }

    /// A call is done. A recording without sound has no factor.
    pub(super) fn done(&self, audio_ms: u64, wall_ms: u64) {
        if audio_ms == 0 {
            return;
        }
        let factor = Duration::from_millis(wall_ms).div_duration_f64(Duration::from_millis(audio_ms));
        let mut counts = self.lock();
        let factors = &mut counts.real_time_factor;
        if let Some((_, within)) = factors.buckets.iter_mut().find(|(bound, _)| factor <= *bound) {
            *within = within.saturating_add(1);
        }
        factors.sum += factor;
        factors.count = factors.count.saturating_add(1);
    }

    fn lock(&self) -> MutexGuard<'_, Counts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn count<K: PartialEq>(counts: &mut Vec<(K, u64)>, of: K, change: impl FnOnce(u64) -> u64) {
    match counts.iter_mut().find(|(known, _)| *known == of) {
        Some((_, number)) => *number = change(*number),
        None => counts.push((of, change(0))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_factor_is_counted_in_the_first_bucket_that_holds_it() {
        let tally = Tally::default();

        for (audio_ms, wall_ms) in [(1000, 100), (1000, 250), (1000, 9000), (0, 5)] {
            tally.done(audio_ms, wall_ms);
        }

        let factors = tally.read().real_time_factor;
        assert_eq!(factors.buckets[..3], [(0.1, 1), (0.2, 0), (0.3, 1)]);
        assert_eq!(factors.buckets.iter().map(|(_, count)| count).sum::<u64>(), 2);
        assert_eq!(factors.count, 3);
        assert!((factors.sum - 9.35).abs() < 1e-9, "{}", factors.sum);
    }
}
