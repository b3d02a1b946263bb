//! Two pieces of start-up work at a time.
//! Trusts: both to end.
//! Touches: one more thread, which has ended when it returns: the fork server forks and is confined with one thread only.
//! Next: [`super::models`] and `speech` load their parts with it.

use std::panic::resume_unwind;
use std::thread;

/// Does both, `one` on a thread of its own, and gives what came of them.
pub fn beside<A: Send, B>(one: impl FnOnce() -> A + Send, other: impl FnOnce() -> B) -> (A, B) {
    thread::scope(|scope| {
        let one = scope.spawn(one);
        let other = other();
        (one.join().unwrap_or_else(|panic| resume_unwind(panic)), other)
    })
}
