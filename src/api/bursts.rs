//! `GET` and `POST /api/v1/key-bursts`: relays a supervisor's signed word to the keeper, which alone judges it.
//! Trusts: the permit. The grant is checked here only for being the peer's own.
//! Touches: the keeper, through [`KeyBursts`].
//! Next: the keeper opens more calls than usual for a while.

use std::time::Duration;

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use http::HeaderMap;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::body::{BodyReader, must_be_json, strict_json};
use super::desk::Desk;
use super::problem::{Kind, Problem, ProblemDocument};
use super::state::Api;
use crate::audit::event::{Ruling, Who};
use crate::audit::{self, Event};
use crate::authz::action::BurstKeys;
use crate::authz::permit::Permit;
use crate::base::hex::{hex, unhex};
use crate::identity::peer::fingerprint;
use crate::ipc::burst::{COUNT_MAX, GrantFault, LIFETIME_MAX, SignedGrant};
use crate::ipc::keeper::StartId;

/// Longest body, bytes: a text of 200, a signature, a certificate of some 900.
const BODY_MAX: u64 = 16 * 1024;

/// The keeper, as far as grants go.
pub trait KeyBursts: Send + Sync + 'static {
    /// The keeper's start, which a grant names.
    fn start(&self) -> StartId;

    /// Relays a grant. May block for a moment.
    ///
    /// # Errors
    /// [`BurstRefusal`].
    fn burst(&self, grant: SignedGrant) -> Result<(), BurstRefusal>;
}

/// Why a grant does not count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BurstRefusal {
    /// The keeper says so.
    Fault(GrantFault),
    /// Too many were relayed.
    Limited(Duration),
    /// The keeper failed; the cause is in the journal.
    Failed,
}

/// What a grant has to name.
#[derive(Serialize, ToSchema)]
pub(super) struct BurstTerms {
    /// The keeper's start, 32 hexadecimal digits: a grant for another one does not count.
    start: String,
    /// Most calls of one grant.
    count_max: u32,
    /// Longest time of one grant, seconds.
    seconds_max: u64,
}

/// A signed grant.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct BurstRequest {
    /// The grant, eight lines; `salama burst` writes and signs it.
    #[schema(example = "salama burst grant 1\nbox nairobi-1\nstart 9f0c5e7d1b2a4c6e8f1d3b5a7c9e0f2d\nkind read\ncount 500\n\
                        from 1700000000\nuntil 1700001800\nnonce 0f1e2d3c4b5a69788796a5b4c3d2e1f0\n")]
    grant: String,
    /// ECDSA P-256 with SHA-256 over the grant, ASN.1 DER, in hexadecimal digits.
    signature: String,
    /// The certificate of the connection, PEM: its key has signed.
    certificate: String,
}

/// A grant that counts.
#[derive(Serialize, ToSchema)]
pub(super) struct BurstTaken {
    /// Always `granted`.
    status: &'static str,
}

/// What a grant has to name.
#[utoipa::path(
    get, path = "/api/v1/key-bursts", tag = "keys",
    responses(
        (status = 200, description = "What a grant has to name", body = BurstTerms),
        (status = "default", description = "A problem", body = ProblemDocument, content_type = "application/problem+json"),
    ),
)]
pub(super) async fn terms<D: Desk>(_permit: Permit<BurstKeys>, State(api): State<Api<D>>) -> Json<BurstTerms> {
    Json(BurstTerms { start: hex(&api.bursts().start()), count_max: COUNT_MAX, seconds_max: LIFETIME_MAX })
}

/// Lets the keeper open more calls than usual for a while.
#[utoipa::path(
    post, path = "/api/v1/key-bursts", tag = "keys", request_body = BurstRequest,
    responses(
        (status = 200, description = "The grant counts from now on", body = BurstTaken),
        (status = "default", description = "A problem", body = ProblemDocument, content_type = "application/problem+json"),
    ),
)]
pub(super) async fn grant<D: Desk>(
    permit: Permit<BurstKeys>,
    State(api): State<Api<D>>,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<BurstTaken>, Problem> {
    must_be_json(&headers)?;
    let body = BodyReader::new(&headers, body, BODY_MAX, api.limits().body_timeout)?.all().await?;
    let peer = permit.peer();
    let who = Who { role: peer.role().word().to_owned(), name: peer.name().to_owned() };
    let signed = signed(strict_json(&body, Kind::InvalidBody)?, peer.fingerprint())?;
    let bursts = api.bursts();
    let relayed = tokio::task::spawn_blocking(move || bursts.burst(signed)).await;
    let answer = relayed.unwrap_or(Err(BurstRefusal::Failed));
    let ruling = answer.map_or_else(|refusal| Ruling::Refused(refusal.code()), |()| Ruling::Allowed);
    audit::record(&Event::KeyBurst { who, ruling });
    answer?;
    Ok(Json(BurstTaken { status: "granted" }))
}

/// The grant as the keeper takes it.
fn signed(request: BurstRequest, own: &str) -> Result<SignedGrant, Problem> {
    let BurstRequest { grant, signature, certificate } = request;
    let invalid = |what: &'static str| Problem::new(Kind::InvalidBody, what);
    let signature = digits(&signature).ok_or_else(|| invalid("`signature` must be hexadecimal digits of an ECDSA signature."))?;
    let certificate = CertificateDer::from_pem_slice(certificate.as_bytes()).map_err(|_| invalid("`certificate` must be one in PEM."))?;
    if fingerprint(&certificate) != own {
        return Err(Problem::new(Kind::GrantRefused, "Sign the grant with the key of the certificate that you connect with."));
    }
    Ok(SignedGrant { text: grant, signature, certificate: certificate.to_vec() })
}

fn digits(text: &str) -> Option<Vec<u8>> {
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    let byte = |pair: &[u8; 2]| unhex::<1>(std::str::from_utf8(pair).ok()?).map(|[byte]| byte);
    if rest.is_empty() { pairs.iter().map(byte).collect() } else { None }
}

impl BurstRefusal {
    const fn code(self) -> &'static str {
        match self {
            Self::Fault(_) => "grant",
            Self::Limited(_) => "rate",
            Self::Failed => "keeper",
        }
    }
}

impl From<BurstRefusal> for Problem {
    fn from(refusal: BurstRefusal) -> Self {
        match refusal {
            BurstRefusal::Fault(fault) => Self::new(Kind::GrantRefused, format!("{fault}.")),
            BurstRefusal::Limited(wait) => Self::retry(Kind::RateLimited, "The key keeper looks at no more grants for now.", wait),
            BurstRefusal::Failed => Self::new(Kind::Internal, "The appliance's journal says why; tell the administrator the `instance`."),
        }
    }
}
