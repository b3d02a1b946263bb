//! What a desk knows of moves of the erasure epoch: whose keys are not stored yet, who moves, what is due.
//! Trusts: nothing.
//! Touches: memory.
//! Next: [`super::epoch`] moves.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::desk::Desk;
use super::erasures::OpenErasures;
use crate::base::ids::CallId;
use crate::ipc::keeper::WrappedDek;
use crate::record::store::StoreError;

/// What a desk knows of moves.
#[derive(Default)]
pub(super) struct Moves {
    /// Held while a key is made, while a batch with one is handed to the writer, and from before a move's commit until the keeper has
    /// answered that the old epoch is destroyed: so that each key is in the store, or here, or of the new epoch.
    pub(super) uploads: Mutex<Uploads>,
    /// Held by who moves.
    pub(super) moving: Mutex<Turn>,
    pub(super) due: Mutex<Due>,
    pub(super) changed: Condvar,
    pub(super) open: Mutex<OpenErasures>,
    /// Of the move that goes on, for who waits: calls re-wrapped, and all.
    pub(super) done: AtomicU64,
    pub(super) all: AtomicU64,
}

/// Uploads that are not stored yet.
#[derive(Default)]
pub(super) struct Uploads {
    /// Their wrapped keys.
    pub(super) keys: HashMap<CallId, WrappedDek>,
    /// The number of a move whose commit failed so that nobody knows whether it is stored. Until that is known no key is made or stored:
    /// it could be of an epoch that a start after a crash destroys.
    pub(super) in_doubt: Option<u32>,
    /// The store has moved, and the keeper has not said that it has too: a key that it makes could still be of the old epoch.
    pub(super) keeper_behind: bool,
}

impl Uploads {
    pub(super) const fn wait(&self) -> bool {
        self.in_doubt.is_some() || self.keeper_behind
    }

    pub(super) const fn without_doubt(&self) -> Result<(), StoreError> {
        if self.wait() { Err(StoreError::Closed) } else { Ok(()) }
    }
}

/// The last move that the store has committed in this life.
#[derive(Default)]
pub(super) struct Turn {
    pub(super) pivot: Option<Pivot>,
}

pub(super) struct Pivot {
    pub(super) number: u32,
    /// Whose keys were wrapped anew.
    pub(super) calls: u64,
    /// The keeper has destroyed the epoch before.
    pub(super) finished: bool,
}

#[derive(Default)]
pub(super) struct Due {
    pub(super) erasures: bool,
    /// Some are left of those that a move was to have, for so long.
    pub(super) certificates: Option<Duration>,
    pub(super) stop: bool,
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Moves {
    /// Erasures without a certificate.
    pub(super) fn open(&self) -> MutexGuard<'_, OpenErasures> {
        lock(&self.open)
    }

    /// Calls re-wrapped by the move that goes on, and all.
    pub(super) fn progress(&self) -> (u64, u64) {
        (self.done.load(Ordering::Relaxed), self.all.load(Ordering::Relaxed))
    }
}

/// The key of an upload, until it is stored or given up.
pub(super) struct Unstored {
    pub(super) desk: Arc<Desk>,
    pub(super) call: CallId,
}

impl Drop for Unstored {
    fn drop(&mut self) {
        lock(&self.desk.moves.uploads).keys.remove(&self.call);
    }
}
