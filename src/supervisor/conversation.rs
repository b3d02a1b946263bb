//! The order and the bounds of what a child may say. A child that was taken over by its audio may say anything.
//! Trusts: nothing from the child; what was sent to it.
//! Touches: nothing; a pure state machine.
//! Next: [`super::child`] asks it about every message, and stops the child that breaks a rule.

use crate::ipc::transcript::{Entity, EntityCount, Utterance};
use crate::ipc::worker::{AUDIO_CHUNK_MAX, AudioInfo, ChildEvent, Stage, Summary, TEXT_CHARS_MAX, Task, TextLanguage};

/// Most unanswered [`ChildEvent::Need`]s.
pub const NEEDS_PENDING_MAX: u32 = 4;
/// Most messages of a call besides `Need`: progress, utterances. Seven for each second of the longest call.
pub const EVENTS_MAX: u32 = 100_000;
/// Most text of a call, clear and redacted together, bytes. Four hours of fast speech are under 2 MB.
pub const TEXT_BYTES_MAX: usize = 32 << 20;
/// Most words of an utterance.
pub const WORDS_MAX: usize = 4096;
/// Longest word, bytes.
pub const WORD_BYTES_MAX: usize = 1024;
/// Most redacted stretches in one utterance.
pub const ENTITIES_MAX: usize = 4096;
/// Longest name of a format or code of a language, bytes.
const CODE_BYTES_MAX: usize = 32;
/// Most entries of a list that has one a kind or stage.
const KINDS_MAX: usize = 32;
/// How far times may lie past the longest audio, for the last window of the recogniser, milliseconds.
const TIME_SLACK_MS: u64 = 60_000;

/// One child's side of a call.
#[derive(Debug)]
pub struct Conversation {
    phase: Phase,
    audio_bytes: u64,
    end_ms: u64,
    needs_pending: u32,
    needs_left: u64,
    events_left: u32,
    text_left: usize,
    info: bool,
    utterances: u32,
    latest_start_ms: u32,
    latest_stage: Stage,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Starting,
    Idle,
    Transcribing,
    Redacting,
    Over,
}

/// A rule that a child broke.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Misbehaviour {
    /// Not a message at all, too long, or with a descriptor.
    #[error("it sent something that is no message")]
    Frame,
    /// A message that has no place here.
    #[error("it spoke out of turn")]
    OutOfTurn,
    /// Bytes outside the recording, too many at once or too often.
    #[error("it asked for audio that it may not ask for")]
    Need,
    /// More messages than any call needs.
    #[error("it sent more messages than any call needs")]
    Flood,
    /// Numbers or texts outside their bounds.
    #[error("it sent values outside their bounds")]
    Bounds,
    /// Its summary does not fit what it sent.
    #[error("its summary does not fit what it sent before")]
    Summary,
}

impl Default for Conversation {
    fn default() -> Self {
        Self {
            phase: Phase::Starting,
            audio_bytes: 0,
            end_ms: 0,
            needs_pending: 0,
            needs_left: 0,
            events_left: EVENTS_MAX,
            text_left: TEXT_BYTES_MAX,
            info: false,
            utterances: 0,
            latest_start_ms: 0,
            latest_stage: Stage::Queued,
        }
    }
}

impl Conversation {
    /// Notes what is being sent to the child.
    pub fn sent(&mut self, task: &Task) {
        match task {
            Task::Transcribe { audio_bytes, max_audio_seconds, .. } => {
                self.phase = Phase::Transcribing;
                self.audio_bytes = *audio_bytes;
                self.end_ms = u64::from(*max_audio_seconds).saturating_mul(1000).saturating_add(TIME_SLACK_MS);
                // Reading the whole in pieces of 512 bytes, and as much again for seeking about.
                self.needs_left = 4096 + audio_bytes / 256;
            }
            Task::Redact { .. } => self.phase = Phase::Redacting,
            Task::Audio { .. } => self.needs_pending = self.needs_pending.saturating_sub(1),
        }
    }

    /// The child has said its last word.
    pub fn is_over(&self) -> bool {
        self.phase == Phase::Over
    }

