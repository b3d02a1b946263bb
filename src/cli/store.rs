//! `salama store check` and `salama store compact`.
//! Trusts: `salamad` beside this program, which does the work, confined.
//! Touches: starts it.
//! Next: standard output; the way of the work on standard error.

use std::ffi::OsString;
use std::fmt::Write as _;
use std::path::PathBuf;

use clap::{Args, Subcommand};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::failure::Failure;
use super::output::{Output, clean, size};
use crate::ipc::channel::Channel;
use crate::ipc::maintenance::{CheckReport, CompactReport, Progress, RecordFault, Stage, StoreFault, Word};
use crate::supervisor::program;

/// What can be done with the store of this machine, while no daemon runs.
#[derive(Clone, Debug, Subcommand)]
pub enum StoreCommand {
    /// Look whether the store is whole: the database's pages, every record under its key, every call's recording, stray files.
    ///
    /// Changes nothing but what the database itself makes good after a crash. Exit code 65 when something is damaged. With keys, it
    /// opens up to 200 calls, others at each run; of the rest it has the key keeper try the key, which opens nothing.
    #[command(after_help = "Stop the daemon first: systemctl stop salama.socket salama.service")]
    Check(CheckArgs),
    /// Give the room of what was erased back to the disk.
    ///
    /// Writes a whole copy beside the store, compares it, and puts it in the store's place. Until then the store is what it was; a crash
    /// at any point leaves one good store. Needs as much room as the records take, and no keys.
    #[command(after_help = "Stop the daemon first: systemctl stop salama.socket salama.service")]
    Compact(StoreArgs),
}

/// Where the store is.
#[derive(Clone, Debug, Args)]
pub struct StoreArgs {
    /// The daemon's settings file.
    #[arg(long, value_name = "FILE", default_value = "/etc/salama/salama.toml")]
    pub config: PathBuf,
}

/// Arguments of `salama store check`.
#[derive(Clone, Debug, Args)]
pub struct CheckArgs {
    /// The store.
    #[command(flatten)]
    pub store: StoreArgs,
    /// Without TPM and keeper: pages, forms and presence are checked, seals are not.
    #[arg(long)]
    pub without_keys: bool,
    /// A file with the password of the TPM's owner hierarchy, when it has one.
    #[arg(long, value_name = "FILE", conflicts_with = "without_keys")]
    pub owner_auth: Option<PathBuf>,
    /// A file with the PIN of the TPM's slot, when it has one.
    #[arg(long, value_name = "FILE", conflicts_with = "without_keys")]
    pub pin: Option<PathBuf>,
}

/// Does it.
pub(super) fn store(output: Output, command: &StoreCommand) -> Result<(), Failure> {
    match command {
        StoreCommand::Check(args) => {
            let Word::Checked(report) = ask(output, &args.store, check_task(args)?)? else { return Err(Failure::StoreSilent) };
            output.either(&report, told_check)?;
            match &report.without_keys {
                _ if !report.is_sound() => Err(Failure::StoreDamaged),
                Some(why) if !args.without_keys => Err(Failure::StoreWithoutKeys(clean(why))),
                _ => Ok(()),
            }
        }
        StoreCommand::Compact(args) => {
            let Word::Compacted(report) = ask(output, args, vec!["compact".into()])? else { return Err(Failure::StoreSilent) };
            output.either(&report, told_compact)
        }
    }
}

/// Programs of ours are started in the root directory: files are named from there.
fn check_task(args: &CheckArgs) -> Result<Vec<OsString>, Failure> {
    let mut task: Vec<OsString> = vec!["check".into()];
    task.extend(args.without_keys.then(|| "--without-keys".into()));
    for (option, file) in [("--owner-auth", &args.owner_auth), ("--pin", &args.pin)] {
        if let Some(file) = file {
            task.extend([option.into(), std::path::absolute(file).map_err(no_start)?.into()]);
        }
    }
    Ok(task)
}

fn no_start(error: std::io::Error) -> Failure {
    Failure::Configuration(format!("the program cannot start: {error}"))
}

/// Starts `salamad` for it and waits for its last word.
fn ask(output: Output, args: &StoreArgs, task: Vec<OsString>) -> Result<Word, Failure> {
    let config = std::path::absolute(&args.config).map_err(no_start)?;
    let mut words: Vec<OsString> = vec!["--config".into(), config.into(), "store".into()];
    words.extend(task);
    let started = program::spawn(&program::beside("salamad").map_err(no_start)?, words).map_err(Failure::StoreStart)?;
    let mut shown = Shown::new(output);
    let last = listen(&started.channel, &mut shown);
    shown.done();
    // It has said its last word or ended; its status says nothing more.
    let _ = started.process.wait();
    last
}

fn listen(channel: &Channel, shown: &mut Shown) -> Result<Word, Failure> {
    loop {
        match channel.recv::<Word>() {
            Ok(Some(Word::At(progress))) => shown.at(progress),
            Ok(Some(Word::Refused(refusal))) => return Err(Failure::StoreRefused(refusal)),
            Ok(Some(last)) => return Ok(last),
            Ok(None) | Err(_) => return Err(Failure::StoreSilent),
        }
    }
}

