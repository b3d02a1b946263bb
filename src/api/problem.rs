//! Every refusal and failure as one RFC 9457 document. The only place where an error becomes a reply.
//! Trusts: nothing; details are words of ours, never an inner error's.
//! Touches: nothing.
//! Next: [`super::frame`] adds the request's id and writes it out.

use std::borrow::Cow;
use std::time::Duration;

use axum::response::{IntoResponse, Response};
use http::StatusCode;
use serde::Serialize;
use utoipa::ToSchema;

use crate::authz::permit::Refusal;
use crate::base::characters::plainly;
use crate::job::calls::CallsError;
use crate::job::spec::MetadataError;

/// Longest detail, characters: it may quote what the client sent.
const DETAIL_MAX: usize = 300;

macro_rules! kinds {
    ($($(#[$doc:meta])+ $name:ident, $word:literal, $status:ident, $title:literal;)+) => {
        /// The stable kinds of problem; `type` is `urn:salama:problem:` and the word.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Kind { $($(#[$doc])+ $name,)+ }

        impl Kind {
            /// Every kind.
            pub const ALL: &'static [Self] = &[$(Self::$name),+];

            /// The last part of `type`.
            pub const fn word(self) -> &'static str {
                match self { $(Self::$name => $word,)+ }
            }

            /// The HTTP status that always goes with it.
            pub const fn status(self) -> StatusCode {
                match self { $(Self::$name => StatusCode::$status,)+ }
            }

            /// The same sentence for every problem of the kind.
            pub const fn title(self) -> &'static str {
                match self { $(Self::$name => $title,)+ }
            }
        }
    };
}

kinds! {
    /// The path is none of the API's.
    NoSuchPath, "no-such-path", NOT_FOUND, "There is nothing at this path";
    /// The path is, the method is not.
    MethodNotAllowed, "method-not-allowed", METHOD_NOT_ALLOWED, "This path does not take this method";
    /// No such call, or not one that the peer may see.
    NotFound, "not-found", NOT_FOUND, "There is no such call";
    /// The role may not.
    NotAllowed, "not-allowed", FORBIDDEN, "This certificate's role may not do that";
    /// The certificate has expired since the handshake.
    CertificateExpired, "certificate-expired", FORBIDDEN, "The certificate has expired";
    /// The peer came too often.
    RateLimited, "rate-limited", TOO_MANY_REQUESTS, "Too many requests";
    /// More head than is looked at.
    HeadTooLarge, "head-too-large", REQUEST_HEADER_FIELDS_TOO_LARGE, "The head of the request is too large";
    /// A header or parameter is wrong.
    BadRequest, "bad-request", BAD_REQUEST, "The request is not well-formed";
    /// JSON that is none.
    MalformedJson, "malformed-json", BAD_REQUEST, "The JSON is malformed";
    /// Multipart that is none, or with the wrong parts.
    MalformedMultipart, "malformed-multipart", BAD_REQUEST, "The multipart body is not as asked for";
    /// The body ended in the middle.
    IncompleteBody, "incomplete-body", BAD_REQUEST, "The body ended before it was complete";
    /// The body took too long.
    BodyTimeout, "body-timeout", REQUEST_TIMEOUT, "The body came too slowly";
    /// Wrong Content-Type.
    UnsupportedMediaType, "unsupported-media-type", UNSUPPORTED_MEDIA_TYPE, "This Content-Type is not taken here";
    /// Larger than allowed.
    TooLarge, "too-large", PAYLOAD_TOO_LARGE, "The body is too large";
    /// JSON, but not what is asked for.
    InvalidBody, "invalid-body", UNPROCESSABLE_ENTITY, "The body is not what is asked for";
    /// The metadata is not acceptable.
    InvalidMetadata, "invalid-metadata", UNPROCESSABLE_ENTITY, "The metadata is not acceptable";
    /// No consent, nothing stored.
    ConsentRequired, "consent-required", UNPROCESSABLE_ENTITY, "Consent is required";
    /// No bytes.
    EmptyRecording, "empty-recording", UNPROCESSABLE_ENTITY, "The recording is empty";
    /// The text is empty or too long.
    TextLength, "text-length", UNPROCESSABLE_ENTITY, "The text has the wrong length";
    /// The key was used for something else.
    IdempotencyConflict, "idempotency-conflict", CONFLICT, "The Idempotency-Key was used for another request";
    /// Not there yet, or never.
    NoTranscript, "no-transcript", CONFLICT, "The call has no transcript";
    /// Too late to cancel.
    AlreadyFinal, "already-final", CONFLICT, "The call has already ended";
    /// A cursor that is not ours.
    BadCursor, "bad-cursor", BAD_REQUEST, "The cursor is not valid";
    /// As many calls wait as may.
    QueueFull, "queue-full", SERVICE_UNAVAILABLE, "The queue is full";
    /// No room.
    DiskFull, "disk-full", INSUFFICIENT_STORAGE, "The disk is full";
    /// The keeper's limit.
    KeyLimit, "key-limit", TOO_MANY_REQUESTS, "The key keeper's limit is reached";
    /// Its limit for moves of the erasure epoch.
    FinalLater, "final-later", TOO_MANY_REQUESTS, "Erasures were made final too often in a short time";
    /// A grant that the keeper does not take.
    GrantRefused, "grant-refused", UNPROCESSABLE_ENTITY, "The grant does not count";
    /// No child is free.
    Busy, "busy", SERVICE_UNAVAILABLE, "All workers are busy";
    /// As many requests as allowed are being served.
    Overloaded, "overloaded", SERVICE_UNAVAILABLE, "The appliance is busy";
    /// The worker failed on the text.
    WorkerFailed, "worker-failed", INTERNAL_SERVER_ERROR, "The worker failed";
    /// A fault of ours.
    Internal, "internal", INTERNAL_SERVER_ERROR, "The appliance failed";
}

