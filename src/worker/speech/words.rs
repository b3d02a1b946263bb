//! From tokens and their times to words and utterances.
//! Trusts: nothing; tokens may break characters anywhere.
//! Touches: nothing.
//! Next: `text` redacts the utterances.

use std::ops::Range;

use super::align::token_starts;
use super::decode_loop::Hypothesis;
use super::numeric::{SAMPLE_RATE, f32_of};
use super::region::Region;
use super::whisper::Whisper;
use crate::ipc::transcript::{Utterance, Word};

/// Samples in one encoder frame, 20 ms.
const FRAME: usize = SAMPLE_RATE / 50;
/// Pauses of this many samples or more split an utterance, 600 ms.
const PAUSE: usize = SAMPLE_RATE * 6 / 10;
/// Stretches of speech with less between them count as one, 300 ms.
const BREATH: usize = SAMPLE_RATE * 3 / 10;
/// How far a word may reach out of the speech that was found, 64 ms.
const MARGIN: usize = 2 * super::vad::FRAME;
/// Samples after which the end of a sentence ends an utterance, 3 s.
const SENTENCE: usize = 3 * SAMPLE_RATE;
/// Punctuation that belongs to the word behind it even when a space is before it.
const OPENING: &str = "\"'“‘¿¡([{«„";
/// Punctuation that belongs to the word before it.
const CLOSING: &str = "\"'”’.,;:!?%)]}»…。、，؟،؛";
/// Marks that stand for nothing said when they stand alone.
const DASHES: &str = "-–—*♪_~";

/// A word in samples of its region.
#[derive(Clone, Debug, PartialEq)]
struct Timed {
    text: String,
    at: Range<usize>,
    confidence: f32,
    /// Which part of a joined region it was said in.
    part: usize,
}

/// The utterances of a region whose text is `text`, in order of time.
pub fn utterances(whisper: &Whisper, region: &Region, text: &Hypothesis, language: &str) -> Vec<Utterance> {
    let frames = region.samples.len().div_ceil(FRAME);
    let heads = whisper.settings.alignment_heads.len();
    let starts = token_starts(text, heads, frames);
    let pieces: Vec<&[u8]> = text.tokens.iter().map(|token| whisper.tokens.bytes(*token)).collect();
    let mut words = join(&pieces, &starts, &text.log_probs, region.samples.len());
    settle(&mut words, &region.speech);
    words.retain(|word| belongs(word, region));
    for word in &mut words {
        (word.part, word.at) = region.part_of(&word.at);
    }
    split(words).into_iter().map(|words| utterance(region, words, language)).collect()
}

/// Joins tokens to words. A word begins with a space; punctuation without one belongs to the word before it.
fn join(pieces: &[&[u8]], starts: &[usize], log_probs: &[f32], samples: usize) -> Vec<Timed> {
    let mut groups: Vec<Range<usize>> = Vec::new();
    for (token, piece) in pieces.iter().enumerate() {
        match groups.last_mut() {
            Some(group) if !piece.starts_with(b" ") => group.end = token + 1,
            _ => groups.push(token..token + 1),
        }
    }
    let sample = |token: usize| starts.get(token).map_or(samples, |frame| (frame * FRAME).min(samples));
    let mut words: Vec<Timed> = Vec::new();
    let mut opening = String::new();
    for group in groups {
        // Bytes are put together before they are read as UTF-8: a character may be spread over tokens.
        let bytes: Vec<u8> = pieces.get(group.clone()).unwrap_or_default().concat();
        let text: String = String::from_utf8_lossy(&bytes).chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        let text = text.split_whitespace().collect::<Vec<_>>().join("");
        let said = text.chars().any(char::is_alphanumeric);
        if text.is_empty() || (!said && text.chars().all(|c| DASHES.contains(c))) {
            continue;
        }
        if !said && text.chars().all(|c| OPENING.contains(c)) {
            opening.push_str(&text);
            continue;
        }
        let probabilities = log_probs.get(group.clone()).unwrap_or_default();
        let mean = probabilities.iter().sum::<f32>() / f32_of(probabilities.len().max(1));
        // A word ends where its punctuation begins, as in the reference's `merge_punctuations`: what is not said has no place in the sound.
        let text_of = |token: usize| pieces.get(token).and_then(|piece| std::str::from_utf8(piece).ok());
        let silent = |token: usize| text_of(token).is_some_and(|text| text.chars().all(|c| CLOSING.contains(c)));
        let end = group.clone().rev().find(|token| !silent(*token)).map_or(group.end, |token| token + 1);
        let word =
            Timed { text: std::mem::take(&mut opening) + &text, at: sample(group.start)..sample(end), confidence: mean.exp(), part: 0 };
        match words.last_mut() {
            Some(before) if !said && text.chars().all(|c| CLOSING.contains(c)) => before.text.push_str(&word.text),
            _ => words.push(word),
        }
    }
    words
}

