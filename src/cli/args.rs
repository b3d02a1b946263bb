//! The command line of `salama`: what may be written, and what it means.
//! Trusts: nothing; wrong words end the program with exit code 64.
//! Touches: nothing.
//! Next: [`super::run`] does it.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;

use super::burst::BurstArgs;
use super::enrol::EnrolArgs;
use super::init::InitArgs;
use super::key_log::VerifyArgs;
use super::keys::{KeysArgs, RecoverArgs};
use super::model::ModelCommand;
use super::store::StoreCommand;
use crate::base::ids::CallId;
use crate::job::spec::{ChannelRole, ConsentBasis, ConsentPurpose};

/// The client of a Salama appliance, and its set-up at the console.
#[derive(Debug, Parser)]
#[command(
    name = "salama",
    version,
    max_term_width = 100,
    after_help = "Exit codes: 0 done, 1 failed, 64 wrong command line, 65 bad recording, input or store, 66 no such call or file,\n\
                  69 not reachable or busy: try again, 74 a file could not be written, 77 not allowed, 78 wrong configuration."
)]
pub struct Cli {
    /// Print one JSON document (for `watch` and `audit tail`: one a line) and nothing else on standard output.
    #[arg(long, global = true)]
    pub json: bool,
    /// How to reach the appliance.
    #[command(flatten)]
    pub connection: Connection,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// How to reach the appliance. The command line wins over the environment, that over `salama/client.toml`.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Connection")]
pub struct Connection {
    /// The appliance, https://HOST:PORT [env: SALAMA_SERVER].
    #[arg(long, value_name = "URL", global = true)]
    pub server: Option<String>,
    /// Your certificate and private key in one PEM file, as `salama enrol` writes it [env: SALAMA_IDENTITY].
    #[arg(long, value_name = "FILE", global = true)]
    pub identity: Option<PathBuf>,
    /// The certificate of the appliance's own authority, as `salama init` writes it [env: SALAMA_CA].
    #[arg(id = "ca", long = "ca", value_name = "FILE", global = true)]
    pub authority: Option<PathBuf>,
}

/// The nouns, and what is done once at the console.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Make the keys of a new appliance, at its console.
    Init(InitArgs),
    /// Issue a certificate for a person or machine, at the appliance's console.
    Enrol(EnrolArgs),
    /// The ways to the keys: TPM, recovery codes, shares; at the appliance's console.
    Keys(KeysArgs),
    /// Go on with a store that the box has refused; at the appliance's console.
    Recover(RecoverArgs),
    /// Recorded calls: send, follow, read, erase.
    #[command(subcommand)]
    Call(CallCommand),
    /// Texts.
    #[command(subcommand)]
    Text(TextCommand),
    /// Models on this machine's disk.
    #[command(subcommand)]
    Model(ModelCommand),
    /// The store on this machine's disk, while no daemon runs.
    #[command(subcommand)]
    Store(StoreCommand),
    /// Audit entries in this machine's journal.
    #[command(subcommand)]
    Audit(AuditCommand),
    /// Allow more calls to be opened for a while than the limits do. Signed with your key; for supervisors.
    Burst(BurstArgs),
    /// Is the appliance ready, and which models does it run?
    Status(StatusArgs),
    /// Which identity and rights your certificate gives you.
    Whoami,
    /// Print a completion script for your shell.
    Completions {
        /// Which shell.
        shell: Shell,
    },
}

/// What can be done with calls.
#[derive(Debug, Subcommand)]
pub enum CallCommand {
    /// Send a recording.
    Send(SendArgs),
    /// List the calls that you may see, newest first.
    List(ListArgs),
    /// Show one call.
    Show(CallRef),
    /// Follow a call until it has ended.
    Watch(CallRef),
    /// Print the redacted transcript, or compare it with a reference text.
    Transcript(TranscriptArgs),
    /// Export everything that the appliance gives out of a call, as one JSON document.
    Export(ExportArgs),
    /// Stop a call that waits or runs.
    Cancel(CallRef),
    /// Erase a call: its recording, transcript and key. This cannot be undone.
    Delete(DeleteArgs),
    /// Show how far the erasure of an erased call is, and its certificate.
    Erasure(ErasureArgs),
}

/// A call.
#[derive(Clone, Copy, Debug, Args)]
pub struct CallRef {
    /// The call's id: 32 hexadecimal digits.
    #[arg(value_name = "CALL")]
    pub id: CallId,
}

