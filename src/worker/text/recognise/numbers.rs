//! Numbers as people write and dictate them: `0712-345 678`, `oh seven one two`, `double three`, `sifuri saba`.
//! Trusts: nothing.
//! Touches: nothing.
//! Next: `figures` decides what a run of digits is; `age` and `birth` use the number words.

use std::collections::HashMap;
use std::ops::Range;

use crate::worker::text::placeholder::KINDS;

/// One group of digits of a run: `0712`, `seven`, `double three`.
#[derive(Clone, Debug, PartialEq)]
pub struct Group {
    /// Bytes in the view.
    pub range: Range<usize>,
    /// ASCII digits.
    pub digits: String,
    /// Said in words.
    pub spoken: bool,
    /// A plus sign stands right before it.
    pub plus: bool,
}

/// Groups of digits with nothing but separators and fillers between them.
pub type Run = Vec<Group>;

/// Longest gap inside a number, bytes that are neither digits nor words: `) - `.
const GAP_MAX: usize = 4;

#[derive(Clone, Copy)]
enum Said {
    Unit(u32),
    Teen(u32),
    Tens(u32),
    Zeroes(&'static str),
    Times(usize),
    Plus,
    Filler,
}

/// The words for numbers in English, Swahili, French, Luganda and Kinyarwanda.
pub struct Numbers {
    words: HashMap<&'static str, Said>,
}

/// Words for 0..=9 by language, in order.
const UNITS: [&[&str]; 8] = [
    &["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"],
    &["oh", "first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth", "ninth"],
    &["sifuri", "moja", "mbili", "tatu", "nne", "tano", "sita", "saba", "nane", "tisa"],
    &["o", "mmoja", "miwili", "mitatu", "minne", "mitano", "sita", "saba", "minane", "tisa"],
    &["nought", "mosi", "pili", "watatu", "wanne", "watano", "sita", "saba", "wanane", "tisa"],
    &["zéro", "un", "deux", "trois", "quatre", "cinq", "six", "sept", "huit", "neuf"],
    &["zeero", "emu", "bbiri", "ssatu", "nnya", "ttaano", "mukaaga", "musanvu", "munaana", "mwenda"],
    &["zeru", "rimwe", "kabiri", "gatatu", "kane", "gatanu", "gatandatu", "karindwi", "umunani", "icyenda"],
];
/// Words for 10..=19.
const TEENS: [&[&str]; 3] = [
    &["ten", "eleven", "twelve", "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen"],
    &["tenth", "eleventh", "twelfth", "thirteenth", "fourteenth", "fifteenth", "sixteenth", "seventeenth", "eighteenth", "nineteenth"],
    &["dix", "onze", "douze", "treize", "quatorze", "quinze", "seize"],
];
/// Words for 10, 20..=90; Swahili joins units to its ten with `na`.
const TENS: [&[&str]; 4] = [
    &["", "twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"],
    &["", "twentieth", "thirtieth", "fourty"],
    &["kumi", "ishirini", "thelathini", "arobaini", "hamsini", "sitini", "sabini", "themanini", "tisini"],
    &["", "vingt", "trente", "quarante", "cinquante", "soixante"],
];
const FILLERS: [&str; 13] = ["uh", "um", "er", "eh", "ah", "and", "then", "na", "dash", "hyphen", "space", "et", "kisha"];

impl Numbers {
    /// Builds the table.
    pub fn build() -> Self {
        let mut words = HashMap::new();
        for row in UNITS {
            words.extend((0..).zip(row).map(|(value, word)| (*word, Said::Unit(value))));
        }
        for row in TEENS {
            words.extend((0..).zip(row).map(|(value, word)| (*word, Said::Teen(value))));
        }
        for row in TENS {
            words.extend((1..).zip(row).filter(|(_, word)| !word.is_empty()).map(|(value, word)| (*word, Said::Tens(value))));
        }
        words.extend(FILLERS.map(|word| (word, Said::Filler)));
        words.extend([
            ("hundred", Said::Zeroes("00")),
            ("thousand", Said::Zeroes("000")),
            ("mia", Said::Zeroes("00")),
            ("elfu", Said::Zeroes("000")),
        ]);
        words.extend([("double", Said::Times(2)), ("triple", Said::Times(3)), ("treble", Said::Times(3)), ("plus", Said::Plus)]);
        Self { words }
    }

    /// A pattern for one number word, for regular expressions on lower-case text.
    pub fn word_pattern(&self) -> String {
        let mut words: Vec<&str> = self
            .words
            .iter()
            .filter(|(word, said)| matches!(said, Said::Unit(_) | Said::Teen(_) | Said::Tens(_)) && !matches!(**word, "o" | "oh" | "un"))
            .map(|(word, _)| *word)
            .collect();
        words.sort_unstable_by_key(|word| std::cmp::Reverse((word.len(), *word)));
        format!("(?:{})", words.join("|"))
    }

    /// The runs of digits in `lower`, a view's lower-case text, in order.
    pub fn runs(&self, lower: &str) -> Vec<Run> {
        let mut scan = Scan { runs: Vec::new(), run: Vec::new(), gap: 0, times: None, plus: None };
        for token in tokens(lower) {
            let text = lower.get(token.clone()).unwrap_or_default();
            if !text.starts_with(char::is_alphanumeric) {
                scan.separator(&token, text);
            } else if is_of_placeholder(lower, &token) {
                scan.end();
            } else if let Some(digits) = figure(text) {
                scan.push(token, digits, false);
            } else {
                self.word(&mut scan, token, text);
            }
        }
        scan.end();
        scan.runs
    }