/// Pulls each word into the stretch of speech that it overlaps most: attention smears words over pauses.
fn settle(words: &mut [Timed], speech: &[Range<usize>]) {
    let mut islands: Vec<Range<usize>> = Vec::new();
    for stretch in speech {
        match islands.last_mut() {
            Some(last) if stretch.start < last.end.saturating_add(BREATH) => last.end = stretch.end.max(last.end),
            _ => islands.push(stretch.clone()),
        }
    }
    let mut floor = 0;
    for word in words {
        let overlap = |island: &Range<usize>| island.end.min(word.at.end).saturating_sub(island.start.max(word.at.start));
        let best = islands.iter().filter(|island| overlap(island) > 0).max_by_key(|island| overlap(island));
        if let Some(island) = best {
            let start = word.at.start.max(island.start.saturating_sub(MARGIN));
            word.at = start..word.at.end.min(island.end + MARGIN).max(start);
        }
        // Two words of one stretch of time may prefer different stretches of speech; order goes first.
        let start = word.at.start.max(floor);
        word.at = start..word.at.end.max(start);
        floor = word.at.start;
    }
}

/// Whether the middle of the word lies in the part of the region that is its own. The edges of the clip are no border.
fn belongs(word: &Timed, region: &Region) -> bool {
    let middle = word.at.start.midpoint(word.at.end);
    middle >= region.keep.start && (middle < region.keep.end || region.keep.end >= region.samples.len())
}

/// Splits where regions were joined, at pauses, and at ends of sentences once there is enough.
fn split(words: Vec<Timed>) -> Vec<Vec<Timed>> {
    let mut utterances: Vec<Vec<Timed>> = Vec::new();
    for word in words {
        let goes_on = utterances.last().and_then(|words| Some((words.first()?, words.last()?))).is_some_and(|(first, last)| {
            let pause = word.at.start.saturating_sub(last.at.end);
            let sentence = last.text.trim_end_matches(['"', '\'', '”', '’', ')']).ends_with(['.', '?', '!', '…', '؟', '。']);
            word.part == last.part && pause < PAUSE && !(sentence && last.at.end.saturating_sub(first.at.start) >= SENTENCE)
        });
        match utterances.last_mut() {
            Some(words) if goes_on => words.push(word),
            _ => utterances.push(vec![word]),
        }
    }
    utterances
}

