//! The story of redaction: clear > rules > names > propagate > merge > number > replace.
//! Trusts: nothing; the scores of the name model come in by a function, so that the story is tested without it.
//! Touches: memory and processor.
//! Next: `TextModels` gives it the model.

use std::ops::Range;

use super::document::{Call, Document};
use super::finding::Finding;
use super::lexicon::Lexicon;
use super::merge::{Located, Masked, merge};
use super::names;
use super::ner::ScoredWord;
use super::placeholder::{Placeholders, number, placeholder};
use super::propagate::Known;
use super::recognise::Rules;
use super::view::View;
use super::words::words;
use super::{RedactedPlain, TextError};
use crate::ipc::transcript::{Entity, Utterance, Word};

/// Scores the words of a text: [`super::ner::Ner::score`].
pub type Score<'a> = dyn FnMut(&str) -> Result<Vec<ScoredWord>, TextError> + 'a;

/// Rules and word lists.
pub struct Redactor {
    rules: Rules,
    lexicon: Lexicon,
    placeholders: Placeholders,
}

impl Redactor {
    /// Compiles the rules and builds the lists.
    ///
    /// # Errors
    /// When a rule does not compile.
    pub fn new() -> Result<Self, regex::Error> {
        Ok(Self { rules: Rules::new()?, lexicon: Lexicon::build(), placeholders: Placeholders::new()? })
    }

    /// Redacts a text; bytes outside the entities stay as they are.
    ///
    /// # Errors
    /// What `score` returns, and [`TextError::TooLong`].
    pub fn text(&self, text: &str, score: &mut Score<'_>) -> Result<RedactedPlain, TextError> {
        let whole = std::iter::once(0..text.len());
        let located = self.locate(&[Document::new(text, whole)], score)?;
        let (entities, masked) = self.settle(text, &units(text), located)?;
        let mut redacted = String::with_capacity(text.len());
        let mut end = 0;
        for (entity, masked) in entities.iter().zip(&masked) {
            redacted.push_str(text.get(end..masked.range.start).ok_or(TextError::Range)?);
            redacted.push_str(&placeholder(entity.kind, entity.number));
            end = masked.range.end;
        }
        redacted.push_str(text.get(end..).ok_or(TextError::Range)?);
        Ok(RedactedPlain { text: redacted, entities })
    }

    /// Redacts a call; the utterances come back in the order given.
    ///
    /// # Errors
    /// What `score` returns, and [`TextError::TooLong`].
    pub fn call(&self, clear: &[Utterance], score: &mut Score<'_>) -> Result<Vec<(Utterance, Vec<Entity>)>, TextError> {
        let call = Call::new(clear);
        let located = self.locate(&call.documents(clear), score)?;
        let units: Vec<Range<usize>> = call.words.iter().flatten().cloned().collect();
        let (entities, masked) = self.settle(&call.whole, &units, located)?;
        let mut all = entities.into_iter().zip(masked).peekable();
        let mut first_unit = 0;
        let mut redacted = Vec::with_capacity(clear.len());
        for ((utterance, lies), words) in clear.iter().zip(&call.utterances).zip(&call.words) {
            let mut own = Vec::new();
            while let Some(one) = all.next_if(|(_, masked)| masked.units.start < first_unit + words.len()) {
                own.push(one);
            }
            redacted.push(replace(utterance, lies, words, first_unit, &call.whole, own)?);
            first_unit += words.len();
        }
        Ok(redacted)
    }

    /// Rules, names and propagation over every way to read the text.
    fn locate(&self, documents: &[Document], score: &mut Score<'_>) -> Result<Vec<Located>, TextError> {
        let mut located = Vec::new();
        let mut known = Known::default();
        let views: Vec<View> = documents.iter().map(|document| View::new(&document.text)).collect();
        for (index, (document, view)) in documents.iter().zip(&views).enumerate() {
            let mut found = self.rules.find(view, &self.lexicon);
            // The first document holds all of the text; the model reads it once.
            if index == 0 {
                found.extend(names::find(view, &score(view.text())?, &self.lexicon));
            }
            known.learn(&found, &self.rules.runs(view), &self.lexicon);
            for finding in found {
                located.push(carry_back(document, view, finding)?);
            }
        }
        for (document, view) in documents.iter().zip(&views) {
            for echo in known.find(view, &self.rules.runs(view), &self.lexicon) {
                located.push(carry_back(document, view, echo)?);
            }
        }
        Ok(located)
    }

