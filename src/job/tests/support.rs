//! A keeper on ring, children as threads on a real channel, and a desk made of them.
//! Trusts: nothing.
//! Touches: temporary directories, threads.
//! Next: nobody.

use std::collections::HashSet;
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;

use crate::base::clock::{ManualClock, Timestamp};
use crate::base::ids::CallId;
use crate::base::secret::Secret;
use crate::ipc::channel::{Channel, ChannelError};
use crate::ipc::keeper::{
    Counted, DEK_BYTES, EpochReply, EpochRequest, ErasureCertificate, ErasureClaim, KeeperDenial, UnwrapPurpose, WrappedDek,
};
use crate::ipc::transcript::{Entity, EntityKind, Utterance, Word};
use crate::ipc::worker::{AudioInfo, ChildEvent, ChildExit, Stage, StageTime, Summary, Task, TextLanguage};
use crate::job::border::{Allowance, ChildFault, Children, KeyError, KeySource, Kill, SpawnRefused, WorkerChild};
use crate::job::calls::{Arrival, Calls, CallsError, CallsParts, JobSettings};
use crate::job::spec::{CallEvent, CallHappening, CallMetadata, CallState, CallView, Consent, ConsentBasis, ConsentPurpose, Scope};
use crate::record::index::IndexKeys;
use crate::record::store::{OpenStore, Store};

pub(super) const OWNER: &str = "counsellor/amina";
/// What the scripted child heard in clear; must never be found on disk.
pub(super) const CLEAR: &str = "Zuberi Planted-Name";

/// How long the keeper refuses.
pub(super) const WAIT: Duration = Duration::from_millis(30);

/// Wraps with XOR of a fixed pad and the call id, after the number of the erasure epoch and of the try in which it was made: enough to
/// tell calls and epochs apart.
pub(super) struct TestKeeper {
    pub(super) limited: AtomicBool,
    /// Keys that were opened.
    pub(super) opened: AtomicUsize,
    /// The erasure epoch's number.
    pub(super) epoch: AtomicU8,
    /// In which try it was made.
    attempt: AtomicU8,
    /// The next one is begun.
    begun: AtomicBool,
    /// Tries of the next one that were given up.
    given_up: AtomicU8,
    /// Whose keys were wrapped anew by the last whole move that was seen.
    living: Mutex<Option<HashSet<CallId>>>,
    /// By the one that is begun.
    anew: Mutex<HashSet<CallId>>,
    /// The TPM's.
    pub(super) counter: AtomicUsize,
    /// What the next try to count ends with, having counted or not.
    pub(super) count_fails: Mutex<Option<bool>>,
    /// Happens in the middle of the next move.
    pub(super) meanwhile: Mutex<Option<Box<dyn FnOnce() + Send>>>,
    /// Happens when the store has committed the next move and the old epoch still counts.
    pub(super) at_the_end: Mutex<Option<Box<dyn FnOnce() + Send>>>,
    /// The next move counts, but what follows in the TPM fails.
    pub(super) ends_badly: AtomicBool,
    /// Until it is taken back, no move's end is heard.
    pub(super) deaf_to_the_end: AtomicBool,
    /// So many messages of re-wrapping, and so many certificates, then the keeper's limit is reached once.
    pub(super) rewraps_left: Mutex<Option<usize>>,
    pub(super) certificates_left: Mutex<Option<usize>>,
    /// Is not certified.
    pub(super) suspect: Mutex<Option<CallId>>,
}

impl Default for TestKeeper {
    fn default() -> Self {
        Self {
            limited: AtomicBool::new(false),
            opened: AtomicUsize::new(0),
            epoch: AtomicU8::new(1),
            attempt: AtomicU8::new(0),
            begun: AtomicBool::new(false),
            counter: AtomicUsize::new(0),
            count_fails: Mutex::new(None),
            given_up: AtomicU8::new(0),
            living: Mutex::new(None),
            anew: Mutex::default(),
            meanwhile: Mutex::new(None),
            at_the_end: Mutex::new(None),
            ends_badly: AtomicBool::new(false),
            deaf_to_the_end: AtomicBool::new(false),
            rewraps_left: Mutex::new(None),
            certificates_left: Mutex::new(None),
            suspect: Mutex::new(None),
        }
    }
}