fn utterance(region: &Region, words: Vec<Timed>, language: &str) -> Utterance {
    let ms = |sample: usize| region.ms_at(sample);
    let confidence = words.iter().map(|word| word.confidence).sum::<f32>() / f32_of(words.len().max(1));
    let words: Vec<Word> = words
        .into_iter()
        .map(|word| Word { start_ms: ms(word.at.start), end_ms: ms(word.at.end), text: word.text, confidence: word.confidence })
        .collect();
    Utterance {
        channel: region.channel,
        start_ms: words.first().map_or(region.start_ms, |word| word.start_ms),
        end_ms: words.iter().map(|word| word.end_ms).max().unwrap_or(region.start_ms),
        language: language.to_owned(),
        confidence: confidence.clamp(0.0, 1.0),
        words,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(pieces: &[&str]) -> Vec<String> {
        let bytes: Vec<&[u8]> = pieces.iter().map(|piece| piece.as_bytes()).collect();
        let starts: Vec<usize> = (0..=pieces.len()).map(|token| 10 * token).collect();
        let words = join(&bytes, &starts, &vec![0.0; pieces.len()], 1_000_000);
        words.into_iter().map(|word| word.text).collect()
    }

    fn timed(text: &str, at: Range<usize>) -> Timed {
        Timed { text: text.to_owned(), at, confidence: 0.5, part: 0 }
    }

    #[test]
    fn words_begin_at_spaces_and_keep_their_punctuation() {
        assert_eq!(texts(&[" Hab", "ari", ",", " d", "ada", "?"]), ["Habari,", "dada?"]);
    }

    #[test]
    fn a_word_ends_where_its_punctuation_begins() {
        let words = join(&[b" woman", b",", b" still"], &[0, 10, 30, 40], &[0.0; 3], 1_000_000);

        assert_eq!(words.iter().map(|word| word.at.clone()).collect::<Vec<_>>(), [0..10 * FRAME, 30 * FRAME..40 * FRAME]);
    }

    #[test]
    fn punctuation_with_a_space_joins_its_word() {
        assert_eq!(texts(&[" -", " She", " said", " \"", "no", "\"", " ..."]), ["She", "said", "\"no\"..."]);
        assert_eq!(texts(&[" (", " really", " )", " &", " co"]), ["(really)", "&", "co"]);
    }

    #[test]
    fn a_character_in_two_tokens_is_put_together() {
        let words = join(&[b" caf\xc3", b"\xa9", b" \xf0\x9f"], &[0, 1, 2, 3], &[0.0; 3], 10_000);

        assert_eq!(words[0].text, "café");
        assert_eq!(words[1].text, "\u{fffd}");
    }

    #[test]
    fn control_characters_do_not_reach_the_transcript() {
        assert_eq!(texts(&[" a\u{1b}[2J", "b\n"]), ["a[2Jb"]);
    }

    #[test]
    fn confidence_is_the_geometric_mean_of_the_tokens() {
        let words = join(&[b" a", b"b"], &[0, 1, 2], &[0.25f32.ln(), 1f32.ln()], 10_000);

        assert!((words[0].confidence - 0.5).abs() < 1e-6);
        assert_eq!(words[0].at, 0..2 * FRAME);
    }

    #[test]
    fn a_word_that_is_smeared_over_a_pause_goes_where_the_speech_is() {
        let second = SAMPLE_RATE;
        let mut words = [timed("yes", 0..second), timed("please", second..4 * second)];

        settle(&mut words, &[0..second, 3 * second..4 * second]);

        assert_eq!(words[0].at, 0..second);
        assert_eq!(words[1].at, 3 * second - MARGIN..4 * second);
    }

    #[test]
    fn settled_words_stay_in_order() {
        let mut words = [timed("a", 0..100_000), timed("b", 0..40_000), timed("c", 40_000..50_000)];

        settle(&mut words, &[0..30_000, 50_000..100_000]);

        assert!(words.is_sorted_by_key(|word| word.at.start));
        assert!(words.iter().all(|word| word.at.start <= word.at.end));
    }

    #[test]
    fn a_word_at_a_cut_is_kept_by_one_side_only() {
        let samples = vec![0.0; 100_000];
        let left = Region { keep: 0..80_000, ..Region::whole(0, 0, samples.clone()) };
        let right = Region { keep: 20_000..100_000, ..Region::whole(0, 0, samples) };
        for start in (0..40_000).step_by(2_500) {
            // The right region begins 60 000 samples after the left.
            let (in_left, in_right) = (timed("w", 60_000 + start..65_000 + start), timed("w", start..5_000 + start));
            assert_ne!(belongs(&in_left, &left), belongs(&in_right, &right), "{start}");
        }
    }

    #[test]
    fn no_utterance_goes_over_a_joint() {
        let words = vec![timed("Yes", 0..5000), timed("I", 7000..7000), Timed { part: 1, ..timed("came", 7001..9000) }];

        assert_eq!(split(words).iter().map(Vec::len).collect::<Vec<_>>(), [2, 1]);
    }

    #[test]
    fn utterances_end_at_pauses_and_at_sentences() {
        let second = SAMPLE_RATE;
        let words = vec![
            timed("Yes.", 0..second),
            timed("I", second..2 * second),
            timed("came.", 2 * second..4 * second),
            timed("Then", 4 * second..5 * second),
            timed("he", 6 * second..7 * second),
        ];

        let utterances = split(words);

        assert_eq!(utterances.iter().map(Vec::len).collect::<Vec<_>>(), [3, 1, 1]);
    }
}
