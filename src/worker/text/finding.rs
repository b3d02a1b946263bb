//! A stretch of text that is taken for personal, and how sure we are.
//! Trusts: nothing.
//! Touches: nothing.
//! Next: `merge` decides between findings that overlap.

use std::ops::Range;

use crate::ipc::transcript::EntityKind;

/// Who found it, the surest first. Where findings overlap, the surer one names the kind; all of them are masked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rank {
    /// A rule with a checksum or a parser: card, IBAN, IP address.
    Checked,
    /// A rule: shape or words around it.
    Rule,
    /// A list of names and places.
    Listed,
    /// The model.
    Model,
    /// A weak rule: a capital letter in a likely place.
    Hint,
    /// Said again: found because the same word or number was found elsewhere in the call.
    Echo,
}

/// A stretch of one text.
#[derive(Clone, Debug, PartialEq)]
pub struct Finding {
    /// What it is.
    pub kind: EntityKind,
    /// Who found it.
    pub rank: Rank,
    /// Bytes of the text that was searched.
    pub range: Range<usize>,
    /// What makes two findings the same thing, for example the last nine digits of a telephone number.
    pub key: String,
}

impl Finding {
    /// A finding whose key is its own text in `text`, folded.
    pub fn of(text: &str, kind: EntityKind, rank: Rank, range: Range<usize>) -> Self {
        let key = text.get(range.clone()).map(super::view::fold).unwrap_or_default();
        Self { kind, rank, range, key }
    }
}

/// At most `bytes` bytes of `text` before `at`, whole characters.
pub fn before(text: &str, at: usize, bytes: usize) -> &str {
    let mut from = at.saturating_sub(bytes);
    while from < at && !text.is_char_boundary(from) {
        from += 1;
    }
    text.get(from..at).unwrap_or_default()
}

/// At most `bytes` bytes of `text` from `at` on, whole characters.
pub fn after(text: &str, at: usize, bytes: usize) -> &str {
    let mut to = at.saturating_add(bytes).min(text.len());
    while to > at && !text.is_char_boundary(to) {
        to -= 1;
    }
    text.get(at..to).unwrap_or_default()
}
