//! Routes, roles, the API document, health and metrics, over real TLS with a desk in memory.
//! Trusts: the fixture.
//! Touches: loopback sockets.
//! Next: [`super::calls`], [`super::uploads`].

use std::collections::BTreeSet;

use http::{Method, Request};

use crate::api::fake_desk::{api_document, served_paths};
use crate::api::vitals::{Part, Trouble};
use crate::connection::fixture::Appliance;
use crate::identity::peer::Role;

const ID: &str = "01010101010101010101010101010101";

fn operations() -> BTreeSet<(String, String)> {
    let document = api_document();
    let paths = document["paths"].as_object().unwrap();
    let methods = |(path, item): (&String, &serde_json::Value)| {
        item.as_object().unwrap().keys().map(|method| (path.clone(), method.to_uppercase())).collect::<Vec<_>>()
    };
    paths.iter().flat_map(methods).collect()
}

#[test]
fn the_api_document_has_exactly_the_paths_of_the_router() {
    let served: BTreeSet<String> = served_paths().into_iter().map(str::to_owned).collect();
    let described: BTreeSet<String> = operations().into_iter().map(|(path, _)| path).collect();
    assert_eq!(served, described);
    let document = api_document();
    assert_eq!(document["openapi"], "3.1.0");
    for schema in ["CallExport", "Transcript", "CallView", "CallMetadata", "ProblemDocument", "CallHappening"] {
        assert!(document["components"]["schemas"][schema].is_object(), "{schema}");
    }
}

#[tokio::test]
async fn the_api_document_has_exactly_the_methods_of_the_router() {
    let appliance = Appliance::start().await;
    let mut client = appliance.connect("admin/root").await;
    let described = operations();
    for path in served_paths() {
        for method in ["GET", "POST", "PUT", "PATCH", "DELETE"] {
            let served = client.method(method.parse().unwrap(), &path.replace("{id}", ID)).await.status != 405;
            assert_eq!(served, described.contains(&(path.to_owned(), method.to_owned())), "{method} {path}");
        }
    }
    assert_eq!(client.get("/api/v1/openapi.json").await.json()["info"]["title"], "Salama");
}

/// Who may do what, once more: written as a caller sees it.
#[tokio::test]
async fn each_role_is_served_what_its_table_says_and_refused_the_rest() {
    let appliance = Appliance::start().await;
    let content = ["recorder", "counsellor", "supervisor"];
    for role in Role::ALL {
        let mut client = appliance.connect(&format!("{role}/x")).await;
        for (path, method) in operations() {
            let may = match (method.as_str(), path.as_str()) {
                ("GET", "/health" | "/health/ready") => true,
                ("GET", "/metrics") => ["admin", "monitor"].contains(&role.word()),
                ("GET", "/api/v1/whoami" | "/api/v1/openapi.json") => role != Role::Monitor,
                ("POST", "/api/v1/calls") => ["recorder", "counsellor"].contains(&role.word()),
                ("GET", "/api/v1/calls" | "/api/v1/calls/{id}" | "/api/v1/calls/{id}/events") => content.contains(&role.word()),
                ("GET", "/api/v1/calls/{id}/erasure") => ["supervisor", "auditor"].contains(&role.word()),
                ("DELETE", _) | (_, "/api/v1/key-bursts" | "/api/v1/calls/{id}/erasure") => role == Role::Supervisor,
                _ => ["counsellor", "supervisor"].contains(&role.word()),
            };
            let reply = client.method(method.parse().unwrap(), &path.replace("{id}", ID)).await;
            assert_eq!(reply.status != 403, may, "{role} {method} {path}");
            if !may {
                assert_eq!(reply.problem(), (403, "not-allowed".to_owned()));
            }
        }
    }
}

#[tokio::test]
async fn whoami_says_role_name_and_abilities() {
    let appliance = Appliance::start().await;
    let reply = appliance.connect("recorder/pbx-1").await.get("/api/v1/whoami").await.json();
    assert_eq!((&reply["role"], &reply["name"]), (&"recorder".into(), &"pbx-1".into()));
    let may: Vec<&str> = reply["may"].as_array().unwrap().iter().map(|may| may["action"].as_str().unwrap()).collect();
    assert_eq!(may, ["call.create", "call.list", "call.view", "call.watch", "whoami", "openapi", "health"]);
}

#[tokio::test]
async fn unknown_paths_and_methods_are_problems() {
    let appliance = Appliance::start().await;
    let mut client = appliance.connect("counsellor/asha").await;
    assert_eq!(client.get("/api/v1/call").await.problem(), (404, "no-such-path".to_owned()));
    assert_eq!(client.get("/").await.problem(), (404, "no-such-path".to_owned()));
    let reply = client.method(Method::PUT, "/api/v1/calls").await;
    assert_eq!(reply.problem(), (405, "method-not-allowed".to_owned()));
    let allow: BTreeSet<&str> = reply.header("allow").split(',').map(str::trim).collect();
    assert_eq!(allow, BTreeSet::from(["GET", "HEAD", "POST"]));
}

#[tokio::test]
async fn every_reply_is_kept_out_of_caches_and_carries_our_request_id() {
    let appliance = Appliance::start().await;
    let mut client = appliance.connect("counsellor/asha").await;
    for path in ["/health", "/nowhere", "/metrics"] {
        let reply = client.send(Request::get(path).header("salama-request-id", "mine"), "").await;
        assert_eq!((reply.header("cache-control"), reply.header("x-content-type-options")), ("no-store", "nosniff"), "{path}");
        let id = reply.header("salama-request-id");
        assert!(id.len() == 16 && id.bytes().all(|byte| byte.is_ascii_hexdigit()), "{id}");
    }
}

#[tokio::test]
async fn readiness_names_the_parts_in_trouble() {
    let appliance = Appliance::start().await;
    let mut client = appliance.connect("monitor/prometheus").await;
    let well = client.get("/health/ready").await;
    assert_eq!((well.status.as_u16(), &well.json()["status"]), (200, &"ready".into()));
    appliance.vitals.0.lock().unwrap().troubles = vec![(Part::Disk, Trouble::Low), (Part::Keeper, Trouble::Down)];
    let ill = client.get("/health/ready").await;
    assert_eq!((ill.status.as_u16(), &ill.json()["status"]), (503, &"degraded".into()));
    assert_eq!(ill.json()["troubles"][0], serde_json::json!({"part": "disk", "trouble": "low"}));
    assert_eq!(client.get("/health").await.json()["status"], "alive");
}

#[tokio::test]
async fn metrics_count_requests_by_route_and_never_by_path() {
    let appliance = Appliance::start().await;
    let mut client = appliance.connect("admin/root").await;
    client.get(&format!("/api/v1/calls/{ID}")).await;
    client.get("/secret-name").await;
    let reply = client.get("/metrics").await;
    assert!(reply.header("content-type").starts_with("application/openmetrics-text"));
    let text = reply.text();
    assert!(text.contains(r#"salama_requests_total{class="read",route="/api/v1/calls/{id}",status="403"} 1"#), "{text}");
    assert!(text.contains(r#"salama_requests_total{class="none",route="none",status="404"} 1"#), "{text}");
    assert!(!text.contains("secret-name") && !text.contains(ID) && text.ends_with("# EOF\n"));
}
