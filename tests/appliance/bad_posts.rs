//! Posts that are cut, too many, too small or too large: one clear answer each, and nothing acknowledged is lost.

use std::fs;
use std::io::Write as _;
use std::net::TcpStream;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Barrier;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::shared;
use crate::support::appliance::{Appliance, Settings};
use crate::support::audio;
use crate::support::client::{CONSENT, Client};
use crate::support::raw::{self, Raw};

/// Longest wait for what an upload left to be cleared away.
const CLEARED_LIMIT: Duration = Duration::from_secs(60);

/// A post of `recording` as a form: head, metadata part, audio part's head, recording, end.
fn pieces(recording: &[u8]) -> [Vec<u8>; 5] {
    let metadata = format!("--XyZ\r\nContent-Disposition: form-data; name=\"metadata\"\r\n\r\n{CONSENT}\r\n");
    let audio = "--XyZ\r\nContent-Disposition: form-data; name=\"audio\"\r\n\r\n".to_owned();
    let end = "\r\n--XyZ--\r\n".to_owned();
    let length = metadata.len() + audio.len() + recording.len() + end.len();
    let head = format!(
        "POST /api/v1/calls HTTP/1.1\r\nhost: salama.test\r\nconnection: close\r\ncontent-type: multipart/form-data; boundary=XyZ\r\ncontent-length: {length}\r\n\r\n"
    );
    [head.into(), metadata.into(), audio.into(), recording.to_vec(), end.into()]
}

fn calls(client: &Client) -> Vec<Value> {
    client.get("/api/v1/calls?limit=200").json()["calls"].as_array().unwrap().clone()
}

/// Waits until there are as many files of recordings as calls.
fn until_only_calls_are_left(appliance: &Appliance, client: &Client) {
    let deadline = Instant::now() + CLEARED_LIMIT;
    let files = || fs::read_dir(appliance.state().join("audio")).unwrap().count();
    while files() != calls(client).len() {
        assert!(Instant::now() < deadline, "{} files, {} calls", files(), calls(client).len());
        std::thread::yield_now();
    }
}

#[test]
fn a_post_that_is_cut_at_any_stage_leaves_nothing_behind_and_the_daemon_serves_on() {
    let appliance = Appliance::start();
    let client = appliance.client("counsellor", "cut");
    let folder = TempDir::new().unwrap();
    let wav = folder.path().join("silence.wav");
    // Several sealed chunks, so that a cut finds some on disk.
    audio::silence(&wav, 40);
    let pieces = pieces(&fs::read(&wav).unwrap());
    let whole = pieces.concat();
    let border = |piece: usize| pieces[..piece].iter().map(Vec::len).sum::<usize>();

    let hello = raw::hello(&client);
    for cut in [0, 1, 5, hello.len() / 2, hello.len()] {
        TcpStream::connect(appliance.address()).unwrap().write_all(&hello[..cut]).unwrap();
    }
    for cut in [
        0,
        border(1) / 2,
        border(1) - 1,
        border(1),
        border(1) + 10,
        border(2) - 20,
        border(2) + 30,
        border(3),
        border(3) + 1,
        border(3) + 300_000,
        border(4) - 1,
        border(4),
        border(4) + 5,
        whole.len() - 1,
    ] {
        Raw::shaken(&client).send(&whole[..cut]);
    }
    until_only_calls_are_left(&appliance, &client);
    assert_eq!(calls(&client), Vec::<Value>::new());

    // Whoever leaves before the reply cannot know whether there is a call; if there is one, it is whole.
    Raw::shaken(&client).send(&whole);
    let (id, _) = client.transcribed(&wav);
    until_only_calls_are_left(&appliance, &client);
    let found = calls(&client);
    assert!((1..=2).contains(&found.len()) && found.iter().any(|call| call["id"] == id.as_str()), "{found:?}");
    for call in found {
        assert_eq!(client.finished(call["id"].as_str().unwrap())["state"], "done");
    }
}

