//! What a word is: letters, marks and digits, with apostrophes, hyphens and underscores inside.
//! Trusts: nothing.
//! Touches: nothing.
//! Next: `ner` scores words, `propagate` looks for them again.

use std::ops::Range;

use unicode_normalization::char::is_combining_mark;

use super::view::is_invisible;

/// Characters of words. Invisible ones count, so that none can split a word in two.
pub fn is_word_char(c: char) -> bool {
    c.is_alphanumeric() || is_combining_mark(c) || is_invisible(c) || c == '_'
}

/// The words of `text` in order. `Ng'ang'a` and `Dar-es-Salaam` are one word each.
pub fn words(text: &str) -> Vec<Range<usize>> {
    let mut words: Vec<Range<usize>> = Vec::new();
    let mut joint = None;
    for (at, c) in text.char_indices() {
        let end = at + c.len_utf8();
        if is_word_char(c) {
            match words.last_mut() {
                Some(word) if word.end == at || joint == Some(word.end) && at == word.end + 1 => word.end = end,
                _ => words.push(at..end),
            }
            joint = None;
        } else {
            joint = (matches!(c, '\'' | '-') && words.last().is_some_and(|word| word.end == at)).then_some(at);
        }
    }
    words
}

/// Whether the word begins with a capital letter or holds a digit: what speech recognisers write for names and numbers.
pub fn stands_out(word: &str) -> bool {
    word.chars().any(|c| c.is_numeric()) || word.chars().find(|c| c.is_alphabetic()).is_some_and(char::is_uppercase)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn apostrophes_and_hyphens_join_only_between_letters() {
        let text = "Ng'ang'a, 'Dar-es-Salaam' - ok--then";
        let found: Vec<&str> = words(text).into_iter().filter_map(|range| text.get(range)).collect();
        assert_eq!(found, ["Ng'ang'a", "Dar-es-Salaam", "ok", "then"]);
    }
}
