//! Which of the scored words are taken for names and places, and which listed names the model missed.
//! Trusts: nothing.
//! Touches: nothing.
//! Next: `propagate` looks for the same words elsewhere.

use super::finding::{Finding, Rank};
use super::lexicon::{Commonness, Lexicon, is_swahili_verb};
use super::ner::ScoredWord;
use super::view::View;
use super::words::{stands_out, words};
use crate::ipc::transcript::EntityKind;

/// P(not O) from which a capitalised word is masked. Measured on 200 synthetic East African helpline transcripts: with propagation
/// 96 % of names and 92 % of places are found at 0.15 against 93 % and 81 % at 0.5, while the precision of masked words stays at 94.5 %.
pub const THRESHOLD: f32 = 0.15;
/// The same for a capitalised word inside a sentence that is no common word: little else in a call is written so.
const THRESHOLD_INSIDE: f32 = 0.02;
/// The same for a word in lower case, in a line without capitals: recognisers write names with a capital, people who type often do not.
const THRESHOLD_LOWER: f32 = 0.5;
/// The same for words such as Faith or Peace, and for numbers.
const THRESHOLD_COMMON: f32 = 0.9;
/// How much of a line tells whether its writer uses capitals, bytes on each side.
const NEAR: usize = 120;

/// Names and places in `view`: from the model's scores, then from the lists.
pub fn find(view: &View, scored: &[ScoredWord], lexicon: &Lexicon) -> Vec<Finding> {
    let text = view.text();
    let mut found: Vec<Finding> = Vec::new();
    for word in scored {
        let Some(part) = text.get(word.range.clone()) else { continue };
        let taken = if part.chars().any(|c| c.is_ascii_digit()) {
            is_personal_figure(part, word, scored)
        } else {
            is_name(part, word, &Surroundings::of(text, word.range.start), lexicon)
        };
        if taken {
            found.push(Finding::of(text, word.kind, Rank::Model, word.range.clone()));
        }
    }
    for range in words(text) {
        let part = text.get(range.clone()).unwrap_or_default();
        if let Some(kind) = lexicon.listed(part) {
            found.push(Finding::of(text, kind, Rank::Listed, range));
        }
    }
    found
}

/// What the line around a word tells of its capital letter.
struct Surroundings {
    /// The word begins a sentence, where a capital means nothing.
    first: bool,
    /// The line has no capitals but `I`: its writer does not use them.
    lower: bool,
    /// The line has lower-case letters, so that a capital means something.
    mixed: bool,
}

impl Surroundings {
    fn of(text: &str, at: usize) -> Self {
        let (head, tail) = text.split_at_checked(at).unwrap_or((text, ""));
        let head = head.rsplit('\n').next().unwrap_or_default();
        let tail = tail.split('\n').next().unwrap_or_default();
        let near = || super::finding::before(head, head.len(), NEAR).split(' ').chain(super::finding::after(tail, 0, NEAR).split(' '));
        let capitals = near().filter(|word| !word.starts_with("I'") && *word != "I" && word.chars().any(char::is_uppercase)).count();
        Self { first: at_sentence_start(text, at), lower: capitals == 0, mixed: near().count() >= capitals * 2 }
    }
}

fn is_name(part: &str, word: &ScoredWord, around: &Surroundings, lexicon: &Lexicon) -> bool {
    if part.chars().filter(|c| c.is_alphabetic()).count() < 2 {
        return false;
    }
    let folded = super::view::fold(part);
    let needed = match (lexicon.commonness(part), stands_out(part)) {
        (Commonness::Never, _) | (Commonness::Sometimes, false) => return false,
        (Commonness::Sometimes, true) if around.first => THRESHOLD_COMMON,
        (Commonness::Rare, true) if around.first && is_swahili_verb(&folded) => THRESHOLD_COMMON,
        (Commonness::Rare, true) if !around.first && around.mixed => THRESHOLD_INSIDE,
        (Commonness::Sometimes | Commonness::Rare, true) => THRESHOLD,
        (Commonness::Rare, false) if around.lower && folded.chars().count() >= 3 && !is_swahili_verb(&folded) => THRESHOLD_LOWER,
        (Commonness::Rare, false) => return false,
    };
    word.probability >= needed
}

/// A number is personal when the model is sure, or when it belongs to an address: the next word but two is a place.
/// Helpline numbers, times and years are none.
fn is_personal_figure(part: &str, word: &ScoredWord, scored: &[ScoredWord]) -> bool {
    let digits: String = part.chars().filter(char::is_ascii_digit).collect();
    let pure = part.chars().all(|c| c.is_ascii_digit() || c == '-');
    let year = digits.len() == 4 && (digits.starts_with("19") || digits.starts_with("20"));
    let ordinal = ["st", "nd", "rd", "th", "s", "am", "pm", "km", "m", "kg"].iter().any(|ending| {
        part.to_lowercase().strip_suffix(ending).is_some_and(|head| !head.is_empty() && head.bytes().all(|byte| byte.is_ascii_digit()))
    });
    if year || ordinal {
        return false;
    }
    let near = |other: &&ScoredWord| {
        other.range.start <= word.range.end + 12 && other.range.end + 12 >= word.range.start && other.range != word.range
    };
    let in_address = word.kind == EntityKind::Location
        && scored.iter().filter(near).any(|other| other.kind == EntityKind::Location && other.probability >= THRESHOLD_COMMON);
    let sure = word.probability >= THRESHOLD_COMMON && (!pure || digits.len() >= 4);
    sure || in_address && word.probability >= THRESHOLD_LOWER
}

/// Whether a sentence or utterance begins at `at`, so that a capital letter there means nothing.
pub fn at_sentence_start(text: &str, at: usize) -> bool {
    let before = text.get(..at).unwrap_or_default().trim_end_matches([' ', '"', '\'', '(', '“']);
    before.is_empty() || before.ends_with(['.', '!', '?', ':', ';', '\n', '-', '…'])
}
