//! BERT's uncased WordPiece tokeniser, with the place of each piece in the text.
//! Trusts: the vocabulary, which was verified with its model. Not the text.
//! Touches: nothing.
//! Next: `ner` feeds the ids to the model.

use std::collections::HashMap;

use regex::Regex;
use unicode_normalization::char::decompose_canonical;

/// Longest word that is cut into pieces, characters; a longer one is a single unknown piece (as in BERT's reference code).
const WORD_CHARS_MAX: usize = 100;

/// One piece of a word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Piece {
    /// Row of the vocabulary.
    pub id: i64,
    /// First byte in the text.
    pub start: usize,
    /// One past the last byte.
    pub end: usize,
}

/// A vocabulary and the character classes that cut text into words.
pub struct WordPiece {
    heads: HashMap<String, i64>,
    tails: HashMap<String, i64>,
    unknown: i64,
    /// Id of `[CLS]`, which begins a sequence.
    pub begin: i64,
    /// Id of `[SEP]`, which ends one.
    pub end: i64,
    other: Regex,
    punctuation: Regex,
    nonspacing: Regex,
}

impl WordPiece {
    /// Reads `vocab.txt`: one piece a line, the line number is the id.
    ///
    /// # Errors
    /// When it is not UTF-8 or lacks one of the three special pieces.
    pub fn load(vocab: &[u8]) -> Result<Self, VocabularyError> {
        let text = std::str::from_utf8(vocab).map_err(VocabularyError::Encoding)?;
        let (mut heads, mut tails) = (HashMap::new(), HashMap::new());
        for (id, piece) in (0_i64..).zip(text.lines()) {
            match piece.strip_prefix("##") {
                Some(tail) if !tail.is_empty() => tails.insert(tail.to_owned(), id),
                _ => heads.insert(piece.to_owned(), id),
            };
        }
        let special = |name: &'static str| heads.get(name).copied().ok_or(VocabularyError::Missing(name));
        let (unknown, begin, end) = (special("[UNK]")?, special("[CLS]")?, special("[SEP]")?);
        let class = |pattern| Regex::new(pattern).map_err(VocabularyError::Classes);
        Ok(Self {
            heads,
            tails,
            unknown,
            begin,
            end,
            other: class(r"\p{C}")?,
            punctuation: class(r"\p{P}")?,
            nonspacing: class(r"\p{Mn}")?,
        })
    }

    /// Cuts `text` into pieces, without the special ones at its ends.
    pub fn pieces(&self, text: &str) -> Vec<Piece> {
        let mut pieces = Vec::new();
        let mut word = Vec::new();
        for (at, c) in text.char_indices() {
            let end = at + c.len_utf8();
            if c != '\t' && c != '\n' && c != '\r' && (c == '\0' || c == '\u{FFFD}' || self.is(c, &self.other, char::is_control)) {
                continue;
            }
            if c.is_whitespace() {
                self.flush(&mut word, &mut pieces);
                continue;
            }
            decompose_canonical(c, |part| {
                if !part.is_ascii() && self.is(part, &self.nonspacing, |_| false) {
                    return;
                }
                for lower in part.to_lowercase() {
                    if part.is_ascii_punctuation() || is_chinese(part) || self.is(part, &self.punctuation, |p| p.is_ascii_punctuation()) {
                        self.flush(&mut word, &mut pieces);
                        word.push((lower, at, end));
                        self.flush(&mut word, &mut pieces);
                    } else {
                        word.push((lower, at, end));
                    }
                }
            });
        }
        self.flush(&mut word, &mut pieces);
        pieces
    }

    fn is(&self, c: char, class: &Regex, ascii: fn(char) -> bool) -> bool {
        if c.is_ascii() { ascii(c) } else { class.is_match(c.encode_utf8(&mut [0; 4])) }
    }