#[test]
fn two_hundred_posts_at_once_are_each_taken_or_told_when_to_come_back() {
    const POSTS: usize = 200;
    let listen = "max_connections = 512\nmax_connections_per_source = 512";
    let more = "[limits]\nuploads_per_minute = 150\nheader_timeout = \"60 s\"\nhandshake_timeout = \"60 s\"\n[jobs]\nqueue = 40\n";
    let appliance = Appliance::start_with(&Settings { more: more.to_owned(), listen, ..Settings::default() });
    let client = appliance.client("counsellor", "crowd");
    let folder = TempDir::new().unwrap();
    let wav = folder.path().join("silence.wav");
    audio::silence(&wav, 1);
    let post = pieces(&fs::read(&wav).unwrap()).concat();
    let together = Barrier::new(POSTS);

    let replies: Vec<String> = std::thread::scope(|scope| {
        let one = || {
            let mut connection = Raw::shaken(&client);
            together.wait();
            connection.send(&post);
            connection.rest()
        };
        let posts: Vec<_> = (0..POSTS).map(|_| scope.spawn(one)).collect();
        posts.into_iter().map(|post| post.join().unwrap()).collect()
    });

    let mut accepted = Vec::new();
    for reply in &replies {
        let (head, body) = reply.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no reply: {reply:?}"));
        let body: Value = serde_json::from_str(body).unwrap_or_else(|error| panic!("{error}: {reply}"));
        if head.starts_with("HTTP/1.1 202") {
            accepted.push(body["id"].as_str().unwrap().to_owned());
        } else {
            assert!(head.starts_with("HTTP/1.1 429") || head.starts_with("HTTP/1.1 503"), "{reply}");
            assert!(head.contains("\r\nretry-after: ") && body["type"].as_str().unwrap().starts_with("urn:salama:problem:"), "{reply}");
        }
    }
    assert!((1..POSTS).contains(&accepted.len()), "{} accepted", accepted.len());
    for id in &accepted {
        assert_eq!(client.finished(id)["state"], "done", "{id}");
    }
    until_only_calls_are_left(&appliance, &client);
    assert_eq!(calls(&client).len(), accepted.len());
}

#[test]
fn a_recording_of_one_byte_is_taken_and_fails_with_the_reason() {
    let client = shared().client("counsellor", "one-byte");
    let folder = TempDir::new().unwrap();
    let byte = folder.path().join("one.wav");
    fs::write(&byte, b"R").unwrap();
    let call = client.finished(&client.accepted_call(&byte));
    assert_eq!((&call["state"], &call["failure"], &call["audio_bytes"]), (&json!("failed"), &json!("not_audio"), &json!(1)), "{call}");
}

/// Posts `bytes` zeros that nobody announced.
fn endless(client: &Client, version: &str, bytes: u64) -> (Option<i32>, String) {
    let mut zeros = Command::new("head").args(["-c", &bytes.to_string(), "/dev/zero"]).stdout(Stdio::piped()).spawn().unwrap();
    let mut curl = client.command("/api/v1/calls");
    curl.args(["--request", "POST", version, "--header", "Content-Type: application/octet-stream", "--header", "Expect:"])
        .args(["--header", &format!("Salama-Metadata: {CONSENT}"), "--upload-file", "-"])
        .stdin(zeros.stdout.take().unwrap());
    let reply = curl.output().unwrap();
    let _ = zeros.kill();
    zeros.wait().unwrap();
    (reply.status.code(), String::from_utf8_lossy(&reply.stdout).into_owned())
}

#[test]
fn a_recording_of_500_mb_and_one_byte_is_refused_announced_or_not_and_fills_nothing() {
    let appliance = shared();
    let client = appliance.client("counsellor", "huge");
    let folder = TempDir::new().unwrap();
    let sparse = folder.path().join("huge.wav");
    fs::File::create(&sparse).unwrap().set_len(500_000_001).unwrap();

    client.post_call(&sparse, CONSENT, &[]).assert_problem(413, "too-large");
    for version in ["--http1.1", "--http2"] {
        let (code, said) = endless(&client, version, 500_000_001);
        assert!(code == Some(0) && said.contains("urn:salama:problem:too-large"), "{version}: {code:?} {said}");
    }

    assert_eq!(calls(&client), Vec::<Value>::new());
    assert!(!holds_partial(&appliance.state().join("audio")), "the refused recording is still there");
}

/// Whether an upload is under way, as seen within the time in which one is cleared away.
fn holds_partial(audio: &Path) -> bool {
    let deadline = Instant::now() + CLEARED_LIMIT;
    let large = || {
        let sizes = fs::read_dir(audio).unwrap().filter_map(|entry| entry.ok()?.metadata().ok());
        sizes.map(|file| file.len()).any(|bytes| bytes > 100_000_000)
    };
    while large() {
        if Instant::now() > deadline {
            return true;
        }
        std::thread::yield_now();
    }
    false
}