    /// Judges a message.
    ///
    /// # Errors
    /// The rule that it breaks.
    pub fn heard(&mut self, event: &ChildEvent) -> Result<(), Misbehaviour> {
        match (self.phase, event) {
            (Phase::Starting, ChildEvent::Ready) => self.phase = Phase::Idle,
            (Phase::Transcribing, ChildEvent::Need { offset, len }) => self.need(*offset, *len)?,
            (Phase::Transcribing, ChildEvent::Progress { stage, per_mille, audio_ms }) => {
                self.count_event()?;
                self.progress(*stage, *per_mille, *audio_ms)?;
            }
            (Phase::Transcribing, ChildEvent::Audio(info)) if !self.info && self.utterances == 0 => {
                self.info = true;
                check_info(info)?;
            }
            (Phase::Transcribing, ChildEvent::Utterance { redacted, clear, entities }) if self.info => {
                self.count_event()?;
                self.utterance(redacted, clear, entities)?;
            }
            (Phase::Transcribing, ChildEvent::Done(summary)) if self.info => {
                self.summary(summary)?;
                self.phase = Phase::Over;
            }
            (Phase::Redacting, ChildEvent::Redacted { text, counts, language }) => {
                // A placeholder can be longer than what it stands for.
                within(text.chars().count() <= 8 * TEXT_CHARS_MAX)?;
                check_counts(counts)?;
                check_language(language.as_ref())?;
                self.phase = Phase::Over;
            }
            (Phase::Transcribing | Phase::Redacting, ChildEvent::Failed(failure)) if failure.is_for_child_to_say() => {
                self.phase = Phase::Over;
            }
            _ => return Err(Misbehaviour::OutOfTurn),
        }
        Ok(())
    }

    fn count_event(&mut self) -> Result<(), Misbehaviour> {
        self.events_left = self.events_left.checked_sub(1).ok_or(Misbehaviour::Flood)?;
        Ok(())
    }

    fn need(&mut self, offset: u64, len: u32) -> Result<(), Misbehaviour> {
        self.needs_left = self.needs_left.checked_sub(1).ok_or(Misbehaviour::Flood)?;
        self.needs_pending += 1;
        if offset > self.audio_bytes || len == 0 || len > AUDIO_CHUNK_MAX || self.needs_pending > NEEDS_PENDING_MAX {
            return Err(Misbehaviour::Need);
        }
        Ok(())
    }

    fn progress(&mut self, stage: Stage, per_mille: u16, audio_ms: u64) -> Result<(), Misbehaviour> {
        let of_a_child = matches!(stage, Stage::Decode | Stage::Speech | Stage::Transcribe | Stage::Redact);
        within(of_a_child && stage >= self.latest_stage && per_mille <= 1000 && audio_ms <= self.end_ms)?;
        self.latest_stage = stage;
        Ok(())
    }

    fn utterance(&mut self, redacted: &Utterance, clear: &Utterance, entities: &[Entity]) -> Result<(), Misbehaviour> {
        for utterance in [redacted, clear] {
            check_utterance(utterance, self.end_ms)?;
            let bytes = utterance.words.iter().map(|word| word.text.len() + 1).sum();
            self.text_left = self.text_left.checked_sub(bytes).ok_or(Misbehaviour::Flood)?;
        }
        within(redacted.channel == clear.channel && redacted.start_ms == clear.start_ms && redacted.end_ms == clear.end_ms)?;
        within(clear.start_ms >= self.latest_start_ms)?;
        self.latest_start_ms = clear.start_ms;
        self.utterances += 1;
        check_entities(entities, &clear.text())
    }

    fn summary(&self, summary: &Summary) -> Result<(), Misbehaviour> {
        within(summary.audio_ms <= self.end_ms && summary.speech_ms <= self.end_ms.saturating_mul(2))?;
        within(summary.stages.len() <= KINDS_MAX)?;
        check_counts(&summary.counts)?;
        check_language(summary.language.as_ref())?;
        if summary.utterances == self.utterances { Ok(()) } else { Err(Misbehaviour::Summary) }
    }
}

fn within(bounds: bool) -> Result<(), Misbehaviour> {
    if bounds { Ok(()) } else { Err(Misbehaviour::Bounds) }
}

fn check_info(info: &AudioInfo) -> Result<(), Misbehaviour> {
    within(is_code(&info.format) && (1..=768_000).contains(&info.sample_rate) && (1..=2).contains(&info.channels))
}

fn check_utterance(utterance: &Utterance, end_ms: u64) -> Result<(), Misbehaviour> {
    within(utterance.channel < 2 && utterance.words.len() <= WORDS_MAX && is_code(&utterance.language) && is_share(utterance.confidence))?;
    within(utterance.start_ms <= utterance.end_ms && u64::from(utterance.end_ms) <= end_ms)?;
    within(utterance.words.iter().all(|word| {
        word.text.len() <= WORD_BYTES_MAX
            && !word.text.chars().any(char::is_control)
            && is_share(word.confidence)
            && word.start_ms <= word.end_ms
            && u64::from(word.end_ms) <= end_ms
    }))
}

