//! `GET /api/v1/calls/{id}/transcript`: the redacted transcript as JSON, text or subtitles.
//! Trusts: the permit; the desk gives redacted utterances only.
//! Touches: the desk.
//! Next: [`super::render`].

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::{HeaderValue, header};
use serde::Deserialize;
use utoipa::ToSchema;

use super::desk::Desk;
use super::params::{Asked, CallPath};
use super::problem::{Problem, ProblemDocument};
use super::render;
use super::state::{Api, scope};
use crate::authz::action::ReadTranscript;
use crate::authz::permit::Permit;
use crate::job::spec::Transcript;

/// How the transcript is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum Format {
    /// Everything, with words, times and confidences.
    #[default]
    Json,
    /// One line an utterance.
    Text,
    /// SubRip.
    Srt,
    /// WebVTT.
    Vtt,
}

/// What a transcript may be asked for.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct TranscriptQuery {
    /// `json` when not given.
    #[serde(default)]
    format: Format,
}

/// The redacted transcript of a finished call.
#[utoipa::path(
    get, path = "/api/v1/calls/{id}/transcript", tag = "calls",
    params(("id" = String, Path, description = "The call"), ("format" = inline(Option<Format>), Query, description = "`json` when not given")),
    responses(
        (status = 200, description = "The transcript", content(
            (Transcript = "application/json"), (String = "text/plain"), (String = "application/x-subrip"), (String = "text/vtt"),
        )),
        (status = "default", description = "A problem", body = ProblemDocument, content_type = "application/problem+json"),
    ),
)]
pub(super) async fn read<D: Desk>(
    permit: Permit<ReadTranscript>,
    State(api): State<Api<D>>,
    CallPath(id): CallPath,
    Asked(query): Asked<TranscriptQuery>,
) -> Result<Response, Problem> {
    let transcript = api.desk().transcript(&scope(&permit), id).await?;
    let (media_type, text) = match query.format {
        Format::Json => return Ok(Json(transcript).into_response()),
        Format::Text => ("text/plain; charset=utf-8", render::text(&transcript)),
        Format::Srt => ("application/x-subrip; charset=utf-8", render::srt(&transcript)),
        Format::Vtt => ("text/vtt; charset=utf-8", render::vtt(&transcript)),
    };
    Ok(([(header::CONTENT_TYPE, HeaderValue::from_static(media_type))], text).into_response())
}
