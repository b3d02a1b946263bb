//! Calls that wait, in the order of their jobs. The durable queue is the store's; this is its working copy.
//! Trusts: every entry is durable before it is put here.
//! Touches: nothing.
//! Next: [`super::runner`] takes from it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::hindrance::{self, Hindrance};
use crate::base::ids::CallId;

/// First in, first out, but for calls that were set back; bounded by places that uploads reserve when they begin.
pub(super) struct Queue {
    waiting: Mutex<Waiting>,
    changed: Condvar,
    limit: usize,
}

struct Waiting {
    calls: BTreeMap<u64, CallId>,
    later: BTreeMap<u64, Later>,
    /// How often each job was set back in this life of the daemon: a new one is a new chance.
    setbacks: BTreeMap<u64, u32>,
    reserved: usize,
    stopping: bool,
}

/// A call that was set back.
struct Later {
    call: CallId,
    due: Instant,
    hindrance: Hindrance,
}

impl Waiting {
    fn len(&self) -> usize {
        self.calls.len() + self.later.len()
    }

    /// Puts the calls whose time has come back into their places, and tells when the next one's will.
    fn wake(&mut self, now: Instant) -> Option<Instant> {
        for (job, late) in self.later.extract_if(.., |_, late| late.due <= now) {
            self.calls.insert(job, late.call);
        }
        self.later.values().map(|late| late.due).min()
    }
}

/// A place in the queue, held while an upload comes in; given back on drop.
pub(super) struct Place(Arc<Queue>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.lock().reserved -= 1;
    }
}

