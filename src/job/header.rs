//! The values of stored rows: what is kept of a call outside its own key, enough to find, queue and show it, no content; and what is under it.
//! Trusts: nothing.
//! Touches: nothing.
//! Next: [`super::desk`] seals it under the index key.

use serde::{Deserialize, Serialize};

use super::spec::{CallMetadata, CallState, CallView};
use super::state::{Change, next};
use crate::base::clock::Timestamp;
use crate::base::ids::CallId;
use crate::ipc::keeper::{ErasedClass, ErasureCertificate};
use crate::ipc::transcript::{Entity, EntityCount, Utterance};
use crate::ipc::worker::{AudioInfo, CallFailure, Stage, StageTime, TextLanguage};
use crate::record::index::KeyedHash;

/// Event numbers between two changes of state: what is between them are the numbers of progress events, which are
/// not durable. So no number is given twice, even when the daemon ends in the middle.
pub(super) const EVENT_STRIDE: u64 = 1000;

/// Table `header`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Header {
    pub call: CallId,
    pub job: u64,
    pub owner: String,
    pub state: CallState,
    pub created: Timestamp,
    pub updated: Timestamp,
    pub audio_bytes: u64,
    pub audio_ms: Option<u64>,
    pub audio: Option<AudioInfo>,
    pub failure: Option<CallFailure>,
    pub attempts: u8,
    /// Number of the last change of state's event.
    pub event: u64,
    /// Where the idempotency key is remembered that brought this call.
    pub idempotency: Option<KeyedHash>,
}

impl Header {
    /// This header after `change`, or none when it is not possible.
    pub(super) fn after(&self, change: Change, now: Timestamp) -> Option<Self> {
        let event = self.event.checked_add(EVENT_STRIDE)?;
        let mut header = Self { state: next(self.state, change)?, updated: now, event, ..self.clone() };
        match change {
            Change::Start => header.attempts = self.attempts.saturating_add(1),
            Change::Interrupt { counted: false } => header.attempts = self.attempts.saturating_sub(1),
            Change::Fail(failure) => header.failure = Some(failure),
            Change::Interrupt { counted: true } | Change::Finish | Change::Cancel => {}
        }
        Some(header)
    }

    /// For a reader, with the live progress when there is any.
    pub(super) fn view(&self, progress: Option<(Stage, u8)>) -> CallView {
        let (stage, percent) = match (self.state, progress) {
            (CallState::Done, _) => (None, 100),
            (CallState::Running, Some((stage, percent))) => (Some(stage), percent),
            (CallState::Queued, _) => (Some(Stage::Queued), 0),
            _ => (None, 0),
        };
        CallView {
            id: self.call,
            job: self.job,
            owner: self.owner.clone(),
            state: self.state,
            stage,
            percent,
            created_at: self.created.rfc3339(),
            updated_at: self.updated.rfc3339(),
            audio_bytes: self.audio_bytes,
            audio_ms: self.audio_ms,
            audio: self.audio.clone(),
            failure: self.failure,
            attempts: self.attempts,
        }
    }
}

/// Table `idempotency`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Remembered {
    pub call: CallId,
    pub metadata: KeyedHash,
    pub body: KeyedHash,
    pub at: Timestamp,
}

/// Table `metadata`: JSON, since its optional fields are left out when absent.
#[derive(Serialize, Deserialize)]
pub(super) struct StoredMetadata {
    json: Vec<u8>,
}

impl StoredMetadata {
    pub(super) fn of(metadata: &CallMetadata) -> Result<Self, serde_json::Error> {
        Ok(Self { json: serde_json::to_vec(metadata)? })
    }

    pub(super) fn metadata(&self) -> Result<CallMetadata, serde_json::Error> {
        serde_json::from_slice(&self.json)
    }

    pub(super) fn json(&self) -> &[u8] {
        &self.json
    }
}

/// Table `redacted`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct StoredTranscript {
    pub utterances: Vec<Utterance>,
    pub redacted: Vec<EntityCount>,
    pub language: Option<TextLanguage>,
    pub audio_ms: u64,
    pub speech_ms: u64,
    pub stages: Vec<StageTime>,
    pub wall_ms: u64,
    pub models: Vec<String>,
}

/// Table `clear`: the utterances as they were said.
pub(super) type StoredClear = Vec<Utterance>;
/// Table `entities`: what was masked, for each utterance.
pub(super) type StoredEntities = Vec<Vec<Entity>>;

/// Table `erasure`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct StoredErasure {
    pub owner: String,
    pub erased: Timestamp,
    pub classes: Vec<ErasedClass>,
    /// Its key was wrapped under this epoch.
    pub epoch: u32,
    pub certificate: Option<ErasureCertificate>,
}

impl StoredErasure {
    /// Of a call that is erased now.
    pub(super) fn of(header: &Header, epoch: u32, now: Timestamp) -> Self {
        let mut classes = vec![ErasedClass::Recording, ErasedClass::Metadata];
        if header.state == CallState::Done {
            classes.extend([ErasedClass::RedactedTranscript, ErasedClass::ClearTranscript]);
        }
        Self { owner: header.owner.clone(), erased: now, classes, epoch, certificate: None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn event_numbers_of_states_leave_room_for_progress_and_never_repeat() {
        let queued = header();
        let running = queued.after(Change::Start, Timestamp::from_unix_millis(2)).unwrap();
        let again = running.after(Change::Interrupt { counted: true }, Timestamp::from_unix_millis(3)).unwrap();
        assert_eq!([queued.event, running.event, again.event], [1, 1001, 2001]);
        assert_eq!(again.attempts, 1);
    }

    #[test]
    fn at_the_last_number_of_all_no_change_is_possible() {
        let last = Header { event: u64::MAX - EVENT_STRIDE + 1, ..header() };
        assert_eq!(last.after(Change::Start, Timestamp::from_unix_millis(2)), None);
    }

    #[test]
    fn a_stop_of_the_daemon_costs_no_attempt() {
        let running = header().after(Change::Start, Timestamp::from_unix_millis(2)).unwrap();
        let again = running.after(Change::Interrupt { counted: false }, Timestamp::from_unix_millis(3)).unwrap();
        assert_eq!(again.attempts, 0);
    }

    fn header() -> Header {
        Header {
            call: CallId::from_bytes([1; 16]),
            job: 1,
            owner: "counsellor/amina".into(),
            state: CallState::Queued,
            created: Timestamp::from_unix_millis(1),
            updated: Timestamp::from_unix_millis(1),
            audio_bytes: 10,
            audio_ms: None,
            audio: None,
            failure: None,
            attempts: 0,
            event: 1,
            idempotency: None,
        }
    }
}
