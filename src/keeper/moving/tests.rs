//! Moves of the erasure epoch, from begun to settled.
//! Trusts: nothing.
//! Touches: memory.
//! Next: nobody.

use super::memory::{deks, deks_cut_off};
use super::*;
use crate::ipc::keeper::ErasedClass;

const NOW: Timestamp = Timestamp::from_unix_millis(1_700_000_000_000);
const CALL: CallId = CallId::from_bytes([1; 16]);
const OTHER: CallId = CallId::from_bytes([2; 16]);
const NEW: CallId = CallId::from_bytes([3; 16]);

fn asked(deks: &mut Deks, request: EpochRequest) -> Result<EpochReply, KeeperDenial> {
    deks.epoch(request, NOW).1
}

fn rewrapped(deks: &mut Deks, call: CallId, wrapped: &WrappedDek) -> Option<WrappedDek> {
    match asked(deks, EpochRequest::Rewrap(vec![(call, wrapped.clone())])) {
        Ok(EpochReply::Rewrapped(mut all)) => all.remove(0),
        _ => panic!("not re-wrapped"),
    }
}

#[test]
fn what_was_rewrapped_opens_before_and_after_the_move_and_what_was_not_never_again() {
    let mut deks = deks();
    let (kept, erased) = (deks.new_dek(CALL).unwrap(), deks.new_dek(OTHER).unwrap());
    assert!(matches!(asked(&mut deks, EpochRequest::Settle { store: Some(1) }), Ok(EpochReply::At { number: 1 })));
    assert!(matches!(asked(&mut deks, EpochRequest::Begin), Ok(EpochReply::At { number: 2 })));
    let new = rewrapped(&mut deks, CALL, &kept.1).unwrap();
    assert!(rewrapped(&mut deks, OTHER, &kept.1).is_none(), "another call's");
    assert!(rewrapped(&mut deks, CALL, &new).as_ref() == Some(&new), "again");
    for wrapped in [&kept.1, &new] {
        assert_eq!(deks.open_dek(CALL, wrapped).unwrap().expose(), kept.0.expose());
    }
    assert_eq!(
        asked(&mut deks, EpochRequest::Settle { store: Some(2) }).err(),
        Some(KeeperDenial::EpochOutOfOrder),
        "settling commits nothing"
    );
    let (said, done) = deks.epoch(EpochRequest::Committed { number: 2 }, NOW);
    assert!(matches!(done, Ok(EpochReply::Done)));
    assert_eq!((said.calls, said.of), (2, Some(3)));
    assert_eq!(deks.open_dek(CALL, &new).unwrap().expose(), kept.0.expose());
    assert!(deks.open_dek(CALL, &kept.1).is_err());
    assert!(deks.open_dek(OTHER, &erased.1).is_err());
    assert_eq!(asked(&mut deks, EpochRequest::Settle { store: Some(1) }).err(), Some(KeeperDenial::EpochOutOfOrder));
    assert!(deks.open_dek(OTHER, &erased.1).is_err(), "a core that lies gets nothing");
}

#[test]
fn until_it_is_settled_what_any_epoch_wrapped_is_opened_and_nothing_is_made() {
    let [mut old, mut new, mut both] = deks_cut_off();
    let (before, after) = (old.new_dek(CALL).unwrap(), new.new_dek(OTHER).unwrap());
    assert_eq!(both.open_dek(CALL, &before.1).unwrap().expose(), before.0.expose());
    assert_eq!(both.open_dek(OTHER, &after.1).unwrap().expose(), after.0.expose());
    assert!(both.open_dek(OTHER, &before.1).is_err(), "another call's");
    assert!(both.new_dek(NEW).is_err());
    assert!(matches!(asked(&mut both, EpochRequest::Settle { store: Some(1) }), Ok(EpochReply::At { number: 1 })));
    assert!(both.open_dek(CALL, &before.1).is_ok());
    assert!(both.open_dek(OTHER, &after.1).is_err(), "it does not count");
}

#[test]
fn nothing_is_rewrapped_or_committed_out_of_turn() {
    let mut deks = deks();
    let (_, wrapped) = deks.new_dek(CALL).unwrap();
    for early in [EpochRequest::Rewrap(vec![(CALL, wrapped.clone())]), EpochRequest::Committed { number: 2 }] {
        assert_eq!(asked(&mut deks, early).err(), Some(KeeperDenial::EpochOutOfOrder));
    }
    asked(&mut deks, EpochRequest::Begin).unwrap();
    let flood = vec![(CALL, wrapped.clone()); REWRAP_MAX + 1];
    assert_eq!(asked(&mut deks, EpochRequest::Rewrap(flood)).err(), Some(KeeperDenial::BadRequest));
    asked(&mut deks, EpochRequest::Abort).unwrap();
    assert_eq!(asked(&mut deks, EpochRequest::Rewrap(vec![(CALL, wrapped)])).err(), Some(KeeperDenial::EpochOutOfOrder));
}

#[test]
fn nothing_is_certified_that_could_still_be_opened() {
    let mut deks = deks();
    let claim = |call| EpochRequest::Certify(ErasureClaim { call, erased: NOW, classes: vec![ErasedClass::Recording], epoch: 1 });
    let refused = |deks: &mut Deks, call| asked(deks, claim(call)).err() == Some(KeeperDenial::EpochOutOfOrder);
    let (_, kept) = deks.new_dek(OTHER).unwrap();
    for request in [EpochRequest::Settle { store: Some(1) }, EpochRequest::Begin] {
        asked(&mut deks, request).unwrap();
        assert!(refused(&mut deks, CALL));
    }
    rewrapped(&mut deks, OTHER, &kept).unwrap();
    asked(&mut deks, EpochRequest::Committed { number: 2 }).unwrap();
    deks.new_dek(NEW).unwrap();
    assert!(refused(&mut deks, OTHER), "its key was wrapped anew");
    assert!(refused(&mut deks, NEW), "it came later");
    assert!(matches!(asked(&mut deks, claim(CALL)), Ok(EpochReply::Certificate(_))));
    // A core that says so does not make a move of it.
    asked(&mut deks, EpochRequest::Begin).unwrap();
    assert_eq!(asked(&mut deks, EpochRequest::Settle { store: Some(3) }).err(), Some(KeeperDenial::EpochOutOfOrder));
}
