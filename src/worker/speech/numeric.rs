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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn milliseconds_are_rounded_down_and_saturate() {
        assert_eq!(ms_of_samples(31), 1);
        assert_eq!(ms_of_samples(usize::MAX), u32::MAX);
    }
}
