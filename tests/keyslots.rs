//! Every way to the root key, on a real (software) TPM: made, opened, changed, interrupted, attacked.

#![allow(
    clippy::as_conversions,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test says what it expects, loudly"
)]
#![cfg(test)]

#[path = "support/box_with_keys.rs"]
#[allow(dead_code, reason = "each test program uses its own part")]
mod box_with_keys;
#[path = "support/faulty_tpm.rs"]
mod faulty_tpm;
#[path = "../src/keeper/mod.rs"]
#[allow(dead_code, reason = "a part of the program `salama-keeper`")]
mod keeper;
#[path = "support/key_console.rs"]
mod key_console;
#[path = "support/swtpm.rs"]
mod swtpm;
#[path = "support/wiretap.rs"]
#[allow(dead_code, reason = "each test program uses its own part")]
mod wiretap;

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::fs;
use std::process::Command;
use std::rc::Rc;
use std::thread;
use std::time::{Duration, Instant};

use box_with_keys::{Bench, holds};
use faulty_tpm::FaultyTpm;
use keeper::hierarchy::Root;
use keeper::keyslots::{Keyslots, Kind, TpmSlot};
use keeper::slots;
use keeper::tpm::{Address, Tpm};
use keeper::unfinished::{self, Note};
use key_console::{End, Operator};
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, Uid, chown};
use salama::base::secret::{Secret, SecretText};
use salama::ipc::keeper::Leave;
use salama::ipc::key_log::{LogFault, Report, Verifier};
use salama::ipc::keyslots::{ApprovalFile, AuthorityFile, Conditions, KeysReport, NewSlot, Task};
use salama::{base, ipc, sandbox};
use swtpm::Swtpm;
use wiretap::Wiretap;

const PIN: &str = "a long enough PIN";

fn address(tcti: String) -> Address<'static> {
    Address { tcti: tcti.leak(), owner: None }
}

fn keyslots(bench: &Bench) -> Keyslots {
    let file = fs::read(bench.keys().join("keyslots")).unwrap();
    Keyslots::read(&file).unwrap().before_authentication().clone()
}

fn tpm_slot(bench: &Bench, at: usize) -> TpmSlot {
    match keyslots(bench).slots[at].kind.clone() {
        Kind::Tpm(slot) => slot,
        other => panic!("not of the TPM: {other:?}"),
    }
}

fn add_code(bench: &Bench) -> String {
    let mut operator = Operator::default();
    operator.asks(bench, Task::Add { new: NewSlot::Recovery, with: None }).done();
    operator.sheets.remove(0)
}

const SAME: Conditions = Conditions { pcrs: None, pin: None, authority: None, new_tpm: false };
const A_PIN: Conditions = Conditions { pin: Some(true), ..SAME };
const NEW_TPM: Conditions = Conditions { new_tpm: true, ..SAME };

const fn pcrs(mask: u32) -> Conditions {
    Conditions { pcrs: Some(mask), ..SAME }
}

const fn reseal(conditions: Conditions) -> Task {
    Task::Reseal { slot: None, conditions, with: None }
}

fn kinds(report: &KeysReport) -> Vec<(u32, String)> {
    report.slots.iter().map(|slot| (slot.id, slot.kind.clone())).collect()
}

/// Slots of the first 1 and one with a PIN in its place.
fn with_pin() -> (Bench, String) {
    let bench = Bench::provisioned();
    let code = add_code(&bench);
    Operator::who_answers(&[PIN, PIN]).asks(&bench, reseal(A_PIN)).done();
    (bench, code)
}

fn pin_file(bench: &Bench, pin: &str) -> String {
    let file = bench.base().join("pin");
    fs::write(&file, pin).unwrap();
    file.to_str().unwrap().to_owned()
}

/// Places with halves of slots: the counter of starts is none.
fn nv_indices(tpm: &Swtpm) -> usize {
    let listed = tpm.tool("tpm2_getcap", &["handles-nv-index"]);
    String::from_utf8(listed.stdout).unwrap().lines().filter(|line| line.contains("0x1815A0")).count()
}

fn opens(bench: &Bench, more: &[&str]) -> [u8; 32] {
    *bench.serve(more).1.index_key.expose()
}

/// The next change clears up; it opens by the first slot of the TPM and removes all others.
fn only_the_first_of_the_tpm_stays(bench: &Bench) {
    let first = keyslots(bench).slots.iter().find(|slot| matches!(slot.kind, Kind::Tpm(_))).unwrap().id;
    let report = Operator::default().asks(bench, Task::Verify { slot: first }).done();
    for slot in report.slots.iter().filter(|slot| slot.id != first) {
        Operator::default().asks(bench, Task::Remove { slot: slot.id, with: Some(first) }).done();
    }
}

fn newest(bench: &Bench) -> u32 {
    keyslots(bench).slots.iter().map(|slot| slot.id).max().unwrap()
}

// -- what there is --

#[test]
fn a_new_box_has_one_slot_and_says_that_it_needs_a_code() {
    let bench = Bench::provisioned();
    let report = Operator::default().asks(&bench, Task::List).done();
    assert_eq!(kinds(&report), [(1, "tpm".to_owned())]);
    assert_eq!(report.slots[0].needs, "this TPM");
    assert!(report.slots[0].made.is_some() && report.slots[0].opened.is_some());
    let lockout = report.lockout.unwrap();
    assert!((lockout.failed, lockout.locked, lockout.guarded) == (0, false, false));
}

// -- codes and shares --

#[test]
fn a_code_counts_once_it_was_typed_again_and_opens_in_another_machine() {
    let mut bench = Bench::provisioned();
    let before = opens(&bench, &[]);
    let code = add_code(&bench);

    // The mainboard died.
    bench.tpm = Swtpm::start();
    assert!(bench.refusal(&bench.tpm.tcti()).0.contains("not the one that the keys were sealed by"));
    let mut operator = Operator::who_answers(&[&code]);
    let report = operator.asks(&bench, reseal(NEW_TPM)).done();

    assert!(operator.problems[0].contains("not the one that the keys were sealed by"), "{:?}", operator.problems);
    assert!(report.done.contains("a TPM that this box did not know before"), "{}", report.done);
    assert_eq!(opens(&bench, &[]), before);
}

#[test]
fn a_code_that_is_not_typed_again_leaves_no_slot() {
    let bench = Bench::provisioned();
    let file = fs::read(bench.keys().join("keyslots")).unwrap();
    let mut operator = Operator { mistypes: vec!["nonsense".to_owned(); 3], ..Operator::default() };
    let (reason, exit) = operator.asks(&bench, Task::Add { new: NewSlot::Recovery, with: None }).refused();
    assert!(reason.contains("nothing was changed"), "{reason}");
    assert_eq!(exit, 65);
    assert_eq!(fs::read(bench.keys().join("keyslots")).unwrap(), file);
}

#[test]
fn a_mistyped_group_is_named_and_a_code_of_another_box_is_told_apart() {
    let (bench, other) = (Bench::provisioned(), Bench::provisioned());
    let (code, others) = (add_code(&bench), add_code(&other));
    let mut groups: Vec<String> = code.split(' ').map(str::to_owned).collect();
    let last = if groups[4].ends_with('7') { "8" } else { "7" };
    groups[4].replace_range(7.., last);
    let mistyped = groups.join(" ");
    let mut operator = Operator::who_answers(&[&mistyped, &others, &code]);
    operator.asks(&bench, Task::Verify { slot: 2 }).done();
    assert!(operator.problems[0].contains("group 5 is mistyped"), "{:?}", operator.problems);
    assert!(operator.problems[1].contains("belongs to another box"), "{:?}", operator.problems);
}

