//! Why a command failed, in words for its user, and the exit code that goes with it.
//! Trusts: nothing the appliance says: its words are cleaned before they reach a terminal.
//! Touches: nothing.
//! Next: [`super::run`] prints it.

use std::io;
use std::path::PathBuf;

use serde::Deserialize;

use super::enrol::EnrolError;
use super::init::InitError;
use super::keys::KeysError;
use super::model::{GoldenError, ImportModelError};
use super::output::clean;
use crate::base::exit::Exit;
use crate::ipc::key_log::LogFault;
use crate::ipc::maintenance::{Refusal as StoreRefusal, RefusalKind};
use crate::ipc::worker::CallFailure;
use crate::job::spec::CallState;
use crate::model::verify::VerifyError;
use crate::supervisor::program::SpawnError;

/// A refusal of the appliance: an RFC 9457 problem document, or a reply that is none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The HTTP status.
    pub status: u16,
    /// What is wrong and what to do.
    pub words: String,
    /// Names the request in the audit trail.
    pub instance: Option<String>,
    /// Seconds after which to try again.
    pub retry_after: Option<u64>,
}

#[derive(Deserialize)]
struct Document {
    title: String,
    #[serde(default)]
    detail: String,
    instance: Option<String>,
}

impl Refusal {
    /// Reads a reply whose status is none of success.
    pub fn read(status: u16, retry_after: Option<u64>, body: &[u8]) -> Self {
        let document: Option<Document> = serde_json::from_slice(body).ok();
        let (words, instance) = match document {
            Some(Document { title, detail, instance }) if detail.is_empty() => (clean(&title), instance),
            Some(Document { title, detail, instance }) => (format!("{}: {}", clean(&title), clean(&detail)), instance),
            None => (format!("the appliance answered with HTTP status {status} and no explanation"), None),
        };
        Self { status, words, instance: instance.as_deref().map(clean), retry_after }
    }

