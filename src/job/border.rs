//! What the desk needs of the keeper and of children, and no more.
//! Trusts: the keeper. A child may say anything at any time.
//! Touches: nothing.
//! Next: `keys::Keeper` and `supervisor::Supervisor` answer here; the desk's tests answer with their own.

use std::time::Duration;

use crate::base::ids::CallId;
use crate::base::secret::Secret;
use crate::ipc::keeper::{DEK_BYTES, UnwrapPurpose, WrappedDek};
use crate::ipc::worker::{ChildEvent, ChildExit, Task};

/// Makes and opens data-encryption keys.
pub trait KeySource: Send + Sync {
    /// A new key for `call`.
    ///
    /// # Errors
    /// [`KeyError`].
    fn new_dek(&self, call: CallId) -> Result<(Secret<DEK_BYTES>, WrappedDek), KeyError>;

    /// Opens the key of `call`.
    ///
    /// # Errors
    /// [`KeyError`].
    fn unwrap_dek(&self, call: CallId, wrapped: &WrappedDek, purpose: UnwrapPurpose) -> Result<Secret<DEK_BYTES>, KeyError>;
}

/// Why there is no key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// Too many uses in a short time.
    #[error("the key keeper's limit is reached")]
    RateLimited,
    /// The wrapped key is damaged or another call's.
    #[error("the call's wrapped key does not open")]
    WrongKey,
    /// The keeper is gone, or failed.
    #[error("the key keeper does not answer")]
    Unavailable,
}

/// What a child may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Allowance {
    /// Address space that it may add, bytes.
    pub memory: u64,
    /// Processor time, seconds.
    pub cpu_seconds: u32,
}

/// Starts children.
pub trait Children: Send + Sync {
    /// A new child, confined and waiting; its first event is [`ChildEvent::Ready`].
    ///
    /// # Errors
    /// [`SpawnRefused`].
    fn spawn(&self, allowance: Allowance) -> Result<Box<dyn WorkerChild>, SpawnRefused>;

    /// `name@version` of each model that children use.
    fn models(&self) -> Vec<String>;

    /// The fork server is gone: no child will ever start again in this life of the daemon.
    fn lost(&self) -> bool;
}

/// No child could be started.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no worker process could be started")]
pub struct SpawnRefused;

/// One child.
pub trait WorkerChild: Send {
    /// Sends it a task or audio.
    ///
    /// # Errors
    /// `Gone`.
    fn send(&self, task: &Task) -> Result<(), ChildFault>;

    /// Waits for what it says next.
    ///
    /// # Errors
    /// [`ChildFault`].
    fn recv(&self, wait: Duration) -> Result<ChildEvent, ChildFault>;

    /// Something that stops the child from another thread.
    fn killer(&self) -> Box<dyn Kill>;

    /// Stops it if it still runs and says how it ended, as far as that is known.
    fn end(self: Box<Self>) -> Option<ChildExit>;
}

/// Stops a child, at once and as often as one likes.
pub trait Kill: Send + Sync {
    /// Stops it.
    fn kill(&self);
}

/// Why nothing came from a child.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChildFault {
    /// It ended.
    #[error("the worker process ended")]
    Gone,
    /// Nothing came in time.
    #[error("the worker process was silent for too long")]
    Silent,
    /// What came is no message, or one that it may not send.
    #[error("the worker process broke the protocol")]
    Misbehaved,
}