/// Arguments of `salama status`.
#[derive(Debug, Args)]
pub struct StatusArgs {
    /// Wait as long as this for the appliance to become ready.
    #[arg(long, value_name = "SECONDS", default_value_t = 0)]
    pub wait: u64,
}

/// Arguments of `salama call send`.
#[derive(Clone, Debug, Args)]
pub struct SendArgs {
    /// The recording: WAV, MP3, FLAC, M4A, OGG, WebM, Sun .au or GSM 06.10; one or two channels.
    pub file: PathBuf,
    /// How consent to processing was given. There is no default: someone must know.
    #[arg(long, value_enum)]
    pub consent: Basis,
    /// What was agreed to; may be given several times.
    #[arg(long, value_enum, default_value = "transcription")]
    pub purpose: Vec<Purpose>,
    /// When consent was given, RFC 3339; now when absent.
    #[arg(long, value_name = "TIME")]
    pub consent_at: Option<String>,
    /// The spoken language when it is known: two letters, for example sw.
    #[arg(long, value_name = "CODE")]
    pub language: Option<String>,
    /// The helpline's own reference of the call; no names.
    #[arg(long, value_name = "TEXT")]
    pub reference: Option<String>,
    /// When the call was recorded, RFC 3339.
    #[arg(long, value_name = "TIME")]
    pub recorded_at: Option<String>,
    /// Who speaks on each channel of the recording, in their order, for example counsellor,caller.
    #[arg(long, value_enum, value_name = "ROLES", value_delimiter = ',')]
    pub channels: Option<Vec<Speaker>>,
    /// Sending again with the same key never makes a second call; random when absent.
    #[arg(long, value_name = "KEY")]
    pub idempotency_key: Option<String>,
    /// Follow the call until it has ended.
    #[arg(long)]
    pub watch: bool,
}

/// Arguments of `salama call list`.
#[derive(Clone, Debug, Args)]
pub struct ListArgs {
    /// Calls a page.
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u16).range(1..=200))]
    pub limit: u16,
    /// Where to go on: printed below a page when there is more.
    #[arg(long)]
    pub cursor: Option<String>,
}

/// Arguments of `salama call transcript`.
#[derive(Clone, Debug, Args)]
pub struct TranscriptArgs {
    /// The call.
    #[command(flatten)]
    pub call: CallRef,
    /// Print exactly this document; a readable page when absent.
    #[arg(long, value_enum)]
    pub format: Option<Format>,
    /// A text file of what was said: print the word error rate against it instead. Names are written as [PERSON]; when every line
    /// begins with a channel's number and a colon (1: …), channels are compared apart.
    #[arg(long, value_name = "FILE", conflicts_with = "format")]
    pub reference: Option<PathBuf>,
}

/// Arguments of `salama call export`.
#[derive(Clone, Debug, Args)]
pub struct ExportArgs {
    /// The call.
    #[command(flatten)]
    pub call: CallRef,
    /// Write to this new file, readable by you alone, instead of standard output.
    #[arg(long, short, value_name = "FILE")]
    pub output: Option<PathBuf>,
}

/// Arguments of `salama call delete`.
#[derive(Clone, Debug, Args)]
pub struct DeleteArgs {
    /// The call.
    #[command(flatten)]
    pub call: CallRef,
    /// Do not ask.
    #[arg(long, short)]
    pub yes: bool,
    /// Make it final now, not within the box's interval: then no copy of the box's disk opens the call any more, but one together with a
    /// recovery code or shares of its time.
    #[arg(long)]
    pub now: bool,
    /// Write the certificate of erasure to this new file, and its signature beside it (FILE.sig).
    #[arg(long, value_name = "FILE", requires = "now")]
    pub certificate: Option<PathBuf>,
}

/// Arguments of `salama call erasure`.
#[derive(Clone, Debug, Args)]
pub struct ErasureArgs {
    /// The call that was erased.
    #[command(flatten)]
    pub call: CallRef,
    /// Make it final now.
    #[arg(long)]
    pub now: bool,
    /// Write the certificate of erasure to this new file, and its signature beside it (FILE.sig).
    #[arg(long, value_name = "FILE")]
    pub certificate: Option<PathBuf>,
}

/// What can be done with texts.
#[derive(Debug, Subcommand)]
pub enum TextCommand {
    /// Mask the personal information in a text. Nothing is stored.
    Redact {
        /// The text; read from standard input when absent.
        text: Option<String>,
    },
}

