//! What `salamad`, the fork server and its children say to each other.
//! Trusts: nothing: `salamad` takes a child for taken over, a child takes the audio for hostile.
//! Touches: nothing.
//! Next: `supervisor` (in `salamad`), `worker` (in the fork server and child).
//!
//! ```text
//! salamad -> fork server   ForkRequest::Spawn + one end of a new channel
//! fork server -> salamad   ForkEvent::Spawned, later ForkEvent::Exited
//! salamad -> child         Task::Transcribe, then Task::Audio for each ChildEvent::Need
//! child -> salamad         Need*, Progress*, Timing*, Utterance*, then exactly one of Done, Redacted, Failed; then end of file
//! ```

use serde::{Deserialize, Serialize};

use super::transcript::{Entity, EntityCount, Utterance};

/// Largest piece of audio in one [`Task::Audio`], bytes: one sealed segment.
pub const AUDIO_CHUNK_MAX: u32 = 64 * 1024;

/// Longest text that is redacted in one request, Unicode scalar values.
pub const TEXT_CHARS_MAX: usize = 10_000;

/// Names one child of the fork server, for as long as `salamad` lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ChildId(pub u64);

/// From `salamad` to the fork server.
#[derive(Debug, Serialize, Deserialize)]
pub enum ForkRequest {
    /// Fork a child. The message carries the child's end of a channel as its one descriptor.
    Spawn {
        /// Name for the new child.
        child: ChildId,
        /// Address space that the child may add to what it inherits, bytes.
        memory_limit: u64,
        /// Processor time that the child may use, seconds.
        cpu_seconds: u32,
    },
    /// Kill this child now; no answer but its `Exited`. A child that is gone is no error.
    Kill {
        /// Which.
        child: ChildId,
    },
}

/// From the fork server to `salamad`.
#[derive(Debug, Serialize, Deserialize)]
pub enum ForkEvent {
    /// Models are verified, loaded and warm; confinement is on. Sent once, first.
    Ready {
        /// [`super::PROTOCOL_VERSION`] of the sender.
        version: u16,
        /// What was loaded.
        models: Vec<LoadedModel>,
    },
    /// Start-up failed; the text is for the operator. The fork server exits after it.
    Refused {
        /// What failed and what to do.
        reason: String,
    },
    /// The child runs.
    Spawned {
        /// Which.
        child: ChildId,
        /// Its process id.
        pid: u32,
    },
    /// The child could not be forked; `Exited` does not follow.
    SpawnFailed {
        /// Which.
        child: ChildId,
        /// `errno`.
        errno: i32,
    },
    /// The child is gone.
    Exited {
        /// Which.
        child: ChildId,
        /// How.
        how: ChildExit,
    },
}

/// A model that the fork server holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct LoadedModel {
    /// Name in its manifest, for example `whisper-base`.
    pub name: String,
    /// Version in its manifest.
    pub version: String,
    /// SHA-256 of the manifest, hexadecimal.
    pub manifest_sha256: String,
}

/// How a child ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ChildExit {
    /// By itself with this code.
    Code(i32),
    /// By this signal: 31 is a refused system call, 9 a kill, 24 the processor time limit.
    Signal(i32),
}

/// From `salamad` to a child. The first message is `Transcribe` or `Redact`.
#[derive(Debug, Serialize, Deserialize)]
pub enum Task {
    /// Transcribe and redact a recording.
    Transcribe {
        /// Length of the recording, bytes.
        audio_bytes: u64,
        /// ISO 639-1 code when the uploader knows the language; the recogniser listens for it otherwise.
        language: Option<String>,
        /// Threads that the child may use.
        threads: u8,
        /// Longest audio that is transcribed, seconds.
        max_audio_seconds: u32,
    },
    /// The answer to [`ChildEvent::Need`]: the bytes at `offset`, shorter than asked only at the end, empty past it.
    Audio {
        /// Position in the recording, bytes.
        offset: u64,
        /// At most [`AUDIO_CHUNK_MAX`].
        bytes: Vec<u8>,
    },
    /// Redact this text of 1..=[`TEXT_CHARS_MAX`] characters.
    Redact {
        /// The text.
        text: String,
    },
}

/// A step of the way of a call, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// Waiting for a child.
    Queued,
    /// Reading the container and decoding samples.
    Decode,
    /// Finding speech.
    Speech,
    /// Turning speech into text.
    Transcribe,
    /// Finding and masking personal information.
    Redact,
    /// Sealing the results.
    Seal,
}

/// From a child to `salamad`.
#[derive(Debug, Serialize, Deserialize)]
pub enum ChildEvent {
    /// Confined, self-checked and waiting for its task. Sent once, first.
    Ready,
    /// Send these bytes of the recording.
    Need {
        /// Position in the recording, bytes.
        offset: u64,
        /// 1..=[`AUDIO_CHUNK_MAX`].
        len: u32,
    },
    /// Where the work is.
    Progress {
        /// The latest stage that has begun.
        stage: Stage,
        /// Share of the whole call that is done, 0..=1000.
        per_mille: u16,
        /// Audio decoded so far, milliseconds.
        audio_ms: u64,
    },
    /// What the recording is, once its header is read.
    Audio(AudioInfo),
    /// One utterance, redacted and clear, in order of `start_ms`.
    Utterance {
        /// With placeholders.
        redacted: Utterance,
        /// As it was said.
        clear: Utterance,
        /// What was masked, as byte ranges of `clear.text()`.
        entities: Vec<Entity>,
    },
    /// The transcript is complete.
    Done(Summary),
    /// The answer to [`Task::Redact`].
    Redacted {
        /// With placeholders.
        text: String,
        /// What was masked.
        counts: Vec<EntityCount>,
        /// Language of the text, when it is clear.
        language: Option<TextLanguage>,
    },
    /// The recording cannot be transcribed.
    Failed(CallFailure),
}