fn pad(call: CallId) -> [u8; DEK_BYTES] {
    let mut pad = [0x5a; DEK_BYTES];
    pad.iter_mut().zip(call.as_bytes().iter().cycle()).for_each(|(pad, id)| *pad ^= id);
    pad
}

impl TestKeeper {
    fn now(&self) -> [u8; 2] {
        [self.epoch.load(Ordering::SeqCst), self.attempt.load(Ordering::SeqCst)]
    }

    fn next(&self) -> Option<[u8; 2]> {
        self.begun.load(Ordering::SeqCst).then(|| [self.epoch.load(Ordering::SeqCst) + 1, self.given_up.load(Ordering::SeqCst)])
    }

    fn is_open(&self, wrapped: &WrappedDek) -> bool {
        wrapped.0.starts_with(&self.now()) || self.next().is_some_and(|next| wrapped.0.starts_with(&next))
    }

    fn rewrapped(&self, wrapped: &WrappedDek) -> Option<WrappedDek> {
        let next = self.next().expect("a move is begun");
        self.is_open(wrapped).then(|| WrappedDek([&next, &wrapped.0[2..]].concat()))
    }

    fn happens(what: &Mutex<Option<Box<dyn FnOnce() + Send>>>) {
        let happening = what.lock().unwrap().take();
        if let Some(happening) = happening {
            happening();
        }
    }

    /// Takes one; at none the limit is met, and then there is none any more.
    fn within(left: &Mutex<Option<usize>>) -> Result<(), KeyError> {
        let mut left = left.lock().unwrap();
        match *left {
            Some(0) => {
                *left = None;
                Err(KeyError::RateLimited { wait: WAIT })
            }
            Some(more) => {
                *left = Some(more - 1);
                Ok(())
            }
            None => Ok(()),
        }
    }

    fn committed(&self, number: u8) -> Result<EpochReply, KeyError> {
        if self.deaf_to_the_end.load(Ordering::SeqCst) {
            return Err(KeyError::RateLimited { wait: WAIT });
        }
        Self::happens(&self.at_the_end);
        match self.next() {
            Some([next, attempt]) if next == number => {
                self.epoch.store(next, Ordering::SeqCst);
                self.attempt.store(attempt, Ordering::SeqCst);
                self.given_up.store(0, Ordering::SeqCst);
                self.begun.store(false, Ordering::SeqCst);
                *self.living.lock().unwrap() = Some(std::mem::take(&mut self.anew.lock().unwrap()));
            }
            _ if self.now()[0] == number => {}
            _ => return Err(KeyError::Refused(KeeperDenial::EpochOutOfOrder)),
        }
        if self.ends_badly.swap(false, Ordering::SeqCst) {
            return Err(KeyError::Refused(KeeperDenial::EpochFailed));
        }
        Ok(EpochReply::Done)
    }

    fn certified(&self, claim: &ErasureClaim) -> Result<EpochReply, KeyError> {
        Self::within(&self.certificates_left)?;
        let suspect = *self.suspect.lock().unwrap() == Some(claim.call);
        let gone = self.living.lock().unwrap().as_ref().is_some_and(|living| !living.contains(&claim.call));
        if suspect || claim.epoch >= self.now()[0].into() || !gone {
            return Err(KeyError::Refused(KeeperDenial::EpochOutOfOrder));
        }
        Ok(EpochReply::Certificate(ErasureCertificate { statement: claim.call.to_string(), signature: vec![1] }))
    }
}

impl KeySource for TestKeeper {
    fn new_dek(&self, call: CallId) -> Result<(Secret<DEK_BYTES>, WrappedDek), KeyError> {
        let dek = Secret::try_fill(|to| ring::rand::SecureRandom::fill(&ring::rand::SystemRandom::new(), to)).unwrap();
        let wrapped = dek.expose().iter().zip(pad(call)).map(|(byte, pad)| byte ^ pad);
        let wrapped = WrappedDek(self.now().into_iter().chain(wrapped).collect());
        Ok((dek, wrapped))
    }

