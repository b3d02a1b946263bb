//! One command from its words to its exit code.
//! Trusts: nothing.
//! Touches: what the command touches.
//! Next: the shell.

use std::error::Error as _;
use std::ffi::OsString;
use std::process::ExitCode;

use clap::{CommandFactory as _, Parser as _};
use clap_complete::Shell;

use super::args::{AuditCommand, CallCommand, Cli, Command, Connection, TextCommand};
use super::client::Client;
use super::failure::Failure;
use super::output::{Output, clean, warn};
use super::profile::Settings;
use super::{audit, burst, call, key_log, keys, local, status, store, text};
use crate::base::exit::Exit;

/// Runs the command line.
pub fn main(line: impl Iterator<Item = OsString>) -> ExitCode {
    let cli = match Cli::try_parse_from(line) {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version are no mistakes.
            let exit = if error.use_stderr() { Exit::Usage } else { Exit::Ok };
            _ = error.print();
            return exit.into();
        }
    };
    match run(cli) {
        Ok(()) => Exit::Ok.into(),
        Err(failure) => {
            explain(&failure);
            failure.exit().into()
        }
    }
}

fn run(cli: Cli) -> Result<(), Failure> {
    let output = Output { json: cli.json };
    let connection = &cli.connection;
    match cli.command {
        Command::Call(command) => online(connection, async |client| call(client, output, command).await),
        Command::Text(TextCommand::Redact { text }) => online(connection, async |client| text::redact(client, output, text).await),
        Command::Burst(args) => online(connection, async |client| burst::burst(client, output, &args).await),
        Command::Status(args) => online(connection, async |client| status::status(client, output, args.wait).await),
        Command::Whoami => online(connection, async |client| status::whoami(client, output).await),
        Command::Init(args) => local::init(output, &args),
        Command::Enrol(args) => local::enrol(output, &args),
        Command::Keys(args) => keys::keys(output, &args),
        Command::Recover(args) => keys::recover(output, &args),
        Command::Model(command) => local::model(output, &command),
        Command::Store(command) => store::store(output, &command),
        Command::Audit(AuditCommand::Tail(args)) => audit::tail(output, args),
        Command::Audit(AuditCommand::Verify(args)) => key_log::verify(output, args),
        Command::Completions { shell } => completions(output, shell),
    }
}

async fn call(client: &Client, output: Output, command: CallCommand) -> Result<(), Failure> {
    match command {
        CallCommand::Send(args) => call::send(client, output, &args).await,
        CallCommand::List(args) => call::list(client, output, &args).await,
        CallCommand::Show(args) => call::show(client, output, args.id).await,
        CallCommand::Watch(args) => call::watch(client, output, args.id).await,
        CallCommand::Transcript(args) => call::transcript(client, output, &args).await,
        CallCommand::Export(args) => call::export(client, output, &args).await,
        CallCommand::Cancel(args) => call::cancel(client, output, args.id).await,
        CallCommand::Delete(args) => call::delete(client, output, args).await,
        CallCommand::Erasure(args) => call::erasure(client, output, args).await,
    }
}

/// Runs what needs the appliance, on this thread.
fn online(connection: &Connection, work: impl AsyncFnOnce(&Client) -> Result<(), Failure>) -> Result<(), Failure> {
    let client = Client::new(Settings::load(connection)?)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.map_err(|error| Failure::Configuration(format!("the program cannot start: {error}")))?.block_on(work(&client))
}

fn completions(output: Output, shell: Shell) -> Result<(), Failure> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "salama", &mut script);
    output.bytes(&script)
}

/// What failed, on standard error, also with `--json`: standard output stays empty then.
fn explain(failure: &Failure) {
    if matches!(failure, Failure::OutputClosed) {
        return;
    }
    warn(&format!("salama: {failure}"));
    let mut cause = failure.source();
    while let Some(error) = cause {
        warn(&format!("  because: {}", clean(&error.to_string())));
        cause = error.source();
    }
    if let Failure::Refused(refusal) = failure {
        if let Some(seconds) = refusal.retry_after {
            warn(&format!("try again in {seconds} s"));
        }
        if let Some(instance) = &refusal.instance {
            warn(&format!("the audit trail knows this request as {instance}"));
        }
    }
}
