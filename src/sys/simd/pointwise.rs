//! What a transformer does to rows between its products: softmax, GELU and layer norm.
//! Trusts: nothing; numbers give numbers.
//! Touches: nothing.
//! Next: `worker::layers`, `worker::speech`.

use super::for_each_unit;

/// Numbers that are worked on at once.
const LANES: usize = 32;

for_each_unit! {
    /// `row[i] = exp(scale * row[i]) / sum`, the largest first subtracted. `scale` is positive.
    pub fn softmax(row: &mut [f32], scale: f32) = softmax_any
}

for_each_unit! {
    /// `x (1 + erf(x / sqrt 2)) / 2` of every number.
    pub fn gelu(values: &mut [f32]) = gelu_any
}

for_each_unit! {
    /// Layer norm of `row` into `out`: mean 0 and variance 1, then `gamma` and `beta`. All four have the same length; `epsilon` is added to
    /// the variance.
    pub fn normalise(row: &[f32], gamma: &[f32], beta: &[f32], epsilon: f32, out: &mut [f32]) = normalise_any
}

for_each_unit! {
    /// The largest number that is one; minus infinity when there is none.
    pub fn largest(values: &[f32]) -> f32 = largest_any
}

for_each_unit! {
    /// ln(sum of exp(value)); minus infinity when there is nothing above that.
    pub fn log_sum_exp(values: &[f32]) -> f32 = log_sum_exp_any
}

/// e^x for x up to 0, to 2 units in the last place. Cephes `expf`, with the rounding done by adding 1.5 * 2^23.
///
/// Below -40 it is 0: nothing that is added to numbers around 1 can tell, and what is left could make subnormal products, each of
/// which costs a processor a hundred times as long (measured: 0.5 instead of 60 GFLOP/s).
#[inline(always)]
fn exp<const FUSED: bool>(x: f32) -> f32 {
    const ROUND: f32 = 12_582_912.0;
    const LEAST: f32 = -40.0;
    let matters = x > LEAST;
    let x = if matters { x } else { LEAST };
    let shifted = add_product::<FUSED>(x, std::f32::consts::LOG2_E, ROUND);
    let whole = shifted - ROUND;
    // ln 2 in two parts, so that the rest is exact.
    let rest = add_product::<FUSED>(whole, -0.693_359_4, x);
    let rest = add_product::<FUSED>(whole, 2.121_944_4e-4, rest);
    let mut poly = 1.987_569_1e-4;
    poly = add_product::<FUSED>(poly, rest, 1.398_2e-3);
    poly = add_product::<FUSED>(poly, rest, 8.333_452e-3);
    poly = add_product::<FUSED>(poly, rest, 4.166_579_6e-2);
    poly = add_product::<FUSED>(poly, rest, 1.666_666_5e-1);
    poly = add_product::<FUSED>(poly, rest, 5e-1);
    let value = add_product::<FUSED>(poly * rest, rest, rest + 1.0);
    // The shifted number has the exponent in its lowest bits.
    let value = value * f32::from_bits((shifted.to_bits() << 23).wrapping_add(1f32.to_bits()));
    if matters { value } else { 0.0 }
}

/// `a * b + c`, in one instruction where there is one.
#[inline(always)]
fn add_product<const FUSED: bool>(a: f32, b: f32, c: f32) -> f32 {
    if FUSED { a.mul_add(b, c) } else { a * b + c }
}

#[inline(always)]
fn largest_any<const FUSED: bool>(values: &[f32]) -> f32 {
    let mut peaks = [f32::NEG_INFINITY; LANES];
    let (blocks, rest) = values.as_chunks::<LANES>();
    for block in blocks {
        for lane in 0..LANES {
            peaks[lane] = if block[lane] > peaks[lane] { block[lane] } else { peaks[lane] };
        }
    }
    let mut peak = f32::NEG_INFINITY;
    for value in peaks.iter().chain(rest) {
        peak = peak.max(*value);
    }
    peak
}

#[inline(always)]
fn log_sum_exp_any<const FUSED: bool>(values: &[f32]) -> f32 {
    let peak = largest_any::<FUSED>(values);
    if peak == f32::NEG_INFINITY {
        return peak;
    }
    let mut sums = [0f32; LANES];
    let (blocks, rest) = values.as_chunks::<LANES>();
    for block in blocks {
        for lane in 0..LANES {
            sums[lane] += exp::<FUSED>(block[lane] - peak);
        }
    }
    let mut total = 0f32;
    for value in rest {
        total += exp::<FUSED>(value - peak);
    }
    for sum in sums {
        total += sum;
    }
    peak + total.ln()
}

