//! What crosses a process line: core and keeper, core and fork server, core and child, each way.
//! Trusts: nothing.
//! Touches: one socket pair.
//! Next: `ipc::channel` receives, `supervisor::conversation` judges.

use std::cell::OnceCell;
use std::os::fd::{AsFd, OwnedFd};

use salama::base::clock::Timestamp;
use salama::base::ids::CallId;
use salama::base::secret::SecretInTransit;
use salama::ipc::burst::{GrantFault, SignedGrant};
use salama::ipc::channel::{Channel, ChannelError, FRAME_MAX};
use salama::ipc::keeper::{
    Counted, Counter, KeeperCounters, KeeperDenial, KeeperReply, KeeperRequest, Leave, Standing, TpmLockout, UnwrapPurpose, WrappedDek,
};
use salama::ipc::transcript::{Entity, EntityCount, EntityKind, Utterance, Word};
use salama::ipc::worker::{
    AudioInfo, CallFailure, ChildEvent, ChildExit, ChildId, ForkEvent, ForkRequest, LoadedModel, RawSamples, Stage, StageTime, Summary,
    Task, TextLanguage,
};
use salama::supervisor::conversation::{Conversation, EVENTS_MAX};
use salama::sys::socket;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{Target, secret};

/// Core and keeper.
pub const KEEPER: Target = Target { name: "ipc_keeper", run: keeper, seeds: keeper_seeds, ..BASE };
/// Core, fork server and child.
pub const WORKER: Target = Target { name: "ipc_worker", run: worker, seeds: worker_seeds, ..BASE };
/// A child's whole side of a conversation.
pub const CHILD_WORDS: Target = Target { name: "child_words", run: child_words, seeds: child_seeds, ..BASE };

