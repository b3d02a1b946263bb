//! Names after the words that introduce them: `my name is`, `naitwa`, `Mr.`, `my sister`.
//! Trusts: nothing.
//! Touches: nothing.
//! Next: `merge`.

use std::ops::Range;

use regex::Regex;

use super::patterns::compile;
use crate::ipc::transcript::EntityKind;
use crate::worker::text::finding::{Finding, Rank};
use crate::worker::text::lexicon::{Commonness, Lexicon};
use crate::worker::text::view::View;
use crate::worker::text::words::words;

/// Words of a name after one introduction.
const NAME_WORDS_MAX: usize = 3;
/// Bytes after an introduction in which its name is looked for.
const REACH: usize = 160;

/// The words that introduce a name.
pub struct People {
    /// What follows is a name, even in lower case.
    strong: Regex,
    /// What follows is a name when it has a capital.
    weak: Regex,
}

impl People {
    /// Compiles the rules.
    ///
    /// # Errors
    /// When a pattern does not compile.
    pub fn new() -> Result<Self, regex::Error> {
        Ok(Self {
            strong: compile(
                r"\b(?:my names? (?:is|are)|my name's|(?:his|her|child's|girl's|boy's|baby's) names? is|name is|i am called|i'm called|(?:is|are|was) (?:called|named)|naitwa|ninaitwa|nanaitwa|anaitwa|anayeitwa|aitwaye|unaitwa|wanaitwa|nilikuwa naitwa|jina langu ni|jina lake ni|jina lake|jina langu|majina yangu ni|nitwa|yitwa|amazina yanjye ni|erinnya lyange nze|nze|mpitibwa|ayitibwa|je m'appelle|s'appelle)[\s:,]+",
            )?,
            weak: compile(
                r"\b(?:(?:mr|mrs|ms|dr|mwl|prof|st)\.?|miss|madam|mister|bwana|bibi|mzee|mama|baba|mwalimu|teacher|uncle|aunt|auntie|aunty|pastor|father|mother|sister|brother|sheikh|imam|chief|officer|inspector|constable|sergeant|doctor|nurse|headmaster|principal|ndugu|dada|kaka|mjomba|shangazi|counsell?or|friend|neighbou?r|cousin|daughter|son|wife|husband|boyfriend|girlfriend|landlord|boss|this is|called|named|known as|jina|call me|ask for|rafiki yangu|jirani|i am|i'm|mimi ni|speak (?:to|with)|spoke (?:to|with)|thank you|thanks|asante|sorry|hello|hi|hey|okay|pole|karibu|and)[\s,]+",
            )?,
        })
    }

    /// Names in `view`.
    pub fn find(&self, view: &View, lexicon: &Lexicon) -> Vec<Finding> {
        let mut found = Vec::new();
        for (pattern, strong) in [(&self.strong, true), (&self.weak, false)] {
            for introduction in pattern.find_iter(view.lower()) {
                let rank = if strong { Rank::Rule } else { Rank::Hint };
                found.extend(
                    name_after(view, introduction.end(), strong, lexicon)
                        .map(|range| Finding::of(view.text(), EntityKind::Person, rank, range)),
                );
            }
        }
        found
    }
}

/// Up to three words that can be a name, right at `from`.
fn name_after(view: &View, from: usize, strong: bool, lexicon: &Lexicon) -> Option<Range<usize>> {
    let text = crate::worker::text::finding::after(view.text(), from, REACH);
    let mut end = 0;
    for (index, word) in words(text).into_iter().take(NAME_WORDS_MAX).enumerate() {
        let gap = text.get(end..word.start).unwrap_or("?");
        let part = text.get(word.clone()).unwrap_or_default();
        let capital = part.chars().next().is_some_and(char::is_uppercase);
        let letters = part.chars().all(|c| c.is_alphabetic() || matches!(c, '\'' | '-')) && part.chars().count() >= 2;
        let may_be_name = match lexicon.commonness(part) {
            Commonness::Never => false,
            // "My name is Faith", but not "this is Peace" and not "I am sorry".
            Commonness::Sometimes => capital && (strong || index > 0),
            Commonness::Rare => capital || strong && lexicon.may_be_lower_case_name(part),
        };
        if !(letters && may_be_name && (gap.is_empty() && index == 0 || gap == " ")) {
            break;
        }
        end = word.end;
    }
    (end > 0).then(|| from..from + end)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(text: &str) -> Vec<String> {
        let lexicon = Lexicon::build();
        let view = View::new(text);
        People::new().unwrap().find(&view, &lexicon).into_iter().filter_map(|f| view.text().get(f.range).map(str::to_owned)).collect()
    }

    #[test]
    fn introduced_names_are_found() {
        for (text, name) in [
            ("My name is Faith.", "Faith"),
            ("my name is wanjiku and i", "wanjiku"),
            ("Naitwa Achieng, nina", "Achieng"),
            ("jina lake ni Ng'ang'a Mwangi", "Ng'ang'a Mwangi"),
            ("Mr. Otieno beats", "Otieno"),
            ("my uncle Kiprono came", "Kiprono"),
            ("Je m'appelle Uwimana", "Uwimana"),
            ("anaitwa nakato", "nakato"),
        ] {
            assert_eq!(found(text), [name], "{text}");
        }
    }

    #[test]
    fn what_is_no_name_is_left() {
        for clean in [
            "my name is not important",
            "I am sorry",
            "my mother is ill",
            "this is Childline",
            "my sister. Then we ran",
            "Thank you",
            "I am Okay",
        ] {
            assert_eq!(found(clean), Vec::<String>::new(), "{clean}");
        }
    }
}
