//! Word error rate of a transcript against what was said.
//! Trusts: nothing.
//! Touches: nothing.
//! Next: [`super::transcript`] prints it.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::ipc::transcript::Utterance;

/// Edits between the reference and the transcript, in words.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(super) struct Errors {
    /// Words of the reference.
    pub(super) words: usize,
    /// Heard as another word.
    pub(super) substituted: usize,
    /// Not heard.
    pub(super) missing: usize,
    /// Heard, but not said.
    pub(super) added: usize,
}

impl Errors {
    fn total(self) -> usize {
        self.substituted + self.missing + self.added
    }

    /// Tenths of a per cent of the reference's words; `None` for an empty reference.
    pub(super) fn per_mille(self) -> Option<usize> {
        (self.total() * 1000 + self.words / 2).checked_div(self.words)
    }

    fn and(self, other: Self) -> Self {
        Self {
            words: self.words + other.words,
            substituted: self.substituted + other.substituted,
            missing: self.missing + other.missing,
            added: self.added + other.added,
        }
    }
}

/// Compares a reference text with utterances: channels apart when each line of the reference names its channel (`1: …`).
pub(super) fn compare(reference: &str, utterances: &[Utterance]) -> Errors {
    let Some(said) = by_channel(reference) else {
        let heard: Vec<String> = utterances.iter().map(Utterance::text).collect();
        return errors(&normal(reference), &normal(&heard.join(" ")));
    };
    let mut heard: BTreeMap<u8, String> = said.keys().map(|channel| (*channel, String::new())).collect();
    for utterance in utterances {
        let text = heard.entry(utterance.channel.saturating_add(1)).or_default();
        text.push(' ');
        text.push_str(&utterance.text());
    }
    let compared = heard.iter().map(|(channel, heard)| errors(&normal(said.get(channel).map_or("", String::as_str)), &normal(heard)));
    compared.fold(Errors::default(), Errors::and)
}

fn by_channel(reference: &str) -> Option<BTreeMap<u8, String>> {
    let mut said = BTreeMap::<u8, String>::new();
    for line in reference.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let (channel, text) = line.split_once(':')?;
        let all = said.entry(channel.trim().parse().ok()?).or_default();
        all.push(' ');
        all.push_str(text);
    }
    (!said.is_empty()).then_some(said)
}

/// Lower case, without punctuation; a placeholder is the word of its kind, so that numbering does not count.
fn normal(text: &str) -> Vec<String> {
    let mut words = Vec::new();
    for piece in text.split(|c: char| c.is_whitespace() || matches!(c, '-' | '–' | '—' | '/' | '…')) {
        let word = match piece.split_once('[').and_then(|(_, rest)| rest.split_once(']')) {
            Some((placeholder, _)) => placeholder.trim_end_matches(|c: char| c.is_ascii_digit() || c == '_').to_lowercase(),
            None => piece.chars().filter(|c| c.is_alphanumeric()).flat_map(char::to_lowercase).collect(),
        };
        if !word.is_empty() {
            words.push(word);
        }
    }
    words
}

/// One cell of the distance table: edits so far.
#[derive(Clone, Copy, Default)]
struct Cell {
    substituted: usize,
    missing: usize,
    added: usize,
}

impl Cell {
    const fn total(&self) -> usize {
        self.substituted + self.missing + self.added
    }
}

/// Levenshtein over words, two rows at a time.
fn errors(said: &[String], heard: &[String]) -> Errors {
    let mut above: Vec<Cell> = (0..=heard.len()).map(|added| Cell { added, ..Cell::default() }).collect();
    for (index, word) in said.iter().enumerate() {
        let mut left = Cell { missing: index + 1, ..Cell::default() };
        let mut row = vec![left];
        for (other, pair) in heard.iter().zip(above.windows(2)) {
            let [diagonal, up] = pair else { continue };
            let same = usize::from(word != other);
            let choices = [
                Cell { substituted: diagonal.substituted + same, ..*diagonal },
                Cell { missing: up.missing + 1, ..*up },
                Cell { added: left.added + 1, ..left },
            ];
            left = choices.into_iter().min_by_key(Cell::total).unwrap_or_default();
            row.push(left);
        }
        above = row;
    }
    let Cell { substituted, missing, added } = above.last().copied().unwrap_or_default();
    Errors { words: said.len(), substituted, missing, added }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::ipc::transcript::Word;

    fn heard(channel: u8, text: &str) -> Utterance {
        let word = |text: &str| Word { start_ms: 0, end_ms: 0, text: text.to_owned(), confidence: 1.0 };
        let words = text.split(' ').map(word).collect();
        Utterance { channel, start_ms: 0, end_ms: 0, language: "en".to_owned(), confidence: 1.0, words }
    }

    #[test]
    fn each_kind_of_error_is_counted() {
        let errors = compare("one two three four", &[heard(0, "one too three"), heard(0, "and four")]);
        assert_eq!(errors, Errors { words: 4, substituted: 1, missing: 0, added: 1 });
        assert_eq!(errors.per_mille(), Some(500));
    }

    #[test]
    fn case_punctuation_hyphens_and_numbers_of_placeholders_do_not_count() {
        let errors = compare("Hello, [PERSON]! It's twenty-one.", &[heard(0, "hello [PERSON_2], its twenty one")]);
        assert_eq!(errors, Errors { words: 5, ..Errors::default() });
    }

    #[test]
    fn channels_that_talk_at_once_are_compared_apart() {
        let errors = compare(
            "1: good morning\n2: hello there\n1: how are you\n",
            &[heard(0, "good morning how"), heard(1, "hello there"), heard(0, "are you")],
        );
        assert_eq!(errors, Errors { words: 7, ..Errors::default() });
    }

    #[test]
    fn nothing_heard_and_nothing_said_are_no_division_by_zero() {
        assert_eq!(compare("a b", &[]).per_mille(), Some(1000));
        assert_eq!(compare("", &[heard(0, "a")]).per_mille(), None);
    }

    proptest! {
        #[test]
        fn a_transcript_equals_itself_and_edits_bound_the_rate(said in "[a-c]( [a-c]){0,12}", other in "[a-c]( [a-c]){0,12}") {
            prop_assert_eq!(compare(&said, &[heard(0, &said)]).total(), 0);
            let errors = compare(&said, &[heard(0, &other)]);
            let (a, b) = (said.split(' ').count(), other.split(' ').count());
            prop_assert!(errors.total() <= a.max(b) && errors.total() >= a.abs_diff(b));
            prop_assert_eq!(errors.words + errors.added, b + errors.missing);
        }
    }
}
