//! The core's side of the fork server: starts it, asks it for children, learns how they end and when it is gone itself.
//! Trusts: the fork server to fork, watch and kill; it never reads what a stranger sent.
//! Touches: its channel. `start` forks and executes, so it comes before confinement; `run` starts a thread, so it comes after.
//! Next: [`super::child`].

use std::collections::HashMap;
use std::io;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::child::Child;
use super::program::{self, SpawnError as ProgramError, Started};
use crate::ipc::PROTOCOL_VERSION;
use crate::ipc::channel::{Channel, ChannelError};
use crate::ipc::worker::{ChildExit, ChildId, ForkEvent, ForkRequest, LoadedModel};
use crate::sys::pidfd::{Ended, PidFd};
use crate::sys::socket::set_send_timeout;

/// Makes glibc ask for huge pages. A fork copies the page tables: of 400 MB of models that is 100 000 entries in small pages, and
/// 200 in huge ones.
pub const HUGE_PAGES: (&str, &str) = ("GLIBC_TUNABLES", "glibc.malloc.hugetlb=1");

/// How long the fork server may take to fork a child.
const SPAWN_LIMIT: Duration = Duration::from_secs(20);
/// Most models that a fork server may name.
const MODELS_MAX: usize = 16;

/// What `salama-worker` is started with.
#[derive(Clone, Debug)]
pub struct WorkerSettings {
    /// The executable, as [`program::beside`] finds it.
    pub program: PathBuf,
    /// Directory of the models.
    pub models: PathBuf,
    /// Name of the speech recogniser in it.
    pub asr: String,
    /// Account that it becomes when started as root.
    pub user: Option<String>,
    /// How long it may take to load its models.
    pub start_limit: Duration,
}

/// A fork server that is ready and has not been asked for anything.
#[derive(Debug)]
pub struct ForkServer {
    channel: Channel,
    process: PidFd,
    pid: u32,
    models: Vec<LoadedModel>,
}

/// Why the fork server did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The program.
    #[error(transparent)]
    Program(#[from] ProgramError),
    /// It refused; the reason is its own.
    #[error("salama-worker does not serve: {reason}")]
    Refused {
        /// What failed and what to do.
        reason: String,
    },
    /// It ended without a word.
    #[error("salama-worker ended while it started ({ended:?}); its last words are on standard error")]
    Ended {
        /// How.
        ended: Option<Ended>,
    },
    /// It is another version.
    #[error("salama-worker speaks version {theirs} of the protocol, salamad {PROTOCOL_VERSION}: install both from one package")]
    Version {
        /// Its version.
        theirs: u16,
    },
    /// It said something else.
    #[error("salama-worker did not begin with its greeting; install all programs from one package")]
    Greeting,
    /// The channel.
    #[error("salama-worker did not get ready")]
    Channel(#[source] ChannelError),
}

/// A fork server that was started and loads its models.
#[derive(Debug)]
pub struct Starting {
    started: Started,
    limit: Duration,
}

impl Starting {
    /// Waits until its models are loaded and it is confined. Also after this process is.
    ///
    /// # Errors
    /// When it refuses, ends, or takes longer than the limit.
    pub fn ready(self) -> Result<ForkServer, StartError> {
        ForkServer::greet(self.started, self.limit)
    }
}

impl ForkServer {
    /// Starts `salama-worker` and waits for it.
    ///
    /// # Errors
    /// As [`Self::begin`] and [`Starting::ready`].
    pub fn start(settings: &WorkerSettings) -> Result<Self, StartError> {
        Self::begin(settings)?.ready()
    }

    /// Starts `salama-worker`, whose models take longer than all else that is to be done before there is a daemon.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn begin(settings: &WorkerSettings) -> Result<Starting, StartError> {
        let mut arguments = vec!["--models".into(), settings.models.clone().into_os_string(), "--asr".into(), settings.asr.clone().into()];
        if let Some(user) = &settings.user {
            arguments.extend(["--user".into(), user.into()]);
        }
        Ok(Starting { started: program::spawn_with(&settings.program, arguments, &[HUGE_PAGES])?, limit: settings.start_limit })
    }

    /// Waits for the greeting of a fork server that was started by [`program::spawn`].
    ///
    /// # Errors
    /// As [`Self::start`].
    pub fn greet(started: Started, limit: Duration) -> Result<Self, StartError> {
        let Started { channel, pid, process } = started;
        channel.set_receive_timeout(Some(limit)).map_err(|error| StartError::Channel(ChannelError::Socket(error)))?;
        let greeting = match channel.recv::<ForkEvent>() {
            Err(ChannelError::Socket(error)) if error.kind() == io::ErrorKind::ConnectionReset => None,
            greeting => greeting.map_err(StartError::Channel)?,
        };
        match greeting {
            Some(ForkEvent::Ready { version: PROTOCOL_VERSION, models }) if models.len() <= MODELS_MAX => {
                channel.set_receive_timeout(None).map_err(|error| StartError::Channel(ChannelError::Socket(error)))?;
                Ok(Self { channel, process, pid, models })
            }
            Some(ForkEvent::Ready { version, .. }) if version != PROTOCOL_VERSION => Err(StartError::Version { theirs: version }),
            Some(ForkEvent::Refused { reason }) => Err(StartError::Refused { reason }),
            Some(_) => Err(StartError::Greeting),
            None => Err(StartError::Ended { ended: process.wait().ok() }),
        }
    }

    /// What it has loaded.
    pub fn models(&self) -> &[LoadedModel] {
        &self.models
    }

    /// Its process id, for the journal.
    pub const fn pid(&self) -> u32 {
        self.pid
    }

    /// Starts the thread that reads its events; call it once confined. `on_lost` runs in that thread when the fork server is
    /// gone, whatever the reason: no call can be served any more, and the daemon ends and is started anew.
    ///
    /// # Errors
    /// When the kernel gives no thread.
    pub fn run(self, on_lost: impl FnOnce(Lost) + Send + 'static) -> io::Result<(Supervisor, JoinHandle<()>)> {
        set_send_timeout(self.channel.as_fd(), Some(SPAWN_LIMIT))?;
        let shared = Arc::new(Shared { control: self.channel, state: Mutex::default(), changed: Condvar::new() });
        let supervisor = Supervisor { shared: Arc::clone(&shared) };
        let process = self.process;
        let thread = thread::Builder::new().name("fork-events".into()).spawn(move || {
            let cause = shared.read_events();
            shared.lose();
            on_lost(Lost { cause, ended: process.try_wait().ok().flatten() });
        })?;
        Ok((supervisor, thread))
    }
}