fn check_entities(entities: &[Entity], clear: &str) -> Result<(), Misbehaviour> {
    within(entities.len() <= ENTITIES_MAX)?;
    within(entities.iter().all(|entity| {
        let range = usize::try_from(entity.start).ok().zip(usize::try_from(entity.end).ok());
        range.is_some_and(|(start, end)| start < end && clear.get(start..end).is_some())
    }))
}

fn check_counts(counts: &[EntityCount]) -> Result<(), Misbehaviour> {
    within(counts.len() <= KINDS_MAX)
}

fn check_language(language: Option<&TextLanguage>) -> Result<(), Misbehaviour> {
    within(language.is_none_or(|language| is_code(&language.code) && is_share(language.confidence)))
}

/// Short printable ASCII: it is shown to people and written to logs.
fn is_code(text: &str) -> bool {
    text.len() <= CODE_BYTES_MAX && text.bytes().all(|byte| byte.is_ascii_graphic())
}

fn is_share(value: f32) -> bool {
    (0.0..=1.0).contains(&value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ipc::transcript::{EntityKind, Word};
    use crate::ipc::worker::CallFailure;

    fn transcribing() -> Conversation {
        let mut talk = Conversation::default();
        talk.heard(&ChildEvent::Ready).unwrap();
        talk.sent(&Task::Transcribe { audio_bytes: 1000, language: None, threads: 1, max_audio_seconds: 10, samples: None });
        talk
    }

    fn listening() -> Conversation {
        let mut talk = transcribing();
        talk.heard(&info(2)).unwrap();
        talk
    }

    fn info(channels: u8) -> ChildEvent {
        ChildEvent::Audio(AudioInfo { format: "wav/mulaw".into(), sample_rate: 8000, channels })
    }

    fn said(text: &str, start_ms: u32) -> Utterance {
        let words = vec![Word { start_ms, end_ms: start_ms + 10, text: text.into(), confidence: 0.5 }];
        Utterance { channel: 0, start_ms, end_ms: start_ms + 10, language: "en".into(), confidence: 0.5, words }
    }

    fn uttered(utterance: Utterance) -> ChildEvent {
        ChildEvent::Utterance { redacted: utterance.clone(), clear: utterance, entities: Vec::new() }
    }

    fn done(utterances: u32) -> ChildEvent {
        let summary = Summary { audio_ms: 5, speech_ms: 5, utterances, counts: Vec::new(), language: None, stages: Vec::new(), wall_ms: 1 };
        ChildEvent::Done(summary)
    }

    #[test]
    fn an_honest_child_is_heard_to_its_end() {
        let mut talk = listening();
        talk.heard(&ChildEvent::Need { offset: 0, len: AUDIO_CHUNK_MAX }).unwrap();
        talk.sent(&Task::Audio { offset: 0, bytes: vec![0; 1000] });
        talk.heard(&ChildEvent::Progress { stage: Stage::Decode, per_mille: 1, audio_ms: 1 }).unwrap();
        talk.heard(&uttered(said("hello", 5))).unwrap();
        talk.heard(&uttered(said("hello", 5))).unwrap();
        talk.heard(&done(2)).unwrap();
        assert!(talk.is_over());
    }

    #[test]
    fn ready_comes_first_and_once() {
        let mut talk = Conversation::default();
        assert_eq!(talk.heard(&info(1)), Err(Misbehaviour::OutOfTurn));
        assert_eq!(talk.heard(&ChildEvent::Ready), Ok(()));
        assert_eq!(talk.heard(&ChildEvent::Ready), Err(Misbehaviour::OutOfTurn));
        assert_eq!(talk.heard(&ChildEvent::Need { offset: 0, len: 1 }), Err(Misbehaviour::OutOfTurn));
    }

    #[test]
    fn nothing_follows_the_last_word() {
        let mut talk = listening();
        talk.heard(&done(0)).unwrap();
        for event in [done(0), info(1), ChildEvent::Failed(CallFailure::Empty), ChildEvent::Ready] {
            assert_eq!(talk.heard(&event), Err(Misbehaviour::OutOfTurn), "{event:?}");
        }
    }

    #[test]
    fn a_child_asks_only_for_its_own_recording() {
        for (offset, len) in [(1001, 1), (0, 0), (0, AUDIO_CHUNK_MAX + 1), (u64::MAX, 1)] {
            assert_eq!(transcribing().heard(&ChildEvent::Need { offset, len }), Err(Misbehaviour::Need));
        }
        assert_eq!(transcribing().heard(&ChildEvent::Need { offset: 1000, len: 1 }), Ok(()), "the end itself is how a reader finds it");
    }

    #[test]
    fn unanswered_needs_are_few_and_all_needs_are_bounded() {
        let need = ChildEvent::Need { offset: 0, len: 1 };
        let mut talk = transcribing();
        for _ in 0..NEEDS_PENDING_MAX {
            talk.heard(&need).unwrap();
        }
        assert_eq!(talk.heard(&need), Err(Misbehaviour::Need));

        let mut talk = transcribing();
        let heard = (0..100_000).map(|_| {
            talk.sent(&Task::Audio { offset: 0, bytes: Vec::new() });
            talk.heard(&need)
        });
        assert_eq!(heard.filter(Result::is_ok).count(), 4096 + 3);
    }

    #[test]
    fn a_flood_of_progress_is_stopped() {
        let progress = ChildEvent::Progress { stage: Stage::Decode, per_mille: 0, audio_ms: 0 };
        let mut talk = listening();
        for _ in 0..EVENTS_MAX {
            talk.heard(&progress).unwrap();
        }
        assert_eq!(talk.heard(&progress), Err(Misbehaviour::Flood));
    }

    #[test]
    fn a_flood_of_text_is_stopped() {
        let mut utterance = said("", 0);
        utterance.words = vec![Word { start_ms: 0, end_ms: 0, text: "x".repeat(WORD_BYTES_MAX), confidence: 0.0 }; WORDS_MAX];
        let mut talk = listening();
        let outcomes: Vec<_> = (0..8).map(|_| talk.heard(&uttered(utterance.clone()))).collect();
        assert!(outcomes.contains(&Err(Misbehaviour::Flood)));
    }

    #[test]
    fn utterances_come_in_order_of_time_and_within_the_call() {
        let mut talk = listening();
        talk.heard(&uttered(said("later", 100))).unwrap();
        assert_eq!(talk.heard(&uttered(said("earlier", 99))), Err(Misbehaviour::Bounds));
        assert_eq!(listening().heard(&uttered(said("late", 70_001))), Err(Misbehaviour::Bounds));
        let mut backwards = said("x", 5);
        backwards.end_ms = 4;
        assert_eq!(listening().heard(&uttered(backwards)), Err(Misbehaviour::Bounds));
    }

    #[test]
    fn numbers_that_are_no_numbers_and_texts_that_are_no_texts_are_refused() {
        for confidence in [f32::NAN, f32::INFINITY, -0.1, 1.1] {
            let mut utterance = said("x", 0);
            utterance.words[0].confidence = confidence;
            assert_eq!(listening().heard(&uttered(utterance)), Err(Misbehaviour::Bounds));
        }
        assert_eq!(listening().heard(&uttered(said("a\u{1b}[2Jb", 0))), Err(Misbehaviour::Bounds));
        let mut utterance = said("x", 0);
        utterance.language = "en\n".into();
        assert_eq!(listening().heard(&uttered(utterance)), Err(Misbehaviour::Bounds));
        assert_eq!(transcribing().heard(&info(3)), Err(Misbehaviour::Bounds));
    }

    #[test]
    fn redacted_stretches_lie_inside_the_text_between_characters() {
        for (start, end) in [(0, 6), (2, 2), (3, 2), (0, 1), (u32::MAX, u32::MAX)] {
            let entity = Entity { kind: EntityKind::Person, number: 1, start, end };
            let clear = said("éabc", 0);
            let event = ChildEvent::Utterance { redacted: clear.clone(), clear, entities: vec![entity] };
            assert_eq!(listening().heard(&event), Err(Misbehaviour::Bounds), "{start}..{end}");
        }
    }

    #[test]
    fn a_summary_counts_what_was_sent() {
        assert_eq!(listening().heard(&done(1)), Err(Misbehaviour::Summary));
    }

    #[test]
    fn a_child_does_not_claim_what_only_the_daemon_can_know() {
        for failure in [CallFailure::WorkerDied, CallFailure::TimedOut, CallFailure::Unreadable, CallFailure::TriedTooOften] {
            assert_eq!(transcribing().heard(&ChildEvent::Failed(failure)), Err(Misbehaviour::OutOfTurn));
        }
        assert_eq!(transcribing().heard(&ChildEvent::Failed(CallFailure::NotAudio)), Ok(()));
    }

    #[test]
    fn the_answer_to_a_text_is_a_text() {
        let mut talk = Conversation::default();
        talk.heard(&ChildEvent::Ready).unwrap();
        talk.sent(&Task::Redact { text: "x".into() });
        assert_eq!(talk.heard(&ChildEvent::Need { offset: 0, len: 1 }), Err(Misbehaviour::OutOfTurn));
        assert_eq!(talk.heard(&ChildEvent::Redacted { text: "x".into(), counts: Vec::new(), language: None }), Ok(()));
    }
}
