//! The numbers of placeholders: the same thing has the same number in a call.
//! Trusts: nothing.
//! Touches: nothing.
//! Next: the text is put together in `mod.rs`.

use std::collections::{BTreeSet, HashMap};
use std::ops::Range;

use regex::Regex;

use super::merge::Masked;
use crate::ipc::transcript::EntityKind;

/// All kinds, to read placeholders back.
pub const KINDS: [EntityKind; 13] = [
    EntityKind::Person,
    EntityKind::Location,
    EntityKind::Phone,
    EntityKind::Email,
    EntityKind::Url,
    EntityKind::IpAddress,
    EntityKind::Card,
    EntityKind::BankAccount,
    EntityKind::NationalId,
    EntityKind::Passport,
    EntityKind::DateOfBirth,
    EntityKind::Age,
    EntityKind::Other,
];

/// Writes `[PERSON_1]`.
pub fn placeholder(kind: EntityKind, number: u32) -> String {
    format!("[{}_{number}]", kind.placeholder())
}

/// Finds placeholders that a text holds already, so that it can be redacted again.
pub struct Placeholders(Regex);

impl Placeholders {
    /// Compiles the pattern. Four digits at most: a placeholder must not smuggle a telephone number through.
    ///
    /// # Errors
    /// When the pattern does not compile.
    pub fn new() -> Result<Self, regex::Error> {
        let kinds: Vec<&str> = KINDS.iter().map(|kind| kind.placeholder()).collect();
        Regex::new(&format!(r"\[({})_([1-9][0-9]{{0,3}})\]", kinds.join("|"))).map(Self)
    }

    /// Where they are, and the largest number of each kind.
    pub fn find(&self, text: &str) -> (Vec<Range<usize>>, HashMap<EntityKind, u32>) {
        let mut largest = HashMap::new();
        let mut ranges = Vec::new();
        for captures in self.0.captures_iter(text) {
            let (Some(whole), Some(name), Some(number)) = (captures.get(0), captures.get(1), captures.get(2)) else { continue };
            ranges.push(whole.range());
            if let (Some(kind), Ok(number)) =
                (KINDS.iter().find(|kind| kind.placeholder() == name.as_str()), number.as_str().parse::<u32>())
            {
                let most = largest.entry(*kind).or_insert(0);
                *most = number.max(*most);
            }
        }
        (ranges, largest)
    }
}

/// Gives each entity its number, in order of the text. Numbers go on after those that `taken` names.
/// `Wanjiku` has the number of `Grace Wanjiku`, as long as there is only one such person; `0712 345` that of `0712 345 678`.
pub fn number(masked: &[Masked], mut taken: HashMap<EntityKind, u32>) -> Vec<u32> {
    let mut whole_names: HashMap<&str, Option<&str>> = HashMap::new();
    for one in masked.iter().filter(|one| one.kind == EntityKind::Person && one.key.contains(' ')) {
        for word in one.key.split(' ') {
            let whole = whole_names.entry(word).or_insert(Some(&one.key));
            if *whole != Some(&one.key) {
                *whole = None;
            }
        }
    }
    let telephones: BTreeSet<&str> = masked.iter().filter(|one| one.kind == EntityKind::Phone).map(|one| one.key.as_str()).collect();
    let mut known: HashMap<(EntityKind, &str), u32> = HashMap::new();
    let mut numbers = Vec::with_capacity(masked.len());
    for one in masked {
        let whole = match one.kind {
            EntityKind::Person => whole_names.get(one.key.as_str()).copied().flatten(),
            EntityKind::Phone => telephones.iter().copied().filter(|other| other.contains(&one.key)).max_by_key(|other| other.len()),
            _ => None,
        };
        let number = known.entry((one.kind, whole.unwrap_or(&one.key))).or_insert_with(|| {
            let count = taken.entry(one.kind).or_insert(0);
            *count += 1;
            *count
        });
        numbers.push(*number);
    }
    numbers
}

#[cfg(test)]
mod tests {
    use super::*;

    fn people(keys: &[&str]) -> Vec<Masked> {
        keys.iter().map(|key| Masked { kind: EntityKind::Person, key: (*key).to_owned(), range: 0..0, units: 0..0 }).collect()
    }

    #[test]
    fn the_same_text_has_the_same_number_and_part_of_a_name_that_of_the_whole() {
        assert_eq!(number(&people(&["juma", "wanjiku", "grace wanjiku", "wanjiku", "juma"]), HashMap::new()), [1, 2, 2, 2, 1]);
    }

    #[test]
    fn a_word_of_two_people_is_a_third() {
        assert_eq!(number(&people(&["grace wanjiku", "mary wanjiku", "wanjiku"]), HashMap::new()), [1, 2, 3]);
    }

    #[test]
    fn numbers_go_on_after_placeholders_that_stand_in_the_text() {
        let (ranges, taken) = Placeholders::new().unwrap().find("[PERSON_3] met [PHONE_0712345678]");
        assert_eq!((ranges.len(), ranges.first()), (1, Some(&(0..10))));
        assert_eq!(number(&people(&["juma"]), taken), [4]);
    }
}