    /// Greedy longest match from the left; a word with a rest that matches nothing is one unknown piece.
    fn flush(&self, word: &mut Vec<(char, usize, usize)>, pieces: &mut Vec<Piece>) {
        let (Some(&(_, start, _)), Some(&(_, _, end))) = (word.first(), word.last()) else { return };
        let before = pieces.len();
        let mut rest = word.as_slice();
        if word.len() > WORD_CHARS_MAX {
            rest = &[];
            pieces.push(Piece { id: self.unknown, start, end });
        }
        while let Some(&(_, start, _)) = rest.first() {
            let table = if pieces.len() == before { &self.heads } else { &self.tails };
            let mut candidate: String = rest.iter().map(|(c, ..)| *c).collect();
            let mut length = rest.len();
            let found = loop {
                if let Some(id) = table.get(&candidate) {
                    break Some(*id);
                }
                candidate.pop();
                length -= 1;
                if length == 0 {
                    break None;
                }
            };
            let Some((id, (matched, after))) = found.zip(rest.split_at_checked(length)) else {
                pieces.truncate(before);
                pieces.push(Piece { id: self.unknown, start: word.first().map_or(start, |first| first.1), end });
                break;
            };
            pieces.push(Piece { id, start, end: matched.last().map_or(end, |last| last.2) });
            rest = after;
        }
        word.clear();
    }
}

