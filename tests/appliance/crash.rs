//! Processes that are killed in the middle: one call fails or waits, nothing acknowledged is lost.

use std::process::Command;
use std::time::{Duration, Instant};

use crate::support::appliance::Appliance;
use crate::support::audio;

/// About a minute and a half of speech: long enough to be met in the middle.
fn long_recording(appliance: &Appliance) -> std::path::PathBuf {
    let long = appliance.path("long.wav");
    audio::converted(&audio::librivox(), &long, &["-filter_complex", "aloop=loop=12:size=200000"]);
    long
}

fn kill(pid: u32) {
    assert!(Command::new("kill").args(["-KILL", &pid.to_string()]).status().unwrap().success());
}

/// The fork server ends by itself when its channel does.
fn until_gone(pid: u32) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while std::path::Path::new(&format!("/proc/{pid}/exe")).exists() {
        assert!(Instant::now() < deadline, "the fork server outlives the daemon");
        std::thread::yield_now();
    }
}

/// Waits, by its event stream, until the call runs; returns when transcription has begun.
fn until_running(client: &crate::support::client::Client, id: &str) {
    until_at(client, id, "transcribe");
}

/// Waits, by its event stream, until the call is at `stage`.
pub fn until_at(client: &crate::support::client::Client, id: &str, stage: &str) {
    use std::io::BufRead as _;
    let mut stream =
        client.command(&format!("/api/v1/calls/{id}/events")).arg("--no-buffer").stdout(std::process::Stdio::piped()).spawn().unwrap();
    let lines = std::io::BufReader::new(stream.stdout.take().unwrap()).lines();
    let found = lines.map_while(Result::ok).any(|line| line.contains(stage));
    stream.kill().unwrap();
    stream.wait().unwrap();
    assert!(found, "the call ended before it ran");
}

#[test]
fn a_child_that_is_killed_fails_its_call_and_the_next_call_is_served() {
    let appliance = Appliance::start();
    let client = appliance.client("counsellor", "crash");
    let id = client.accepted_call(&long_recording(&appliance));
    until_running(&client, &id);
    let [worker] = Appliance::children_of(appliance.pid(), "salama-worker")[..] else { panic!("no fork server") };
    let children = Appliance::children_of(worker, "salama");
    assert_eq!(children.len(), 1, "one child a call");

    kill(children[0]);

    let call = client.finished(&id);
    assert_eq!((&call["state"], &call["failure"]), (&"failed".into(), &"worker_died".into()), "{call}");
    client.transcribed(&audio::librivox());
}

#[test]
fn a_daemon_that_is_killed_finishes_every_acknowledged_call_after_its_restart() {
    let mut appliance = Appliance::start();
    let client = appliance.client("counsellor", "crash");
    let running = client.accepted_call(&long_recording(&appliance));
    let waiting = client.accepted_call(&audio::librivox());
    until_running(&client, &running);

    appliance.kill();
    appliance.run();

    let client = client.at(&appliance.base());
    for id in [running, waiting] {
        let call = client.finished(&id);
        assert_eq!(call["state"], "done", "{call}");
    }
}

#[test]
fn a_dead_fork_server_or_keeper_ends_the_daemon_for_systemd_to_restart() {
    for program in ["salama-worker", "salama-keeper"] {
        let mut appliance = Appliance::start();
        let [pid] = Appliance::children_of(appliance.pid(), program)[..] else { panic!("no {program}") };

        kill(pid);

        assert!(!appliance.ended().success(), "{program}: {}", appliance.log());
        assert!(appliance.log().contains(program), "{}", appliance.log());
    }
}

#[test]
fn a_stopped_daemon_leaves_no_process_and_keeps_the_running_call() {
    let mut appliance = Appliance::start();
    let client = appliance.client("counsellor", "stop");
    let id = client.accepted_call(&long_recording(&appliance));
    until_running(&client, &id);
    let [worker] = Appliance::children_of(appliance.pid(), "salama-worker")[..] else { panic!("no fork server") };

    assert!(appliance.stop().success(), "{}", appliance.log());

    until_gone(worker);
    appliance.run();
    assert_eq!(client.at(&appliance.base()).finished(&id)["state"], "done");
}
