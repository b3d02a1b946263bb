//! Secrets as people copy them: groups of eight characters, each with a checksum of its own.
//! Trusts: nothing that was typed.
//! Touches: nothing.
//! Next: `recovery` and `shares` say what the bytes are.
//!
//! ```text
//! group = 4 bytes | CRC-8 over sort, position and these bytes       five bytes, eight characters of Crockford's base 32
//! ```
//! A wrong character changes five neighbouring bits, which a CRC-8 always notices; two groups in each other's place are noticed by their
//! position, a share typed for a code by its sort. What slips through (1 in 256) does not open the slot.

use zeroize::Zeroizing;

use crate::base::secret::SecretText;

/// Bytes of a group.
const BYTES: usize = 4;
/// Characters of a group.
const CHARACTERS: usize = 8;
/// Crockford's base 32: no I, L, O, U.
const ALPHABET: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";

/// What a printed secret is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sort {
    /// Opens a slot by itself.
    Code,
    /// One of several.
    Share,
}

impl Sort {
    const fn mark(self) -> u8 {
        match self {
            Self::Code => b'C',
            Self::Share => b'S',
        }
    }

    /// Groups of a whole one.
    pub const fn groups(self) -> usize {
        match self {
            Self::Code => 8,
            Self::Share => 9,
        }
    }
}

/// Writes `bytes`, four a group, a space between groups.
pub fn write(sort: Sort, bytes: &[u8]) -> SecretText {
    // As long as it will be: a string that grows leaves its old place unwiped.
    let mut text = String::with_capacity(bytes.len().div_ceil(BYTES) * (CHARACTERS + 1));
    for (position, group) in (0_u8..).zip(bytes.chunks(BYTES)) {
        if position > 0 {
            text.push(' ');
        }
        let mut all = Zeroizing::new([0; BYTES + 1]);
        all.iter_mut().zip(group).for_each(|(to, from)| *to = *from);
        let sum = checksum(sort, position, group);
        if let Some(last) = all.last_mut() {
            *last = sum;
        }
        let bits = all.iter().fold(0_u64, |bits, byte| bits << 8 | u64::from(*byte));
        for at in (0..CHARACTERS).rev() {
            let five = usize::try_from(bits >> (5 * at) & 31).unwrap_or(0);
            text.push(ALPHABET.get(five).copied().map_or('?', char::from));
        }
    }
    SecretText::new(text)
}

/// Reads what [`write()`] wrote and somebody typed: letters of either case, O for 0, I and L for 1, with any spaces and hyphens.
///
/// # Errors
/// [`CodeError`], naming the first group that is wrong.
pub fn read(sort: Sort, typed: &SecretText) -> Result<Zeroizing<Vec<u8>>, CodeError> {
    let mut bytes = Zeroizing::new(Vec::with_capacity(sort.groups() * BYTES));
    let (mut bits, mut count) = (Zeroizing::new(0_u64), 0_usize);
    for letter in typed.expose().chars().filter(|letter| !letter.is_whitespace() && !matches!(letter, '-' | '.' | ':')) {
        let group = count / CHARACTERS + 1;
        if group > sort.groups() {
            return Err(CodeError::TooLong { groups: sort.groups() });
        }
        *bits = *bits << 5 | u64::from(value(letter).ok_or(CodeError::Letter { group })?);
        count += 1;
        if count.is_multiple_of(CHARACTERS) {
            take_group(sort, group, *bits, &mut bytes)?;
            *bits = 0;
        }
    }
    if count == sort.groups() * CHARACTERS {
        Ok(bytes)
    } else {
        Err(CodeError::TooShort { groups: sort.groups(), whole: count / CHARACTERS })
    }
}

fn take_group(sort: Sort, group: usize, bits: u64, to: &mut Vec<u8>) -> Result<(), CodeError> {
    let all = Zeroizing::new(bits.to_be_bytes());
    let [_, _, _, data @ .., sum] = *all;
    let position = u8::try_from(group - 1).map_err(|_| CodeError::Group { group })?;
    if checksum(sort, position, &data) != sum {
        return Err(CodeError::Group { group });
    }
    to.extend(data);
    Ok(())
}

fn value(letter: char) -> Option<u8> {
    let letter = match letter.to_ascii_uppercase() {
        'O' => '0',
        'I' | 'L' => '1',
        other => other,
    };
    (0_u8..).zip(ALPHABET).find(|(_, known)| char::from(**known) == letter).map(|(value, _)| value)
}