#[test]
fn any_two_of_three_shares_open_and_one_does_not() {
    let bench = Bench::provisioned();
    let mut operator = Operator::default();
    operator.asks(&bench, Task::Add { new: NewSlot::Shares { threshold: 2, count: 3 }, with: None }).done();
    let shares = operator.sheets;
    assert_eq!(shares.len(), 3);
    for (first, second) in [(0, 1), (1, 2), (2, 0)] {
        Operator::who_answers(&[&shares[first], &shares[second]]).asks(&bench, Task::Verify { slot: 2 }).done();
    }
    let mut operator = Operator::who_answers(&[&shares[0], &shares[0], &shares[0], &shares[0]]);
    let (reason, _) = operator.asks(&bench, Task::Verify { slot: 2 }).refused();
    assert!(reason.contains("share 1 was given already"), "{reason}");
}

#[test]
fn new_papers_take_the_place_of_old_ones() {
    let bench = Bench::provisioned();
    let before = opens(&bench, &[]);
    let old = add_code(&bench);
    let mut operator = Operator::default();
    operator.asks(&bench, Task::Rotate { slot: None, with: None }).done();
    let (reason, _) = Operator::who_answers(&[&old, &old, &old]).asks(&bench, Task::Verify { slot: 2 }).refused();
    assert!(reason.contains("it was replaced"), "{reason}");
    Operator::who_answers(&[&operator.sheets[0]]).asks(&bench, Task::Verify { slot: 2 }).done();
    assert_eq!(opens(&bench, &[]), before);
}

#[test]
fn a_renewal_that_stops_half_way_says_which_papers_are_dead() {
    let bench = Bench::provisioned();
    let (first, second) = (add_code(&bench), add_code(&bench));
    let typed = ["", "nonsense", "nonsense", "nonsense"].map(str::to_owned).to_vec();
    let mut operator = Operator { mistypes: typed, ..Operator::default() };
    let (reason, exit) = operator.asks(&bench, Task::Rotate { slot: None, with: None }).refused();

    assert!(reason.starts_with("slot 2 has a new secret already") && reason.contains("the answers were wrong"), "{reason}");
    assert_eq!(exit, 65);
    Operator::who_answers(&[&operator.sheets[0]]).asks(&bench, Task::Verify { slot: 2 }).done();
    Operator::who_answers(&[&second]).asks(&bench, Task::Verify { slot: 3 }).done();
    Operator::who_answers(&[&first, &first, &first]).asks(&bench, Task::Verify { slot: 2 }).refused();
}

#[test]
fn every_share_takes_part_before_the_slot_counts() {
    // Of two of five, the third is neither among the first two nor among the last two.
    let bench = Bench::provisioned();
    let mut operator = Operator::default();
    operator.asks(&bench, Task::Add { new: NewSlot::Shares { threshold: 2, count: 5 }, with: None }).done();
    let shares = operator.sheets;
    Operator::who_answers(&[&shares[2], &shares[0]]).asks(&bench, Task::Verify { slot: 2 }).done();
}

#[test]
fn a_code_opens_whichever_of_several_slots_it_is_for() {
    let bench = Bench::provisioned();
    let (_, second) = (add_code(&bench), add_code(&bench));
    let report = Operator::who_answers(&[&second]).asks(&bench, Task::Remove { slot: 1, with: None }).done();
    assert!(report.done.contains("slot 3 was opened before"), "{}", report.done);
}

// -- removing --

#[test]
fn the_last_slot_stays_and_none_goes_before_another_was_opened() {
    let bench = Bench::provisioned();
    let (reason, _) = Operator::default().asks(&bench, Task::Remove { slot: 1, with: None }).refused();
    assert!(reason.contains("this is the only slot"), "{reason}");
    let code = add_code(&bench);
    let (reason, _) = Operator::default().asks(&bench, Task::Remove { slot: 1, with: Some(1) }).refused();
    assert!(reason.contains("cannot be removed by opening it"), "{reason}");
    let (reason, _) = Operator::who_answers(&["x", "x", "x"]).asks(&bench, Task::Remove { slot: 1, with: None }).refused();
    assert!(reason.contains("nothing was changed"), "{reason}");
    assert_eq!(keyslots(&bench).slots.len(), 2);

    let report = Operator::who_answers(&[&code]).asks(&bench, Task::Remove { slot: 1, with: None }).done();

    assert_eq!(kinds(&report), [(2, "recovery".to_owned())]);
    assert!(bench.refusal(&bench.tpm.tcti()).0.contains("no keyslot is for a TPM"));
}

#[test]
fn a_removed_slot_opens_nothing_from_an_old_image_of_the_disk() {
    let bench = Bench::provisioned();
    let image = fs::read(bench.keys().join("keyslots")).unwrap();
    let code = add_code(&bench);
    Operator::who_answers(&[PIN, PIN]).asks(&bench, reseal(A_PIN)).done();
    assert_eq!(nv_indices(&bench.tpm), 1);
    let _ = code;

    // On the same machine with the same TPM: the slot of before there was a PIN.
    fs::write(bench.keys().join("keyslots"), image).unwrap();

    let (reason, _) = bench.refusal(&bench.tpm.tcti());
    assert!(reason.contains("half of this slot in the TPM's NV memory is gone"), "{reason}");
}

// -- PIN --

#[test]
fn a_pin_is_needed_at_each_start_and_a_wrong_one_is_counted() {
    let (bench, _) = with_pin();
    let (reason, exit) = bench.refusal(&bench.tpm.tcti());
    assert!(reason.contains("wants a PIN"), "{reason}");
    assert_eq!(exit, 78);
    let right = pin_file(&bench, PIN);
    bench.serve(&["--pin", &right]);
    let wrong = pin_file(&bench, "not this one");
    let (reason, exit) = bench.refusal_with(&bench.tpm.tcti(), &["--pin", &wrong]);
    assert!(reason.contains("the PIN is wrong"), "{reason}");
    assert_eq!(exit, 78);
    let lockout = Operator::default().asks(&bench, Task::List).done().lockout.unwrap();
    assert_eq!((lockout.failed, lockout.tries, lockout.forgiven_after, lockout.guarded), (1, 10, 600, true));
}

#[test]
fn with_several_pins_a_start_uses_up_one_try() {
    let (bench, code) = with_pin();
    let second = Task::Add { new: NewSlot::Tpm(A_PIN), with: Some(2) };
    let mut operator = Operator::who_answers(&[&code, "another PIN", "another PIN"]);
    operator.asks(&bench, second).done();
    let wrong = pin_file(&bench, "not this one");
    assert!(bench.refusal_with(&bench.tpm.tcti(), &["--pin", &wrong]).0.contains("the PIN is wrong"));
    assert_eq!(Operator::default().asks(&bench, Task::List).done().lockout.unwrap().failed, 1);
}

#[test]
fn a_condition_that_is_not_named_stays() {
    let (bench, code) = with_pin();
    let needs = |task: Task, answers: &[&str]| {
        let answers: Vec<&str> = [&[&*code], answers].concat();
        Operator::who_answers(&answers).asks(&bench, task).done().slots[0].needs.clone()
    };
    let by_code = |conditions| Task::Reseal { slot: Some(1), conditions, with: Some(2) };
    assert_eq!(needs(by_code(pcrs(1 << 7)), &[PIN, PIN]), "this TPM, PCR 7 as sealed, a PIN");
    assert_eq!(needs(by_code(Conditions { pin: Some(false), ..SAME }), &[]), "this TPM, PCR 7 as sealed");
    assert_eq!(needs(by_code(A_PIN), &[PIN, PIN]), "this TPM, PCR 7 as sealed, a PIN");
    assert_eq!(needs(by_code(pcrs(0)), &[PIN, PIN]), "this TPM, a PIN");
}

