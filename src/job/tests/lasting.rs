//! Faults that last: each call bears them for a while and then ends with a reason, others pass, and health names the part.
//! Trusts: nothing.
//! Touches: temporary directories.
//! Next: nobody.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::support::{Office, good, settings, until};
use crate::base::ids::CallId;
use crate::ipc::channel::Channel;
use crate::ipc::worker::CallFailure;
use crate::job::hindrance::Hindrance;
use crate::job::spec::CallState;

/// Uploads these while nothing runs.
async fn accepted(state: &Path, bodies: &[&[u8]]) -> Vec<CallId> {
    let office = Office::open(state, good);
    office.calls.stop();
    let mut accepted = Vec::new();
    for body in bodies {
        accepted.push(office.upload(body, None).await.unwrap().id);
    }
    accepted
}

/// The file opens no more: following its link fails, as a bad block would.
fn bend(path: &Path, aside: &Path) {
    std::fs::rename(path, aside).unwrap();
    std::os::unix::fs::symlink(path, path).unwrap();
}

#[tokio::test]
async fn a_recording_that_never_reads_holds_up_nobody_and_fails_in_the_end() {
    let state = tempfile::tempdir().unwrap();
    let [bad, next] = accepted(state.path(), &[b"one", b"two"]).await[..] else { panic!() };
    bend(&state.path().join(format!("audio/{bad}.seg")), &state.path().join("aside"));
    let mut settings = settings(state.path());
    settings.setbacks = 10;
    let office = Office::with(settings, good);

    office.ended(next).await;
    assert_eq!((office.view(next).await.state, office.view(bad).await.state), (CallState::Done, CallState::Queued));
    until(|| office.calls.health().hindrances == BTreeSet::from([Hindrance::Recording])).await;

    office.ended(bad).await;
    assert_eq!((office.view(bad).await.failure, office.view(bad).await.attempts), (Some(CallFailure::RecordingUnread), 0));
    assert!(office.calls.health().hindrances.is_empty());
    office.close();
}

#[tokio::test]
async fn children_that_never_start_fail_the_call_in_the_end_and_health_says_so_meanwhile() {
    let state = tempfile::tempdir().unwrap();
    let mut settings = settings(state.path());
    settings.setbacks = 9;
    let office = Office::with(settings, good);
    office.children.refuse.store(usize::MAX, Ordering::SeqCst);
    let call = office.upload(b"recording", None).await.unwrap().id;

    until(|| office.calls.health().hindrances == BTreeSet::from([Hindrance::Workers])).await;
    office.ended(call).await;

    let view = office.view(call).await;
    assert_eq!((view.state, view.failure, view.attempts), (CallState::Failed, Some(CallFailure::NoWorker), 1));
    office.children.refuse.store(0, Ordering::SeqCst);
    let call = office.upload(b"recording", None).await.unwrap().id;
    office.ended(call).await;
    assert_eq!(office.view(call).await.state, CallState::Done);
    office.close();
}

#[tokio::test]
async fn a_call_that_was_set_back_can_be_cancelled_and_is_forgotten() {
    let state = tempfile::tempdir().unwrap();
    let office = Office::open(state.path(), good);
    office.children.refuse.store(usize::MAX, Ordering::SeqCst);
    let call = office.upload(b"recording", None).await.unwrap().id;
    until(|| !office.calls.health().hindrances.is_empty()).await;

    office.calls.cancel(&crate::job::spec::Scope::All, call).await.unwrap();

    until(|| office.calls.health().hindrances.is_empty() && office.calls.health().waiting == 0).await;
    assert_eq!(office.view(call).await.state, CallState::Cancelled);
    office.close();
}

#[tokio::test]
async fn a_call_whose_end_could_not_be_stored_is_tried_again_once_the_store_opens() {
    let state = tempfile::tempdir().unwrap();
    let closed = Arc::new(AtomicBool::new(false));
    let may_end = Arc::clone(&closed);
    let office = Office::open(state.path(), move |channel: &Channel| {
        while !may_end.load(Ordering::SeqCst) {
            std::thread::yield_now();
        }
        good(channel);
    });
    let call = office.upload(b"recording", None).await.unwrap().id;
    until(|| office.calls.health().running == 1).await;
    let (path, aside) = (state.path().join("store.redb"), state.path().join("aside"));
    bend(&path, &aside);
    office.store.close_for_test();
    closed.store(true, Ordering::SeqCst);
    until(|| office.calls.health().hindrances == BTreeSet::from([Hindrance::Store])).await;
    assert!(!office.calls.health().store);

    std::fs::rename(&aside, &path).unwrap();

    until(|| office.calls.health().store).await;
    office.ended(call).await;
    assert_eq!((office.view(call).await.state, office.view(call).await.attempts), (CallState::Done, 2));
    office.close();
}
