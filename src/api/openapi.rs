//! `GET /api/v1/openapi.json`: the description of this API, made from its code.
//! Trusts: the permit.
//! Touches: nothing.
//! Next: whoever writes a client.

use axum::Json;
use utoipa::OpenApi;

use super::problem::ProblemDocument;
use crate::authz::action::ReadApiDocument;
use crate::authz::permit::Permit;
use crate::job::spec::CallMetadata;

/// The document. Every handler is named here; a test compares it with the router.
#[derive(OpenApi)]
#[openapi(
    info(
        title = "Salama",
        description = "A sealed box for child helplines. Every connection is TLS 1.3 with a client certificate of the box's own authority; \
                       its role decides what it may do. Errors are RFC 9457 problems with stable types."
    ),
    paths(
        super::calls::create,
        super::calls::list,
        super::calls::view,
        super::calls::cancel,
        super::calls::erase,
        super::calls::erasure,
        super::calls::erase_for_good,
        super::transcript::read,
        super::events::watch,
        super::export::export,
        super::bursts::terms,
        super::bursts::grant,
        super::text::redact,
        super::whoami::whoami,
        super::health::live,
        super::health::ready,
        super::metrics::metrics,
        document,
    ),
    components(schemas(ProblemDocument, CallMetadata)),
    tags(
        (name = "calls", description = "Recordings and what becomes of them"),
        (name = "keys", description = "How many calls may be opened"),
        (name = "text", description = "Redaction of text"),
        (name = "status", description = "The box and the peer"),
    ),
)]
pub(super) struct Document;

/// This document.
#[utoipa::path(
    get, path = "/api/v1/openapi.json", tag = "status",
    responses((status = 200, description = "OpenAPI 3.1", body = Object)),
)]
pub(super) async fn document(_permit: Permit<ReadApiDocument>) -> Json<utoipa::openapi::OpenApi> {
    Json(Document::openapi())
}
