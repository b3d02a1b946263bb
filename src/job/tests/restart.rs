//! What a stop, a crash and a crash loop leave of the queue.
//! Trusts: nothing.
//! Touches: temporary directories.
//! Next: nobody.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::support::{Office, good, hangs, recordings};
use crate::ipc::channel::Channel;
use crate::ipc::worker::CallFailure;
use crate::job::spec::{CallState, Scope};

#[tokio::test]
async fn waiting_calls_survive_a_restart_in_their_order() {
    let state = tempfile::tempdir().unwrap();
    let office = Office::open(state.path(), good);
    office.calls.stop();
    let mut accepted = Vec::new();
    for body in [b"1", b"2", b"3"] {
        accepted.push(office.upload(body, None).await.unwrap().id);
    }
    drop(office);
    let order = Arc::new(std::sync::Mutex::new(Vec::new()));
    let heard = Arc::clone(&order);
    let office = Office::open(state.path(), move |channel: &Channel| {
        if let Some(recording) = super::support::read_all(channel) {
            heard.lock().unwrap().push(recording[0]);
            let _ = channel.send(&crate::ipc::worker::ChildEvent::Failed(CallFailure::NotAudio));
        }
    });
    for call in accepted {
        office.ended(call).await;
    }
    assert_eq!(*order.lock().unwrap(), [b'1', b'2', b'3']);
    office.close();
}

#[tokio::test]
async fn a_stop_of_the_daemon_leaves_the_running_call_queued_without_cost() {
    let state = tempfile::tempdir().unwrap();
    let office = Office::open(state.path(), hangs);
    let call = office.upload(b"recording", None).await.unwrap().id;
    office.reaches(call, CallState::Running).await;
    office.calls.stop();
    let view = office.view(call).await;
    assert_eq!((view.state, view.attempts), (CallState::Queued, 0));
    drop(office);
    let office = Office::open(state.path(), good);
    office.ended(call).await;
    assert_eq!((office.view(call).await.state, office.view(call).await.attempts), (CallState::Done, 1));
    office.close();
}

/// The store as a crash in the middle of a run leaves it: copied while the child works.
async fn crashed_copy(state: &std::path::Path) -> (tempfile::TempDir, crate::base::ids::CallId) {
    let office = Office::open(state, hangs);
    let call = match office.calls.list(&Scope::All, None, 1).await.unwrap().calls.first() {
        Some(view) => view.id,
        None => office.upload(b"recording", None).await.unwrap().id,
    };
    office.reaches(call, CallState::Running).await;
    let copy = tempfile::tempdir().unwrap();
    std::fs::create_dir(copy.path().join("audio")).unwrap();
    for (path, bytes) in super::support::files(state) {
        std::fs::write(copy.path().join(path.strip_prefix(state).unwrap()), bytes).unwrap();
    }
    office.close();
    (copy, call)
}

#[tokio::test]
async fn a_call_that_ran_when_the_daemon_died_is_run_again_and_the_attempt_counts() {
    let state = tempfile::tempdir().unwrap();
    let (crashed, call) = crashed_copy(state.path()).await;
    let office = Office::open(crashed.path(), good);
    let events = office.ended(call).await;
    let view = office.view(call).await;
    assert_eq!((view.state, view.attempts), (CallState::Done, 2));
    assert!(events[0].number > 1000, "numbers of the earlier life are not given again: {}", events[0].number);
    office.close();
}

#[tokio::test]
async fn a_call_that_ends_the_daemon_three_times_is_not_tried_again() {
    let state = tempfile::tempdir().unwrap();
    let (first, call) = crashed_copy(state.path()).await;
    let (second, _) = crashed_copy(first.path()).await;
    let (third, _) = crashed_copy(second.path()).await;
    let runs = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&runs);
    let office = Office::open(third.path(), move |channel: &Channel| {
        counted.fetch_add(1, Ordering::SeqCst);
        good(channel);
    });
    office.ended(call).await;
    let view = office.view(call).await;
    assert_eq!((view.failure, view.attempts, runs.load(Ordering::SeqCst)), (Some(CallFailure::TriedTooOften), 3, 0));
    office.close();
}

#[tokio::test]
async fn job_numbers_go_on_after_a_restart_even_when_the_last_call_was_erased() {
    let state = tempfile::tempdir().unwrap();
    let office = Office::open(state.path(), good);
    office.upload(b"1", None).await.unwrap();
    let last = office.upload(b"2", None).await.unwrap().id;
    office.calls.delete(&Scope::All, last).await.unwrap();
    office.close();
    let office = Office::open(state.path(), good);
    assert_eq!(office.upload(b"3", None).await.unwrap().job, 3);
    office.close();
}

#[tokio::test]
async fn leftovers_of_uploads_that_a_crash_cut_off_are_swept() {
    let state = tempfile::tempdir().unwrap();
    let office = Office::open(state.path(), good);
    office.upload(b"1", None).await.unwrap();
    office.close();
    std::fs::write(state.path().join("audio/00000000000000000000000000000000.part"), b"half").unwrap();
    std::fs::write(state.path().join("audio/00000000000000000000000000000000.seg"), b"no call").unwrap();
    let office = Office::open(state.path(), good);
    assert_eq!(recordings(state.path()), 1);
    office.close();
}
