//! `GET /api/v1/whoami`: what the box takes the peer for, and what it may do.
//! Trusts: the permit.
//! Touches: nothing.
//! Next: the person who wonders why a request was refused.

use axum::Json;
use serde::Serialize;
use utoipa::ToSchema;

use super::problem::ProblemDocument;
use crate::authz::action::{Action, WhoAmI};
use crate::authz::permit::Permit;
use crate::authz::policy::{Grant, grant};

/// The peer, as the box sees it.
#[derive(Serialize, ToSchema)]
pub(super) struct Identity {
    /// Role in the certificate.
    role: &'static str,
    /// Name in the certificate.
    name: String,
    /// SHA-256 of the certificate, hexadecimal.
    fingerprint: String,
    /// End of the certificate's validity, RFC 3339.
    valid_until: String,
    /// What it may do.
    may: Vec<Ability>,
}

/// Something that the peer may do.
#[derive(Serialize, ToSchema)]
pub(super) struct Ability {
    /// The action, as audit entries name it.
    action: &'static str,
    /// `own`: with calls that it uploaded; `all`: with every call.
    calls: &'static str,
}

/// The peer's own role, name and abilities.
#[utoipa::path(
    get, path = "/api/v1/whoami", tag = "status",
    responses(
        (status = 200, description = "The peer", body = Identity),
        (status = "default", description = "A problem", body = ProblemDocument, content_type = "application/problem+json"),
    ),
)]
pub(super) async fn whoami(permit: Permit<WhoAmI>) -> Json<Identity> {
    let peer = permit.peer();
    let may = Action::ALL.iter().filter_map(|action| {
        let calls = match grant(peer.role(), *action) {
            Grant::Deny => return None,
            Grant::Own => "own",
            Grant::All => "all",
        };
        Some(Ability { action: action.word(), calls })
    });
    Json(Identity {
        role: peer.role().word(),
        name: peer.name().to_owned(),
        fingerprint: peer.fingerprint().to_owned(),
        valid_until: peer.valid_until().rfc3339(),
        may: may.collect(),
    })
}