#[test]
fn ten_wrong_pins_lock_the_slot_and_the_code_unlocks_it() {
    let (bench, code) = with_pin();
    let wrong = pin_file(&bench, "not this one");
    let mut said = Vec::new();
    for _ in 0..11 {
        said.push(bench.refusal_with(&bench.tpm.tcti(), &["--pin", &wrong]).0);
    }
    assert!(said[..10].iter().all(|said| said.contains("the PIN is wrong")), "{said:?}");
    assert!(said[10].contains("locked after too many wrong PINs"), "{}", said[10]);
    let right = pin_file(&bench, PIN);
    assert!(bench.refusal_with(&bench.tpm.tcti(), &["--pin", &right]).0.contains("takes the right one neither"));
    assert!(Operator::default().asks(&bench, Task::List).done().lockout.unwrap().locked);

    Operator::who_answers(&[&code]).asks(&bench, Task::Unlock { with: None }).done();

    bench.serve(&["--pin", &right]);
}

#[test]
fn a_thief_cannot_set_the_count_of_wrong_pins_back() {
    let (bench, _) = with_pin();
    let reset = |arguments: &[&str]| {
        let tool = Command::new("tpm2_dictionarylockout").args(arguments).env("TPM2TOOLS_TCTI", bench.tpm.tcti()).output();
        tool.expect("tpm2-tools: apt-get install tpm2-tools").status.success()
    };
    let public = String::from_utf8(bench.tpm.tool("tpm2_getcap", &["properties-variable"]).stdout).unwrap();
    assert!(public.contains("lockoutAuthSet:            1"), "{public}");
    assert!(!reset(&["--clear-lockout"]));
    assert!(!reset(&["--setup-parameters", "--max-tries", "1000"]));
}

#[test]
fn a_lockout_password_of_somebody_else_is_told_before_anything_is_changed() {
    let bench = Bench::provisioned();
    add_code(&bench);
    bench.tpm.tool("tpm2_changeauth", &["-c", "lockout", "somebody"]);
    let before = keyslots(&bench);
    let (reason, _) = Operator::who_answers(&[PIN, PIN]).asks(&bench, reseal(A_PIN)).refused();
    assert!(reason.contains("lockout hierarchy has a password that Salama did not set"), "{reason}");
    assert_eq!(keyslots(&bench), before);
}

#[test]
fn a_pin_is_changed_and_too_short_ones_are_not_taken() {
    let (bench, _) = with_pin();
    let mut operator = Operator::who_answers(&[PIN, "short", "another PIN", "another PIM", "another PIN", "another PIN"]);
    operator.asks(&bench, Task::Rotate { slot: Some(1), with: None }).done();
    assert!(operator.problems[0].contains("at least 6"), "{:?}", operator.problems);
    assert!(operator.problems[1].contains("not the same"), "{:?}", operator.problems);
    bench.serve(&["--pin", &pin_file(&bench, "another PIN")]);
    assert!(bench.refusal_with(&bench.tpm.tcti(), &["--pin", &pin_file(&bench, PIN)]).0.contains("the PIN is wrong"));
}

// -- measured states --

#[test]
fn a_slot_bound_to_pcrs_opens_only_in_that_state_and_is_sealed_again_by_the_code() {
    let bench = Bench::provisioned();
    let code = add_code(&bench);
    let before = opens(&bench, &[]);
    Operator::default().asks(&bench, reseal(pcrs(1 << 7 | 1 << 11))).done();
    assert_eq!(opens(&bench, &[]), before);
    bench.tpm.tool("tpm2_pcrextend", &[&format!("11:sha256={}", "ab".repeat(32))]);
    let (reason, _) = bench.refusal(&bench.tpm.tcti());
    assert!(reason.contains("PCR 7+11") && reason.contains("salama keys reseal"), "{reason}");

    Operator::who_answers(&[&code]).asks(&bench, reseal(SAME)).done();

    assert_eq!(opens(&bench, &[]), before);
}

#[test]
fn an_update_is_approved_beforehand_by_a_signature() {
    let bench = Bench::provisioned();
    add_code(&bench);
    let event = "cd".repeat(32);
    let (now, point) = approval(&bench, Vec::new());
    let authority = AuthorityFile { point, approval: now.clone() };
    let conditions = Conditions { pcrs: Some(1 << 11), authority: Some(Some(authority)), ..SAME };
    Operator::default().asks(&bench, reseal(conditions)).done();
    let before = opens(&bench, &[]);
    // What the update will measure.
    let zero_extended = ring::digest::digest(&ring::digest::SHA256, &[[0; 32], [0xcd; 32]].concat());
    let (update, _) = approval(&bench, vec![(11, zero_extended.as_ref().try_into().unwrap())]);
    let mut forged = update.clone();
    forged.text[0] ^= 1;
    let approve = |approval| Task::Approve { slot: None, approval, with: None };
    assert!(Operator::default().asks(&bench, approve(forged)).refused().0.contains("not signed by its authority"));
    let of_others = approval_of(&bench, 1 << 7 | 1 << 11, Vec::new()).0;
    assert!(Operator::default().asks(&bench, approve(of_others)).refused().0.contains("not of the slot's PCRs"));
    Operator::default().asks(&bench, approve(update)).done();

    bench.tpm.tool("tpm2_pcrextend", &[&format!("11:sha256={event}")]);

    assert_eq!(opens(&bench, &[]), before);
    bench.tpm.tool("tpm2_pcrextend", &[&format!("11:sha256={event}")]);
    assert!(bench.refusal(&bench.tpm.tcti()).0.contains("in none of the states that the slot's authority has approved"));
}

/// The authority's approval of PCR 11 with these values, by openssl; and the point of its key.
fn approval(bench: &Bench, values: Vec<(u8, [u8; 32])>) -> (ApprovalFile, Vec<u8>) {
    approval_of(bench, 1 << 11, values)
}

fn approval_of(bench: &Bench, pcrs: u32, values: Vec<(u8, [u8; 32])>) -> (ApprovalFile, Vec<u8>) {
    let text = Operator::default().asks(bench, Task::Policy { pcrs, values }).done().policy.unwrap();
    fs::write(bench.base().join("text"), &text).unwrap();
    let openssl = |arguments: &[&str]| {
        let ran = Command::new("openssl").args(arguments).current_dir(bench.base()).output().expect("apt-get install openssl");
        assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
        ran.stdout
    };
    if !bench.base().join("key.pem").exists() {
        openssl(&["ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", "key.pem"]);
    }
    let der = openssl(&["dgst", "-sha256", "-sign", "key.pem", "text"]);
    let mut numbers = Vec::new();
    let mut at = 2;
    for _ in 0..2 {
        let length = usize::from(der[at + 1]);
        let number = &der[at + 2..at + 2 + length];
        let number = number.strip_prefix(&[0]).unwrap_or(number);
        numbers.extend([vec![0; 32 - number.len()], number.to_vec()].concat());
        at += 2 + length;
    }
    let public = openssl(&["pkey", "-in", "key.pem", "-pubout", "-outform", "DER"]);
    (ApprovalFile { text, signature: numbers }, public[public.len() - 64..].to_vec())
}

// -- the witness --

