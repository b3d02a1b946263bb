//! How often, how many at once, and what is written down of it.
//! Trusts: the fixture.
//! Touches: loopback sockets.
//! Next: nobody.

use http::Request;

use crate::api::fake_desk::CallState;
use crate::connection::fixture::Appliance;

#[tokio::test]
async fn a_peer_that_comes_too_often_is_told_when_to_come_back() {
    let appliance = Appliance::start_with("[limits]\ntexts_per_minute = 2").await;
    let mut asha = appliance.connect("counsellor/asha").await;
    let post = || Request::post("/api/v1/text/redact").header("content-type", "application/json");
    let first = asha.send(post(), r#"{"text":"a"}"#).await;
    assert_eq!((first.header("ratelimit-policy"), first.header("ratelimit")), ("\"text\";q=2;w=60", "\"text\";r=1"));
    asha.send(post(), r#"{"text":"a"}"#).await;
    let third = asha.send(post(), r#"{"text":"a"}"#).await;
    assert_eq!((third.problem(), third.header("retry-after")), ((429, "rate-limited".to_owned()), "30"));
    assert_eq!(third.header("ratelimit"), "\"text\";r=0;t=30");
    // Another class, another connection of the same person, and another person.
    assert_eq!(asha.get("/api/v1/whoami").await.status, 200);
    assert_eq!(appliance.connect("counsellor/asha").await.send(post(), r#"{"text":"a"}"#).await.status, 429);
    assert_eq!(appliance.connect("counsellor/juma").await.send(post(), r#"{"text":"a"}"#).await.status, 200);
}

#[tokio::test]
async fn more_requests_at_once_than_allowed_are_refused_and_live_streams_count() {
    let appliance = Appliance::start_with("[listen]\nmax_requests = 1").await;
    let id = appliance.desk.with_call(1, "counsellor/asha", CallState::Running);
    let mut watching = appliance.connect("counsellor/asha").await;
    let stream = watching.start(Request::get(format!("/api/v1/calls/{id}/events")), "").await.unwrap();
    let mut other = appliance.connect("counsellor/juma").await;
    let reply = other.get("/health").await;
    assert_eq!((reply.problem(), reply.header("retry-after")), ((503, "overloaded".to_owned()), "5"));
    appliance.desk.lock().watchers.clear();
    http_body_util::BodyExt::collect(stream.into_body()).await.unwrap();
    assert_eq!(other.get("/health").await.status, 200);
}
