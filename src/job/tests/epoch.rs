//! What a move of the erasure epoch must not do: lose a key, bring one back, come too early.
//! Trusts: nothing.
//! Touches: temporary directories.
//! Next: `tests/epoch` has the real keeper on a TPM.

use std::convert::Infallible;
use std::fs;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;

use super::support::{OWNER, Office, good, index, metadata, until};
use crate::base::clock::{Clock as _, Timestamp};
use crate::base::ids::CallId;
use crate::ipc::keeper::WrappedDek;
use crate::ipc::keeper::{Counted, Counter, Leave};
use crate::job::calls::{Arrival, CallsError};
use crate::job::spec::Scope;
use crate::job::upload::Upload;
use crate::record::rollback::{TakeUpError, TakenUp};
use crate::record::schema::{Slot, Table};
use crate::record::small_disk::SmallDisk;
use crate::record::store::{Batch, OpenStore, StoreError};

async fn stored(office: &Office) -> CallId {
    let call = office.upload(b"recording", None).await.unwrap().id;
    office.ended(call).await;
    call
}

async fn certified(office: &Office, call: CallId) -> bool {
    office.calls.erasure(&Scope::All, call).await.unwrap().certificate.is_some()
}

#[tokio::test]
async fn an_upload_under_way_while_the_epoch_moves_is_stored_under_the_next_one() {
    let state = tempfile::tempdir().unwrap();
    let office = Office::open(state.path(), good);
    let (kept, erased) = (stored(&office).await, stored(&office).await);
    let mut upload = office.calls.admit(OWNER, metadata(), None).await.unwrap();
    upload.push(Bytes::from_static(b"under way")).await.unwrap();

    office.calls.delete(&Scope::All, erased).await.unwrap();
    assert!(!certified(&office, erased).await);
    let erasure = office.calls.erase_for_good(&Scope::All, erased).await.unwrap();
    assert_eq!(erasure.certificate.unwrap().statement, erased.to_string());

    let Arrival::New(new) = upload.finish().await.unwrap() else { panic!("it is new") };
    office.ended(new.id).await;
    for call in [kept, new.id] {
        assert!(office.calls.export(&Scope::All, call).await.is_ok());
    }
    office.close();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_that_is_erased_while_keys_are_wrapped_anew_does_not_come_back() {
    let state = tempfile::tempdir().unwrap();
    let office = Office::open(state.path(), good);
    let (kept, first, second) = (stored(&office).await, stored(&office).await, stored(&office).await);
    office.calls.delete(&Scope::All, first).await.unwrap();
    let (calls, runtime) = (office.calls.clone(), tokio::runtime::Handle::current());
    *office.keeper.meanwhile.lock().unwrap() = Some(Box::new(move || runtime.block_on(calls.delete(&Scope::All, second)).unwrap()));

    office.calls.erase_for_good(&Scope::All, first).await.unwrap();

    assert!(office.keeper.meanwhile.lock().unwrap().is_none());
    for erased in [first, second] {
        assert!(office.store.get(&Slot::of_call(Table::WrappedDek, erased)).unwrap().is_none());
    }
    // The keeper has wrapped the second one's key anew, and cannot know that nobody stored it.
    assert!(certified(&office, first).await && !certified(&office, second).await);
    office.calls.erase_for_good(&Scope::All, second).await.unwrap();
    assert!(certified(&office, second).await);
    assert!(office.calls.export(&Scope::All, kept).await.is_ok());
    office.close();
}

#[tokio::test]
async fn the_epoch_moves_once_the_interval_is_over_and_not_before() {
    let state = tempfile::tempdir().unwrap();
    let office = Office::open(state.path(), good);
    let (first, second) = (stored(&office).await, stored(&office).await);
    office.clock.advance(Duration::from_secs(899));
    office.calls.delete(&Scope::All, first).await.unwrap();
    assert_eq!(office.keeper.epoch.load(Ordering::SeqCst), 1);
    office.clock.advance(Duration::from_secs(1));
    // The thread looks at the clock again; it may have been late with the look before, and have moved for the first alone.
    office.calls.delete(&Scope::All, second).await.unwrap();
    until(|| epoch(&office) == 2).await;
    while !certified(&office, first).await {
        tokio::task::yield_now().await;
    }
    office.close();
}

#[tokio::test]
async fn an_erasure_is_nobody_elses_to_ask_about() {
    let state = tempfile::tempdir().unwrap();
    let office = Office::open(state.path(), good);
    let call = stored(&office).await;
    assert!(office.calls.erasure(&Scope::All, call).await.is_err(), "it is not erased");
    office.calls.delete(&Scope::All, call).await.unwrap();
    assert!(office.calls.erasure(&Scope::OwnedBy("counsellor/other".to_owned()), call).await.is_err());
    assert!(office.calls.erase_for_good(&Scope::OwnedBy("counsellor/other".to_owned()), call).await.is_err());
    assert!(office.calls.erasure(&Scope::OwnedBy(OWNER.to_owned()), call).await.is_ok());
    office.close();
}

#[tokio::test]
async fn an_interrupted_certificate_is_made_at_the_next_start() {
    let state = tempfile::tempdir().unwrap();
    let office = Office::open(state.path(), good);
    let (kept, erased) = (stored(&office).await, stored(&office).await);
    office.calls.delete(&Scope::All, erased).await.unwrap();
    office.close();
    let office = Office::open(state.path(), good);
    assert!(!certified(&office, erased).await);
    office.calls.erase_for_good(&Scope::All, erased).await.unwrap();
    assert!(certified(&office, erased).await);
    office.close();
    let office = Office::open(state.path(), good);
    assert!(office.calls.export(&Scope::All, kept).await.is_ok());
    office.close();
}

/// An upload whose key is made and whose call is not stored yet.
async fn under_way(office: &Office) -> Upload {
    let mut upload = office.calls.admit(OWNER, metadata(), None).await.unwrap();
    upload.push(Bytes::from_static(b"under way")).await.unwrap();
    upload
}

async fn finished(office: &Office, upload: Upload) -> CallId {
    let Arrival::New(new) = upload.finish().await.unwrap() else { panic!("it is new") };
    office.ended(new.id).await;
    new.id
}

async fn opens(office: &Office, call: CallId) -> bool {
    office.calls.export(&Scope::All, call).await.is_ok()
}

fn epoch(office: &Office) -> u8 {
    office.keeper.epoch.load(Ordering::SeqCst)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upload_that_comes_while_the_old_epoch_is_destroyed_is_of_the_new_one() {
    /// How long the upload has for taking a key of the old one, where nothing keeps it from that.
    const CHANCE: Duration = Duration::from_millis(300);
    let state = tempfile::tempdir().unwrap();
    let office = Office::open(state.path(), good);
    let (kept, erased) = (stored(&office).await, stored(&office).await);
    office.calls.delete(&Scope::All, erased).await.unwrap();
    let (calls, runtime) = (office.calls.clone(), tokio::runtime::Handle::current());
    let (arrived, arrival) = std::sync::mpsc::channel();
    let (admitted, admission) = std::sync::mpsc::channel();
    *office.keeper.at_the_end.lock().unwrap() = Some(Box::new(move || {
        runtime.spawn(async move {
            let upload = calls.admit(OWNER, metadata(), None).await.unwrap();
            let _ = arrived.send(());
            admitted.send(upload).unwrap();
        });
        let _ = arrival.recv_timeout(CHANCE);
    }));

    office.calls.erase_for_good(&Scope::All, erased).await.unwrap();

    let mut upload = tokio::task::spawn_blocking(move || admission.recv().unwrap()).await.unwrap();
    upload.push(Bytes::from_static(b"just then")).await.unwrap();
    let new = finished(&office, upload).await;
    assert!(opens(&office, kept).await && opens(&office, new).await);
    office.close();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_move_whose_commit_nobody_knows_of_loses_neither_call_nor_upload() {
    for is_stored in [true, false] {
        let state = tempfile::tempdir().unwrap();
        let office = Office::open(state.path(), good);
        let (kept, first, second) = (stored(&office).await, stored(&office).await, stored(&office).await);
        let (early, late) = (under_way(&office).await, under_way(&office).await);
        office.calls.delete(&Scope::All, first).await.unwrap();
        office.store.lose_answer_for_test(Slot::epoch(), is_stored);
        assert!(office.calls.erase_for_good(&Scope::All, first).await.is_err());

        // By which epoch is not known, so by none.
        assert!(matches!(office.calls.admit(OWNER, metadata(), None).await, Err(CallsError::Internal)));
        assert!(early.finish().await.is_err());
        assert_eq!(epoch(&office), 1, "the one that counts is not destroyed");

        office.store.open_for_test();
        assert!(opens(&office, kept).await, "stored: {is_stored}");
        // What is erased now was of the epoch that the store names, be it the next one.
        office.calls.delete(&Scope::All, second).await.unwrap();
        while !(certified(&office, first).await && certified(&office, second).await) {
            for erased in [first, second] {
                office.calls.erase_for_good(&Scope::All, erased).await.unwrap();
            }
        }
        assert_eq!(epoch(&office), if is_stored { 3 } else { 2 }, "stored: {is_stored}");
        let late = finished(&office, late).await;
        assert!(opens(&office, kept).await && opens(&office, late).await, "stored: {is_stored}");
        office.close();
    }
}

#[tokio::test]
async fn no_epoch_is_destroyed_while_a_stored_key_opens_by_none() {
    let state = tempfile::tempdir().unwrap();
    let office = Office::open(state.path(), good);
    let (kept, odd, erased) = (stored(&office).await, stored(&office).await, stored(&office).await);
    let slot = Slot::of_call(Table::WrappedDek, odd);
    let sealed = index().envelope().seal_value(&slot, &WrappedDek(vec![1, 7, 0])).unwrap();
    let _ = office.store.commit(Batch::new().put(slot, sealed)).unwrap();
    office.calls.delete(&Scope::All, erased).await.unwrap();

    assert!(matches!(office.calls.erase_for_good(&Scope::All, erased).await, Err(CallsError::Internal)));
    assert_eq!(epoch(&office), 1);
    assert!(opens(&office, kept).await);

    office.calls.delete(&Scope::All, odd).await.unwrap();
    office.calls.erase_for_good(&Scope::All, erased).await.unwrap();
    assert!(certified(&office, odd).await && opens(&office, kept).await);
    office.close();
}

#[tokio::test]
async fn a_clock_that_was_ahead_once_puts_no_move_off() {
    let state = tempfile::tempdir().unwrap();
    let office = Office::open(state.path(), good);
    let (first, second) = (stored(&office).await, stored(&office).await);
    let now = office.clock.now();
    office.clock.set_wall(Timestamp::from_unix_millis(now.unix_millis() + 365 * 24 * 3_600_000));
    office.calls.delete(&Scope::All, first).await.unwrap();
    office.calls.erase_for_good(&Scope::All, first).await.unwrap();
    office.clock.set_wall(now);
    office.calls.delete(&Scope::All, second).await.unwrap();
    until(|| epoch(&office) == 3).await;
    office.close();
}

#[tokio::test]
async fn a_move_is_made_on_a_full_disk_too() {
    let disk = SmallDisk::mount(16);
    let office = Office::open(disk.path(), good);
    let (kept, erased) = (stored(&office).await, stored(&office).await);
    office.calls.delete(&Scope::All, erased).await.unwrap();
    // Not a page is left, on the disk or in the store's file.
    disk.fill(0);
    let index = index();
    let fill = |size: usize, number: u64| {
        let slot = Slot::queue(1_000_000 * u64::try_from(size).unwrap() + number);
        let sealed = index.envelope().seal_value(&slot, &vec![7_u8; size]).unwrap();
        office.store.commit(Batch::new().put(slot, sealed))
    };
    for size in [3000, 1] {
        let full = (0..10_000).find_map(|number| fill(size, number).err());
        assert!(matches!(full, Some(StoreError::Full)), "{size}: {full:?}");
    }

    office.calls.erase_for_good(&Scope::All, erased).await.unwrap();

    assert!(certified(&office, erased).await);
    disk.relieve();
    assert!(opens(&office, kept).await);
    office.close();
}

#[tokio::test]
async fn an_erasure_that_is_not_certified_holds_up_no_other_and_comes_with_a_later_move() {
    let state = tempfile::tempdir().unwrap();
    let office = Office::open(state.path(), good);
    let (first, suspect, third) = (stored(&office).await, stored(&office).await, stored(&office).await);
    for call in [first, suspect, third] {
        office.calls.delete(&Scope::All, call).await.unwrap();
    }
    *office.keeper.suspect.lock().unwrap() = Some(suspect);
    let commits = office.store.commits();
    office.calls.erase_for_good(&Scope::All, third).await.unwrap();
    assert_eq!(office.store.commits() - commits, 3, "what was under way, the move, and all certificates");
    assert!(certified(&office, first).await && certified(&office, third).await && !certified(&office, suspect).await);
    *office.keeper.suspect.lock().unwrap() = None;
    office.calls.erase_for_good(&Scope::All, suspect).await.unwrap();
    assert!(certified(&office, suspect).await);
    assert_eq!(epoch(&office), 3, "with the next move");
    office.close();
}

#[tokio::test]
async fn a_move_that_the_keeper_did_not_finish_is_finished_by_the_next_try() {
    let state = tempfile::tempdir().unwrap();
    let office = Office::open(state.path(), good);
    let (kept, erased) = (stored(&office).await, stored(&office).await);
    let upload = under_way(&office).await;
    office.calls.delete(&Scope::All, erased).await.unwrap();
    office.keeper.ends_badly.store(true, Ordering::SeqCst);
    assert!(office.calls.erase_for_good(&Scope::All, erased).await.is_err());
    assert!(!certified(&office, erased).await);
    let new = finished(&office, upload).await;
    office.calls.erase_for_good(&Scope::All, erased).await.unwrap();
    assert!(certified(&office, erased).await && opens(&office, kept).await && opens(&office, new).await);
    assert_eq!(epoch(&office), 2);
    office.close();
}
fn taken_up(state: &Path, counted: u64) -> Result<TakenUp, TakeUpError> {
    let leave = if counted == 6 { Leave::First } else { Leave::None };
    let counter = Counter { value: Some(counted), leave, keys: 1, epochs: [None; 2] };
    OpenStore::open(state, 0, &index()).unwrap().take_up(
        &index(),
        counter,
        |_| (),
        |from| Ok::<_, Infallible>(Counted { at: from + 1, keys: 1 }),
    )
}

#[tokio::test]
async fn a_move_that_was_not_counted_is_counted_later_without_another_erasure() {
    let state = tempfile::tempdir().unwrap();
    assert_eq!(taken_up(state.path(), 6).unwrap(), TakenUp::Newest);
    let office = Office::open(state.path(), good);
    office.keeper.counter.store(7, Ordering::SeqCst);
    let call = stored(&office).await;
    *office.keeper.count_fails.lock().unwrap() = Some(false);
    office.calls.delete(&Scope::All, call).await.unwrap();
    office.calls.erase_for_good(&Scope::All, call).await.unwrap();
    assert_eq!(office.keeper.counter.load(Ordering::SeqCst), 7);
    office.clock.advance(Duration::from_secs(900));
    office.calls.delete(&Scope::All, stored(&office).await).await.unwrap();
    until(|| office.keeper.counter.load(Ordering::SeqCst) == 8).await;
    office.close();
}

#[tokio::test]
async fn a_copy_of_before_a_move_is_older_from_then_on_however_counting_failed() {
    for fails in [None, Some(false), Some(true)] {
        let state = tempfile::tempdir().unwrap();
        let file = state.path().join("store.redb");
        assert_eq!(taken_up(state.path(), 6).unwrap(), TakenUp::Newest);
        let office = Office::open(state.path(), good);
        office.keeper.counter.store(7, Ordering::SeqCst);
        let [kept, first, second] = [stored(&office).await, stored(&office).await, stored(&office).await];
        let before = fs::read(&file).unwrap();

        *office.keeper.count_fails.lock().unwrap() = fails;
        office.calls.delete(&Scope::All, first).await.unwrap();
        office.calls.erase_for_good(&Scope::All, first).await.unwrap();
        assert!(certified(&office, first).await, "{fails:?}");
        // Whatever became of it, the next move makes up for it.
        office.calls.delete(&Scope::All, second).await.unwrap();
        office.calls.erase_for_good(&Scope::All, second).await.unwrap();
        let counted = u64::try_from(office.keeper.counter.load(Ordering::SeqCst)).unwrap();
        assert_eq!(counted, if fails.is_none() { 9 } else { 8 });
        assert!(office.calls.export(&Scope::All, kept).await.is_ok());
        office.close();

        let newest = fs::read(&file).unwrap();
        fs::write(&file, before).unwrap();
        assert!(matches!(taken_up(state.path(), counted), Err(TakeUpError::Older { said: 7, .. })), "{fails:?}");
        fs::write(&file, newest).unwrap();
        assert_eq!(taken_up(state.path(), counted).unwrap(), TakenUp::Newest);
    }
}
