//! `salama keys …`: the ways to the root key, at the console of the appliance.
//! Trusts: the person at the console.
//! Touches: starts `salama-keeper keys`, which does it; the terminal; files that the command line names.
//! Next: `ask` and `sheet` talk with the person.

use std::io;
use std::os::unix::process::ExitStatusExt as _;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};

use clap::{Args, Subcommand};

use super::failure::Failure;
use super::output::{Output, clean, table};
use super::{approval, ask, programs, sheet};
use crate::base::exit::Exit;
use crate::ipc::CHANNEL_FD;
use crate::ipc::channel::{Channel, ChannelError};
use crate::ipc::keyslots::{AuthorityFile, Conditions, ConsoleWord, KeeperWord, KeysReport, LockoutView, NewSlot, SlotView, Task};
use crate::sandbox::process::{HardenError, LockMemoryError, harden};
use crate::supervisor::lines;
use crate::sys::process::start_with_descriptor;

/// Arguments of `salama keys`.
#[derive(Debug, Args)]
pub struct KeysArgs {
    #[command(flatten)]
    place: Place,
    #[command(subcommand)]
    command: KeysCommand,
}

/// Arguments of `salama recover`.
#[derive(Debug, Args)]
#[command(after_help = "Needs a recovery code or shares (salama keys add recovery). Start the daemon afterwards: systemctl start salama")]
pub struct RecoverArgs {
    #[command(flatten)]
    place: Place,
    /// Let the daemon's next start take the store that it finds, though it is older than this box: what came since is lost. A copy of the
    /// store is kept beside it until the next call is erased. One from before calls were erased for good is never taken.
    #[arg(long, required = true)]
    accept_rollback: bool,
}

/// Where keys and TPM are.
#[derive(Debug, Args)]
#[command(next_help_heading = "Keys")]
struct Place {
    /// The key directory.
    #[arg(long, value_name = "DIR", default_value = "/var/lib/salama-keeper", global = true)]
    keys: PathBuf,
    /// The TPM, as a TCTI name.
    #[arg(long, value_name = "TCTI", default_value = "device:/dev/tpmrm0", global = true)]
    tpm: String,
    /// A file with the password of the TPM's owner hierarchy, when it has one.
    #[arg(long, value_name = "FILE", global = true)]
    owner_auth: Option<PathBuf>,
    /// A file with the PIN of the TPM's slot; asked for when absent.
    #[arg(long, value_name = "FILE", global = true)]
    pin: Option<PathBuf>,
    /// A file to which the key keeper's signed lines are appended, where there is no journal.
    #[arg(long, value_name = "FILE", global = true)]
    lines: Option<PathBuf>,
    /// Open the keys by this slot; by the first that opens when absent: the TPM's, then a code, then shares.
    #[arg(long, value_name = "SLOT", global = true)]
    with: Option<u32>,
}

/// What can be done with keyslots.
#[derive(Debug, Subcommand)]
enum KeysCommand {
    /// List the slots, and how many wrong PINs the TPM has counted.
    List,
    /// Make a new slot. It counts once it has been opened.
    #[command(subcommand)]
    Add(AddCommand),
    /// Remove a slot, once another one was opened.
    Remove {
        /// Its number.
        slot: u32,
    },
    /// Open a slot, to see that it still opens.
    Verify {
        /// Its number.
        slot: u32,
    },
    /// Give a slot a new code, new shares, or a new PIN.
    Rotate(RotateArgs),
    /// Seal the TPM's slot anew: after an update, under other conditions, or in a new machine. Conditions that are not named stay.
    Reseal {
        /// Its number; the only one of the TPM when absent.
        slot: Option<u32>,
        #[command(flatten)]
        conditions: ConditionArgs,
    },
    /// Write what an authority has to sign, so that the slot opens in that state of the machine.
    Policy(PolicyArgs),
    /// Let a slot with an authority open in one more state of the machine.
    Approve {
        /// Its number; the only one with an authority when absent.
        slot: Option<u32>,
        #[command(flatten)]
        signed: approval::SignedArgs,
    },
    /// Let the TPM forgive wrong PINs. Needs a code or shares.
    Unlock,
}

