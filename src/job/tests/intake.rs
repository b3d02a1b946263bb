//! Uploads, idempotency, listing, erasing.
//! Trusts: nothing.
//! Touches: temporary directories.
//! Next: nobody.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::support::{OWNER, Office, good, hangs, metadata, on_disk, patient, recordings, settings, until};
use crate::job::calls::{Arrival, CallsError};
use crate::job::spec::{CallState, Scope};
use crate::record::schema::{Slot, Table};

fn own() -> Scope {
    Scope::OwnedBy(OWNER.into())
}

#[tokio::test]
async fn an_upload_that_is_dropped_half_way_leaves_nothing() {
    let state = tempfile::tempdir().unwrap();
    let office = Office::open(state.path(), good);
    let mut upload = office.calls.admit(OWNER, metadata(), Some("key")).await.unwrap();
    upload.push(Bytes::from(vec![1; 600_000])).await.unwrap();
    assert_eq!(recordings(state.path()), 1);
    // A piece may be under way to the disk: the file goes once that has ended.
    drop(upload);
    until(|| recordings(state.path()) == 0).await;
    assert!(office.calls.list(&Scope::All, None, 10).await.unwrap().calls.is_empty());
    office.close();
}

#[tokio::test]
async fn an_empty_and_a_too_large_recording_are_refused_and_leave_nothing() {
    let state = tempfile::tempdir().unwrap();
    let office = Office::open(state.path(), good);
    assert!(matches!(office.upload(&[], None).await, Err(CallsError::Empty)));
    assert!(matches!(office.upload(&vec![0; 1_000_001], None).await, Err(CallsError::TooLarge { limit: 1_000_000 })));
    assert_eq!(recordings(state.path()), 0);
    office.close();
}

#[tokio::test]
async fn the_same_key_metadata_and_recording_give_the_same_call() {
    let state = tempfile::tempdir().unwrap();
    let office = Office::open(state.path(), good);
    let first = office.arrival(OWNER, b"recording", Some("key")).await.unwrap();
    let second = office.arrival(OWNER, b"recording", Some("key")).await.unwrap();
    let (Arrival::New(first), Arrival::Repeated(second)) = (first, second) else { panic!("new, then repeated") };
    assert_eq!(first.id, second.id);
    assert_eq!(recordings(state.path()), 1);
    office.close();
}

#[tokio::test]
async fn the_same_key_and_metadata_with_another_recording_is_a_conflict() {
    let state = tempfile::tempdir().unwrap();
    let office = Office::open(state.path(), good);
    office.upload(b"recording", Some("key")).await.unwrap();
    assert!(matches!(office.upload(b"another recording", Some("key")).await, Err(CallsError::IdempotencyConflict)));
    assert!(matches!(office.upload(b"", Some("key")).await, Err(CallsError::Empty)));
    assert_eq!(recordings(state.path()), 1);
    assert_eq!(office.calls.list(&own(), None, 10).await.unwrap().calls.len(), 1);
    office.close();
}

#[tokio::test]
async fn a_repeated_upload_needs_no_place_in_the_queue() {
    let state = tempfile::tempdir().unwrap();
    let mut settings = settings(state.path());
    settings.queue = 1;
    let office = Office::with(settings, hangs);
    let running = office.upload(b"first", Some("key")).await.unwrap().id;
    office.reaches(running, CallState::Running).await;
    office.upload(b"second", None).await.unwrap();
    assert!(matches!(office.upload(b"third", None).await, Err(CallsError::QueueFull)));
    assert!(matches!(office.arrival(OWNER, b"first", Some("key")).await, Ok(Arrival::Repeated(view)) if view.id == running));
    office.close();
}

#[tokio::test]
async fn a_repeated_upload_whose_call_is_erased_meanwhile_is_not_taken_for_kept() {
    let state = tempfile::tempdir().unwrap();
    let office = Office::open(state.path(), good);
    let call = office.upload(b"recording", Some("key")).await.unwrap().id;
    let mut again = office.calls.admit(OWNER, metadata(), Some("key")).await.unwrap();
    again.push(Bytes::from_static(b"recording")).await.unwrap();
    office.calls.delete(&own(), call).await.unwrap();
    assert!(matches!(again.finish().await, Err(CallsError::NotFound)));
    office.close();
}

