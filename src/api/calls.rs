//! `/api/v1/calls`: post, list, view, cancel, erase.
//! Trusts: the permit.
//! Touches: the desk.
//! Next: [`super::transcript`], [`super::events`], [`super::export`] for what is inside a call.

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use serde::Deserialize;
use utoipa::ToSchema;

use super::desk::{Desk, Incoming};
use super::params::{Asked, CallPath};
use super::problem::{Kind, Problem, ProblemDocument};
use super::state::{Api, scope};
use super::upload::{Recording, idempotency_key};
use crate::authz::action::{CancelCall, CreateCall, DeleteCall, ListCalls, ReadErasure, ViewCall};
use crate::authz::permit::Permit;
use crate::job::calls::Arrival;
use crate::job::spec::{CallMetadata, CallPage, CallView, ErasureView, PAGE_MAX};

const PAGE_DEFAULT: u16 = 50;
const REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");

/// The form of an upload.
#[derive(ToSchema)]
#[expect(dead_code, reason = "describes the form in the API document; the form itself is read as a stream")]
pub(super) struct UploadForm {
    /// JSON; must come first.
    metadata: CallMetadata,
    /// The recording, at most 500 MB; its format is found by its content.
    #[schema(value_type = String, format = Binary)]
    audio: Vec<u8>,
}

/// Posts a recording. It is sealed as it comes in; the work begins once it is complete.
#[utoipa::path(
    post, path = "/api/v1/calls", tag = "calls",
    params(
        ("Idempotency-Key" = Option<String>, Header, description = "1 to 128 visible ASCII characters; the same key, metadata and recording again within a day give the same call, the same key with anything else is refused (409)"),
        ("Salama-Metadata" = Option<String>, Header, description = "For a plain body: `CallMetadata` as JSON in ASCII, other characters as \\u escapes"),
    ),
    request_body(
        description = "A form, or the plain recording as `audio/*` or `application/octet-stream`. A recording is recognised by its content, except samples without a header, which their Content-Type declares: `audio/x-sln; rate=16000` (Asterisk: signed, 16 bits, little-endian; 8000 without `rate`) or `audio/L16; rate=8000; channels=1` (RFC 2586: the same, big-endian)",
        content((UploadForm = "multipart/form-data"), (Vec<u8> = "application/octet-stream"), (Vec<u8> = "audio/*")),
    ),
    responses(
        (status = 202, description = "Accepted; `Location` names the call", body = CallView),
        (status = 200, description = "The same upload came before (`Idempotency-Replayed: true`): its call as it is now", body = CallView),
        (status = "default", description = "A problem", body = ProblemDocument, content_type = "application/problem+json"),
    ),
)]
pub(super) async fn create<D: Desk>(
    permit: Permit<CreateCall>,
    State(api): State<Api<D>>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let limit = api.limits().upload_timeout;
    tokio::time::timeout(limit, receive(&permit, &api, &headers, body)).await.unwrap_or_else(|_| {
        Err(Problem::new(Kind::BodyTimeout, format!("An upload may take {} seconds; nothing was stored.", limit.as_secs_f32())))
    })
}

async fn receive<D: Desk>(permit: &Permit<CreateCall>, api: &Api<D>, headers: &HeaderMap, body: Body) -> Result<Response, Problem> {
    let key = idempotency_key(headers)?;
    let mut recording = Recording::new(headers, body, api)?;
    let metadata = recording.metadata().await?;
    let mut upload = api.desk().admit(&permit.peer().owner(), metadata, key).await?;
    while let Some(bytes) = recording.audio().await? {
        api.metrics().count_upload(bytes.len());
        upload.push(bytes).await?;
    }
    Ok(match upload.finish().await? {
        Arrival::New(view) => {
            let path = format!("/api/v1/calls/{}", view.id);
            let location = HeaderValue::from_str(&path).unwrap_or(HeaderValue::from_static("/api/v1/calls"));
            (StatusCode::ACCEPTED, [(header::LOCATION, location)], Json(view)).into_response()
        }
        Arrival::Repeated(view) => ([(REPLAYED, HeaderValue::from_static("true"))], Json(view)).into_response(),
    })
}

/// What a list may be asked for.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ListQuery {
    /// `next` of the page before.
    cursor: Option<String>,
    /// Calls a page, 1 to 200; 50 when not given.
    limit: Option<u16>,
}

