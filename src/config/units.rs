//! Sizes and durations as people write them: a number, a unit.
//! Trusts: nothing.
//! Touches: nothing.
//! Next: [`super::read`] checks the range.

use std::time::Duration;

/// Bytes of `500 MB`, `16 MiB`. Decimal units for kB, MB, GB; binary ones for KiB, MiB, GiB.
pub(super) fn size(text: &str) -> Option<u64> {
    let (number, unit) = split(text)?;
    let factor = match unit {
        "B" => 1,
        "kB" => 1_000,
        "MB" => 1_000_000,
        "GB" => 1_000_000_000,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        _ => return None,
    };
    number.checked_mul(factor)
}

/// `250 ms`, `30 s`, `10 min`, `4 h`, `7 d`.
pub(super) fn duration(text: &str) -> Option<Duration> {
    let (number, unit) = split(text)?;
    let millis = match unit {
        "ms" => 1,
        "s" => 1_000,
        "min" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return None,
    };
    number.checked_mul(millis).map(Duration::from_millis)
}

fn split(text: &str) -> Option<(u64, &str)> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at_checked(digits)?;
    Some((number.parse().ok()?, unit.strip_prefix(' ').unwrap_or(unit)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decimal_and_binary_units_differ() {
        assert_eq!((size("500 MB"), size("16 MiB"), size("1B")), (Some(500_000_000), Some(16 << 20), Some(1)));
    }

    #[test]
    fn a_number_without_unit_or_beyond_range_is_refused() {
        for text in ["500", "", "MB", "-1 MB", "1.5 GB", "1  MB", "1 mb", "99999999999 GB", "5 min "] {
            assert_eq!(size(text), None, "{text}");
        }
        for text in ["30", "1 month", "s", "30 S", "+3 s", "18446744073709551615 h"] {
            assert_eq!(duration(text), None, "{text}");
        }
    }

    #[test]
    fn durations_are_read_to_the_millisecond() {
        assert_eq!(duration("250 ms"), Some(Duration::from_millis(250)));
        assert_eq!(duration("4 h"), Some(Duration::from_secs(14_400)));
    }
}