#[tokio::test]
async fn the_same_key_with_other_metadata_is_a_conflict() {
    let state = tempfile::tempdir().unwrap();
    let office = Office::open(state.path(), good);
    office.upload(b"recording", Some("key")).await.unwrap();
    let mut other = metadata();
    other.reference = Some("case 18".into());
    assert!(matches!(office.calls.admit(OWNER, other, Some("key")).await, Err(CallsError::IdempotencyConflict)));
    office.close();
}

#[tokio::test]
async fn the_same_key_of_another_owner_is_another_call() {
    let state = tempfile::tempdir().unwrap();
    let office = Office::open(state.path(), good);
    office.upload(b"recording", Some("key")).await.unwrap();
    let other = office.arrival("counsellor/baraka", b"recording", Some("key")).await;
    assert!(matches!(other, Ok(Arrival::New(_))));
    office.close();
}

#[tokio::test]
async fn a_key_is_forgotten_after_a_day() {
    let state = tempfile::tempdir().unwrap();
    let office = Office::open(state.path(), good);
    let first = office.upload(b"recording", Some("key")).await.unwrap();
    office.clock.advance(Duration::from_hours(24));
    let second = office.upload(b"recording", Some("key")).await.unwrap();
    assert_ne!(first.id, second.id);
    office.close();
}

#[tokio::test]
async fn of_two_uploads_at_once_with_one_key_one_wins_and_both_get_its_call() {
    let state = tempfile::tempdir().unwrap();
    let office = Office::open(state.path(), good);
    let mut one = office.calls.admit(OWNER, metadata(), Some("key")).await.unwrap();
    let mut other = office.calls.admit(OWNER, metadata(), Some("key")).await.unwrap();
    one.push(Bytes::from_static(b"recording")).await.unwrap();
    other.push(Bytes::from_static(b"recording")).await.unwrap();
    let (one, other) = tokio::join!(one.finish(), other.finish());
    let ((Arrival::New(new), Arrival::Repeated(old)) | (Arrival::Repeated(old), Arrival::New(new))) = (one.unwrap(), other.unwrap()) else {
        panic!("one new, one repeated")
    };
    assert_eq!(new.id, old.id);
    assert_eq!(recordings(state.path()), 1);
    assert_eq!(office.calls.list(&own(), None, 10).await.unwrap().calls.len(), 1);
    office.close();
}

#[tokio::test]
async fn of_two_different_recordings_at_once_with_one_key_the_second_is_a_conflict() {
    let state = tempfile::tempdir().unwrap();
    let office = Office::open(state.path(), good);
    let mut one = office.calls.admit(OWNER, metadata(), Some("key")).await.unwrap();
    let mut other = office.calls.admit(OWNER, metadata(), Some("key")).await.unwrap();
    one.push(Bytes::from_static(b"recording")).await.unwrap();
    other.push(Bytes::from_static(b"another recording")).await.unwrap();
    one.finish().await.unwrap();
    assert!(matches!(other.finish().await, Err(CallsError::IdempotencyConflict)));
    assert_eq!(recordings(state.path()), 1);
    office.close();
}

#[tokio::test]
async fn pages_are_newest_first_and_a_cursor_goes_on() {
    let state = tempfile::tempdir().unwrap();
    let office = Office::open(state.path(), good);
    for body in [b"1", b"2", b"3", b"4", b"5"] {
        office.upload(body, None).await.unwrap();
    }
    let first = office.calls.list(&own(), None, 2).await.unwrap();
    let second = office.calls.list(&own(), first.next.as_deref(), 2).await.unwrap();
    let third = office.calls.list(&own(), second.next.as_deref(), 2).await.unwrap();
    let jobs: Vec<u64> = [&first, &second, &third].iter().flat_map(|page| &page.calls).map(|call| call.job).collect();
    assert_eq!(jobs, [5, 4, 3, 2, 1]);
    assert_eq!(third.next, None);
    assert!(matches!(office.calls.list(&Scope::All, first.next.as_deref(), 2).await, Err(CallsError::BadCursor)));
    office.close();
}

#[tokio::test]
async fn another_owners_call_is_not_there() {
    let state = tempfile::tempdir().unwrap();
    let office = Office::open(state.path(), good);
    let call = office.upload(b"recording", None).await.unwrap().id;
    let stranger = Scope::OwnedBy("counsellor/baraka".into());
    assert!(matches!(office.calls.get(&stranger, call).await, Err(CallsError::NotFound)));
    assert!(matches!(office.calls.transcript(&stranger, call).await, Err(CallsError::NotFound)));
    assert!(matches!(office.calls.watch(&stranger, call, 0).await, Err(CallsError::NotFound)));
    assert!(matches!(office.calls.delete(&stranger, call).await, Err(CallsError::NotFound)));
    assert!(office.calls.list(&stranger, None, 10).await.unwrap().calls.is_empty());
    office.close();
}