    /// Merges and numbers.
    fn settle(&self, whole: &str, units: &[Range<usize>], located: Vec<Located>) -> Result<(Vec<Entity>, Vec<Masked>), TextError> {
        let (protected, taken) = self.placeholders.find(whole);
        let masked = merge(whole, units, located, &protected);
        let numbers = number(&masked, taken);
        let entity = |(one, number): (&Masked, u32)| {
            Ok(Entity { kind: one.kind, number, start: to_u32(one.range.start)?, end: to_u32(one.range.end)? })
        };
        let entities = masked.iter().zip(numbers).map(entity).collect::<Result<Vec<Entity>, TextError>>()?;
        Ok((entities, masked))
    }
}

/// A finding that cannot be carried back is an error: dropping it would leave it in clear.
fn carry_back(document: &Document, view: &View, finding: Finding) -> Result<Located, TextError> {
    let pieces = document.locate(&view.original(&finding.range).ok_or(TextError::Range)?);
    if pieces.is_empty() {
        return Err(TextError::Range);
    }
    Ok(Located { kind: finding.kind, rank: finding.rank, pieces, key: finding.key })
}

/// The words of `text`, and every character between them.
fn units(text: &str) -> Vec<Range<usize>> {
    let mut units = Vec::new();
    let mut end = 0;
    for word in words(text).into_iter().chain(std::iter::once(text.len()..text.len())) {
        let gap = text.get(end..word.start).unwrap_or_default();
        units.extend(gap.char_indices().map(|(at, c)| end + at..end + at + c.len_utf8()));
        end = word.end;
        if !word.is_empty() {
            units.push(word);
        }
    }
    units
}

/// One utterance with placeholders; a run of masked words becomes one word that spans their times.
fn replace(
    clear: &Utterance,
    lies: &Range<usize>,
    words: &[Range<usize>],
    first_unit: usize,
    whole: &str,
    masked: Vec<(Entity, Masked)>,
) -> Result<(Utterance, Vec<Entity>), TextError> {
    let mut redacted = Vec::with_capacity(clear.words.len());
    let mut entities = Vec::with_capacity(masked.len());
    let mut next = 0;
    for (mut entity, masked) in masked {
        let from = masked.units.start.checked_sub(first_unit).ok_or(TextError::Range)?;
        let to = masked.units.end.checked_sub(first_unit).ok_or(TextError::Range)?;
        redacted.extend_from_slice(clear.words.get(next..from).ok_or(TextError::Range)?);
        let covered = clear.words.get(from..to).ok_or(TextError::Range)?;
        let (Some(first), Some(last)) = (words.get(from), words.get(from..to).and_then(<[Range<usize>]>::last)) else {
            return Err(TextError::Range);
        };
        let lead = whole.get(first.start..masked.range.start).ok_or(TextError::Range)?;
        let tail = whole.get(masked.range.end..last.end).ok_or(TextError::Range)?;
        redacted.extend(cover(covered, format!("{lead}{}{tail}", placeholder(entity.kind, entity.number))));
        let base = to_u32(lies.start)?;
        entity.start = entity.start.checked_sub(base).ok_or(TextError::Range)?;
        entity.end = entity.end.checked_sub(base).ok_or(TextError::Range)?;
        entities.push(entity);
        next = to;
    }
    redacted.extend_from_slice(clear.words.get(next..).ok_or(TextError::Range)?);
    let utterance = Utterance {
        channel: clear.channel,
        start_ms: clear.start_ms,
        end_ms: clear.end_ms,
        language: clear.language.clone(),
        confidence: clear.confidence,
        words: redacted,
    };
    Ok((utterance, entities))
}

/// One word in the place of several, with their times and the lowest of their confidences.
fn cover(covered: &[Word], text: String) -> Option<Word> {
    let (first, last) = (covered.first()?, covered.last()?);
    let confidence = covered.iter().map(|word| word.confidence).fold(f32::INFINITY, f32::min);
    Some(Word { start_ms: first.start_ms, end_ms: last.end_ms, text, confidence })
}

fn to_u32(value: usize) -> Result<u32, TextError> {
    u32::try_from(value).map_err(|_| TextError::TooLong)
}