/// One problem, before the request's id is known.
#[derive(Clone, Debug)]
pub struct Problem {
    kind: Kind,
    detail: Cow<'static, str>,
    retry_after: Option<Duration>,
}

/// What a client reads, as `application/problem+json` (RFC 9457).
#[derive(Serialize, ToSchema)]
pub struct ProblemDocument {
    /// Stable: `urn:salama:problem:` and a word.
    #[serde(rename = "type")]
    #[schema(example = "urn:salama:problem:not-found")]
    pub kind: String,
    /// The same for every problem of this type.
    pub title: &'static str,
    /// The HTTP status.
    pub status: u16,
    /// What is wrong in this request and what to do.
    pub detail: String,
    /// Names this request; the journal has it beside every failure of ours.
    #[schema(example = "urn:salama:request:5f0c9a3e71d24b86")]
    pub instance: String,
}

impl Problem {
    /// A problem of `kind`; `detail` says what is wrong here and what to do.
    pub fn new(kind: Kind, detail: impl Into<Cow<'static, str>>) -> Self {
        Self { kind, detail: detail.into(), retry_after: None }
    }

    /// A problem that is over after `wait`.
    pub fn retry(kind: Kind, detail: impl Into<Cow<'static, str>>, wait: Duration) -> Self {
        Self { kind, detail: detail.into(), retry_after: Some(wait) }
    }

    /// Its kind.
    pub const fn kind(&self) -> Kind {
        self.kind
    }

    /// For the `Retry-After` header.
    pub const fn retry_after(&self) -> Option<Duration> {
        self.retry_after
    }

    /// The document for the request that `instance` names.
    pub fn document(&self, instance: String) -> ProblemDocument {
        ProblemDocument {
            kind: format!("urn:salama:problem:{}", self.kind.word()),
            title: self.kind.title(),
            status: self.kind.status().as_u16(),
            detail: plainly(&self.detail).chars().take(DETAIL_MAX).collect(),
            instance,
        }
    }
}

