//! The way of a call as one table.
//! Trusts: nothing.
//! Touches: nothing.
//! Next: [`super::desk`] applies a change only when this table allows it.
//!
//! ```text
//! queued --start--> running --finish--> done
//!   |  ^---interrupt---|  |--fail-----> failed
//!   |--cancel, fail       |--cancel---> cancelled
//! ```

use super::spec::CallState;
use crate::ipc::worker::CallFailure;

/// What may happen to a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Change {
    /// A child is about to work on it; counts as an attempt.
    Start,
    /// The work stopped without a verdict on the call. `counted` says whether the attempt still counts.
    Interrupt {
        /// False when the daemon was stopping.
        counted: bool,
    },
    /// The transcript is sealed in the same commit.
    Finish,
    /// There will be no transcript.
    Fail(CallFailure),
    /// Someone stopped it.
    Cancel,
}

/// The state after `change`, or none when it is not possible.
pub(super) const fn next(state: CallState, change: Change) -> Option<CallState> {
    use CallState::{Cancelled, Done, Failed, Queued, Running};
    match (state, change) {
        (Queued, Change::Start) => Some(Running),
        (Running, Change::Interrupt { .. }) => Some(Queued),
        (Running, Change::Finish) => Some(Done),
        (Queued | Running, Change::Fail(_)) => Some(Failed),
        (Queued | Running, Change::Cancel) => Some(Cancelled),
        (Queued, Change::Interrupt { .. } | Change::Finish)
        | (Running, Change::Start)
        | (Done | Failed | Cancelled, Change::Start | Change::Interrupt { .. } | Change::Finish | Change::Fail(_) | Change::Cancel) => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn state() -> impl Strategy<Value = CallState> {
        prop::sample::select(vec![CallState::Queued, CallState::Running, CallState::Done, CallState::Failed, CallState::Cancelled])
    }

    fn change() -> impl Strategy<Value = Change> {
        prop::sample::select(vec![
            Change::Start,
            Change::Interrupt { counted: true },
            Change::Interrupt { counted: false },
            Change::Finish,
            Change::Fail(CallFailure::NotAudio),
            Change::Cancel,
        ])
    }

    proptest! {
        #[test]
        fn a_final_state_never_changes(state in state(), change in change()) {
            prop_assert!(!state.is_final() || next(state, change).is_none());
        }

        #[test]
        fn nothing_is_done_that_did_not_run(changes in prop::collection::vec(change(), 0..20)) {
            let mut path = vec![CallState::Queued];
            for change in changes {
                path.extend(next(path[path.len() - 1], change));
            }
            let done = path.iter().position(|state| *state == CallState::Done);
            prop_assert!(done.is_none_or(|at| path[at - 1] == CallState::Running));
        }

        #[test]
        fn cancelling_is_possible_exactly_before_the_end(state in state()) {
            prop_assert_eq!(next(state, Change::Cancel).is_some(), !state.is_final());
        }
    }
}
