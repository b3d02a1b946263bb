//! The words of a call's life: what a caller of the API says of a call and what it is told.
//! Trusts: nothing in [`CallMetadata`] before [`CallMetadata::check`].
//! Touches: nothing.
//! Next: [`super::calls`] stores them, `api` shows them.

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};
use utoipa::ToSchema;

use crate::base::characters::{CodePoint, is_out_of_place};
use crate::base::clock::Timestamp;
use crate::base::hex::hex;
use crate::base::ids::CallId;
use crate::base::object;
use crate::ipc::keeper::ErasureCertificate;
use crate::ipc::transcript::{EntityCount, Utterance};
use crate::ipc::worker::{AudioInfo, CallFailure, RawSamples, Stage, StageTime, TextLanguage};

/// Longest free text in the metadata, characters.
pub const METADATA_TEXT_MAX: usize = 256;
/// Longest idempotency key, bytes.
pub const IDEMPOTENCY_KEY_MAX: usize = 128;
/// Longest page of calls.
pub const PAGE_MAX: u16 = 200;

/// A purpose that the caller agreed to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ConsentPurpose {
    /// Turning the recording into a redacted transcript. Without it nothing is stored.
    Transcription,
    /// Reviewing the quality of the helpline's work.
    QualityReview,
    /// Statistics and research on redacted text.
    Research,
}

/// How consent was given.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ConsentBasis {
    /// The caller agreed at the start of the call.
    Caller,
    /// A guardian agreed.
    Guardian,
    /// The law of the place asks or allows it (duty of care).
    LegalDuty,
}

/// Consent, as recorded by the helpline. Required by policy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Consent {
    /// How it was given.
    pub basis: ConsentBasis,
    /// What for; must contain `transcription`.
    pub purposes: Vec<ConsentPurpose>,
    /// When, RFC 3339; the time of the upload when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub given_at: Option<String>,
}

/// Who speaks on a channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ChannelRole {
    /// The helpline's counsellor.
    Counsellor,
    /// Who called, or was called.
    Caller,
}

impl ChannelRole {
    /// As the API spells it.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Counsellor => "counsellor",
            Self::Caller => "caller",
        }
    }
}

/// What the uploader says of a call. Sealed under the call's own key. Unknown fields are refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CallMetadata {
    /// Consent to processing.
    #[serde(deserialize_with = "object::only")]
    pub consent: Consent,
    /// ISO 639-1 code of the spoken language when known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub language: Option<String>,
    /// When the call was recorded, RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recorded_at: Option<String>,
    /// The helpline's own reference of the call, at most 256 characters that can be seen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reference: Option<String>,
    /// Who speaks on each channel of the recording, in their order; each role at most once. When the recording turns out to have
    /// another number of channels, its transcript is made all the same, without roles and with `channels_mismatch`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(min_items = 1, max_items = 2)]
    pub channels: Option<Vec<ChannelRole>>,
    /// Of a recording without a header: what its Content-Type declares. Never part of what is sent as metadata.
    #[serde(default, deserialize_with = "declared", skip_serializing_if = "Option::is_none")]
    #[schema(ignore)]
    pub samples: Option<RawSamples>,
}

/// Not `null`, which other optional fields may be: this one is not for clients, and what they write there is looked at by nobody.
fn declared<'de, D: Deserializer<'de>>(from: D) -> Result<Option<RawSamples>, D::Error> {
    Option::deserialize(from)?.map(Some).ok_or_else(|| D::Error::custom("unknown field `samples`"))
}

/// Where a call is on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum CallState {
    /// Accepted and durable, waiting for a child.
    Queued,
    /// A child works on it.
    Running,
    /// The redacted transcript can be read.
    Done,
    /// It could not be transcribed; `failure` says why.
    Failed,
    /// Someone stopped it.
    Cancelled,
}

impl CallState {
    /// As the API spells it.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Running => "running",
            Self::Done => "done",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }

    /// No further change but deletion.
    pub const fn is_final(self) -> bool {
        matches!(self, Self::Done | Self::Failed | Self::Cancelled)
    }
}

