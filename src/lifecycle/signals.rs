//! Why the daemon ends: a signal, or the loss of a process that it cannot do without.
//! Trusts: nothing.
//! Touches: SIGTERM and SIGINT; one thread that waits for the keeper.
//! Next: [`super::daemon`] drains.

use std::fmt;
use std::io;
use std::thread;

use tokio::signal::unix::{Signal, SignalKind, signal};
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

/// The signals that end the daemon, listened for: from here on none of them ends it by itself.
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    /// Begins to listen. Before READY: a stop that comes right after it is a stop like any other.
    ///
    /// # Errors
    /// When the signals cannot be listened for.
    pub fn listen() -> io::Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    /// Waits for the first reason to end.
    pub async fn or(mut self, mut ends: mpsc::UnboundedReceiver<End>) -> End {
        tokio::select! {
            _ = self.terminate.recv() => End::Signal,
            _ = self.interrupt.recv() => End::Signal,
            Some(end) = ends.recv() => end,
        }
    }
}
