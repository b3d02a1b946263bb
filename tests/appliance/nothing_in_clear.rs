//! What is planted in recordings, texts and names is in clear nowhere but in the child that works on it; nor is any key where it does
//! not belong. The searches themselves are tried out in [`crate::searches`].

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::time::SystemTime;

use serde_json::json;
use tempfile::TempDir;

use crate::crash::until_at;
use crate::support::appliance::{Appliance, Settings};
use crate::support::client::{CONSENT, Reply};
use crate::support::image::Disk;
use crate::support::journal::Journal;
use crate::support::keys::OpenedCopy;
use crate::support::needles::{Needles, Search};
use crate::support::plants::{self, Recording};
use crate::support::process::{Paused, memory_holds, open_files_hold};
use crate::support::scan::{files_below, files_of_ours_since};

/// Words that a recogniser hears well and that stand in no list of words or names.
const SAID: &str =
    "The crocodile and the rhinoceros were hiding underneath the rhododendron. A chimpanzee was swallowed by a hippopotamus.";

/// What the keys are called that a process may hold while it lives.
const INDEX_KEY: &str = "the long-term key `index`";
const RECORD_KEK: &str = "the long-term key `record kek`";

/// Everything unusual that is sent in.
struct Plants {
    folder: TempDir,
    short: Recording,
    telephone: Recording,
    long: Recording,
    names: Vec<String>,
    needles: Needles,
}

impl Plants {
    fn sown() -> Self {
        let folder = TempDir::new().unwrap();
        let short = plants::spoken(folder.path(), SAID, 1);
        let telephone = plants::telephone(&short);
        let long = plants::spoken(folder.path(), SAID, 5);
        let names: Vec<String> = (0..8).map(|_| plants::name()).chain([plants::number()]).collect();
        let mut needles = Needles::default();
        names.iter().for_each(|name| needles.word(name));
        SAID.split(|letter: char| !letter.is_alphabetic()).filter(|word| word.len() > 7).for_each(|word| needles.word(word));
        for (name, recording) in [("the short call", &short), ("the telephone call", &telephone), ("the long call", &long)] {
            needles.recording(name, &recording.samples);
            needles.upload(name, &fs::read(&recording.file).unwrap());
        }
        Self { folder, short, telephone, long, names, needles }
    }

    /// A file that is no recording, and one that ends in the middle.
    fn unreadable(&self) -> [std::path::PathBuf; 2] {
        let (letter, cut) = (self.folder.path().join("letter.wav"), self.folder.path().join("cut.wav"));
        fs::write(&letter, format!("This is no recording but a letter to {}, on {}.", self.names[0], self.names[8])).unwrap();
        let whole = fs::read(&self.short.file).unwrap();
        fs::write(&cut, &whole[..whole.len() / 2]).unwrap();
        [letter, cut]
    }
}

/// The calls of a day, by what becomes of them.
struct Calls {
    done: String,
    erased: String,
    running: String,
    all: Vec<String>,
}

