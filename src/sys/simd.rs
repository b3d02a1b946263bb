//! Products of int8 matrices with vectors, on the vector unit that the processor has.
//! Trusts: nothing; lengths are checked.
//! Touches: nothing.
//! Next: `worker::speech::logits`.

/// Sums kept apart, so that the compiler may put them into vector registers: two of AVX2 for each chain of additions.
const LANES: usize = 32;

/// `out[r] = scales[r] * (row r of matrix . vector)` for a row-major `matrix` of `scales.len()` rows.
///
/// Rows past the end of `matrix` or `out` are left alone. Results of processors with and without AVX2 differ by rounding only.
pub fn rows_dot(matrix: &[i8], scales: &[f32], vector: &[f32], out: &mut [f32]) {
    #[cfg(target_arch = "x86_64")]
    if std::arch::is_x86_feature_detected!("avx2") && std::arch::is_x86_feature_detected!("fma") {
        // SAFETY: the function needs AVX2 and FMA, and both have just been found in this processor.
        unsafe { rows_dot_avx2(matrix, scales, vector, out) };
        return;
    }
    rows_dot_any(matrix, scales, vector, out);
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
fn rows_dot_avx2(matrix: &[i8], scales: &[f32], vector: &[f32], out: &mut [f32]) {
    rows::<true>(matrix, scales, vector, out);
}

fn rows_dot_any(matrix: &[i8], scales: &[f32], vector: &[f32], out: &mut [f32]) {
    rows::<false>(matrix, scales, vector, out);
}

#[inline(always)]
fn rows<const FUSED: bool>(matrix: &[i8], scales: &[f32], vector: &[f32], out: &mut [f32]) {
    if vector.is_empty() {
        out.fill(0.0);
        return;
    }
    let mut rows = matrix.chunks_exact(vector.len());
    let mut scales = scales.iter();
    for value in out {
        let (Some(row), Some(scale)) = (rows.next(), scales.next()) else { return };
        *value = scale * dot::<FUSED>(row, vector);
    }
}

/// `FUSED` only where multiply-and-add is one instruction: elsewhere it is a slow library call.
///
/// Plain loops over arrays, no iterator adaptors: those are generic functions that are not inlined across code generation
/// units in a build without link-time optimisation, and then nothing here becomes a vector instruction (measured: 24 ms
/// instead of 5 ms for a vocabulary).
#[inline(always)]
#[expect(clippy::indexing_slicing, reason = "constant bounds over arrays of that length")]
fn dot<const FUSED: bool>(mut row: &[i8], mut vector: &[f32]) -> f32 {
    let mut sums = [0f32; LANES];
    while let (Some((weights, row_rest)), Some((values, vector_rest))) =
        (row.split_first_chunk::<LANES>(), vector.split_first_chunk::<LANES>())
    {
        for lane in 0..LANES {
            let weight = f32::from(weights[lane]);
            sums[lane] = if FUSED { weight.mul_add(values[lane], sums[lane]) } else { weight * values[lane] + sums[lane] };
        }
        (row, vector) = (row_rest, vector_rest);
    }
    let mut half = LANES / 2;
    while half > 0 {
        for lane in 0..half {
            sums[lane] += sums[lane + half];
        }
        half /= 2;
    }
    let mut total = sums[0];
    while let (Some((weight, row_rest)), Some((value, vector_rest))) = (row.split_first(), vector.split_first()) {
        total += f32::from(*weight) * value;
        (row, vector) = (row_rest, vector_rest);
    }
    total
}

#[cfg(test)]
#[expect(clippy::as_conversions, reason = "small integers, exact in f32")]
mod tests {
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
    fn every_variant_agrees_with_exact_integer_products() {
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
            let (mut detected, mut portable) = ([0f32; 7], [0f32; 7]);

            rows_dot(&matrix, &scales, &vector, &mut detected);
            rows_dot_any(&matrix, &scales, &vector, &mut portable);

            // Sums of products of small integers are exact in f32 in any order.
            assert_eq!(exact, detected);
            assert_eq!(exact, portable);
        }
    }
}