#[inline(always)]
fn softmax_any<const FUSED: bool>(row: &mut [f32], scale: f32) {
    let peak = largest_any::<FUSED>(row);
    let offset = -peak * scale;
    let mut sums = [0f32; LANES];
    let mut sum = 0f32;
    let (blocks, rest) = row.as_chunks_mut::<LANES>();
    for block in blocks {
        for lane in 0..LANES {
            block[lane] = exp::<FUSED>(add_product::<FUSED>(block[lane], scale, offset));
            sums[lane] += block[lane];
        }
    }
    for value in rest {
        *value = exp::<FUSED>(add_product::<FUSED>(*value, scale, offset));
        sum += *value;
    }
    for part in sums {
        sum += part;
    }
    let factor = 1.0 / sum;
    for value in row {
        *value *= factor;
    }
}

/// Abramowitz and Stegun 7.1.26: erf to 1.5e-7.
#[inline(always)]
fn gelu_one<const FUSED: bool>(x: f32) -> f32 {
    let z = x.abs() * std::f32::consts::FRAC_1_SQRT_2;
    let t = 1.0 / add_product::<FUSED>(z, 0.327_591_1, 1.0);
    let mut poly = 1.061_405_4;
    poly = add_product::<FUSED>(poly, t, -1.453_152);
    poly = add_product::<FUSED>(poly, t, 1.421_413_8);
    poly = add_product::<FUSED>(poly, t, -0.284_496_74);
    poly = add_product::<FUSED>(poly, t, 0.254_829_6);
    let beyond = poly * t * exp::<FUSED>(-z * z);
    // 1 + erf(x / sqrt 2): `beyond` itself for a negative x, so that small values keep their digits.
    let factor = if x < 0.0 { beyond } else { 2.0 - beyond };
    0.5 * x * factor
}

#[inline(always)]
fn gelu_any<const FUSED: bool>(values: &mut [f32]) {
    let (blocks, rest) = values.as_chunks_mut::<LANES>();
    for block in blocks {
        for lane in 0..LANES {
            block[lane] = gelu_one::<FUSED>(block[lane]);
        }
    }
    for value in rest {
        *value = gelu_one::<FUSED>(*value);
    }
}

#[inline(always)]
fn sum_of<const FUSED: bool>(row: &[f32], centre: f32, squared: bool) -> f32 {
    let mut sums = [0f32; LANES];
    let (blocks, rest) = row.as_chunks::<LANES>();
    let part = |value: f32, sum: f32| {
        let value = value - centre;
        if squared { add_product::<FUSED>(value, value, sum) } else { sum + value }
    };
    for block in blocks {
        for (sum, value) in sums.iter_mut().zip(block) {
            *sum = part(*value, *sum);
        }
    }
    let mut total = 0f32;
    for value in rest {
        total = part(*value, total);
    }
    for sum in sums {
        total += sum;
    }
    total
}

