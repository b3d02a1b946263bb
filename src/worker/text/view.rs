//! The text as the recognisers read it: digits are ASCII, invisible characters are gone, every byte knows where it came from.
//! Trusts: nothing; the text is a stranger's and may hide a number behind zero-width, full-width or look-alike characters.
//! Touches: nothing.
//! Next: `recognise` and `ner` read a [`View`]; what they find is carried back to the bytes of the original.

use std::ops::Range;

use unicode_normalization::UnicodeNormalization;
use unicode_normalization::char::is_combining_mark;

pub use crate::base::characters::is_invisible;

/// A normalised text and the way back. NFKC a character cluster at a time, so that the way back stays exact.
pub struct View {
    text: String,
    lower: String,
    /// For each byte of `text`: the range of the original that it came from.
    origin: Vec<Range<usize>>,
}

impl View {
    /// Normalises `original`: compatibility forms are folded, decimal digits of every script become ASCII, dashes become `-`,
    /// invisible and control characters vanish, marks struck over digits vanish, look-alike letters in a mixed-script word become Latin.
    pub fn new(original: &str) -> Self {
        let mut view = Self { text: String::with_capacity(original.len()), lower: String::new(), origin: Vec::new() };
        let mut cluster = String::new();
        let mut start = 0;
        for (at, c) in original.char_indices() {
            if is_invisible(c) {
                continue;
            }
            if !is_combining_mark(c) {
                view.push_cluster(&cluster, start..at);
                cluster.clear();
                start = at;
            }
            cluster.push(c);
        }
        view.push_cluster(&cluster, start..original.len());
        view.fold_look_alikes();
        view.lower = view.text.chars().map(lower_same_length).collect();
        view
    }

    /// The normalised text.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The normalised text in lower case, byte for byte as long as [`View::text`].
    pub fn lower(&self) -> &str {
        &self.lower
    }

    /// The bytes of the original behind these bytes of the view: whole characters. `None` for an empty range or one outside the view.
    pub fn original(&self, range: &Range<usize>) -> Option<Range<usize>> {
        let covered = self.origin.get(range.clone())?;
        Some(covered.first()?.start..covered.last()?.end)
    }

    fn push_cluster(&mut self, cluster: &str, origin: Range<usize>) {
        let Some(base) = cluster.chars().next() else { return };
        let keeps_marks = base.is_alphabetic() || is_combining_mark(base);
        for c in cluster.nfkc().filter(|c| keeps_marks || !is_combining_mark(*c)) {
            let c = plain(c);
            if is_invisible(c) {
                continue;
            }
            self.text.push(c);
            for _ in 0..c.len_utf8() {
                self.origin.push(origin.clone());
            }
        }
    }

    /// Latin for a Cyrillic or Greek look-alike, in words that also hold Latin letters (Unicode TR 39, mixed-script confusables).
    fn fold_look_alikes(&mut self) {
        let mut text = String::with_capacity(self.text.len());
        let mut origin = Vec::with_capacity(self.origin.len());
        let mut at = 0;
        for word in self.text.split_inclusive(|c: char| !c.is_alphanumeric()) {
            let mixed = word.chars().any(|c| c.is_ascii_alphabetic()) && word.chars().any(|c| latin_look_alike(c).is_some());
            for c in word.chars() {
                let from = self.origin.get(at).cloned().unwrap_or(0..0);
                let to = if mixed { latin_look_alike(c).unwrap_or(c) } else { c };
                text.push(to);
                origin.extend((0..to.len_utf8()).map(|_| from.clone()));
                at += c.len_utf8();
            }
        }
        self.text = text;
        self.origin = origin;
    }
}

/// Lower case and without accents: what two spellings of one word have in common.
pub fn fold(text: &str) -> String {
    text.nfkd().filter(|c| !is_combining_mark(*c) && !is_invisible(*c)).flat_map(char::to_lowercase).collect()
}

fn lower_same_length(c: char) -> char {
    let mut lower = c.to_lowercase();
    match (lower.next(), lower.next()) {
        (Some(one), None) if one.len_utf8() == c.len_utf8() => one,
        _ => c,
    }
}

fn plain(c: char) -> char {
    if c.is_ascii() && !c.is_ascii_control() {
        return c;
    }
    if let Some(digit) = decimal_digit(c) {
        return digit;
    }
    match c {
        '\n' => '\n',
        '\u{2010}'..='\u{2015}' | '\u{2212}' | '\u{2043}' | '\u{FE58}' | '\u{058A}' | '\u{2E3A}' | '\u{2E3B}' => '-',
        '\u{2018}' | '\u{2019}' | '\u{201B}' | '\u{02BC}' | '\u{2032}' => '\'',
        '\u{2044}' | '\u{2215}' => '/',
        '\u{3002}' | '\u{06D4}' => '.',
        '\u{060C}' | '\u{3001}' | '\u{066C}' => ',',
        '\u{2795}' => '+',
        c if c.is_whitespace() => ' ',
        c => c,
    }
}