/// Why a vocabulary cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum VocabularyError {
    /// Not text.
    #[error("vocab.txt is not UTF-8; fetch the model again")]
    Encoding(#[source] std::str::Utf8Error),
    /// A special piece is not in it.
    #[error("vocab.txt has no {0} piece; it belongs to another kind of model")]
    Missing(&'static str),
    /// A pattern of ours did not compile.
    #[error("the character classes of the tokeniser could not be built")]
    Classes(#[source] regex::Error),
}

/// The blocks that BERT cuts into single characters.
fn is_chinese(c: char) -> bool {
    matches!(u32::from(c), 0x4E00..=0x9FFF | 0x3400..=0x4DBF | 0x2_0000..=0x2_A6DF | 0x2_A700..=0x2_B73F
        | 0x2_B740..=0x2_B81F | 0x2_B920..=0x2_CEAF | 0xF900..=0xFAFF | 0x2_F800..=0x2_FA1F)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::worker::text::tests::model_file;

    type Pieces = &'static [(i64, usize, usize)];

    /// Ids and byte ranges from the `tokenizers` package 0.23.3 for Python (`BertWordPieceTokenizer`, lower case) on the same `vocab.txt`.
    #[rustfmt::skip]
    const GOLDEN: &[(&str, Pieces)] = &[
        ("My name is Wanjiku and I live in Kisumu.", &[(15545, 0, 2), (921, 3, 7), (15941, 8, 10), (3267, 11, 14), (10204, 14, 16), (7172, 16, 18), (2550, 19, 22), (778, 23, 24), (1524, 25, 29), (8467, 30, 32), (13278, 33, 35), (5746, 35, 38), (7962, 38, 39), (7148, 39, 40)]),
        ("Habari, naitwa Achieng' Otieno; nina miaka kumi na miwili.", &[(17252, 0, 2), (7620, 2, 6), (8381, 6, 7), (19401, 8, 10), (14400, 10, 12), (4268, 12, 14), (8181, 15, 17), (8677, 17, 19), (17725, 19, 22), (15214, 22, 23), (4704, 24, 26), (11590, 26, 29), (14980, 29, 30), (11848, 30, 31), (18624, 32, 36), (17406, 37, 40), (1626, 40, 42), (17608, 43, 45), (9033, 45, 47), (19401, 48, 50), (1672, 51, 53), (7215, 53, 56), (15035, 56, 57), (7148, 57, 58)]),
        ("Call +254 712 345 678 or e-mail amina@example.org!", &[(13858, 0, 4), (11970, 5, 6), (4362, 6, 9), (16242, 10, 12), (5923, 12, 13), (10858, 14, 17), (15380, 18, 20), (4951, 20, 21), (6039, 22, 24), (6668, 25, 26), (9046, 26, 27), (3744, 27, 31), (7181, 32, 36), (16332, 36, 37), (16752, 37, 38), (12005, 38, 45), (7148, 45, 46), (569, 46, 49), (4664, 49, 50)]),
        ("Zo\u{eb} caf\u{e9} na\u{ef}ve \u{c5}ngstr\u{f6}m Zoe\u{308}", &[(4696, 0, 4), (14431, 5, 10), (19401, 11, 13), (10228, 13, 17), (17235, 18, 22), (7982, 22, 28), (4696, 29, 32)]),
        ("\u{4f60}\u{597d} world \u{65e5}\u{672c}", &[(1, 0, 3), (1, 3, 6), (6599, 7, 12), (8224, 13, 16), (3650, 16, 19)]),
        ("\u{645}\u{631}\u{62d}\u{628}\u{627} \u{660}\u{667}", &[(17034, 0, 2), (8437, 2, 4), (15530, 4, 6), (16420, 6, 8), (9410, 8, 10), (1, 11, 15)]),
        ("a\u{200b}b\u{9}c\u{a0}d \u{202e}e", &[(5120, 0, 5), (1304, 6, 7), (4131, 9, 10), (6668, 14, 15)]),
        ("don't\u{2014}stop\u{2026} \u{20ac}5", &[(8082, 0, 3), (15214, 3, 4), (10347, 4, 5), (13730, 5, 8), (15571, 8, 12), (3574, 12, 15), (4471, 16, 19), (13230, 19, 20)]),
        ("\u{1e9e}\u{130}I\u{131} \u{d55c}\u{ad6d}", &[(19085, 0, 3), (16953, 3, 6), (8090, 6, 8), (3429, 9, 12), (7032, 9, 12), (11526, 9, 12), (12350, 12, 15), (16155, 12, 15), (2655, 12, 15)]),
        ("xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx ok", &[(1, 0, 101), (233, 102, 104)]),
        ("\u{1f600} fine #tag ##ing", &[(1, 0, 4), (3489, 5, 9), (4503, 10, 11), (6794, 11, 14), (4503, 15, 16), (4503, 16, 17), (4444, 17, 20)]),
        ("Uwimana Nakato Mwangi N'Djamena Dar-es-Salaam", &[(18215, 0, 1), (16172, 1, 3), (13466, 3, 7), (6770, 8, 11), (11150, 11, 14), (15635, 15, 17), (16181, 17, 20), (15035, 20, 21), (2116, 22, 23), (15214, 23, 24), (1938, 24, 26), (4556, 26, 30), (16332, 30, 31), (17789, 32, 35), (9046, 35, 36), (16190, 36, 38), (9046, 38, 39), (6248, 39, 42), (4791, 42, 44), (16352, 44, 45)]),
    ];

    #[test]
    fn pieces_equal_those_of_the_reference_tokeniser() {
        let tokeniser = WordPiece::load(&model_file("vocab.txt")).unwrap();
        for (text, golden) in GOLDEN {
            let pieces: Vec<(i64, usize, usize)> = tokeniser.pieces(text).iter().map(|p| (p.id, p.start, p.end)).collect();
            assert_eq!(pieces, *golden, "{text:?}");
        }
    }

    #[test]
    fn text_cannot_name_a_special_piece() {
        let tokeniser = WordPiece::load(&model_file("vocab.txt")).unwrap();
        assert!(tokeniser.pieces("[CLS] [SEP]").iter().all(|piece| piece.id != tokeniser.begin && piece.id != tokeniser.end));
    }

    #[test]
    fn a_vocabulary_without_special_pieces_is_refused() {
        assert!(matches!(WordPiece::load(b"a\nb\n"), Err(VocabularyError::Missing("[UNK]"))));
    }
}
