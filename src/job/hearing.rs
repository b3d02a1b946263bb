//! Whether what a child says is in order: a pure check of each event, and the collection of what counts.
//! Trusts: nothing; the child has parsed a stranger's file and may be the stranger's by now.
//! Touches: nothing.
//! Next: [`super::conversation`] acts on what was heard.

use std::collections::BTreeMap;

use zeroize::{Zeroize, Zeroizing};

use super::border::ChildFault;
use super::header::{StoredClear, StoredEntities};
use crate::ipc::transcript::{Entity, EntityCount, EntityKind, Utterance};
use crate::ipc::worker::{AUDIO_CHUNK_MAX, AudioInfo, CallFailure, ChildEvent, Stage, Summary};

/// Utterances in a call: four hours of one a second on both channels.
const UTTERANCES_MAX: usize = 30_000;
/// Text of a whole call, bytes, clear and redacted together.
const TEXT_MAX: usize = 16 << 20;
/// Words of an utterance.
const WORDS_MAX: usize = 2_000;
/// Events that carry no result.
const CHATTER_MAX: u32 = 20_000;
/// Times that a child may read its recording: probing and seeking, not grinding.
const REREADS_MAX: u64 = 8;
/// Requests on top of what the recording's length explains.
const NEEDS_FREE: u64 = 4_096;
/// Smallest mean piece that is asked for.
const NEED_MEAN: u64 = 512;

/// What an event means.
#[derive(Debug, PartialEq)]
pub(super) enum Heard {
    /// It waits for its task.
    Ready,
    /// It wants audio.
    Need {
        /// From here.
        offset: u64,
        /// So much.
        len: u32,
    },
    /// The work is here: stage, per mille, audio decoded in ms.
    Progress(Stage, u16, u64),
    /// Noted.
    Noted,
    /// The transcript is complete.
    Complete(Summary),
    /// The recording cannot be transcribed.
    Failed(CallFailure),
}

/// Utterances as they were said; wiped on drop.
#[derive(Debug, Default, PartialEq)]
pub(super) struct ClearText(pub StoredClear);

impl Drop for ClearText {
    fn drop(&mut self) {
        self.0.iter_mut().flat_map(|utterance| &mut utterance.words).for_each(|word| word.text.zeroize());
    }
}

/// Everything that a child said which counts.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Collected {
    pub audio: Option<AudioInfo>,
    pub redacted: Vec<Utterance>,
    pub clear: ClearText,
    pub entities: StoredEntities,
}

impl Collected {
    /// How often each kind was redacted.
    pub(super) fn counts(&self) -> Vec<EntityCount> {
        let mut counts: BTreeMap<EntityKind, u32> = BTreeMap::new();
        for entity in self.entities.iter().flatten() {
            *counts.entry(entity.kind).or_default() += 1;
        }
        counts.into_iter().map(|(kind, count)| EntityCount { kind, count }).collect()
    }
}

/// Hears one child from its `Ready` to its end.
pub(super) struct Hearing {
    audio_bytes: u64,
    max_audio_ms: u64,
    ready: bool,
    stage: Stage,
    per_mille: u16,
    needs: u64,
    served: u64,
    chatter: u32,
    text: usize,
    pub collected: Collected,
}

impl Hearing {
    pub(super) fn of(audio_bytes: u64, max_audio_seconds: u32) -> Self {
        Self {
            audio_bytes,
            max_audio_ms: u64::from(max_audio_seconds) * 1000,
            ready: false,
            stage: Stage::Queued,
            per_mille: 0,
            needs: 0,
            served: 0,
            chatter: 0,
            text: 0,
            collected: Collected::default(),
        }
    }

    /// Checks one event.
    ///
    /// # Errors
    /// `Misbehaved` for anything out of order or out of bounds.
    pub(super) fn hear(&mut self, event: ChildEvent) -> Result<Heard, ChildFault> {
        if let ChildEvent::Ready = event {
            return if std::mem::replace(&mut self.ready, true) { Err(ChildFault::Misbehaved) } else { Ok(Heard::Ready) };
        }
        if !self.ready {
            return Err(ChildFault::Misbehaved);
        }
        let heard = match event {
            ChildEvent::Need { offset, len } => self.need(offset, len),
            ChildEvent::Progress { stage, per_mille, audio_ms } => self.progress(stage, per_mille, audio_ms),
            ChildEvent::Audio(info) => self.audio(info),
            ChildEvent::Utterance { redacted, clear, entities } => self.utterance(redacted, clear, entities),
            ChildEvent::Done(summary) => self.done(summary),
            ChildEvent::Failed(failure) => failure.is_for_child_to_say().then_some(Heard::Failed(failure)),
            ChildEvent::Ready | ChildEvent::Redacted { .. } => None,
        };
        heard.ok_or(ChildFault::Misbehaved)
    }

