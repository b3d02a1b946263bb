//! A recording on its way in: its metadata first, then its bytes, from a form or a plain body.
//! Trusts: nothing.
//! Touches: the connection.
//! Next: [`super::calls::create`] pushes the bytes to the desk.

use axum::body::Body;
use bytes::Bytes;
use http::{HeaderMap, HeaderName, header};
use serde::Deserialize;
use serde::de::IgnoredAny;

use super::body::{BodyReader, media_type, strict_json};
use super::multipart::{FormError, Parser, Piece};
use super::problem::{Kind, Problem};
use super::samples::declared_samples;
use super::state::Api;
use crate::ipc::worker::RawSamples;
use crate::job::spec::{CallMetadata, IDEMPOTENCY_KEY_MAX};

/// Metadata of a recording that is sent as the plain body: JSON in ASCII (other characters as `\u` escapes).
pub const METADATA_HEADER: HeaderName = HeaderName::from_static("salama-metadata");
/// Longest metadata in a form, bytes.
const METADATA_MAX: usize = 64 * 1024;
/// What a form may be longer than its recording: metadata, heads, boundaries.
const FORM_EXTRA: u64 = 80 * 1024;
const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// A recording being received. Call [`Self::metadata`] once, then [`Self::audio`] until it gives `None`.
pub(super) struct Recording {
    body: BodyReader,
    form: Option<Parser>,
    header: Option<Bytes>,
    audio_left: u64,
    audio_limit: u64,
    samples: Option<RawSamples>,
}

impl Recording {
    /// Looks at the head only.
    ///
    /// # Errors
    /// 415, 413, or 400 for a Content-Type without boundary.
    pub(super) fn new<D: super::desk::Desk>(headers: &HeaderMap, body: Body, api: &Api<D>) -> Result<Self, Problem> {
        let media = media_type(headers).unwrap_or_default();
        let form = match media.as_str() {
            "multipart/form-data" => Some(Parser::new(content_type(headers))?),
            "application/octet-stream" => None,
            audio if audio.starts_with("audio/") => None,
            _ => {
                let detail = "Send a recording as multipart/form-data (parts `metadata`, `audio`), or as audio/* or \
                              application/octet-stream with its metadata in the header Salama-Metadata.";
                return Err(Problem::new(Kind::UnsupportedMediaType, detail));
            }
        };
        let samples = if form.is_none() { declared_samples(content_type(headers))? } else { None };
        let limit = api.max_audio().saturating_add(if form.is_some() { FORM_EXTRA } else { 0 });
        let body = BodyReader::new(headers, body, limit, api.limits().body_timeout)?;
        let header = headers.get(METADATA_HEADER).map(|value| Bytes::copy_from_slice(value.as_bytes()));
        Ok(Self { body, form, header, audio_left: api.max_audio(), audio_limit: api.max_audio(), samples })
    }

    /// The metadata, checked against policy.
    ///
    /// # Errors
    /// 400 or 422 when it is missing, malformed or not acceptable; as [`BodyReader::next`].
    pub(super) async fn metadata(&mut self) -> Result<CallMetadata, Problem> {
        let json = if self.form.is_some() { self.metadata_part().await? } else { self.metadata_header()? };
        let mut metadata: CallMetadata = strict_json(&json, Kind::InvalidMetadata).map_err(|problem| consent_first(&json, problem))?;
        metadata.check()?;
        if metadata.samples.is_some() {
            return Err(Problem::new(
                Kind::InvalidMetadata,
                "The metadata has an unknown field `samples`; declare raw samples by Content-Type.",
            ));
        }
        metadata.samples = self.samples;
        Ok(metadata)
    }

    fn metadata_header(&self) -> Result<Bytes, Problem> {
        match &self.header {
            Some(json) if json.is_ascii() => Ok(json.clone()),
            Some(_) => {
                Err(Problem::new(Kind::BadRequest, "The header Salama-Metadata must be ASCII; write other characters as \\u escapes."))
            }
            None => Err(Problem::new(Kind::ConsentRequired, "The header Salama-Metadata is missing: JSON with at least `consent`.")),
        }
    }

