//! The closed list of what is recorded, and which fields each entry has.
//! Trusts: nothing; no field can hold what was said in a call or who it was about.
//! Touches: nothing.
//! Next: [`super::record`] hands the line to the sink.

use std::fmt;
use std::net::SocketAddr;

use crate::base::ids::CallId;

/// A person or machine with a certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Who {
    /// Role in the certificate, for example `counsellor`.
    pub role: String,
    /// Name in the certificate, `[a-z0-9._-]{1,64}`.
    pub name: String,
}

impl fmt::Display for Who {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.role, self.name)
    }
}

impl Who {
    /// From `role/name`.
    pub fn from_owner(owner: &str) -> Self {
        let (role, name) = owner.split_once('/').unwrap_or(("unknown", owner));
        Self { role: role.to_owned(), name: name.to_owned() }
    }
}

/// A word of ours for an action, a stage, a reason: known when the program was built.
pub type Code = &'static str;

/// How a decision went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ruling {
    /// It was done.
    Allowed,
    /// It was refused, for this reason.
    Refused(Code),
}

impl Ruling {
    pub(super) const fn words(self) -> (Code, Option<Code>) {
        match self {
            Self::Allowed => ("allowed", None),
            Self::Refused(reason) => ("refused", Some(reason)),
        }
    }
}

/// What of a call was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reading {
    /// The redacted transcript.
    Transcript,
    /// The export document.
    Export,
}

/// How many system calls, rules and versions confine a process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfinementReport {
    /// `core`, `keeper`, `forkserver` or `child`.
    pub process: Code,
    /// The running kernel's landlock ABI.
    pub landlock_abi: u32,
    /// Protections that a newer kernel's landlock would add, in words; empty when there are none.
    pub landlock_lacks: String,
    /// System calls that are allowed.
    pub system_calls: u32,
    /// Forbidden acts that were tried and denied.
    pub acts_denied: u32,
}

/// Why a connection ended before a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AuthFailure {
    /// No certificate, or one of another authority, or expired.
    Handshake,
    /// The handshake took too long.
    HandshakeTimeout,
    /// The certificate is genuine, its identity is not one of ours.
    Identity,
    /// Too many connections, in total or from this source.
    Connections,
}

impl AuthFailure {
    pub(super) const fn code(self) -> Code {
        match self {
            Self::Handshake => "handshake",
            Self::HandshakeTimeout => "handshake_timeout",
            Self::Identity => "identity",
            Self::Connections => "connections",
        }
    }
}

