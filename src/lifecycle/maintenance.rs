//! `salamad … store check|compact`: work on the store while no daemon runs, started by `salama store`.
//! Trusts: the settings file; who starts it is root or the store's user.
//! Touches: the store, confined as the daemon is; a keeper of its own, started before; the journal.
//! Next: its words go to `cli::store`.

use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use clap::{Args, Subcommand};
use nix::unistd::{Uid, User, geteuid};

use super::parts::{self, Secrets, StartedKeeper};
use crate::audit::{self, Event};
use crate::base::clock::{Clock as _, SystemClock};
use crate::base::ids::CallId;
use crate::base::secret::Secret;
use crate::base::told::told;
use crate::config::Config;
use crate::ipc::CHANNEL_FD;
use crate::ipc::channel::{Channel, ChannelError};
use crate::ipc::keeper::{DEK_BYTES, KeeperDenial, UnwrapPurpose, WrappedDek};
use crate::ipc::maintenance::{CheckReport, Progress, Refusal, RefusalKind, Stage, Word};
use crate::keys::{Keeper, KeeperError};
use crate::record::check::{self, CheckError, Keys, UnwrapError};
use crate::record::compact::{self, CompactError};
use crate::record::copy::CopyError;
use crate::record::database;
use crate::record::index::IndexKeys;
use crate::record::store::OpenStoreError;
use crate::sandbox::policy;
use crate::sandbox::process::{self, HardenError, Hardened};
use crate::supervisor::lines;
use crate::sys::descriptors::take_inherited;

/// Between two words about the progress of one stage.
const TELL_PAUSE: Duration = Duration::from_millis(100);
/// Calls that are opened at one run: fewer than the keeper opens in a minute.
const OPEN_MOST: u64 = 200;
const STOP_IT: &str =
    "a daemon runs with this store; stop it first (systemctl stop salama.socket salama.service) and start it again afterwards";

/// What is to be done with the store.
#[derive(Clone, Debug, Subcommand)]
pub enum StoreTask {
    /// Look whether it is whole.
    Check(CheckKeys),
    /// Give the room of what was erased back to the disk.
    Compact,
}

/// By which keys.
#[derive(Clone, Debug, Args)]
pub struct CheckKeys {
    /// Start no keeper: check form and presence only.
    #[arg(long)]
    without_keys: bool,
    /// For the keeper: the file with the password of the TPM's owner hierarchy.
    #[arg(long)]
    owner_auth: Option<PathBuf>,
    /// For the keeper: the file with the PIN of the TPM's keyslot.
    #[arg(long)]
    pin: Option<PathBuf>,
}

/// Does it and says how it went.
///
/// # Errors
/// [`MaintenanceError`] when there is nobody to say it to.
pub fn run(settings: &Path, task: &StoreTask) -> Result<(), MaintenanceError> {
    let hardened = process::harden(&[CHANNEL_FD])?;
    let channel = Channel::from_fd(take_inherited(CHANNEL_FD).map_err(MaintenanceError::Alone)?);
    let mut last: Option<(Stage, Instant)> = None;
    let mut tell = |at: Progress| {
        let now = Instant::now();
        if last.is_none_or(|(stage, then)| stage != at.stage || now.duration_since(then) > TELL_PAUSE) {
            last = Some((at.stage, now));
            // Who asked may have gone; the work is not left in the middle for that.
            let _ = channel.send(&Word::At(at));
        }
    };
    let word = work(hardened, settings, task, &mut tell).unwrap_or_else(Word::Refused);
    Ok(channel.send(&word)?)
}

/// `settings > allowed > nobody's > keeper > privileges > confined > the work`
fn work(hardened: Hardened, settings: &Path, task: &StoreTask, tell: &mut dyn FnMut(Progress)) -> Result<Word, Refusal> {
    let config = Config::load(settings).map_err(|error| refusal(RefusalKind::Settings, told(&error)))?;
    let state = &config.state.directory;
    allowed(state)?;
    if database::is_in_use(state).map_err(|error| refusal(RefusalKind::NotAllowed, format!("{}: {error}", state.display())))? {
        return Err(refusal(RefusalKind::InUse, STOP_IT.to_owned()));
    }
    audit::init("salamad").map_err(|error| refusal(RefusalKind::Failed, told(&error)))?;
    let keeper = match task {
        StoreTask::Check(CheckKeys { without_keys: true, .. }) => Err("as it was asked for".to_owned()),
        StoreTask::Check(CheckKeys { owner_auth, pin, .. }) => {
            tell(Progress { stage: Stage::Keys, done: 0, of: 0 });
            start_keeper(&hardened, &config, Secrets { owner_auth: owner_auth.clone(), pin: pin.clone() })
        }
        StoreTask::Compact => Err("none is needed".to_owned()),
    };
    let user = parts::user(&config.process.user);
    let unprivileged = hardened.drop_privileges(user.as_deref()).map_err(|error| refusal(RefusalKind::NotAllowed, told(&error)))?;
    let confined = unprivileged.confine(&policy::core::POLICY, &parts::grants(&config, settings));
    let _confined = confined.map_err(|error| refusal(RefusalKind::Failed, told(&error)))?;
    match task {
        StoreTask::Check(_) => {
            let report = check(state, keeper, tell)?;
            let faults = report.faults.iter().filter(|fault| !fault.is_harmless()).count();
            let faults = u64::try_from(faults).unwrap_or(u64::MAX).saturating_add(report.more_faults);
            audit::record(&Event::StoreChecked { with_keys: report.without_keys.is_none(), faults });
            Ok(Word::Checked(report))
        }
        StoreTask::Compact => {
            let report = compact::compact(state, tell).map_err(|error| not_compacted(&error))?;
            audit::record(&Event::StoreCompacted { freed: report.before.saturating_sub(report.after) });
            Ok(Word::Compacted(report))
        }
    }
}

