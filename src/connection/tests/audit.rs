//! Every decision is written down, allowed or refused, and what was said in a call is not.
//! Trusts: the fixture; one thread runs test and server, so the test's own sink sees all.
//! Touches: loopback sockets.
//! Next: nobody.

use std::io;
use std::sync::{Arc, Mutex};

use http::Request;
use serde_json::Value;

use crate::api::fake_desk::CallState;
use crate::connection::fixture::Appliance;

#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl io::Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Lines {
    fn listen(&self) -> tracing::subscriber::DefaultGuard {
        let lines = self.clone();
        tracing::subscriber::set_default(tracing_subscriber::fmt().json().flatten_event(true).with_writer(move || lines.clone()).finish())
    }

    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }

    /// Who, action, outcome and reason of each decision.
    fn decisions(&self) -> Vec<[String; 4]> {
        let lines: Vec<Value> = self.text().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let field = |line: &Value, name: &str| line[name].as_str().unwrap_or_default().to_owned();
        let decided = lines.iter().filter(|line| line["event"] == "decided");
        decided.map(|line| [field(line, "name"), field(line, "action"), field(line, "outcome"), field(line, "reason")]).collect()
    }
}

#[tokio::test]
async fn every_decision_is_recorded_with_who_what_and_why() {
    let lines = Lines::default();
    let _listening = lines.listen();
    let appliance = Appliance::start_with("[limits]\nreads_per_minute = 1").await;
    let id = appliance.desk.with_call(1, "counsellor/asha", CallState::Done);
    let mut client = appliance.connect("counsellor/asha").await;
    client.get(&format!("/api/v1/calls/{id}/transcript")).await;
    client.get(&format!("/api/v1/calls/{id}")).await;
    client.get("/metrics").await;
    let expected =
        [["asha", "call.transcript", "allowed", ""], ["asha", "call.view", "refused", "rate"], ["asha", "metrics", "refused", "role"]];
    assert_eq!(lines.decisions(), expected);
    assert!(lines.text().contains(&format!("\"call\":\"{id}\"")), "the call is named");
}

#[tokio::test]
async fn a_peer_without_certificate_is_recorded_with_its_source() {
    let lines = Lines::default();
    let _listening = lines.listen();
    let appliance = Appliance::start().await;
    let mut stream = appliance.tls(None, &[]).await.unwrap();
    _ = tokio::io::AsyncReadExt::read(&mut stream, &mut [0; 1]).await;
    let text = lines.text();
    assert!(text.contains("\"event\":\"auth_failed\"") && text.contains("\"reason\":\"handshake\""), "{text}");
    assert!(text.contains(&format!("\"peer\":\"{}\"", stream.get_ref().0.local_addr().unwrap())), "{text}");
}

#[tokio::test]
async fn neither_text_nor_names_of_callers_are_recorded() {
    let lines = Lines::default();
    let _listening = lines.listen();
    let appliance = Appliance::start().await;
    let mut client = appliance.connect("counsellor/asha").await;
    let post = || Request::post("/api/v1/text/redact").header("content-type", "application/json");
    client.send(post(), r#"{"text":"Amina Wanjiru called"}"#).await;
    client.send(post(), r#"{"text":"Amina Wanjiru called","Wanjiru":1}"#).await;
    client.get("/Wanjiru?Amina=Wanjiru").await;
    let text = lines.text();
    assert!(text.contains("text.redact") && !text.contains("Amina") && !text.contains("Wanjiru"), "{text}");
}
