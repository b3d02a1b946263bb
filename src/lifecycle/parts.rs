//! What the start-up story starts and hands over, made from the settings.
//! Trusts: the checked settings.
//! Touches: starts the keeper and the fork server, before any thread exists.
//! Next: [`super::daemon`] wires the parts.

use std::error::Error;
use std::ffi::OsString;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use nix::unistd::geteuid;

use super::notify::Notifier;
use crate::audit::{self, Event};
use crate::base::told::told;
use crate::config::Config;
use crate::ipc::keeper::{KeeperDenial, Leave};
use crate::job::calls::JobSettings;
use crate::keys::{Keeper, KeeperError, KeeperGreeting};
use crate::record::index::IndexKeys;
use crate::record::rollback::{TakeUpError, TakenUp};
use crate::record::store::OpenStore;
use crate::sandbox::process::Grant;
use crate::supervisor::forkserver::{ForkServer, StartError as WorkerStartError, Starting, WorkerSettings};
use crate::supervisor::program::{self, SpawnError};
use crate::sys::pidfd::PidFd;

/// Seconds of processor time that a child has beyond its limit: the clock is to stop it, with a reason; this is the net below.
const CPU_MARGIN: u32 = 5;
/// The systemd credential with the password of the TPM's owner hierarchy.
const OWNER_AUTH: &str = "tpm-owner-auth";
/// The systemd credential with the PIN of the TPM's keyslot.
const PIN: &str = "tpm-pin";
/// How long the fork server may take to read, hash, load and warm up its models.
const MODELS_LIMIT: Duration = Duration::from_secs(120);
/// Longest time without a word from a child: one region of speech on a slow processor.
const CHILD_SILENCE_LIMIT: Duration = Duration::from_secs(180);
/// Time for one text of the longest kind.
const TEXT_LIMIT: Duration = Duration::from_secs(60);
/// Time that any call may take, however short.
const CALL_TIME_BASE: Duration = Duration::from_secs(120);
/// On top of it, seconds for each second of audio and channel: slower than this is of no use to anybody.
const CALL_TIME_PER_AUDIO: u32 = 10;
/// Before something is tried again that failed for reasons outside the call.
const RETRY_PAUSE: Duration = Duration::from_secs(5);
/// With pauses that grow from there, a call is tried again for a day: long enough for somebody to come and mend what health names.
const SETBACKS_MAX: u32 = 144;
/// Texts that are redacted at once.
const TEXTS_AT_ONCE: u8 = 2;

/// Everything that was opened before confinement.
pub struct Parts {
    /// The settings.
    pub config: Config,
    /// The line to systemd.
    pub notifier: Notifier,
    /// Where clients connect.
    pub listener: TcpListener,
    /// The key process.
    pub keeper: StartedKeeper,
    /// The fork server.
    pub workers: ForkServer,
    /// The keys of what can be found without opening a call.
    pub index: IndexKeys,
    /// The store, not yet writing.
    pub store: OpenStore,
}

/// A keeper that has opened its keys.
pub struct StartedKeeper {
    /// The handle.
    pub keeper: Keeper,
    /// What it said first.
    pub greeting: KeeperGreeting,
    /// To notice its end.
    pub process: PidFd,
}

/// Files with what the keeper needs to know besides. It reads them; this process never does.
#[derive(Debug)]
pub struct Secrets {
    /// The password of the TPM's owner hierarchy.
    pub owner_auth: Option<PathBuf>,
    /// The PIN of the TPM's keyslot.
    pub pin: Option<PathBuf>,
}

impl Secrets {
    /// Those that systemd gave.
    pub fn of_the_unit() -> Self {
        Self { owner_auth: credential(OWNER_AUTH), pin: credential(PIN) }
    }
}

/// Starts `salama-keeper` and waits until its keys are open.
///
/// # Errors
/// The keeper's own words when the TPM refuses.
pub fn start_keeper(config: &Config, secrets: Secrets, lines: Stdio) -> Result<StartedKeeper, StartKeeperError> {
    let program = program::beside("salama-keeper").map_err(StartKeeperError::Find)?;
    let settings = &config.keeper;
    let mut arguments: Vec<OsString> = vec!["serve".into(), "--directory".into(), settings.directory.clone().into()];
    arguments.extend(["--tpm".into(), settings.tpm.as_str().into()]);
    arguments.extend(secrets.owner_auth.into_iter().flat_map(|file| ["--owner-auth".into(), file.into()]));
    arguments.extend(secrets.pin.into_iter().flat_map(|file| ["--pin".into(), file.into()]));
    arguments.extend(user(&config.process.keeper_user).into_iter().flat_map(|user| ["--user".into(), user.into()]));
    let started = program::spawn_saying(&program, arguments, &[], lines)?;
    let (keeper, greeting) = Keeper::connect(started.channel)?;
    Ok(StartedKeeper { keeper, greeting, process: started.process })
}

