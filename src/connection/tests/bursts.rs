//! Grants on their way to the keeper, over real TLS with a keeper that says what a test wants.
//! Trusts: the fixture.
//! Touches: loopback sockets.
//! Next: `tests/hostile_core.rs`, where the real keeper judges.

use std::time::Duration;

use http::Request;

use crate::api::fake_desk::{BurstRefusal, GrantFault};
use crate::connection::fixture::{Appliance, Client, ClientKey, Reply};

const TEXT: &str = "salama burst grant 1\nand so on\n";

async fn supervisor(appliance: &Appliance) -> (Client, ClientKey) {
    let key = appliance.authority.client("salama://box/supervisor/neema", None);
    (Client::over(appliance.tls(Some(&key), &[b"http/1.1"]).await.unwrap()).await, key)
}

async fn post(client: &mut Client, body: &serde_json::Value) -> Reply {
    client.send(Request::post("/api/v1/key-bursts").header("content-type", "application/json"), body.to_string()).await
}

fn body(key: &ClientKey) -> serde_json::Value {
    serde_json::json!({"grant": TEXT, "signature": "30ff", "certificate": key.pem})
}

#[tokio::test]
async fn a_grant_is_relayed_as_it_came_and_the_keepers_start_is_named() {
    let appliance = Appliance::start().await;
    let (mut client, key) = supervisor(&appliance).await;
    assert_eq!(client.get("/api/v1/key-bursts").await.json()["start"], "09".repeat(16));
    assert_eq!(post(&mut client, &body(&key)).await.json()["status"], "granted");
    let relayed = appliance.bursts.relayed.lock().unwrap();
    let [grant] = relayed.as_slice() else { panic!("{} were relayed", relayed.len()) };
    assert_eq!((grant.text.as_str(), grant.signature.as_slice()), (TEXT, [0x30, 0xff].as_slice()));
    assert_eq!(grant.certificate, key.chain[0].as_ref());
}

#[tokio::test]
async fn a_grant_of_somebody_elses_certificate_is_not_relayed() {
    let appliance = Appliance::start().await;
    let (mut client, _) = supervisor(&appliance).await;
    let other = appliance.authority.client("salama://box/supervisor/juma", None);
    assert_eq!(post(&mut client, &body(&other)).await.problem(), (422, "grant-refused".to_owned()));
    for (field, value) in [("signature", "30f"), ("signature", "xx"), ("certificate", "none")] {
        let mut bent = body(&other);
        bent[field] = value.into();
        assert_eq!(post(&mut client, &bent).await.problem(), (422, "invalid-body".to_owned()), "{field}");
    }
    assert!(appliance.bursts.relayed.lock().unwrap().is_empty());
}

#[tokio::test]
async fn what_the_keeper_refuses_is_told_in_its_words() {
    let appliance = Appliance::start().await;
    let (mut client, key) = supervisor(&appliance).await;
    for (refusal, status, kind, retry) in [
        (BurstRefusal::Fault(GrantFault::Used), 422, "grant-refused", ""),
        (BurstRefusal::Limited(Duration::from_secs(17)), 429, "rate-limited", "17"),
        (BurstRefusal::Failed, 500, "internal", ""),
    ] {
        *appliance.bursts.refuses.lock().unwrap() = Some(refusal);
        let reply = post(&mut client, &body(&key)).await;
        assert_eq!((reply.problem(), reply.header("retry-after")), ((status, kind.to_owned()), retry));
        if kind == "grant-refused" {
            assert_eq!(reply.json()["detail"], "the grant was used before: each counts once.");
        }
    }
}
