//! Characters that a reader does not see, and characters that change the order in which a reader sees others.
//! Trusts: nothing; a stranger chooses them, to hide what is there or to show what is not.
//! Touches: nothing.
//! Next: whoever takes a text or a name from outside; the view in which rules read a text.

/// Default-ignorable, bidirectional and control characters: drawn as nothing, so they must hide nothing.
pub fn is_invisible(c: char) -> bool {
    match c {
        '\t' | '\n' | '\r' | '\u{0B}' | '\u{0C}' | '\u{85}' => false,
        c if c.is_control() => true,
        '\u{AD}' | '\u{034F}' | '\u{061C}' | '\u{115F}' | '\u{1160}' | '\u{17B4}' | '\u{17B5}' | '\u{180B}'..='\u{180F}' => true,
        '\u{200B}'..='\u{200F}' | '\u{202A}'..='\u{202E}' | '\u{2060}'..='\u{206F}' | '\u{3164}' | '\u{FE00}'..='\u{FE0F}' => true,
        '\u{FEFF}' | '\u{FFA0}' | '\u{FFF0}'..='\u{FFFB}' | '\u{1D173}'..='\u{1D17A}' | '\u{E0000}'..='\u{E0FFF}' => true,
        _ => false,
    }
}

/// Embeddings, overrides and isolates (Unicode TR 9, 2.1 to 2.5) and their deprecated kin: they show letters and digits in another
/// order than they are read in. The marks U+061C, U+200E and U+200F only settle where neutral characters belong and are none of these.
pub const fn is_reordering(c: char) -> bool {
    matches!(c, '\u{202A}'..='\u{202E}' | '\u{2066}'..='\u{206F}')
}

/// Tags, supplementary variation selectors and annotation marks: whole messages can be written in them that nobody sees.
pub const fn is_smuggling(c: char) -> bool {
    matches!(c, '\u{E0000}'..='\u{E0FFF}' | '\u{FFF9}'..='\u{FFFB}')
}

/// `c` in a name or an id: what is not drawn, or breaks the line.
pub fn is_out_of_place(c: char) -> bool {
    c.is_control() || is_invisible(c) || matches!(c, '\u{2028}' | '\u{2029}')
}

/// A character as its number, `U+202E`: safe to show whatever it does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CodePoint(pub char);

impl std::fmt::Display for CodePoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "U+{:04X}", u32::from(self.0))
    }
}

/// `text` with every character that is out of place as its number.
pub fn plainly(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    for c in text.chars() {
        if is_out_of_place(c) {
            plain.push_str(&CodePoint(c).to_string());
        } else {
            plain.push(c);
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn letters_and_joiners_of_every_script_keep_their_order() {
        for text in ["Habari yako, naitwa Amina.", "اسمي أمينة", "می\u{200C}خواهم", "ක්\u{200D}ෂ", "שלום\u{200F}!"]
        {
            assert!(!text.chars().any(|c| is_reordering(c) || is_smuggling(c)), "{text}");
        }
    }

    #[test]
    fn what_reorders_or_smuggles_is_out_of_place_in_names() {
        for c in ['\u{202E}', '\u{2066}', '\u{200B}', '\u{FEFF}', '\u{E0041}', '\0', '\n', '\u{2028}'] {
            assert!(is_out_of_place(c), "{}", CodePoint(c));
        }
    }

    #[test]
    fn a_hidden_character_is_shown_as_its_number() {
        assert_eq!(plainly("a\u{202E}b\0"), "aU+202EbU+0000");
    }
}
