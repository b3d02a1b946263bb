//! Utterances as lines of text and as subtitles.
//! Trusts: nothing in the words: they come from a stranger's voice, so markup in them is written as text.
//! Touches: nothing.
//! Next: the reader's eyes.

use std::fmt::Write;

use crate::ipc::transcript::{Utterance, Word};
use crate::job::spec::{ChannelRole, Transcript};

/// Longest cue, characters: two lines of 42, as broadcasters do.
const CUE_CHARS: usize = 84;
/// Longest line of a cue, characters.
const LINE_CHARS: usize = 42;
/// Longest cue, milliseconds.
const CUE_MS: u32 = 7_000;

/// A stretch of one utterance that is shown at once.
#[derive(Debug, PartialEq, Eq)]
struct Cue {
    channel: u8,
    start_ms: u32,
    end_ms: u32,
    text: String,
}

/// `[00:00:01.200 - 00:00:03.400] Counsellor: …`, one line an utterance.
pub(super) fn text(transcript: &Transcript) -> String {
    let mut out = String::new();
    for utterance in &transcript.utterances {
        let (start, end) = (clock(utterance.start_ms, '.'), clock(utterance.end_ms, '.'));
        _ = writeln!(out, "[{start} - {end}] {}: {}", speaker(transcript, utterance.channel), one_line(&utterance.text()));
    }
    out
}

/// SubRip: numbered cues, comma before the milliseconds.
pub(super) fn srt(transcript: &Transcript) -> String {
    let mut out = String::new();
    for (number, cue) in (1u32..).zip(cues(&transcript.utterances)) {
        let (start, end) = (clock(cue.start_ms, ','), clock(cue.end_ms, ','));
        _ = write!(
            out,
            "{number}\n{start} --> {end}\n{}\n\n",
            lines(&format!("{}: {}", speaker(transcript, cue.channel), cue.text)).replace("-->", "->")
        );
    }
    out
}

/// WebVTT (W3C): voice tags, `&`, `<` and `>` escaped, so that no word is a tag or an arrow.
pub(super) fn vtt(transcript: &Transcript) -> String {
    let mut out = String::from("WEBVTT\n\n");
    for cue in cues(&transcript.utterances) {
        let text = lines(&cue.text).replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
        _ = write!(out, "{} --> {}\n<v {}>{text}\n\n", clock(cue.start_ms, '.'), clock(cue.end_ms, '.'), speaker(transcript, cue.channel));
    }
    out
}

/// `Counsellor`, `Caller`, or `Channel 1` where nobody said who it is.
fn speaker(transcript: &Transcript, channel: u8) -> String {
    match transcript.channels.as_ref().and_then(|roles| roles.get(usize::from(channel))) {
        Some(ChannelRole::Counsellor) => "Counsellor".to_owned(),
        Some(ChannelRole::Caller) => "Caller".to_owned(),
        None => format!("Channel {}", u16::from(channel) + 1),
    }
}

/// Cuts utterances into cues that can be read, at the words' own times.
fn cues(utterances: &[Utterance]) -> Vec<Cue> {
    utterances.iter().flat_map(cues_of_one).collect()
}

fn cues_of_one(utterance: &Utterance) -> Vec<Cue> {
    let mut cues: Vec<Cue> = Vec::new();
    for word in utterance.words.iter().filter(|word| !word.text.trim().is_empty()) {
        match cues.last_mut() {
            Some(cue) if fits(cue, word) => {
                cue.end_ms = word.end_ms.max(cue.end_ms);
                cue.text.push(' ');
                cue.text.push_str(&one_line(&word.text));
            }
            _ => cues.push(Cue {
                channel: utterance.channel,
                start_ms: word.start_ms,
                end_ms: word.end_ms.max(word.start_ms),
                text: one_line(&word.text),
            }),
        }
    }
    cues
}

fn fits(cue: &Cue, word: &Word) -> bool {
    let chars = cue.text.chars().count() + 1 + word.text.chars().count();
    let sentence_ended = cue.text.ends_with(['.', '?', '!']) && chars > LINE_CHARS;
    chars <= CUE_CHARS && word.end_ms.saturating_sub(cue.start_ms) <= CUE_MS && !sentence_ended
}

/// Breaks at the last space that keeps a line within [`LINE_CHARS`].
fn lines(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut length = 0;
    for word in text.split(' ') {
        let chars = word.chars().count();
        if length > 0 {
            let breaks = length + 1 + chars > LINE_CHARS;
            out.push(if breaks { '\n' } else { ' ' });
            length = if breaks { 0 } else { length + 1 };
        }
        out.push_str(word);
        length += chars;
    }
    out
}

