//! `salama status` and `salama whoami`.
//! Trusts: nothing in the reply.
//! Touches: the appliance.
//! Next: standard output.

use std::time::{Duration, Instant};

use http::Method;
use serde::{Deserialize, Serialize};

use super::client::{self, Client};
use super::failure::{Failure, Refusal};
use super::output::{Output, clean, table};
use crate::ipc::worker::LoadedModel;

/// What `/health/ready` says.
#[derive(Debug, Serialize, Deserialize)]
struct Readiness {
    status: String,
    #[serde(default)]
    troubles: Vec<PartTrouble>,
    #[serde(default)]
    queue: u64,
    #[serde(default)]
    models: Vec<LoadedModel>,
    keys: Option<KeyState>,
}

#[derive(Debug, Serialize, Deserialize)]
struct KeyState {
    log_key: String,
    limited: u64,
    incidents: u64,
    lockout: Option<Lockout>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Lockout {
    at: String,
    failed: u32,
    tries: u32,
    locked: bool,
}

#[derive(Debug, Serialize, Deserialize)]
struct PartTrouble {
    part: String,
    trouble: serde_json::Value,
}

/// What `/api/v1/whoami` says.
#[derive(Debug, Serialize, Deserialize)]
struct Identity {
    role: String,
    name: String,
    fingerprint: String,
    valid_until: String,
    #[serde(default)]
    may: Vec<Ability>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Ability {
    action: String,
    calls: String,
}

fn cell(text: &str) -> String {
    clean(text)
}

/// Pause between two questions of `--wait`.
const ASK_AGAIN: Duration = Duration::from_millis(200);

/// Is the appliance ready? A degraded one is shown, and the command fails; both only once `wait` seconds have passed.
pub(super) async fn status(client: &Client, output: Output, wait: u64) -> Result<(), Failure> {
    let deadline = Instant::now() + Duration::from_secs(wait);
    let (readiness, degraded) = loop {
        match read(client).await {
            Ok((readiness, None)) => break (readiness, None),
            Ok(_) | Err(_) if Instant::now() < deadline => tokio::time::sleep(ASK_AGAIN).await,
            answer => break answer?,
        }
    };
    output.either(&readiness, |readiness| {
        let mut rows =
            vec![vec!["status".to_owned(), cell(&readiness.status)], vec!["waiting calls".to_owned(), readiness.queue.to_string()]];
        for trouble in &readiness.troubles {
            let what = trouble.trouble.as_str().map_or_else(|| trouble.trouble.to_string(), str::to_owned);
            rows.push(vec![format!("trouble: {}", cell(&trouble.part)), cell(&what).replace('_', " ")]);
        }
        for model in &readiness.models {
            let digest: String = model.manifest_sha256.chars().take(16).collect();
            rows.push(vec!["model".to_owned(), cell(&format!("{} {}  {digest}", model.name, model.version))]);
        }
        rows.extend(readiness.keys.iter().flat_map(of_keys));
        table(&rows)
    })?;
    degraded.map_or(Ok(()), Err)
}

fn of_keys(keys: &KeyState) -> Vec<Vec<String>> {
    let KeyState { log_key, limited, incidents, lockout } = keys;
    let wrong_pins = lockout.as_ref().map_or_else(
        || "not known: the TPM did not tell".to_owned(),
        |Lockout { at, failed, tries, locked }| {
            let state = if *locked { "LOCKED, it takes no PIN (salama keys unlock)" } else { "not locked" };
            format!("{failed} of {tries} at the start, {}; {state}", cell(at))
        },
    );
    vec![
        vec!["wrong PINs".to_owned(), wrong_pins],
        vec!["key incidents".to_owned(), format!("{incidents}; {limited} uses refused for a limit")],
        vec!["key log".to_owned(), cell(log_key)],
    ]
}

/// The document of a degraded appliance comes with status 503.
async fn read(client: &Client) -> Result<(Readiness, Option<Failure>), Failure> {
    let asked = client.ask(client::request(Method::GET, "/health/ready", client::empty())?).await?;
    let (parts, body) = asked.into_parts();
    let body = client.collect(body).await?;
    let failure = || Failure::Refused(Refusal::read(parts.status.as_u16(), None, &body));
    match serde_json::from_slice::<Readiness>(&body) {
        Ok(readiness) if parts.status.is_success() => Ok((readiness, None)),
        Ok(readiness) if readiness.status == "degraded" => {
            let words = "the appliance is degraded".to_owned();
            let refusal = Refusal { status: parts.status.as_u16(), words, instance: None, retry_after: None };
            Ok((readiness, Some(Failure::Refused(refusal))))
        }
        Err(error) if parts.status.is_success() => Err(Failure::Reply(error.to_string())),
        _ => Err(failure()),
    }
}

/// Which identity and rights the certificate gives.
pub(super) async fn whoami(client: &Client, output: Output) -> Result<(), Failure> {
    let identity: Identity = client.get("/api/v1/whoami").await?;
    output.either(&identity, |identity| {
        let mut rows = vec![
            vec!["identity".to_owned(), cell(&format!("{}/{}", identity.role, identity.name))],
            vec!["valid until".to_owned(), cell(&identity.valid_until)],
            vec!["certificate".to_owned(), cell(&identity.fingerprint)],
        ];
        for (number, ability) in identity.may.iter().enumerate() {
            let name = if number == 0 { "may" } else { "" };
            let reach = if ability.calls == "own" { " (own calls)" } else { "" };
            rows.push(vec![name.to_owned(), cell(&format!("{}{reach}", ability.action.replace('_', " ")))]);
        }
        table(&rows)
    })
}
