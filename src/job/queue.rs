//! Calls that wait, in the order of their jobs. The durable queue is the store's; this is its working copy.
//! Trusts: every entry is durable before it is put here.
//! Touches: nothing.
//! Next: [`super::runner`] takes from it.

use std::collections::BTreeMap;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::base::ids::CallId;

/// First in, first out; bounded by places that uploads reserve when they begin.
pub(super) struct Queue {
    waiting: Mutex<Waiting>,
    changed: Condvar,
    limit: usize,
}

struct Waiting {
    calls: BTreeMap<u64, CallId>,
    reserved: usize,
    stopping: bool,
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
        let waiting = Waiting { calls, reserved: 0, stopping: false };
        Arc::new(Self { waiting: Mutex::new(waiting), changed: Condvar::new(), limit })
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A place for one more call, if there is any.
    pub(super) fn reserve(self: &Arc<Self>) -> Option<Place> {
        let mut waiting = self.lock();
        if waiting.calls.len() + waiting.reserved >= self.limit {
            return None;
        }
        waiting.reserved += 1;
        Some(Place(Arc::clone(self)))
    }

    pub(super) fn push(&self, job: u64, call: CallId) {
        self.lock().calls.insert(job, call);
        self.changed.notify_one();
    }

    /// Waits for the oldest call; none when the daemon stops.
    pub(super) fn take(&self) -> Option<(u64, CallId)> {
        let waiting = self.lock();
        let mut waiting = self
            .changed
            .wait_while(waiting, |waiting| waiting.calls.is_empty() && !waiting.stopping)
            .unwrap_or_else(PoisonError::into_inner);
        if waiting.stopping { None } else { waiting.calls.pop_first() }
    }

    /// Takes a call out that was cancelled or erased.
    pub(super) fn remove(&self, job: u64) {
        self.lock().calls.remove(&job);
    }

    pub(super) fn len(&self) -> usize {
        self.lock().calls.len()
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
    fn the_oldest_job_comes_first_whatever_the_order_of_arrival() {
        let queue = Queue::new(9, BTreeMap::from([(5, call(5))]));
        queue.push(7, call(7));
        queue.push(3, call(3));
        assert_eq!([queue.take(), queue.take(), queue.take()], [Some((3, call(3))), Some((5, call(5))), Some((7, call(7)))]);
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
