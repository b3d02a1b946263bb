//! Products of int8 matrices with vectors, on the vector unit that the processor has.
//! Trusts: nothing; lengths are checked.
//! Touches: nothing.
//! Next: `worker::speech::logits`.

use super::panels::Element;
use super::{Unit, unit};

/// `out[r] = scales[r] * (row r of matrix . vector)` for a row-major `matrix` of `scales.len()` rows.
///
/// Rows past the end of `matrix` or `out` are left alone. Results of different units differ by rounding only.
pub fn rows_dot(matrix: &[i8], scales: &[f32], vector: &[f32], out: &mut [f32]) {
    rows(unit(), matrix, scales, vector, out);
}

fn rows(unit: Unit, matrix: &[i8], scales: &[f32], vector: &[f32], out: &mut [f32]) {
    if vector.is_empty() {
        out.fill(0.0);
        return;
    }
    for (out, (scale, row)) in out.iter_mut().zip(scales.iter().zip(matrix.chunks_exact(vector.len()))) {
        *out = scale * dot(unit, row, vector);
    }
}

/// Both are of the same length.
#[inline(always)]
fn dot<T: Element>(unit: Unit, row: &[T], vector: &[f32]) -> f32 {
    assert_eq!(row.len(), vector.len());
    let (whole, mut sum) = match unit {
        // SAFETY: `unit` says that the processor has it; both have the length that is read.
        #[cfg(target_arch = "x86_64")]
        Unit::Avx512 => unsafe { dot_512(row, vector) },
        // SAFETY: as above.
        #[cfg(target_arch = "x86_64")]
        Unit::Avx2 => unsafe { dot_256(row, vector) },
        Unit::Portable => (0, 0.0),
    };
    for (weight, value) in row[whole..].iter().zip(&vector[whole..]) {
        sum += weight.wide() * value;
    }
    sum
}

/// The product of the first numbers, a multiple of 64 of them: how many, and their sum.
///
/// # Safety
/// The processor has AVX-512 F; `vector` is as long as `row`.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512vl,avx2,fma,f16c")]
unsafe fn dot_512<T: Element>(row: &[T], vector: &[f32]) -> (usize, f32) {
    use std::arch::x86_64::{_mm512_add_ps, _mm512_fmadd_ps, _mm512_loadu_ps, _mm512_reduce_add_ps, _mm512_setzero_ps};
    let mut sums = [_mm512_setzero_ps(); 4];
    let whole = row.len() / 64 * 64;
    for from in (0..whole).step_by(64) {
        for chain in 0..4 {
            let at = from + 16 * chain;
            // SAFETY: sixteen numbers from `at` are below `whole`.
            unsafe {
                sums[chain] = _mm512_fmadd_ps(T::load_512(row.as_ptr().add(at)), _mm512_loadu_ps(vector.as_ptr().add(at)), sums[chain]);
            };
        }
    }
    (whole, _mm512_reduce_add_ps(_mm512_add_ps(_mm512_add_ps(sums[0], sums[1]), _mm512_add_ps(sums[2], sums[3]))))
}

/// As [`dot_512`], of a multiple of 32 numbers.
///
/// # Safety
/// The processor has AVX2, FMA and F16C; `vector` is as long as `row`.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn dot_256<T: Element>(row: &[T], vector: &[f32]) -> (usize, f32) {
    use std::arch::x86_64::{_mm256_add_ps, _mm256_fmadd_ps, _mm256_loadu_ps, _mm256_setzero_ps, _mm256_storeu_ps};
    let mut sums = [_mm256_setzero_ps(); 4];
    let whole = row.len() / 32 * 32;
    for from in (0..whole).step_by(32) {
        for chain in 0..4 {
            let at = from + 8 * chain;
            // SAFETY: eight numbers from `at` are below `whole`.
            unsafe {
                sums[chain] = _mm256_fmadd_ps(T::load_256(row.as_ptr().add(at)), _mm256_loadu_ps(vector.as_ptr().add(at)), sums[chain]);
            };
        }
    }
    let mut lanes = [0f32; 8];
    let sum = _mm256_add_ps(_mm256_add_ps(sums[0], sums[1]), _mm256_add_ps(sums[2], sums[3]));
    // SAFETY: eight numbers are written to an array of eight.
    unsafe { _mm256_storeu_ps(lanes.as_mut_ptr(), sum) };
    (whole, lanes.iter().sum())
}

#[cfg(test)]
#[expect(clippy::as_conversions, reason = "small integers, exact in f32")]
mod tests {
    use super::super::all_units;
    use super::*;

    /// A fixed sequence of bytes that looks random.
    fn noise(len: usize) -> Vec<i8> {
        let mut state = 0x2545_f491_u32;
        let mut next = || {
            state ^= state << 13;
            state ^= state >> 17;
            state ^= state << 5;
            i8::from_le_bytes([state.to_le_bytes()[1]])
        };
        (0..len).map(|_| next()).collect()
    }

    #[test]
    fn every_unit_agrees_with_exact_integer_products() {
        for columns in [1, 31, 32, 384, 515] {
            let matrix = noise(7 * columns);
            let vector: Vec<f32> = noise(columns).into_iter().map(f32::from).collect();
            let scales = [1.0, 0.5, 2.0, 0.25, 1.0, 4.0, 1.0];
            let exact: Vec<f32> = matrix
                .chunks(columns)
                .zip(scales)
                .map(|(row, scale)| {
                    let sum: i64 = row.iter().zip(&vector).map(|(one, other)| i64::from(*one) * (*other as i64)).sum();
                    sum as f32 * scale
                })
                .collect();
            for unit in all_units() {
                let mut out = [0f32; 7];

                rows(unit, &matrix, &scales, &vector, &mut out);

                // Sums of products of small integers are exact in f32 in any order.
                assert_eq!(out[..], exact);
            }
        }
    }
}
