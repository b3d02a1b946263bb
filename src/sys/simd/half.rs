//! Half-precision numbers as they lie in files, and how they become single precision.
//! Trusts: nothing; every function is total.
//! Touches: nothing.
//! Next: [`super::panels`] holds weights of this kind.

/// An IEEE 754 binary16 number.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
#[repr(transparent)]
pub struct Half(u16);

impl Half {
    /// From its bits.
    pub const fn from_bits(bits: u16) -> Self {
        Self(bits)
    }

    /// Exact.
    #[inline(always)]
    pub fn wide(self) -> f32 {
        // A multiplication puts the exponent right, also of subnormal numbers: https://fgiesen.wordpress.com/2012/03/28/half-to-float-done-quic/
        let magnitude = f32::from_bits(u32::from(self.0 & 0x7fff) << 13) * f32::from_bits((254 - 15) << 23);
        let infinite = if magnitude >= 65536.0 { 0x7f80_0000 } else { 0 };
        f32::from_bits(magnitude.to_bits() | infinite | (u32::from(self.0 >> 15) << 31))
    }

    /// To the nearest, ties to even; beyond the largest becomes infinite, not-a-number stays one.
    #[inline(always)]
    pub fn nearest(value: f32) -> Self {
        let bits = value.to_bits();
        let sign = bits >> 16 & 0x8000;
        let magnitude = f32::from_bits(bits & 0x7fff_ffff);
        let half = if magnitude.is_nan() {
            0x7e00
        } else if magnitude >= 65520.0 {
            0x7c00
        } else if magnitude < 6.103_515_6e-5 {
            // Subnormal: adding 0.5 leaves the number of steps of 2^-24 in the lowest bits.
            (magnitude + 0.5).to_bits() - 0.5f32.to_bits()
        } else {
            let odd = magnitude.to_bits() >> 13 & 1;
            (magnitude.to_bits() - (112 << 23) + 0xfff + odd) >> 13
        };
        Self(u16::try_from(sign | half).unwrap_or(0x7e00))
    }
}

/// `out[i]` is the nearest half of `values[i]`; the shorter of the two ends it.
pub fn narrow(values: &[f32], out: &mut [Half]) {
    #[cfg(target_arch = "x86_64")]
    if super::unit() != super::Unit::Portable {
        // SAFETY: both other units have AVX and F16C.
        return unsafe { narrow_f16c(values, out) };
    }
    for (out, value) in out.iter_mut().zip(values) {
        *out = Half::nearest(*value);
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx,f16c")]
fn narrow_f16c(mut values: &[f32], mut out: &mut [Half]) {
    use std::arch::x86_64::{_MM_FROUND_TO_NEAREST_INT, _mm_storeu_si128, _mm256_cvtps_ph, _mm256_loadu_ps};
    while let (Some((eight, rest)), true) = (values.split_first_chunk::<8>(), out.len() >= 8) {
        let Some((target, out_rest)) = std::mem::take(&mut out).split_first_chunk_mut::<8>() else { return };
        // SAFETY: eight numbers are read and eight are written, from and to arrays of that length; `Half` is a `u16` in memory.
        unsafe {
            let halves = _mm256_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(_mm256_loadu_ps(eight.as_ptr()));
            _mm_storeu_si128(target.as_mut_ptr().cast(), halves);
        }
        (values, out) = (rest, out_rest);
    }
    for (out, value) in out.iter_mut().zip(values) {
        *out = Half::nearest(*value);
    }
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
            assert_eq!(Half::from_bits(bits).wide(), value, "{bits:#06x}");
        }
        assert_eq!(Half::from_bits(0xfc00).wide(), f32::NEG_INFINITY);
        assert!(Half::from_bits(0x7e00).wide().is_nan());
    }

    #[test]
    fn every_half_survives_being_widened_and_narrowed() {
        let all: Vec<Half> = (0..=u16::MAX).map(Half::from_bits).filter(|half| !half.wide().is_nan()).collect();
        let wide: Vec<f32> = all.iter().map(|half| half.wide()).collect();
        let mut back = vec![Half::default(); all.len()];

        narrow(&wide, &mut back);

        assert!(back == all);
        assert!(wide.iter().zip(&all).all(|(wide, half)| Half::nearest(*wide) == *half));
    }

    #[test]
    fn what_lies_between_goes_to_the_nearest_and_ties_to_even() {
        for (value, bits) in [(1.0 + 1.0 / 2048.0, 0x3c00), (1.0 + 3.0 / 2048.0, 0x3c02), (65519.0, 0x7bff), (65520.0, 0x7c00), (3e-8, 1), (1e-9, 0)] {
            let mut vector = [Half::default(); 8];
            narrow(&[value; 8], &mut vector);

            assert!(Half::nearest(value) == Half::from_bits(bits), "{value}");
            assert!(vector == [Half::from_bits(bits); 8], "{value}");
        }
        assert!(Half::nearest(f32::NAN).wide().is_nan());
    }
}