    fn exit(&self) -> Exit {
        match self.status {
            400 | 413 | 415 | 422 => Exit::BadInput,
            401 | 403 => Exit::Denied,
            404 => Exit::NotFound,
            408 | 429 | 502..=504 | 507 => Exit::Unavailable,
            _ => Exit::Failed,
        }
    }
}

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The command line asks for something that cannot be.
    #[error("{0}")]
    Usage(String),
    /// How to reach the appliance is not known.
    #[error("{what} is not known; give {option}, set {variable}, or write `{field} = \"…\"` to {}", .file.display())]
    NotConfigured {
        /// In words.
        what: &'static str,
        /// On the command line.
        option: &'static str,
        /// In the environment.
        variable: &'static str,
        /// In the profile.
        field: &'static str,
        /// The profile.
        file: PathBuf,
    },
    /// A setting is wrong.
    #[error("{0}")]
    Configuration(String),
    /// No connection.
    #[error("{server} cannot be reached: {cause}; check the address and that salamad runs there")]
    Unreachable {
        /// Host and port.
        server: String,
        /// The system's words.
        cause: String,
    },
    /// The connection broke.
    #[error("the connection to {server} broke: {cause}; try again")]
    Broken {
        /// Host and port.
        server: String,
        /// The library's words.
        cause: String,
    },
    /// TLS was refused by one side.
    #[error("{0}")]
    TlsRefused(String),
    /// The appliance refused.
    #[error("{}", .0.words)]
    Refused(Refusal),
    /// The appliance's reply is not what its API promises.
    #[error("the reply of the appliance is not understood: {0}; are client and appliance of the same version?")]
    Reply(String),
    /// The call ended without a transcript.
    #[error("the call failed: {0}")]
    CallFailed(CallFailure),
    /// The call has no transcript to wait for.
    #[error("the call was cancelled")]
    CallCancelled,
    /// The call ended in a way that this client does not know.
    #[error("the call ended as {0:?}")]
    CallEnded(CallState),
    /// A file that was to be read.
    #[error("{} cannot be read: {cause}", .path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// The system's words.
        cause: io::Error,
    },
    /// A file that was to be written.
    #[error("{} cannot be written: {cause}", .path.display())]
    Write {
        /// Which.
        path: PathBuf,
        /// The system's words.
        cause: io::Error,
    },
    /// `init` failed.
    #[error(transparent)]
    Init(#[from] InitError),
    /// `enrol` failed.
    #[error(transparent)]
    Enrol(#[from] EnrolError),
    /// `keys` failed.
    #[error(transparent)]
    Keys(#[from] KeysError),
    /// `model import` failed.
    #[error(transparent)]
    Import(#[from] ImportModelError),
    /// `model verify` failed.
    #[error(transparent)]
    Verify(#[from] VerifyError),
    /// `model verify` could not have the model's answer compared, or it is another.
    #[error(transparent)]
    Golden(#[from] GoldenError),
    /// `model list` found models that are not as their manifests say.
    #[error("{0} of the models must not be used; import them again")]
    ModelsRefused(usize),
    /// `store` was refused.
    #[error("{}", clean(&.0.words))]
    StoreRefused(StoreRefusal),
    /// `store check` found faults.
    #[error("the store is damaged; keep a copy of the whole state directory before anything else is done with it")]
    StoreDamaged,
    /// `store check` could not open anything.
    #[error("only what needs no keys was checked, because there are none: {0}")]
    StoreWithoutKeys(String),
    /// `salamad` did not say how it went.
    #[error(
        "salamad ended without a report; the journal and the lines above may say why. The store is whole or as it was: `salama store check` tells"
    )]
    StoreSilent,
    /// `salamad` did not start.
    #[error(transparent)]
    StoreStart(SpawnError),
    /// The keeper's lines are not whole.
    #[error("{0}")]
    KeyLog(#[from] LogFault),
    /// There is no journal to read.
    #[error("{0}")]
    NoJournal(String),
    /// Standard output is closed: whoever reads has read enough.
    #[error("standard output is closed")]
    OutputClosed,
    /// Standard output cannot be written.
    #[error("standard output cannot be written: {0}")]
    Output(io::Error),
}

impl Failure {
    /// The exit code.
    pub fn exit(&self) -> Exit {
        match self {
            Self::Usage(_) => Exit::Usage,
            Self::NotConfigured { .. } | Self::Configuration(_) => Exit::Config,
            Self::Unreachable { .. } | Self::Broken { .. } | Self::NoJournal(_) => Exit::Unavailable,
            Self::TlsRefused(_) => Exit::Denied,
            Self::Refused(refusal) => refusal.exit(),
            Self::CallFailed(failure) if failure.is_of_recording() => Exit::BadInput,
            Self::Read { cause, .. } if cause.kind() == io::ErrorKind::NotFound => Exit::NotFound,
            Self::Read { .. } | Self::Write { .. } | Self::Output(_) => Exit::Io,
            Self::StoreRefused(refusal) => of_store(refusal.kind),
            Self::StoreDamaged => Exit::BadInput,
            Self::Init(error) => of_init(error),
            Self::Enrol(error) => of_enrol(error),
            Self::Keys(error) => error.exit(),
            Self::Import(ImportModelError::Name { .. }) => Exit::Usage,
            Self::KeyLog(_) => Exit::BadInput,
            Self::Import(ImportModelError::Import(_)) | Self::Verify(_) | Self::ModelsRefused(_) => Exit::BadInput,
            Self::Golden(error) | Self::Import(ImportModelError::Golden(error)) => match error {
                GoldenError::Refused(_) => Exit::BadInput,
                GoldenError::Start(_) | GoldenError::Broken(_) => Exit::Failed,
            },
            Self::OutputClosed => Exit::Ok,
            Self::StoreWithoutKeys(_) | Self::StoreSilent | Self::StoreStart(_) => Exit::Failed,
            Self::CallFailed(_) | Self::Reply(_) | Self::CallCancelled | Self::CallEnded(_) => Exit::Failed,
        }
    }

    /// Asking again later may help.
    pub fn is_retryable(&self) -> bool {
        self.exit() == Exit::Unavailable
    }
}

const fn of_store(kind: RefusalKind) -> Exit {
    match kind {
        RefusalKind::InUse => Exit::Unavailable,
        RefusalKind::NotAllowed => Exit::Denied,
        RefusalKind::Absent => Exit::NotFound,
        RefusalKind::Disk => Exit::Io,
        RefusalKind::Damaged => Exit::BadInput,
        RefusalKind::Settings => Exit::Config,
        RefusalKind::Failed => Exit::Failed,
    }
}

const fn of_init(error: &InitError) -> Exit {
    match error {
        InitError::CaExists(_) => Exit::Usage,
        InitError::Start(_) | InitError::Provision { .. } => Exit::Failed,
        InitError::WriteCa { .. } => Exit::Io,
    }
}

fn of_enrol(error: &EnrolError) -> Exit {
    match error {
        EnrolError::Name | EnrolError::Exists(_) => Exit::Usage,
        EnrolError::ReadRequest { source, .. } if source.kind() == io::ErrorKind::NotFound => Exit::NotFound,
        EnrolError::NoRequest(_) => Exit::BadInput,
        EnrolError::MakeKey(_) | EnrolError::Start(_) | EnrolError::Keeper(_) => Exit::Failed,
        EnrolError::ReadRequest { .. } | EnrolError::Write { .. } | EnrolError::Lines(_) => Exit::Io,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_status_has_its_exit_code() {
        let cases = [
            (400, Exit::BadInput),
            (413, Exit::BadInput),
            (415, Exit::BadInput),
            (422, Exit::BadInput),
            (404, Exit::NotFound),
            (401, Exit::Denied),
            (403, Exit::Denied),
            (408, Exit::Unavailable),
            (429, Exit::Unavailable),
            (503, Exit::Unavailable),
            (507, Exit::Unavailable),
            (409, Exit::Failed),
            (500, Exit::Failed),
        ];
        for (status, exit) in cases {
            assert_eq!(Failure::Refused(Refusal::read(status, None, b"")).exit(), exit, "{status}");
        }
    }

    #[test]
    fn a_problem_is_told_in_its_own_words_without_control_characters() {
        let body = br#"{"type":"urn:salama:problem:not-found","title":"There is no such call","status":404,
            "detail":"It was \u001b[31merased.","instance":"urn:salama:request:1"}"#;
        let refusal = Refusal::read(404, None, body);
        assert_eq!(refusal.words, "There is no such call: It was \u{fffd}[31merased.");
        assert_eq!(refusal.instance.as_deref(), Some("urn:salama:request:1"));
    }

    #[test]
    fn a_bad_recording_and_a_broken_appliance_exit_differently() {
        assert_eq!(Failure::CallFailed(CallFailure::Truncated).exit(), Exit::BadInput);
        assert_eq!(Failure::CallFailed(CallFailure::WorkerDied).exit(), Exit::Failed);
    }
}
