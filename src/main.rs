//! The daemon's start-up, in order. Nothing is served before the line that says `confine`, and nothing after it can undo it.
//! Trusts: the settings file, systemd's socket, the programs beside this one.
//! Touches: all that the parts need, before confinement; afterwards only what the policy grants.
//! Next: `lifecycle::daemon` serves.

use std::error::Error;
use std::process::ExitCode;

use clap::Parser;
use salama::base::exit::Exit;
use salama::base::told::told;
use salama::config::{Config, ConfigError};
use salama::connection::listener;
use salama::job::calls::OpenCallsError;
use salama::keys::KeeperError;
use salama::lifecycle::arguments::{Arguments, Task};
use salama::lifecycle::daemon::{self, ServeError};
use salama::lifecycle::maintenance;
use salama::lifecycle::notify::Notifier;
use salama::lifecycle::parts::{self, Parts, Secrets, StartKeeperError};
use salama::record::index::IndexKeys;
use salama::record::rollback::TakeUpError;
use salama::record::store::{OpenStore, OpenStoreError};
use salama::sandbox::policy;
use salama::sandbox::process;
use salama::supervisor::lines;
use salama::sys::heap::WipingHeap;

/// What was served of a call is not found in this process afterwards.
#[global_allocator]
static HEAP: WipingHeap = WipingHeap;

fn main() -> ExitCode {
    match run() {
        Ok(()) => Exit::Ok.into(),
        Err(error) => {
            eprintln!("salamad: {}", told(&*error));
            exit(&*error).into()
        }
    }
}

/// systemd starts a daemon again that ended with `Exit::Failed`, and leaves one alone that only people can help.
fn exit(error: &(dyn Error + 'static)) -> Exit {
    match error.downcast_ref::<StartKeeperError>() {
        Some(StartKeeperError::Keeper(KeeperError::Refused { exit, .. })) => *exit,
        _ if matches!(error.downcast_ref(), Some(OpenStoreError::Missing { .. } | OpenStoreError::Schema(_))) => Exit::Config,
        _ if error.downcast_ref::<TakeUpError>().is_some_and(TakeUpError::is_refusal) => Exit::Config,
        _ if matches!(error.downcast_ref(), Some(ServeError::Calls(OpenCallsError::OtherEpoch(_)))) => Exit::Config,
        _ if error.is::<ConfigError>() => Exit::Config,
        _ => Exit::Failed,
    }
}

/// arguments > config > harden > listener > worker begins > keeper > privileges > store > confine (no way back) > worker ready > store taken up > serve
fn run() -> Result<(), Box<dyn Error>> {
    let arguments = Arguments::parse();
    if let Some(Task::Store(task)) = arguments.task {
        return Ok(maintenance::run(&arguments.config, &task)?);
    }
    let config = Config::load(&arguments.config)?;
    if arguments.check {
        return Ok(());
    }
    let hardened = process::harden(&listener::inherited()?)?;
    hardened.lock_memory()?;
    salama::audit::journald::init("salamad")?;

    let notifier = Notifier::connect();
    let listener = listener::open(config.listen.address)?;
    let workers = parts::begin_workers(&config)?;
    let keeper = parts::start_keeper(&config, Secrets::of_the_unit(), lines::of_the_daemon()?)?;

    let unprivileged = hardened.drop_privileges(parts::user(&config.process.user).as_deref())?;
    let index = IndexKeys::derive(&keeper.greeting.index_key)?;
    let store = OpenStore::open(&config.state.directory, config.state.ballast, &index)?;
    parts::is_newest(&store, &index, &keeper)?;
    let confined = unprivileged.confine(&policy::core::POLICY, &parts::grants(&config, &arguments.config))?;
    let workers = workers.ready()?;
    // Last: each time writes the TPM's memory, and a start that fails is tried again every few seconds.
    parts::take_up(&store, &index, &keeper)?;

    daemon::serve(confined, Parts { config, notifier, listener, keeper, workers, index, store })?;
    Ok(())
}
