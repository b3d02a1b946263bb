//! Who may do what, seen from outside.

use serde_json::json;

use crate::shared;
use crate::support::audio;
use crate::support::client::CONSENT;

#[test]
fn whoami_says_role_and_name_of_the_certificate() {
    let who = shared().client("counsellor", "way").get("/api/v1/whoami").json();
    assert_eq!((&who["role"], &who["name"]), (&json!("counsellor"), &json!("way")));
}

#[test]
fn a_counsellor_does_not_see_the_calls_of_another() {
    let owner = shared().client("counsellor", "owner");
    let other = shared().client("counsellor", "other");
    let id = owner.accepted_call(&audio::librivox());
    owner.finished(&id);

    for path in ["", "/transcript", "/events", "/export?format=json"] {
        other.get(&format!("/api/v1/calls/{id}{path}")).assert_problem(404, "not-found");
    }
    other.delete(&format!("/api/v1/calls/{id}")).assert_problem(403, "not-allowed");
    assert_eq!(other.get("/api/v1/calls").json()["calls"], json!([]));
    assert_eq!(owner.get(&format!("/api/v1/calls/{id}/transcript")).status, 200);
}

#[test]
fn a_recorder_posts_and_watches_but_reads_nothing_back() {
    let recorder = shared().client("recorder", "pbx");
    let supervisor = shared().client("supervisor", "boss");
    let id = recorder.accepted_call(&audio::librivox());

    assert_eq!(recorder.finished(&id)["state"], "done");
    recorder.get(&format!("/api/v1/calls/{id}/transcript")).assert_problem(403, "not-allowed");
    recorder.delete(&format!("/api/v1/calls/{id}")).assert_problem(403, "not-allowed");
    assert_eq!(supervisor.get(&format!("/api/v1/calls/{id}/transcript")).status, 200);
}

#[test]
fn an_administrator_never_reads_call_content_and_a_monitor_only_watches() {
    let owner = shared().client("counsellor", "owner");
    let id = owner.accepted_call(&audio::librivox());
    owner.finished(&id);

    for role in ["admin", "monitor", "auditor", "case_worker", "model_steward"] {
        let client = shared().client(role, "nobody");
        client.get(&format!("/api/v1/calls/{id}/transcript")).assert_problem(403, "not-allowed");
        client.get(&format!("/api/v1/calls/{id}/export?format=json")).assert_problem(403, "not-allowed");
        client.post_call(&audio::librivox(), CONSENT, &[]).assert_problem(403, "not-allowed");
        client.post_json("/api/v1/text/redact", &json!({"text": "x"})).assert_problem(403, "not-allowed");
    }
    let metrics = shared().client("monitor", "nobody").get("/metrics");
    assert_eq!(metrics.status, 200);
    assert!(metrics.text().contains("salama_"), "{}", metrics.text());
    shared().client("counsellor", "owner").get("/metrics").assert_problem(403, "not-allowed");
}

#[test]
fn unknown_paths_and_methods_are_problems_too() {
    let client = shared().client("counsellor", "way");
    client.get("/api/v1/nothing").assert_problem(404, "no-such-path");
    client.request("PUT", "/api/v1/calls", &[]).assert_problem(405, "method-not-allowed");
}

#[test]
fn the_api_describes_itself() {
    let document = shared().client("counsellor", "way").get("/api/v1/openapi.json").json();
    assert!(document["openapi"].as_str().unwrap().starts_with("3.1"));
    assert!(document["paths"]["/api/v1/calls/{id}/transcript"]["get"].is_object(), "{document}");
}