    fn word(&self, scan: &mut Scan, token: Range<usize>, text: &str) {
        match self.words.get(text) {
            Some(Said::Unit(value)) if scan.completes_ten(&token, *value) => {}
            Some(Said::Unit(value)) => scan.push(token, value.to_string(), true),
            Some(Said::Teen(value)) => scan.push(token, (value + 10).to_string(), true),
            Some(Said::Tens(value)) => scan.push(token, (value * 10).to_string(), true),
            Some(Said::Zeroes(zeroes)) if !scan.run.is_empty() => scan.push(token, (*zeroes).to_owned(), true),
            Some(Said::Times(times)) => scan.times = Some((token.start, *times)),
            Some(Said::Plus) => {
                scan.end();
                scan.plus = Some(token.start);
            }
            Some(Said::Filler) => scan.gap = 0,
            _ => scan.end(),
        }
    }
}

struct Scan {
    runs: Vec<Run>,
    run: Run,
    gap: usize,
    times: Option<(usize, usize)>,
    plus: Option<usize>,
}

impl Scan {
    fn end(&mut self) {
        if !self.run.is_empty() {
            self.runs.push(std::mem::take(&mut self.run));
        }
        (self.gap, self.times, self.plus) = (0, None, None);
    }

    fn separator(&mut self, token: &Range<usize>, text: &str) {
        if text == "+" {
            self.end();
            self.plus = Some(token.start);
            return;
        }
        self.gap += text.len();
        if self.gap > GAP_MAX
            || !matches!(text, " " | "\n" | "-" | "." | "/" | "(" | ")" | "[" | "]" | "," | ";" | "_" | "*" | "'" | "~" | "|")
        {
            self.end();
        }
    }

    fn push(&mut self, token: Range<usize>, digits: String, spoken: bool) {
        let (start, digits) = match self.times.take() {
            Some((start, times)) if digits.len() == 1 => (start, digits.repeat(times)),
            _ => (token.start, digits),
        };
        let plus = self.plus.take();
        self.run.push(Group { range: plus.unwrap_or(start)..token.end, digits, spoken, plus: plus.is_some() });
        self.gap = 0;
    }

    /// `forty five` and `kumi na mbili`: a unit right after a ten belongs to it.
    fn completes_ten(&mut self, token: &Range<usize>, value: u32) -> bool {
        let Some(last) = self.run.last_mut() else { return false };
        let near = token.start - last.range.end <= 4 && self.times.is_none();
        if !(last.spoken && near && value > 0 && last.digits.len() == 2 && last.digits.ends_with('0') && last.digits != "00") {
            return false;
        }
        last.digits.pop();
        last.digits.push_str(&value.to_string());
        last.range.end = token.end;
        self.gap = 0;
        true
    }
}

/// Digits, with the letters that stand for digits between them: `O7l2` reads 0712.
fn figure(text: &str) -> Option<String> {
    if !text.bytes().any(|byte| byte.is_ascii_digit()) {
        return None;
    }
    text.chars()
        .map(|c| match c {
            'o' => Some('0'),
            'l' | 'i' => Some('1'),
            c => c.is_ascii_digit().then_some(c),
        })
        .collect()
}

/// The 1 of `[PERSON_1]` is nobody's number.
fn is_of_placeholder(lower: &str, token: &Range<usize>) -> bool {
    let short = token.len() <= 4 && lower.get(token.end..).is_some_and(|rest| rest.starts_with(']'));
    let name = lower.get(..token.start).unwrap_or_default().strip_suffix('_');
    short && name.is_some_and(|name| KINDS.iter().any(|kind| name.ends_with(&format!("[{}", kind.placeholder().to_lowercase()))))
}

/// Alphanumeric stretches, and every other character alone.
fn tokens(text: &str) -> impl Iterator<Item = Range<usize>> + '_ {
    let mut rest = text.char_indices().peekable();
    std::iter::from_fn(move || {
        let (start, first) = rest.next()?;
        let mut end = start + first.len_utf8();
        while first.is_alphanumeric() {
            match rest.next_if(|(_, c)| c.is_alphanumeric()) {
                Some((at, c)) => end = at + c.len_utf8(),
                None => break,
            }
        }
        Some(start..end)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Vec<String> {
        Numbers::build().runs(text).iter().map(|run| run.iter().map(|group| group.digits.as_str()).collect()).collect()
    }

    #[test]
    fn dictated_digits_are_read() {
        for (said, digits) in [
            ("zero seven one two, three four five, six seven eight", "0712345678"),
            ("oh seven one double two", "07122"),
            ("zero seven twelve thirty four fifty-six", "07123456"),
            ("sifuri saba moja mbili", "0712"),
            ("0 7 1 2 uh 3 4", "071234"),
            ("o7l2", "0712"),
            ("kumi na mbili", "12"),
            ("plus two five four", "254"),
        ] {
            assert_eq!(read(said), [digits], "{said}");
        }
    }

    #[test]
    fn other_words_end_a_number() {
        assert_eq!(read("0712 or 345, room b12 at 10:30"), ["0712", "345", "10", "30"]);
    }
}
