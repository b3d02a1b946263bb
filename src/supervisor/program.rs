//! Starts another of our programs with one end of a channel as its descriptor 3.
//! Trusts: the directory that holds this executable.
//! Touches: fork and exec, so only before confinement and before any thread.
//! Next: the program finds its channel with [`crate::ipc::CHANNEL_FD`].

use std::env;
use std::ffi::OsStr;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use nix::unistd::Pid;

use crate::ipc::CHANNEL_FD;
use crate::ipc::channel::Channel;
use crate::sys::pidfd::PidFd;
use crate::sys::process::start_with_descriptor;

/// What programs of ours find in their environment: nothing of ours is configured by it.
/// The TPM library writes to standard error unless it is told not to.
const ENVIRONMENT: [(&str, &str); 1] = [("TSS2_LOG", "all+NONE")];

/// A program that was started.
#[derive(Debug)]
pub struct Started {
    /// Our end.
    pub channel: Channel,
    /// Its process id, for the journal.
    pub pid: u32,
    /// To wait for it.
    pub process: PidFd,
}

/// Where a program of ours lies: beside this one.
///
/// # Errors
/// When this executable's own path cannot be read.
pub fn beside(name: &str) -> io::Result<PathBuf> {
    Ok(env::current_exe()?.with_file_name(name))
}

/// Starts `path` with `arguments`, an empty environment, standard error shared, standard input and output at `/dev/null`.
///
/// # Errors
/// When the program is not there, or the kernel refuses.
pub fn spawn<A: AsRef<OsStr>>(path: &Path, arguments: impl IntoIterator<Item = A>) -> Result<Started, SpawnError> {
    spawn_with(path, arguments, &[])
}

/// As [`spawn`], with something in the environment: settings of libraries that can be made in no other way.
///
/// # Errors
/// As [`spawn`].
pub fn spawn_with<A: AsRef<OsStr>>(
    path: &Path,
    arguments: impl IntoIterator<Item = A>,
    environment: &[(&str, &str)],
) -> Result<Started, SpawnError> {
    spawn_saying(path, arguments, environment, Stdio::inherit())
}

/// As [`spawn_with`], with a standard error of its own.
///
/// # Errors
/// As [`spawn`].
pub fn spawn_saying<A: AsRef<OsStr>>(
    path: &Path,
    arguments: impl IntoIterator<Item = A>,
    environment: &[(&str, &str)],
    errors: Stdio,
) -> Result<Started, SpawnError> {
    let failed = |source| SpawnError::Start { path: path.to_owned(), source };
    let (ours, theirs) = Channel::pair().map_err(SpawnError::Channel)?;
    let mut command = Command::new(path);
    command
        .args(arguments)
        .env_clear()
        .envs(ENVIRONMENT)
        .envs(environment.iter().copied())
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(errors);
    let child = start_with_descriptor(command, theirs.into_fd(), CHANNEL_FD).map_err(failed)?;
    let pid = i32::try_from(child.id()).map_err(|_| failed(io::ErrorKind::InvalidData.into()))?;
    let process = PidFd::open(Pid::from_raw(pid)).map_err(failed)?;
    Ok(Started { channel: ours, pid: child.id(), process })
}

/// A program could not be started.
#[derive(Debug, thiserror::Error)]
pub enum SpawnError {
    /// No channel.
    #[error("a channel to a new process could not be made")]
    Channel(#[source] io::Error),
    /// No program.
    #[error("{path} could not be started; is Salama installed completely?")]
    Start {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}
