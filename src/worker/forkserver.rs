//! Forks one child a call on request, watches the children, kills them when told to.
//! Trusts: `salamad` to ask for children; reads nothing that a stranger sent.
//! Touches: its channel, its children.
//! Next: a child serves its one call through [`Work::serve`] and exits.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::marker::PhantomData;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::panic::{AssertUnwindSafe, catch_unwind};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::prctl;
use nix::sys::resource::Resource;
use nix::sys::signal::Signal;
use nix::unistd::{Pid, getpid, getppid};

use crate::ipc::PROTOCOL_VERSION;
use crate::ipc::channel::{Channel, ChannelError};
use crate::ipc::worker::{ChildEvent, ChildExit, ChildId, ForkEvent, ForkRequest, LoadedModel};
use crate::sandbox::process::Offspring;
use crate::sys::descriptors::{close_all_but, silence_standard_error};
use crate::sys::limits::{AddressSpace, set_limit};
use crate::sys::pidfd::{Ended, PidFd};
use crate::sys::process::{Forked, exit_now, ignore_file_size_signal};

/// Most children at a time; `salamad` allows itself far fewer.
pub const CHILDREN_MAX: usize = 64;

/// Exit code of a child whose work panicked. Its message may hold content and goes nowhere.
pub const EXIT_PANICKED: u8 = 101;
/// Exit code of a child that could not be limited or confined, and so never began.
pub const EXIT_UNCONFINED: u8 = 102;
/// Exit code of a child that could not say that it is ready: nobody waits for it any more.
pub const EXIT_UNWANTED: u8 = 103;

/// Descriptors that a child may have; it needs two, and one more while it is confined.
const CHILD_DESCRIPTORS: u64 = 16;
/// Threads and processes of the account at which a child can start no more threads: it must not be able to use up what systemd
/// allows the whole daemon (`TasksMax`, twice as many). The kernel counts by account over the machine, not by process, hence so
/// many; it would not count for root, which the fork server never is.
const ACCOUNT_THREADS: u64 = 512;
/// Seconds between the signal that processor time is over and the kill.
const CPU_GRACE: u64 = 2;

/// What children do.
pub trait Work {
    /// What is loaded once, before the first fork, and shared by all children.
    type Models;

    /// Serves one call over `channel`, confined, and gives the exit code. [`ChildEvent::Ready`] has been sent.
    fn serve(models: &Self::Models, channel: Channel) -> u8;
}

/// The fork server, confined.
#[derive(Debug)]
pub struct ForkServer<W: Work> {
    control: Channel,
    offspring: Offspring,
    address_space: AddressSpace,
    null: File,
    models: W::Models,
    children: HashMap<ChildId, PidFd>,
    work: PhantomData<W>,
}

/// What a child may use.
#[derive(Clone, Copy, Debug)]
struct Limits {
    memory: u64,
    cpu_seconds: u32,
}