/// Whether the store will be taken up: what only people can change is said at once, before the models are loaded.
///
/// # Errors
/// [`TakeUpError`].
pub fn is_newest(store: &OpenStore, index: &IndexKeys, started: &StartedKeeper) -> Result<(), TakeUpError> {
    let counter = started.greeting.counter;
    let newest = store.is_newest(index, counter);
    if newest.as_ref().is_err_and(TakeUpError::is_refusal) {
        audit::record(&Event::StoreRefused { counted: counter.value });
    }
    newest
}

/// Takes the store up, when it is the newest that this box had, or with the operator's leave.
///
/// # Errors
/// [`TakeUpError`].
pub fn take_up(store: &OpenStore, index: &IndexKeys, started: &StartedKeeper) -> Result<(), TakeUpError> {
    let counter = started.greeting.counter;
    // Before the count that ends the leave: a start that is cut off there would be nobody's.
    let hear = |taken: &TakenUp| {
        if let TakenUp::WithLeave { said, counted, .. } = taken {
            audit::record(&Event::StoreTakenWithLeave { said: *said, counted: *counted });
        }
    };
    match store.take_up(index, counter, hear, |from| started.keeper.count(from)) {
        // The store says that it is to be counted, which fits until it is: by the next move of the epoch, or the next start.
        Err(TakeUpError::Count(error)) if counter.leave == Leave::None && is_limit(&*error) => {
            audit::record(&Event::Fault { call: None, step: "count start", cause: told(&*error) });
            Ok(())
        }
        taken => taken.map(drop),
    }
}

/// Whether the keeper has counted as often as it may within the hour: no reason not to serve.
fn is_limit(error: &(dyn Error + 'static)) -> bool {
    matches!(error.downcast_ref(), Some(KeeperError::Denied(KeeperDenial::RateLimited { .. })))
}

/// The file of a credential, when systemd gave it.
fn credential(name: &str) -> Option<PathBuf> {
    let credentials = PathBuf::from(std::env::var_os("CREDENTIALS_DIRECTORY")?);
    Some(credentials.join(name)).filter(|file| file.exists())
}

/// Why there is no keeper.
#[derive(Debug, thiserror::Error)]
pub enum StartKeeperError {
    /// Where am I?
    #[error("salama-keeper was not found beside salamad")]
    Find(#[source] std::io::Error),
    /// It could not be started.
    #[error(transparent)]
    Spawn(#[from] SpawnError),
    /// It did not open the keys.
    #[error(transparent)]
    Keeper(#[from] KeeperError),
}

/// Starts `salama-worker`, which loads its models while the rest of the daemon starts.
///
/// # Errors
/// When it cannot be started.
pub fn begin_workers(config: &Config) -> Result<Starting, StartWorkersError> {
    let settings = WorkerSettings {
        program: program::beside("salama-worker").map_err(StartWorkersError::Find)?,
        models: config.models.directory.clone(),
        asr: config.models.asr.to_string(),
        user: user(&config.process.worker_user),
        start_limit: MODELS_LIMIT,
    };
    Ok(ForkServer::begin(&settings)?)
}

/// Why there are no workers.
#[derive(Debug, thiserror::Error)]
pub enum StartWorkersError {
    /// Where am I?
    #[error("salama-worker was not found beside salamad")]
    Find(#[source] std::io::Error),
    /// It did not become ready.
    #[error(transparent)]
    Start(#[from] WorkerStartError),
}

/// The user to become: only root can, and root must.
pub fn user(name: &str) -> Option<String> {
    geteuid().is_root().then(|| name.to_owned())
}

/// What landlock leaves to the core.
pub fn grants(config: &Config, settings_file: &Path) -> Vec<Grant> {
    vec![Grant::ReadWrite(config.state.directory.clone()), Grant::ReadOnly(settings_file.to_owned())]
}

/// Limits of the desk of calls.
pub fn job_settings(config: &Config) -> JobSettings {
    let jobs = &config.jobs;
    let seconds = |duration: Duration| u32::try_from(duration.as_secs()).unwrap_or(u32::MAX);
    JobSettings {
        state: config.state.directory.clone(),
        reserve: config.state.reserve,
        concurrent: jobs.concurrent,
        threads: jobs.threads,
        queue: usize::try_from(jobs.queue).unwrap_or(usize::MAX),
        attempts: jobs.attempts,
        max_audio_bytes: jobs.max_audio,
        max_audio_seconds: seconds(jobs.max_duration),
        child_memory: jobs.memory,
        child_cpu_seconds: seconds(jobs.time_limit).saturating_mul(jobs.threads.into()).saturating_add(CPU_MARGIN),
        time_base: CALL_TIME_BASE,
        time_per_audio: CALL_TIME_PER_AUDIO,
        time_limit: jobs.time_limit,
        epoch_interval: config.state.erasure_interval,
        silence: CHILD_SILENCE_LIMIT,
        text_concurrent: TEXTS_AT_ONCE,
        text_time: TEXT_LIMIT,
        pause: RETRY_PAUSE,
        setbacks: SETBACKS_MAX,
    }
}
