//! Bodies, read under limits: bytes, silence, media type, strict JSON.
//! Trusts: nothing.
//! Touches: the connection.
//! Next: [`super::upload`] for recordings, the handlers for JSON.

use std::time::Duration;

use axum::body::Body;
use bytes::{Bytes, BytesMut};
use http::{HeaderMap, header};
use http_body_util::BodyExt;
use serde::de::DeserializeOwned;

use super::problem::{Kind, Problem};
use crate::base::object;

/// A body under limits.
pub(super) struct BodyReader {
    body: Body,
    silence: Duration,
    limit: u64,
    taken: u64,
}

impl BodyReader {
    /// At most `limit` bytes; at most `silence` between two pieces.
    ///
    /// # Errors
    /// 413 when the head already says that it is larger.
    pub(super) fn new(headers: &HeaderMap, body: Body, limit: u64, silence: Duration) -> Result<Self, Problem> {
        let announced = headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
        if announced.is_some_and(|announced| announced > limit) {
            return Err(too_large(limit));
        }
        Ok(Self { body, silence, limit, taken: 0 })
    }

    /// The next piece; `None` at a proper end.
    ///
    /// # Errors
    /// 408 after the silence, 400 when the body ends in the middle, 413 past the limit.
    pub(super) async fn next(&mut self) -> Result<Option<Bytes>, Problem> {
        loop {
            let frame = tokio::time::timeout(self.silence, self.body.frame()).await.map_err(|_| {
                Problem::new(Kind::BodyTimeout, format!("Nothing came for {} seconds; nothing was stored.", self.silence.as_secs_f32()))
            })?;
            let Some(frame) = frame else { return Ok(None) };
            let frame = frame.map_err(|_| {
                Problem::new(Kind::IncompleteBody, "The connection ended in the middle; nothing was stored. Send it again.")
            })?;
            // Trailers say nothing here.
            let Ok(data) = frame.into_data() else { continue };
            self.taken = self.taken.saturating_add(u64::try_from(data.len()).unwrap_or(u64::MAX));
            if self.taken > self.limit {
                return Err(too_large(self.limit));
            }
            if !data.is_empty() {
                return Ok(Some(data));
            }
        }
    }

    /// All of a small body, which may take no longer as a whole than a large one may be silent: else one byte now and then would keep
    /// a request for days.
    ///
    /// # Errors
    /// As [`Self::next`].
    pub(super) async fn all(mut self) -> Result<Bytes, Problem> {
        let limit = self.silence;
        let whole = async {
            let mut all = BytesMut::new();
            while let Some(piece) = self.next().await? {
                all.extend_from_slice(&piece);
            }
            Ok(all.freeze())
        };
        tokio::time::timeout(limit, whole).await.unwrap_or_else(|_| {
            Err(Problem::new(Kind::BodyTimeout, format!("This body may take {} seconds as a whole.", limit.as_secs_f32())))
        })
    }
}

pub(super) fn too_large(limit: u64) -> Problem {
    Problem::new(Kind::TooLarge, format!("At most {limit} bytes are taken here."))
}

/// The media type without its parameters, lower case; `None` when absent or not text.
pub(super) fn media_type(headers: &HeaderMap) -> Option<String> {
    let value = headers.get(header::CONTENT_TYPE)?.to_str().ok()?;
    Some(value.split(';').next().unwrap_or_default().trim().to_ascii_lowercase())
}

/// Refuses every media type but JSON.
///
/// # Errors
/// 415.
pub(super) fn must_be_json(headers: &HeaderMap) -> Result<(), Problem> {
    if media_type(headers).as_deref() == Some("application/json") {
        return Ok(());
    }
    Err(Problem::new(Kind::UnsupportedMediaType, "Send `Content-Type: application/json`."))
}

/// Strict JSON: one object in UTF-8, nothing after it; our types refuse unknown and doubled keys.
///
/// # Errors
/// 400 when it is no JSON; 422 of `kind` when it is not what is asked for.
pub(super) fn strict_json<T: DeserializeOwned>(bytes: &[u8], kind: Kind) -> Result<T, Problem> {
    let text = std::str::from_utf8(bytes)
        .map_err(|error| Problem::new(Kind::MalformedJson, format!("The JSON is not UTF-8 from its byte {} on.", error.valid_up_to())))?;
    let mut json = serde_json::Deserializer::from_str(text);
    object::only(&mut json).and_then(|value| json.end().map(|()| value)).map_err(|error| {
        let kind = if error.is_data() { kind } else { Kind::MalformedJson };
        Problem::new(kind, error.to_string())
    })
}

#[cfg(test)]
mod tests {
    use futures_util::stream;

    use super::*;

    #[tokio::test]
    async fn a_small_body_that_trickles_for_ever_is_refused() {
        let bytes = stream::unfold((), async |()| {
            tokio::task::yield_now().await;
            Some((Ok::<_, std::io::Error>(Bytes::from_static(b" ")), ()))
        });
        let reader = BodyReader::new(&HeaderMap::new(), Body::from_stream(bytes), u64::MAX, Duration::from_millis(50)).unwrap();
        assert_eq!(reader.all().await.unwrap_err().kind(), Kind::BodyTimeout);
    }
}
