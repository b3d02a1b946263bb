//! What the desk counts for `/metrics`.
//! Trusts: nothing.
//! Touches: temporary directories.
//! Next: nobody.

use std::sync::atomic::{AtomicBool, Ordering};

use super::support::{Office, good};
use crate::ipc::worker::ChildExit;
use crate::job::spec::{CallState, Scope};

fn calls(office: &Office, of: CallState) -> u64 {
    office.calls.counts().calls.iter().find(|(state, _)| *state == of).map_or(0, |(_, count)| *count)
}

#[tokio::test]
async fn calls_are_counted_by_state_children_by_end_and_done_calls_by_speed() {
    let state = tempfile::tempdir().unwrap();
    let dying = AtomicBool::new(true);
    let office = Office::open(state.path(), move |channel| {
        if !dying.swap(false, Ordering::SeqCst) {
            good(channel);
        }
    });

    for _ in 0..3 {
        let call = office.upload(b"recording", None).await.unwrap().id;
        office.ended(call).await;
    }

    let counts = office.calls.counts();
    assert_eq!((calls(&office, CallState::Failed), calls(&office, CallState::Done), calls(&office, CallState::Queued)), (1, 2, 0));
    assert_eq!(counts.exits, [(ChildExit::Code(0), 3)]);
    office.close();
}

#[tokio::test]
async fn the_speed_of_done_calls_is_counted() {
    let state = tempfile::tempdir().unwrap();
    let office = Office::open(state.path(), good);
    let call = office.upload(b"recording", None).await.unwrap().id;
    office.ended(call).await;

    office.calls.stop();

    let factors = office.calls.counts().real_time_factor;
    assert_eq!((factors.count, factors.buckets[0].1), (1, 1));
    assert!((factors.sum - 0.005).abs() < 1e-9, "{}", factors.sum);
}

#[tokio::test]
async fn counts_are_those_of_the_store_after_a_restart_and_an_erasure() {
    let state = tempfile::tempdir().unwrap();
    let office = Office::open(state.path(), good);
    let first = office.upload(b"recording", None).await.unwrap().id;
    let second = office.upload(b"recording", None).await.unwrap().id;
    office.ended(first).await;
    office.ended(second).await;
    office.close();

    let office = Office::open(state.path(), good);
    let before = calls(&office, CallState::Done);
    office.calls.delete(&Scope::All, first).await.unwrap();

    assert_eq!((before, calls(&office, CallState::Done)), (2, 1));
    office.close();
}
