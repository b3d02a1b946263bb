//! Live events of calls that are not final: a bounded ring for replay, and the watchers.
//! Trusts: numbers of states come from the durable header.
//! Touches: nothing.
//! Next: `api` streams what [`Hub::watch`] gives.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::mpsc;

use super::header::{EVENT_STRIDE, Header};
use super::spec::{CallEvent, CallHappening};
use crate::base::ids::CallId;
use crate::ipc::worker::Stage;

/// Events kept for replay: more than one attempt makes, since progress is told by whole per cents.
const RING: usize = 256;
/// Events that a watcher may lag behind before it has to come again with the last number it saw.
const LAG: usize = 2 * RING;
/// Watchers of one call; one more replaces the oldest.
const WATCHERS: usize = 16;

/// What a running call tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Progress {
    pub stage: Stage,
    pub percent: u8,
    pub audio_ms: u64,
    pub elapsed_ms: u64,
}

/// All live streams.
#[derive(Default)]
pub(super) struct Hub {
    streams: Mutex<HashMap<CallId, Stream>>,
}

struct Stream {
    ring: VecDeque<CallEvent>,
    watchers: VecDeque<mpsc::Sender<CallEvent>>,
    progress: Option<(Stage, u8)>,
    /// Number of the last event.
    last: u64,
    /// First number that progress may not have.
    end: u64,
}

/// The event of a header's state.
pub(super) fn of_state(header: &Header) -> CallEvent {
    CallEvent { number: header.event, what: CallHappening::State { state: header.state, failure: header.failure } }
}

impl Hub {
    fn lock(&self) -> MutexGuard<'_, HashMap<CallId, Stream>> {
        self.streams.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Opens the stream of a call, before the call can be found by anyone.
    pub(super) fn open(&self, call: CallId) {
        self.lock().insert(call, Stream::new());
    }

    /// A durable change of state. After a final one the watchers' channels close.
    pub(super) fn state(&self, header: &Header) {
        let mut streams = self.lock();
        // A stream that is gone has told its final state.
        let Some(stream) = streams.get_mut(&header.call) else { return };
        // Commits of two changes may be told in the other order; the later one has said it all.
        if header.event > stream.last {
            stream.progress = None;
            stream.end = header.event.saturating_add(EVENT_STRIDE);
            stream.tell(of_state(header));
        }
        if header.state.is_final() {
            streams.remove(&header.call);
        }
    }

    /// Progress of a running call; told when the stage or the per cent changed.
    pub(super) fn progress(&self, call: CallId, progress: Progress) {
        let mut streams = self.lock();
        let Some(stream) = streams.get_mut(&call) else { return };
        let now = (progress.stage, progress.percent);
        if stream.progress == Some(now) || stream.last + 1 >= stream.end {
            return;
        }
        stream.progress = Some(now);
        let Progress { stage, percent, audio_ms, elapsed_ms } = progress;
        let number = stream.last + 1;
        stream.tell(CallEvent { number, what: CallHappening::Progress { stage, percent, audio_ms, elapsed_ms } });
    }

    /// Stage and per cent of a running call.
    pub(super) fn at(&self, call: CallId) -> Option<(Stage, u8)> {
        self.lock().get(&call).and_then(|stream| stream.progress)
    }

    /// Events after number `after`, then live ones; none when the call is not live.
    pub(super) fn watch(&self, call: CallId, after: u64) -> Option<mpsc::Receiver<CallEvent>> {
        let mut streams = self.lock();
        let stream = streams.get_mut(&call)?;
        let (sender, receiver) = mpsc::channel(RING + LAG);
        for event in stream.ring.iter().filter(|event| event.number > after) {
            // The channel is larger than the ring.
            let _ = sender.try_send(event.clone());
        }
        if stream.watchers.len() >= WATCHERS {
            stream.watchers.pop_front();
        }
        stream.watchers.push_back(sender);
        Some(receiver)
    }

    /// Forgets a call that was erased; its watchers' channels close.
    pub(super) fn forget(&self, call: CallId) {
        self.lock().remove(&call);
    }
}

impl Stream {
    const fn new() -> Self {
        Self { ring: VecDeque::new(), watchers: VecDeque::new(), progress: None, last: 0, end: 0 }
    }

    fn tell(&mut self, event: CallEvent) {
        self.last = event.number;
        // Who lags too far or is gone is let go; the stream can be resumed by number.
        self.watchers.retain(|watcher| watcher.try_send(event.clone()).is_ok());
        if self.ring.len() >= RING {
            self.ring.pop_front();
        }
        self.ring.push_back(event);
    }
}
