//! What keeps a call from being worked on though nothing is wrong with it, and for how long that is borne.
//! Trusts: nothing.
//! Touches: nothing.
//! Next: [`super::runner`] sets the call back, [`super::queue`] lets others pass meanwhile.

use std::time::Duration;

use crate::ipc::worker::CallFailure;

/// Doublings of the first pause; later ones are as long as the last.
const DOUBLINGS: u32 = 7;

/// Something outside a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Hindrance {
    /// The disk does not give its recording.
    Recording,
    /// No child can be started.
    Workers,
    /// The keeper answers, but not with its key.
    Keeper,
    /// The store takes or gives nothing.
    Store,
}

impl Hindrance {
    /// For the journal.
    pub(super) const fn words(self) -> &'static str {
        match self {
            Self::Recording => "the recording could not be read",
            Self::Workers => "no worker process could be started",
            Self::Keeper => "the key keeper does not answer",
            Self::Store => "the store failed",
        }
    }

    /// How a call ends that was set back too often.
    pub(super) const fn failure(self) -> CallFailure {
        match self {
            Self::Recording => CallFailure::RecordingUnread,
            Self::Workers => CallFailure::NoWorker,
            Self::Keeper => CallFailure::NoKey,
            Self::Store => CallFailure::StoreFailed,
        }
    }
}

/// How long a call waits after it was set back for the `times`th time: twice as long each time, up to a bound.
pub(super) fn pause(first: Duration, times: u32) -> Duration {
    first.saturating_mul(1 << times.saturating_sub(1).min(DOUBLINGS))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pause_doubles_up_to_a_bound() {
        let seconds = |times| pause(Duration::from_secs(5), times).as_secs();
        assert_eq!([1, 2, 3, 8, 9, u32::MAX].map(seconds), [5, 10, 20, 640, 640, 640]);
    }
}