impl IntoResponse for Problem {
    /// The status now; [`super::frame`] finds the problem in the response's extensions and writes the body.
    fn into_response(self) -> Response {
        let mut response = self.kind.status().into_response();
        response.extensions_mut().insert(self);
        response
    }
}

impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::NotAllowed => {
                Self::new(Kind::NotAllowed, "Use a certificate whose role may do that; `GET /api/v1/whoami` says which role this one has.")
            }
            Refusal::Expired => Self::new(Kind::CertificateExpired, "Ask the administrator for a new certificate."),
        }
    }
}

impl From<MetadataError> for Problem {
    fn from(error: MetadataError) -> Self {
        let kind = match error {
            MetadataError::NoTranscriptionConsent => Kind::ConsentRequired,
            MetadataError::TooLong { .. }
            | MetadataError::Character { .. }
            | MetadataError::Language
            | MetadataError::Moment { .. }
            | MetadataError::Channels => Kind::InvalidMetadata,
        };
        Self::new(kind, error.to_string())
    }
}

impl From<CallsError> for Problem {
    fn from(error: CallsError) -> Self {
        let detail = error.to_string();
        match error {
            CallsError::NotFound => Self::new(Kind::NotFound, "It never existed, was erased, or is not yours to see."),
            CallsError::Empty => Self::new(Kind::EmptyRecording, "The recording has no bytes; nothing was stored."),
            CallsError::TooLarge { .. } => Self::new(Kind::TooLarge, detail),
            CallsError::IdempotencyConflict => {
                Self::new(Kind::IdempotencyConflict, "Use a new key for a new recording; send a repeated one unchanged.")
            }
            CallsError::NoTranscript(state) => {
                Self::new(Kind::NoTranscript, format!("The call is `{}`; a transcript exists once it is `done`.", state.word()))
            }
            CallsError::AlreadyFinal(state) => Self::new(Kind::AlreadyFinal, format!("The call is `{}`.", state.word())),
            CallsError::QueueFull => Self::retry(Kind::QueueFull, "Send the recording again later.", Duration::from_secs(60)),
            CallsError::Full => Self::new(Kind::DiskFull, "Erase calls or give the appliance a larger disk, then send again."),
            CallsError::KeyLimit { wait } => Self::retry(
                Kind::KeyLimit,
                "Try again later. A supervisor can allow more calls to be opened for a while: `salama burst`.",
                wait,
            ),
            CallsError::FinalLater { wait } => {
                Self::retry(Kind::FinalLater, "The erasure stands. It becomes final by itself, at most one erasure interval later.", wait)
            }
            CallsError::TextLength { .. } => Self::new(Kind::TextLength, detail),
            CallsError::BadCursor => Self::new(Kind::BadCursor, "Take `next` of the page before, or none for the first page."),
            CallsError::Worker(failure) => Self::new(Kind::WorkerFailed, failure.to_string()),
            CallsError::Busy => Self::retry(Kind::Busy, "Try again in a few seconds.", Duration::from_secs(5)),
            CallsError::Internal => Self::new(Kind::Internal, "The appliance's journal says why; tell the administrator the `instance`."),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_has_its_own_stable_word_and_an_error_status() {
        let words: std::collections::BTreeSet<_> = Kind::ALL.iter().map(|kind| kind.word()).collect();
        assert_eq!(words.len(), Kind::ALL.len());
        for kind in Kind::ALL {
            assert!(kind.status().is_client_error() || kind.status().is_server_error(), "{kind:?}");
        }
    }

    #[test]
    fn what_a_client_sent_cannot_bend_the_document_that_quotes_it() {
        let problem = Problem::new(Kind::BadRequest, "unknown field `\u{202E}x\u{1b}`");
        assert_eq!(problem.document(String::new()).detail, "unknown field `U+202ExU+001B`");
    }

    #[test]
    fn what_a_client_sent_is_not_quoted_at_length() {
        let problem = Problem::new(Kind::BadRequest, "x".repeat(10_000));
        assert_eq!(problem.document(String::new()).detail.len(), DETAIL_MAX);
    }
}
