//! Words that are names or places, words that are neither, and words that can be both.
//! Trusts: its own lists, which are compiled in.
//! Touches: nothing.
//! Next: `recognise`, `names` and `propagate` ask it about single words.

use std::collections::{HashMap, HashSet};

use super::view::fold;
use crate::ipc::transcript::EntityKind;

/// How ordinary a word is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Commonness {
    /// A word of the language that is never taken for a name by itself.
    Never,
    /// A word of the language that is also a name: Faith, Peace, Salama, Simba.
    Sometimes,
    /// Not a common word.
    Rare,
}

/// The word lists. English, Swahili and a little Luganda, Kinyarwanda and French.
pub struct Lexicon {
    common: HashSet<&'static str>,
    ambiguous: HashSet<&'static str>,
    listed: HashMap<&'static str, EntityKind>,
}

impl Lexicon {
    /// Builds the tables.
    pub fn build() -> Self {
        let mut listed: HashMap<&'static str, EntityKind> =
            include_str!("lexicon/people.txt").split_whitespace().map(|word| (word, EntityKind::Person)).collect();
        listed.extend(include_str!("lexicon/places.txt").split_whitespace().map(|word| (word, EntityKind::Location)));
        Self {
            common: include_str!("lexicon/common.txt").split_whitespace().collect(),
            ambiguous: include_str!("lexicon/ambiguous.txt").split_whitespace().collect(),
            listed,
        }
    }

    /// How ordinary `word` is, in any spelling of case and accents.
    pub fn commonness(&self, word: &str) -> Commonness {
        let word = fold(word);
        let word = word.strip_suffix("'s").unwrap_or(&word);
        if self.ambiguous.contains(word) || self.listed.contains_key(word) && self.common.contains(word) {
            Commonness::Sometimes
        } else if self.listed.contains_key(word) {
            Commonness::Rare
        } else if self.is_common(word) {
            Commonness::Never
        } else {
            Commonness::Rare
        }
    }

    /// What the lists say of `word`: a person's name or a place, and not also a common word.
    pub fn listed(&self, word: &str) -> Option<EntityKind> {
        let word = fold(word);
        let word = word.strip_suffix("'s").unwrap_or(&word);
        let both = self.ambiguous.contains(word) || self.common.contains(word);
        self.listed.get(word).copied().filter(|_| !both)
    }

    /// Whether a word in lower case may be a name: it is listed, or neither common nor shaped like a Swahili verb.
    pub fn may_be_lower_case_name(&self, word: &str) -> bool {
        let folded = fold(word);
        self.listed.contains_key(folded.as_str())
            || folded.chars().count() >= 3 && self.commonness(word) == Commonness::Rare && !is_swahili_verb(&folded)
    }

    fn is_common(&self, word: &str) -> bool {
        let known = |stem: &str| stem.len() >= 3 && self.common.contains(stem);
        self.common.contains(word)
            || ["s", "es", "ed", "d", "ing", "ly"].iter().any(|ending| word.strip_suffix(ending).is_some_and(known))
            || ["'ll", "'ve", "'re", "'d", "'m", "'s", "n't"]
                .iter()
                .any(|ending| word.strip_suffix(ending).is_some_and(|stem| self.common.contains(stem)))
            || word.split(['\'', '-']).count() > 1 && word.split(['\'', '-']).all(|part| part.len() <= 2 || self.common.contains(part))
    }
}

/// Subject, tense and root as in `ninaishi`, `alikuja`, `wamempiga`: the shape of most Swahili verbs, and of hardly any name.
pub fn is_swahili_verb(folded: &str) -> bool {
    const SUBJECTS: [&str; 16] = ["ni", "u", "a", "tu", "m", "wa", "i", "ya", "li", "zi", "ki", "vi", "ha", "si", "hawa", "hatu"];
    const TENSES: [&str; 9] = ["na", "li", "ta", "me", "nge", "ja", "ku", "ka", "ki"];
    folded.len() >= 7
        && folded.ends_with(['a', 'e', 'i', 'u'])
        && SUBJECTS.iter().filter_map(|subject| folded.strip_prefix(subject)).any(|rest| TENSES.iter().any(|tense| rest.starts_with(tense)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn common_words_names_and_words_that_are_both_are_told_apart() {
        let lexicon = Lexicon::build();
        for (word, commonness) in [
            ("Hospital", Commonness::Never),
            ("don't", Commonness::Never),
            ("HABARI", Commonness::Never),
            ("Faith", Commonness::Sometimes),
            ("Salama", Commonness::Sometimes),
            ("Wanjiku", Commonness::Rare),
            ("Kiprono's", Commonness::Rare),
        ] {
            assert_eq!(lexicon.commonness(word), commonness, "{word}");
        }
        assert_eq!(lexicon.listed("wanjiku"), Some(EntityKind::Person));
        assert_eq!(lexicon.listed("KISUMU"), Some(EntityKind::Location));
        assert_eq!(lexicon.listed("faith"), None);
    }

    #[test]
    fn swahili_verbs_are_no_names() {
        assert!(is_swahili_verb("ninaishi") && is_swahili_verb("alinipiga") && is_swahili_verb("tutakusaidia"));
        assert!(!is_swahili_verb("kamau") && !is_swahili_verb("otieno") && !is_swahili_verb("nakato"));
    }
}