/// The fork server is gone.
#[derive(Debug, thiserror::Error)]
#[error("the fork server is gone ({ended:?})")]
pub struct Lost {
    /// What was wrong with its channel, when it was not simply closed.
    #[source]
    pub cause: Option<ChannelError>,
    /// How it ended, when that is known already.
    pub ended: Option<Ended>,
}

/// What a child may use.
#[derive(Clone, Copy, Debug)]
pub struct ChildLimits {
    /// Address space on top of what it inherits, bytes. Each thread takes its stack and up to 128 MiB of reserve for its heap.
    pub memory_bytes: u64,
    /// Processor time, seconds, summed over threads.
    pub cpu_seconds: u32,
}

/// Asks for children; cheap to clone.
#[derive(Clone, Debug)]
pub struct Supervisor {
    shared: Arc<Shared>,
}

/// Why there is no child.
#[derive(Debug, thiserror::Error)]
pub enum SpawnError {
    /// The fork server is gone.
    #[error("the fork server is gone")]
    Lost,
    /// No channel for it.
    #[error("a channel to a new child could not be made")]
    Channel(#[source] io::Error),
    /// The fork server could not fork.
    #[error("the fork server could not make a child")]
    Fork(#[source] io::Error),
    /// The fork server did not answer.
    #[error("the fork server did not answer in time")]
    TimedOut,
}

impl Supervisor {
    /// Makes a child. Blocks for a few milliseconds.
    ///
    /// # Errors
    /// When the fork server is gone, slow or out of resources.
    pub fn spawn(&self, limits: &ChildLimits) -> Result<Child, SpawnError> {
        let (ours, theirs) = Channel::pair().map_err(SpawnError::Channel)?;
        let child = self.shared.register()?;
        let request = ForkRequest::Spawn { child, memory_limit: limits.memory_bytes, cpu_seconds: limits.cpu_seconds };
        if self.shared.control.send_with_fd(&request, theirs.as_fd()).is_err() {
            self.shared.forget(child);
            return Err(SpawnError::Lost);
        }
        // From here on the only other end is the child's: its end is our end of file.
        drop(theirs);
        match self.shared.wait_for(child, SPAWN_LIMIT, |life| !matches!(life, Life::Asked)) {
            Some(Life::Runs { pid }) => Child::new(Arc::clone(&self.shared), child, Some(pid), ours).map_err(SpawnError::Channel),
            Some(Life::Ended(_)) => Child::new(Arc::clone(&self.shared), child, None, ours).map_err(SpawnError::Channel),
            Some(Life::Failed { errno }) => {
                self.shared.forget(child);
                Err(SpawnError::Fork(io::Error::from_raw_os_error(errno)))
            }
            Some(Life::Asked) => {
                self.shared.abandon(child);
                Err(SpawnError::TimedOut)
            }
            None => Err(SpawnError::Lost),
        }
    }

    /// The fork server is gone.
    pub fn lost(&self) -> bool {
        self.shared.state().lost
    }
}

/// Where a child is in its life, as the fork server tells.
#[derive(Clone, Copy, Debug)]
pub(super) enum Life {
    Asked,
    Runs { pid: u32 },
    Failed { errno: i32 },
    Ended(ChildExit),
}

#[derive(Debug)]
struct Entry {
    life: Life,
    /// Nobody asks for its end any more.
    abandoned: bool,
}

#[derive(Debug, Default)]
struct State {
    lost: bool,
    next: u64,
    children: HashMap<ChildId, Entry>,
}

/// What the reading thread, the supervisors and the children share.
#[derive(Debug)]
pub(super) struct Shared {
    control: Channel,
    state: Mutex<State>,
    changed: Condvar,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn register(&self) -> Result<ChildId, SpawnError> {
        let mut state = self.state();
        if state.lost {
            return Err(SpawnError::Lost);
        }
        state.next += 1;
        let child = ChildId(state.next);
        state.children.insert(child, Entry { life: Life::Asked, abandoned: false });
        Ok(child)
    }

    fn forget(&self, child: ChildId) {
        self.state().children.remove(&child);
    }

    /// Kills the child and forgets it once it has ended.
    pub(super) fn abandon(&self, child: ChildId) {
        let mut state = self.state();
        match state.children.get_mut(&child) {
            Some(Entry { life: Life::Ended(_) | Life::Failed { .. }, .. }) => {
                state.children.remove(&child);
            }
            Some(entry) => {
                entry.abandoned = true;
                drop(state);
                self.kill(child);
            }
            None => {}
        }
    }

    pub(super) fn kill(&self, child: ChildId) {
        // A fork server that cannot be told is gone, and its children with it.
        let _ = self.control.send(&ForkRequest::Kill { child });
    }

    /// Waits until the child's life is as wanted; gives it as it is when the limit is over. `None`: the fork server is gone.
    pub(super) fn wait_for(&self, child: ChildId, limit: Duration, wanted: impl Fn(Life) -> bool) -> Option<Life> {
        let until = Instant::now() + limit;
        let mut state = self.state();
        loop {
            let life = state.children.get(&child)?.life;
            if wanted(life) {
                return Some(life);
            }
            if state.lost {
                return None;
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Some(life);
            }
            state = self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Reads until the fork server closes its channel or breaks the protocol.
    fn read_events(&self) -> Option<ChannelError> {
        loop {
            match self.control.recv::<ForkEvent>() {
                Ok(Some(event)) => {
                    if !self.note(&event) {
                        return Some(ChannelError::Malformed);
                    }
                }
                Ok(None) => return None,
                Err(error) => return Some(error),
            }
        }
    }

    /// False for an event that makes no sense.
    fn note(&self, event: &ForkEvent) -> bool {
        let (child, life) = match *event {
            ForkEvent::Spawned { child, pid } => (child, Life::Runs { pid }),
            ForkEvent::SpawnFailed { child, errno } => (child, Life::Failed { errno }),
            ForkEvent::Exited { child, how } => (child, Life::Ended(how)),
            ForkEvent::Ready { .. } | ForkEvent::Refused { .. } => return false,
        };
        let mut state = self.state();
        let Some(entry) = state.children.get_mut(&child) else { return false };
        entry.life = life;
        if entry.abandoned && matches!(life, Life::Ended(_) | Life::Failed { .. }) {
            state.children.remove(&child);
        }
        self.changed.notify_all();
        true
    }

    fn lose(&self) {
        self.state().lost = true;
        self.changed.notify_all();
    }
}
