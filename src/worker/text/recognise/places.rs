//! Places after or before the words that go with them: `I live in`, `ninaishi`, `… village`, `house number 14`.
//! Trusts: nothing.
//! Touches: nothing.
//! Next: `merge`.

use std::ops::Range;

use regex::Regex;

use super::patterns::compile;
use crate::ipc::transcript::EntityKind;
use crate::worker::text::finding::{Finding, Rank, after, before};
use crate::worker::text::lexicon::{Commonness, Lexicon};
use crate::worker::text::view::View;
use crate::worker::text::words::words;

/// Words of one place name.
const PLACE_WORDS_MAX: usize = 3;
/// Bytes around a context word in which the place is looked for.
const REACH: usize = 120;

/// The words that go with a place.
pub struct Places {
    strong: Regex,
    weak: Regex,
    suffix: Regex,
    house: Regex,
    phrases: Regex,
}

impl Places {
    /// Compiles the rules.
    ///
    /// # Errors
    /// When a pattern does not compile.
    pub fn new() -> Result<Self, regex::Error> {
        Ok(Self {
            strong: compile(
                r"\b(?:(?:live|lives|lived|living|stay|stays|stayed|staying|reside|resides|based|born|school|work|works|working|grew up) (?:in|at|near|around)|(?:come|comes|came|calling|call|am|is|are|originally|back) from|(?:town|village|city|county|district|estate|area|slum) (?:of|called)|moved to|went to|go to|going to|taken to|sent to|travel(?:led)? to|na?ishi|ninaishi|anaishi|wanaishi|tunaishi|nilikuwa naishi|kuishi|ninatoka|natoka|anatoka|nimetoka|ametoka|ninakaa|nakaa|anakaa|kutoka|mtaa wa|kijiji cha|mji wa|mjini|wilaya ya|kaunti ya|eneo la|shule ya(?: msingi(?: ya)?| sekondari(?: ya)?)?|hospitali ya|soko la|huko|ntuye|ntuuze|mbeera|j'habite(?: à)?)[\s,]+",
            )?,
            weak: compile(r"\b(?:in|at|near|from|around|outside|towards?|between|katika|karibu na|kule|hapa|hadi|mpaka)[\s,]+")?,
            suffix: compile(
                r"\s(?:village|estate|county|sub-?county|district|primary|secondary|high school|girls|boys|academy|school|hospital|clinic|dispensary|market|road|street|avenue|lane|drive|slums?|ward|parish|division|township|town|city|stage|church|mosque|university|college|children's home|police|hills?|valley|settlement|camp|constituency)\b",
            )?,
            house: compile(
                r"\b(?:house|plot|door|flat|apartment|block|p\.?\s?o\.?\s?box|box|l\.?r\.?|nyumba)\s*(?:number|no\.?|namba|nambari|#)?\s*(?P<x>\d{1,6}[a-z]?)\b",
            )?,
            phrases: compile(
                r"\b(?:dar[ -]es[ -]salaam|addis ababa|homa bay|fort portal|athi river|uasin gishu|trans nzoia|tana river|taita taveta|elgeyo marakwet|west pokot|tharaka nithi|south sudan)\b",
            )?,
        })
    }

    /// Places in `view`.
    pub fn find(&self, view: &View, lexicon: &Lexicon) -> Vec<Finding> {
        let make = |rank, range| Finding::of(view.text(), EntityKind::Location, rank, range);
        let mut found = Vec::new();
        for (pattern, rank) in [(&self.strong, Rank::Model), (&self.weak, Rank::Hint)] {
            let ends = pattern.find_iter(view.lower()).map(|context| context.end());
            found.extend(ends.filter_map(|end| place_after(view, end, lexicon)).map(|range| make(rank, range)));
        }
        let starts = self.suffix.find_iter(view.lower()).map(|suffix| suffix.start());
        found.extend(starts.filter_map(|start| place_before(view, start, lexicon)).map(|range| make(Rank::Model, range)));
        found.extend(self.phrases.find_iter(view.lower()).map(|phrase| make(Rank::Listed, phrase.range())));
        let numbers = self.house.captures_iter(view.lower()).filter_map(|captures| captures.name("x"));
        found.extend(numbers.map(|number| make(Rank::Rule, number.range())));
        found
    }
}

fn is_place_word(word: &str, lexicon: &Lexicon) -> bool {
    let capital = word.chars().next().is_some_and(char::is_uppercase);
    let shape = word.chars().count() >= 2 && word.chars().all(|c| c.is_alphanumeric() || matches!(c, '\'' | '-'));
    capital && shape && lexicon.commonness(word) == Commonness::Rare
}

fn place_after(view: &View, from: usize, lexicon: &Lexicon) -> Option<Range<usize>> {
    let text = after(view.text(), from, REACH);
    let mut end = 0;
    for (index, word) in words(text).into_iter().take(PLACE_WORDS_MAX).enumerate() {
        let gap = text.get(end..word.start).unwrap_or("?");
        if !is_place_word(text.get(word.clone()).unwrap_or_default(), lexicon) || gap != if index == 0 { "" } else { " " } {
            break;
        }
        end = word.end;
    }
    (end > 0).then(|| from..from + end)
}

fn place_before(view: &View, to: usize, lexicon: &Lexicon) -> Option<Range<usize>> {
    let text = before(view.text(), to, REACH);
    let offset = to - text.len();
    let mut start = text.len();
    for (index, word) in words(text).into_iter().rev().take(PLACE_WORDS_MAX).enumerate() {
        let gap = text.get(word.end..start).unwrap_or("?");
        if !is_place_word(text.get(word.clone()).unwrap_or_default(), lexicon) || gap != if index == 0 { "" } else { " " } {
            break;
        }
        start = word.start;
    }
    (start < text.len()).then(|| offset + start..to)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(text: &str) -> Vec<String> {
        let lexicon = Lexicon::build();
        let view = View::new(text);
        let mut found: Vec<String> =
            Places::new().unwrap().find(&view, &lexicon).into_iter().filter_map(|f| view.text().get(f.range).map(str::to_owned)).collect();
        found.sort();
        found.dedup();
        found
    }

    #[test]
    fn places_are_found_by_the_words_around_them() {
        for (text, place) in [
            ("I live in Kangemi now", "Kangemi"),
            ("ninaishi Mathare Valley na mama", "Mathare"),
            ("the Kapsowar village school", "Kapsowar"),
            ("house number 14", "14"),
            ("P.O. Box 1234", "1234"),
            ("near Gikomba.", "Gikomba"),
        ] {
            assert!(found(text).iter().any(|found| found.starts_with(place)), "{text}: {:?}", found(text));
        }
    }

    #[test]
    fn what_is_no_place_is_left() {
        for clean in ["in December", "at School", "from Monday", "in the house", "go to school on Friday"] {
            assert_eq!(found(clean), Vec::<String>::new(), "{clean}");
        }
    }
}