/// Texts, calls that end well, calls that fail, one that is cancelled, one that runs.
fn first_half(appliance: &Appliance, plants: &Plants) -> Calls {
    let client = appliance.client("counsellor", "clear");
    let [name, reference, key, file, ..] = &plants.names[..] else { panic!("too few names") };
    let text = format!("I am {name} from Nakuru, call me on {}.", plants.names[8]);
    assert_eq!(client.post_json("/api/v1/text/redact", &json!({ "text": text })).status, 200);

    let metadata = format!(r#"{{"consent":{{"basis":"caller","purposes":["transcription"]}},"reference":"{reference}"}}"#);
    let form = format!("audio=@{};type=audio/wav;filename={file}.wav", plants.short.file.display());
    let metadata = format!("metadata={metadata};type=application/json");
    let key = format!("Idempotency-Key: {key}");
    let arguments = ["--form", &metadata, "--form", &form, "--header", &key];
    let done = client.request("POST", "/api/v1/calls", &arguments).json()["id"].as_str().unwrap().to_owned();
    assert_eq!(client.finished(&done)["state"], "done");
    assert_eq!(client.get(&format!("/api/v1/calls/{done}/export?format=json")).json()["metadata"]["reference"], reference.as_str());

    let (erased, _) = client.transcribed(&plants.telephone.file);
    let failed = plants.unreadable().map(|file| client.accepted_call(&file));
    failed.iter().for_each(|id| assert_eq!(client.finished(id)["state"], "failed"));
    let cancelled = client.accepted_call(&plants.long.file);
    until_at(&client, &cancelled, "speech");
    client.request("POST", &format!("/api/v1/calls/{cancelled}/cancel"), &[]);
    let running = client.accepted_call(&plants.long.file);
    until_at(&client, &running, "speech");
    let mut all = vec![done.clone(), erased.clone(), cancelled, running.clone()];
    all.extend(failed);
    Calls { done, erased, running, all }
}

/// Requests that are refused, and what a monitor sees. Each says a planted name where a client can say something.
fn refusals(appliance: &Appliance, plants: &Plants, failed: &str) -> Vec<Reply> {
    let client = appliance.client("counsellor", "clear");
    let monitor = appliance.client("monitor", "clear");
    let [name, _, key, ..] = &plants.names[..] else { panic!("too few names") };
    let metadata = |json: String| client.post_call(&plants.short.file, &json, &["--header", &format!("User-Agent: {name}")]);
    let consent = |field: String| metadata(format!(r#"{{"consent":{{"basis":"caller","purposes":["transcription"]}},{field}}}"#));
    let redact =
        |body: &str| client.request("POST", "/api/v1/text/redact", &["--header", "Content-Type: application/json", "--data-binary", body]);
    let used = client.post_call(&plants.telephone.file, CONSENT, &["--header", &format!("Idempotency-Key: {key}")]);
    let refused = vec![
        metadata(format!(r#"{{"consent":"{name}"}}"#)),
        metadata(format!(r#"{{"consent":{{"basis":"{name}","purposes":["transcription"]}}}}"#)),
        metadata(format!(r#"{{"consent":{{"basis":"caller","purposes":["{name}"]}}}}"#)),
        consent(format!(r#""language":"{name}""#)),
        consent(format!(r#""recorded_at":"{name}""#)),
        consent(format!(r#""reference":["{name}"]"#)),
        redact(&format!(r#"{{"text":["{name}"]}}"#)),
        redact(&format!(r#"{{"text":"{name}"#)),
        client.get(&format!("/api/v1/calls?cursor={name}")),
        client.get(&format!("/api/v1/calls?limit={name}")),
        client.get(&format!("/api/v1/calls/{name}")),
        client.get(&format!("/{name}")),
        client.request("POST", "/api/v1/calls", &["--header", &format!("Content-Type: text/{name}"), "--data-binary", name]),
        client.request("POST", "/api/v1/calls", &["--http1.1", "--form", &format!("{name}={name}")]),
        client.post_call(&plants.short.file, CONSENT, &["--header", &format!("Idempotency-Key: {name} {name}")]),
        client.get(&format!("/api/v1/calls/{failed}/transcript?format=json")),
        used,
    ];
    refused.iter().for_each(|reply| assert!((400..500).contains(&reply.status), "{} {}", reply.status, reply.text()));
    let seen = ["/health", "/metrics"].map(|path| monitor.get(path)).into_iter();
    let listed = ["/api/v1/calls", "/api/v1/whoami", &format!("/api/v1/calls/{failed}")].map(|path| client.get(path)).into_iter();
    refused.into_iter().chain(seen.chain(listed).inspect(|reply| assert_eq!(reply.status, 200))).collect()
}

/// The core, its keeper and its fork server.
fn processes(appliance: &Appliance) -> [u32; 3] {
    let core = appliance.pid();
    let one = |name| match Appliance::children_of(core, name)[..] {
        [pid] => pid,
        _ => panic!("no {name}"),
    };
    [core, one("salama-keeper"), one("salama-worker")]
}

/// Where something was found that should not be there.
#[derive(Default)]
struct Found(Vec<String>);

impl Found {
    fn note(&mut self, place: &str, found: impl IntoIterator<Item = String>) {
        self.0.extend(found.into_iter().map(|what| format!("{place}: {what}")));
    }

    fn in_processes(&mut self, when: &str, appliance: &Appliance, search: &Search) {
        // The keeper is where long-term keys are; what is left of its start it keeps in locked memory until its end.
        let own: [&[&str]; 3] = [&[INDEX_KEY], &["the long-term key", "the root key"], &[]];
        for ((pid, name), own) in processes(appliance).into_iter().zip(["core", "keeper", "fork server"]).zip(own) {
            let held = memory_holds(pid, search).into_iter().chain(open_files_hold(pid, search));
            let foreign = held.filter(|(what, _)| !own.iter().any(|own| what.starts_with(own)));
            self.note(&format!("{name} {when}"), foreign.map(|(what, mapping)| format!("{what} in {mapping}")));
        }
    }

    fn in_files(&mut self, place: &str, folder: &Path, search: &Search) {
        files_below(folder).iter().for_each(|file| self.note(&format!("{place} {}", file.display()), search.file(file)));
    }
}

/// Waits until the fork server has no child left.
fn until_no_child(fork_server: u32) {
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(60);
    while !Appliance::children_of(fork_server, "salama").is_empty() {
        assert!(std::time::Instant::now() < deadline, "a child does not end");
        std::thread::yield_now();
    }
}

fn names_of(found: BTreeSet<(String, String)>) -> BTreeSet<String> {
    found.into_iter().map(|(what, _)| what).collect()
}

#[test]
fn nothing_planted_and_no_key_is_in_clear_anywhere_after_calls_a_kill_and_a_restart() {
    let began = SystemTime::now();
    let disk = Disk::of_megabytes(256);
    let journal = Journal::start();
    let state = Some(disk.path().join("state"));
    let mut appliance = Appliance::start_with(&Settings { launcher: journal.launcher(), state, wiretap: true, ..Settings::default() });
    let mut plants = Plants::sown();
    let [core, keeper, fork_server] = processes(&appliance);
    let vocabulary = names_of(memory_holds(fork_server, &plants.needles.search()));
    plants.needles = plants.needles.clone().without(&vocabulary);

    // Act: half a day, a look while a child is held in the middle of a call, an erasure.
    let calls = first_half(&appliance, &plants);
    let [child] = Appliance::children_of(fork_server, "salama")[..] else { panic!("no child") };
    let paused = Paused::new(child);
    let copy = OpenedCopy::of(&appliance);
    let said: BTreeSet<String> =
        copy.words_said(&calls.done).iter().map(|word| word.trim_matches(|letter: char| !letter.is_alphabetic()).to_lowercase()).collect();
    let heard = said.iter().filter(|word| plants.needles.patterns().iter().any(|(name, _)| name == *word)).count();
    assert!(heard >= 3, "the recogniser heard nothing that can be searched for: {said:?}, {vocabulary:?}");
    for (name, key) in calls.all.iter().flat_map(|call| copy.call_keys(call)).chain(copy.long_term_keys(&appliance)) {
        plants.needles.key(&name, &key);
    }
    let search = plants.needles.search();
    // The controls: what works on a call now holds it.
    let at_work = [names_of(memory_holds(child, &search)), names_of(memory_holds(core, &search)), names_of(memory_holds(keeper, &search))];
    drop(paused);
    drop(copy);
    let supervisor = appliance.client("supervisor", "clear");
    for call in [&calls.running, &calls.erased] {
        assert_eq!(supervisor.delete(&format!("/api/v1/calls/{call}")).status, 204);
    }
    until_no_child(fork_server);
    let mut found = Found::default();
    found.in_processes("after the first half", &appliance, &search);
    let replies = refusals(&appliance, &plants, calls.all.last().unwrap());
    found.in_processes("after refusals", &appliance, &search);

    // Act: a kill in the middle of a call, the other half, an end as systemd ends it.
    let client = appliance.client("counsellor", "clear");
    let survivor = client.accepted_call(&plants.short.file);
    until_at(&client, &survivor, "speech");
    appliance.kill();
    appliance.run();
    let client = client.at(&appliance.base());
    assert_eq!(client.finished(&survivor)["state"], "done");
    for format in ["text", "json", "vtt"] {
        assert_eq!(client.get(&format!("/api/v1/calls/{survivor}/transcript?format={format}")).status, 200);
    }
    until_no_child(processes(&appliance)[2]);
    OpenedCopy::of(&appliance).call_keys(&survivor).iter().for_each(|(name, key)| plants.needles.key(name, key));
    let search = plants.needles.search();
    found.in_processes("after the second half", &appliance, &search);
    assert!(appliance.stop().success(), "{}", appliance.log());

    // Assert.
    disk.flush();
    found.note("the disk", search.file(&disk.image()));
    found.in_files("the state", &appliance.state(), &search);
    found.in_files("beside the state", appliance.path("").as_path(), &search);
    found.in_files("the run directory", &journal.root().join("run"), &search);
    found.note("the journal", search.bytes(&journal.exported()));
    found.note("the TPM's bus", search.bytes(&appliance.wiretap.as_ref().unwrap().heard()));
    for reply in &replies {
        found.note("a reply", search.bytes(&reply.body).into_iter().chain(search.bytes(reply.headers.as_bytes())));
    }
    for file in files_of_ours_since(began) {
        found.note(&file.display().to_string(), search.file(&file));
    }
    assert_eq!(found.0, Vec::<String>::new());
    assert!(!journal.entries("salamad").is_empty(), "the daemon wrote nothing to the journal");
    let [child, core, keeper] = at_work;
    assert!(child.iter().any(|what| what.contains("float samples")), "{child:?}");
    assert!(core.contains(&format!("the key of call {}", calls.running)) && core.contains(INDEX_KEY), "{core:?}");
    assert!(keeper.contains(RECORD_KEK), "{keeper:?}");
}
