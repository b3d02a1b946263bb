//! Why the daemon ends: a signal, or the loss of a process that it cannot do without.
//! Trusts: nothing.
//! Touches: SIGTERM and SIGINT; one thread that waits for the keeper.
//! Next: [`super::daemon`] drains.

use std::fmt;
use std::io;
use std::thread;

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

use crate::sys::pidfd::PidFd;

/// Why the daemon ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// It was told to.
    Signal,
    /// `salama-keeper` has ended.
    KeeperLost,
    /// `salama-worker` has ended.
    WorkerLost,
}

impl End {
    /// The word in the audit entry.
    pub const fn code(self) -> &'static str {
        match self {
            Self::Signal => "signal",
            Self::KeeperLost => "keeper_lost",
            Self::WorkerLost => "worker_lost",
        }
    }
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Signal => "the daemon was told to stop",
            Self::KeeperLost => "salama-keeper has ended; the daemon ends, to be started anew with a new one",
            Self::WorkerLost => "salama-worker has ended; the daemon ends, to be started anew with a new one",
        })
    }
}

/// Reports the keeper's end. A thread, because the keeper speaks only when it is asked.
///
/// # Errors
/// When the kernel gives no thread.
pub fn watch_keeper(process: PidFd, ends: mpsc::UnboundedSender<End>) -> io::Result<()> {
    let wait = move || {
        // Whatever the wait says, a keeper that cannot be watched is as good as lost.
        let _ = process.wait();
        let _ = ends.send(End::KeeperLost);
    };
    thread::Builder::new().name("keeper-end".to_owned()).spawn(wait).map(drop)
}

/// Waits for the first reason to end.
///
/// # Errors
/// When the signals cannot be listened for.
pub async fn first(mut ends: mpsc::UnboundedReceiver<End>) -> io::Result<End> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tokio::select! {
        _ = terminate.recv() => Ok(End::Signal),
        _ = interrupt.recv() => Ok(End::Signal),
        Some(end) = ends.recv() => Ok(end),
    }
}