#[inline(always)]
#[expect(clippy::as_conversions, reason = "a row's length is far below 2^24, exact in f32")]
fn normalise_any<const FUSED: bool>(row: &[f32], gamma: &[f32], beta: &[f32], epsilon: f32, out: &mut [f32]) {
    let length = row.len().max(1) as f32;
    let mean = sum_of::<FUSED>(row, 0.0, false) / length;
    let variance = sum_of::<FUSED>(row, mean, true) / length;
    let scale = 1.0 / (variance + epsilon).sqrt();
    for ((out, value), (gamma, beta)) in out.iter_mut().zip(row).zip(gamma.iter().zip(beta)) {
        *out = add_product::<FUSED>((value - mean) * scale, *gamma, *beta);
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Unit, all_units};
    use super::*;

    fn range(from: f32, to: f32, count: u16) -> Vec<f32> {
        (0..count).map(|at| from + (to - from) * f32::from(at) / f32::from(count - 1)).collect()
    }

    /// erf by its series, in double precision.
    fn erf(x: f64) -> f64 {
        let (mut term, mut sum) = (x, x);
        for n in 1..200 {
            term *= -x * x / f64::from(n);
            sum += term / f64::from(2 * n + 1);
        }
        sum * 2.0 / std::f64::consts::PI.sqrt()
    }

    #[test]
    fn softmax_is_exact_to_single_precision_and_sums_to_one() {
        for (length, unit) in [2, 31, 32, 700].into_iter().flat_map(|length| all_units().into_iter().map(move |unit| (length, unit))) {
            let values = range(-60.0, 20.0, length);
            let total: f64 = values.iter().map(|value| (f64::from(*value) * 0.125).exp()).sum();
            let mut found = values.clone();

            softmax::on(unit, &mut found, 0.125);

            for (found, value) in found.iter().zip(&values) {
                let expected = (f64::from(*value) * 0.125).exp() / total;
                assert!((f64::from(*found) - expected).abs() <= expected * 1e-6, "{unit:?}: {value}: {found} instead of {expected}");
            }
        }
    }

    #[test]
    fn the_logarithm_of_a_sum_of_exponentials_is_exact_to_single_precision() {
        for unit in all_units() {
            for length in [2, 31, 32, 700] {
                let mut values = range(-60.0, 20.0, length);
                values[0] = f32::NEG_INFINITY;
                let expected = values.iter().map(|value| f64::from(*value).exp()).sum::<f64>().ln();

                assert!((f64::from(log_sum_exp::on(unit, &values)) - expected).abs() < 4e-6, "{unit:?} {length}");
                assert_eq!(largest::on(unit, &values), 20.0);
            }
            assert_eq!(log_sum_exp::on(unit, &[f32::NEG_INFINITY; 40]), f32::NEG_INFINITY);
            assert_eq!(log_sum_exp::on(unit, &[]), f32::NEG_INFINITY);
        }
    }

    #[test]
    fn nothing_comes_near_subnormal_numbers() {
        let small = |values: &[f32]| values.iter().filter(|value| **value != 0.0 && value.abs() < 1e-20).count();
        for unit in all_units() {
            let mut row = range(-120.0, 0.0, 5000);
            let mut bent = range(-30.0, 0.0, 5000);

            softmax::on(unit, &mut row, 1.0);
            gelu::on(unit, &mut bent);

            assert_eq!((small(&row), small(&bent)), (0, 0), "{unit:?}");
        }
    }

    #[test]
    fn softmax_of_very_different_numbers_stays_finite() {
        for unit in all_units() {
            let mut row = [f32::MIN, -1e9, 0.0, 1e9];

            softmax::on(unit, &mut row, 1.0);

            assert_eq!(row, [0.0, 0.0, 0.0, 1.0], "{unit:?}");
        }
    }

    #[test]
    fn gelu_is_exact_to_a_few_ten_millionths() {
        let values = range(-5.0, 5.0, 999);
        for unit in all_units() {
            let mut found = values.clone();

            gelu::on(unit, &mut found);

            for (found, value) in found.iter().zip(&values) {
                let x = f64::from(*value);
                let expected = x * (1.0 + erf(x / 2f64.sqrt())) / 2.0;
                assert!((f64::from(*found) - expected).abs() < 1e-6, "{unit:?}: {value}: {found} instead of {expected}");
            }
        }
    }

    #[test]
    fn gelu_far_out_is_the_number_or_nothing() {
        for unit in all_units() {
            let mut values = [30.0, -30.0, 0.0];

            gelu::on(unit, &mut values);

            assert_eq!(values, [30.0, 0.0, 0.0], "{unit:?}");
        }
    }

    #[test]
    fn a_normal_row_has_mean_zero_and_variance_one() {
        let row = range(3.0, 17.0, 384);
        for unit in all_units() {
            let mut out = vec![0.0; 384];

            normalise::on(unit, &row, &[1.0; 384], &[0.0; 384], 1e-5, &mut out);

            let mean = out.iter().map(|value| f64::from(*value)).sum::<f64>() / 384.0;
            let variance = out.iter().map(|value| f64::from(*value).powi(2)).sum::<f64>() / 384.0;
            assert!(mean.abs() < 1e-6 && (variance - 1.0).abs() < 1e-5, "{unit:?}: {mean} {variance}");
            normalise::on(unit, &row, &[0.0; 384], &[2.5; 384], 1e-5, &mut out);
            assert_eq!(out, vec![2.5; 384], "{unit:?}");
        }
    }

    /// The same operations in the same order, with the multiplications and additions of the standard library instead of the unit's.
    #[test]
    fn every_vector_unit_gives_the_very_bits_of_the_same_steps_without_it() {
        let bits = |values: &[f32]| values.iter().map(|value| value.to_bits()).collect::<Vec<_>>();
        for unit in all_units().into_iter().filter(|unit| *unit != Unit::Portable) {
            for length in [1, 31, 32, 33, 700] {
                let row = if length == 1 { vec![-1.5] } else { range(-9.7, 11.3, length) };
                let (gamma, beta) = (range(0.5, 2.0, 700), range(-1.0, 1.0, 700));
                let (gamma, beta) = (&gamma[..row.len()], &beta[..row.len()]);

                let (mut found, mut expected) = (row.clone(), row.clone());
                softmax::on(unit, &mut found, 0.7);
                softmax_any::<true>(&mut expected, 0.7);
                assert_eq!(bits(&found), bits(&expected), "softmax, {unit:?}, {length}");

                let (mut found, mut expected) = (row.clone(), row.clone());
                gelu::on(unit, &mut found);
                gelu_any::<true>(&mut expected);
                assert_eq!(bits(&found), bits(&expected), "GELU, {unit:?}, {length}");

                normalise::on(unit, &row, gamma, beta, 1e-5, &mut found);
                normalise_any::<true>(&row, gamma, beta, 1e-5, &mut expected);
                assert_eq!(bits(&found), bits(&expected), "norm, {unit:?}, {length}");
            }
        }
    }
}
