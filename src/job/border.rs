//! What the desk needs of the keeper and of children, and no more.
//! Trusts: the keeper. A child may say anything at any time.
//! Touches: nothing.
//! Next: `keys` and `supervisor` answer here; the desk's tests answer with their own.

use std::time::Duration;

use crate::base::ids::CallId;
use crate::base::secret::Secret;
use crate::ipc::keeper::{Counted, DEK_BYTES, EpochReply, EpochRequest, KeeperDenial, UnwrapPurpose, WrappedDek};
use crate::ipc::worker::{ChildEvent, ChildExit, Task};
use crate::keys::{Keeper, KeeperError};
use crate::supervisor::child::{Child, ChildError, Killer};
use crate::supervisor::forkserver::{ChildLimits, Supervisor};

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

    /// Asks about the erasure epoch.
    ///
    /// # Errors
    /// [`KeyError`].
    fn epoch(&self, request: EpochRequest) -> Result<EpochReply, KeyError>;

    /// Counts the TPM's counter up by one, from `from`; to what. Asked again for the same, it does not count again.
    ///
    /// # Errors
    /// [`KeyError`]; it may have counted all the same.
    fn count(&self, from: u64) -> Result<Counted, KeyError>;
}

/// Why there is no key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// Too many uses in a short time.
    #[error("the key keeper's limit is reached")]
    RateLimited {
        /// Until when.
        wait: Duration,
    },
    /// The wrapped key is damaged or another call's.
    #[error("the call's wrapped key does not open")]
    WrongKey,
    /// What opened the store's calls was destroyed after it was copied.
    #[error(transparent)]
    OtherEpoch(KeeperDenial),
    /// The keeper does not do this.
    #[error(transparent)]
    Refused(KeeperDenial),
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

impl KeySource for Keeper {
    fn new_dek(&self, call: CallId) -> Result<(Secret<DEK_BYTES>, WrappedDek), KeyError> {
        Self::new_dek(self, call).map_err(key_error)
    }

    fn unwrap_dek(&self, call: CallId, wrapped: &WrappedDek, purpose: UnwrapPurpose) -> Result<Secret<DEK_BYTES>, KeyError> {
        Self::unwrap_dek(self, call, wrapped, purpose).map_err(key_error)
    }

    fn epoch(&self, request: EpochRequest) -> Result<EpochReply, KeyError> {
        Self::epoch(self, request).map_err(key_error)
    }

    fn count(&self, from: u64) -> Result<Counted, KeyError> {
        Self::count(self, from).map_err(key_error)
    }
}

fn key_error(error: KeeperError) -> KeyError {
    match error {
        KeeperError::Denied(KeeperDenial::RateLimited { seconds }) => KeyError::RateLimited { wait: Duration::from_secs(seconds.into()) },
        KeeperError::Denied(KeeperDenial::WrongKey) => KeyError::WrongKey,
        KeeperError::Denied(denial @ (KeeperDenial::OtherEpoch | KeeperDenial::OlderKeys | KeeperDenial::EmptyStore)) => {
            KeyError::OtherEpoch(denial)
        }
        KeeperError::Denied(KeeperDenial::Internal) => KeyError::Unavailable,
        KeeperError::Denied(denial) => KeyError::Refused(denial),
        KeeperError::Refused { .. } | KeeperError::Gone(_) | KeeperError::Version { .. } | KeeperError::OutOfOrder => KeyError::Unavailable,
    }
}

/// The fork server's children, and the models that they carry.
pub struct Forked {
    /// Where they come from.
    pub supervisor: Supervisor,
    /// `name@version` of each model.
    pub models: Vec<String>,
}

impl Children for Forked {
    fn spawn(&self, allowance: Allowance) -> Result<Box<dyn WorkerChild>, SpawnRefused> {
        let limits = ChildLimits { memory_bytes: allowance.memory, cpu_seconds: allowance.cpu_seconds };
        let child = self.supervisor.spawn(&limits).map_err(|error| {
            tracing::warn!(%error, "no worker process could be started");
            SpawnRefused
        })?;
        Ok(Box::new(child))
    }

    fn models(&self) -> Vec<String> {
        self.models.clone()
    }

    fn lost(&self) -> bool {
        self.supervisor.lost()
    }
}

impl WorkerChild for Child {
    fn send(&self, task: &Task) -> Result<(), ChildFault> {
        Self::send(self, task).map_err(child_fault)
    }

    fn recv(&self, wait: Duration) -> Result<ChildEvent, ChildFault> {
        Self::recv(self, wait).map_err(child_fault)
    }

    fn killer(&self) -> Box<dyn Kill> {
        Box::new(Self::killer(self))
    }

    fn end(self: Box<Self>) -> Option<ChildExit> {
        Some(self.finish())
    }
}

impl Kill for Killer {
    fn kill(&self) {
        Self::kill(self);
    }
}

fn child_fault(error: ChildError) -> ChildFault {
    match error {
        ChildError::TimedOut => ChildFault::Silent,
        ChildError::Ended | ChildError::Channel(_) => ChildFault::Gone,
        ChildError::Misbehaved(how) => {
            tracing::warn!(%how, "a worker process broke the protocol and was stopped");
            ChildFault::Misbehaved
        }
    }
}