#[test]
fn tpm2_tools_see_the_attributes_and_the_policy_that_are_meant() {
    let (bench, _) = with_pin();
    Operator::who_answers(&[PIN, PIN, PIN]).asks(&bench, reseal(pcrs(1 << 7 | 1 << 11))).done();
    let slot = tpm_slot(&bench, 0);
    let folder = bench.tpm.directory();
    let length = u16::try_from(slot.sealed.public.len()).unwrap().to_be_bytes();
    fs::write(folder.join("public"), [&length[..], &slot.sealed.public].concat()).unwrap();
    let said = |name: &str, arguments: &[&str]| String::from_utf8(bench.tpm.tool(name, arguments).stdout).unwrap();

    let printed = said("tpm2_print", &["-t", "TPM2B_PUBLIC", "public"]);

    assert!(printed.contains("value: fixedtpm|fixedparent\n"), "{printed}");
    said("tpm2_startauthsession", &["-S", "trial"]);
    said("tpm2_policypcr", &["-Q", "-S", "trial", "-l", "sha256:7,11"]);
    said("tpm2_policyauthvalue", &["-S", "trial"]);
    said("tpm2_policycommandcode", &["-S", "trial", "-L", "policy", "TPM2_CC_Unseal"]);
    said("tpm2_flushcontext", &["trial"]);
    let policy: String = fs::read(folder.join("policy")).unwrap().iter().map(|byte| format!("{byte:02x}")).collect();
    assert!(printed.contains(&format!("authorization policy: {policy}")), "{printed}\n{policy}");

    let half = slot.half;
    let public = said("tpm2_nvreadpublic", &[&format!("0x{half:08x}")]);
    assert!(public.contains("friendly: authwrite|authread|no_da|written"), "{public}");
    assert!(public.contains("size: 32"), "{public}");
    let properties = said("tpm2_getcap", &["properties-variable"]);
    assert!(properties.contains("lockoutAuthSet:            1"), "{properties}");
    assert!(properties.contains("TPM2_PT_MAX_AUTH_FAIL: 0xA"), "{properties}");
}

#[test]
fn a_machines_own_persistent_storage_root_is_used() {
    let tpm = Swtpm::start();
    let attributes = "fixedtpm|fixedparent|sensitivedataorigin|userwithauth|noda|decrypt|restricted";
    tpm.tool("tpm2_createprimary", &["-Q", "-C", "o", "-g", "sha256", "-G", "ecc256:aes128cfb", "-a", attributes, "-c", "root"]);
    tpm.tool("tpm2_evictcontrol", &["-Q", "-c", "root", "0x81000001"]);
    tpm.tool("tpm2_flushcontext", &["-t"]);
    let bench = Bench::provisioned_on(tpm);
    assert_eq!(tpm_slot(&bench, 0).storage_root.handle, 0x8100_0001);
    let before = opens(&bench, &[]);
    bench.tpm.tool("tpm2_evictcontrol", &["-Q", "-c", "0x81000001"]);
    assert_eq!(opens(&bench, &[]), before, "the template makes the same key");
}

// -- the bus --

#[test]
fn neither_root_key_slot_key_half_nor_pin_is_on_the_bus() {
    let bench = Bench::provisioned();
    let code = add_code(&bench);
    let tap = Wiretap::before(&bench.tpm);
    let mut operator = Operator { tcti: Some(tap.tcti()), ..Operator::who_answers(&[PIN, PIN]) };
    operator.asks(&bench, reseal(Conditions { pcrs: Some(1 << 7), ..A_PIN })).done();
    let right = pin_file(&bench, PIN);
    let (channel, _process) = bench.start("serve", &tap.tcti(), &["--pin", &right]);
    let (keeper, _) = salama::keys::Keeper::connect(channel).unwrap();
    let (dek, _) = keeper.new_dek(base::ids::CallId::from_bytes([1; 16])).unwrap();
    let wrong = pin_file(&bench, "not this one");
    bench.refusal_with(&tap.tcti(), &["--pin", &wrong]);
    Operator { tcti: Some(tap.tcti()), ..Operator::who_answers(&[&code]) }.asks(&bench, Task::Unlock { with: None }).done();

    let heard = tap.heard();

    let slot = tpm_slot(&bench, 0);
    let root = slots::open_tpm(&slot, address(bench.tpm.tcti()), Some(&SecretText::new(PIN.to_owned()))).unwrap();
    let password = Root::new(&root).derive(keeper::hierarchy::Purpose::TpmLockout).unwrap();
    let (half, wrapped) = (slot.half, &slot.wrapped);
    for secret in [root.expose().as_slice(), dek.expose(), PIN.as_bytes(), &pin_value(&slot), password.expose()] {
        assert!(!holds(&heard, secret));
    }
    for part in slot_secrets(&bench, &slot, half) {
        assert!(!holds(&heard, part.expose()));
    }
    // The controls: what crosses in clear is heard.
    assert!(holds(&heard, &slot.sealed.public) && holds(&heard, &half.to_be_bytes()));
    assert!(!holds(&heard, wrapped), "it stays on the disk");
}

fn pin_value(slot: &TpmSlot) -> [u8; 32] {
    let (salt, mut value) = (slot.pin.unwrap(), [0; 32]);
    let rounds = salt.rounds.try_into().unwrap();
    ring::pbkdf2::derive(ring::pbkdf2::PBKDF2_HMAC_SHA256, rounds, &salt.salt, PIN.as_bytes(), &mut value);
    value
}

/// The slot key, the password of the half, the half.
fn slot_secrets(bench: &Bench, slot: &TpmSlot, half: u32) -> [Secret<32>; 3] {
    let value = Secret::try_fill(|to| {
        *to = pin_value(slot);
        Ok::<(), ()>(())
    });
    let mut tpm = Tpm::connect(address(bench.tpm.tcti()), Some(&slot.storage_root)).unwrap();
    let unsealed = tpm.unseal(&slot.policy, Some(&value.unwrap()), &slot.sealed).unwrap();
    let copy = Secret::try_fill(|to| {
        *to = *unsealed.expose();
        Ok::<(), ()>(())
    });
    let password = keeper::hierarchy::SlotKey::new(unsealed).half_password().unwrap();
    let half = tpm.read_half(half, &password).unwrap();
    [copy.unwrap(), password, half]
}

#[test]
fn a_storage_root_of_somebody_in_between_gets_nothing() {
    let (bench, other) = (Bench::provisioned(), Swtpm::start());
    let code = add_code(&bench);
    let tap = Wiretap::before(&other);
    assert!(bench.refusal(&tap.tcti()).0.contains("not the one that the keys were sealed by"));
    for task in [reseal(SAME), Task::Rotate { slot: Some(1), with: Some(2) }, Task::Add { new: NewSlot::Tpm(A_PIN), with: Some(2) }] {
        // The root key is open by the code; to this TPM it does not go unless the operator says so.
        let mut operator = Operator { tcti: Some(tap.tcti()), ..Operator::who_answers(&[&code]) };
        let (reason, exit) = operator.asks(&bench, task).refused();
        assert!(reason.contains("--new-tpm"), "{reason}");
        assert_eq!(exit, 64);
    }
    // It was asked to make its storage root, and nothing else: no session, no object, no place in its NV memory.
    let asked = |command: u32| holds(&tap.heard(), &command.to_be_bytes());
    let [create_primary, others @ ..] = [0x131, 0x176, 0x157, 0x153, 0x12a].map(asked);
    assert_eq!((create_primary, others), (true, [false; 4]), "StartAuthSession, Load, Create, NV_DefineSpace");
}