/// What may be shown of a call to those who may see it: no content.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct CallView {
    /// The call.
    #[schema(value_type = String, example = "3f1c0c5d9a7b4e2f8d6a1b0c9e8f7a6d")]
    pub id: CallId,
    /// Its job; grows by one with each accepted call.
    pub job: u64,
    /// Who uploaded it, as `role/name`.
    pub owner: String,
    /// Where it is on its way.
    pub state: CallState,
    /// Stage of the work while it runs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stage: Option<Stage>,
    /// Share that is done, 0..=100.
    pub percent: u8,
    /// When it was accepted, RFC 3339.
    pub created_at: String,
    /// When it last changed state, RFC 3339.
    pub updated_at: String,
    /// Size of the recording, bytes.
    pub audio_bytes: u64,
    /// Length of the recording, milliseconds, once known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub audio_ms: Option<u64>,
    /// What the recording is, once known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub audio: Option<AudioInfo>,
    /// Why it failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failure: Option<CallFailure>,
    /// Times the job was started.
    pub attempts: u8,
}

/// The redacted transcript of a finished call.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Transcript {
    /// The call.
    #[schema(value_type = String, example = "3f1c0c5d9a7b4e2f8d6a1b0c9e8f7a6d")]
    pub call: CallId,
    /// Who speaks on each channel, by its number; absent when the uploader did not say, or said it of another number of channels.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub channels: Option<Vec<ChannelRole>>,
    /// The uploader named the roles of another number of channels than the recording has.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub channels_mismatch: bool,
    /// Utterances in order of time, with placeholders.
    pub utterances: Vec<Utterance>,
    /// What was redacted, by kind.
    pub redacted: Vec<EntityCount>,
    /// Language of the text.
    pub language: Option<TextLanguage>,
    /// Length of the audio, milliseconds.
    pub audio_ms: u64,
    /// Speech in it, milliseconds, summed over channels.
    pub speech_ms: u64,
    /// Busy time by stage.
    pub stages: Vec<StageTime>,
    /// Wall time of the child, milliseconds.
    pub wall_ms: u64,
    /// `name@version` of each model that was used.
    pub models: Vec<String>,
}

/// One line of a call's event stream (SSE). Numbers grow from 1 in a call, with gaps, and never repeat, not even across restarts.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CallEvent {
    /// Position in the stream; the SSE `id`.
    pub number: u64,
    /// What happened.
    pub what: CallHappening,
}

/// What an event says.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum CallHappening {
    /// The state changed.
    State {
        /// To this.
        state: CallState,
        /// Why, when it failed.
        #[serde(skip_serializing_if = "Option::is_none")]
        failure: Option<CallFailure>,
    },
    /// The work went on.
    Progress {
        /// Current stage.
        stage: Stage,
        /// Share of the whole that is done, 0..=100.
        percent: u8,
        /// Audio decoded so far, milliseconds.
        audio_ms: u64,
        /// Since the job started, milliseconds.
        elapsed_ms: u64,
    },
}

/// Everything the appliance gives out of a call: one JSON document, its schema in the OpenAPI document.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct CallExport {
    /// The schema of this document: `salama.call-export/1`.
    pub schema: String,
    /// When it was made, RFC 3339.
    pub exported_at: String,
    /// The call.
    pub call: CallView,
    /// What the uploader said of it.
    pub metadata: CallMetadata,
    /// Its redacted transcript, when done.
    pub transcript: Option<Transcript>,
}

/// How far the erasure of a call is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ErasureView {
    /// The call that was erased.
    #[schema(value_type = String)]
    pub call: CallId,
    /// When its key, records and recording were deleted, RFC 3339.
    pub erased_at: String,
    /// The epoch that its key was of. The erasure is final once that is destroyed: then no copy of the disk opens the
    /// call, but one together with a recovery paper of its time.
    pub epoch: u32,
    /// Signed once the erasure is final.
    pub certificate: Option<Certificate>,
    /// Until then: other calls whose keys were wrapped anew, while that goes on.
    pub rewrapped: u64,
    /// Of so many.
    pub rewrapped_of: u64,
}