/// Why the fork server stopped.
#[derive(Debug, thiserror::Error)]
pub enum ForkServerError {
    /// `salamad` broke the protocol or its socket failed.
    #[error("the channel to salamad failed")]
    Channel(#[from] ChannelError),
    /// The kernel.
    #[error("waiting for requests and children failed")]
    Wait(#[source] io::Error),
}

impl<W: Work> ForkServer<W> {
    /// Takes all that is ready before the first call. `address_space` and `null`, `/dev/null`, were opened before confinement.
    pub fn new(control: Channel, offspring: Offspring, address_space: AddressSpace, null: File, models: W::Models) -> Self {
        Self { control, offspring, address_space, null, models, children: HashMap::new(), work: PhantomData }
    }

    /// Says that it is ready, then obeys until `salamad` closes the channel; then ends all children.
    ///
    /// # Errors
    /// When the channel breaks. The children have been ended then, too.
    pub fn run(mut self, loaded: Vec<LoadedModel>) -> Result<(), ForkServerError> {
        let served = self.serve(loaded);
        for child in self.children.values() {
            // An error would mean that the child has ended.
            let _ = child.signal(Signal::SIGKILL);
            let _ = child.wait();
        }
        match served {
            // It ended between two messages, instead of between two requests.
            Err(ForkServerError::Channel(ChannelError::Socket(error)))
                if matches!(error.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset) =>
            {
                Ok(())
            }
            served => served,
        }
    }

    fn serve(&mut self, loaded: Vec<LoadedModel>) -> Result<(), ForkServerError> {
        self.control.send(&ForkEvent::Ready { version: PROTOCOL_VERSION, models: loaded })?;
        loop {
            let (request, ended) = self.wait().map_err(ForkServerError::Wait)?;
            for child in ended {
                self.report_end(child)?;
            }
            if request {
                match self.control.recv_with_fd::<ForkRequest>()? {
                    Some((request, socket)) => self.obey(request, socket)?,
                    None => return Ok(()),
                }
            }
        }
    }

    /// Waits until there is a request (or `salamad` is gone), or children that have ended.
    fn wait(&self) -> io::Result<(bool, Vec<ChildId>)> {
        let mut ids = Vec::with_capacity(self.children.len());
        let mut watched = vec![PollFd::new(self.control.as_fd(), PollFlags::POLLIN)];
        for (id, child) in &self.children {
            ids.push(*id);
            watched.push(PollFd::new(child.as_fd(), PollFlags::POLLIN));
        }
        loop {
            match poll(&mut watched, PollTimeout::NONE) {
                Ok(_) => break,
                Err(Errno::EINTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
        let mut ready = watched.iter().map(|fd| fd.any() != Some(false));
        let request = ready.next() == Some(true);
        let ended = ready.zip(ids).filter_map(|(ended, id)| ended.then_some(id)).collect();
        Ok((request, ended))
    }

    fn report_end(&mut self, child: ChildId) -> Result<(), ForkServerError> {
        let ended = match self.children.get(&child).map(PidFd::try_wait) {
            Some(Ok(Some(ended))) => ended,
            Some(Err(error)) => return Err(ForkServerError::Wait(error)),
            Some(Ok(None)) | None => return Ok(()),
        };
        self.children.remove(&child);
        let how = match ended {
            Ended::Code(code) => ChildExit::Code(code),
            Ended::Signal(signal) => ChildExit::Signal(signal),
        };
        Ok(self.control.send(&ForkEvent::Exited { child, how })?)
    }

    fn obey(&mut self, request: ForkRequest, socket: Option<OwnedFd>) -> Result<(), ForkServerError> {
        match request {
            ForkRequest::Kill { child } => {
                if let Some(process) = self.children.get(&child) {
                    process.signal(Signal::SIGKILL).map_err(ForkServerError::Wait)?;
                }
                Ok(())
            }
            ForkRequest::Spawn { child, memory_limit, cpu_seconds } => {
                let limits = Limits { memory: memory_limit, cpu_seconds };
                let event = match self.spawn(child, limits, socket) {
                    Ok(pid) => ForkEvent::Spawned { child, pid: pid.as_raw().unsigned_abs() },
                    Err(SpawnError::Unwatched(error)) => return Err(ForkServerError::Wait(error)),
                    Err(SpawnError::Refused(error)) => ForkEvent::SpawnFailed { child, errno: error.raw_os_error().unwrap_or(libc::EIO) },
                };
                Ok(self.control.send(&event)?)
            }
        }
    }

    /// In the child this never returns.
    fn spawn(&mut self, child: ChildId, limits: Limits, socket: Option<OwnedFd>) -> Result<Pid, SpawnError> {
        let socket = socket.ok_or(io::Error::from(Errno::EBADF))?;
        if self.children.contains_key(&child) {
            return Err(SpawnError::Refused(Errno::EEXIST.into()));
        }
        if self.children.len() >= CHILDREN_MAX {
            return Err(SpawnError::Refused(Errno::EAGAIN.into()));
        }
        let address_space = self.address_space.bytes()?.saturating_add(limits.memory);
        let parent = getpid();
        // Holds a number for the child's descriptor, so that a full table refuses a child before there is one.
        let reserve = PidFd::open(parent)?;
        match self.offspring.fork()? {
            Forked::Parent(pid) => {
                drop(reserve);
                self.children.insert(child, PidFd::open(pid).map_err(SpawnError::Unwatched)?);
                Ok(pid)
            }
            Forked::Child => exit_now(self.live(socket, parent, Limits { memory: address_space, ..limits })),
        }
    }

    /// A child's whole life: alone with its channel > limited > confined > ready > one call. What it owns of its parent is
    /// closed, not dropped: the process ends without running destructors.
    fn live(&self, socket: OwnedFd, parent: Pid, limits: Limits) -> u8 {
        let number = socket.as_raw_fd();
        if isolate(number, self.null.as_fd(), parent, limits).is_err() || self.offspring.confine_child().is_err() {
            return EXIT_UNCONFINED;
        }
        let channel = Channel::from_fd(socket);
        if channel.send(&ChildEvent::Ready).is_err() {
            return EXIT_UNWANTED;
        }
        catch_unwind(AssertUnwindSafe(|| W::serve(&self.models, channel))).unwrap_or(EXIT_PANICKED)
    }
}

/// Why there is no child to watch.
#[derive(Debug, thiserror::Error)]
enum SpawnError {
    /// There is none.
    #[error("no child was forked")]
    Refused(#[from] io::Error),
    /// There is one that could be neither watched nor killed: `kill` by number is forbidden here, because a number may come to mean
    /// another process. The fork server ends, which kills it (`PR_SET_PDEATHSIG`).
    #[error("a child could not be watched")]
    Unwatched(#[source] io::Error),
}

/// Standard error goes first: what a child writes, honest or taken over, must not reach the journal.
fn isolate(channel: RawFd, null: BorrowedFd<'_>, parent: Pid, limits: Limits) -> io::Result<()> {
    silence_standard_error(null)?;
    close_all_but(&[libc::STDERR_FILENO, channel])?;
    prctl::set_pdeathsig(Signal::SIGKILL)?;
    // Gone before the line above could take effect.
    if getppid() != parent {
        return Err(Errno::ESRCH.into());
    }
    let cpu = u64::from(limits.cpu_seconds);
    set_limit(Resource::RLIMIT_CPU, cpu, cpu.saturating_add(CPU_GRACE))?;
    set_limit(Resource::RLIMIT_AS, limits.memory, limits.memory)?;
    set_limit(Resource::RLIMIT_NOFILE, CHILD_DESCRIPTORS, CHILD_DESCRIPTORS)?;
    set_limit(Resource::RLIMIT_NPROC, ACCOUNT_THREADS, ACCOUNT_THREADS)?;
    set_limit(Resource::RLIMIT_CORE, 0, 0)?;
    set_limit(Resource::RLIMIT_FSIZE, 0, 0)?;
    ignore_file_size_signal()
}
