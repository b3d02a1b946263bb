//! What a move of the erasure epoch must not do: lose a key, bring one back, come too early.
//! Trusts: nothing.
//! Touches: temporary directories.
//! Next: `tests/epoch` has the real keeper on a TPM.

use std::time::Duration;

use bytes::Bytes;

use super::support::{Office, good, metadata, until};
use crate::base::ids::CallId;
use crate::job::calls::Arrival;
use crate::job::spec::Scope;
use crate::record::schema::{Slot, Table};

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
    assert_eq!(office.keeper.epoch.load(std::sync::atomic::Ordering::SeqCst), 1);
    office.clock.advance(Duration::from_secs(1));
    office.calls.delete(&Scope::All, second).await.unwrap();
    until(|| office.keeper.epoch.load(std::sync::atomic::Ordering::SeqCst) == 2).await;
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
