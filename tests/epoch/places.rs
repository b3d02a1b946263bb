//! Boxes whose TPM has no places for the erasure epoch: of before there were any, with places that somebody removed, back on another machine.

use std::fs;

use salama::base::ids::CallId;
use salama::ipc::keeper::{Counter, EpochReply, EpochRequest, Leave, UnwrapPurpose, WrappedDek};
use salama::ipc::keyslots::{Conditions, NewSlot, Task};

use crate::box_with_keys::Bench;
use crate::keeper::container;
use crate::keeper::hierarchy::Root;
use crate::keeper::keyslots::{EpochPlaces, Keyslots};
use crate::keeper::slots;
use crate::key_console::Operator;
use crate::swtpm::Swtpm;
use crate::{address, first_slot};

const KEPT: CallId = CallId::from_bytes([1; 16]);
const COUNTER: &str = "0x1815a90";

const fn reseal(new_tpm: bool, with: Option<u32>) -> Task {
    Task::Reseal { slot: Some(1), conditions: Conditions { pcrs: None, pin: None, authority: None, new_tpm }, with }
}

fn keyslots(bench: &Bench) -> Keyslots {
    Keyslots::read(&fs::read(bench.keys().join("keyslots")).unwrap()).unwrap().before_authentication().clone()
}

fn places(bench: &Bench) -> EpochPlaces {
    keyslots(bench).epoch.unwrap()
}

fn add_code(bench: &Bench) -> String {
    let mut operator = Operator::default();
    operator.asks(bench, Task::Add { new: NewSlot::Recovery, with: None }).done();
    operator.sheets.remove(0)
}

fn remove(bench: &Bench, index: u32) {
    bench.tpm.tool("tpm2_nvundefine", &["-C", "o", &format!("0x{index:x}")]);
}

/// A call of the epoch that counts, one after the first.
fn moved_box() -> (Bench, String, [u8; 32], WrappedDek) {
    let bench = Bench::provisioned();
    let code = add_code(&bench);
    let (keeper, _, process) = bench.serve(&[]);
    keeper.epoch(EpochRequest::Settle { store: None }).unwrap();
    keeper.epoch(EpochRequest::Begin).unwrap();
    keeper.epoch(EpochRequest::Committed { number: 2 }).unwrap();
    let (dek, wrapped) = keeper.new_dek(KEPT).unwrap();
    drop((keeper, process));
    (bench, code, *dek.expose(), wrapped)
}

fn opens(bench: &Bench, wrapped: &WrappedDek) -> [u8; 32] {
    let (keeper, _, _process) = bench.serve(&[]);
    assert!(matches!(keeper.epoch(EpochRequest::Settle { store: Some(2) }), Ok(EpochReply::At { number: 2 })));
    *keeper.unwrap_dek(KEPT, wrapped, UnwrapPurpose::Read).unwrap().expose()
}

fn is_told(told: (String, impl Into<i32>)) {
    assert!(told.0.contains("the erasure epoch is not in this TPM's NV memory"), "{}", told.0);
}

#[test]
fn a_box_of_before_there_were_epochs_opens_and_has_places_from_then_on() {
    let bench = Bench::provisioned();
    let root = Root::new(&slots::open_tpm(&first_slot(&bench), address(&bench.tpm), None).unwrap());
    let Keyslots { generation, next, lockout, leftovers, slots, epoch } = keyslots(&bench);
    let first = epoch.unwrap().first;
    let body = (generation, next, lockout, leftovers, slots);
    let file = container::write(container::KEYSLOTS_1, &body, &slots::file_mac(&root).unwrap()).unwrap();
    fs::write(bench.keys().join("keyslots"), file).unwrap();
    [first, first + 1].into_iter().for_each(|index| remove(&bench, index));
    bench.tpm.tool("tpm2_nvundefine", &["-C", "o", COUNTER]);

    // A code is made before the first start, as well as after it.
    let code = add_code(&bench);
    let (keeper, greeting, process) = bench.serve(&[]);
    assert_eq!(greeting.counter, Counter::default());
    assert!(matches!(keeper.epoch(EpochRequest::Settle { store: Some(0) }), Ok(EpochReply::At { number: 0 })));
    let (dek, wrapped) = keeper.new_dek(KEPT).unwrap();
    drop((keeper, process));
    assert_eq!(places(&bench).first, first);
    add_code(&bench);

    Operator::who_answers(&[&code]).asks(&bench, Task::AcceptRollback { with: Some(2) }).done();
    let (keeper, greeting, _process) = bench.serve(&[]);
    assert!(greeting.counter.value.is_some() && greeting.counter.leave == Leave::Accepted);
    assert!(matches!(keeper.epoch(EpochRequest::Settle { store: Some(0) }), Ok(EpochReply::At { number: 0 })));
    assert_eq!(keeper.unwrap_dek(KEPT, &wrapped, UnwrapPurpose::Read).unwrap().expose(), dek.expose());
}

#[test]
fn places_that_somebody_removed_are_made_again_by_the_code_and_by_nothing_else() {
    let (bench, code, dek, wrapped) = moved_box();
    for gone in [&[0, 1][..], &[0], &[1]] {
        let first = places(&bench).first;
        for place in gone {
            remove(&bench, first + place);
        }
        is_told(bench.refusal(&bench.tpm.tcti()));
        for task in [reseal(false, None), Task::Rotate { slot: None, with: None }, Task::Add { new: NewSlot::Recovery, with: None }] {
            is_told(Operator::default().asks(&bench, task).refused());
        }
        Operator::who_answers(&[&code]).asks(&bench, reseal(false, Some(2))).done();
        assert_eq!(opens(&bench, &wrapped), dek, "{gone:?}");
        assert!(keyslots(&bench).leftovers.is_empty());
    }
}

#[test]
fn a_box_that_is_back_on_its_first_machine_gets_its_epoch_from_the_code() {
    let (mut bench, code, dek, wrapped) = moved_box();
    // The old slot stays: the board is only away for repair.
    let second = Swtpm::start();
    let first = std::mem::replace(&mut bench.tpm, second);
    let new = Task::Add { new: NewSlot::Tpm(Conditions { new_tpm: true, ..Conditions::default() }), with: Some(2) };
    Operator::who_answers(&[&code]).asks(&bench, new).done();
    assert_eq!(opens(&bench, &wrapped), dek);
    let before = places(&bench);

    bench.tpm = first;
    is_told(bench.refusal(&bench.tpm.tcti()));
    for task in [reseal(false, None), Task::Rotate { slot: None, with: None }, Task::Add { new: NewSlot::Recovery, with: None }] {
        is_told(Operator::default().asks(&bench, task).refused());
    }
    assert_eq!(places(&bench), before, "nothing was written without the epoch in hand");
    Operator::who_answers(&[&code]).asks(&bench, reseal(false, Some(2))).done();
    // The store was served on the other machine since: this one's counter knows nothing of that.
    assert_eq!(bench.serve(&[]).1.counter.leave, Leave::Moved);
    assert_eq!(opens(&bench, &wrapped), dek);
    // And the paper still has it.
    bench.tpm = Swtpm::start();
    Operator::who_answers(&[&code]).asks(&bench, reseal(true, Some(2))).done();
    assert_eq!(opens(&bench, &wrapped), dek);
}