// -- files that are not what they should be --

#[test]
fn a_cut_bent_or_exchanged_file_is_refused_and_the_right_one_opens_again() {
    let (bench, other) = (Bench::provisioned(), Bench::provisioned());
    let file = bench.keys().join("keyslots");
    let whole = fs::read(&file).unwrap();
    let refused = |bytes: &[u8]| {
        fs::write(&file, bytes).unwrap();
        bench.refusal(&bench.tpm.tcti()).0
    };
    assert!(refused(&whole[..whole.len() / 2]).contains("damaged or cut short"));
    let mut bent = whole.clone();
    bent[whole.len() / 2] ^= 0x10;
    assert!(refused(&bent).contains("damaged or cut short"));
    let mut newer = whole.clone();
    newer[17] = 9;
    assert!(refused(&with_checksum(newer)).contains("has version 9, this program reads version 2"));
    assert!(refused(&fs::read(other.keys().join("keyslots")).unwrap()).contains("not the one that the keys were sealed by"));
    assert!(refused(&fs::read(bench.keys().join("keyring")).unwrap()).contains("of another sort"));
    // Another generation, with the checksum repaired: only the MAC tells.
    let mut older = whole.clone();
    older[18] ^= 1;
    assert!(refused(&with_checksum(older)).contains("was not written by this box or was changed"));
    fs::write(&file, whole).unwrap();
    opens(&bench, &[]);
}

fn with_checksum(mut file: Vec<u8>) -> Vec<u8> {
    file.truncate(file.len() - 32);
    let sum = ring::digest::digest(&ring::digest::SHA256, &file);
    file.extend(sum.as_ref());
    file
}

// -- a TPM that fails --

#[test]
fn a_tpm_that_fails_at_any_command_loses_nothing_and_the_next_try_succeeds() {
    const FAILURE: u32 = 0x101;
    let bench = Bench::provisioned();
    let before = opens(&bench, &[]);
    let faulty = FaultyTpm::before(&bench.tpm, FAILURE);
    let mut refused = 0;
    for pass in 0.. {
        faulty.refuse(pass);
        let end = Operator { tcti: Some(faulty.tcti()), ..Operator::default() }.asks(&bench, reseal(SAME));
        if !faulty.has_refused() {
            end.done();
            break;
        }
        refused += 1;
        faulty.refuse(usize::MAX);
        // What a resource manager does when a program ends.
        for what in ["-t", "-l", "-s"] {
            bench.tpm.tool("tpm2_flushcontext", &[what]);
        }
        if let End::Refused { reason, exit } = end {
            assert!(reason.contains("TPM") && matches!(exit, 69 | 74), "command {pass}: {reason} ({exit})");
        }
        assert_eq!(opens(&bench, &[]), before, "command {pass}");
    }
    assert!(refused > 15, "{refused}");
    assert_eq!((keyslots(&bench).leftovers, nv_indices(&bench.tpm)), (Vec::new(), 1));
}

#[test]
fn a_change_that_is_killed_after_any_command_of_the_tpm_resumes_or_rolls_back() {
    for task in [reseal(SAME), Task::Add { new: NewSlot::Tpm(SAME), with: None }] {
        let bench = Bench::provisioned();
        let before = opens(&bench, &[]);
        let proxy = Rc::new(FaultyTpm::before(&bench.tpm, 0));
        let mut killed = 0;
        for pass in 0.. {
            let killer = Rc::clone(&proxy);
            let started: Option<Box<dyn FnOnce(u32)>> = Some(Box::new(move |process| killer.kill(pass, process)));
            let end = Operator { tcti: Some(proxy.tcti()), started, ..Operator::default() }.asks(&bench, task.clone());
            proxy.refuse(usize::MAX);
            for what in ["-t", "-l", "-s"] {
                bench.tpm.tool("tpm2_flushcontext", &[what]);
            }
            assert_eq!(opens(&bench, &[]), before, "command {pass}");
            only_the_first_of_the_tpm_stays(&bench);
            assert_eq!((keyslots(&bench).leftovers, nv_indices(&bench.tpm)), (Vec::new(), 1), "command {pass}");
            if !matches!(end, End::Killed) {
                end.done();
                break;
            }
            killed += 1;
        }
        assert!(killed > 15, "{killed}");
    }
}

/// Every place of ours in the TPM's NV memory.
fn all_indices(tpm: &Swtpm) -> BTreeSet<String> {
    let listed = tpm.tool("tpm2_getcap", &["handles-nv-index"]);
    String::from_utf8(listed.stdout).unwrap().lines().map(|line| line.trim_start_matches("- ").to_owned()).collect()
}

#[test]
fn a_set_up_that_is_killed_after_any_command_of_the_tpm_is_cleared_up_by_the_next() {
    let bench = Bench::empty_on(Swtpm::start());
    let proxy = FaultyTpm::before(&bench.tpm, 0);
    let (mut killed, mut left) = (0, 0);
    for pass in 0.. {
        let output = bench.provision_hearing(&proxy.tcti(), |process| proxy.kill(pass, process));
        proxy.refuse(usize::MAX);
        for what in ["-t", "-l"] {
            bench.tpm.tool("tpm2_flushcontext", &[what]);
        }
        if output.status.success() {
            break;
        }
        killed += 1;
        if all_indices(&bench.tpm).is_empty() {
            continue;
        }
        left += 1;

        let again = bench.provision(&bench.tpm.tcti());

        assert!(again.status.success(), "command {pass}: {}", String::from_utf8_lossy(&again.stderr));
        assert_eq!(fs::read_dir(bench.base()).unwrap().count(), 1, "command {pass}: the key directory alone");
        let places = keyslots(&bench).epoch.unwrap().halves().map(|half| half.index);
        let own = [tpm_slot(&bench, 0).half, places[0], places[1], 0x0181_5a90].map(|index| format!("0x{index:X}"));
        assert_eq!(all_indices(&bench.tpm), own.into(), "command {pass}");
        fs::remove_dir_all(bench.keys()).unwrap();
        bench.tpm.tool("tpm2_clear", &["-Q", "-c", "p"]);
    }
    assert!(killed > 30 && left > 15, "{killed} {left}");
}

