//! Reading, watching, stopping and erasing calls, and redacting text, with a desk in memory.
//! Trusts: the fixture.
//! Touches: loopback sockets.
//! Next: [`super::limits`].

use std::time::Duration;

use http::{Method, Request};

use crate::api::fake_desk::{CallFailure, CallState, CallsError};
use crate::connection::fixture::Appliance;

const ASHA: &str = "counsellor/asha";

#[tokio::test]
async fn a_counsellor_sees_own_calls_and_a_supervisor_all() {
    let appliance = Appliance::start().await;
    let mine = appliance.desk.with_call(1, ASHA, CallState::Done);
    let other = appliance.desk.with_call(2, "counsellor/juma", CallState::Done);
    let mut asha = appliance.connect(ASHA).await;
    assert_eq!(asha.get(&format!("/api/v1/calls/{mine}")).await.json()["state"], "done");
    for what in ["", "/transcript", "/events", "/export"] {
        assert_eq!(asha.get(&format!("/api/v1/calls/{other}{what}")).await.problem(), (404, "not-found".to_owned()), "{what}");
    }
    assert_eq!(asha.get("/api/v1/calls").await.json()["calls"].as_array().unwrap().len(), 1);
    let mut supervisor = appliance.connect("supervisor/neema").await;
    assert_eq!(supervisor.get("/api/v1/calls").await.json()["calls"].as_array().unwrap().len(), 2);
}

#[tokio::test]
async fn a_call_id_that_is_a_path_or_anything_else_names_no_call() {
    let appliance = Appliance::start().await;
    let mut supervisor = appliance.connect("supervisor/neema").await;
    for id in ["..%2f..%2f..%2fetc%2fpasswd", "%2e%2e", "1", "ABCDEFABCDEFABCDEFABCDEFABCDEFAB", "%00", "%ff%fe", "*"] {
        assert_eq!(supervisor.get(&format!("/api/v1/calls/{id}")).await.problem(), (404, "not-found".to_owned()), "{id}");
        assert_eq!(supervisor.method(Method::DELETE, &format!("/api/v1/calls/{id}")).await.status, 404, "{id}");
    }
}

#[tokio::test]
async fn lists_come_in_pages() {
    let appliance = Appliance::start().await;
    for id in 1..=3 {
        appliance.desk.with_call(id, ASHA, CallState::Queued);
    }
    let mut client = appliance.connect(ASHA).await;
    let first = client.get("/api/v1/calls?limit=2").await.json();
    assert_eq!((first["calls"].as_array().unwrap().len(), &first["next"]), (2, &"2".into()));
    let second = client.get("/api/v1/calls?limit=2&cursor=2").await.json();
    assert!(second["calls"].as_array().unwrap().len() == 1 && second["next"].is_null());
    assert_eq!(client.get("/api/v1/calls?cursor=x").await.problem(), (400, "bad-cursor".to_owned()));
    for query in ["limit=0", "limit=201", "limit=-1", "limit=x", "page=2", "limit=1&limit=2"] {
        assert_eq!(client.get(&format!("/api/v1/calls?{query}")).await.problem(), (400, "bad-request".to_owned()), "{query}");
    }
}

#[tokio::test]
async fn a_transcript_comes_in_four_formats() {
    let appliance = Appliance::start().await;
    let id = appliance.desk.with_call(1, ASHA, CallState::Done);
    let mut client = appliance.connect(ASHA).await;
    for (query, media_type, begins) in [
        ("", "application/json", "{\"call\":"),
        ("?format=json", "application/json", "{\"call\":"),
        ("?format=text", "text/plain; charset=utf-8", "[00:00:01.000 - 00:00:01.900] Channel 1: Hello [PERSON_1]."),
        ("?format=srt", "application/x-subrip; charset=utf-8", "1\n00:00:01,000 --> 00:00:01,900\nChannel 1: Hello"),
        ("?format=vtt", "text/vtt; charset=utf-8", "WEBVTT\n\n00:00:01.000 --> 00:00:01.900\n<v Channel 1>Hello"),
    ] {
        let reply = client.get(&format!("/api/v1/calls/{id}/transcript{query}")).await;
        assert_eq!(reply.header("content-type"), media_type);
        assert!(reply.text().starts_with(begins), "{}", reply.text());
    }
    let reply = client.get(&format!("/api/v1/calls/{id}/transcript?format=pdf")).await;
    assert_eq!(reply.problem(), (400, "bad-request".to_owned()));
}

