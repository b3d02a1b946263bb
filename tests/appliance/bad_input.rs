//! Bad input of every kind ends as one clear problem or as a failed call with a reason, and loses nothing.

use std::fs;
use std::io::Write as _;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::json;
use tempfile::TempDir;

use crate::shared;
use crate::support::appliance::{Appliance, Settings};
use crate::support::audio;
use crate::support::client::{CONSENT, Client};

/// A recording that is accepted and then fails for a reason.
fn failure_of(client: &Client, recording: &Path) -> String {
    let id = client.accepted_call(recording);
    let call = client.finished(&id);
    assert_eq!(call["state"], "failed", "{call}");
    client.get(&format!("/api/v1/calls/{id}/transcript")).assert_problem(409, "no-transcript");
    call["failure"].as_str().unwrap().to_owned()
}

fn file(folder: &TempDir, name: &str, bytes: &[u8]) -> PathBuf {
    let path = folder.path().join(name);
    fs::write(&path, bytes).unwrap();
    path
}

#[test]
fn recordings_that_are_no_audio_fail_with_the_reason() {
    let client = shared().client("counsellor", "bad");
    let folder = TempDir::new().unwrap();
    let clip = fs::read(audio::librivox()).unwrap();
    let three_channels = folder.path().join("three.wav");
    audio::ffmpeg(&["-f", "lavfi", "-i", "anullsrc=r=8000:cl=2.1:d=2", three_channels.to_str().unwrap()]);
    let slow = folder.path().join("slow.wav");
    audio::ffmpeg(&["-f", "lavfi", "-i", "anullsrc=r=4000:cl=mono:d=2", slow.to_str().unwrap()]);

    assert_eq!(failure_of(&client, &file(&folder, "text.wav", b"This is no recording but a letter.")), "not_audio");
    assert_eq!(failure_of(&client, &file(&folder, "cut.wav", &clip[..clip.len() / 2])), "truncated");
    assert_eq!(failure_of(&client, &three_channels), "channels");
    assert_eq!(failure_of(&client, &slow), "sample_rate");
}

#[test]
fn a_recording_longer_than_the_limit_fails_with_the_reason() {
    let appliance = Appliance::start_with(&Settings { more: "[jobs]\nmax_duration = \"1 min\"\n".to_owned(), ..Settings::default() });
    let long = appliance.path("long.wav");
    audio::silence(&long, 61);
    assert_eq!(failure_of(&appliance.client("counsellor", "long"), &long), "too_long");
}

#[test]
fn a_recording_without_bytes_is_refused() {
    let client = shared().client("counsellor", "bad");
    let folder = TempDir::new().unwrap();
    client.post_call(&file(&folder, "empty.wav", b""), CONSENT, &[]).assert_problem(422, "empty-recording");
}