/// First digit of each run of ten decimal digits (Unicode general category Nd) outside ASCII.
const ZEROES: [u32; 75] = [
    0x0660, 0x06F0, 0x07C0, 0x0966, 0x09E6, 0x0A66, 0x0AE6, 0x0B66, 0x0BE6, 0x0C66, 0x0CE6, 0x0D66, 0x0DE6, 0x0E50, 0x0ED0, 0x0F20, 0x1040,
    0x1090, 0x17E0, 0x1810, 0x1946, 0x19D0, 0x1A80, 0x1A90, 0x1B50, 0x1BB0, 0x1C40, 0x1C50, 0xA620, 0xA8D0, 0xA900, 0xA9D0, 0xA9F0, 0xAA50,
    0xABF0, 0xFF10, 0x104A0, 0x10D30, 0x10D40, 0x11066, 0x110F0, 0x11136, 0x111D0, 0x112F0, 0x11450, 0x114D0, 0x11650, 0x116C0, 0x116D0,
    0x116DA, 0x11730, 0x118E0, 0x11950, 0x11BF0, 0x11C50, 0x11D50, 0x11DA0, 0x11DE0, 0x11F50, 0x16130, 0x16A60, 0x16AC0, 0x16B50, 0x16D70,
    0x1CCF0, 0x1D7CE, 0x1D7D8, 0x1D7E2, 0x1D7EC, 0x1D7F6, 0x1E140, 0x1E2F0, 0x1E4F0, 0x1E5F1, 0x1E950,
];

/// The last run, which is newer than most tables: Symbols for Legacy Computing.
const LEGACY_ZERO: u32 = 0x1FBF0;

fn decimal_digit(c: char) -> Option<char> {
    let code = u32::from(c);
    ZEROES
        .iter()
        .chain([&LEGACY_ZERO])
        .find_map(|zero| code.checked_sub(*zero).filter(|value| *value < 10))
        .and_then(|v| char::from_digit(v, 10))
}

fn latin_look_alike(c: char) -> Option<char> {
    let (_, latin) = LOOK_ALIKES.iter().find(|(other, _)| *other == c)?;
    Some(*latin)
}

const LOOK_ALIKES: [(char, char); 46] = [
    ('а', 'a'),
    ('е', 'e'),
    ('о', 'o'),
    ('р', 'p'),
    ('с', 'c'),
    ('х', 'x'),
    ('у', 'y'),
    ('і', 'i'),
    ('ј', 'j'),
    ('ѕ', 's'),
    ('һ', 'h'),
    ('ԁ', 'd'),
    ('ԛ', 'q'),
    ('ԝ', 'w'),
    ('ո', 'n'),
    ('А', 'A'),
    ('В', 'B'),
    ('Е', 'E'),
    ('К', 'K'),
    ('М', 'M'),
    ('Н', 'H'),
    ('О', 'O'),
    ('Р', 'P'),
    ('С', 'C'),
    ('Т', 'T'),
    ('Х', 'X'),
    ('У', 'Y'),
    ('І', 'I'),
    ('Ѕ', 'S'),
    ('Ј', 'J'),
    ('α', 'a'),
    ('ο', 'o'),
    ('ν', 'v'),
    ('Α', 'A'),
    ('Β', 'B'),
    ('Ε', 'E'),
    ('Η', 'H'),
    ('Ι', 'I'),
    ('Κ', 'K'),
    ('Μ', 'M'),
    ('Ν', 'N'),
    ('Ο', 'O'),
    ('Ρ', 'P'),
    ('Τ', 'T'),
    ('Υ', 'Y'),
    ('Χ', 'X'),
];

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn numbers_hidden_by_other_digits_marks_or_invisible_characters_read_as_ascii() {
        for hidden in [
            "٠٧١٢٣٤٥٦٧٨",
            "０７１２３４５６７８",
            "0\u{200B}7\u{200D}1\u{2060}2\u{FEFF}345678",
            "\u{202E}0712\u{202C}345678",
            "0\u{336}7\u{336}12345678",
            "𝟎𝟕𝟏𝟐𝟑𝟒𝟓𝟔𝟕𝟖",
            "0\u{FE0F}\u{20E3}712345678",
        ] {
            assert_eq!(View::new(hidden).text(), "0712345678", "{hidden:?}");
        }
    }

    #[test]
    fn every_decimal_digit_of_unicode_is_known() {
        let decimal = regex::Regex::new(r"^\p{Nd}$").unwrap();
        let unknown: Vec<char> = ('\0'..=char::MAX)
            .filter(|c| decimal.is_match(c.encode_utf8(&mut [0; 4])) && !c.is_ascii() && decimal_digit(*c).is_none())
            .collect();
        assert_eq!(unknown, Vec::<char>::new());
    }

    #[test]
    fn a_found_range_covers_the_whole_original_characters() {
        let original = "x ٠\u{200B}٧ y";
        let view = View::new(original);
        let found = view.text().find("07").map(|at| at..at + 2).unwrap();
        assert_eq!(original.get(view.original(&found).unwrap()), Some("٠\u{200B}٧"));
    }

    #[test]
    fn composed_and_decomposed_accents_fold_to_one_word() {
        assert_eq!(fold("Zo\u{eb}"), fold("ZOE\u{308}"));
        assert_eq!(View::new("Zoe\u{308}").text(), "Zo\u{eb}");
    }

    #[test]
    fn look_alike_letters_become_latin_only_in_a_mixed_word() {
        assert_eq!(View::new("аmina@example.org мама").text(), "amina@example.org мама");
    }

    proptest! {
        #[test]
        fn any_text_has_a_way_back_to_whole_characters(text in "\\PC{0,60}|[\\s\\S]{0,60}") {
            let view = View::new(&text);
            prop_assert_eq!(view.text().len(), view.lower().len());
            let mut last = 0;
            for (at, c) in view.text().char_indices() {
                let range = view.original(&(at..at + c.len_utf8())).unwrap();
                prop_assert!(text.get(range.clone()).is_some());
                prop_assert!(range.start >= last && range.start < range.end);
                last = range.start;
            }
        }
    }
}