#[tokio::test]
async fn a_call_that_is_not_done_has_no_transcript() {
    let appliance = Appliance::start().await;
    let id = appliance.desk.with_call(1, ASHA, CallState::Running);
    let reply = appliance.connect(ASHA).await.get(&format!("/api/v1/calls/{id}/transcript")).await;
    assert_eq!(reply.problem(), (409, "no-transcript".to_owned()));
    assert!(reply.json()["detail"].as_str().unwrap().contains("`running`"));
}

#[tokio::test]
async fn events_are_replayed_after_the_last_that_was_seen() {
    let appliance = Appliance::start().await;
    let id = appliance.desk.with_call(1, ASHA, CallState::Done);
    let path = format!("/api/v1/calls/{id}/events");
    let mut client = appliance.connect(ASHA).await;
    let all = client.get(&path).await;
    assert_eq!(all.header("content-type"), "text/event-stream");
    let expected = "id: 1\nevent: state\ndata: {\"type\":\"state\",\"state\":\"queued\"}\n\n\
                    id: 2\nevent: progress\ndata: {\"type\":\"progress\",\"stage\":\"decode\",\"percent\":10,\"audio_ms\":5,\"elapsed_ms\":7}\n\n\
                    id: 3\nevent: state\ndata: {\"type\":\"state\",\"state\":\"done\"}\n\n";
    assert_eq!(all.text(), expected);
    let rest = client.send(Request::get(&path).header("last-event-id", "2"), "").await;
    assert_eq!(rest.text(), "id: 3\nevent: state\ndata: {\"type\":\"state\",\"state\":\"done\"}\n\n");
    assert_eq!(client.send(Request::get(&path).header("last-event-id", "3"), "").await.status, 204);
    let wrong = client.send(Request::get(&path).header("last-event-id", "x"), "").await;
    assert_eq!(wrong.problem(), (400, "bad-request".to_owned()));
}

#[tokio::test]
async fn a_call_is_cancelled_once_it_can_be_and_erased_by_a_supervisor() {
    let appliance = Appliance::start().await;
    let running = appliance.desk.with_call(1, ASHA, CallState::Running);
    let done = appliance.desk.with_call(2, ASHA, CallState::Done);
    let mut client = appliance.connect(ASHA).await;
    assert_eq!(client.method(Method::POST, &format!("/api/v1/calls/{running}/cancel")).await.json()["state"], "cancelled");
    let late = client.method(Method::POST, &format!("/api/v1/calls/{done}/cancel")).await;
    assert_eq!(late.problem(), (409, "already-final".to_owned()));
    let mut supervisor = appliance.connect("supervisor/neema").await;
    let path = format!("/api/v1/calls/{done}");
    let erased = supervisor.method(Method::DELETE, &path).await;
    assert_eq!((erased.status.as_u16(), erased.body.len()), (204, 0));
    assert_eq!(supervisor.method(Method::DELETE, &path).await.problem(), (404, "not-found".to_owned()));
}

#[tokio::test]
async fn an_export_is_one_document_to_be_saved() {
    let appliance = Appliance::start().await;
    let id = appliance.desk.with_call(1, ASHA, CallState::Done);
    let mut client = appliance.connect(ASHA).await;
    let reply = client.get(&format!("/api/v1/calls/{id}/export?format=json")).await;
    assert_eq!(reply.json()["schema"], "salama.call-export/1");
    assert_eq!(reply.header("content-disposition"), format!("attachment; filename=\"call-{id}.json\""));
    assert_eq!(client.get(&format!("/api/v1/calls/{id}/export?format=xml")).await.status, 400);
}

