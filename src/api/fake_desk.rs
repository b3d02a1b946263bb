//! A desk in memory, for tests of the handlers: keeps what it is told, refuses what it is scripted to refuse.
//! Trusts: its test.
//! Touches: nothing.
//! Next: the handlers under test.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};

use bytes::Bytes;
use tokio::sync::mpsc;

use super::bursts::KeyBursts;
use super::desk::{Desk, Incoming};
use crate::base::ids::CallId;
use crate::ipc::burst::SignedGrant;
use crate::ipc::keeper::StartId;
use crate::ipc::transcript::{EntityCount, EntityKind, Utterance, Word};
use crate::ipc::worker::{Stage, TextLanguage};
use crate::job::spec::{
    CallEvent, CallExport, CallHappening, CallMetadata, CallPage, CallView, Certificate, ErasureView, RedactedText, Scope, Transcript,
};

pub(crate) use super::bursts::BurstRefusal;
pub(crate) use crate::ipc::burst::GrantFault;
pub(crate) use crate::ipc::worker::CallFailure;
pub(crate) use crate::job::calls::{Arrival, CallsError};
pub(crate) use crate::job::spec::CallState;

/// A keeper that keeps the grants and answers as a test wants.
#[derive(Default)]
pub(crate) struct FakeBursts {
    pub(crate) relayed: Mutex<Vec<SignedGrant>>,
    pub(crate) refuses: Mutex<Option<BurstRefusal>>,
}

impl KeyBursts for FakeBursts {
    fn start(&self) -> StartId {
        [9; 16]
    }

    fn burst(&self, grant: SignedGrant) -> Result<(), BurstRefusal> {
        self.relayed.lock().unwrap().push(grant);
        self.refuses.lock().unwrap().map_or(Ok(()), Err)
    }
}

/// The paths that the router serves.
pub(crate) fn served_paths() -> Vec<&'static str> {
    super::routes::<FakeDesk>().into_iter().map(|(path, _)| path).collect()
}

/// The API document.
pub(crate) fn api_document() -> serde_json::Value {
    serde_json::to_value(<super::openapi::Document as utoipa::OpenApi>::openapi()).unwrap()
}

/// The desk.
#[derive(Clone, Default)]
pub(crate) struct FakeDesk(Arc<Mutex<Inner>>);

#[derive(Default)]
pub(crate) struct Inner {
    pub(crate) calls: Vec<(CallView, CallMetadata)>,
    /// The call and the recording that came with an idempotency key of an owner.
    pub(crate) keys: HashMap<(String, String), (CallId, Vec<u8>)>,
    /// The next thing that is asked fails with this.
    pub(crate) fails: Option<CallsError>,
    /// Live events of calls that have not ended.
    pub(crate) watchers: Vec<mpsc::Sender<CallEvent>>,
    /// Uploads that were dropped before their end.
    pub(crate) forgotten: Option<mpsc::UnboundedSender<u64>>,
    /// Told when `redact_text` is asked; the answer waits until the other channel closes.
    pub(crate) slow_text: Option<(mpsc::UnboundedSender<()>, Arc<tokio::sync::Notify>)>,
}

pub(crate) struct FakeUpload {
    desk: FakeDesk,
    view: CallView,
    metadata: CallMetadata,
    key: Option<(String, String)>,
    recording: Vec<u8>,
    finished: bool,
}

impl Inner {
    /// The call that came first with a key, with its metadata and its recording.
    fn first(&self, key: &(String, String)) -> Option<(&CallView, &CallMetadata, &Vec<u8>)> {
        let (id, recording) = self.keys.get(key)?;
        self.calls.iter().find(|(view, _)| view.id == *id).map(|(view, metadata)| (view, metadata, recording))
    }
}

