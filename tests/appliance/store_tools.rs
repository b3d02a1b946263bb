//! `salama store` on the real thing: refused while the daemon runs, then a check and a compaction, then the daemon again.

use std::fs;
use std::os::unix::fs::FileExt as _;
use std::os::unix::process::CommandExt as _;
use std::process::{Command, Output};

use serde_json::{Value, json};

use crate::start_up::with_pin;
use crate::support::appliance::{Appliance, Settings, program};
use crate::support::audio;

/// An account that owns nothing of the appliance's.
const NOBODY: u32 = 65_534;

fn store(appliance: &Appliance, words: &[&str]) -> Command {
    let mut command = Command::new(program("salama"));
    command.arg("store").args(words).arg("--config").arg(appliance.path("salama.toml"));
    command
}

fn told(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn report(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("no report: {}", told(output)))
}

#[test]
fn a_store_is_checked_and_compacted_while_no_daemon_runs_and_served_from_afterwards() {
    let mut appliance = Appliance::start();
    let client = appliance.client("counsellor", "tools");
    let recording = appliance.path("silence.wav");
    audio::silence(&recording, 5);
    let (call, _) = client.transcribed(&recording);

    for task in [["check"], ["compact"]] {
        let busy = store(&appliance, &task).output().unwrap();
        assert_eq!(busy.status.code(), Some(69), "{}", told(&busy));
        assert!(told(&busy).contains("systemctl stop salama.socket salama.service"), "{}", told(&busy));
    }
    assert!(appliance.stop().success());

    // Neither does a stranger on the machine get in.
    fs::set_permissions(appliance.path("salama.toml"), std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();
    for name in ["salama", "salamad"] {
        // Where cargo has built them nobody else may go.
        fs::copy(program(name), appliance.path(name)).unwrap();
    }
    let mut stranger = Command::new(appliance.path("salama"));
    let stranger = stranger.args(["store", "check", "--config"]).arg(appliance.path("salama.toml"));
    let stranger = stranger.uid(NOBODY).gid(NOBODY).output().unwrap();
    assert_eq!(stranger.status.code(), Some(77), "{}", told(&stranger));
    assert!(told(&stranger).contains("belongs to the user salama; run this as root"), "{}", told(&stranger));

    let checked = store(&appliance, &["check", "--json"]).output().unwrap();
    assert!(checked.status.success(), "{}", told(&checked));
    let sound = report(&checked);
    assert_eq!((&sound["calls"], &sound["recordings"], &sound["faults"]), (&json!(1), &json!(1), &json!([])), "{sound}");
    assert_eq!((&sound["opened"], &sound["without_keys"]), (&sound["records"], &Value::Null), "{sound}");

    let compacted = store(&appliance, &["compact", "--json"]).output().unwrap();
    assert!(compacted.status.success(), "{}", told(&compacted));
    assert_eq!(report(&compacted)["records"], sound["records"]);
    let keyless = store(&appliance, &["check", "--without-keys"]).output().unwrap();
    assert!(keyless.status.success(), "{}", told(&keyless));
    assert!(String::from_utf8_lossy(&keyless.stdout).contains("no seal was checked"), "{keyless:?}");

    appliance.run();
    let client = appliance.client("counsellor", "tools");
    assert_eq!(client.get(&format!("/api/v1/calls/{call}/transcript")).status, 200);
    assert!(appliance.stop().success());

    let file = fs::File::options().write(true).open(appliance.state().join("audio").join(format!("{call}.seg"))).unwrap();
    file.write_all_at(b"damaged", file.metadata().unwrap().len() - 7).unwrap();
    let damaged = store(&appliance, &["check", "--json"]).output().unwrap();
    assert_eq!(damaged.status.code(), Some(65), "{}", told(&damaged));
    assert_eq!(report(&damaged)["faults"], json!([{ "recording_damaged": { "call": call } }]));
    assert!(told(&damaged).contains("keep a copy of the whole state directory"), "{}", told(&damaged));
}

#[test]
fn a_store_behind_a_pin_is_checked_with_the_file_of_the_pin() {
    let credentials = tempfile::tempdir().unwrap();
    let environment = vec![("CREDENTIALS_DIRECTORY".to_owned(), credentials.path().to_str().unwrap().to_owned())];
    let mut appliance = Appliance::provision(&Settings { environment, ..Settings::default() });
    with_pin(&appliance, "a long enough PIN");
    fs::write(credentials.path().join("tpm-pin"), "a long enough PIN").unwrap();
    fs::write(appliance.path("wrong"), "not this one").unwrap();
    appliance.run();
    assert!(appliance.stop().success());

    for (more, words) in [(&[][..], "wants a PIN"), (&["--pin", appliance.path("wrong").to_str().unwrap()], "the PIN is wrong")] {
        let checked = store(&appliance, &[&["check"], more].concat()).output().unwrap();
        assert!(!checked.status.success() && told(&checked).contains(words), "{}", told(&checked));
    }
    // Named from where the operator stands.
    let checked = store(&appliance, &["check", "--json", "--pin", "tpm-pin"]).current_dir(credentials.path()).output().unwrap();
    assert!(checked.status.success(), "{}", told(&checked));
    assert_eq!(report(&checked)["without_keys"], Value::Null);
}
