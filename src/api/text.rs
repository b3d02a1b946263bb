//! `POST /api/v1/text/redact`: the same redaction for a text. Nothing is stored.
//! Trusts: the permit.
//! Touches: the desk, which asks a child.
//! Next: the caller.

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use http::HeaderMap;
use serde::Deserialize;
use utoipa::ToSchema;

use super::body::{BodyReader, must_be_json, strict_json};
use super::desk::Desk;
use super::problem::{Kind, Problem, ProblemDocument};
use super::state::Api;
use crate::authz::action::RedactText;
use crate::authz::permit::Permit;
use crate::base::characters::{CodePoint, is_invisible, is_reordering, is_smuggling};
use crate::ipc::worker::TEXT_CHARS_MAX;
use crate::job::calls::CallsError;
use crate::job::spec::RedactedText;

/// Longest body, bytes: 10 000 characters, each as two `\uXXXX` escapes, and the rest of the JSON.
const BODY_MAX: u64 = 128 * 1024;

/// A text to redact.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct TextRequest {
    /// 1 to 10 000 characters, no control characters but those of white space. What would show the text in another order than it is
    /// read in (U+202A to U+202E, U+2066 to U+206F) or carry text unseen (tags, supplementary variation selectors) is left out.
    #[schema(min_length = 1, max_length = 10_000)]
    text: String,
}

/// Masks personal information in a text.
#[utoipa::path(
    post, path = "/api/v1/text/redact", tag = "text", request_body = TextRequest,
    responses(
        (status = 200, description = "The text with placeholders", body = RedactedText),
        (status = "default", description = "A problem", body = ProblemDocument, content_type = "application/problem+json"),
    ),
)]
pub(super) async fn redact<D: Desk>(
    _permit: Permit<RedactText>,
    State(api): State<Api<D>>,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<RedactedText>, Problem> {
    must_be_json(&headers)?;
    let body = BodyReader::new(&headers, body, BODY_MAX, api.limits().body_timeout)?.all().await?;
    let TextRequest { text } = strict_json(&body, Kind::InvalidBody)?;
    if text.chars().count() > TEXT_CHARS_MAX {
        return Err(CallsError::TextLength { max: TEXT_CHARS_MAX }.into());
    }
    let text = as_it_reads(&text)?;
    if text.is_empty() {
        return Err(CallsError::TextLength { max: TEXT_CHARS_MAX }.into());
    }
    Ok(Json(api.desk().redact_text(text).await?))
}

/// The text without what would make a reader see something else than the rules read: a number written backwards behind U+202E is
/// shown backwards afterwards, too. Marks and joiners stay, since Arabic, Persian and Indic scripts need them; the rules read past them.
///
/// # Errors
/// 422 for control characters, which no text has.
fn as_it_reads(text: &str) -> Result<String, Problem> {
    if let Some((at, c)) = (1_usize..).zip(text.chars()).find(|(_, c)| c.is_control() && is_invisible(*c)) {
        let detail = format!("`text` has {} as its character {at}: control characters have no place in a text.", CodePoint(c));
        return Err(Problem::new(Kind::InvalidBody, detail));
    }
    Ok(text.chars().filter(|c| !is_reordering(*c) && !is_smuggling(*c)).collect())
}
