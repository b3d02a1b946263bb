//! The disk is full, or nearly, or fills up in the middle of an upload: a clear answer, nothing lost, and no restart afterwards.

use std::fs;

use serde_json::json;

use crate::support::appliance::{Appliance, Settings};
use crate::support::audio;
use crate::support::client::{CONSENT, Client};
use crate::support::disk::SmallDisk;

/// As the fixture sets it.
const RESERVE: u64 = 64 << 20;
const STEP: u64 = 64 << 10;

/// Whether an upload was taken; if not, it must have been refused as it should.
fn taken(client: &Client, recording: &std::path::Path) -> Option<String> {
    let reply = client.post_call(recording, CONSENT, &[]);
    if reply.status == 202 {
        return Some(reply.json()["id"].as_str().unwrap().to_owned());
    }
    reply.assert_problem(507, "disk-full");
    assert!(reply.text().contains("Erase calls or give the appliance a larger disk"), "{}", reply.text());
    None
}

#[test]
fn uploads_are_refused_while_the_disk_is_full_and_taken_again_without_a_restart() {
    let mut appliance = Appliance::provision(&Settings { more: "[limits]\nuploads_per_minute = 600\n".to_owned(), ..Settings::default() });
    let disk = SmallDisk::over(&appliance.state(), 160);
    appliance.launch_by(disk.launcher());
    appliance.run();
    let client = appliance.client("counsellor", "disk");
    let monitor = appliance.client("monitor", "disk");
    let recording = appliance.path("silence.wav");
    audio::silence(&recording, 20);
    let (first, _) = client.transcribed(&recording);
    let steps = fs::metadata(&recording).unwrap().len() / STEP + 2;
    let free: Vec<u64> =
        [0, STEP, 1 << 20, RESERVE / 2, RESERVE - STEP].into_iter().chain((0..steps).map(|step| RESERVE + step * STEP)).collect();
    let (mut accepted, mut refused) = (Vec::new(), 0);

    for free in free {
        disk.fill(free);
        let ready = monitor.get("/health/ready");
        if free < RESERVE {
            assert_eq!((ready.status, &ready.json()["status"]), (503, &json!("degraded")), "{free}");
            assert_eq!(ready.json()["troubles"], json!([{ "part": "disk", "trouble": "low" }]), "{free}");
        }
        match taken(&client, &recording) {
            Some(call) => accepted.push(call),
            None => refused += 1,
        }
        assert_eq!(client.get(&format!("/api/v1/calls/{first}/transcript")).status, 200, "{free}");
        assert_eq!(client.get(&format!("/api/v1/calls/{first}/export")).status, 200, "{free}");
    }
    disk.relieve();

    let (last, _) = client.transcribed(&recording);
    accepted.extend([first, last]);
    for call in &accepted {
        assert_eq!(client.finished(call)["state"], "done", "{call}");
    }
    assert!(refused > 5 && accepted.len() > 2, "{refused} refused, {} accepted", accepted.len());
    assert_eq!(client.get("/api/v1/calls?limit=200").json()["calls"].as_array().unwrap().len(), accepted.len());
    assert_eq!(disk.recordings(), accepted.len(), "a refused upload leaves no file");
    assert_eq!(monitor.get("/health/ready").json()["status"], "ready");
}