/// What a recording turned out to be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct AudioInfo {
    /// Container and codec, for example `wav/mulaw`.
    pub format: String,
    /// Samples a second and channel.
    pub sample_rate: u32,
    /// 1 or 2.
    pub channels: u8,
}

/// Language of the text.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct TextLanguage {
    /// ISO 639-1 code.
    pub code: String,
    /// 0..=1.
    pub confidence: f32,
}

/// Time spent in a stage.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct StageTime {
    /// Which.
    pub stage: Stage,
    /// Busy time, milliseconds, summed over threads.
    pub millis: u64,
}

/// What is known of the whole call at its end.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// Length of the audio, milliseconds.
    pub audio_ms: u64,
    /// Speech in it, milliseconds, summed over channels.
    pub speech_ms: u64,
    /// Utterances that were sent.
    pub utterances: u32,
    /// What was redacted, by kind.
    pub counts: Vec<EntityCount>,
    /// Language of the text, when there is enough of it.
    pub language: Option<TextLanguage>,
    /// Busy time by stage.
    pub stages: Vec<StageTime>,
    /// Wall time from task to `Done`, milliseconds.
    pub wall_ms: u64,
}

/// Why a recording could not be transcribed. Words of ours only, nothing from the recording.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum CallFailure {
    /// No known container was found.
    #[error("the file is not audio in a supported format (WAV, MP3, FLAC, M4A, OGG, Sun .au, GSM 06.10)")]
    NotAudio,
    /// The container is known, the codec in it is not.
    #[error("the audio codec is not supported; send WAV, MP3, FLAC, M4A (AAC, ALAC), OGG Vorbis, Sun .au or GSM 06.10")]
    UnsupportedCodec,
    /// The recording ends in the middle.
    #[error("the recording is truncated: it ends before its header says so; send it again")]
    Truncated,
    /// The recording is damaged.
    #[error("the recording is damaged and cannot be decoded")]
    Damaged,
    /// No samples at all.
    #[error("the recording holds no audio")]
    Empty,
    /// Longer than allowed.
    #[error("the recording is longer than this appliance accepts")]
    TooLong,
    /// Sample rate outside 8-48 kHz.
    #[error("the sample rate is outside 8 000 to 48 000 samples a second")]
    SampleRate,
    /// More than two channels, or none.
    #[error("the recording must have one or two channels")]
    Channels,
    /// The child ended without a result.
    #[error("the worker process for this call ended unexpectedly; the call can be sent again")]
    WorkerDied,
    /// The child took longer than the call's time limit.
    #[error("the call took longer than its time limit")]
    TimedOut,
    /// The child broke the protocol and was stopped.
    #[error("the worker process for this call misbehaved and was stopped")]
    WorkerMisbehaved,
    /// The call was tried as often as allowed, and the daemon or child ended each time.
    #[error("the call ended the worker each time it was tried; it is not tried again")]
    TriedTooOften,
    /// The sealed recording could not be opened.
    #[error("the sealed recording could not be opened; see the daemon's journal")]
    Unreadable,
    /// A model failed in the child.
    #[error("a model failed on this recording")]
    ModelFailed,
    /// The disk did not give the recording, try after try.
    #[error(
        "the sealed recording could not be read, try after try; check the disk (the daemon's journal has its errors), then send the call again"
    )]
    RecordingUnread,
    /// No child could be started, try after try.
    #[error("no worker process could be started, try after try; check the machine's memory and process limits, then send the call again")]
    NoWorker,
    /// The keeper did not open the call's key, try after try.
    #[error("the key keeper did not open the call's key, try after try; see its entries in the journal, then send the call again")]
    NoKey,
    /// The store failed, try after try.
    #[error("the store failed, try after try; check the disk, then send the call again")]
    StoreFailed,
}

impl CallFailure {
    /// Something is wrong with the recording, not with the appliance.
    pub const fn is_of_recording(self) -> bool {
        match self {
            Self::NotAudio
            | Self::UnsupportedCodec
            | Self::Truncated
            | Self::Damaged
            | Self::Empty
            | Self::TooLong
            | Self::SampleRate
            | Self::Channels => true,
            Self::WorkerDied
            | Self::TimedOut
            | Self::WorkerMisbehaved
            | Self::TriedTooOften
            | Self::Unreadable
            | Self::ModelFailed
            | Self::RecordingUnread
            | Self::NoWorker
            | Self::NoKey
            | Self::StoreFailed => false,
        }
    }

    /// A child may say so; the others are `salamad`'s own verdicts.
    pub const fn is_for_child_to_say(self) -> bool {
        self.is_of_recording() || matches!(self, Self::ModelFailed)
    }
}
