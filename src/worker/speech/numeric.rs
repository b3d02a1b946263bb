//! The conversions between kinds of numbers that the speech code needs, each with what it does at its limits.
//! Trusts: nothing; every function is total.
//! Touches: nothing.
//! Next: every other file of `worker::speech`.

#![expect(clippy::as_conversions, reason = "this file is the one place for them; each function states its rounding and saturation")]

/// Samples a second that all speech code works at.
pub const SAMPLE_RATE: usize = 16_000;

/// Exact up to 2^24, to the nearest value above.
pub fn f32_of(value: usize) -> f32 {
    value as f32
}

/// Exact up to 2^53.
pub fn f64_of(value: usize) -> f64 {
    value as f64
}

/// To the nearest `f32`.
pub fn f32_of_f64(value: f64) -> f32 {
    value as f32
}

/// Rounds to the nearest and saturates at both ends; not-a-number becomes 0.
pub fn i8_of_f32(value: f32) -> i8 {
    value.round() as i8
}

/// Saturates at `u32::MAX`: 49 days in milliseconds.
pub fn u32_of(value: usize) -> u32 {
    u32::try_from(value).unwrap_or(u32::MAX)
}

/// A token id or table index; exact, since no target of ours has a `usize` below 32 bits.
pub fn index_of(value: u32) -> usize {
    value as usize
}

/// Milliseconds that `samples` take at [`SAMPLE_RATE`], rounded down.
pub fn ms_of_samples(samples: usize) -> u32 {
    u32_of(samples / (SAMPLE_RATE / 1000))
}

/// IEEE 754 half precision from its bits; exact.
pub fn f32_of_f16(bits: u16) -> f32 {
    let sign = u32::from(bits >> 15) << 31;
    let exponent = u32::from(bits >> 10) & 0x1f;
    let fraction = u32::from(bits) & 0x3ff;
    let magnitude = match exponent {
        // Subnormal: fraction * 2^-24, which f32 holds exactly.
        0 => (fraction as f32 * 2f32.powi(-24)).to_bits(),
        0x1f => 0x7f80_0000 | (fraction << 13),
        _ => ((exponent + 112) << 23) | (fraction << 13),
    };
    f32::from_bits(sign | magnitude)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_precision_is_read_as_ieee_754_says() {
        for (bits, value) in [
            (0x0000, 0.0),
            (0x3c00, 1.0),
            (0xc000, -2.0),
            (0x7bff, 65504.0),
            (0x0001, 1.0 / 16_777_216.0),
            (0x03ff, 1023.0 / 16_777_216.0),
            (0x0400, 1.0 / 16384.0),
            (0x3555, 1365.0 / 4096.0),
        ] {
            assert_eq!(f32_of_f16(bits), value, "{bits:#06x}");
        }
        assert_eq!(f32_of_f16(0xfc00), f32::NEG_INFINITY);
        assert!(f32_of_f16(0x7e00).is_nan());
    }

    #[test]
    fn milliseconds_are_rounded_down_and_saturate() {
        assert_eq!(ms_of_samples(31), 1);
        assert_eq!(ms_of_samples(usize::MAX), u32::MAX);
    }
}
