//! `GET /health` and `GET /health/ready`: does it live, and can it take calls?
//! Trusts: the permit.
//! Touches: the machine's vitals.
//! Next: the monitoring of the office.

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use serde::Serialize;
use utoipa::ToSchema;

use super::desk::Desk;
use super::problem::{Kind, Problem, ProblemDocument};
use super::state::Api;
use super::vitals::{Part, Reading, Trouble};
use crate::authz::action::ReadHealth;
use crate::authz::permit::Permit;
use crate::base::hex::hex;
use crate::ipc::keeper::{KeeperCounters, Standing, TpmLockout};
use crate::ipc::worker::LoadedModel;

/// The daemon answers.
#[derive(Serialize, ToSchema)]
pub(super) struct Liveness {
    /// Always `alive`.
    status: &'static str,
    /// Of the daemon.
    version: &'static str,
}

/// Can it take calls?
#[derive(Serialize, ToSchema)]
pub(super) struct Readiness {
    /// `ready`, or `degraded` with at least one trouble.
    status: &'static str,
    /// What is wrong.
    troubles: Vec<PartTrouble>,
    /// Calls that wait.
    queue: u64,
    /// The models that are loaded.
    models: Vec<LoadedModel>,
    /// The key keeper.
    keys: Option<KeyView>,
}

/// How the key keeper is.
#[derive(Serialize, ToSchema)]
struct KeyView {
    /// The Ed25519 key that its lines in the journal verify with, hexadecimal. `salama keys verify` says it at the console, past the daemon.
    log_key: String,
    /// Uses of keys that were refused for a limit, since the start.
    limited: u64,
    /// Incidents that it wrote down, since the start.
    incidents: u64,
    /// The TPM's protection against guessing, when the TPM told.
    lockout: Option<LockoutView>,
}

/// The TPM's protection against guessing PINs, as it was when the keeper started.
#[derive(Serialize, ToSchema)]
struct LockoutView {
    /// When it was read, RFC 3339.
    at: String,
    /// Wrong tries that were not forgiven.
    failed: u32,
    /// Tries until it locks.
    tries: u32,
    /// It took no PIN.
    locked: bool,
}

impl KeyView {
    fn of(standing: &Standing, counters: Option<KeeperCounters>) -> Self {
        let KeeperCounters { limited, incidents, .. } = counters.unwrap_or_default();
        let view = |lockout: TpmLockout| {
            let TpmLockout { at, failed, tries, locked } = lockout;
            LockoutView { at: at.rfc3339(), failed, tries, locked }
        };
        Self { log_key: hex(&standing.log_key), limited, incidents, lockout: standing.lockout.map(view) }
    }
}

/// One part in trouble.
#[derive(Serialize, ToSchema)]
pub(super) struct PartTrouble {
    /// Which.
    part: Part,
    /// What.
    trouble: Trouble,
}

/// The daemon lives.
#[utoipa::path(
    get, path = "/health", tag = "status",
    responses(
        (status = 200, description = "It lives", body = Liveness),
        (status = "default", description = "A problem", body = ProblemDocument, content_type = "application/problem+json"),
    ),
)]
pub(super) async fn live(_permit: Permit<ReadHealth>) -> Json<Liveness> {
    Json(Liveness { status: "alive", version: env!("CARGO_PKG_VERSION") })
}

/// Whether calls are taken, and if not, why.
#[utoipa::path(
    get, path = "/health/ready", tag = "status",
    responses(
        (status = 200, description = "Ready", body = Readiness),
        (status = 503, description = "Degraded", body = Readiness),
        (status = "default", description = "A problem", body = ProblemDocument, content_type = "application/problem+json"),
    ),
)]
pub(super) async fn ready<D: Desk>(_permit: Permit<ReadHealth>, State(api): State<Api<D>>) -> Result<Response, Problem> {
    let reading = read(&api).await?;
    let (code, status) =
        if reading.troubles.is_empty() { (StatusCode::OK, "ready") } else { (StatusCode::SERVICE_UNAVAILABLE, "degraded") };
    let keys = reading.standing.as_ref().map(|standing| KeyView::of(standing, reading.keeper));
    let troubles = reading.troubles.into_iter().map(|(part, trouble)| PartTrouble { part, trouble }).collect();
    Ok((code, Json(Readiness { status, troubles, queue: reading.queue, models: api.models().to_vec(), keys })).into_response())
}

/// The vitals, read on a thread that may block.
///
/// # Errors
/// 500 when the reader failed.
pub(super) async fn read<D: Desk>(api: &Api<D>) -> Result<Reading, Problem> {
    let vitals = api.vitals();
    let read = tokio::task::spawn_blocking(move || vitals.read()).await;
    read.map_err(|_| Problem::new(Kind::Internal, "The state of the machine could not be read."))
}