/// A bar where somebody watches, else a line a stage.
struct Shown {
    output: Output,
    bar: Option<ProgressBar>,
    stage: Option<Stage>,
}

impl Shown {
    fn new(output: Output) -> Self {
        let bar = output.moves().then(|| ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr()));
        Self { output, bar, stage: None }
    }

    fn at(&mut self, progress: Progress) {
        let new = self.stage != Some(progress.stage);
        self.stage = Some(progress.stage);
        let Some(bar) = &self.bar else {
            if new {
                self.output.note(words_of(progress.stage));
            }
            return;
        };
        if new {
            bar.set_message(words_of(progress.stage));
            let template = if progress.of > 0 { "{msg} {bar:30} {pos}/{len}" } else { "{spinner} {msg}" };
            if let Ok(style) = ProgressStyle::with_template(template) {
                bar.set_style(style);
            }
        }
        bar.set_length(progress.of);
        bar.set_position(progress.done);
    }

    fn done(self) {
        if let Some(bar) = self.bar {
            bar.finish_and_clear();
        }
    }
}

const fn words_of(stage: Stage) -> &'static str {
    match stage {
        Stage::Keys => "opening the keys",
        Stage::Pages => "checking the database's pages",
        Stage::Records => "opening records",
        Stage::Calls => "opening calls",
        Stage::Copying => "copying",
        Stage::Comparing => "comparing",
    }
}

fn told_compact(report: &CompactReport) -> String {
    let CompactReport { store, records, before, after } = report;
    format!("{} compacted: {records} records, {} on disk before, {} now\n", clean(store), size(*before), size(*after))
}

fn told_check(report: &CheckReport) -> String {
    let mut text = String::new();
    let seals = match &report.without_keys {
        None if report.keys_only > 0 => format!(
            "{} records and both ends of {} recordings opened under their keys; of {} calls only the key was tried, run it again for others of them",
            report.opened, report.recordings, report.keys_only
        ),
        None => format!("{} records and both ends of {} recordings opened under their keys", report.opened, report.recordings),
        Some(why) => format!("no seal was checked, for want of keys: {}", clean(why)),
    };
    let schema = report.schema.map_or_else(String::new, |schema| format!(", schema {schema}"));
    let name = clean(&report.store);
    // Writing to a `String` cannot fail.
    _ = writeln!(text, "{name}: {}{schema}; {} calls, {} records; {seals}", size(report.bytes), report.calls, report.records);
    for copy in &report.copies {
        _ = writeln!(text, "a copy from before an update is kept in {}; the first erasure removes it", clean(copy));
    }
    for fault in &report.faults {
        let word = if fault.is_harmless() { "note" } else { "FAULT" };
        _ = writeln!(text, "{word}: {}", told_fault(fault));
    }
    if report.more_faults > 0 {
        _ = writeln!(text, "and {} faults more", report.more_faults);
    }
    if report.is_sound() {
        text.push_str("nothing is wrong\n");
    }
    text
}

fn told_fault(fault: &StoreFault) -> String {
    match fault {
        StoreFault::Pages { why } => format!("the database is damaged ({}); restore the store from a backup", clean(why)),
        StoreFault::PagesRepaired => "the database's own bookkeeping was wrong and was made anew; no record is lost".to_owned(),
        StoreFault::Table { table } => format!("table {} cannot be read to its end; restore the store from a backup", clean(table)),
        StoreFault::Schema => "the schema version does not open: damaged, or of other keys than those in the key directory".to_owned(),
        StoreFault::Record { table, call, why } => {
            let whose = call.map_or_else(String::new, |call| format!(" of call {call}"));
            format!("a record{whose} in table {} {}", clean(table), told_record(*why))
        }
        StoreFault::KeyMissing { call } => format!("call {call} has no key: nothing of it can be opened; restore a backup or erase it"),
        StoreFault::KeyRefused { call } => format!("the key of call {call} does not open: nothing of it can be opened"),
        StoreFault::NoCall { table, call } => format!("table {} speaks of call {call}, which is not there", clean(table)),
        StoreFault::Unnamed { table, call } => format!("table {} does not name call {call}; restore the store from a backup", clean(table)),
        StoreFault::CounterMissing => "the number of the last job is missing; restore the store from a backup".to_owned(),
        StoreFault::RecordingMissing { call } => format!("the recording of call {call} is missing"),
        StoreFault::RecordingDamaged { call } => format!("the recording of call {call} was cut or changed"),
        StoreFault::RecordingWithoutCall { call } => {
            format!(
                "there is a recording of call {call}, which is not in the store: a crash cut off its upload or its erasure; the next start of the daemon removes it"
            )
        }
        StoreFault::Stray { file } => {
            format!("{} is none of the store's files; look what it is and move it away", clean(file))
        }
    }
}

const fn told_record(fault: RecordFault) -> &'static str {
    match fault {
        RecordFault::Seal => "does not open: changed, moved, or sealed by another key",
        RecordFault::Version => "is of a version that this program does not read",
        RecordFault::Content => "opens, but holds something else",
        RecordFault::Key => "has a key of another form than the table's",
    }
}