    fn epoch(&self, request: EpochRequest) -> Result<EpochReply, KeyError> {
        match request {
            EpochRequest::Settle { store } => {
                let number = store.unwrap_or_else(|| self.now()[0].into());
                self.epoch.store(number.try_into().unwrap(), Ordering::SeqCst);
                Ok(EpochReply::At { number })
            }
            EpochRequest::Begin => {
                self.begun.store(true, Ordering::SeqCst);
                Ok(EpochReply::At { number: u32::from(self.now()[0]) + 1 })
            }
            EpochRequest::Rewrap(calls) => {
                Self::within(&self.rewraps_left)?;
                let new = calls.iter().map(|(_, wrapped)| self.rewrapped(wrapped)).collect();
                self.anew.lock().unwrap().extend(calls.iter().map(|(call, _)| *call));
                Self::happens(&self.meanwhile);
                Ok(EpochReply::Rewrapped(new))
            }
            EpochRequest::Committed { number } => self.committed(number.try_into().unwrap()),
            EpochRequest::Abort => {
                self.anew.lock().unwrap().clear();
                if self.begun.swap(false, Ordering::SeqCst) {
                    self.given_up.fetch_add(1, Ordering::SeqCst);
                }
                Ok(EpochReply::Done)
            }
            EpochRequest::Certify(claim) => self.certified(&claim),
        }
    }

    fn count(&self, from: u64) -> Result<Counted, KeyError> {
        let fails = self.count_fails.lock().unwrap().take();
        let next = usize::try_from(from).unwrap() + 1;
        if fails != Some(false) {
            let at = self.counter.swap(next, Ordering::SeqCst);
            assert!(at + 1 == next || at == next, "{at} {next}");
        }
        if fails.is_some() { Err(KeyError::Unavailable) } else { Ok(Counted { at: from + 1, keys: 1 }) }
    }

    fn unwrap_dek(&self, call: CallId, wrapped: &WrappedDek, _: UnwrapPurpose) -> Result<Secret<DEK_BYTES>, KeyError> {
        if self.limited.swap(false, Ordering::SeqCst) {
            return Err(KeyError::RateLimited { wait: WAIT });
        }
        if !self.is_open(wrapped) {
            return Err(KeyError::WrongKey);
        }
        self.opened.fetch_add(1, Ordering::SeqCst);
        Secret::try_fill(|to| {
            to.iter_mut().zip(&wrapped.0[2..]).zip(pad(call)).for_each(|((to, byte), pad)| *to = byte ^ pad);
            Ok(())
        })
    }
}

pub(super) type Script = Arc<dyn Fn(&Channel) + Send + Sync>;

/// Children that follow a script on a thread at the other end of a real channel.
pub(super) struct ScriptedChildren {
    script: Script,
    pub(super) spawned: AtomicUsize,
    pub(super) refuse: AtomicUsize,
    pub(super) lost: AtomicBool,
    /// The next spawn panics, as a fault of ours would.
    pub(super) panics: AtomicBool,
}

struct ScriptedChild(Channel);

struct HangUp(std::os::fd::OwnedFd);

impl Kill for HangUp {
    fn kill(&self) {
        let _ = nix::sys::socket::shutdown(std::os::fd::AsRawFd::as_raw_fd(&self.0), nix::sys::socket::Shutdown::Both);
    }
}

impl Children for ScriptedChildren {
    fn spawn(&self, _: Allowance) -> Result<Box<dyn WorkerChild>, SpawnRefused> {
        if self.refuse.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok() {
            return Err(SpawnRefused);
        }
        assert!(!self.panics.swap(false, Ordering::SeqCst), "the test wants this thread to end");
        self.spawned.fetch_add(1, Ordering::SeqCst);
        let (ours, theirs) = Channel::pair().unwrap();
        let script = Arc::clone(&self.script);
        std::thread::spawn(move || script(&theirs));
        Ok(Box::new(ScriptedChild(ours)))
    }

    fn models(&self) -> Vec<String> {
        vec!["whisper-test@1".into()]
    }

    fn lost(&self) -> bool {
        self.lost.load(Ordering::SeqCst)
    }
}

impl WorkerChild for ScriptedChild {
    fn send(&self, task: &Task) -> Result<(), ChildFault> {
        self.0.send(task).map_err(|_| ChildFault::Gone)
    }

    fn recv(&self, wait: Duration) -> Result<ChildEvent, ChildFault> {
        self.0.set_receive_timeout(Some(wait)).unwrap();
        match self.0.recv() {
            Ok(Some(event)) => Ok(event),
            Ok(None) | Err(ChannelError::Socket(_)) => Err(ChildFault::Gone),
            Err(ChannelError::TimedOut) => Err(ChildFault::Silent),
            Err(_) => Err(ChildFault::Misbehaved),
        }
    }