#[tokio::test]
async fn an_erased_call_leaves_no_file_no_key_and_no_record() {
    let state = tempfile::tempdir().unwrap();
    let office = Office::open(state.path(), good);
    let call = office.upload(b"recording", Some("key")).await.unwrap().id;
    office.ended(call).await;
    office.calls.delete(&own(), call).await.unwrap();
    assert_eq!(recordings(state.path()), 0);
    for table in Table::OF_CALL {
        assert!(office.store.get(&Slot::of_call(table, call)).unwrap().is_none(), "{}", table.name());
    }
    assert!(office.calls.list(&Scope::All, None, 10).await.unwrap().calls.is_empty());
    assert!(matches!(office.calls.delete(&own(), call).await, Err(CallsError::NotFound)));
    assert!(matches!(office.arrival(OWNER, b"recording", Some("key")).await, Ok(Arrival::New(_))));
    office.close();
}

#[tokio::test]
async fn erasing_a_running_call_stops_its_child_and_nothing_comes_back() {
    let state = tempfile::tempdir().unwrap();
    let office = Office::with(patient(state.path()), hangs);
    let call = office.upload(b"recording", None).await.unwrap().id;
    office.reaches(call, CallState::Running).await;
    let mut events = office.calls.watch(&own(), call, 0).await.unwrap();
    office.calls.delete(&own(), call).await.unwrap();
    while events.recv().await.is_some() {}
    // There is one place for children.
    let next = office.upload(b"next", None).await.unwrap().id;
    office.reaches(next, CallState::Running).await;
    office.calls.delete(&own(), next).await.unwrap();
    office.calls.stop();
    assert!(office.store.get(&Slot::of_call(Table::Header, call)).unwrap().is_none());
    assert_eq!(recordings(state.path()), 0);
}

#[tokio::test]
async fn a_full_queue_refuses_before_a_byte_is_read() {
    let state = tempfile::tempdir().unwrap();
    let mut settings = settings(state.path());
    settings.queue = 1;
    let office = Office::with(settings, hangs);
    let first = office.calls.admit(OWNER, metadata(), None).await.unwrap();
    assert!(matches!(office.calls.admit(OWNER, metadata(), None).await, Err(CallsError::QueueFull)));
    drop(first);
    assert!(office.calls.admit(OWNER, metadata(), None).await.is_ok());
    office.close();
}

#[tokio::test]
async fn a_nearly_full_disk_refuses_uploads() {
    let state = tempfile::tempdir().unwrap();
    let mut settings = settings(state.path());
    settings.reserve = u64::MAX;
    let office = Office::with(settings, good);
    assert!(matches!(office.calls.admit(OWNER, metadata(), None).await, Err(CallsError::Full)));
    assert!(!office.calls.health().space);
    office.close();
}

#[tokio::test]
async fn metadata_is_sealed_and_exported() {
    let state = tempfile::tempdir().unwrap();
    let office = Office::open(state.path(), good);
    let call = office.upload(b"recording", Some("visible-key")).await.unwrap().id;
    office.ended(call).await;
    let export = office.calls.export(&own(), call).await.unwrap();
    assert_eq!(export.metadata, metadata());
    assert_eq!(export.transcript.unwrap().redacted[0].count, 2);
    office.close();
    for name in ["case 17", OWNER, "visible-key", "amina"] {
        assert!(!on_disk(state.path(), name.as_bytes()), "{name}");
    }
}

#[tokio::test]
async fn many_uploads_at_once_all_arrive_with_numbers_of_their_own() {
    let state = tempfile::tempdir().unwrap();
    let mut settings = settings(state.path());
    settings.queue = 64;
    let office = Arc::new(Office::with(settings, good));
    let uploads: Vec<_> = (0_u8..32)
        .map(|number| {
            let office = Arc::clone(&office);
            tokio::spawn(async move { office.upload(&[number; 100], None).await.unwrap().job })
        })
        .collect();
    let mut jobs = Vec::new();
    for upload in uploads {
        jobs.push(upload.await.unwrap());
    }
    jobs.sort_unstable();
    assert_eq!(jobs, (1..=32).collect::<Vec<u64>>());
    office.calls.stop();
}
