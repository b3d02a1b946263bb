//! What was found once is found everywhere: the words of names and places, and the parts of numbers that are read back.
//! Trusts: nothing.
//! Touches: nothing.
//! Next: `merge`.

use std::collections::{HashMap, HashSet};

use super::finding::{Finding, Rank};
use super::lexicon::{Commonness, Lexicon};
use super::names::at_sentence_start;
use super::recognise::numbers::Run;
use super::view::{View, fold};
use super::words::{stands_out, words};
use crate::ipc::transcript::EntityKind;

/// Shortest word that is looked for elsewhere, characters.
const WORD_CHARS_MIN: usize = 3;
/// Shortest part of a number that is taken for that number read back, digits.
const PART_DIGITS_MIN: usize = 4;

/// Names, places and numbers of the call, to be looked for in all of it.
#[derive(Default)]
pub struct Known {
    words: HashMap<String, EntityKind>,
    numbers: Vec<Number>,
}

struct Number {
    kind: EntityKind,
    key: String,
    digits: String,
    groups: HashSet<String>,
}

impl Known {
    /// Remembers what was found in one text with these runs of digits.
    pub fn learn(&mut self, found: &[Finding], runs: &[Run], lexicon: &Lexicon) {
        for finding in found {
            match finding.kind {
                EntityKind::Person | EntityKind::Location => self.learn_words(finding, lexicon),
                EntityKind::Phone
                | EntityKind::Card
                | EntityKind::BankAccount
                | EntityKind::NationalId
                | EntityKind::Passport
                | EntityKind::Other => {
                    self.learn_number(finding, runs);
                }
                EntityKind::Email | EntityKind::Url | EntityKind::IpAddress | EntityKind::DateOfBirth | EntityKind::Age => {}
            }
        }
    }

    fn learn_words(&mut self, finding: &Finding, lexicon: &Lexicon) {
        for word in words(&finding.key).into_iter().filter_map(|range| finding.key.get(range)) {
            let word = word.strip_suffix("'s").unwrap_or(word);
            let long = word.chars().count() >= WORD_CHARS_MIN && word.chars().all(|c| !c.is_numeric());
            if long && lexicon.commonness(word) != Commonness::Never {
                self.words.entry(word.to_owned()).or_insert(finding.kind);
            }
        }
    }

    fn learn_number(&mut self, finding: &Finding, runs: &[Run]) {
        let groups: Vec<&str> = runs
            .iter()
            .flatten()
            .filter(|group| finding.range.start <= group.range.start && group.range.end <= finding.range.end)
            .map(|group| group.digits.as_str())
            .collect();
        let digits = groups.concat();
        if digits.len() > PART_DIGITS_MIN && !self.numbers.iter().any(|number| number.digits == digits) {
            let groups = groups.into_iter().filter(|group| group.len() + 1 >= PART_DIGITS_MIN).map(str::to_owned).collect();
            self.numbers.push(Number { kind: finding.kind, key: finding.key.clone(), digits, groups });
        }
    }

    /// The same words and numbers in `view`.
    pub fn find(&self, view: &View, runs: &[Run], lexicon: &Lexicon) -> Vec<Finding> {
        let mut found = Vec::new();
        for range in words(view.text()) {
            let part = view.text().get(range.clone()).unwrap_or_default();
            let folded = fold(part);
            let word = folded.strip_suffix("'s").unwrap_or(&folded);
            let Some(kind) = self.words.get(word) else { continue };
            let is_name = lexicon.commonness(word) == Commonness::Rare || stands_out(part) && !at_sentence_start(view.text(), range.start);
            if is_name {
                found.push(Finding { kind: *kind, rank: Rank::Echo, range, key: word.to_owned() });
            }
        }
        for run in runs {
            self.find_parts(run, &mut found);
        }
        found
    }

    fn find_parts(&self, run: &Run, found: &mut Vec<Finding>) {
        let whole: String = run.iter().map(|group| group.digits.as_str()).collect();
        // Surer than the model, which takes a few digits for a house number.
        let echo = |number: &Number, range| Finding { kind: number.kind, rank: Rank::Listed, range, key: number.key.clone() };
        if let (Some(first), Some(last)) = (run.first(), run.last())
            && whole.len() >= PART_DIGITS_MIN
            && let Some(number) = self.numbers.iter().find(|number| number.digits.contains(&whole))
        {
            found.push(echo(number, first.range.start..last.range.end));
            return;
        }
        for group in run {
            let same = |number: &&Number| {
                number.groups.contains(&group.digits) || group.digits.len() >= PART_DIGITS_MIN && number.digits.contains(&group.digits)
            };
            found.extend(self.numbers.iter().find(same).map(|number| echo(number, group.range.clone())));
        }
    }
}
