//! The way of a call with children that do well, badly, wrongly, or nothing.
//! Trusts: nothing.
//! Touches: temporary directories.
//! Next: nobody.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use super::support::{
    CLEAR, OWNER, Office, WAIT, audio, good, hangs, on_disk, patient, progress, read_all, said, settings, summary, until, utterance,
};
use crate::ipc::channel::Channel;
use crate::ipc::transcript::{Entity, EntityCount, EntityKind};
use crate::ipc::worker::{AudioInfo, CallFailure, ChildEvent, Stage, Task};
use crate::job::calls::CallsError;
use crate::job::desk::DeskError;
use crate::job::queue::Queue;
use crate::job::runner::durably;
use crate::job::spec::{CallHappening, CallState, Scope};
use crate::record::schema::{Slot, Table};
use crate::record::store::StoreError;

async fn failure_with(script: impl Fn(&Channel) + Send + Sync + 'static) -> Option<CallFailure> {
    failure_within(Duration::from_secs(60), script).await
}

async fn failure_within(silence: Duration, script: impl Fn(&Channel) + Send + Sync + 'static) -> Option<CallFailure> {
    let state = tempfile::tempdir().unwrap();
    let mut settings = settings(state.path());
    settings.time_base = Duration::from_secs(60);
    settings.silence = silence;
    let office = Office::with(settings, script);
    let call = office.upload(&[7; 200_000], None).await.unwrap().id;
    office.ended(call).await;
    let view = office.view(call).await;
    office.close();
    view.failure
}