/// Sorts of slots.
#[derive(Debug, Subcommand)]
enum AddCommand {
    /// Opened by this machine's TPM, without people.
    Tpm {
        #[command(flatten)]
        conditions: ConditionArgs,
    },
    /// Opened by a code on paper: shown once, and typed once again before it counts.
    Recovery,
    /// Opened by some of several shares on paper, for trustees.
    Shares {
        /// How many shares there are.
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(2..=16))]
        of: u8,
        /// How many of them are needed.
        #[arg(long, value_name = "T", value_parser = clap::value_parser!(u8).range(2..=16))]
        need: u8,
    },
}

/// Arguments of `salama keys rotate`.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct RotateArgs {
    /// Its number.
    slot: Option<u32>,
    /// All codes and shares. The root key stays: the old paper and a copy of the key directory from then still give it; destroy that paper.
    #[arg(long)]
    recovery: bool,
}

/// What a slot of the TPM asks for.
#[derive(Debug, Args)]
struct ConditionArgs {
    /// Open only while these PCRs (SHA-256) are as now: none, 7 (secure boot: its keys and switch) or 7+11 (besides, kernel and
    /// initrd of a unified kernel image). Updates of what is measured lock the slot: have a recovery code, or an authority.
    #[arg(long, value_name = "PCRS", value_parser = approval::pcrs)]
    pcrs: Option<u32>,
    /// Ask for a PIN at each start; the TPM limits the tries.
    #[arg(long)]
    with_pin: bool,
    /// Ask for no PIN any more.
    #[arg(long, conflicts_with = "with_pin")]
    without_pin: bool,
    /// Open in every state that this key approves of (ECDSA P-256, PEM), instead of as now.
    #[arg(long, value_name = "FILE", requires = "pcrs", requires = "approval", requires = "signature")]
    authority: Option<PathBuf>,
    /// Open in the state of now only, whatever an authority approves of.
    #[arg(long, conflicts_with = "authority")]
    without_authority: bool,
    /// Take a TPM that this box has never used: in a new machine, or after the TPM was cleared.
    #[arg(long)]
    new_tpm: bool,
    #[command(flatten)]
    signed: approval::MaybeSignedArgs,
}

/// Arguments of `salama keys policy`.
#[derive(Debug, Args)]
struct PolicyArgs {
    /// The PCRs, as 7 or 7+11.
    #[arg(long, value_parser = approval::pcrs)]
    pcrs: u32,
    /// A value that a PCR will have, NUMBER=SHA256 in hexadecimal; as now when absent. May be given several times.
    #[arg(long = "value", value_name = "PCR=HEX", value_parser = approval::pcr_value)]
    values: Vec<(u8, [u8; 32])>,
    /// Where to write it: a new file.
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
}

impl ConditionArgs {
    fn read(&self) -> Result<Conditions, Failure> {
        let authority = match &self.authority {
            Some(file) => Some(Some(AuthorityFile { point: approval::authority(file)?, approval: self.signed.read()? })),
            None => self.without_authority.then_some(None),
        };
        let pin = (self.with_pin || self.without_pin).then_some(self.with_pin);
        Ok(Conditions { pcrs: self.pcrs, pin, authority, new_tpm: self.new_tpm })
    }
}