    async fn metadata_part(&mut self) -> Result<Bytes, Problem> {
        match self.piece().await? {
            Piece::Part(head) if head.name == "metadata" => {
                if head.media_type.is_some_and(|media| media != "application/json") {
                    return Err(Problem::new(Kind::UnsupportedMediaType, "The part `metadata` must be application/json."));
                }
            }
            Piece::Part(head) if head.name == "audio" => return Err(form("The part `metadata` must come before the part `audio`.")),
            Piece::Part(_) => return Err(form("Only the parts `metadata` and `audio` are known, in this order.")),
            Piece::Data(_) | Piece::PartEnd | Piece::End => {
                return Err(form("The form has no parts; send `metadata`, then `audio`."));
            }
        }
        let mut json = Vec::new();
        while let Piece::Data(bytes) = self.piece().await? {
            json.extend_from_slice(&bytes);
            if json.len() > METADATA_MAX {
                return Err(Problem::new(Kind::TooLarge, format!("The metadata has at most {METADATA_MAX} bytes.")));
            }
        }
        self.audio_part().await?;
        Ok(json.into())
    }

    /// Before anything is admitted, the recording must have begun.
    async fn audio_part(&mut self) -> Result<(), Problem> {
        match self.piece().await? {
            Piece::Part(head) if head.name == "audio" => {
                self.samples = declared_samples(head.content_type.as_deref().unwrap_or_default())?;
                Ok(())
            }
            Piece::Part(head) if head.name == "metadata" => Err(form("The part `metadata` must come once.")),
            Piece::Part(_) => Err(form("Only the parts `metadata` and `audio` are known, in this order.")),
            Piece::Data(_) | Piece::PartEnd | Piece::End => Err(form("The part `audio` is missing.")),
        }
    }

    /// The next bytes of the recording; `None` once all have come and the body has ended as it should.
    ///
    /// # Errors
    /// 413 past the limit, 400 for what may not follow; as [`BodyReader::next`].
    pub(super) async fn audio(&mut self) -> Result<Option<Bytes>, Problem> {
        let bytes = if self.form.is_some() {
            match self.piece().await? {
                Piece::Data(bytes) => Some(bytes),
                _ => {
                    self.end_of_form().await?;
                    None
                }
            }
        } else {
            self.body.next().await?
        };
        if let Some(bytes) = &bytes {
            let len = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
            self.audio_left = self.audio_left.checked_sub(len).ok_or_else(|| super::body::too_large(self.audio_limit))?;
        }
        Ok(bytes)
    }

    async fn end_of_form(&mut self) -> Result<(), Problem> {
        match self.piece().await? {
            Piece::End => {}
            _ => return Err(form("Nothing may follow the part `audio`.")),
        }
        // What follows the closing boundary says nothing, but the body must end properly.
        while self.body.next().await?.is_some() {}
        Ok(())
    }

    async fn piece(&mut self) -> Result<Piece, Problem> {
        let Some(parser) = &mut self.form else { return Ok(Piece::End) };
        loop {
            if let Some(piece) = parser.next()? {
                return Ok(piece);
            }
            match self.body.next().await? {
                Some(bytes) => parser.feed(&bytes),
                None => {
                    parser.finish()?;
                    return Ok(Piece::End);
                }
            }
        }
    }
}

fn content_type(headers: &HeaderMap) -> &str {
    headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default()
}

impl From<FormError> for Problem {
    fn from(error: FormError) -> Self {
        Self::new(Kind::MalformedMultipart, error.to_string())
    }
}

fn form(detail: &'static str) -> Problem {
    Problem::new(Kind::MalformedMultipart, detail)
}

/// Metadata without consent is a matter of policy, whatever else is wrong with it.
fn consent_first(json: &[u8], problem: Problem) -> Problem {
    #[derive(Deserialize)]
    struct Presence {
        #[serde(default)]
        consent: Option<IgnoredAny>,
    }
    match serde_json::from_slice::<Presence>(json) {
        Ok(Presence { consent: None }) => {
            Problem::new(Kind::ConsentRequired, "The metadata has no `consent`; without it nothing is stored.")
        }
        _ => problem,
    }
}

/// The `Idempotency-Key`: 1 to 128 visible ASCII characters, at most once.
///
/// # Errors
/// 400.
pub(super) fn idempotency_key(headers: &HeaderMap) -> Result<Option<&str>, Problem> {
    let mut values = headers.get_all(IDEMPOTENCY_KEY).iter();
    let Some(value) = values.next() else { return Ok(None) };
    let key = value.to_str().unwrap_or_default();
    let valid = (1..=IDEMPOTENCY_KEY_MAX).contains(&key.len()) && key.bytes().all(|byte| byte.is_ascii_graphic());
    if !valid || values.next().is_some() {
        let detail = format!("Idempotency-Key must come once, with 1 to {IDEMPOTENCY_KEY_MAX} visible ASCII characters.");
        return Err(Problem::new(Kind::BadRequest, detail));
    }
    Ok(Some(key))
}