    fn killer(&self) -> Box<dyn Kill> {
        Box::new(HangUp(self.0.as_fd().try_clone_to_owned().unwrap()))
    }

    fn end(self: Box<Self>) -> Option<ChildExit> {
        self.killer().kill();
        Some(ChildExit::Code(0))
    }
}

/// A desk and everything around it.
pub(super) struct Office {
    pub(super) calls: Calls,
    pub(super) children: Arc<ScriptedChildren>,
    pub(super) keeper: Arc<TestKeeper>,
    pub(super) clock: Arc<ManualClock>,
    pub(super) store: Store,
}

pub(super) fn settings(state: &Path) -> JobSettings {
    JobSettings {
        state: state.to_path_buf(),
        reserve: 0,
        concurrent: 1,
        threads: 2,
        queue: 8,
        attempts: 3,
        max_audio_bytes: 1_000_000,
        max_audio_seconds: 3600,
        child_memory: 1 << 30,
        child_cpu_seconds: 60,
        time_base: Duration::from_secs(20),
        time_per_audio: 4,
        time_limit: Duration::from_secs(3600),
        epoch_interval: Duration::from_secs(900),
        silence: Duration::from_secs(20),
        text_concurrent: 1,
        pause: Duration::from_millis(1),
        setbacks: 50,
        text_time: Duration::from_secs(20),
    }
}

/// As [`settings`], but a child that says nothing is waited for longer than any test waits: only a kill ends it in time.
pub(super) fn patient(state: &Path) -> JobSettings {
    let long = Duration::from_secs(60);
    JobSettings { silence: long, time_base: long, ..settings(state) }
}

pub(super) fn index() -> IndexKeys {
    IndexKeys::derive(&Secret::try_fill(|_| Ok::<(), ()>(())).unwrap()).unwrap()
}

impl Office {
    pub(super) fn open(state: &Path, script: impl Fn(&Channel) + Send + Sync + 'static) -> Self {
        Self::with(settings(state), script)
    }

    pub(super) fn with(settings: JobSettings, script: impl Fn(&Channel) + Send + Sync + 'static) -> Self {
        let children = Arc::new(ScriptedChildren {
            script: Arc::new(script),
            spawned: AtomicUsize::new(0),
            refuse: AtomicUsize::new(0),
            lost: AtomicBool::new(false),
            panics: AtomicBool::new(false),
        });
        let keeper = Arc::new(TestKeeper::default());
        let clock = Arc::new(ManualClock::at(Timestamp::from_unix_millis(1_800_000_000_000)));
        let store = OpenStore::open(&settings.state, 1 << 16, &index()).unwrap().start().unwrap();
        let calls = Calls::open(CallsParts {
            store: store.clone(),
            index: index(),
            keeper: Arc::clone(&keeper) as Arc<dyn KeySource>,
            supervisor: Arc::clone(&children) as Arc<dyn Children>,
            settings,
            clock: Arc::clone(&clock) as Arc<dyn crate::base::clock::Clock>,
        })
        .unwrap();
        Self { calls, children, keeper, clock, store }
    }

    pub(super) async fn upload(&self, body: &[u8], key: Option<&str>) -> Result<CallView, CallsError> {
        let (Arrival::New(view) | Arrival::Repeated(view)) = self.arrival(OWNER, body, key).await?;
        Ok(view)
    }

    pub(super) async fn arrival(&self, owner: &str, body: &[u8], key: Option<&str>) -> Result<Arrival, CallsError> {
        let mut upload = self.calls.admit(owner, metadata(), key).await?;
        for piece in body.chunks(30_000) {
            upload.push(Bytes::copy_from_slice(piece)).await?;
        }
        upload.finish().await
    }

    /// Watches a call to its end and returns all its events.
    pub(super) async fn ended(&self, call: CallId) -> Vec<CallEvent> {
        let mut events = self.calls.watch(&Scope::All, call, 0).await.unwrap();
        let mut seen = Vec::new();
        while let Some(event) = tokio::time::timeout(Duration::from_secs(30), events.recv()).await.expect("the call ends") {
            seen.push(event);
        }
        seen
    }

    pub(super) async fn view(&self, call: CallId) -> CallView {
        self.calls.get(&Scope::All, call).await.unwrap()
    }