/// A word with a line break in it must not make an empty line, which would end its cue.
fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn clock(ms: u32, before_millis: char) -> String {
    let (seconds, millis) = (ms / 1000, ms % 1000);
    format!("{:02}:{:02}:{:02}{before_millis}{millis:03}", seconds / 3600, seconds / 60 % 60, seconds % 60)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::base::ids::CallId;

    fn utterance(channel: u8, words: &[(u32, u32, &str)]) -> Utterance {
        let words: Vec<Word> = words
            .iter()
            .map(|(start_ms, end_ms, text)| Word { start_ms: *start_ms, end_ms: *end_ms, text: (*text).to_owned(), confidence: 1.0 })
            .collect();
        let (start_ms, end_ms) = (words.first().unwrap().start_ms, words.last().unwrap().end_ms);
        Utterance { channel, start_ms, end_ms, language: "en".to_owned(), confidence: 1.0, words }
    }

    fn transcript(utterances: &[Utterance]) -> Transcript {
        Transcript {
            call: CallId::from_bytes([1; 16]),
            channels: None,
            channels_mismatch: false,
            utterances: utterances.to_vec(),
            redacted: vec![],
            language: None,
            audio_ms: 1,
            speech_ms: 1,
            stages: vec![],
            wall_ms: 1,
            models: vec![],
        }
    }

    #[test]
    fn speakers_have_the_roles_that_the_uploader_gave_them() {
        let spoken = transcript(&[utterance(0, &[(0, 10, "Hello.")]), utterance(1, &[(20, 30, "Yes")])]);
        let spoken = Transcript { channels: Some(vec![ChannelRole::Caller, ChannelRole::Counsellor]), ..spoken };
        assert_eq!(text(&spoken), "[00:00:00.000 - 00:00:00.010] Caller: Hello.\n[00:00:00.020 - 00:00:00.030] Counsellor: Yes\n");
        assert!(srt(&spoken).contains("\nCaller: Hello.\n") && srt(&spoken).contains("\nCounsellor: Yes\n"));
        assert!(vtt(&spoken).contains("<v Caller>Hello.") && vtt(&spoken).contains("<v Counsellor>Yes"));
    }

    #[test]
    fn subtitles_carry_times_and_speakers() {
        let spoken =
            [utterance(0, &[(1_200, 1_500, "Hello"), (1_600, 3_400, "[PERSON_1].")]), utterance(1, &[(3_661_001, 3_662_000, "Yes")])];
        let spoken = transcript(&spoken);
        assert_eq!(
            srt(&spoken),
            "1\n00:00:01,200 --> 00:00:03,400\nChannel 1: Hello [PERSON_1].\n\n2\n01:01:01,001 --> 01:01:02,000\nChannel 2: Yes\n\n"
        );
        assert_eq!(
            vtt(&spoken),
            "WEBVTT\n\n00:00:01.200 --> 00:00:03.400\n<v Channel 1>Hello [PERSON_1].\n\n01:01:01.001 --> 01:01:02.000\n<v Channel 2>Yes\n\n"
        );
        assert_eq!(text(&spoken).lines().next().unwrap(), "[00:00:01.200 - 00:00:03.400] Channel 1: Hello [PERSON_1].");
    }

    #[test]
    fn markup_in_words_is_text() {
        let spoken = transcript(&[utterance(0, &[(0, 10, "<c>a&b"), (10, 20, "-->"), (20, 30, "x\n\ny")])]);
        assert_eq!(vtt(&spoken), "WEBVTT\n\n00:00:00.000 --> 00:00:00.030\n<v Channel 1>&lt;c&gt;a&amp;b --&gt; x y\n\n");
        assert!(srt(&spoken).ends_with("Channel 1: <c>a&b -> x y\n\n"));
    }

    proptest! {
        #[test]
        fn cues_are_short_in_order_and_lose_no_word(texts in proptest::collection::vec("[a-z]{1,12}[.]?", 1..80), ms in 50u32..900) {
            let words: Vec<(u32, u32, &str)> = texts.iter().zip(0u32..).map(|(text, at)| (at * ms, at * ms + ms, text.as_str())).collect();
            let spoken = [utterance(0, &words)];
            let cues = cues(&spoken);
            let joined: Vec<&str> = cues.iter().map(|cue| cue.text.as_str()).collect();
            prop_assert_eq!(joined.join(" "), spoken[0].text());
            prop_assert!(cues.is_sorted_by_key(|cue| cue.start_ms));
            for cue in &cues {
                prop_assert!(cue.text.chars().count() <= CUE_CHARS && cue.end_ms - cue.start_ms <= CUE_MS, "{:?}", cue);
                prop_assert!(lines(&cue.text).lines().all(|line| line.chars().count() <= LINE_CHARS));
            }
        }
    }
}
