//! Tells when a connection has had no request for too long, whatever its protocol.
//! Trusts: each request holds a [`Busy`] until its reply is sent.
//! Touches: the timer.
//! Next: [`super::serve`] closes the connection.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

/// Counts the requests of one connection.
#[derive(Clone, Debug)]
pub(super) struct Requests(Arc<watch::Sender<usize>>);

/// One request; counted until dropped.
pub(super) struct Busy(Arc<watch::Sender<usize>>);

impl Requests {
    pub(super) fn new() -> Self {
        Self(Arc::new(watch::Sender::new(0)))
    }

    pub(super) fn begin(&self) -> Busy {
        self.0.send_modify(|count| *count = count.saturating_add(1));
        Busy(Arc::clone(&self.0))
    }

    /// Ends once no request has been there for `limit`.
    pub(super) async fn idle_for(&self, limit: Duration) {
        let mut count = self.0.subscribe();
        loop {
            if *count.borrow_and_update() > 0 {
                _ = count.changed().await;
            } else if tokio::time::timeout(limit, count.changed()).await.is_err() {
                return;
            }
        }
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.send_modify(|count| *count = count.saturating_sub(1));
    }
}