impl FakeDesk {
    pub(crate) fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap()
    }

    /// Puts a call in.
    pub(crate) fn with_call(&self, id: u8, owner: &str, state: CallState) -> CallId {
        let view = view(CallId::from_bytes([id; 16]), owner, state);
        let id = view.id;
        self.lock().calls.push((view, metadata()));
        id
    }

    fn ask(&self) -> Result<(), CallsError> {
        self.lock().fails.take().map_or(Ok(()), Err)
    }

    fn find(&self, scope: &Scope, id: CallId) -> Result<CallView, CallsError> {
        self.ask()?;
        let inner = self.lock();
        let seen = |view: &&CallView| view.id == id && covers(scope, view);
        inner.calls.iter().map(|(view, _)| view).find(seen).cloned().ok_or(CallsError::NotFound)
    }
}

fn covers(scope: &Scope, view: &CallView) -> bool {
    match scope {
        Scope::All => true,
        Scope::OwnedBy(owner) => *owner == view.owner,
    }
}

fn view(id: CallId, owner: &str, state: CallState) -> CallView {
    let at = "2026-11-22T08:30:00Z".to_owned();
    CallView {
        id,
        job: 1,
        owner: owner.to_owned(),
        state,
        stage: None,
        percent: 0,
        created_at: at.clone(),
        updated_at: at,
        audio_bytes: 0,
        audio_ms: None,
        audio: None,
        failure: None,
        attempts: 0,
    }
}