impl Queue {
    pub(super) fn new(limit: usize, calls: BTreeMap<u64, CallId>) -> Arc<Self> {
        let waiting = Waiting { calls, later: BTreeMap::new(), setbacks: BTreeMap::new(), reserved: 0, stopping: false };
        Arc::new(Self { waiting: Mutex::new(waiting), changed: Condvar::new(), limit })
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A place for one more call, if there is any.
    pub(super) fn reserve(self: &Arc<Self>) -> Option<Place> {
        let mut waiting = self.lock();
        if waiting.len() + waiting.reserved >= self.limit {
            return None;
        }
        waiting.reserved += 1;
        Some(Place(Arc::clone(self)))
    }

    pub(super) fn push(&self, job: u64, call: CallId) {
        self.lock().calls.insert(job, call);
        // Not one alone: it could be somebody who pauses, and the call would lie until the next comes.
        self.changed.notify_all();
    }

    /// Counts that a call was set back; the number of times.
    pub(super) fn set_back(&self, job: u64) -> u32 {
        let mut waiting = self.lock();
        let times = waiting.setbacks.entry(job).or_default();
        *times = times.saturating_add(1);
        *times
    }

    /// Puts a call back that was [`Self::set_back`]: it comes after a pause that grows with the times, and others pass meanwhile.
    pub(super) fn push_later(&self, job: u64, call: CallId, hindrance: Hindrance, first: Duration) {
        let mut waiting = self.lock();
        let times = waiting.setbacks.get(&job).copied().unwrap_or(1);
        let due = Instant::now() + hindrance::pause(first, times);
        waiting.later.insert(job, Later { call, due, hindrance });
        self.changed.notify_all();
    }

    /// What the calls were set back for that wait for another try.
    pub(super) fn hindrances(&self) -> BTreeSet<Hindrance> {
        self.lock().later.values().map(|late| late.hindrance).collect()
    }

    /// Waits for the oldest call; none when the daemon stops.
    pub(super) fn take(&self) -> Option<(u64, CallId)> {
        let mut waiting = self.lock();
        loop {
            let next = waiting.wake(Instant::now());
            if waiting.stopping {
                return None;
            }
            if let Some(oldest) = waiting.calls.pop_first() {
                return Some(oldest);
            }
            waiting = match next {
                None => self.changed.wait(waiting).unwrap_or_else(PoisonError::into_inner),
                Some(due) => {
                    let left = due.saturating_duration_since(Instant::now());
                    self.changed.wait_timeout(waiting, left).unwrap_or_else(PoisonError::into_inner).0
                }
            };
        }
    }

    /// Forgets a call that has ended.
    pub(super) fn remove(&self, job: u64) {
        let mut waiting = self.lock();
        waiting.calls.remove(&job);
        waiting.later.remove(&job);
        waiting.setbacks.remove(&job);
    }

    pub(super) fn len(&self) -> usize {
        self.lock().len()
    }

    /// Ends all waiting, now and later.
    pub(super) fn stop(&self) {
        self.lock().stopping = true;
        self.changed.notify_all();
    }

    pub(super) fn is_stopping(&self) -> bool {
        self.lock().stopping
    }

    /// Waits for `time` or until the daemon stops.
    pub(super) fn pause(&self, time: Duration) {
        let waiting = self.lock();
        drop(self.changed.wait_timeout_while(waiting, time, |waiting| !waiting.stopping));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(number: u8) -> CallId {
        CallId::from_bytes([number; 16])
    }

    #[test]
    fn a_call_is_taken_at_once_also_while_somebody_pauses() {
        let queue = Queue::new(5, BTreeMap::new());
        std::thread::scope(|scope| {
            for _ in 0..20 {
                scope.spawn(|| queue.pause(Duration::from_secs(600)));
            }
            let taker = scope.spawn(|| queue.take());
            queue.push(1, call(1));
            let deadline = Instant::now() + Duration::from_secs(30);
            while !taker.is_finished() && Instant::now() < deadline {
                std::thread::yield_now();
            }
            queue.stop();
            assert_eq!(taker.join().unwrap(), Some((1, call(1))));
        });
    }

    #[test]
    fn the_oldest_job_comes_first_whatever_the_order_of_arrival() {
        let queue = Queue::new(9, BTreeMap::from([(5, call(5))]));
        queue.push(7, call(7));
        queue.push(3, call(3));
        assert_eq!([queue.take(), queue.take(), queue.take()], [Some((3, call(3))), Some((5, call(5))), Some((7, call(7)))]);
    }

    #[test]
    fn a_call_that_was_set_back_lets_others_pass() {
        let queue = Queue::new(9, BTreeMap::from([(1, call(1)), (2, call(2))]));
        let (job, held_up) = queue.take().unwrap();
        queue.set_back(job);
        queue.push_later(job, held_up, Hindrance::Recording, Duration::from_secs(3600));
        assert_eq!(queue.hindrances(), BTreeSet::from([Hindrance::Recording]));
        assert_eq!([queue.len(), usize::from(queue.take().unwrap().1 == call(2))], [2, 1]);
    }

    #[test]
    fn a_call_that_was_set_back_comes_again_after_its_pause() {
        let queue = Queue::new(9, BTreeMap::from([(1, call(1))]));
        let (job, held_up) = queue.take().unwrap();
        queue.set_back(job);
        queue.push_later(job, held_up, Hindrance::Recording, Duration::from_millis(1));
        assert_eq!((queue.take(), queue.hindrances().len()), (Some((1, call(1))), 0));
        assert_eq!(queue.set_back(1), 2, "the times are kept until it ends");
        queue.remove(1);
        assert_eq!(queue.set_back(1), 1);
    }

    #[test]
    fn uploads_count_against_the_limit_until_they_end() {
        let queue = Queue::new(2, BTreeMap::from([(1, call(1))]));
        let place = queue.reserve();
        assert!(place.is_some() && queue.reserve().is_none());
        drop(place);
        assert!(queue.reserve().is_some());
    }

    #[test]
    fn a_stop_wakes_who_waits_and_keeps_the_calls() {
        let queue = Queue::new(2, BTreeMap::new());
        let waiter = std::thread::spawn({
            let queue = Arc::clone(&queue);
            move || queue.take()
        });
        queue.stop();
        queue.push(1, call(1));
        assert_eq!(waiter.join().unwrap(), None);
        assert_eq!(queue.len(), 1);
    }
}