/// Runs the command.
pub(super) fn keys(output: Output, args: &KeysArgs) -> Result<(), Failure> {
    let with = args.place.with;
    let task = match &args.command {
        KeysCommand::List => Task::List,
        KeysCommand::Verify { slot } => Task::Verify { slot: *slot },
        KeysCommand::Remove { slot } => Task::Remove { slot: *slot, with },
        KeysCommand::Rotate(RotateArgs { slot, .. }) => Task::Rotate { slot: *slot, with },
        KeysCommand::Reseal { slot, conditions } => Task::Reseal { slot: *slot, conditions: conditions.read()?, with },
        KeysCommand::Add(add) => {
            let new = match add {
                AddCommand::Tpm { conditions } => NewSlot::Tpm(conditions.read()?),
                AddCommand::Recovery => NewSlot::Recovery,
                AddCommand::Shares { of, need } => NewSlot::Shares { threshold: *need, count: *of },
            };
            Task::Add { new, with }
        }
        KeysCommand::Policy(policy) => Task::Policy { pcrs: policy.pcrs, values: policy.values.clone() },
        KeysCommand::Approve { slot, signed } => Task::Approve { slot: *slot, approval: signed.read()?, with },
        KeysCommand::Unlock => Task::Unlock { with },
    };
    if task.leaves_lines() {
        // What is a way to every call is shown and typed here: it gets into no dump and no swap.
        let hardened = harden(&[]).map_err(KeysError::Harden)?;
        hardened.lock_memory().map_err(KeysError::LockMemory)?;
    }
    let report = converse(output, &args.place, task)?;
    if let KeysCommand::Policy(policy) = &args.command {
        let text = report.policy.as_deref().unwrap_or_default();
        let written = programs::write_new(&policy.out, text, 0o644);
        written.map_err(|cause| Failure::Write { path: policy.out.clone(), cause })?;
        output.note(&format!("sign it with: openssl dgst -sha256 -sign KEY.pem -out SIGNATURE {}", policy.out.display()));
        return output.either(&report, |report| clean(&report.done));
    }
    output.either(&report, page)
}

/// Gives leave to take an older store.
pub(super) fn recover(output: Output, args: &RecoverArgs) -> Result<(), Failure> {
    let report = converse(output, &args.place, Task::AcceptRollback { with: args.place.with })?;
    output.either(&report, |report| clean(&report.done))
}

/// The whole conversation with the keeper.
fn converse(output: Output, place: &Place, task: Task) -> Result<KeysReport, Failure> {
    let lines = match task.leaves_lines() {
        true => lines::of_the_console(place.lines.as_deref()).map_err(KeysError::Lines)?,
        false => Stdio::inherit(),
    };
    let (channel, mut started) = start(place, lines).map_err(KeysError::Start)?;
    let ended = talk(output, &channel, task);
    // The keeper ends once its channel is closed.
    drop(channel);
    let status = started.wait().map_err(KeysError::Start)?;
    match ended {
        Ok(report) => report.ok_or_else(|| KeysError::Gone(status).into()),
        // It was killed before it could hear.
        Err(Failure::Keys(KeysError::Keeper(ChannelError::Socket(_)))) if status.signal().is_some() => Err(KeysError::Gone(status).into()),
        Err(failure) => Err(failure),
    }
}

/// None when the keeper has ended without a word.
fn talk(output: Output, channel: &Channel, task: Task) -> Result<Option<KeysReport>, Failure> {
    let broken = |error| Failure::from(KeysError::Keeper(error));
    channel.send(&ConsoleWord::Task(task)).map_err(broken)?;
    loop {
        let Some(word) = channel.recv::<KeeperWord>().map_err(broken)? else { return Ok(None) };
        match word {
            KeeperWord::Ask { wanted, problem } => {
                let answer = ask::ask(output, wanted, problem.as_deref())?;
                channel.send(&ConsoleWord::Answer(answer)).map_err(broken)?;
            }
            KeeperWord::Show(shown) => {
                sheet::show(output, &shown)?;
                channel.send(&ConsoleWord::Shown).map_err(broken)?;
            }
            KeeperWord::Done(report) => return Ok(Some(*report)),
            KeeperWord::Refused { reason, exit } => return Err(KeysError::Refused { reason, exit: Exit::of_code(exit) }.into()),
        }
    }
}

fn start(place: &Place, lines: Stdio) -> io::Result<(Channel, Child)> {
    let (ours, theirs) = Channel::pair()?;
    let mut command = Command::new(programs::keeper()?);
    command.arg("keys").arg("--directory").arg(&place.keys).args(["--tpm", &place.tpm]);
    for (option, file) in [("--owner-auth", &place.owner_auth), ("--pin", &place.pin)] {
        if let Some(file) = file {
            command.arg(option).arg(file);
        }
    }
    command.env_clear().env("TSS2_LOG", "all+NONE").stdin(Stdio::null()).stdout(Stdio::null()).stderr(lines);
    Ok((ours, start_with_descriptor(command, theirs.into_fd(), CHANNEL_FD)?))
}

