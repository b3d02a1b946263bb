//! Dates of birth: a date, or a bare year, soon after words such as `born`, `date of birth`, `nilizaliwa`.
//! Trusts: nothing.
//! Touches: nothing.
//! Next: `merge`.

use regex::Regex;

use super::numbers::Numbers;
use super::patterns::compile;
use crate::ipc::transcript::EntityKind;
use crate::worker::text::finding::{Finding, Rank, after};
use crate::worker::text::view::View;

/// How far after its context words a date of birth may stand, bytes.
const REACH: usize = 80;
const MONTHS: &str = r"(?:jan(?:uary|uari|vier)?|feb(?:ruary|ruari)?|f[eé]vrier|mar(?:ch|s|chi)?|machi|apr(?:il|ili)?|aprili|avril|may|mei|mai|june?|juni|juin|july?|julai|juillet|aug(?:ust)?|agosti|août|sept?(?:ember|emba|embre)?|oct(?:ober|oba|obre)?|oktoba|nov(?:ember|emba|embre)?|dec(?:ember|embre)?|desemba|décembre)\.?";

/// The words before a date of birth, and the shapes of dates.
pub struct Births {
    context: Regex,
    dates: Regex,
}

impl Births {
    /// Compiles the rules.
    ///
    /// # Errors
    /// When a pattern does not compile.
    pub fn new(numbers: &Numbers) -> Result<Self, regex::Error> {
        let word = numbers.word_pattern();
        let day = format!(r"(?:\d{{1,2}}(?:st|nd|rd|th)?|{word}(?:[\s-]{word})?)");
        let year = format!(
            r"(?:(?:19|20)\d\d|(?:two thousand(?: and)?|elfu mbili na|nineteen|twenty)(?:[\s-]{word}){{1,2}}|two thousand|elfu mbili)"
        );
        Ok(Self {
            context: compile(
                r"\b(?:born|date of birth|birth ?date|birthday|d\.?o\.?b|(?:nili|ali|wali|uli|ku)zaliwa|tarehe ya kuzaliwa|siku ya kuzaliwa|née? le|date de naissance|yavutse|navutse|yazaalibwa|nazaalibwa)\b",
            )?,
            dates: compile(&format!(
                r"\[date_of_birth_\d{{1,4}}\]|\b(?:\d{{1,2}}[/.\s-]\d{{1,2}}[/.\s-](?:\d{{4}}|\d{{2}})|\d{{4}}[/.-]\d{{1,2}}[/.-]\d{{1,2}}|(?:the )?{day}(?: of| ya)? ?{MONTHS}(?:,? (?:mwaka )?{year})?|{MONTHS} (?:the )?{day}(?:,? {year})?|{MONTHS},? {year}|{year})\b"
            ))?,
        })
    }

    /// Dates of birth in `view`.
    pub fn find(&self, view: &View) -> Vec<Finding> {
        let mut found = Vec::new();
        for context in self.context.find_iter(view.lower()) {
            let near = after(view.lower(), context.end(), REACH);
            // A placeholder in its place means that this date was masked before.
            if let Some(date) = self.dates.find(near).filter(|date| !date.as_str().starts_with('[')) {
                let range = context.end() + date.start()..context.end() + date.end();
                found.push(Finding::of(view.lower(), EntityKind::DateOfBirth, Rank::Rule, range));
            }
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(text: &str) -> Vec<String> {
        let view = View::new(text);
        Births::new(&Numbers::build())
            .unwrap()
            .find(&view)
            .into_iter()
            .filter_map(|f| view.text().get(f.range).map(str::to_owned))
            .collect()
    }

    #[test]
    fn dates_after_words_of_birth_are_found() {
        for (text, date) in [
            ("I was born on 12/05/2011.", "12/05/2011"),
            ("Date of birth: 2011-05-12", "2011-05-12"),
            ("my birthday is the 3rd of May 2011 and", "the 3rd of May 2011"),
            ("born May 12th, 2011", "May 12th, 2011"),
            ("she was born in 2011", "2011"),
            ("alizaliwa tarehe 5 Mei 2011", "5 Mei 2011"),
            ("nilizaliwa mwaka 2009", "2009"),
            ("born on the twelfth of May two thousand and eleven", "the twelfth of May two thousand and eleven"),
            ("born in nineteen ninety nine", "nineteen ninety nine"),
        ] {
            assert_eq!(found(text), [date], "{text}");
        }
    }

    #[test]
    fn other_dates_stay() {
        for clean in ["It happened on 12/05/2019.", "on Monday the 3rd of May", "born in a village near the lake"] {
            assert_eq!(found(clean), Vec::<String>::new(), "{clean}");
        }
    }
}