#[test]
fn metadata_that_policy_does_not_accept_is_refused_with_the_field() {
    let client = shared().client("counsellor", "bad");
    let clip = audio::librivox();
    let unknown = client.post_call(&clip, r#"{"consent":{"basis":"caller","purposes":["transcription"]},"insecure":true}"#, &[]);
    let none = client.post_call(&clip, "{}", &[]);
    let other_purpose = client.post_call(&clip, r#"{"consent":{"basis":"caller","purposes":["research"]}}"#, &[]);
    let broken = client.post_call(&clip, "{", &[]);

    unknown.assert_problem(422, "invalid-metadata");
    assert!(unknown.text().contains("insecure"), "{}", unknown.text());
    none.assert_problem(422, "consent-required");
    assert!(none.text().contains("consent"), "{}", none.text());
    other_purpose.assert_problem(422, "consent-required");
    broken.assert_problem(400, "malformed-json");
}

#[test]
fn an_upload_that_is_refused_while_it_comes_in_gets_its_answer_over_both_protocols() {
    let (counsellor, monitor) = (shared().client("counsellor", "early"), shared().client("monitor", "early"));
    let folder = TempDir::new().unwrap();
    let large = file(&folder, "large.wav", &vec![7; 8_000_000]);
    for version in ["--http1.1", "--http2"] {
        for _ in 0..3 {
            counsellor.post_call(&large, "{}", &[version]).assert_problem(422, "consent-required");
            monitor.post_call(&large, CONSENT, &[version]).assert_problem(403, "not-allowed");
        }
    }
}

#[test]
fn a_number_or_name_behind_invisible_characters_is_masked_and_every_script_is_read() {
    let client = shared().client("counsellor", "hidden");
    let redacted = |text: &str| {
        let reply = client.post_json("/api/v1/text/redact", &json!({ "text": text }));
        assert_eq!(reply.status, 200, "{}", reply.text());
        reply.json()["text"].as_str().unwrap().to_owned()
    };
    for hidden in [
        "My number is 07\u{200b}12\u{200d} 345\u{2060} 678",
        "My number is 07\u{feff}12 3\u{ad}45 678",
        "My number is \u{2067}0712 345\u{2069} 678",
        "My number is \u{202d}0712 345 678\u{202c}",
        "رقمي هو \u{200f}٠٧١٢ ٣٤٥ ٦٧٨\u{200f}",
    ] {
        assert!(redacted(hidden).contains("[PHONE_1]"), "{hidden:?}: {}", redacted(hidden));
    }
    // Shown as 0712345678 while the control is there; without it, what is read is what the rules read.
    assert!(!redacted("call \u{202e}8765432170\u{202c} now").contains('\u{202e}'));
    assert_eq!(redacted("می\u{200c}خواهم بروم"), "می\u{200c}خواهم بروم");
    assert_eq!(redacted("Naomba msaada, mtoto wangu anaumwa."), "Naomba msaada, mtoto wangu anaumwa.");
    client.post_json("/api/v1/text/redact", &json!({ "text": "a\0b" })).assert_problem(422, "invalid-body");
}

#[test]
fn a_recording_larger_than_the_limit_is_refused_before_it_is_read() {
    let client = shared().client("counsellor", "bad");
    let reply = client.request(
        "POST",
        "/api/v1/calls",
        &[
            "--http1.1",
            "--header",
            "Content-Type: application/octet-stream",
            "--header",
            "Content-Length: 500000001",
            "--header",
            "Expect:",
            "--data-binary",
            "x",
        ],
    );
    reply.assert_problem(413, "too-large");
}

#[test]
fn text_of_no_or_of_10_001_characters_is_refused() {
    let client = shared().client("counsellor", "bad");
    let redact = |text: &str| client.post_json("/api/v1/text/redact", &json!({ "text": text }));

    redact("").assert_problem(422, "text-length");
    redact(&"ä".repeat(10_001)).assert_problem(422, "text-length");
    assert_eq!(redact(&"ä".repeat(10_000)).status, 200);
}

#[test]
fn a_call_id_that_is_a_path_names_no_file() {
    let client = shared().client("counsellor", "bad");
    for id in ["../../../../etc/passwd", "..%2F..%2F..%2Fetc%2Fpasswd", "%2e%2e", "0", "ABCDEF0123456789ABCDEF0123456789"] {
        let reply = client.get(&format!("/api/v1/calls/{id}"));
        assert!(reply.status == 404 || reply.status == 400, "{id}: {} {}", reply.status, reply.text());
        assert!(!reply.text().contains("root:"), "{}", reply.text());
    }
}

#[test]
fn the_same_post_twice_makes_one_call_and_another_body_is_a_conflict() {
    let client = shared().client("counsellor", "twice");
    let key = &["--header", "Idempotency-Key: call-2026-11-22-0001"];
    let first = client.post_call(&audio::librivox(), CONSENT, key);
    let second = client.post_call(&audio::librivox(), CONSENT, key);
    let other = client.post_call(&audio::librivox(), r#"{"consent":{"basis":"guardian","purposes":["transcription"]}}"#, key);
    let mixed_up = client.post_call(&audio::sample_call(), CONSENT, key);

    assert_eq!(first.status, 202, "{}", first.text());
    assert_eq!(second.status, 200, "{}", second.text());
    assert_eq!(second.json()["id"], first.json()["id"]);
    other.assert_problem(409, "idempotency-conflict");
    mixed_up.assert_problem(409, "idempotency-conflict");
    assert_eq!(client.get("/api/v1/calls").json()["calls"].as_array().unwrap().len(), 1);
}

#[test]
fn a_post_that_is_cut_half_way_leaves_nothing() {
    let client = shared().client("counsellor", "cut");
    let folder = TempDir::new().unwrap();
    let large = file(&folder, "large.bin", &vec![7; 3_000_000]);
    let form = format!("audio=@{};type=application/octet-stream", large.display());
    let metadata = format!("metadata={CONSENT};type=application/json");
    let mut curl = client.command("/api/v1/calls");
    let cut = curl.args(["--form", &metadata, "--form", &form, "--limit-rate", "500k", "--max-time", "2"]).output().unwrap();

    assert!(!cut.status.success(), "the upload was not cut");
    assert_eq!(client.get("/api/v1/calls").json()["calls"], json!([]));
}

#[test]
fn no_certificate_and_a_certificate_of_another_ca_end_in_the_handshake() {
    let folder = TempDir::new().unwrap();
    let foreign = folder.path().join("foreign.pem");
    let made = Command::new("openssl")
        .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "1", "-subj", "/CN=amina"])
        .args(["-addext", "subjectAltName=URI:salama://testbox/counsellor/amina"])
        .arg("-keyout")
        .arg(folder.path().join("key.pem"))
        .arg("-out")
        .arg(folder.path().join("certificate.pem"))
        .output()
        .unwrap();
    assert!(made.status.success());
    let both = [fs::read(folder.path().join("certificate.pem")).unwrap(), fs::read(folder.path().join("key.pem")).unwrap()].concat();
    fs::write(&foreign, both).unwrap();

    let stranger = shared().stranger().get("/health");
    let foreigner = Client::new(&shared().base(), &shared().path("ca.pem"), Some(&foreign)).get("/health");

    for refused in [stranger, foreigner] {
        assert_eq!(refused.status, 0, "{}", refused.text());
        assert!(refused.error.contains("alert") || refused.error.contains("SSL"), "{}", refused.error);
    }
}

#[test]
fn tls_1_2_is_refused() {
    let client = shared().client("monitor", "old-tls");
    let reply = client.request("GET", "/health", &["--tls-max", "1.2"]);
    assert_eq!(reply.status, 0, "{}", reply.text());
}

#[test]
fn bytes_that_are_no_tls_close_the_connection_and_harm_nobody() {
    let mut socket = TcpStream::connect(shared().address()).unwrap();
    socket.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
    let mut answer = Vec::new();
    let _ = std::io::Read::read_to_end(&mut socket, &mut answer);
    assert!(!answer.starts_with(b"HTTP"));
    assert_eq!(shared().client("monitor", "after").get("/health").status, 200);
}