/// CRC-8 with the polynomial x^8 + x^2 + x + 1, begun with all ones so that leading zeros count.
fn checksum(sort: Sort, position: u8, group: &[u8]) -> u8 {
    let bytes = [sort.mark(), position].into_iter().chain(group.iter().copied());
    bytes.fold(0xff, |sum, byte| (0..8).fold(sum ^ byte, |sum, _| if sum & 0x80 == 0 { sum << 1 } else { sum << 1 ^ 0x07 }))
}

/// What is wrong with what was typed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CodeError {
    /// A character that is in no code.
    #[error("group {group} has a character that no code has: codes are of digits and letters without I, L, O and U")]
    Letter {
        /// Counted from 1.
        group: usize,
    },
    /// The checksum.
    #[error("group {group} is mistyped, or in another's place: compare it with the paper")]
    Group {
        /// Counted from 1.
        group: usize,
    },
    /// Not all of it.
    #[error("{whole} whole groups of {groups} were typed: some are missing")]
    TooShort {
        /// Of a whole one.
        groups: usize,
        /// Typed.
        whole: usize,
    },
    /// More.
    #[error("more than {groups} groups were typed")]
    TooLong {
        /// Of a whole one.
        groups: usize,
    },
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn typed(text: &str) -> SecretText {
        SecretText::new(text.to_owned())
    }

    #[test]
    fn a_code_is_eight_groups_of_eight() {
        let text = write(Sort::Code, &[0xa5; 32]);
        let groups: Vec<&str> = text.expose().split(' ').collect();
        assert_eq!((groups.len(), groups.iter().all(|group| group.len() == 8)), (8, true));
        // Equal bytes look different in each place.
        assert_ne!(groups[0], groups[1]);
    }

    #[test]
    fn a_code_is_read_as_people_write() {
        let text = write(Sort::Code, &[0; 32]).expose().to_lowercase().replace('0', "o").replace(' ', "-").replace('1', "l");
        assert_eq!(read(Sort::Code, &typed(&text)).unwrap().as_slice(), [0; 32]);
    }

    #[test]
    fn each_wrong_character_is_found_in_its_group() {
        let bytes: Vec<u8> = (0..36).map(|byte: u8| byte.wrapping_mul(37)).collect();
        let right = write(Sort::Share, &bytes).expose().to_owned();
        for at in (0..right.len()).filter(|at| right.as_bytes()[*at] != b' ') {
            for letter in ALPHABET.iter().filter(|letter| **letter != right.as_bytes()[at]) {
                let mut wrong = right.clone().into_bytes();
                wrong[at] = *letter;
                let wrong = typed(std::str::from_utf8(&wrong).unwrap());
                assert_eq!(read(Sort::Share, &wrong).unwrap_err(), CodeError::Group { group: at / 9 + 1 });
            }
        }
    }

    #[test]
    fn groups_in_each_others_place_are_found() {
        let bytes: Vec<u8> = (0..32).collect();
        let text = write(Sort::Code, &bytes).expose().to_owned();
        for first in 0..8 {
            for second in first + 1..8 {
                let mut groups: Vec<&str> = text.split(' ').collect();
                groups.swap(first, second);
                let error = read(Sort::Code, &typed(&groups.join(" "))).unwrap_err();
                assert_eq!(error, CodeError::Group { group: first + 1 });
            }
        }
    }

    #[test]
    fn a_share_is_no_code_and_what_is_missing_is_said() {
        let share = write(Sort::Share, &[7; 36]);
        assert_eq!(read(Sort::Code, &share).unwrap_err(), CodeError::Group { group: 1 });
        let code = write(Sort::Code, &[7; 32]);
        assert_eq!(read(Sort::Code, &typed(&code.expose()[..25])).unwrap_err(), CodeError::TooShort { groups: 8, whole: 2 });
        assert_eq!(read(Sort::Code, &typed(&format!("{}0", code.expose()))).unwrap_err(), CodeError::TooLong { groups: 8 });
        assert_eq!(read(Sort::Code, &typed("UUUUUUUU")).unwrap_err(), CodeError::Letter { group: 1 });
        assert_eq!(read(Sort::Code, &typed("")).unwrap_err(), CodeError::TooShort { groups: 8, whole: 0 });
    }

    proptest! {
        #[test]
        fn any_secret_reads_back(bytes in prop::collection::vec(any::<u8>(), 32)) {
            prop_assert_eq!(read(Sort::Code, &write(Sort::Code, &bytes)).unwrap().to_vec(), bytes);
        }

        #[test]
        fn anything_typed_is_read_or_refused(text in "\\PC{0,120}") {
            let _ = read(Sort::Code, &typed(&text));
        }
    }
}
