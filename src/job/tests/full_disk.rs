//! A disk that is full at each write of an upload in turn.
//! Trusts: nothing.
//! Touches: a small tmpfs.
//! Next: nobody.

use super::support::{Office, good, recordings, settings};
use crate::base::ids::CallId;
use crate::job::calls::{CallsError, JobSettings};
use crate::job::spec::{CallState, Scope};
use crate::record::schema::Table;
use crate::record::small_disk::SmallDisk;
use crate::record::store::StoreError;

/// Four chunks and a piece.
static RECORDING: [u8; 300_000] = [7; 300_000];
/// A page of the file system: the finest difference that it makes.
const PAGE: u64 = 4096;
/// What the sealed recording takes, and no more.
const SEALED: u64 = 74 * PAGE;
/// Uploads within which the store needs a page that it had not before.
const GROWTH: usize = 40;

async fn is_readable(office: &Office, call: CallId) {
    assert_eq!(office.view(call).await.state, CallState::Done);
    assert_eq!(office.calls.transcript(&Scope::All, call).await.unwrap().utterances.len(), 2);
    assert_eq!(office.calls.export(&Scope::All, call).await.unwrap().metadata.reference.as_deref(), Some("case 17"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upload_that_meets_a_full_disk_at_any_write_is_refused_as_such_and_harms_nothing() {
    let disk = SmallDisk::mount(64);
    let office = Office::open(disk.path(), good);
    let first = office.upload(&RECORDING, None).await.unwrap().id;
    office.ended(first).await;
    let mut accepted = vec![first];
    let mut refused = (0, 0);
    // Coarse steps over the recording, whose every page has a test of its own.
    let steps = (0..SEALED).step_by(64 * 1024).chain([SEALED - PAGE, SEALED, SEALED + PAGE]);
    for free in steps {
        disk.fill(free);
        match office.upload(&RECORDING, None).await {
            Ok(view) => accepted.push(view.id),
            Err(CallsError::Full) => refused.0 += 1,
            Err(other) => panic!("{free} bytes free: {other:?}"),
        }
        is_readable(&office, first).await;
        disk.relieve();
        let next = office.upload(b"recording", None).await.unwrap_or_else(|error| panic!("after {free} bytes were free: {error}")).id;
        office.ended(next).await;
        accepted.push(next);
    }

    // The recording fits, and one day the store's next page does not.
    for free in [PAGE, 2 * PAGE] {
        for _ in 0..GROWTH {
            disk.fill(free);
            let upload = office.upload(b"recording", None).await;
            if upload.is_err() {
                is_readable(&office, first).await;
            }
            disk.relieve();
            match upload {
                Ok(view) => {
                    office.ended(view.id).await;
                    accepted.push(view.id);
                }
                Err(CallsError::Full) => {
                    refused.1 += 1;
                    break;
                }
                Err(other) => panic!("{free} bytes free: {other:?}"),
            }
        }
    }

    for call in &accepted {
        office.ended(*call).await;
        is_readable(&office, *call).await;
    }
    assert!(refused.0 >= 5 && refused.1 >= 1 && office.calls.health().store, "{refused:?} refused");
    assert_eq!(recordings(disk.path()), accepted.len(), "a refused upload leaves no file");
    assert_eq!(
        office.store.view(|snapshot| snapshot.all(Table::Header)).unwrap_or_else(|error: StoreError| panic!("{error}")).len(),
        accepted.len()
    );
    office.close();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_long_upload_whose_pieces_meet_a_full_disk_while_more_comes_is_refused_as_such_and_leaves_nothing() {
    let disk = SmallDisk::mount(64);
    let office = Office::with(JobSettings { max_audio_bytes: 4 << 20, ..settings(disk.path()) }, good);
    let long = vec![7; 3 << 20];
    let first = office.upload(b"recording", None).await.unwrap().id;
    office.ended(first).await;
    // Each piece of 512 KiB in turn, and the last bytes.
    for free in (0..3 << 20).step_by(256 << 10) {
        disk.fill(free);
        let refused = office.upload(&long, None).await;
        assert!(matches!(refused, Err(CallsError::Full)), "{free} bytes free: {refused:?}");
        assert_eq!(recordings(disk.path()), 1, "{free} bytes free: a refused upload leaves no file");
        assert!(disk.free() >= free, "{free} bytes free: a refused upload keeps blocks");
        is_readable(&office, first).await;
        disk.relieve();
    }
    let next = office.upload(&long, None).await.unwrap().id;
    office.ended(next).await;
    is_readable(&office, next).await;
    assert_eq!(recordings(disk.path()), 2);
    office.close();
}

#[tokio::test]
async fn the_ballast_is_held_again_as_soon_as_there_is_room() {
    let disk = SmallDisk::mount(8);
    Office::open(disk.path(), good).close();
    std::fs::remove_file(disk.path().join("ballast")).unwrap();
    disk.fill(15 * PAGE);
    let office = Office::open(disk.path(), good);
    assert!(!office.calls.health().ballast, "a page is missing");
    disk.relieve();
    assert!(office.calls.health().ballast);
    office.close();
}
