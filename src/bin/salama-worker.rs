//! The fork server's start-up: arguments > harden > models > privileges > confine > fork. `check` asks models for their golden answers.
//! Trusts: its arguments and its models' digests.
//! Touches: the model directory, until it is confined; then its channel and its children.
//! Next: `worker::forkserver` obeys `salamad` until that closes the channel.

#![cfg_attr(test, allow(clippy::as_conversions, clippy::unreachable, reason = "a test says what it expects, loudly"))]

#[path = "../model/mod.rs"]
#[expect(dead_code, reason = "salama uses the rest: it imports what this program loads")]
mod model;
#[path = "../worker/mod.rs"]
mod worker;

use std::error::Error;
use std::fs::File;
use std::io::{self, Write as _};
use std::panic::Location;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use crate::model::verify::directories;
use crate::worker::forkserver::ForkServer;
use crate::worker::golden;
use crate::worker::models::Models;
use crate::worker::run::Call;
use clap::{Args, Parser, Subcommand};
use salama::base::exit::Exit;
use salama::base::told::told;
use salama::ipc::CHANNEL_FD;
use salama::ipc::channel::Channel;
use salama::ipc::worker::ForkEvent;
use salama::sandbox::policy;
use salama::sandbox::process::{Hardened, Offspring, harden};
use salama::sys::descriptors::{open_null, silence_standard_streams, take_inherited};
use salama::sys::limits::AddressSpace;
use salama::{base, ipc, sandbox, sys};

/// Started by salamad with a channel as descriptor 3; by hand only to check models.
#[derive(Debug, Parser)]
#[command(version, args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
struct CommandLine {
    #[command(subcommand)]
    command: Option<Mode>,
    #[command(flatten)]
    serve: Option<Arguments>,
}

#[derive(Debug, Subcommand)]
enum Mode {
    /// Verify models and compare what they make of their golden input with what they must
    Check {
        /// Directory of the models.
        #[arg(long)]
        models: PathBuf,
        /// Names of models in it; all when none is given.
        #[arg(value_name = "MODEL")]
        names: Vec<PathBuf>,
    },
}

#[derive(Args, Debug)]
struct Arguments {
    /// Directory of the models.
    #[arg(long)]
    models: PathBuf,
    /// Name of the speech recogniser in it.
    #[arg(long)]
    asr: String,
    /// Account (name or number) that it becomes when started as root.
    #[arg(long)]
    user: Option<String>,
}

fn main() -> ExitCode {
    std::panic::set_hook(Box::new(|panic| say_where(panic.location())));
    let arguments = match CommandLine::parse() {
        CommandLine { command: Some(Mode::Check { models, names }), .. } => return check(&models, &names),
        CommandLine { serve: Some(arguments), .. } => arguments,
        CommandLine { .. } => return Exit::Usage.into(),
    };
    let (hardened, control) = match inherit() {
        Ok(inherited) => inherited,
        Err(error) => {
            eprintln!("salama-worker: {error}; it is started by salamad, not by hand");
            return Exit::Usage.into();
        }
    };
    match serve(arguments, hardened, control) {
        Ok(()) => Exit::Ok.into(),
        Err(error) => {
            eprintln!("salama-worker: {}", told(&*error));
            Exit::Failed.into()
        }
    }
}

/// Of a panic, the place alone: its message may hold what someone said.
fn say_where(place: Option<&Location<'_>>) {
    if let Some(place) = place {
        eprintln!("salama-worker: panicked at {}:{}", place.file(), place.line());
    }
}

/// One line a model on standard output.
fn check(models: &Path, names: &[PathBuf]) -> ExitCode {
    match check_all(models, names) {
        Ok(true) => Exit::Ok.into(),
        Ok(false) => Exit::BadInput.into(),
        Err(error) => {
            eprintln!("salama-worker: the models in {} cannot be checked: {error}", models.display());
            Exit::Io.into()
        }
    }
}

fn check_all(models: &Path, names: &[PathBuf]) -> io::Result<bool> {
    let directories = if names.is_empty() { directories(models)? } else { names.iter().map(|name| models.join(name)).collect() };
    let mut all = true;
    for directory in directories {
        match golden::check(&directory) {
            Ok(checked) => writeln!(io::stdout(), "{checked}")?,
            Err(error) => {
                all = false;
                let name = directory.file_name().unwrap_or_default().display();
                writeln!(io::stdout(), "{name}: REFUSED: {}", told(&error))?;
            }
        }
    }
    Ok(all)
}

fn inherit() -> Result<(Hardened, Channel), Box<dyn Error>> {
    let hardened = harden(&[CHANNEL_FD])?;
    silence_standard_streams()?;
    Ok((hardened, Channel::from_fd(take_inherited(CHANNEL_FD)?)))
}

fn serve(arguments: Arguments, hardened: Hardened, control: Channel) -> Result<(), Box<dyn Error>> {
    match prepare(arguments, hardened) {
        Ok((offspring, address_space, null, models)) => {
            let loaded = models.loaded().to_vec();
            Ok(ForkServer::<Call>::new(control, offspring, address_space, null, models).run(loaded)?)
        }
        Err(error) => {
            control.send(&ForkEvent::Refused { reason: told(&*error) })?;
            Err(error)
        }
    }
}

fn prepare(arguments: Arguments, hardened: Hardened) -> Result<(Offspring, AddressSpace, File, Models), Box<dyn Error>> {
    let address_space = AddressSpace::open()?;
    let null = open_null()?;
    let models = Models::load(&arguments.models, &arguments.asr)?;
    let unprivileged = hardened.drop_privileges(arguments.user.as_deref())?;
    // No grant: what it needs of the models is in memory.
    let confined = unprivileged.confine(&policy::forkserver::POLICY, &[])?;
    let offspring = confined.prepare_offspring(&policy::child::POLICY)?;
    Ok((offspring, address_space, null, models))
}