pub(crate) fn metadata() -> CallMetadata {
    serde_json::from_str(r#"{"consent":{"basis":"caller","purposes":["transcription"]}}"#).unwrap()
}

fn transcript(call: CallId) -> Transcript {
    let word = |start_ms, text: &str| Word { start_ms, end_ms: start_ms + 400, text: text.to_owned(), confidence: 0.9 };
    let words = vec![word(1_000, "Hello"), word(1_500, "[PERSON_1].")];
    let spoken = Utterance { channel: 0, start_ms: 1_000, end_ms: 1_900, language: "en".to_owned(), confidence: 0.9, words };
    Transcript {
        call,
        channels: None,
        channels_mismatch: false,
        utterances: vec![spoken],
        redacted: vec![EntityCount { kind: EntityKind::Person, count: 1 }],
        language: Some(TextLanguage { code: "en".to_owned(), confidence: 1.0 }),
        audio_ms: 2_000,
        speech_ms: 900,
        stages: vec![],
        wall_ms: 500,
        models: vec![],
    }
}

impl Incoming for FakeUpload {
    async fn push(&mut self, bytes: Bytes) -> Result<(), CallsError> {
        self.view.audio_bytes += u64::try_from(bytes.len()).unwrap();
        self.recording.extend_from_slice(&bytes);
        self.desk.ask()
    }

    async fn finish(mut self) -> Result<Arrival, CallsError> {
        if self.view.audio_bytes == 0 {
            return Err(CallsError::Empty);
        }
        self.finished = true;
        let mut inner = self.desk.lock();
        if let Some(key) = self.key.clone() {
            if let Some((view, _, first)) = inner.first(&key) {
                let same = *first == self.recording;
                return if same { Ok(Arrival::Repeated(view.clone())) } else { Err(CallsError::IdempotencyConflict) };
            }
            inner.keys.insert(key, (self.view.id, self.recording.clone()));
        }
        inner.calls.push((self.view.clone(), self.metadata.clone()));
        Ok(Arrival::New(self.view.clone()))
    }
}

impl Drop for FakeUpload {
    fn drop(&mut self) {
        if let (false, Some(forgotten)) = (self.finished, &self.desk.lock().forgotten) {
            _ = forgotten.send(self.view.audio_bytes);
        }
    }
}

impl Desk for FakeDesk {
    type Upload = FakeUpload;

    async fn admit(&self, owner: &str, metadata: CallMetadata, key: Option<&str>) -> Result<FakeUpload, CallsError> {
        self.ask()?;
        let key = key.map(|key| (owner.to_owned(), key.to_owned()));
        if key.as_ref().is_some_and(|key| self.lock().first(key).is_some_and(|(_, before, _)| *before != metadata)) {
            return Err(CallsError::IdempotencyConflict);
        }
        let view = view(CallId::random().unwrap(), owner, CallState::Queued);
        Ok(FakeUpload { desk: self.clone(), view, metadata, key, recording: Vec::new(), finished: false })
    }

    async fn list(&self, scope: &Scope, cursor: Option<&str>, limit: u16) -> Result<CallPage, CallsError> {
        self.ask()?;
        let from: usize = cursor.unwrap_or("0").parse().map_err(|_| CallsError::BadCursor)?;
        let inner = self.lock();
        let seen: Vec<CallView> = inner.calls.iter().map(|(view, _)| view).filter(|view| covers(scope, view)).cloned().collect();
        let to = from + usize::from(limit);
        let next = (to < seen.len()).then(|| to.to_string());
        Ok(CallPage { calls: seen.into_iter().skip(from).take(usize::from(limit)).collect(), next })
    }

    async fn get(&self, scope: &Scope, id: CallId) -> Result<CallView, CallsError> {
        self.find(scope, id)
    }

    async fn transcript(&self, scope: &Scope, id: CallId) -> Result<Transcript, CallsError> {
        match self.find(scope, id)?.state {
            CallState::Done => Ok(transcript(id)),
            other => Err(CallsError::NoTranscript(other)),
        }
    }

    async fn watch(&self, scope: &Scope, id: CallId, after: u64) -> Result<mpsc::Receiver<CallEvent>, CallsError> {
        let state = self.find(scope, id)?.state;
        let (sender, receiver) = mpsc::channel(8);
        let past = [
            CallHappening::State { state: CallState::Queued, failure: None },
            CallHappening::Progress { stage: Stage::Decode, percent: 10, audio_ms: 5, elapsed_ms: 7 },
            CallHappening::State { state: CallState::Done, failure: None },
        ];
        let known = if state.is_final() { 3 } else { 2 };
        for (number, what) in (1..).zip(past).take(known).filter(|(number, _)| *number > after) {
            sender.try_send(CallEvent { number, what }).unwrap();
        }
        if !state.is_final() {
            self.lock().watchers.push(sender);
        }
        Ok(receiver)
    }

    async fn cancel(&self, scope: &Scope, id: CallId) -> Result<CallView, CallsError> {
        let view = self.find(scope, id)?;
        if view.state == CallState::Done {
            Err(CallsError::AlreadyFinal(view.state))
        } else {
            Ok(CallView { state: CallState::Cancelled, ..view })
        }
    }

    async fn delete(&self, scope: &Scope, id: CallId) -> Result<(), CallsError> {
        self.find(scope, id)?;
        self.lock().calls.retain(|(view, _)| view.id != id);
        Ok(())
    }

    async fn erasure(&self, scope: &Scope, id: CallId) -> Result<ErasureView, CallsError> {
        let call = self.find(scope, id)?;
        Ok(ErasureView { call: id, erased_at: call.created_at, epoch: 1, certificate: None, rewrapped: 0, rewrapped_of: 0 })
    }

    async fn erase_for_good(&self, scope: &Scope, id: CallId) -> Result<ErasureView, CallsError> {
        let signed = Certificate { statement: "{}".to_owned(), signature: "00".to_owned() };
        Ok(ErasureView { certificate: Some(signed), ..self.erasure(scope, id).await? })
    }

    async fn export(&self, scope: &Scope, id: CallId) -> Result<CallExport, CallsError> {
        let call = self.find(scope, id)?;
        let (schema, exported_at) = ("salama.call-export/1".to_owned(), call.created_at.clone());
        Ok(CallExport { schema, exported_at, call, metadata: metadata(), transcript: Some(transcript(id)) })
    }

    async fn redact_text(&self, text: String) -> Result<RedactedText, CallsError> {
        self.ask()?;
        let slow = self.lock().slow_text.clone();
        if let Some((asked, go_on)) = slow {
            asked.send(()).unwrap();
            go_on.notified().await;
        }
        Ok(RedactedText { text: text.replace("Amina", "[PERSON_1]"), redacted: vec![], language: None })
    }
}
