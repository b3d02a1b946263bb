//! A transcript for a person: who said what when, what was masked, what it cost.
//! Trusts: nothing in it; a worker that was taken over may have written it.
//! Touches: nothing.
//! Next: standard output.

use serde::Serialize;

use super::follow::stage_word;
use super::measure::Errors;
use super::output::{clean, clock, ratio, table, wrap};
use crate::ipc::transcript::{EntityCount, Utterance};
use crate::ipc::worker::TextLanguage;
use crate::job::spec::Transcript;

/// Widest line.
const WIDTH: usize = 100;

/// The whole page.
pub(super) fn page(transcript: &Transcript) -> String {
    let mut page = String::new();
    let apart = transcript.channels.is_some() || transcript.utterances.iter().any(|utterance| utterance.channel > 0);
    for utterance in &transcript.utterances {
        page.push_str(&line(utterance, apart.then(|| speaker(transcript, utterance.channel))));
    }
    if transcript.utterances.is_empty() {
        page.push_str("(no speech was found)\n");
    }
    page.push('\n');
    page.push_str(&table(&facts(transcript)));
    page
}

/// The channel's role as wide as the widest, or its number where nobody said who it is.
fn speaker(transcript: &Transcript, channel: u8) -> String {
    match transcript.channels.as_ref().and_then(|roles| roles.get(usize::from(channel))) {
        Some(role) => format!("{:10}", role.word()),
        None => format!("channel {}", u16::from(channel) + 1),
    }
}

fn line(utterance: &Utterance, speaker: Option<String>) -> String {
    let time = format!("{:>7}", clock(u64::from(utterance.start_ms)));
    let head = speaker.map_or_else(|| format!("{time}  "), |speaker| format!("{time}  {speaker}  "));
    let indent = head.chars().count();
    format!("{head}{}\n", wrap(&clean(&utterance.text()), indent, WIDTH))
}

fn facts(transcript: &Transcript) -> Vec<Vec<String>> {
    let audio = transcript.audio_ms;
    let row = |name: &str, value: String| vec![name.to_owned(), value];
    let mut rows = vec![row("audio", format!("{}, {} of it speech", clock(audio), clock(transcript.speech_ms)))];
    if transcript.channels_mismatch {
        rows.push(row("channels", "not as the uploader said: nobody is named".to_owned()));
    }
    if let Some(language) = &transcript.language {
        rows.push(row("language", self::language(language)));
    }
    rows.push(row("redacted", counts(&transcript.redacted)));
    for (number, stage) in transcript.stages.iter().enumerate() {
        let name = if number == 0 { "stages" } else { "" };
        let factor = ratio(stage.millis, audio).map(|factor| format!("  {factor} of real time")).unwrap_or_default();
        rows.push(row(name, format!("{:10} {:>8}{factor}", stage_word(stage.stage), clock(stage.millis))));
    }
    let factor = ratio(transcript.wall_ms, audio).map(|factor| format!(", real-time factor {factor}")).unwrap_or_default();
    rows.push(row("took", format!("{}{factor}", clock(transcript.wall_ms))));
    rows.push(row("models", clean(&transcript.models.join(", "))));
    rows
}

/// `en (98 % sure)`.
pub(super) fn language(language: &TextLanguage) -> String {
    format!("{} ({:.0} % sure)", clean(&language.code), language.confidence * 100.0)
}

/// `2 person, 1 phone`.
pub(super) fn counts(counts: &[EntityCount]) -> String {
    let words: Vec<String> =
        counts.iter().map(|count| format!("{} {}", count.count, count.kind.placeholder().to_lowercase().replace('_', " "))).collect();
    if words.is_empty() { "nothing".to_owned() } else { words.join(", ") }
}

/// A word error rate, as a document.
#[derive(Debug, Serialize)]
pub(super) struct Measured {
    /// Errors by the words of the reference; absent for an empty reference.
    word_error_rate: Option<f64>,
    /// The counts behind it.
    #[serde(flatten)]
    errors: Errors,
    /// Of the worker, wall time by length of the audio.
    real_time_factor: Option<String>,
}