    fn need(&mut self, offset: u64, len: u32) -> Option<Heard> {
        self.needs += 1;
        self.served += u64::from(len).min(self.audio_bytes.saturating_sub(offset));
        let fair = (1..=AUDIO_CHUNK_MAX).contains(&len)
            && offset <= self.audio_bytes
            && self.collected.redacted.is_empty()
            && self.served <= self.audio_bytes.saturating_mul(REREADS_MAX) + (16 << 20)
            && self.needs <= NEEDS_FREE + self.audio_bytes / NEED_MEAN;
        fair.then_some(Heard::Need { offset, len })
    }

    fn progress(&mut self, stage: Stage, per_mille: u16, audio_ms: u64) -> Option<Heard> {
        self.chatter += 1;
        if self.chatter > CHATTER_MAX || per_mille > 1000 || stage == Stage::Queued || stage == Stage::Seal {
            return None;
        }
        self.stage = self.stage.max(stage);
        self.per_mille = self.per_mille.max(per_mille);
        Some(Heard::Progress(self.stage, self.per_mille, audio_ms.min(self.max_audio_ms)))
    }

    fn audio(&mut self, info: AudioInfo) -> Option<Heard> {
        let named = (1..=32).contains(&info.format.len())
            && info.format.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"/_-.".contains(&byte));
        let fair = named && (1..=2).contains(&info.channels) && (8_000..=48_000).contains(&info.sample_rate);
        if !fair || self.collected.audio.is_some() {
            return None;
        }
        self.collected.audio = Some(info);
        Some(Heard::Noted)
    }

    fn utterance(&mut self, redacted: Utterance, clear: Utterance, entities: Vec<Entity>) -> Option<Heard> {
        let channels = self.collected.audio.as_ref()?.channels;
        let last_ms = self.collected.redacted.last().map_or(0, |last| last.start_ms);
        let text = Zeroizing::new(clear.text());
        self.text += text.len() + redacted.text().len();
        let fair = self.collected.redacted.len() < UTTERANCES_MAX
            && self.text <= TEXT_MAX
            && is_fair(&redacted)
            && is_fair(&clear)
            && redacted.channel < channels
            && redacted.start_ms >= last_ms
            && u64::from(redacted.end_ms) <= self.max_audio_ms + 60_000
            && (redacted.channel, redacted.start_ms, redacted.end_ms) == (clear.channel, clear.start_ms, clear.end_ms)
            && entities.len() <= text.len()
            && entities.iter().all(|entity| lies_in(entity, &text));
        if !fair {
            return None;
        }
        self.collected.redacted.push(redacted);
        self.collected.clear.0.push(clear);
        self.collected.entities.push(entities);
        Some(Heard::Noted)
    }

    fn done(&self, summary: Summary) -> Option<Heard> {
        let fair = self.collected.audio.is_some()
            && usize::try_from(summary.utterances) == Ok(self.collected.redacted.len())
            && summary.audio_ms <= self.max_audio_ms + 60_000
            && summary.stages.len() <= 16
            && summary.language.as_ref().is_none_or(|language| is_code(&language.code) && is_share(language.confidence));
        fair.then_some(Heard::Complete(summary))
    }
}

fn is_fair(utterance: &Utterance) -> bool {
    utterance.start_ms <= utterance.end_ms
        && is_code(&utterance.language)
        && is_share(utterance.confidence)
        && utterance.words.len() <= WORDS_MAX
        && utterance.words.iter().all(|word| word.start_ms <= word.end_ms && is_share(word.confidence))
}

fn is_code(code: &str) -> bool {
    (2..=3).contains(&code.len()) && code.bytes().all(|byte| byte.is_ascii_lowercase())
}

fn is_share(share: f32) -> bool {
    (0.0..=1.0).contains(&share)
}

fn lies_in(entity: &Entity, text: &str) -> bool {
    match (usize::try_from(entity.start), usize::try_from(entity.end)) {
        (Ok(start), Ok(end)) => start < end && text.get(start..end).is_some(),
        _ => false,
    }
}