const BASE: Target = Target {
    name: "",
    run: keeper,
    seeds: keeper_seeds,
    corpus: "",
    words: &[b"\xff\xff\xff\xff\x0f", b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", b"\x80\x80\x80\x80\x00", b"\x00", b"\x01"],
    memory: 2 << 20,
    longest: 4096,
    smoke: 8000,
};

/// Promise: a frame of any bytes gives one message or `Malformed`, and a message takes no more room than its frame and says the same again.
/// The first byte chooses the direction.
fn keeper(data: &[u8]) {
    match data.split_first() {
        Some((0, frame)) => through::<KeeperRequest>(frame),
        Some((_, frame)) => through::<KeeperReply>(frame),
        None => {}
    }
}

/// Promise: as [`keeper`].
fn worker(data: &[u8]) {
    match data.split_first() {
        Some((0, frame)) => through::<ForkRequest>(frame),
        Some((1, frame)) => through::<ForkEvent>(frame),
        Some((2, frame)) => through::<Task>(frame),
        Some((_, frame)) => through::<ChildEvent>(frame),
        None => {}
    }
}

/// Sends the frame through a real socket, as the other process could.
fn through<M: Serialize + DeserializeOwned>(frame: &[u8]) {
    thread_local! {
        static WIRE: OnceCell<(OwnedFd, Channel)> = const { OnceCell::new() };
    }
    WIRE.with(|wire| {
        let (raw, channel) = wire.get_or_init(|| {
            let (raw, other) = socket::seqpacket_pair(FRAME_MAX).unwrap();
            (raw, Channel::from_fd(other))
        });
        socket::send(raw.as_fd(), frame, None).unwrap();
        match channel.recv::<M>() {
            Ok(Some(message)) => says_the_same_again(&message, frame.len()),
            Ok(None) => assert!(frame.is_empty(), "a frame of {} bytes was taken for the end", frame.len()),
            Err(ChannelError::Malformed) => {}
            Err(error) => panic!("{error}"),
        }
    });
}

fn says_the_same_again<M: Serialize + DeserializeOwned>(message: &M, frame: usize) {
    let once = postcard::to_stdvec(message).unwrap();
    assert!(once.len() <= frame, "a frame of {frame} bytes became a message of {}", once.len());
    let (again, rest) = postcard::take_from_bytes::<M>(&once).expect("our own encoding is read");
    assert!(rest.is_empty());
    assert_eq!(postcard::to_stdvec(&again).unwrap(), once);
}

/// Promise: whatever messages a child sends in whatever order, each is taken or names the rule that it breaks; after its last word
/// nothing is taken, and no call takes more messages than any call needs.
fn child_words(mut data: &[u8]) {
    let mut conversation = Conversation::default();
    let task = data.split_off_first().copied().unwrap_or_default();
    let mut taken: u32 = 0;
    while let Ok((event, rest)) = postcard::take_from_bytes::<ChildEvent>(data) {
        data = rest;
        let over = conversation.is_over();
        let judged = conversation.heard(&event);
        assert!(!over || judged.is_err(), "a word after the last one was taken: {event:?}");
        if judged.is_err() {
            break;
        }
        taken += 1;
        assert!(taken <= EVENTS_MAX + 8192, "a flood was taken");
        match event {
            ChildEvent::Ready if task.is_multiple_of(2) => conversation.sent(&transcribe()),
            ChildEvent::Ready => conversation.sent(&Task::Redact { text: "a text".to_owned() }),
            ChildEvent::Need { offset, .. } => conversation.sent(&Task::Audio { offset, bytes: vec![0] }),
            _ => {}
        }
    }
}

fn transcribe() -> Task {
    let samples = Some(RawSamples { sample_rate: 8000, channels: 2, big_endian: true });
    Task::Transcribe { audio_bytes: 100_000, language: Some("sw".to_owned()), threads: 2, max_audio_seconds: 600, samples }
}

fn frames<M: Serialize>(direction: u8, messages: &[M]) -> Vec<Vec<u8>> {
    messages.iter().map(|message| [vec![direction], postcard::to_stdvec(message).unwrap()].concat()).collect()
}

fn keeper_seeds() -> Vec<Vec<u8>> {
    let (call, wrapped) = (CallId::from_bytes([1; 16]), WrappedDek(vec![9; 65]));
    let requests = [
        KeeperRequest::NewDek { call },
        KeeperRequest::UnwrapDek { call, wrapped: wrapped.clone(), purpose: UnwrapPurpose::Read },
        KeeperRequest::SignTls { content: vec![b' '; 130] },
        KeeperRequest::Counters,
        KeeperRequest::Count { from: 7 },
        KeeperRequest::Burst(SignedGrant {
            text: "salama burst grant 1\nbox box-1\n".into(),
            signature: vec![0x30; 70],
            certificate: vec![0x30; 600],
        }),
        KeeperRequest::IssueCertificate { csr_der: vec![0x30; 200], role: "counsellor".into(), name: "asha".into(), valid_days: 90 },
    ];
    let replies = [
        KeeperReply::Ready {
            version: 1,
            server_chain: vec![vec![1; 300], vec![2; 300]],
            client_ca: vec![3; 300],
            index_key: SecretInTransit(secret(7)),
            counter: Counter { value: Some(7), leave: Leave::Accepted, keys: 3, epochs: [Some(2), None] },
            standing: Standing {
                box_name: "box-1".into(),
                start: [6; 16],
                log_key: [8; 32],
                lockout: Some(TpmLockout { at: Timestamp::from_unix_millis(9), failed: 1, tries: 10, locked: false }),
            },
        },
        KeeperReply::Refused { reason: "no TPM".into(), exit: 74 },
        KeeperReply::NewDek { dek: SecretInTransit(secret(7)), wrapped },
        KeeperReply::Dek(SecretInTransit(secret(7))),
        KeeperReply::Signature(vec![4; 70]),
        KeeperReply::Counters(KeeperCounters { new_deks: u64::MAX, ..KeeperCounters::default() }),
        KeeperReply::Counted(Counted { at: 8, keys: 3 }),
        KeeperReply::Certificate(vec![vec![5; 300]]),
        KeeperReply::BurstTaken,
        KeeperReply::Denied(KeeperDenial::RateLimited { seconds: 61 }),
        KeeperReply::Denied(KeeperDenial::Grant(GrantFault::Used)),
    ];
    [frames(0, &requests), frames(1, &replies)].concat()
}

fn worker_seeds() -> Vec<Vec<u8>> {
    let child = ChildId(7);
    let requests = [ForkRequest::Spawn { child, memory_limit: 1 << 30, cpu_seconds: 60 }, ForkRequest::Kill { child }];
    let model = LoadedModel { name: "whisper-base".into(), version: "1".into(), manifest_sha256: "ab".repeat(32) };
    let events = [
        ForkEvent::Ready { version: 1, models: vec![model.clone(), model] },
        ForkEvent::Refused { reason: "no models".into() },
        ForkEvent::Spawned { child, pid: 4711 },
        ForkEvent::SpawnFailed { child, errno: 12 },
        ForkEvent::Exited { child, how: ChildExit::Signal(9) },
        ForkEvent::Exited { child, how: ChildExit::Code(-1) },
    ];
    let tasks = [transcribe(), Task::Audio { offset: 65_536, bytes: vec![6; 500] }, Task::Redact { text: "a téxt".into() }];
    [frames(0, &requests), frames(1, &events), frames(2, &tasks), frames(3, &call_of_a_child()), frames(3, &[redacted()])].concat()
}

fn redacted() -> ChildEvent {
    let language = Some(TextLanguage { code: "sw".into(), confidence: 0.9 });
    ChildEvent::Redacted { text: "[PERSON_1]".into(), counts: vec![EntityCount { kind: EntityKind::Person, count: 1 }], language }
}

/// A whole call, in order.
fn call_of_a_child() -> Vec<ChildEvent> {
    let word = |text: &str| Word { start_ms: 10, end_ms: 20, text: text.into(), confidence: 0.5 };
    let utterance = |texts: &[&str]| Utterance {
        channel: 0,
        start_ms: 10,
        end_ms: 20,
        language: "en".into(),
        confidence: 0.5,
        words: texts.iter().map(|text| word(text)).collect(),
    };
    vec![
        ChildEvent::Ready,
        ChildEvent::Need { offset: 0, len: 65_536 },
        ChildEvent::Audio(AudioInfo { format: "wav/mulaw".into(), sample_rate: 8000, channels: 1 }),
        ChildEvent::Progress { stage: Stage::Transcribe, per_mille: 500, audio_ms: 1000 },
        ChildEvent::Utterance {
            redacted: utterance(&["I", "am", "[PERSON_1]"]),
            clear: utterance(&["I", "am", "Asha"]),
            entities: vec![Entity { kind: EntityKind::Person, number: 1, start: 5, end: 9 }],
        },
        ChildEvent::Done(Summary {
            audio_ms: 1000,
            speech_ms: 500,
            utterances: 1,
            counts: vec![EntityCount { kind: EntityKind::Person, count: 1 }],
            language: Some(TextLanguage { code: "en".into(), confidence: 0.9 }),
            stages: vec![StageTime { stage: Stage::Decode, millis: 3 }],
            wall_ms: 100,
        }),
    ]
}

fn child_seeds() -> Vec<Vec<u8>> {
    let said = |task: u8, events: &[ChildEvent]| {
        let words = events.iter().flat_map(|event| postcard::to_stdvec(event).unwrap());
        std::iter::once(task).chain(words).collect::<Vec<u8>>()
    };
    let failed = [ChildEvent::Ready, ChildEvent::Failed(CallFailure::NotAudio)];
    vec![said(0, &call_of_a_child()), said(0, &failed), said(1, &[ChildEvent::Ready, redacted()])]
}