/// A child that reads everything and then says `events`.
fn says(events: impl Fn() -> Vec<ChildEvent> + Send + Sync + 'static) -> impl Fn(&Channel) + Send + Sync + 'static {
    move |channel| {
        if read_all(channel).is_some() {
            events().iter().for_each(|event| drop(channel.send(event)));
        }
    }
}

#[tokio::test]
async fn a_recording_goes_in_and_a_redacted_transcript_comes_out() {
    let state = tempfile::tempdir().unwrap();
    let office = Office::open(state.path(), good);
    let call = office.upload(&[7; 200_000], None).await.unwrap().id;
    let events = office.ended(call).await;
    let transcript = office.calls.transcript(&Scope::OwnedBy(OWNER.into()), call).await.unwrap();
    assert_eq!(transcript.utterances.len(), 2);
    assert_eq!(transcript.redacted, [EntityCount { kind: EntityKind::Person, count: 2 }]);
    assert_eq!(transcript.models, ["whisper-test@1"]);
    assert!(events.windows(2).all(|pair| pair[0].number < pair[1].number));
    assert!(matches!(events.last().unwrap().what, CallHappening::State { state: CallState::Done, failure: None }));
    assert!(events.iter().any(|event| matches!(event.what, CallHappening::Progress { stage: Stage::Transcribe, percent: 60, .. })));
    assert_eq!(office.view(call).await.audio.unwrap().format, "wav/pcm_s16le");
    office.close();
    assert!(!on_disk(state.path(), CLEAR.as_bytes()) && !on_disk(state.path(), b"PERSON_1"));
}

#[tokio::test]
async fn the_child_gets_exactly_the_recording() {
    let recording: Vec<u8> = (0..200_000_u32).map(|at| u8::try_from(at % 251).unwrap()).collect();
    let expected = recording.clone();
    let state = tempfile::tempdir().unwrap();
    let office = Office::open(state.path(), move |channel| {
        let verdict = if read_all(channel).is_some_and(|heard| heard == expected) { CallFailure::Empty } else { CallFailure::Damaged };
        let _ = channel.send(&ChildEvent::Failed(verdict));
    });
    let call = office.upload(&recording, None).await.unwrap().id;
    office.ended(call).await;
    assert_eq!(office.view(call).await.failure, Some(CallFailure::Empty));
    office.close();
}

#[tokio::test]
async fn clear_text_and_entities_are_sealed_apart_from_the_redacted_text() {
    let state = tempfile::tempdir().unwrap();
    let office = Office::open(state.path(), good);
    let call = office.upload(b"recording", None).await.unwrap().id;
    office.ended(call).await;
    for table in Table::OF_CALL {
        assert!(office.store.get(&Slot::of_call(table, call)).unwrap().is_some(), "{}", table.name());
    }
    office.close();
}

#[tokio::test]
async fn what_the_child_finds_wrong_with_the_recording_is_the_calls_failure() {
    for failure in [
        CallFailure::NotAudio,
        CallFailure::UnsupportedCodec,
        CallFailure::Truncated,
        CallFailure::Damaged,
        CallFailure::Empty,
        CallFailure::TooLong,
        CallFailure::SampleRate,
        CallFailure::Channels,
        CallFailure::ModelFailed,
    ] {
        assert_eq!(failure_with(says(move || vec![ChildEvent::Failed(failure)])).await, Some(failure));
    }
}

#[tokio::test]
async fn verdicts_that_are_the_daemons_own_are_not_the_childs_to_give() {
    for lie in [CallFailure::WorkerDied, CallFailure::TimedOut, CallFailure::TriedTooOften, CallFailure::Unreadable] {
        assert_eq!(failure_with(says(move || vec![ChildEvent::Failed(lie)])).await, Some(CallFailure::WorkerMisbehaved));
    }
}

#[tokio::test]
async fn a_child_that_dies_fails_its_call_and_the_next_call_gets_a_new_one() {
    let state = tempfile::tempdir().unwrap();
    let dying = std::sync::atomic::AtomicBool::new(true);
    let office = Office::open(state.path(), move |channel| {
        if !dying.swap(false, Ordering::SeqCst) {
            good(channel);
        }
    });
    let first = office.upload(b"recording", None).await.unwrap().id;
    let second = office.upload(b"recording", None).await.unwrap().id;
    office.ended(first).await;
    office.ended(second).await;
    assert_eq!(office.view(first).await.failure, Some(CallFailure::WorkerDied));
    assert_eq!(office.view(second).await.state, CallState::Done);
    office.close();
}

#[tokio::test]
async fn a_silent_child_is_stopped() {
    let silent = |channel: &Channel| drop(channel.recv::<Task>());
    let silence = Duration::from_millis(200);
    assert_eq!(failure_within(silence, silent).await, Some(CallFailure::TimedOut));
    assert_eq!(failure_within(silence, hangs).await, Some(CallFailure::TimedOut));
}

#[tokio::test]
async fn a_child_that_talks_for_ever_is_stopped_when_its_time_is_over() {
    let state = tempfile::tempdir().unwrap();
    let mut settings = settings(state.path());
    settings.time_base = Duration::from_millis(300);
    let office = Office::with(settings, |channel| {
        let _ = channel.send(&ChildEvent::Ready);
        let _: Result<Option<Task>, _> = channel.recv();
        let still = ChildEvent::Progress { stage: Stage::Decode, per_mille: 1, audio_ms: 0 };
        channel.set_receive_timeout(Some(Duration::from_millis(10))).unwrap();
        while channel.send(&still).is_ok() {
            let _: Result<Option<Task>, _> = channel.recv();
        }
    });
    let call = office.upload(b"recording", None).await.unwrap().id;
    office.ended(call).await;
    assert_eq!(office.view(call).await.failure, Some(CallFailure::TimedOut));
    office.close();
}

#[tokio::test]
async fn a_flood_of_messages_is_misbehaviour() {
    let flood = says(|| (0..20_001).map(|_| progress(Stage::Decode, 1)).collect());
    assert_eq!(failure_with(flood).await, Some(CallFailure::WorkerMisbehaved));
}

#[tokio::test]
async fn a_child_that_rereads_for_ever_is_stopped() {
    let greedy = |channel: &Channel| {
        if read_all(channel).is_some() {
            while channel.send(&ChildEvent::Need { offset: 0, len: 1 }).is_ok() && matches!(channel.recv::<Task>(), Ok(Some(_))) {}
        }
    };
    assert_eq!(failure_with(greedy).await, Some(CallFailure::WorkerMisbehaved));
}

#[tokio::test]
async fn everything_out_of_order_or_out_of_bounds_is_misbehaviour() {
    let bad_utterance = |change: fn(&mut crate::ipc::transcript::Utterance)| {
        let (mut redacted, mut clear) = (utterance("a", 0), utterance("a", 0));
        change(&mut redacted);
        change(&mut clear);
        ChildEvent::Utterance { redacted, clear, entities: Vec::new() }
    };
    let entity = |start, end| ChildEvent::Utterance {
        redacted: utterance("é", 0),
        clear: utterance("é", 0),
        entities: vec![Entity { kind: EntityKind::Person, number: 1, start, end }],
    };
    let info = |format: &str, sample_rate, channels| ChildEvent::Audio(AudioInfo { format: format.into(), sample_rate, channels });
    let cases: Vec<fn() -> Vec<ChildEvent>> = vec![
        || vec![ChildEvent::Ready],
        || vec![said(0)],
        || vec![ChildEvent::Done(summary(0))],
        || vec![audio(), audio()],
        || vec![audio(), said(0), ChildEvent::Done(summary(2))],
        || vec![audio(), said(500), said(0)],
        || vec![audio(), said(0), ChildEvent::Need { offset: 0, len: 1 }],
        || vec![ChildEvent::Need { offset: 0, len: 0 }],
        || vec![ChildEvent::Need { offset: 0, len: 65_537 }],
        || vec![ChildEvent::Need { offset: 200_001, len: 1 }],
        || vec![progress(Stage::Decode, 1001)],
        || vec![progress(Stage::Seal, 1)],
        || vec![ChildEvent::Redacted { text: String::new(), counts: Vec::new(), language: None }],
    ];
    for case in cases {
        assert_eq!(failure_with(says(case)).await, Some(CallFailure::WorkerMisbehaved), "{:?}", case());
    }
    let values = [
        info("/../etc passwd", 8000, 1),
        info("wav", 8000, 3),
        info("wav", 96_000, 1),
        bad_utterance(|utterance| utterance.confidence = f32::NAN),
        bad_utterance(|utterance| utterance.start_ms = 101),
        bad_utterance(|utterance| utterance.channel = 1),
        bad_utterance(|utterance| utterance.language = "<script>".into()),
        bad_utterance(|utterance| utterance.words[0].confidence = 7.0),
        entity(1, 2),
        entity(0, 3),
        entity(2, 2),
    ];
    for value in values {
        let shown = format!("{value:?}");
        let value = postcard::to_stdvec(&value).unwrap();
        let event = move || postcard::from_bytes::<ChildEvent>(&value).unwrap();
        let script = says(move || vec![audio(), event()]);
        assert_eq!(failure_with(script).await, Some(CallFailure::WorkerMisbehaved), "{shown}");
    }
}

#[tokio::test]
async fn words_before_ready_and_words_that_are_none_are_misbehaviour() {
    assert_eq!(failure_with(|channel: &Channel| drop(channel.send(&audio()))).await, Some(CallFailure::WorkerMisbehaved));
    assert_eq!(failure_with(|channel: &Channel| drop(channel.send(&vec![255_u8; 90]))).await, Some(CallFailure::WorkerMisbehaved));
}

#[tokio::test]
async fn cancelling_stops_the_child_and_is_final() {
    let state = tempfile::tempdir().unwrap();
    let office = Office::with(patient(state.path()), hangs);
    let call = office.upload(b"recording", None).await.unwrap().id;
    office.reaches(call, CallState::Running).await;
    assert_eq!(office.calls.cancel(&Scope::All, call).await.unwrap().state, CallState::Cancelled);
    assert_eq!(office.calls.cancel(&Scope::All, call).await.unwrap().state, CallState::Cancelled);
    // There is one place for children.
    let next = office.upload(b"next", None).await.unwrap().id;
    office.reaches(next, CallState::Running).await;
    office.close();
    let office = Office::open(state.path(), good);
    assert_eq!(office.view(call).await.state, CallState::Cancelled);
    assert!(matches!(office.calls.transcript(&Scope::All, call).await, Err(CallsError::NoTranscript(CallState::Cancelled))));
    office.close();
}

#[tokio::test]
async fn a_waiting_call_that_is_cancelled_never_runs() {
    let state = tempfile::tempdir().unwrap();
    let office = Office::open(state.path(), hangs);
    let first = office.upload(b"recording", None).await.unwrap().id;
    let second = office.upload(b"recording", None).await.unwrap().id;
    office.reaches(first, CallState::Running).await;
    office.calls.cancel(&Scope::All, second).await.unwrap();
    office.calls.cancel(&Scope::All, first).await.unwrap();
    office.calls.stop();
    assert_eq!(office.children.spawned.load(Ordering::SeqCst), 1);
    assert_eq!(office.view(second).await.attempts, 0);
}

#[tokio::test]
async fn a_call_that_is_done_cannot_be_cancelled() {
    let state = tempfile::tempdir().unwrap();
    let office = Office::open(state.path(), good);
    let call = office.upload(b"recording", None).await.unwrap().id;
    office.ended(call).await;
    assert!(matches!(office.calls.cancel(&Scope::All, call).await, Err(CallsError::AlreadyFinal(CallState::Done))));
    office.close();
}

#[tokio::test]
async fn a_watcher_that_comes_again_gets_what_it_missed_and_no_more() {
    let state = tempfile::tempdir().unwrap();
    let office = Office::open(state.path(), hangs);
    let call = office.upload(b"recording", None).await.unwrap().id;
    office.reaches(call, CallState::Running).await;
    let mut first = office.calls.watch(&Scope::All, call, 0).await.unwrap();
    let queued = first.recv().await.unwrap();
    let mut again = office.calls.watch(&Scope::All, call, queued.number).await.unwrap();
    let running = again.recv().await.unwrap();
    office.calls.cancel(&Scope::All, call).await.unwrap();
    let last = again.recv().await.unwrap();
    assert_eq!(again.recv().await, None);
    assert!(matches!(running.what, CallHappening::State { state: CallState::Running, .. }));
    assert!(matches!(last.what, CallHappening::State { state: CallState::Cancelled, .. }));
    assert_eq!(office.calls.watch(&Scope::All, call, 0).await.unwrap().recv().await, Some(last.clone()));
    assert_eq!(office.calls.watch(&Scope::All, call, last.number).await.unwrap().recv().await, None);
    office.close();
}

#[tokio::test]
async fn a_keeper_at_its_limit_delays_a_call_and_costs_no_attempt() {
    let state = tempfile::tempdir().unwrap();
    let office = Office::open(state.path(), good);
    office.keeper.limited.store(true, Ordering::SeqCst);
    let call = office.upload(b"recording", None).await.unwrap().id;
    office.ended(call).await;
    assert_eq!((office.view(call).await.state, office.view(call).await.attempts), (CallState::Done, 1));
    office.keeper.limited.store(true, Ordering::SeqCst);
    let refused = office.calls.transcript(&Scope::All, call).await;
    assert!(matches!(refused, Err(CallsError::KeyLimit { wait }) if wait == WAIT));
    office.close();
}

#[tokio::test]
async fn children_that_cannot_be_started_delay_a_call_and_cost_no_attempt() {
    let state = tempfile::tempdir().unwrap();
    let office = Office::open(state.path(), good);
    office.children.refuse.store(5, Ordering::SeqCst);
    let call = office.upload(b"recording", None).await.unwrap().id;
    office.ended(call).await;
    let view = office.view(call).await;
    assert_eq!((view.state, view.failure, view.attempts), (CallState::Done, None, 1));
    office.close();
}

#[tokio::test]
async fn a_recording_that_was_changed_on_disk_fails_as_unreadable() {
    let state = tempfile::tempdir().unwrap();
    let office = Office::open(state.path(), good);
    office.calls.stop();
    let call = office.upload(b"recording", None).await.unwrap().id;
    drop(office);
    let path = state.path().join(format!("audio/{call}.seg"));
    let mut bytes = std::fs::read(&path).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    std::fs::write(&path, bytes).unwrap();
    let office = Office::open(state.path(), good);
    office.ended(call).await;
    assert_eq!(office.view(call).await.failure, Some(CallFailure::Unreadable));
    office.close();
}

#[tokio::test]
async fn a_recording_that_the_disk_does_not_give_now_is_tried_again_and_costs_no_attempt() {
    let state = tempfile::tempdir().unwrap();
    let office = Office::open(state.path(), good);
    office.calls.stop();
    let call = office.upload(b"recording", None).await.unwrap().id;
    drop(office);
    let (path, aside) = (state.path().join(format!("audio/{call}.seg")), state.path().join("aside"));
    std::fs::rename(&path, &aside).unwrap();
    std::os::unix::fs::symlink(&path, &path).unwrap();
    let office = Office::open(state.path(), good);
    // The key is opened anew for each try; the recording after it.
    until(|| office.keeper.opened.load(Ordering::SeqCst) > 4).await;
    std::fs::rename(&aside, &path).unwrap();
    office.ended(call).await;
    let view = office.view(call).await;
    assert_eq!((view.state, view.failure, view.attempts), (CallState::Done, None, 1));
    office.close();
}

/// A store that is full for the first `times` writes, and how often it was written to.
fn full(times: usize, writes: &AtomicUsize) -> Result<(), DeskError> {
    if writes.fetch_add(1, Ordering::SeqCst) < times { Err(DeskError::Store(StoreError::Full)) } else { Ok(()) }
}

#[test]
fn the_end_of_a_call_waits_for_room_on_the_disk() {
    let (queue, writes) = (Queue::new(1, BTreeMap::new()), AtomicUsize::new(0));
    let written = durably(&queue, Duration::from_millis(1), || full(3, &writes));
    assert!(written.is_ok());
    assert_eq!(writes.load(Ordering::SeqCst), 4);
}

#[test]
fn a_stop_of_the_daemon_ends_the_wait_for_room() {
    let (queue, writes) = (Queue::new(1, BTreeMap::new()), AtomicUsize::new(0));
    let written = durably(&queue, Duration::from_secs(3600), || {
        queue.stop();
        full(usize::MAX, &writes)
    });
    assert!(matches!(written, Err(DeskError::Store(StoreError::Full))));
    assert_eq!(writes.load(Ordering::SeqCst), 1);
}

#[test]
fn a_store_that_fails_otherwise_is_given_a_few_chances() {
    let (queue, writes) = (Queue::new(1, BTreeMap::new()), AtomicUsize::new(0));
    let written: Result<(), _> = durably(&queue, Duration::from_millis(1), || {
        writes.fetch_add(1, Ordering::SeqCst);
        Err(DeskError::Store(StoreError::Closed))
    });
    assert!(matches!(written, Err(DeskError::Store(StoreError::Closed))));
    assert_eq!(writes.load(Ordering::SeqCst), 4);
}

fn redacts(channel: &Channel) {
    let _ = channel.send(&ChildEvent::Ready);
    if let Ok(Some(Task::Redact { text })) = channel.recv() {
        let counts = vec![EntityCount { kind: EntityKind::Person, count: 1 }];
        let _ = channel.send(&ChildEvent::Redacted { text: text.replace("Zuberi", "[PERSON_1]"), counts, language: None });
    }
}

#[tokio::test]
async fn a_text_is_redacted_and_nothing_of_it_is_stored() {
    let state = tempfile::tempdir().unwrap();
    let office = Office::open(state.path(), redacts);
    let before = office.store.commits();
    let answer = office.calls.redact_text("Zuberi called".into()).await.unwrap();
    assert_eq!(answer.text, "[PERSON_1] called");
    assert_eq!(office.store.commits(), before);
    office.close();
}

#[tokio::test]
async fn texts_of_no_and_of_too_many_characters_are_refused() {
    let state = tempfile::tempdir().unwrap();
    let office = Office::open(state.path(), redacts);
    assert!(matches!(office.calls.redact_text(String::new()).await, Err(CallsError::TextLength { max: 10_000 })));
    assert!(matches!(office.calls.redact_text("é".repeat(10_001)).await, Err(CallsError::TextLength { .. })));
    assert!(office.calls.redact_text("é".repeat(10_000)).await.is_ok());
    office.close();
}

#[tokio::test]
async fn a_child_that_dies_over_a_text_or_answers_too_much_is_a_worker_failure() {
    let state = tempfile::tempdir().unwrap();
    let office = Office::open(state.path(), |channel| drop(channel.send(&ChildEvent::Ready)));
    assert!(matches!(office.calls.redact_text("text".into()).await, Err(CallsError::Worker(CallFailure::WorkerDied))));
    office.close();
    let office = Office::open(state.path(), |channel| {
        let _ = channel.send(&ChildEvent::Ready);
        let _: Result<Option<Task>, _> = channel.recv();
        let _ = channel.send(&ChildEvent::Redacted { text: "x".repeat(20_000), counts: Vec::new(), language: None });
    });
    assert!(matches!(office.calls.redact_text("text".into()).await, Err(CallsError::Worker(CallFailure::WorkerMisbehaved))));
    office.close();
}

#[tokio::test]
async fn a_stop_of_the_daemon_stops_the_child_of_a_text_at_once() {
    let state = tempfile::tempdir().unwrap();
    let asked = std::sync::Arc::new(AtomicUsize::new(0));
    let heard = std::sync::Arc::clone(&asked);
    let office = Office::open(state.path(), move |channel| {
        let _ = channel.send(&ChildEvent::Ready);
        let _: Result<Option<Task>, _> = channel.recv();
        heard.fetch_add(1, Ordering::SeqCst);
        let _: Result<Option<Task>, _> = channel.recv();
    });
    let calls = office.calls.clone();
    let answer = tokio::spawn(async move { calls.redact_text("text".into()).await });
    until(|| asked.load(Ordering::SeqCst) == 1).await;

    office.calls.stop();

    // Not `TimedOut`, as it would be when the child went on.
    assert!(matches!(answer.await.unwrap(), Err(CallsError::Worker(CallFailure::WorkerDied))));
    assert_eq!(office.calls.health().running, 0);
}

#[tokio::test]
async fn a_runner_that_is_gone_is_seen_in_health_and_one_that_was_stopped_is_not_missed() {
    let state = tempfile::tempdir().unwrap();
    let office = Office::open(state.path(), good);
    assert!(office.calls.health().runners);
    office.children.panics.store(true, Ordering::SeqCst);
    office.upload(b"recording", None).await.unwrap();

    until(|| !office.calls.health().runners).await;

    office.calls.stop();
    assert!(office.calls.health().runners);
}