/// For people.
fn page(report: &KeysReport) -> String {
    let mut text = String::new();
    if !report.done.is_empty() {
        text.push_str(&clean(&report.done));
        text.push_str("\n\n");
    }
    let head = ["SLOT", "SORT", "NEEDS", "MADE", "LAST OPENED"].map(str::to_owned).to_vec();
    let unknown = || "-".to_owned();
    let row = |slot: &SlotView| {
        let (made, opened) = (slot.made.clone().unwrap_or_else(unknown), slot.opened.clone().unwrap_or_else(unknown));
        vec![slot.id.to_string(), clean(&slot.kind), clean(&slot.needs), made, opened]
    };
    let rows: Vec<Vec<String>> = std::iter::once(head).chain(report.slots.iter().map(row)).collect();
    text.push_str(&table(&rows));
    if let Some(lockout) = &report.lockout {
        text.push_str(&lockout_words(lockout));
    }
    if let Some(trouble) = &report.tpm_trouble {
        text.push_str(&format!("\nthe TPM's state is not known: {}\n", clean(trouble)));
    }
    if !report.slots.iter().any(|slot| slot.kind != "tpm") {
        text.push_str("\nno slot opens without this TPM: if it dies, every call is lost. Make a code now: salama keys add recovery\n");
    }
    text
}

fn lockout_words(state: &LockoutView) -> String {
    let LockoutView { failed, tries, forgiven_after, .. } = state;
    let count = format!("\nwrong PINs: {failed} of {tries}, one is forgiven in {forgiven_after} s");
    let locked = if state.locked { "; LOCKED, it takes no PIN now (salama keys unlock)" } else { "" };
    let guarded = if state.guarded { "" } else { "; the limit is the TPM's own, no slot has a PIN" };
    format!("{count}{locked}{guarded}\n")
}

/// Why nothing was done.
#[derive(Debug, thiserror::Error)]
pub enum KeysError {
    /// The keeper's program did not start.
    #[error("salama-keeper could not be started; it belongs beside this program")]
    Start(#[source] io::Error),
    /// This program's own memory.
    #[error(transparent)]
    Harden(#[from] HardenError),
    /// The same.
    #[error(transparent)]
    LockMemory(#[from] LockMemoryError),
    /// No change without a line.
    #[error(
        "the key keeper's signed lines on this have no place: the system's journal does not take them. Start journald, or name a file with \
         --lines and keep it with the journal"
    )]
    Lines(#[source] io::Error),
    /// It broke off.
    #[error(
        "the key keeper broke off; what was not said to be done may be half done: `salama keys list` shows it, and the next change clears up"
    )]
    Keeper(#[source] ChannelError),
    /// It ended.
    #[error("the key keeper ended before it was done ({0}); `salama keys list` shows what there is, and the next change clears up")]
    Gone(ExitStatus),
    /// It refused.
    #[error("{reason}")]
    Refused {
        /// Its words.
        reason: String,
        /// And its exit code.
        exit: Exit,
    },
    /// Nobody answered.
    #[error(
        "standard input ended before the answer to a question: a paper that was shown and not typed again does not count, one that was typed \
         again does (salama keys list)"
    )]
    NoAnswer,
    /// Not a key of an authority.
    #[error("{} holds no ECDSA P-256 public key in PEM (BEGIN PUBLIC KEY)", .0.display())]
    NoAuthority(PathBuf),
    /// Not a signature.
    #[error("{} holds no ECDSA P-256 signature as openssl writes it", .0.display())]
    NoSignature(PathBuf),
}

impl KeysError {
    /// The exit code that says it.
    pub const fn exit(&self) -> Exit {
        match self {
            Self::Refused { exit, .. } => *exit,
            Self::NoAnswer | Self::NoAuthority(_) | Self::NoSignature(_) => Exit::BadInput,
            Self::Lines(_) => Exit::Io,
            Self::Start(_) | Self::Harden(_) | Self::LockMemory(_) | Self::Keeper(_) | Self::Gone(_) => Exit::Failed,
        }
    }
}
