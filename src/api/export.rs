//! `GET /api/v1/calls/{id}/export`: everything that may leave of a call, as one document.
//! Trusts: the permit; the desk gives redacted text only.
//! Touches: the desk.
//! Next: the archive of whoever may have it.

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::{HeaderValue, header};
use serde::Deserialize;
use utoipa::ToSchema;

use super::desk::Desk;
use super::params::{Asked, CallPath};
use super::problem::{Problem, ProblemDocument};
use super::state::{Api, scope};
use crate::authz::action::ExportCall;
use crate::authz::permit::Permit;
use crate::job::spec::CallExport;

/// How the export is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum ExportFormat {
    /// One JSON document.
    #[default]
    Json,
}

/// What an export may be asked for.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ExportQuery {
    /// Only `json`.
    #[serde(default)]
    format: ExportFormat,
}

/// The export document of a call.
#[utoipa::path(
    get, path = "/api/v1/calls/{id}/export", tag = "calls",
    params(("id" = String, Path, description = "The call"), ("format" = inline(Option<ExportFormat>), Query, description = "Only `json`")),
    responses(
        (status = 200, description = "The document", body = CallExport),
        (status = "default", description = "A problem", body = ProblemDocument, content_type = "application/problem+json"),
    ),
)]
pub(super) async fn export<D: Desk>(
    permit: Permit<ExportCall>,
    State(api): State<Api<D>>,
    CallPath(id): CallPath,
    Asked(query): Asked<ExportQuery>,
) -> Result<Response, Problem> {
    let ExportFormat::Json = query.format;
    let document = api.desk().export(&scope(&permit), id).await?;
    let name = HeaderValue::from_str(&format!("attachment; filename=\"call-{id}.json\"")).unwrap_or(HeaderValue::from_static("attachment"));
    Ok(([(header::CONTENT_DISPOSITION, name)], Json(document)).into_response())
}