/// One entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The daemon serves.
    DaemonStarted {
        /// Its version.
        version: Code,
    },
    /// The daemon ends.
    DaemonStopped {
        /// Why.
        reason: Code,
    },
    /// A process is confined; the self-check passed.
    Confined(ConfinementReport),
    /// The key keeper answers.
    KeeperStarted,
    /// The key keeper is gone; the daemon exits.
    KeeperLost,
    /// The fork server answers, with so many models.
    WorkerStarted {
        /// How many.
        models: u64,
    },
    /// The fork server is gone; the daemon exits.
    WorkerLost,
    /// A connection ended before a request.
    AuthFailed {
        /// From where.
        peer: SocketAddr,
        /// Why.
        failure: AuthFailure,
    },
    /// A request was allowed or refused.
    Decided {
        /// By whom; absent when there is no identity.
        who: Option<Who>,
        /// From where.
        peer: SocketAddr,
        /// What was asked.
        action: Code,
        /// On which call.
        call: Option<CallId>,
        /// How it went.
        ruling: Ruling,
    },
    /// A recording is durable and queued.
    CallAccepted {
        /// Which.
        call: CallId,
        /// Whose.
        who: Who,
        /// Its size.
        bytes: u64,
    },
    /// A child works on it.
    CallStarted {
        /// Which.
        call: CallId,
        /// Counted from 1.
        attempt: u8,
    },
    /// Its transcript is sealed.
    CallDone {
        /// Which.
        call: CallId,
        /// Length of the audio.
        audio_ms: u64,
        /// Time it took.
        wall_ms: u64,
        /// Stretches of text that were redacted.
        redacted: u64,
    },
    /// It ended without a transcript.
    CallFailed {
        /// Which.
        call: CallId,
        /// Why.
        reason: Code,
        /// How the child ended, when it did: exit code or signal.
        exit: Option<i64>,
    },
    /// It waits again: the daemon stopped, or something outside the call hindered it.
    CallRequeued {
        /// Which.
        call: CallId,
        /// Why.
        reason: Code,
    },
    /// Someone stopped it.
    CallCancelled {
        /// Which.
        call: CallId,
    },
    /// Key, records and recording are gone.
    CallErased {
        /// Which.
        call: CallId,
    },
    /// What opened erased calls was destroyed; the others' keys were wrapped anew.
    EpochMoved {
        /// The epoch that counts now.
        epoch: u32,
        /// How many.
        calls: u64,
    },
    /// An erasure is final, and certified.
    ErasureCertified {
        /// Which.
        call: CallId,
        /// The epoch of its key, which is destroyed.
        epoch: u32,
    },
    /// Its key was opened to read it.
    CallRead {
        /// Which.
        call: CallId,
        /// What.
        what: Reading,
    },
    /// A text was redacted; nothing of it was stored.
    TextRedacted {
        /// Stretches of text that were redacted.
        redacted: u64,
    },
    /// A record or recording does not open, or a component refused: the cause behind an `Internal`.
    Fault {
        /// Which call.
        call: Option<CallId>,
        /// Which step.
        step: Code,
        /// The error's own words, which hold no content.
        cause: String,
    },
    /// What an earlier crash had left was removed.
    Swept {
        /// How many files.
        files: u64,
    },
    /// Uploads are refused: the disk is nearly full.
    SpaceLow,
    /// Someone at the console had the store checked.
    StoreChecked {
        /// Whether every call's key was opened for it.
        with_keys: bool,
        /// What was found.
        faults: u64,
    },
    /// Someone at the console had the store compacted.
    StoreCompacted {
        /// Bytes given back.
        freed: u64,
    },
    /// The store is not the newest that this box had; the daemon does not start.
    StoreRefused {
        /// To what the TPM has counted; nothing for a counter that is gone.
        counted: Option<u64>,
    },
    /// The same, but somebody at the console gave leave with a code or shares.
    StoreTakenWithLeave {
        /// The count in the store.
        said: Option<u64>,
        /// To what the TPM had counted.
        counted: u64,
    },
    /// The keeper's limit is reached: nothing is opened until it says.
    KeyLimit {
        /// What wanted a key.
        step: Code,
        /// Of which call.
        call: Option<CallId>,
        /// For how long it is refused, seconds.
        wait_s: u64,
    },
    /// The keeper took a grant, or refused it: more calls than usual may be opened for a while.
    KeyBurst {
        /// Who signed it.
        who: Who,
        /// How it went.
        ruling: Ruling,
    },
    /// An administrator changed something.
    AdminActed {
        /// Who.
        who: Who,
        /// What.
        action: Code,
    },
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::DaemonStarted { version } => write!(f, "salamad {version} serves"),
            Self::DaemonStopped { reason } => write!(f, "salamad stops: {reason}"),
            Self::Confined(report) => {
                write!(
                    f,
                    "{} is confined: landlock ABI {}, {} system calls allowed, {} forbidden acts tried and denied",
                    report.process, report.landlock_abi, report.system_calls, report.acts_denied
                )?;
                let lacks = &report.landlock_lacks;
                if lacks.is_empty() { Ok(()) } else { write!(f, "; this kernel's landlock does not cover {lacks}") }
            }
            Self::KeeperStarted => write!(f, "the key keeper is ready"),
            Self::KeeperLost => write!(f, "the key keeper is gone; the daemon exits"),
            Self::WorkerStarted { models } => write!(f, "the fork server is ready with {models} models"),
            Self::WorkerLost => write!(f, "the fork server is gone; the daemon exits"),
            Self::AuthFailed { peer, failure } => write!(f, "connection from {peer} refused: {}", failure.code()),
            Self::Decided { who, action, ruling, .. } => {
                match who {
                    Some(who) => write!(f, "{who} {action}: ")?,
                    None => write!(f, "someone without identity {action}: ")?,
                }
                match ruling {
                    Ruling::Allowed => write!(f, "allowed"),
                    Ruling::Refused(reason) => write!(f, "refused ({reason})"),
                }
            }
            Self::CallAccepted { call, who, bytes } => write!(f, "call {call} of {who} accepted, {bytes} bytes"),
            Self::CallStarted { call, attempt } => write!(f, "call {call} started, attempt {attempt}"),
            Self::CallDone { call, audio_ms, wall_ms, redacted } => {
                write!(f, "call {call} done: {audio_ms} ms of audio in {wall_ms} ms, {redacted} stretches redacted")
            }
            Self::CallFailed { call, reason, exit } => {
                write!(f, "call {call} failed: {reason}")?;
                exit.map_or(Ok(()), |exit| write!(f, " (the child ended with {exit})"))
            }
            Self::CallRequeued { call, reason } => write!(f, "call {call} waits again: {reason}"),
            Self::CallCancelled { call } => write!(f, "call {call} cancelled"),
            Self::CallErased { call } => write!(f, "call {call} erased"),
            Self::EpochMoved { epoch, calls } => write!(f, "erasure epoch {epoch} counts: the keys of {calls} calls were wrapped anew"),
            Self::ErasureCertified { call, epoch } => write!(f, "the erasure of call {call} is final: epoch {epoch} is destroyed"),
            Self::CallRead { call, what } => write!(f, "call {call} opened for reading: {}", what.code()),
            Self::TextRedacted { redacted } => write!(f, "a text was redacted in {redacted} places"),
            Self::Fault { step, cause, .. } => write!(f, "{step} failed: {cause}"),
            Self::Swept { files } => write!(f, "{files} files that an earlier crash had left were removed"),
            Self::SpaceLow => write!(f, "the disk is nearly full: uploads are refused; erase calls or enlarge the disk"),
            Self::StoreChecked { with_keys, faults } => {
                let keys = if *with_keys { "every call's key was opened" } else { "no key was opened" };
                write!(f, "the store was checked at the console ({keys}): {faults} faults")
            }
            Self::StoreCompacted { freed } => write!(f, "the store was compacted at the console: {freed} bytes given back"),
            Self::StoreRefused { .. } => write!(f, "the store is not the newest that this box had: the daemon does not start"),
            Self::StoreTakenWithLeave { said, counted } => {
                let said = said.map_or_else(|| "no count".to_owned(), |said| format!("count {said}"));
                write!(
                    f,
                    "a store of {said} was taken with leave given at the console, where the TPM had counted to {counted}; a copy of it is kept"
                )
            }
            Self::AdminActed { who, action } => write!(f, "{who} {action}"),
            Self::KeyLimit { step, wait_s, .. } => {
                write!(f, "{step}: the key keeper's limit is reached for {wait_s} s")
            }
            Self::KeyBurst { who, ruling } => {
                write!(f, "{who} asks for more calls to be opened: ")?;
                match ruling {
                    Ruling::Allowed => write!(f, "granted"),
                    Ruling::Refused(reason) => write!(f, "refused ({reason})"),
                }
            }
        }
    }
}