#[tokio::test]
async fn text_of_one_to_ten_thousand_characters_is_redacted() {
    let appliance = Appliance::start().await;
    let mut client = appliance.connect(ASHA).await;
    let post = || Request::post("/api/v1/text/redact").header("content-type", "application/json; charset=utf-8");
    assert_eq!(client.send(post(), r#"{"text":"Amina called"}"#).await.json()["text"], "[PERSON_1] called");
    let longest = serde_json::json!({ "text": "😀".repeat(10_000) }).to_string();
    assert_eq!(client.send(post(), longest).await.status, 200);
    for text in [String::new(), "a".repeat(10_001)] {
        let body = serde_json::json!({ "text": text }).to_string();
        assert_eq!(client.send(post(), body).await.problem(), (422, "text-length".to_owned()));
    }
}

#[tokio::test]
async fn a_body_that_is_not_the_one_field_is_refused() {
    let appliance = Appliance::start().await;
    let mut client = appliance.connect(ASHA).await;
    let post = |media: &'static str| Request::post("/api/v1/text/redact").header("content-type", media);
    for (body, status, kind) in [
        ("", 400, "malformed-json"),
        ("{", 400, "malformed-json"),
        ("{\"text\":\"a\"} x", 400, "malformed-json"),
        ("[]", 422, "invalid-body"),
        ("{}", 422, "invalid-body"),
        ("{\"text\":1}", 422, "invalid-body"),
        ("{\"text\":\"a\",\"text\":\"b\"}", 422, "invalid-body"),
        ("{\"text\":\"a\",\"model\":\"x\"}", 422, "invalid-body"),
    ] {
        assert_eq!(client.send(post("application/json"), body).await.problem(), (status, kind.to_owned()), "{body}");
    }
    for media in ["text/plain", "application/x-www-form-urlencoded", "application/jsonx"] {
        assert_eq!(client.send(post(media), "{}").await.problem(), (415, "unsupported-media-type".to_owned()), "{media}");
    }
    let huge = client.send(post("application/json"), vec![b' '; 200 * 1024]).await;
    assert_eq!(huge.problem(), (413, "too-large".to_owned()));
}

#[tokio::test]
async fn each_refusal_of_the_desk_is_a_problem_of_its_own() {
    let appliance = Appliance::start().await;
    let id = appliance.desk.with_call(1, ASHA, CallState::Done);
    let mut client = appliance.connect(ASHA).await;
    for (error, status, kind, retry) in [
        (CallsError::NotFound, 404, "not-found", ""),
        (CallsError::Empty, 422, "empty-recording", ""),
        (CallsError::TooLarge { limit: 5 }, 413, "too-large", ""),
        (CallsError::IdempotencyConflict, 409, "idempotency-conflict", ""),
        (CallsError::QueueFull, 503, "queue-full", "60"),
        (CallsError::Full, 507, "disk-full", ""),
        (CallsError::KeyLimit { wait: Duration::from_secs(1234) }, 429, "key-limit", "1234"),
        (CallsError::FinalLater { wait: Duration::from_secs(60) }, 429, "final-later", "60"),
        (CallsError::Busy, 503, "busy", "5"),
        (CallsError::Worker(CallFailure::ModelFailed), 500, "worker-failed", ""),
        (CallsError::Internal, 500, "internal", ""),
    ] {
        appliance.desk.lock().fails = Some(error);
        let reply = client.get(&format!("/api/v1/calls/{id}")).await;
        assert_eq!((reply.problem(), reply.header("retry-after")), ((status, kind.to_owned()), retry));
    }
}