/// What can be done with audit entries.
#[derive(Debug, Subcommand)]
pub enum AuditCommand {
    /// Print the latest entries.
    Tail(TailArgs),
    /// Read the service's journal from standard input and say whether the key keeper's signed lines are whole.
    Verify(VerifyArgs),
}

/// Arguments of `salama audit tail`.
#[derive(Clone, Copy, Debug, Args)]
pub struct TailArgs {
    /// How many.
    #[arg(short = 'n', long = "lines", default_value_t = 20)]
    pub lines: u32,
    /// Go on with new ones until interrupted.
    #[arg(long, short)]
    pub follow: bool,
}

/// How consent was given.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "snake_case")]
pub enum Basis {
    /// The caller agreed at the start of the call.
    Caller,
    /// A guardian agreed.
    Guardian,
    /// The law of the place asks or allows it (duty of care).
    LegalDuty,
}

impl From<Basis> for ConsentBasis {
    fn from(basis: Basis) -> Self {
        match basis {
            Basis::Caller => Self::Caller,
            Basis::Guardian => Self::Guardian,
            Basis::LegalDuty => Self::LegalDuty,
        }
    }
}

/// What was agreed to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "snake_case")]
pub enum Purpose {
    /// Turning the recording into a redacted transcript; always needed.
    Transcription,
    /// Reviewing the quality of the helpline's work.
    QualityReview,
    /// Statistics and research on redacted text.
    Research,
}

impl From<Purpose> for ConsentPurpose {
    fn from(purpose: Purpose) -> Self {
        match purpose {
            Purpose::Transcription => Self::Transcription,
            Purpose::QualityReview => Self::QualityReview,
            Purpose::Research => Self::Research,
        }
    }
}

/// Who speaks on a channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Speaker {
    /// The helpline's counsellor.
    Counsellor,
    /// Who called, or was called.
    Caller,
}

impl From<Speaker> for ChannelRole {
    fn from(speaker: Speaker) -> Self {
        match speaker {
            Speaker::Counsellor => Self::Counsellor,
            Speaker::Caller => Self::Caller,
        }
    }
}

/// A document that the appliance makes of a transcript.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// Everything, with words, times and confidences.
    Json,
    /// One line an utterance.
    Text,
    /// SubRip subtitles.
    Srt,
    /// WebVTT subtitles.
    Vtt,
}

impl Format {
    /// As the API spells it.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Json => "json",
            Self::Text => "text",
            Self::Srt => "srt",
            Self::Vtt => "vtt",
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;
    use clap::error::ErrorKind;

    use super::*;

    const ID: &str = "3f1c0c5d9a7b4e2f8d6a1b0c9e8f7a6d";

    fn refused(line: &[&str]) -> ErrorKind {
        Cli::try_parse_from(line).expect_err("was accepted").kind()
    }

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn consent_has_no_default() {
        assert_eq!(refused(&["salama", "call", "send", "a.wav"]), ErrorKind::MissingRequiredArgument);
        assert_eq!(refused(&["salama", "call", "send", "a.wav", "--consent", "yes"]), ErrorKind::InvalidValue);
    }

    #[test]
    fn a_path_is_no_call_id() {
        for hostile in ["../../etc/passwd", "3F1C0C5D9A7B4E2F8D6A1B0C9E8F7A6D", ""] {
            assert_eq!(refused(&["salama", "call", "show", hostile]), ErrorKind::ValueValidation, "{hostile}");
        }
    }

    #[test]
    fn the_connection_may_be_named_before_and_after_the_command() {
        for line in [["salama", "--server", "https://a", "call", "show", ID], ["salama", "call", "show", ID, "--server", "https://a"]] {
            assert_eq!(Cli::try_parse_from(line).unwrap().connection.server.as_deref(), Some("https://a"));
        }
    }

    #[test]
    fn purposes_add_up_and_transcription_is_the_default() {
        let send = |more: &[&str]| {
            let line = [&["salama", "call", "send", "a.wav", "--consent", "caller"], more].concat();
            match Cli::try_parse_from(line).unwrap().command {
                Command::Call(CallCommand::Send(send)) => send.purpose,
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(send(&[]), [Purpose::Transcription]);
        let two = send(&["--purpose", "transcription", "--purpose", "research"]);
        assert_eq!(two, [Purpose::Transcription, Purpose::Research]);
    }
}