/// The directory may be entered by its owner and root; who else tries is told so in words.
fn allowed(state: &Path) -> Result<(), Refusal> {
    let found = std::fs::metadata(state).map_err(|error| {
        let kind = if error.kind() == io::ErrorKind::NotFound { RefusalKind::Absent } else { RefusalKind::NotAllowed };
        refusal(kind, format!("{}: {error}", state.display()))
    })?;
    let owner = Uid::from_raw(found.uid());
    if geteuid().is_root() || geteuid() == owner {
        return Ok(());
    }
    let name = User::from_uid(owner).ok().flatten().map_or_else(|| owner.to_string(), |user| user.name);
    Err(refusal(RefusalKind::NotAllowed, format!("{} belongs to the user {name}; run this as root", state.display())))
}

fn start_keeper(hardened: &Hardened, config: &Config, secrets: Secrets) -> Result<StartedKeeper, String> {
    hardened.lock_memory().map_err(|error| told(&error))?;
    parts::start_keeper(config, secrets, lines::of_maintenance()).map_err(|error| told(&error))
}

fn check(state: &Path, keeper: Result<StartedKeeper, String>, tell: &mut dyn FnMut(Progress)) -> Result<CheckReport, Refusal> {
    let opened = keeper.and_then(|started| {
        let index = IndexKeys::derive(&started.greeting.index_key).map_err(|error| told(&error))?;
        Ok((index, started.keeper))
    });
    let report = match &opened {
        Ok((index, keeper)) => {
            let unwrap = |call, wrapped: &WrappedDek| unwrap(keeper, call, wrapped);
            let verify = |call, wrapped: &WrappedDek| verify(keeper, call, wrapped);
            let turn = SystemClock.now().unix_millis() / 1000;
            check::check(state, Ok(Keys { index, unwrap: &unwrap, verify: &verify, open_most: OPEN_MOST, turn }), tell)
        }
        Err(why) => check::check(state, Err(why.clone()), tell),
    };
    report.map_err(|error| not_checked(&error))
}

/// When the keeper opens no more, that is all: its limits hold for this work too.
fn unwrap(keeper: &Keeper, call: CallId, wrapped: &WrappedDek) -> Result<Secret<DEK_BYTES>, UnwrapError> {
    keeper.unwrap_dek(call, wrapped, UnwrapPurpose::Read).map_err(|error| match error {
        KeeperError::Denied(KeeperDenial::RateLimited { .. }) => UnwrapError::Enough,
        KeeperError::Denied(KeeperDenial::WrongKey) => UnwrapError::Wrong,
        _ => UnwrapError::Gone,
    })
}

/// As fast as the keeper lets; it opens nothing, so it lets a thousand in a second.
fn verify(keeper: &Keeper, call: CallId, wrapped: &WrappedDek) -> Result<(), UnwrapError> {
    loop {
        match keeper.verify_dek(call, wrapped) {
            Ok(()) => return Ok(()),
            Err(KeeperError::Denied(KeeperDenial::RateLimited { seconds })) => thread::sleep(Duration::from_secs(seconds.into())),
            Err(KeeperError::Denied(KeeperDenial::WrongKey)) => return Err(UnwrapError::Wrong),
            Err(_) => return Err(UnwrapError::Gone),
        }
    }
}

const fn refusal(kind: RefusalKind, words: String) -> Refusal {
    Refusal { kind, words }
}

fn not_opened(error: &OpenStoreError) -> Refusal {
    match error {
        OpenStoreError::InUse { .. } => refusal(RefusalKind::InUse, STOP_IT.to_owned()),
        OpenStoreError::Full { .. } => refusal(RefusalKind::Disk, told(error)),
        error if error.is_damage() => refusal(RefusalKind::Damaged, told(error)),
        error => refusal(RefusalKind::Failed, told(error)),
    }
}

fn not_checked(error: &CheckError) -> Refusal {
    match error {
        CheckError::Open(error) => not_opened(error),
        CheckError::Absent { .. } => refusal(RefusalKind::Absent, told(error)),
        CheckError::Keeper => refusal(RefusalKind::Failed, told(error)),
        CheckError::Read { .. } | CheckError::Aside(_) => refusal(RefusalKind::Disk, told(error)),
    }
}

fn not_compacted(error: &CompactError) -> Refusal {
    match error {
        CompactError::Open(error) => not_opened(error),
        CompactError::Absent { .. } => refusal(RefusalKind::Absent, told(error)),
        CompactError::Copy(CopyError::Read(_)) => refusal(RefusalKind::Damaged, told(error)),
        CompactError::Copy(_) | CompactError::Size(_) => refusal(RefusalKind::Disk, told(error)),
    }
}

/// Why nothing was said.
#[derive(Debug, thiserror::Error)]
pub enum MaintenanceError {
    /// No confinement.
    #[error(transparent)]
    Harden(#[from] HardenError),
    /// Started by hand.
    #[error("this is started by `salama store`; use that")]
    Alone(#[source] io::Error),
    /// Nobody listens.
    #[error(transparent)]
    Channel(#[from] ChannelError),
}
