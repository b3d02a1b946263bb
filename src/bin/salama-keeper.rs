//! The key process's start-up: arguments > harden > TPM > root key > confine > TPM tried out > answer.
//! Trusts: whoever started it.
//! Touches: the TPM, the key directory, its channel.
//! Next: `keeper::serve` answers until the other side closes.

#![cfg_attr(test, allow(clippy::as_conversions, clippy::unreachable, reason = "a test says what it expects, loudly"))]

#[path = "../keeper/mod.rs"]
mod keeper;

use std::error::Error;
use std::io::{self, Write as _};
use std::process::ExitCode;

use crate::keeper::args::{Arguments, KeysArgs, Mode, ProvisionArgs, ServeArgs};
use crate::keeper::held::HeldError;
use crate::keeper::manage;
use crate::keeper::owner::OwnerAuth;
use crate::keeper::provision::{Plan, provision};
use crate::keeper::serve::{Keeper, Keys};
use crate::keeper::startup::{Opened, StartError, account, open_console, open_daemon};
use clap::Parser;
use salama::base::clock::SystemClock;
use salama::base::exit::Exit;
use salama::base::told::told;
use salama::ipc::CHANNEL_FD;
use salama::ipc::channel::Channel;
use salama::ipc::keeper::KeeperReply;
use salama::sandbox::process::{Confined, Hardened, harden};
use salama::sys::descriptors::take_inherited;
use salama::sys::heap::{WipingHeap, wipe_foreign_heap};
use salama::{base, ipc, sandbox};

/// Keys that pass through buffers of libraries do not stay there.
#[global_allocator]
static HEAP: WipingHeap = WipingHeap;

fn main() -> ExitCode {
    wipe_foreign_heap();
    let exit = match Arguments::try_parse() {
        Ok(Arguments { mode: Mode::Serve(args) }) => serve(&args, open_daemon),
        Ok(Arguments { mode: Mode::Console(args) }) => serve(&args, open_console),
        Ok(Arguments { mode: Mode::Keys(args) }) => change_keys(&args),
        Ok(Arguments { mode: Mode::Provision(args) }) => make_keys(&args),
        Err(error) => {
            let _ = error.print();
            if error.use_stderr() { Exit::Usage } else { Exit::Ok }
        }
    };
    exit.into()
}

type Open = fn(&ServeArgs) -> Result<Opened, StartError>;

/// Starts, answers until the other side closes, and says why it could not.
fn serve(args: &ServeArgs, open: Open) -> Exit {
    let hardened = match harden(&[CHANNEL_FD]) {
        Ok(hardened) => hardened,
        Err(error) => return say(&error, "salama-keeper refuses to start", Exit::Failed),
    };
    let channel = match take_inherited(CHANNEL_FD) {
        Ok(socket) => Channel::from_fd(socket),
        Err(error) => return say(&error, "salama-keeper is started by salamad and salama, with a channel on descriptor 3", Exit::Usage),
    };
    let (opened, confined) = match start(hardened, args, open) {
        Ok(started) => started,
        Err(error) => return refuse(&channel, &error),
    };
    let (beside_daemon, (ledger, before)) = (opened.held.is_some(), opened.ledger);
    let keeper = Keeper::new(opened.keys, opened.held, &opened.limits, opened.grants, opened.journal, SystemClock);
    // The console's has counted its start, and holds its file to be the only one.
    let (keeper, _alone) = if beside_daemon { (keeper.remembering(ledger, &before), None) } else { (keeper, Some(ledger)) };
    match keeper.answer(&confined, &channel, opened.greeting) {
        Ok(()) => Exit::Ok,
        Err(error) => say(&error, "salama-keeper ends", Exit::Failed),
    }
}

/// The start-up story. After `confine` nothing can be opened but files of the key directory, and that only beside the daemon.
fn start(hardened: Hardened, args: &ServeArgs, open: Open) -> Result<(Opened, Confined), StartError> {
    let account = account(args)?;
    hardened.lock_memory()?;
    let mut opened = open(args)?;
    // Its chain of lines has begun, and is to have an end.
    hardened.outlive_a_stop()?;
    let unprivileged = hardened.drop_privileges(account.as_deref())?;
    let confined = unprivileged.confine(opened.policy, &opened.access)?;
    if let Some(held) = &opened.held {
        held.borrow().try_out()?;
    }
    if let Keys::Daemon { deks, .. } = &mut opened.keys {
        deks.try_out().map_err(HeldError::from)?;
    }
    Ok((opened, confined))
}

/// The other side shows the reason to the operator; standard error has it only when nobody listens.
fn refuse(channel: &Channel, error: &StartError) -> Exit {
    match channel.send(&KeeperReply::Refused { reason: told(error), exit: error.exit().code() }) {
        Ok(()) => error.exit(),
        Err(_) => say(error, "salama-keeper refuses to start", error.exit()),
    }
}

/// Converses with the operator's `salama keys`, once, and ends.
fn change_keys(args: &KeysArgs) -> Exit {
    let guarded = harden(&[CHANNEL_FD]).map_err(StartError::from).and_then(|hardened| {
        hardened.lock_memory()?;
        Ok(hardened)
    });
    let hardened = match guarded {
        Ok(hardened) => hardened,
        Err(error) => return say(&error, "the keyslots were not touched", error.exit()),
    };
    let channel = match take_inherited(CHANNEL_FD) {
        Ok(socket) => Channel::from_fd(socket),
        Err(error) => return say(&error, "salama-keeper keys is started by salama, with a channel on descriptor 3", Exit::Usage),
    };
    manage::run(hardened, args, &channel, &SystemClock).unwrap_or_else(|error| say(&error, "salama-keeper ends", Exit::Failed))
}

fn make_keys(args: &ProvisionArgs) -> Exit {
    let guarded = harden(&[]).map_err(StartError::from).and_then(|hardened| Ok(hardened.lock_memory()?));
    if let Err(error) = guarded {
        return say(&error, "no keys were made", error.exit());
    }
    let owner_auth = match args.owner_auth.as_deref().map(OwnerAuth::read).transpose() {
        Ok(password) => password,
        Err(error) => return say(&error, "no keys were made", Exit::Io),
    };
    let plan = Plan {
        directory: &args.directory,
        tpm: &args.tpm,
        owner_auth: owner_auth.as_ref(),
        box_name: &args.name,
        server_names: &args.server_names,
        server_days: args.server_days,
        owner: args.owner.as_deref(),
    };
    match provision(&plan, &SystemClock) {
        Ok(()) => Exit::Ok,
        Err(error) => say(&error, "no keys were made", Exit::Io),
    }
}

fn say(error: &dyn Error, what: &str, exit: Exit) -> Exit {
    let _ = writeln!(io::stderr(), "{what}: {}", told(error));
    exit
}
