//! The demo's way: a telephone call in, a redacted transcript out.

use crate::shared;
use crate::support::audio;
use crate::support::client::words;
use crate::support::scan::contains_any_case;

/// What is planted in the sample call and must not come out (packaging/sample/script.txt).
pub const PLANTED: &[&str] = &["Amina", "Hassan", "Joseph", "Daniel", "Nairobi", "Mombasa", "nine years", "23456789", "dot com"];

#[test]
fn the_sample_call_comes_out_redacted_with_times_for_both_channels() {
    let client = shared().client("counsellor", "way");
    let (id, transcript) = client.transcribed(&audio::sample_call());

    let text = words(&transcript);
    for planted in PLANTED.iter().chain(&["0712"]) {
        assert!(!contains_any_case(text.as_bytes(), planted), "{planted} in {text}");
    }
    for placeholder in ["[PERSON_1]", "[LOCATION_", "[PHONE_", "[NATIONAL_ID_", "[AGE_"] {
        assert!(text.contains(placeholder), "no {placeholder} in {text}");
    }
    let utterances = transcript["utterances"].as_array().unwrap();
    let channels: std::collections::BTreeSet<u64> = utterances.iter().map(|utterance| utterance["channel"].as_u64().unwrap()).collect();
    assert_eq!(channels, [0, 1].into());
    let starts: Vec<u64> = utterances.iter().map(|utterance| utterance["start_ms"].as_u64().unwrap()).collect();
    assert!(starts.is_sorted(), "{starts:?}");
    for format in ["text", "srt", "vtt"] {
        let shown = client.get(&format!("/api/v1/calls/{id}/transcript?format={format}"));
        assert_eq!(shown.status, 200);
        assert!(shown.text().contains("[PERSON_1]"), "{}", shown.text());
    }
}

#[test]
fn events_replay_from_any_number_and_end_with_the_final_state() {
    let client = shared().client("counsellor", "way");
    let id = client.accepted_call(&audio::librivox());
    let all = client.get(&format!("/api/v1/calls/{id}/events")).text();
    let numbers: Vec<u64> = all.lines().filter_map(|line| line.strip_prefix("id:")?.trim().parse().ok()).collect();

    let last = *numbers.last().unwrap();
    let resumed =
        client.request("GET", &format!("/api/v1/calls/{id}/events"), &["--header", &format!("Last-Event-ID: {}", last - 1)]).text();

    assert!(numbers.is_sorted(), "{numbers:?}");
    assert!(all.contains("\"progress\"") && all.contains("\"transcribe\""), "{all}");
    let resumed_numbers: Vec<u64> = resumed.lines().filter_map(|line| line.strip_prefix("id:")?.trim().parse().ok()).collect();
    assert_eq!(resumed_numbers, [last], "{resumed}");
    assert!(resumed.contains("\"done\""), "{resumed}");
}

#[test]
fn an_erased_call_is_gone_from_every_endpoint_and_from_the_disk() {
    let appliance = shared();
    let client = appliance.client("counsellor", "way");
    let supervisor = appliance.client("supervisor", "way");
    let (id, _) = client.transcribed(&audio::librivox());

    assert_eq!(supervisor.delete(&format!("/api/v1/calls/{id}")).status, 204);

    for path in ["", "/transcript?format=json", "/events", "/export?format=json"] {
        client.get(&format!("/api/v1/calls/{id}{path}")).assert_problem(404, "not-found");
    }
    let left: Vec<_> =
        crate::support::scan::files_below(&appliance.state()).into_iter().filter(|file| file.to_string_lossy().contains(&id)).collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn a_cancelled_call_stops_at_once_and_stays_cancelled() {
    let client = shared().client("counsellor", "way");
    let folder = tempfile::TempDir::new().unwrap();
    let long = folder.path().join("long.wav");
    audio::converted(&audio::librivox(), &long, &["-filter_complex", "aloop=loop=30:size=200000"]);
    let id = client.accepted_call(&long);

    let cancelled = client.request("POST", &format!("/api/v1/calls/{id}/cancel"), &[]);

    assert_eq!(cancelled.status, 200, "{}", cancelled.text());
    assert_eq!(client.finished(&id)["state"], "cancelled");
    let again = client.request("POST", &format!("/api/v1/calls/{id}/cancel"), &[]);
    assert_eq!(again.status, 200);
}

#[test]
fn an_export_is_one_document_with_metadata_and_redacted_transcript() {
    let client = shared().client("counsellor", "way");
    let (id, transcript) = client.transcribed(&audio::librivox());

    let export = client.get(&format!("/api/v1/calls/{id}/export?format=json")).json();

    assert_eq!(export["schema"], "salama.call-export/1");
    assert_eq!(export["call"]["id"], id.as_str());
    assert_eq!(export["metadata"]["consent"]["basis"], "caller");
    assert_eq!(export["transcript"]["utterances"], transcript["utterances"]);
}

#[test]
fn text_is_redacted_without_being_stored() {
    let client = shared().client("counsellor", "way");

    let reply = client.post_json("/api/v1/text/redact", &serde_json::json!({"text": "Call Wanjiku in Kisumu on +254 712 345 678."}));

    assert_eq!(reply.status, 200, "{}", reply.text());
    assert_eq!(reply.json()["text"], "Call [PERSON_1] in [LOCATION_1] on [PHONE_1].");
}

#[test]
fn calls_are_listed_newest_first_page_by_page() {
    let client = shared().client("counsellor", "lister");
    let first = client.accepted_call(&audio::librivox());
    let second = client.accepted_call(&audio::librivox());

    let page = client.get("/api/v1/calls?limit=1").json();
    let rest = client.get(&format!("/api/v1/calls?limit=1&cursor={}", page["next"].as_str().unwrap())).json();

    assert_eq!(page["calls"][0]["id"], second.as_str());
    assert_eq!(rest["calls"][0]["id"], first.as_str());
    assert!(rest["next"].is_null());
}