#[test]
fn a_note_destroys_nothing_of_another_box_or_of_a_set_up_that_is_alive() {
    let bench = Bench::provisioned();
    let before = all_indices(&bench.tpm);
    let slot = tpm_slot(&bench, 0);
    let note = |mark| Note { storage_root: slot.storage_root.clone(), mark, places: vec![slot.half] };
    let mac = slots::file_mac(&Root::new(&slots::random().unwrap())).unwrap();
    let own = slots::open_tpm(&slot, address(bench.tpm.tcti()), None).unwrap();
    let gathering = bench.base().join(".other.partial-1");
    let put = |note: Note| {
        fs::create_dir_all(&gathering).unwrap();
        fs::write(gathering.join("unfinished"), note.write(&mac).unwrap()).unwrap();
    };
    let clear = || unfinished::clear(&bench.base().join("other"), None, address(bench.tpm.tcti())).unwrap();

    // Another's mark.
    put(note([7; 32]));
    clear();
    assert_eq!((all_indices(&bench.tpm), gathering.exists()), (before.clone(), false));
    // A set-up that is alive.
    let mark = slots::mark(&Root::new(&own)).unwrap();
    put(note(mark));
    let alive = fs::File::open(&gathering).unwrap();
    alive.lock().unwrap();
    clear();
    assert_eq!((all_indices(&bench.tpm), gathering.exists()), (before.clone(), true));
    drop(alive);
    // Another TPM: it stays noted.
    let other = Swtpm::start();
    unfinished::clear(&bench.base().join("other"), None, address(other.tcti())).unwrap();
    assert!(gathering.exists());
    // One that nobody can read is no reason to forget it.
    let whole = fs::read(gathering.join("unfinished")).unwrap();
    let mut newer = whole.clone();
    newer[17] = 9;
    fs::write(gathering.join("unfinished"), with_checksum(newer)).unwrap();
    let tpm = address(bench.tpm.tcti());
    let refused = unfinished::clear(&bench.base().join("other"), None, tpm).unwrap_err();
    assert!(base::told::told(&refused).contains(".other.partial-1/unfinished"), "{refused}");
    fs::remove_file(gathering.join("unfinished")).unwrap();
    fs::create_dir(gathering.join("unfinished")).unwrap();
    unfinished::clear(&bench.base().join("other"), None, tpm).unwrap_err();
    assert!(gathering.exists());
    fs::remove_dir(gathering.join("unfinished")).unwrap();
    fs::write(gathering.join("unfinished"), whole).unwrap();
    // One that was handed over to its owner just before the rename; a stranger's is none of ours.
    chown(&gathering, Some(Uid::from_raw(65_534)), None).expect("run this as root");
    clear();
    assert!(gathering.exists());
    unfinished::clear(&bench.base().join("other"), Some(Uid::from_raw(65_534)), tpm).unwrap();
    assert_eq!((all_indices(&bench.tpm).len(), gathering.exists()), (before.len() - 1, false));
}

// -- cut off anywhere --

