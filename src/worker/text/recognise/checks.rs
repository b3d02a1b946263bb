//! Checksums and number plans.
//! Trusts: nothing.
//! Touches: nothing.
//! Next: `figures` and `bank` use them.

/// Country codes of the region, which people also say without the plus: Kenya, Tanzania, Uganda, Rwanda and their neighbours.
const COUNTRY_CODES: [&str; 12] = ["254", "255", "256", "250", "251", "252", "257", "211", "243", "258", "260", "265"];

/// Whether 13..=19 digits satisfy the checksum of ISO/IEC 7812-1 (Luhn) and do not repeat one digit.
pub fn is_card(digits: &str) -> bool {
    if !(13..=19).contains(&digits.len()) || digits.starts_with('0') {
        return false;
    }
    let same = digits.bytes().all(|byte| digits.bytes().next() == Some(byte));
    let sum: u32 = digits
        .chars()
        .rev()
        .filter_map(|c| c.to_digit(10))
        .enumerate()
        .map(|(place, digit)| match digit * 2 {
            _ if place % 2 == 0 => digit,
            twice if twice > 9 => twice - 9,
            twice => twice,
        })
        .sum();
    !same && sum.is_multiple_of(10)
}

/// Whether `text` (letters and digits, upper case) satisfies the checksum of ISO 13616 (mod 97 = 1).
pub fn is_iban(text: &str) -> bool {
    let shape = (15..=34).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_alphanumeric());
    let (Some(country), Some(check), Some(rest)) = (text.get(..2), text.get(2..4), text.get(4..)) else { return false };
    if !shape || !country.bytes().all(|byte| byte.is_ascii_uppercase()) || !check.bytes().all(|byte| byte.is_ascii_digit()) {
        return false;
    }
    let remainder = rest.chars().chain(country.chars()).chain(check.chars()).filter_map(|c| c.to_digit(36)).fold(0, |remainder, value| {
        let shift = if value > 9 { 100 } else { 10 };
        (remainder * shift + value) % 97
    });
    remainder == 1
}

/// Tanzania's NIDA number: 20 digits that begin with a date of birth, YYYYMMDD.
pub fn is_nida(digits: &str) -> bool {
    digits.len() == 20 && is_year(digits.get(..4)) && number(digits.get(4..6), 1, 12) && number(digits.get(6..8), 1, 31)
}

/// Rwanda's identity number: 16 digits, status 1..=3, year of birth, sex 7 or 8.
pub fn is_rwandan_id(digits: &str) -> bool {
    digits.len() == 16 && number(digits.get(..1), 1, 3) && is_year(digits.get(1..5)) && number(digits.get(5..6), 7, 8)
}

/// How surely these digits are a telephone number: 0 not, 1..=9 the surer the greater. ITU-T E.164: at most 15 digits.
pub fn phone_strength(digits: &str, plus: bool, grouped: bool, context: bool) -> u8 {
    let length = digits.len();
    let second = digits.as_bytes().get(1).copied().unwrap_or(b'0');
    if plus {
        return if (8..=15).contains(&length) && !digits.starts_with('0') { 9 } else { 0 };
    }
    if let Some(rest) = digits.strip_prefix("00") {
        return if (10..=15).contains(&rest.len()) && !rest.starts_with('0') { 7 } else { 0 };
    }
    if COUNTRY_CODES.iter().any(|code| digits.starts_with(code)) && (length == 12 || length == 13 && digits.get(3..4) == Some("0")) {
        return 8;
    }
    if digits.starts_with('0') && second != b'0' {
        return match length {
            10 => 7,
            9 if context || grouped => 4,
            _ => 0,
        };
    }
    match length {
        9 if digits.starts_with(['7', '1']) && (grouped || context) => 4,
        10 if grouped => 3,
        7..=12 if context => 2,
        _ => 0,
    }
}

fn is_year(digits: Option<&str>) -> bool {
    number(digits, 1900, 2099)
}

fn number(digits: Option<&str>, least: u32, most: u32) -> bool {
    digits.and_then(|digits| digits.parse::<u32>().ok()).is_some_and(|value| (least..=most).contains(&value))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn published_examples_satisfy_their_checksums_and_near_misses_do_not() {
        assert!(is_card("4111111111111111") && is_card("378282246310005") && is_card("5555555555554444"));
        assert!(!is_card("4111111111111112") && !is_card("0000000000000000") && !is_card("411111111111"));
        assert!(is_iban("GB29NWBK60161331926819") && is_iban("FR1420041010050500013M02606"));
        assert!(!is_iban("GB29NWBK60161331926818") && !is_iban("GB29") && !is_iban("gb29NWBK60161331926819"));
        assert!(is_nida("19900115141230000123") && !is_nida("19901315141230000123"));
        assert!(is_rwandan_id("1199880012345123") && !is_rwandan_id("4199880012345123"));
    }

    #[test]
    fn national_and_international_numbers_are_telephones_and_helplines_are_not() {
        assert!(phone_strength("0712345678", false, false, false) > 0);
        assert!(phone_strength("254712345678", false, false, false) > 0);
        assert!(phone_strength("250788123456", true, false, false) > 0);
        assert_eq!(phone_strength("116", false, true, true), 0);
        assert_eq!(phone_strength("999", true, true, true), 0);
    }

    proptest! {
        #[test]
        fn one_changed_digit_breaks_a_card(place in 0_usize..16, change in 1_u8..9) {
            let mut digits = b"4539578763621486".to_vec();
            digits[place] = b'0' + (digits[place] - b'0' + change) % 10;
            prop_assert!(!is_card(std::str::from_utf8(&digits).unwrap()));
        }
    }
}