    /// Watches until the call is in `state`.
    pub(super) async fn reaches(&self, call: CallId, state: CallState) {
        let mut events = self.calls.watch(&Scope::All, call, 0).await.unwrap();
        loop {
            let event =
                tokio::time::timeout(Duration::from_secs(30), events.recv()).await.expect("the state comes").expect("the state comes");
            if matches!(event.what, CallHappening::State { state: now, .. } if now == state) {
                return;
            }
        }
    }

    pub(super) fn close(self) {
        self.calls.stop();
    }
}

pub(super) fn metadata() -> CallMetadata {
    CallMetadata {
        consent: Consent { basis: ConsentBasis::Caller, purposes: vec![ConsentPurpose::Transcription], given_at: None },
        language: Some("sw".into()),
        recorded_at: None,
        reference: Some("case 17".into()),
        channels: None,
        samples: None,
    }
}

pub(super) fn utterance(text: &str, start_ms: u32) -> Utterance {
    let word = |text: &str| Word { start_ms, end_ms: start_ms + 100, text: text.into(), confidence: 0.9 };
    Utterance {
        channel: 0,
        start_ms,
        end_ms: start_ms + 100,
        language: "sw".into(),
        confidence: 0.9,
        words: text.split(' ').map(word).collect(),
    }
}

pub(super) fn audio() -> ChildEvent {
    ChildEvent::Audio(AudioInfo { format: "wav/pcm_s16le".into(), sample_rate: 8000, channels: 1 })
}

pub(super) fn said(start_ms: u32) -> ChildEvent {
    let entities = vec![Entity { kind: EntityKind::Person, number: 1, start: 0, end: 6 }];
    ChildEvent::Utterance { redacted: utterance("[PERSON_1] speaks", start_ms), clear: utterance(CLEAR, start_ms), entities }
}

pub(super) fn summary(utterances: u32) -> Summary {
    Summary {
        audio_ms: 2000,
        speech_ms: 1500,
        utterances,
        counts: Vec::new(),
        language: Some(TextLanguage { code: "sw".into(), confidence: 0.8 }),
        stages: vec![StageTime { stage: Stage::Decode, millis: 3 }],
        wall_ms: 10,
    }
}

pub(super) fn progress(stage: Stage, per_mille: u16) -> ChildEvent {
    ChildEvent::Progress { stage, per_mille, audio_ms: u64::from(per_mille) }
}

/// Takes the task and reads the whole recording, as decoders do.
pub(super) fn read_all(channel: &Channel) -> Option<Vec<u8>> {
    channel.send(&ChildEvent::Ready).ok()?;
    let Task::Transcribe { audio_bytes, .. } = channel.recv().ok()?? else { return None };
    let mut heard = Vec::new();
    while u64::try_from(heard.len()).unwrap() < audio_bytes {
        channel.send(&ChildEvent::Need { offset: heard.len().try_into().unwrap(), len: 50_000 }).ok()?;
        let Task::Audio { bytes, .. } = channel.recv().ok()?? else { return None };
        heard.extend_from_slice(&bytes);
    }
    Some(heard)
}

/// A child that does everything right.
pub(super) fn good(channel: &Channel) {
    if read_all(channel).is_none() {
        return;
    }
    for event in [audio(), progress(Stage::Decode, 100), progress(Stage::Transcribe, 600), said(0), said(500), ChildEvent::Done(summary(2))]
    {
        let _ = channel.send(&event);
    }
}

/// A child that starts, reads, and waits until it is stopped.
pub(super) fn hangs(channel: &Channel) {
    if read_all(channel).is_some() {
        let _ = channel.send(&audio());
        let _: Result<Option<Task>, _> = channel.recv();
    }
}

/// Waits until `holds`.
pub(super) async fn until(holds: impl Fn() -> bool) {
    let waiting = async {
        while !holds() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), waiting).await.expect("it comes to hold");
}

/// Every file below `state` with its bytes.
pub(super) fn files(state: &Path) -> Vec<(std::path::PathBuf, Vec<u8>)> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(state).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path));
        } else {
            found.push((path.clone(), std::fs::read(&path).unwrap()));
        }
    }
    found
}

pub(super) fn recordings(state: &Path) -> usize {
    std::fs::read_dir(state.join("audio")).unwrap().count()
}

pub(super) fn on_disk(state: &Path, needle: &[u8]) -> bool {
    files(state).iter().any(|(_, bytes)| bytes.windows(needle.len()).any(|window| window == needle))
}