/// A signed statement.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Certificate {
    /// JSON text; the very bytes that are signed.
    pub statement: String,
    /// ECDSA on P-256 with SHA-256, ASN.1 DER, in hexadecimal; by the key in `erasure.pem`.
    pub signature: String,
}

impl ErasureView {
    pub(super) fn new(call: CallId, erased: Timestamp, epoch: u32, signed: Option<ErasureCertificate>, progress: (u64, u64)) -> Self {
        let certificate = signed.map(|signed| Certificate { statement: signed.statement, signature: hex(&signed.signature) });
        let (rewrapped, rewrapped_of) = if certificate.is_some() { (0, 0) } else { progress };
        Self { call, erased_at: erased.rfc3339(), epoch, certificate, rewrapped, rewrapped_of }
    }
}

/// Redacted text.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct RedactedText {
    /// With placeholders.
    pub text: String,
    /// What was masked, by kind.
    pub redacted: Vec<EntityCount>,
    /// Language of the text, when it is clear.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub language: Option<TextLanguage>,
}

/// Which calls a reader may see.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Those that this `role/name` uploaded.
    OwnedBy(String),
    /// All.
    All,
}

/// One page of calls, newest first.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct CallPage {
    /// The calls.
    pub calls: Vec<CallView>,
    /// To be given as `cursor` for the next page; absent on the last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

/// Metadata that is well-formed JSON but not acceptable.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MetadataError {
    /// No consent to transcription.
    #[error("consent to the purpose `transcription` is required; without it nothing is stored")]
    NoTranscriptionConsent,
    /// A text is longer than [`METADATA_TEXT_MAX`].
    #[error("`{field}` must be at most {METADATA_TEXT_MAX} characters")]
    TooLong {
        /// Which.
        field: &'static str,
    },
    /// A text holds a character that nobody sees.
    #[error("`{field}` must not contain {character}: characters that cannot be seen have no place in it")]
    Character {
        /// Which.
        field: &'static str,
        /// The first.
        character: CodePoint,
    },
    /// No channel, more than two, or one role twice.
    #[error("`channels` must name one or two channels, each role at most once, for example [\"counsellor\", \"caller\"]")]
    Channels,
    /// Not a two-letter language code.
    #[error("`language` must be an ISO 639-1 code of two lower-case letters, for example `en` or `sw`")]
    Language,
    /// Not a moment in RFC 3339.
    #[error("`{field}` must be a moment in RFC 3339, for example 2026-11-22T08:30:00Z")]
    Moment {
        /// Which.
        field: &'static str,
    },
}

impl CallMetadata {
    /// Accepts what policy accepts.
    ///
    /// # Errors
    /// The first fault found.
    pub fn check(&self) -> Result<(), MetadataError> {
        if !self.consent.purposes.contains(&ConsentPurpose::Transcription) {
            return Err(MetadataError::NoTranscriptionConsent);
        }
        if let Some(language) = &self.language
            && !(language.len() == 2 && language.bytes().all(|byte| byte.is_ascii_lowercase()))
        {
            return Err(MetadataError::Language);
        }
        if let Some(reference) = &self.reference {
            if reference.chars().count() > METADATA_TEXT_MAX {
                return Err(MetadataError::TooLong { field: "reference" });
            }
            if let Some(hidden) = reference.chars().find(|c| is_out_of_place(*c)) {
                return Err(MetadataError::Character { field: "reference", character: CodePoint(hidden) });
            }
        }
        if let Some(channels) = &self.channels
            && !matches!(channels.as_slice(), [_])
            && !matches!(channels.as_slice(), [one, other] if one != other)
        {
            return Err(MetadataError::Channels);
        }
        for (field, moment) in [("consent.given_at", &self.consent.given_at), ("recorded_at", &self.recorded_at)] {
            if let Some(moment) = moment
                && time::OffsetDateTime::parse(moment, &time::format_description::well_known::Rfc3339).is_err()
            {
                return Err(MetadataError::Moment { field });
            }
        }
        Ok(())
    }
}
