//! The key process's start-up: arguments > harden > TPM > root key > TPM closed > confine > answer.
//! Trusts: whoever started it.
//! Touches: the TPM, the key directory, its channel.
//! Next: `keeper::serve` answers until the other side closes.

use std::error::Error;
use std::io::{self, Write as _};
use std::process::ExitCode;

use clap::Parser;
use salama::base::clock::SystemClock;
use salama::base::exit::Exit;
use salama::ipc::CHANNEL_FD;
use salama::ipc::channel::Channel;
use salama::ipc::keeper::KeeperReply;
use salama::keeper::args::{Arguments, Mode, ProvisionArgs, ServeArgs};
use salama::keeper::provision::{Plan, provision};
use salama::keeper::serve::Keeper;
use salama::keeper::startup::{Opened, StartError, open_console, open_daemon, quiet_tpm_library, words};
use salama::sys::descriptors::take_inherited;

fn main() -> ExitCode {
    let exit = match Arguments::try_parse() {
        Ok(Arguments { mode: Mode::Serve(args) }) => serve(&args, open_daemon),
        Ok(Arguments { mode: Mode::Console(args) }) => serve(&args, open_console),
        Ok(Arguments { mode: Mode::Provision(args) }) => make_keys(&args),
        Err(error) => {
            let _ = error.print();
            if error.use_stderr() { Exit::Usage } else { Exit::Ok }
        }
    };
    exit.into()
}

/// Opens the keys that `open` names, confines itself, answers.
fn serve(args: &ServeArgs, open: fn(&ServeArgs) -> Result<Opened, StartError>) -> Exit {
    let channel = match take_inherited(CHANNEL_FD) {
        Ok(socket) => Channel::from_fd(socket),
        Err(error) => return say(&error, "salama-keeper is started by salamad and salama, with a channel on descriptor 3", Exit::Usage),
    };
    let opened = match start(args, open) {
        Ok(opened) => opened,
        Err(error) => {
            let _ = channel.send(&KeeperReply::Refused { reason: words(&error) });
            return say(&error, "salama-keeper refuses to start", error.exit());
        }
    };
    match Keeper::new(opened.keys, &args.limits, SystemClock, io::stderr()).answer(&channel, opened.greeting) {
        Ok(()) => Exit::Ok,
        Err(error) => say(&error, "salama-keeper ends", Exit::Failed),
    }
}

fn start(args: &ServeArgs, open: fn(&ServeArgs) -> Result<Opened, StartError>) -> Result<Opened, StartError> {
    quiet_tpm_library()?;
    open(args)
}

fn make_keys(args: &ProvisionArgs) -> Exit {
    if let Err(error) = quiet_tpm_library() {
        return say(&error, "salama-keeper refuses to start", error.exit());
    }
    let plan = Plan {
        directory: &args.directory,
        tpm: &args.tpm,
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
    let _ = writeln!(io::stderr(), "{what}: {}", words(error));
    exit
}