/// Of these errors in this transcript.
pub(super) fn measured(errors: Errors, transcript: &Transcript) -> Measured {
    let rate = errors.per_mille().and_then(|rate| u32::try_from(rate).ok()).map(|rate| f64::from(rate) / 1000.0);
    Measured { word_error_rate: rate, errors, real_time_factor: ratio(transcript.wall_ms, transcript.audio_ms) }
}

/// `word error rate 12.3 % (1 substituted, …)`.
pub(super) fn measured_words(measured: &Measured) -> String {
    let Errors { words, substituted, missing, added } = measured.errors;
    let rate = measured.errors.per_mille().map_or_else(|| "unknown".to_owned(), |rate| format!("{}.{} %", rate / 10, rate % 10));
    let factor = measured.real_time_factor.as_ref().map(|factor| format!(", real-time factor {factor}")).unwrap_or_default();
    format!("word error rate {rate} ({substituted} substituted, {missing} missing, {added} added; {words} words in the reference){factor}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::ids::CallId;
    use crate::ipc::transcript::{EntityKind, Word};
    use crate::ipc::worker::{Stage, StageTime};
    use crate::job::spec::ChannelRole;

    fn utterance(channel: u8, start_ms: u32, text: &str) -> Utterance {
        let words = vec![Word { start_ms, end_ms: start_ms, text: text.to_owned(), confidence: 1.0 }];
        Utterance { channel, start_ms, end_ms: start_ms, language: "en".to_owned(), confidence: 1.0, words }
    }

    fn transcript(utterances: Vec<Utterance>) -> Transcript {
        Transcript {
            call: CallId::from_bytes([7; 16]),
            channels: None,
            channels_mismatch: false,
            utterances,
            redacted: vec![EntityCount { kind: EntityKind::Person, count: 2 }, EntityCount { kind: EntityKind::IpAddress, count: 1 }],
            language: Some(TextLanguage { code: "en".to_owned(), confidence: 0.981 }),
            audio_ms: 60_000,
            speech_ms: 42_500,
            stages: vec![StageTime { stage: Stage::Decode, millis: 600 }, StageTime { stage: Stage::Transcribe, millis: 9_000 }],
            wall_ms: 10_200,
            models: vec!["whisper-base@1.0.0".to_owned()],
        }
    }

    #[test]
    fn a_page_shows_times_channels_counts_and_cost() {
        let page = page(&transcript(vec![utterance(0, 1_200, "Hello [PERSON_1]."), utterance(1, 83_400, "Yes.")]));
        let wanted = " 0:01.2  channel 1  Hello [PERSON_1].
 1:23.4  channel 2  Yes.

audio     1:00.0, 0:42.5 of it speech
language  en (98 % sure)
redacted  2 person, 1 ip address
stages    decode       0:00.6  0.01 of real time
          transcribe   0:09.0  0.15 of real time
took      0:10.2, real-time factor 0.17
models    whisper-base@1.0.0
";
        assert_eq!(page, wanted);
    }

    #[test]
    fn channels_have_the_names_that_the_uploader_gave_them_or_none() {
        let spoken = transcript(vec![utterance(0, 0, "Hello."), utterance(1, 1_000, "Yes.")]);
        let named = Transcript { channels: Some(vec![ChannelRole::Counsellor, ChannelRole::Caller]), ..spoken.clone() };
        assert!(page(&named).starts_with(" 0:00.0  counsellor  Hello.\n 0:01.0  caller      Yes.\n"), "{}", page(&named));
        let mismatch = page(&Transcript { channels_mismatch: true, ..spoken });
        assert!(mismatch.contains(" 0:01.0  channel 2  Yes.") && mismatch.contains("channels  not as the uploader said"), "{mismatch}");
    }

    #[test]
    fn one_channel_needs_no_label_and_silence_is_said() {
        assert!(page(&transcript(vec![utterance(0, 0, "Hello.")])).starts_with(" 0:00.0  Hello.\n"));
        assert!(page(&transcript(Vec::new())).starts_with("(no speech was found)\n"));
    }

    #[test]
    fn what_was_said_cannot_drive_the_terminal() {
        assert!(!page(&transcript(vec![utterance(0, 0, "a\u{1b}]0;x\u{7}")])).contains('\u{1b}'));
    }
}