/// Lists the calls that the peer may see, newest first.
#[utoipa::path(
    get, path = "/api/v1/calls", tag = "calls",
    params(
        ("cursor" = Option<String>, Query, description = "`next` of the page before"),
        ("limit" = Option<u16>, Query, description = "Calls a page, 1 to 200; 50 when not given"),
    ),
    responses(
        (status = 200, description = "One page", body = CallPage),
        (status = "default", description = "A problem", body = ProblemDocument, content_type = "application/problem+json"),
    ),
)]
pub(super) async fn list<D: Desk>(
    permit: Permit<ListCalls>,
    State(api): State<Api<D>>,
    Asked(query): Asked<ListQuery>,
) -> Result<Json<CallPage>, Problem> {
    let limit = query.limit.unwrap_or(PAGE_DEFAULT);
    if !(1..=PAGE_MAX).contains(&limit) {
        return Err(Problem::new(Kind::BadRequest, format!("`limit` must be from 1 to {PAGE_MAX}.")));
    }
    Ok(Json(api.desk().list(&scope(&permit), query.cursor.as_deref(), limit).await?))
}

/// The state of one call.
#[utoipa::path(
    get, path = "/api/v1/calls/{id}", tag = "calls", params(("id" = String, Path, description = "The call")),
    responses(
        (status = 200, description = "The call, without content", body = CallView),
        (status = "default", description = "A problem", body = ProblemDocument, content_type = "application/problem+json"),
    ),
)]
pub(super) async fn view<D: Desk>(
    permit: Permit<ViewCall>,
    State(api): State<Api<D>>,
    CallPath(id): CallPath,
) -> Result<Json<CallView>, Problem> {
    Ok(Json(api.desk().get(&scope(&permit), id).await?))
}

/// Stops the work on a call. Again is no error.
#[utoipa::path(
    post, path = "/api/v1/calls/{id}/cancel", tag = "calls", params(("id" = String, Path, description = "The call")),
    responses(
        (status = 200, description = "The call, cancelled", body = CallView),
        (status = "default", description = "A problem", body = ProblemDocument, content_type = "application/problem+json"),
    ),
)]
pub(super) async fn cancel<D: Desk>(
    permit: Permit<CancelCall>,
    State(api): State<Api<D>>,
    CallPath(id): CallPath,
) -> Result<Json<CallView>, Problem> {
    Ok(Json(api.desk().cancel(&scope(&permit), id).await?))
}

/// Erases a call: stops its worker, destroys its key, deletes its records.
#[utoipa::path(
    delete, path = "/api/v1/calls/{id}", tag = "calls", params(("id" = String, Path, description = "The call")),
    responses(
        (status = 204, description = "Erased"),
        (status = "default", description = "A problem", body = ProblemDocument, content_type = "application/problem+json"),
    ),
)]
pub(super) async fn erase<D: Desk>(
    permit: Permit<DeleteCall>,
    State(api): State<Api<D>>,
    CallPath(id): CallPath,
) -> Result<StatusCode, Problem> {
    api.desk().delete(&scope(&permit), id).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// How far an erasure is; its certificate, once no copy of the disk opens the call any more, but one together with a recovery paper of its
/// time.
#[utoipa::path(
    get, path = "/api/v1/calls/{id}/erasure", tag = "calls", params(("id" = String, Path, description = "The erased call")),
    responses(
        (status = 200, description = "How far it is", body = ErasureView),
        (status = "default", description = "A problem", body = ProblemDocument, content_type = "application/problem+json"),
    ),
)]
pub(super) async fn erasure<D: Desk>(
    permit: Permit<ReadErasure>,
    State(api): State<Api<D>>,
    CallPath(id): CallPath,
) -> Result<Json<ErasureView>, Problem> {
    Ok(Json(api.desk().erasure(&scope(&permit), id).await?))
}

/// Makes an erasure final now instead of within the interval, and gives its certificate.
#[utoipa::path(
    post, path = "/api/v1/calls/{id}/erasure", tag = "calls", params(("id" = String, Path, description = "The erased call")),
    responses(
        (status = 200, description = "It is final", body = ErasureView),
        (status = "default", description = "A problem", body = ProblemDocument, content_type = "application/problem+json"),
    ),
)]
pub(super) async fn erase_for_good<D: Desk>(
    permit: Permit<DeleteCall>,
    State(api): State<Api<D>>,
    CallPath(id): CallPath,
) -> Result<Json<ErasureView>, Problem> {
    Ok(Json(api.desk().erase_for_good(&scope(&permit), id).await?))
}
