//! From findings that overlap to entities that do not: whole words only, the surest finding names the kind, nothing found stays in clear.
//! Trusts: nothing.
//! Touches: nothing.
//! Next: `placeholder` numbers the entities.

use std::ops::Range;

use super::finding::Rank;
use super::view::fold;
use super::words::is_word_char;
use crate::ipc::transcript::EntityKind;

/// A finding in the whole text. It may have several pieces: a number over two utterances.
#[derive(Clone, Debug)]
pub struct Located {
    /// What it is.
    pub kind: EntityKind,
    /// Who found it.
    pub rank: Rank,
    /// Bytes of the whole text.
    pub pieces: Vec<Range<usize>>,
    /// What makes two findings the same thing.
    pub key: String,
}

/// One stretch that is masked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Masked {
    /// What it is.
    pub kind: EntityKind,
    /// What makes two entities the same thing.
    pub key: String,
    /// Bytes of the whole text: whole words, without the punctuation around them.
    pub range: Range<usize>,
    /// The units that it covers.
    pub units: Range<usize>,
}

/// Decides for each unit (word or single character of `whole`, in order, not overlapping) which finding masks it.
/// Units of `protected` ranges are never masked: they are placeholders already.
pub fn merge(whole: &str, units: &[Range<usize>], mut located: Vec<Located>, protected: &[Range<usize>]) -> Vec<Masked> {
    let length = |one: &Located| one.pieces.iter().map(ExactSizeIterator::len).sum::<usize>();
    located.sort_by_key(|one| (one.rank, std::cmp::Reverse(length(one)), one.pieces.first().map(|piece| piece.start)));
    let mut owners: Vec<Option<usize>> = vec![None; units.len()];
    for (index, one) in located.iter().enumerate() {
        for piece in &one.pieces {
            let touched = touched(units, piece);
            for owner in owners.get_mut(touched).unwrap_or_default() {
                owner.get_or_insert(index);
            }
        }
    }
    for range in protected {
        let covered = touched(units, range);
        for owner in owners.get_mut(covered).unwrap_or_default() {
            *owner = None;
        }
    }
    gather(whole, units, &owners, &located)
}

/// The units that share a byte with `range`.
fn touched(units: &[Range<usize>], range: &Range<usize>) -> Range<usize> {
    let first = units.partition_point(|unit| unit.end <= range.start);
    let last = units.partition_point(|unit| unit.start < range.end);
    first..last.max(first)
}

fn gather(whole: &str, units: &[Range<usize>], owners: &[Option<usize>], located: &[Located]) -> Vec<Masked> {
    let mut masked: Vec<(Masked, usize)> = Vec::new();
    // One past the last unit that is not white space: two entities with only white space between them are neighbours.
    let mut solid_end = 0;
    for (index, (unit, owner)) in units.iter().zip(owners).enumerate() {
        if whole.get(unit.clone()).is_some_and(|text| text.trim().is_empty()) {
            continue;
        }
        let neighbour = std::mem::replace(&mut solid_end, index + 1);
        let Some((owner, finding)) = owner.and_then(|owner| Some((owner, located.get(owner)?))) else { continue };
        let range = core(whole, unit, finding);
        match masked.last_mut() {
            Some((last, by)) if last.units.end == neighbour && *by == owner && same_line(whole, last.range.end..range.start) => {
                last.range.end = range.end;
                last.units.end = index + 1;
            }
            Some((last, by)) if joins(whole, last, finding.kind, &range) => {
                last.range.end = range.end;
                last.units.end = index + 1;
                *by = owner;
            }
            _ => masked.push((Masked { kind: finding.kind, key: finding.key.clone(), range, units: index..index + 1 }, owner)),
        }
    }
    let mut masked: Vec<Masked> = masked.into_iter().map(|(masked, _)| masked).collect();
    for one in &mut masked {
        if matches!(one.kind, EntityKind::Person | EntityKind::Location) {
            one.key = fold(whole.get(one.range.clone()).unwrap_or_default()).trim_end_matches("'s").to_owned();
        }
    }
    masked
}

/// `Grace` and `Wanjiku`, found apart but said together, are one person.
fn joins(whole: &str, last: &Masked, kind: EntityKind, range: &Range<usize>) -> bool {
    matches!(kind, EntityKind::Person | EntityKind::Location)
        && last.kind == kind
        && whole.get(last.range.end..range.start).is_some_and(|gap| !gap.is_empty() && gap.chars().all(|c| c == ' '))
}

fn same_line(whole: &str, gap: Range<usize>) -> bool {
    whole.get(gap).is_some_and(|gap| !gap.contains('\n'))
}

/// The unit without punctuation at its ends, unless that was found too: `"+254…` keeps its plus, `Wanjiku,` loses its comma.
fn core(whole: &str, unit: &Range<usize>, finding: &Located) -> Range<usize> {
    let text = whole.get(unit.clone()).unwrap_or_default();
    let lead = text.find(is_word_char);
    let tail = text.char_indices().rev().find(|(_, c)| is_word_char(*c)).map(|(at, c)| at + c.len_utf8());
    let (Some(lead), Some(tail)) = (lead, tail) else { return unit.clone() };
    let (mut start, mut end) = (unit.start + lead, unit.start + tail);
    for piece in finding.pieces.iter().filter(|piece| piece.start < unit.end && unit.start < piece.end) {
        start = start.min(piece.start.max(unit.start));
        end = end.max(piece.end.min(unit.end));
    }
    start..end
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::worker::text::words::words;

    fn located(kind: EntityKind, rank: Rank, range: Range<usize>) -> Located {
        Located { kind, rank, pieces: vec![range], key: String::new() }
    }

    #[test]
    fn a_partly_found_word_is_masked_whole() {
        let text = "call Wanjiku, now";
        let masked = merge(text, &words(text), vec![located(EntityKind::Person, Rank::Model, 5..7)], &[]);
        assert_eq!(masked.iter().map(|m| &text[m.range.clone()]).collect::<Vec<_>>(), ["Wanjiku"]);
    }

    #[test]
    fn the_surest_finding_names_the_kind_and_the_rest_stays_masked() {
        let text = "ab cd ef";
        let both = vec![located(EntityKind::Person, Rank::Model, 0..5), located(EntityKind::Card, Rank::Checked, 3..8)];
        let masked = merge(text, &words(text), both, &[]);
        assert_eq!(
            masked.iter().map(|m| (m.kind, m.range.clone())).collect::<Vec<_>>(),
            [(EntityKind::Person, 0..2), (EntityKind::Card, 3..8)]
        );
    }

    #[test]
    fn adjacent_words_of_a_person_are_one_entity_and_a_comma_parts_two() {
        let text = "Grace Wanjiku, Juma";
        let found = words(text).into_iter().map(|range| located(EntityKind::Person, Rank::Model, range)).collect();
        let keys: Vec<String> = merge(text, &words(text), found, &[]).into_iter().map(|m| m.key).collect();
        assert_eq!(keys, ["grace wanjiku", "juma"]);
    }
}
