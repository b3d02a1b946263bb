//! A keeper or fork server that dies, and a disk that does not give a recording: whatever was acknowledged goes on later.

use std::fs;
use std::os::unix::fs::symlink;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::office::Office;
use crate::runner::Test;
use crate::stand_in::{NAME, SLOW, digest_of};
use crate::support::appliance::Appliance;
use crate::wire::{Caller, Reply, Wire, until};

pub const TESTS: &[Test] = &[
    (
        "a_keeper_or_fork_server_that_dies_in_a_job_and_an_upload_loses_nothing_acknowledged",
        a_keeper_or_fork_server_that_dies_in_a_job_and_an_upload_loses_nothing_acknowledged,
    ),
    (
        "a_recording_that_the_disk_does_not_give_holds_up_nobody_and_is_heard_once_it_does",
        a_recording_that_the_disk_does_not_give_holds_up_nobody_and_is_heard_once_it_does,
    ),
];

const SETTINGS: &str = "[jobs]\nthreads = 1\n[limits]\nuploads_per_minute = 6000\nreads_per_minute = 60000\n";

fn dial(office: &Office, role: &str) -> Wire {
    let appliance = &office.appliance;
    Caller::new(&appliance.path("ca.pem"), &appliance.identity(role, "lost")).dial(appliance.address()).unwrap()
}

fn accepted(wire: &mut Wire, recording: &str) -> String {
    let reply = wire.post(recording.as_bytes(), |_| ()).unwrap();
    assert_eq!(reply.status, 202, "{reply:?}");
    reply.json()["id"].as_str().unwrap().to_owned()
}

fn view(wire: &mut Wire, id: &str) -> Value {
    wire.get(&format!("/api/v1/calls/{id}")).unwrap().json()
}

/// It says so before it takes its time.
fn until_running(wire: &mut Wire, id: &str) {
    until("the call runs", || {
        let call = view(wire, id);
        assert!(call["state"] == "queued" || call["state"] == "running", "{call}");
        (call["stage"] == "decode").then_some(())
    });
}

fn assert_heard(wire: &mut Wire, id: &str, recording: &str) {
    let call = wire.finished(id).unwrap();
    assert_eq!(call["state"], "done", "{call}");
    let transcript = wire.get(&format!("/api/v1/calls/{id}/transcript?format=json")).unwrap().json();
    assert_eq!(transcript["utterances"][0]["words"][0]["text"], digest_of(recording.as_bytes()), "{transcript}");
}

fn a_keeper_or_fork_server_that_dies_in_a_job_and_an_upload_loses_nothing_acknowledged() {
    let mut office = Office::start(SETTINGS);
    for program in ["salama-keeper", NAME] {
        let [victim] = Appliance::children_of(office.appliance.pid(), program)[..] else { panic!("no {program}") };
        let mut wire = dial(&office, "counsellor");
        let recordings = ["runs", "waits"].map(|what| format!("{SLOW}2000\n{program} {what}"));
        let [running, waiting] = [0, 1].map(|number: usize| accepted(&mut wire, &recordings[number]));
        until_running(&mut wire, &running);

        let body = vec![7; 512 * 1024];
        let cut = dial(&office, "counsellor").post(&body, |sent| {
            if sent == body.len() / 2 {
                kill(Pid::from_raw(i32::try_from(victim).unwrap()), Signal::SIGKILL).unwrap();
            }
        });

        assert!(!office.appliance.ended().success(), "{program}");
        office.until_all_are_gone();
        office.appliance.run();
        let mut wire = dial(&office, "counsellor");
        // A daemon that has lost a part ends in order: it may still answer for what it has whole.
        if let Ok(Reply { status: 202, .. }) = &cut {
            let id = cut.unwrap().json()["id"].as_str().unwrap().to_owned();
            assert_eq!(view(&mut wire, &id)["audio_bytes"], body.len());
        }
        assert_heard(&mut wire, &running, &recordings[0]);
        assert_heard(&mut wire, &waiting, &recordings[1]);
        for file in fs::read_dir(office.appliance.state().join("audio")).unwrap() {
            let name = file.unwrap().file_name().into_string().unwrap();
            assert_eq!(wire.finished(name.strip_suffix(".seg").unwrap()).unwrap()["state"], "done", "{name}");
        }
    }
}

fn a_recording_that_the_disk_does_not_give_holds_up_nobody_and_is_heard_once_it_does() {
    let mut office = Office::start(SETTINGS);
    let mut wire = dial(&office, "counsellor");
    let recordings = [format!("{SLOW}1000\nholds the only place"), "is not read".to_owned(), "passes".to_owned()];
    let [first, unread, passes] = [0, 1, 2].map(|number: usize| accepted(&mut wire, &recordings[number]));
    // Following its link fails, as reading a bad block would.
    let path = office.appliance.state().join(format!("audio/{unread}.seg"));
    let aside = office.appliance.path("aside.seg");
    fs::rename(&path, &aside).unwrap();
    symlink(&path, &path).unwrap();

    assert_heard(&mut wire, &first, &recordings[0]);
    assert_heard(&mut wire, &passes, &recordings[2]);

    let ready = dial(&office, "monitor").get("/health/ready").unwrap();
    assert_eq!(ready.status, 503, "{}", ready.json());
    assert_eq!(ready.json()["troubles"][0], serde_json::json!({ "part": "disk", "trouble": "failing" }));
    assert_eq!(view(&mut wire, &unread)["state"], "queued");
    fs::rename(&aside, &path).unwrap();
    assert_heard(&mut wire, &unread, &recordings[1]);
    assert_eq!(dial(&office, "monitor").get("/health/ready").unwrap().status, 200);
    assert!(office.appliance.stop().success());
}
