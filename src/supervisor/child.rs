//! One child of the fork server, for one call: what it is told, what it may say, how it ends.
//! Trusts: nothing that the child says before [`Conversation`] has judged it.
//! Touches: the child's channel.
//! Next: `job::runner` drives it.

use std::io;
use std::os::fd::AsFd;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::conversation::{Conversation, Misbehaviour};
use super::forkserver::{Life, Shared};
use crate::ipc::channel::{Channel, ChannelError};
use crate::ipc::worker::{ChildEvent, ChildExit, ChildId, Task};
use crate::sys::socket::set_send_timeout;

/// How long a child may leave a message to it unread. It is told only what it asked for, and there is room for two such answers.
const SEND_LIMIT: Duration = Duration::from_secs(5);
/// How long a child may take to exit after its last word, and a killed one to die.
const EXIT_LIMIT: Duration = Duration::from_secs(2);

/// A child. Dropping it kills it.
#[derive(Debug)]
pub struct Child {
    killer: Killer,
    pid: Option<u32>,
    channel: Channel,
    conversation: Mutex<Conversation>,
}

/// Stops a child from anywhere.
#[derive(Clone, Debug)]
pub struct Killer {
    shared: Arc<Shared>,
    child: ChildId,
}

/// Why nothing more comes from a child.
#[derive(Debug, thiserror::Error)]
pub enum ChildError {
    /// It said nothing in the given time. It still runs.
    #[error("the worker process said nothing in time")]
    TimedOut,
    /// It has closed its channel or ended; [`Child::finish`] tells how.
    #[error("the worker process has ended")]
    Ended,
    /// It broke a rule and was killed.
    #[error("the worker process misbehaved: {0}")]
    Misbehaved(Misbehaviour),
    /// Our end of the channel failed.
    #[error("the channel to the worker process failed")]
    Channel(#[source] ChannelError),
}

impl Child {
    pub(super) fn new(shared: Arc<Shared>, child: ChildId, pid: Option<u32>, channel: Channel) -> io::Result<Self> {
        set_send_timeout(channel.as_fd(), Some(SEND_LIMIT))?;
        Ok(Self { killer: Killer { shared, child }, pid, channel, conversation: Mutex::default() })
    }

    /// Its process id, for the journal; unknown when it ended at once.
    pub const fn pid(&self) -> Option<u32> {
        self.pid
    }

    /// Tells it something.
    ///
    /// # Errors
    /// `Ended`, or `TimedOut` when it has not read for too long.
    pub fn send(&self, task: &Task) -> Result<(), ChildError> {
        // Before it is sent: the answer may come before this thread goes on.
        self.conversation().sent(task);
        self.channel.send(task).map_err(|error| match error {
            // Ours to keep: the child has done nothing.
            ChannelError::TooLong => ChildError::Channel(error),
            error => judge_channel(error),
        })
    }

    /// Waits for its next message, and judges it.
    ///
    /// # Errors
    /// `TimedOut` after `limit`; `Ended` at the end of file; `Misbehaved` when it lies, after which it has been killed.
    pub fn recv(&self, limit: Duration) -> Result<ChildEvent, ChildError> {
        self.channel.set_receive_timeout(Some(limit)).map_err(|error| ChildError::Channel(ChannelError::Socket(error)))?;
        let heard = match self.channel.recv::<ChildEvent>() {
            Ok(Some(event)) => self.conversation().heard(&event).map(|()| event).map_err(ChildError::Misbehaved),
            Ok(None) => Err(ChildError::Ended),
            Err(error) => Err(judge_channel(error)),
        };
        if let Err(ChildError::Misbehaved(_)) = heard {
            self.kill();
        }
        heard
    }

    /// Kills it. It may be dead already.
    pub fn kill(&self) {
        self.killer.kill();
    }

    /// To kill it from another thread.
    pub fn killer(&self) -> Killer {
        self.killer.clone()
    }

    /// Waits for its end, and makes it end when it does not by itself. A child whose fork server is gone has died with it.
    pub fn finish(self) -> ChildExit {
        let Killer { shared, child } = &self.killer;
        let ended = |life: Life| matches!(life, Life::Ended(_));
        let life = match shared.wait_for(*child, EXIT_LIMIT, ended) {
            Some(Life::Asked | Life::Runs { .. }) => {
                shared.kill(*child);
                shared.wait_for(*child, EXIT_LIMIT, ended)
            }
            life => life,
        };
        match life {
            Some(Life::Ended(how)) => how,
            Some(Life::Asked | Life::Runs { .. } | Life::Failed { .. }) | None => ChildExit::Signal(libc::SIGKILL),
        }
    }

    fn conversation(&self) -> std::sync::MutexGuard<'_, Conversation> {
        self.conversation.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        self.killer.shared.abandon(self.killer.child);
    }
}

impl Killer {
    /// Kills the child. It may be dead already.
    pub fn kill(&self) {
        self.shared.kill(self.child);
    }
}

fn judge_channel(error: ChannelError) -> ChildError {
    match error {
        ChannelError::TimedOut => ChildError::TimedOut,
        ChannelError::Malformed | ChannelError::Descriptors | ChannelError::TooLong => ChildError::Misbehaved(Misbehaviour::Frame),
        ChannelError::Socket(error) => match error.kind() {
            io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset => ChildError::Ended,
            io::ErrorKind::WouldBlock => ChildError::TimedOut,
            _ => ChildError::Channel(ChannelError::Socket(error)),
        },
    }
}