fn names(bench: &Bench) -> BTreeSet<String> {
    fs::read_dir(bench.keys()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

/// Runs a task again and again, each time with another system call failing, and looks after each that the box opens. `prepare` makes the
/// slots that the task needs besides the first of the TPM, and says it.
fn with_every_call_failing(bench: &Bench, how: &str, prepare: impl Fn(&Bench) -> Task) -> usize {
    let before = opens(bench, &[]);
    Operator::default().asks(bench, Task::Verify { slot: 1 }).done();
    let files = names(bench);
    let mut hits = 0;
    for call in ["write", "fsync", "renameat", "fchown", "unlinkat"] {
        for nth in 1.. {
            let inject = format!("inject={call}:{how}:when={nth}");
            let log = bench.base().join("strace");
            let task = prepare(bench);
            let mut operator = Operator { launcher: ["strace", "-q", "-o"].map(Into::into).to_vec(), ..Operator::default() };
            operator.launcher.extend([log.clone().into(), "-e".into(), format!("trace={call}").into(), "-e".into(), inject.into()]);
            // The files of the keys only: the TPM is written to as well.
            for name in ["", ".keyslots.partial", "keyslots"] {
                operator.launcher.extend(["-P".into(), bench.keys().join(name).into()]);
            }
            let end = operator.asks(bench, task);
            for what in ["-t", "-l", "-s"] {
                bench.tpm.tool("tpm2_flushcontext", &[what]);
            }
            let traced = fs::read_to_string(&log).expect("strace writes its log: apt-get install strace");
            let hit = matches!(end, End::Killed) || traced.contains("INJECTED");
            hits += usize::from(hit);
            // The filter kills a call that strace takes away, and lets pass the one that it puts in its place.
            assert!(how.starts_with("signal") || !matches!(end, End::Killed), "{call} {nth}");
            if let End::Refused { reason, .. } = &end {
                assert!(reason.contains("keyslots cannot be written"), "{call} {nth}: {reason}");
            }
            assert_eq!(opens(bench, &[]), before, "{call} {nth}");
            only_the_first_of_the_tpm_stays(bench);
            assert_eq!((keyslots(bench).leftovers, nv_indices(&bench.tpm)), (Vec::new(), 1), "{call} {nth}");
            assert_eq!(names(bench), files, "{call} {nth}");
            if !hit {
                end.done();
                break;
            }
        }
    }
    hits
}

#[test]
fn a_change_that_is_killed_at_any_write_resumes_or_rolls_back() {
    let bench = Bench::provisioned();
    let hits = with_every_call_failing(&bench, "signal=KILL", |_| Task::Add { new: NewSlot::Tpm(SAME), with: None });
    assert!(hits >= 10, "{hits}");
}

#[test]
fn a_slot_sealed_anew_is_the_old_or_the_new_one_wherever_it_is_killed() {
    let bench = Bench::provisioned();
    let hits = with_every_call_failing(&bench, "signal=KILL", |_| reseal(SAME));
    assert!(hits >= 10, "{hits}");
}

#[test]
fn a_slot_is_removed_or_stays_wherever_it_is_killed() {
    let bench = Bench::provisioned();
    let hits = with_every_call_failing(&bench, "signal=KILL", |bench| {
        Operator::default().asks(bench, Task::Add { new: NewSlot::Tpm(SAME), with: None }).done();
        Task::Remove { slot: newest(bench), with: None }
    });
    assert!(hits >= 4, "{hits}");
}

#[test]
fn a_paper_is_replaced_or_stays_wherever_it_is_killed() {
    let bench = Bench::provisioned();
    let hits = with_every_call_failing(&bench, "signal=KILL", |bench| {
        add_code(bench);
        Task::Rotate { slot: Some(newest(bench)), with: None }
    });
    assert!(hits >= 4, "{hits}");
}

#[test]
fn a_full_disk_at_any_write_changes_nothing_or_is_cleared_up() {
    let bench = Bench::provisioned();
    let hits = with_every_call_failing(&bench, "error=ENOSPC:syscall=getpid", |_| Task::Add { new: NewSlot::Recovery, with: None });
    assert!(hits >= 4, "{hits}");
}

#[test]
fn the_lines_are_this_keepers_alone_before_anybody_types() {
    let bench = Bench::provisioned();
    let code = add_code(&bench);
    let issued = bench.keys().join("issued");
    let asked = move |_| assert!(matches!(fs::File::open(&issued).unwrap().try_lock(), Err(fs::TryLockError::WouldBlock)));
    let mut operator = Operator { asked: Some(Box::new(asked)), ..Operator::who_answers(&[&code]) };
    operator.asks(&bench, Task::Verify { slot: 2 }).done();
}

#[test]
fn two_changes_at_once_are_refused() {
    let bench = Bench::provisioned();
    let directory = fs::File::open(bench.keys()).unwrap();
    directory.lock().unwrap();
    let (reason, exit) = Operator::default().asks(&bench, Task::Add { new: NewSlot::Recovery, with: None }).refused();
    assert!(reason.contains("another program changes the keys"), "{reason}");
    assert_eq!(exit, 69);
}

// -- confined --

#[test]
fn the_keeper_is_confined_before_anybody_types() {
    let bench = Bench::provisioned();
    let (heard, seen) = (Rc::new(Cell::new(0)), Rc::new(RefCell::new(BTreeSet::new())));
    let (hears, sees) = (Rc::clone(&heard), Rc::clone(&seen));
    let asked = move |process: u32| {
        let status = fs::read_to_string(format!("/proc/{process}/status")).unwrap();
        let value = |key: &str| status.lines().find_map(|line| line.strip_prefix(key)).unwrap().trim().to_owned();
        let keys = ["Seccomp:", "NoNewPrivs:", "CapInh:", "CapPrm:", "CapEff:", "CapBnd:", "CapAmb:", "Threads:"];
        // Root keeps the way to files of others (CAP_CHOWN, CAP_DAC_OVERRIDE), and landlock says to which.
        let (none, files) = ("0000000000000000", "0000000000000003");
        assert_eq!(keys.map(value), ["2", "1", none, files, files, none, none, "1"], "run this as root");
        let beyond_the_streams = |number: &str| number.parse::<u32>().unwrap() > 2;
        let open = fs::read_dir(format!("/proc/{process}/fd")).unwrap().flatten();
        let open = open.filter(|entry| beyond_the_streams(entry.file_name().to_str().unwrap()));
        sees.borrow_mut().extend(open.map(|entry| fs::read_link(entry.path()).unwrap()).filter(|target| target.is_absolute()));
        hears.set(hears.get() + 1);
    };
    let mut operator = Operator { asked: Some(Box::new(asked)), ..Operator::who_answers(&[PIN, PIN]) };
    operator.asks(&bench, Task::Add { new: NewSlot::Tpm(A_PIN), with: None }).done();
    operator.asks(&bench, Task::Add { new: NewSlot::Recovery, with: Some(1) }).done();

    assert_eq!(heard.get(), 3);
    let expected = [bench.keys(), bench.keys().join("issued")];
    assert_eq!(*seen.borrow(), expected.into());
}

/// Stops the process in the middle of such a call, and lets it go on.
fn stop_and_continue(process: i32, call: i64) {
    let until = Instant::now() + Duration::from_secs(20);
    let wait = |what: &str, is: &dyn Fn() -> bool| {
        while !is() {
            assert!(Instant::now() < until, "the keeper never {what}");
            thread::yield_now();
        }
    };
    let read = |name: &str| fs::read_to_string(format!("/proc/{process}/{name}")).unwrap();
    wait("waited", &|| read("syscall").starts_with(&format!("{call} ")));
    kill(Pid::from_raw(process), Signal::SIGSTOP).unwrap();
    wait("stopped", &|| read("stat").contains(") T "));
    kill(Pid::from_raw(process), Signal::SIGCONT).unwrap();
}

#[test]
fn a_confined_keeper_that_was_stopped_while_it_waited_goes_on() {
    let bench = Bench::provisioned();
    Operator::default().asks(&bench, Task::Verify { slot: 1 }).done();
    // Another keeper of the console is just ending.
    let issued = fs::File::open(bench.keys().join("issued")).unwrap();
    issued.lock().unwrap();
    let started = move |process: u32| {
        let process = i32::try_from(process).unwrap();
        thread::spawn(move || {
            // Stopped between two of its short waits, it would have none to take up again.
            for _ in 0..5 {
                stop_and_continue(process, libc::SYS_clock_nanosleep);
            }
            drop(issued);
        });
    };
    Operator { started: Some(Box::new(started)), ..Operator::default() }.asks(&bench, Task::Verify { slot: 1 }).done();
}

#[test]
fn a_tpm_that_no_confinement_is_for_is_refused() {
    let bench = Bench::provisioned();
    let (reason, exit) =
        Operator { tcti: Some("mssim:host=127.0.0.1".to_owned()), ..Operator::default() }.asks(&bench, Task::List).refused();
    assert!(reason.contains("a TPM that is a device"), "{reason}");
    assert_eq!(exit, 78);
    let absent = Operator { tcti: Some("device:/dev/no-such-tpm".to_owned()), ..Operator::default() }.asks(&bench, Task::List).done();
    assert!(absent.tpm_trouble.is_some());
}

// -- the signed lines --

/// What the lines of a file say of the keyslots: what, kind, slot, outcome. All of them are whole, and none is missing.
fn said(file: &std::path::Path, faults: &[LogFault]) -> (Report, Vec<String>) {
    let text = fs::read_to_string(file).unwrap();
    let (_, key) = text.split_once("\"key\":\"").unwrap();
    let mut verifier = Verifier::new(base::hex::unhex(&key[..64]).unwrap(), false);
    let found: Vec<LogFault> = (1..).zip(text.lines()).filter_map(|(number, line)| verifier.line(number, line.as_bytes()).err()).collect();
    assert_eq!(found, faults, "{text}");
    let of_slots = text.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    let words = of_slots.filter(|line| line["event"] == "key_slots").map(|line| {
        let (what, outcome) = (line["what"].as_str().unwrap(), line["outcome"].as_str().unwrap());
        match (line["kind"].as_str(), line["slot"].as_u64()) {
            (Some(kind), Some(slot)) => format!("{what} {kind} {slot} {outcome}"),
            _ => format!("{what} {outcome}"),
        }
    });
    (verifier.finish().unwrap(), words.collect())
}

#[test]
fn each_change_of_the_keyslots_is_a_signed_line_before_it_counts() {
    let bench = Bench::provisioned();
    let file = bench.base().join("key-lines");
    let lines = || Some(file.clone());
    let mut operator = Operator { lines: lines(), ..Operator::default() };
    operator.asks(&bench, Task::Add { new: NewSlot::Recovery, with: None }).done();
    let code = operator.sheets.remove(0);
    Operator { lines: lines(), ..Operator::default() }.asks(&bench, reseal(SAME)).done();
    Operator { lines: lines(), ..Operator::default() }.asks(&bench, Task::Rotate { slot: None, with: None }).done();
    Operator { lines: lines(), ..Operator::default() }.asks(&bench, Task::Verify { slot: 1 }).done();
    Operator { lines: lines(), ..Operator::default() }.asks(&bench, Task::List).done();
    Operator { lines: lines(), ..Operator::default() }.asks(&bench, Task::Remove { slot: 2, with: None }).done();
    assert_eq!(Operator { lines: lines(), ..Operator::default() }.asks(&bench, Task::Remove { slot: 1, with: None }).refused().1, 1);
    let mut mistyping = Operator { lines: lines(), mistypes: vec!["nonsense".to_owned(); 3], ..Operator::default() };
    mistyping.asks(&bench, Task::Add { new: NewSlot::Recovery, with: None }).refused();

    let (report, words) = said(&file, &[]);

    let expected = [
        "add opened",
        "add recovery 2 begun",
        "add recovery 2 done",
        "reseal opened",
        "reseal tpm 1 begun",
        "reseal tpm 1 done",
        "rotate opened",
        "rotate recovery 2 begun",
        "rotate recovery 2 done",
        "verify opened",
        "remove opened",
        "remove recovery 2 begun",
        "remove recovery 2 done",
        "add opened",
    ];
    assert_eq!(words, expected);
    assert_eq!((report.slot_changes, report.slot_changes_open, report.without_end), (4, 0, 0));
    assert!(!holds(&fs::read(&file).unwrap(), code.as_bytes()));
    // Without its end the next start tells that lines were cut off.
    let text = fs::read_to_string(&file).unwrap();
    let cut: Vec<&str> = text.lines().enumerate().filter(|(at, _)| !(2..5).contains(at)).map(|(_, line)| line).collect();
    fs::write(&file, cut.join("\n")).unwrap();
    assert!(matches!(said_faults(&file)[..], [LogFault::CutOff { line: 3, start: 2, first: 2, last: 4 }]), "{:?}", said_faults(&file));
}

fn said_faults(file: &std::path::Path) -> Vec<LogFault> {
    let text = fs::read_to_string(file).unwrap();
    let (_, key) = text.split_once("\"key\":\"").unwrap();
    let mut verifier = Verifier::new(base::hex::unhex(&key[..64]).unwrap(), false);
    (1..).zip(text.lines()).filter_map(|(number, line)| verifier.line(number, line.as_bytes()).err()).collect()
}

#[test]
fn nothing_is_changed_that_no_line_could_be_written_of() {
    let bench = Bench::provisioned();
    add_code(&bench);
    let before = keyslots(&bench);
    let full = || Some("/dev/full".into());
    for task in [
        Task::Add { new: NewSlot::Recovery, with: None },
        Task::Remove { slot: 2, with: None },
        Task::Rotate { slot: None, with: None },
        reseal(SAME),
        Task::Verify { slot: 1 },
    ] {
        let (reason, exit) = Operator { lines: full(), ..Operator::default() }.asks(&bench, task).refused();
        assert!(reason.contains("nothing was changed: the signed line on it"), "{reason}");
        assert_eq!(exit, 74);
    }
    assert_eq!((keyslots(&bench), nv_indices(&bench.tpm)), (before, 1));
    Operator { lines: full(), ..Operator::default() }.asks(&bench, Task::List).done();
}

// -- the command line --

#[test]
fn the_command_line_makes_a_code_by_lines_of_json() {
    use std::io::{BufRead as _, BufReader, Write as _};
    let bench = Bench::provisioned();
    let salama = |words: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_salama"));
        command.args(["keys", "--keys"]).arg(bench.keys()).args(["--tpm", &bench.tpm.tcti()]).args(words);
        command.arg("--lines").arg(bench.base().join("key-lines"));
        command.stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
        command.spawn().unwrap()
    };
    let mut add = salama(&["add", "recovery", "--json"]);
    let mut lines = BufReader::new(add.stdout.take().unwrap());
    let mut line = String::new();
    lines.read_line(&mut line).unwrap();
    let sheet: serde_json::Value = serde_json::from_str(&line).unwrap();
    let code = sheet["text"].as_str().unwrap();
    writeln!(add.stdin.take().unwrap(), "{}", code.to_lowercase()).unwrap();
    let mut rest = String::new();
    std::io::Read::read_to_string(&mut lines, &mut rest).unwrap();
    let report: serde_json::Value = serde_json::from_str(&rest).unwrap();
    assert!(add.wait().unwrap().success());
    assert_eq!((report["slots"][1]["id"].as_u64(), report["slots"][1]["kind"].as_str()), (Some(2), Some("recovery")));

    let listed = salama(&["list"]).wait_with_output().unwrap();
    let page = String::from_utf8(listed.stdout).unwrap();
    assert!(page.contains("SLOT") && page.contains("the code") && page.contains("wrong PINs: 0 of"), "{page}");
    let none = salama(&["verify", "9"]).wait_with_output().unwrap();
    assert_eq!(none.status.code(), Some(66));
    assert!(String::from_utf8_lossy(&none.stderr).contains("there is no slot 9"));
    let unanswered = salama(&["add", "recovery"]).wait_with_output().unwrap();
    assert_eq!(unanswered.status.code(), Some(65));
    assert_eq!(keyslots(&bench).slots.len(), 2);
}

#[test]
fn the_command_line_says_how_a_keeper_ended_and_that_lines_have_no_place() {
    use std::io::{BufRead as _, BufReader, Write as _};
    use std::process::Stdio;
    let bench = Bench::provisioned();
    let salama = |lines: &std::path::Path| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_salama"));
        command.args(["keys", "--keys"]).arg(bench.keys()).args(["--tpm", &bench.tpm.tcti()]).arg("--lines").arg(lines);
        command.args(["add", "recovery", "--json"]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    };
    let mut add = salama(&bench.base().join("key-lines"));
    let mut lines = BufReader::new(add.stdout.take().unwrap());
    lines.read_line(&mut String::new()).unwrap();
    let children = fs::read_to_string(format!("/proc/{0}/task/{0}/children", add.id())).unwrap();
    kill(Pid::from_raw(children.trim().parse().unwrap()), Signal::SIGKILL).unwrap();
    writeln!(add.stdin.take().unwrap(), "whatever").unwrap();
    let ended = add.wait_with_output().unwrap();
    let told = String::from_utf8(ended.stderr).unwrap();
    assert!(told.contains("signal: 9"), "{told}");

    let nowhere = salama(&bench.base().join("no-such-directory/key-lines")).wait_with_output().unwrap();
    assert_eq!(nowhere.status.code(), Some(74), "{}", String::from_utf8_lossy(&nowhere.stderr));
}

/// How far it is, and whether there is leave; counted on for the next.
fn counter(bench: &Bench, counts: bool) -> (Option<u64>, Leave) {
    let (keeper, greeting, _process) = bench.serve(&[]);
    if counts {
        keeper.count(greeting.counter.value.unwrap()).unwrap();
    }
    (greeting.counter.value, greeting.counter.leave)
}

#[test]
fn leave_to_take_an_older_store_needs_the_paper_and_is_for_one_start() {
    let bench = Bench::provisioned();
    let code = add_code(&bench);
    let wrong = add_code(&Bench::provisioned());
    let (Some(first), Leave::First) = counter(&bench, false) else { panic!("it has counted once") };

    let ask = |answers: &[&str], with| Operator::who_answers(answers).asks(&bench, Task::AcceptRollback { with });
    // This machine's TPM, which opens at each start, is not the operator.
    assert_eq!(ask(&[], Some(1)).refused().1, 64);
    let (reason, exit) = ask(&[&wrong, &wrong, &wrong], None).refused();
    assert!(exit == 65 && reason.contains("not of this slot"), "{reason}");
    assert_eq!(counter(&bench, false), (Some(first), Leave::First));

    ask(&[&code], None).done();
    assert_eq!(counter(&bench, true), (Some(first), Leave::Accepted));
    let used = fs::read(bench.keys().join("rollback")).unwrap();
    assert_eq!(counter(&bench, false), (Some(first + 1), Leave::None));
    fs::write(bench.keys().join("rollback"), used).unwrap();
    assert_eq!(counter(&bench, false), (Some(first + 1), Leave::None));
}

#[test]
fn leave_that_was_refused_is_not_in_force_and_its_end_is_not_told() {
    let bench = Bench::provisioned();
    let code = add_code(&bench);
    let file = bench.base().join("key-lines");
    let mut operator = Operator { lines: Some(file.clone()), ..Operator::who_answers(&[&code]) };
    let inject =
        ["strace", "-q", "-o", "/dev/null", "-e", "trace=renameat", "-e", "inject=renameat:error=ENOSPC:syscall=getpid", "-P", "keyslots"];
    operator.launcher = inject.map(Into::into).to_vec();
    let (reason, _) = operator.asks(&bench, Task::AcceptRollback { with: None }).refused();

    assert!(reason.contains("keyslots cannot be written"), "{reason}");
    assert_eq!(counter(&bench, false).1, Leave::First);
    let (report, words) = said(&file, &[]);
    assert_eq!(words, ["accept_rollback opened", "accept_rollback begun", "accept_rollback failed"]);
    assert_eq!((report.slot_changes, report.slot_changes_open), (0, 1));
}

#[test]
fn a_slot_for_a_tpm_that_is_new_gives_leave_for_its_first_start() {
    let mut bench = Bench::provisioned();
    let code = add_code(&bench);
    counter(&bench, true);
    bench.tpm = Swtpm::start();
    Operator::who_answers(&[&code]).asks(&bench, reseal(NEW_TPM)).done();
    assert_eq!(counter(&bench, true).1, Leave::Moved);
    assert_eq!(counter(&bench, false).1, Leave::None);
    // On a TPM that is known it gives none.
    Operator::default().asks(&bench, reseal(SAME)).done();
    assert_eq!(counter(&bench, false).1, Leave::None);
}
