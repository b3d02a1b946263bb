//! What of an entry goes into which field of the journal, under which name and how loud.
//! Trusts: nothing.
//! Touches: nothing.
//! Next: [`super::record`] hands the line to the sink.

use std::net::SocketAddr;

use super::event::{Code, Event, Reading, Ruling, Who};
use crate::base::ids::CallId;

/// How loud an entry is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    /// As it should be.
    Notice,
    /// Someone should look at it.
    Warning,
    /// It needs an operator.
    Error,
}

/// The fields of an entry; each event fills some.
#[derive(Default)]
pub(super) struct Line<'a> {
    pub who: Option<&'a Who>,
    pub call: Option<CallId>,
    pub peer: Option<SocketAddr>,
    pub action: Option<Code>,
    pub outcome: Option<Code>,
    pub reason: Option<Code>,
    pub count: Option<u64>,
    pub attempt: Option<u64>,
    pub epoch: Option<u64>,
    pub audio_ms: Option<u64>,
    pub wall_ms: Option<u64>,
    pub bytes: Option<u64>,
    pub detail: Option<&'a str>,
}

impl Event {
    /// Its name, `SALAMA_EVENT` in the journal. Never changes its meaning.
    pub const fn code(&self) -> Code {
        match self {
            Self::DaemonStarted { .. } => "daemon_started",
            Self::DaemonStopped { .. } => "daemon_stopped",
            Self::Confined(_) => "confined",
            Self::KeeperStarted => "keeper_started",
            Self::KeeperLost => "keeper_lost",
            Self::WorkerStarted { .. } => "worker_started",
            Self::WorkerLost => "worker_lost",
            Self::AuthFailed { .. } => "auth_failed",
            Self::Decided { .. } => "decided",
            Self::CallAccepted { .. } => "call_accepted",
            Self::CallStarted { .. } => "call_started",
            Self::CallDone { .. } => "call_done",
            Self::CallFailed { .. } => "call_failed",
            Self::CallRequeued { .. } => "call_requeued",
            Self::CallCancelled { .. } => "call_cancelled",
            Self::CallErased { .. } => "call_erased",
            Self::EpochMoved { .. } => "epoch_moved",
            Self::ErasureCertified { .. } => "erasure_certified",
            Self::CallRead { .. } => "call_read",
            Self::TextRedacted { .. } => "text_redacted",
            Self::Fault { .. } => "fault",
            Self::Swept { .. } => "swept",
            Self::SpaceLow => "space_low",
            Self::StoreChecked { .. } => "store_checked",
            Self::StoreCompacted { .. } => "store_compacted",
            Self::StoreRefused { .. } => "store_refused",
            Self::StoreTakenWithLeave { .. } => "store_taken_with_leave",
            Self::KeyLimit { .. } => "key_limit",
            Self::KeyBurst { .. } => "key_burst",
            Self::AdminActed { .. } => "admin_acted",
        }
    }

    /// How loud it is.
    pub const fn severity(&self) -> Severity {
        match self {
            Self::KeeperLost | Self::WorkerLost | Self::Fault { .. } | Self::StoreRefused { .. } => Severity::Error,
            Self::StoreChecked { faults: 1.., .. } => Severity::Error,
            Self::AuthFailed { .. }
            | Self::Decided { ruling: Ruling::Refused(_), .. }
            | Self::CallFailed { .. }
            | Self::SpaceLow
            | Self::StoreTakenWithLeave { .. }
            | Self::KeyLimit { .. }
            | Self::KeyBurst { .. }
            | Self::Swept { .. } => Severity::Warning,
            _ => Severity::Notice,
        }
    }

    pub(super) fn line(&self) -> Line<'_> {
        let none = Line::default();
        match self {
            Self::DaemonStarted { version } => Line { detail: Some(version), ..none },
            Self::DaemonStopped { reason } => Line { reason: Some(reason), ..none },
            Self::Confined(report) => Line { detail: Some(report.process), count: Some(report.acts_denied.into()), ..none },
            Self::WorkerStarted { models } => Line { count: Some(*models), ..none },
            Self::AuthFailed { peer, failure } => {
                Line { peer: Some(*peer), outcome: Some("refused"), reason: Some(failure.code()), ..none }
            }
            Self::Decided { who, peer, action, call, ruling } => {
                let (outcome, reason) = ruling.words();
                Line { who: who.as_ref(), peer: Some(*peer), action: Some(action), call: *call, outcome: Some(outcome), reason, ..none }
            }
            Self::CallAccepted { call, who, bytes } => Line { call: Some(*call), who: Some(who), bytes: Some(*bytes), ..none },
            Self::CallStarted { call, attempt } => Line { call: Some(*call), attempt: Some((*attempt).into()), ..none },
            Self::CallDone { call, audio_ms, wall_ms, redacted } => {
                Line { call: Some(*call), audio_ms: Some(*audio_ms), wall_ms: Some(*wall_ms), count: Some(*redacted), ..none }
            }
            Self::CallFailed { call, reason, .. } | Self::CallRequeued { call, reason } => {
                Line { call: Some(*call), reason: Some(reason), ..none }
            }
            Self::CallCancelled { call } | Self::CallErased { call } => Line { call: Some(*call), ..none },
            Self::EpochMoved { epoch, calls } => Line { epoch: Some((*epoch).into()), count: Some(*calls), ..none },
            Self::ErasureCertified { call, epoch } => Line { call: Some(*call), epoch: Some((*epoch).into()), ..none },
            Self::CallRead { call, what } => Line { call: Some(*call), detail: Some(what.code()), ..none },
            Self::TextRedacted { redacted: count } | Self::Swept { files: count } => Line { count: Some(*count), ..none },
            Self::Fault { call, step, cause } => Line { call: *call, reason: Some(step), detail: Some(cause), ..none },
            Self::AdminActed { who, action } => Line { who: Some(who), action: Some(action), ..none },
            Self::StoreChecked { with_keys, faults } => {
                Line { count: Some(*faults), detail: Some(if *with_keys { "with keys" } else { "without keys" }), ..none }
            }
            Self::StoreCompacted { freed } => Line { bytes: Some(*freed), ..none },
            Self::StoreRefused { counted } => Line { outcome: Some("refused"), count: *counted, ..none },
            Self::StoreTakenWithLeave { counted, .. } => Line { outcome: Some("allowed"), count: Some(*counted), ..none },
            Self::KeyLimit { step, call, wait_s } => Line { call: *call, reason: Some(step), count: Some(*wait_s), ..none },
            Self::KeyBurst { who, ruling } => {
                let (outcome, reason) = ruling.words();
                Line { who: Some(who), outcome: Some(outcome), reason, ..none }
            }
            Self::KeeperStarted | Self::KeeperLost | Self::WorkerLost | Self::SpaceLow => none,
        }
    }
}

impl Reading {
    pub(super) const fn code(self) -> Code {
        match self {
            Self::Transcript => "transcript",
            Self::Export => "export",
        }
    }
}
