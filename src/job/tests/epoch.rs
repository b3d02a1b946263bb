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

use super::support::{Office, good, index, metadata, until};
use crate::base::ids::CallId;
use crate::ipc::keeper::Counter;
use crate::job::calls::Arrival;
use crate::job::spec::Scope;
use crate::record::rollback::{TakeUpError, TakenUp};
use crate::record::schema::{Slot, Table};
use crate::record::store::OpenStore;

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
    let mut upload = office.calls.admit(super::support::OWNER, metadata(), None).await.unwrap();
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
        assert!(certified(&office, erased).await);
    }
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
    office.calls.delete(&Scope::All, second).await.unwrap();
    until(|| office.keeper.epoch.load(Ordering::SeqCst) == 2).await;
    while !(certified(&office, first).await && certified(&office, second).await) {
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
    assert!(office.calls.erasure(&Scope::OwnedBy(super::support::OWNER.to_owned()), call).await.is_ok());
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

fn taken_up(state: &Path, counted: u64) -> Result<TakenUp, TakeUpError> {
    let counter = Counter { value: Some(counted), leave: false };
    OpenStore::open(state, 0, &index()).unwrap().take_up(&index(), counter, |_| (), |from| Ok::<_, Infallible>(from + 1))
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
