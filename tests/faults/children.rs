//! Children that crash, hang, flood, lie, speak out of turn or eat: each fails its own call with one reason, and nothing else.

use std::sync::OnceLock;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::office::Office;
use crate::runner::Test;
use crate::stand_in::{FAULT, NAME, SLOW, digest_of};
use crate::support::appliance::Appliance;
use crate::wire::{Caller, Wire, until};

pub const TESTS: &[Test] = &[
    ("a_child_that_crashes_fails_its_call_alone", a_child_that_crashes_fails_its_call_alone),
    ("a_child_that_forks_or_eats_memory_ends", a_child_that_forks_or_eats_memory_ends),
    ("a_child_that_hangs_or_burns_the_processor_is_stopped_in_time", a_child_that_hangs_or_burns_the_processor_is_stopped_in_time),
    ("a_stopped_child_is_noticed_and_killed", a_stopped_child_is_noticed_and_killed),
    ("a_flood_ends_its_call_and_leaves_nothing_in_the_core", a_flood_ends_its_call_and_leaves_nothing_in_the_core),
    ("frames_that_lie_end_their_call", frames_that_lie_end_their_call),
    ("words_out_of_turn_end_their_call", words_out_of_turn_end_their_call),
    (
        "a_child_that_lingers_after_its_result_is_killed_and_its_result_kept",
        a_child_that_lingers_after_its_result_is_killed_and_its_result_kept,
    ),
];

/// Ends hangs within seconds; as little memory as the settings allow.
const SETTINGS: &str =
    "[jobs]\nthreads = 1\ntime_limit = \"3 s\"\nmemory = \"512 MiB\"\n[limits]\nuploads_per_minute = 6000\nreads_per_minute = 60000\n";

/// One appliance for all: it must go on serving whatever came before.
fn office() -> &'static Office {
    static OFFICE: OnceLock<Office> = OnceLock::new();
    OFFICE.get_or_init(|| Office::start(SETTINGS))
}

fn dial() -> Wire {
    let appliance = &office().appliance;
    let caller = Caller::new(&appliance.path("ca.pem"), &appliance.identity("counsellor", "fault"));
    caller.dial(appliance.address()).unwrap()
}

fn accepted(wire: &mut Wire, recording: &str) -> String {
    let reply = wire.post(recording.as_bytes(), |_| ()).unwrap();
    assert_eq!(reply.status, 202, "{reply:?}");
    reply.json()["id"].as_str().unwrap().to_owned()
}

/// The end of a call whose child does this.
fn end_of(fault: &str) -> Value {
    let mut wire = dial();
    let id = accepted(&mut wire, &format!("{FAULT}{fault}\n"));
    wire.finished(&id).unwrap()
}

/// Each of these calls fails for this reason, at its first try, and the next call is heard to its end by a new child.
fn each_fails(faults: &[&str], reason: &str) {
    for fault in faults {
        let call = end_of(fault);
        let seen = (&call["state"], &call["failure"], &call["attempts"]);
        assert_eq!(seen, (&"failed".into(), &reason.into(), &1.into()), "{fault}: {call}");
        the_next_call_is_served(fault);
    }
}

fn the_next_call_is_served(after: &str) {
    let (mut wire, recording) = (dial(), format!("the call after: {after}"));
    let id = accepted(&mut wire, &recording);
    let call = wire.finished(&id).unwrap();
    assert_eq!(call["state"], "done", "after {after}: {call}");
    let transcript = wire.get(&format!("/api/v1/calls/{id}/transcript?format=json")).unwrap().json();
    assert_eq!(transcript["utterances"][0]["words"][0]["text"], digest_of(recording.as_bytes()), "{transcript}");
}

fn a_child_that_crashes_fails_its_call_alone() {
    each_fails(&["panic", "abort", "overflow", "leave"], "worker_died");
    for signal in [Signal::SIGSEGV, Signal::SIGBUS, Signal::SIGKILL] {
        // Rust's own handler lets the first one pass that is no fault of an instruction.
        let call = with_child(&format!("{SLOW}60000\n"), |child| {
            until("the child is gone", || kill(child, signal).err());
        });
        assert_eq!((&call["state"], &call["failure"]), (&"failed".into(), &"worker_died".into()), "{signal}: {call}");
        the_next_call_is_served(signal.as_str());
    }
}

fn a_child_that_forks_or_eats_memory_ends() {
    each_fails(&["fork", "memory"], "worker_died");
}

fn a_child_that_hangs_or_burns_the_processor_is_stopped_in_time() {
    each_fails(&["hang", "spin", "chatter"], "timed_out");
}

fn a_stopped_child_is_noticed_and_killed() {
    let mut stopped = None;
    let call = with_child(&format!("{SLOW}60000\n"), |child| {
        kill(child, Signal::SIGSTOP).unwrap();
        stopped = Some(child);
    });
    assert_eq!((&call["state"], &call["failure"]), (&"failed".into(), &"timed_out".into()), "{call}");
    assert!(kill(stopped.unwrap(), None).is_err(), "it still stands there");
    the_next_call_is_served("a stopped child");
}

fn a_flood_ends_its_call_and_leaves_nothing_in_the_core() {
    the_next_call_is_served("nothing");
    let before = office().core_memory();
    each_fails(&["progress", "text"], "worker_misbehaved");
    // It reads one piece again and again, until it has read too often or its time is over.
    assert_eq!(end_of("grind")["state"], "failed");
    // It asks and does not read the answers.
    each_fails(&["needs"], "timed_out");
    let after = office().core_memory();
    println!("  the core: {before} KiB before, {after} KiB after");
    assert!(after < before + 64 * 1024, "{before} KiB before, {after} KiB after");
}

fn frames_that_lie_end_their_call() {
    each_fails(&["nothing", "unknown", "short", "long", "huge", "count", "length", "descriptor"], "worker_misbehaved");
}

fn words_out_of_turn_end_their_call() {
    let faults = [
        "result first",
        "words before the recording",
        "ready twice",
        "recording twice",
        "reads after words",
        "words backwards",
        "result twice",
        "words after the result",
        "more than it said",
        "a text's answer",
        "a verdict",
    ];
    each_fails(&faults, "worker_misbehaved");
}

fn a_child_that_lingers_after_its_result_is_killed_and_its_result_kept() {
    assert_eq!(end_of("linger")["state"], "done");
    assert!(Appliance::children_of(office().worker(), NAME).is_empty(), "it is still there");
    the_next_call_is_served("a lingering child");
}

/// Posts a recording, does something to its child, and returns how the call ended.
fn with_child(recording: &str, act: impl FnOnce(Pid)) -> Value {
    let mut wire = dial();
    let id = accepted(&mut wire, recording);
    let child = until("the call's child runs", || {
        // The child says what the recording is before it takes its time.
        let call = wire.get(&format!("/api/v1/calls/{id}")).unwrap().json();
        assert!(call["state"] == "queued" || call["state"] == "running", "{call}");
        let [child] = Appliance::children_of(office().worker(), NAME)[..] else { return None };
        (call["stage"] == "decode").then(|| Pid::from_raw(i32::try_from(child).unwrap()))
    });
    act(child);
    wire.finished(&id).unwrap()
}
