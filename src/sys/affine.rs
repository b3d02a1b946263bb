//! Many vectors through one layer, `out = bias + x . weights`, on the vector unit that the processor has.
//! Trusts: nothing; lengths are checked.
//! Touches: nothing.
//! Next: `worker::speech::vad`.

#[cfg(target_arch = "x86_64")]
use std::arch::x86_64::{
    __m256, __m512, _mm256_fmadd_ps, _mm256_loadu_ps, _mm256_set1_ps, _mm256_storeu_ps, _mm512_fmadd_ps, _mm512_loadu_ps, _mm512_set1_ps,
    _mm512_storeu_ps,
};

/// Outputs of a layer come in groups of this many: two vectors of AVX-512, four of AVX2.
const LANES: usize = 32;
/// Vectors that go through a group at once, so that each weight is loaded once for all of them.
const TOGETHER: usize = 6;

/// A layer: a bias and weights, its outputs padded by zeros to whole groups.
pub struct Layer {
    inputs: usize,
    outputs: usize,
    /// One block of weights a group, each with a row of [`LANES`] for every input.
    groups: Vec<Vec<[f32; LANES]>>,
    bias: Vec<[f32; LANES]>,
}

/// Where the vectors of a batch begin: `per_step` vectors, each `stride` after the one before; the next step is `step` further on.
#[derive(Clone, Copy, Debug)]
pub struct Places {
    /// Vectors in a step, at least 1.
    pub per_step: usize,
    /// From one of them to the next.
    pub stride: usize,
    /// From one step to the next.
    pub step: usize,
}

impl Places {
    const fn of(&self, row: usize) -> usize {
        row / self.per_step * self.step + row % self.per_step * self.stride
    }
}

impl Layer {
    /// `weight(output, input)` and `bias(output)` for each.
    pub fn new(inputs: usize, outputs: usize, weight: impl Fn(usize, usize) -> f32, bias: impl Fn(usize) -> f32) -> Self {
        let lanes = |group: usize, value: &dyn Fn(usize) -> f32| {
            std::array::from_fn(|lane| if group * LANES + lane < outputs { value(group * LANES + lane) } else { 0.0 })
        };
        let groups = 0..outputs.div_ceil(LANES);
        let weights = |group| (0..inputs).map(|input| lanes(group, &|output| weight(output, input))).collect();
        Self {
            inputs,
            outputs: groups.len() * LANES,
            groups: groups.clone().map(weights).collect(),
            bias: groups.map(|group| lanes(group, &bias)).collect(),
        }
    }

    /// Outputs of one vector, padding included.
    pub const fn outputs(&self) -> usize {
        self.outputs
    }

    /// Fills `out` with the outputs of as many vectors as it has room for. Vectors that do not lie wholly in `x` are left alone.
    /// The outputs of a vector do not depend on the others.
    pub fn apply(&self, x: &[f32], places: Places, out: &mut [f32]) {
        let rows = out.len() / self.outputs.max(1);
        let mut row = 0;
        while row < rows {
            let some = if row + TOGETHER <= rows { TOGETHER } else { 1 };
            let Some(vectors) = self.vectors(x, places, row, some) else { return };
            for (group, (weights, bias)) in self.groups.iter().zip(&self.bias).enumerate() {
                let mut sums = [[0f32; LANES]; TOGETHER];
                sum(weights, bias, &vectors, some, &mut sums);
                for (number, sums) in sums.iter().take(some).enumerate() {
                    let at = (row + number) * self.outputs + group * LANES;
                    if let Some(out) = out.get_mut(at..at + LANES) {
                        out.copy_from_slice(sums);
                    }
                }
            }
            row += some;
        }
    }

    fn vectors<'x>(&self, x: &'x [f32], places: Places, first: usize, count: usize) -> Option<[&'x [f32]; TOGETHER]> {
        let mut vectors: [&[f32]; TOGETHER] = [&[]; TOGETHER];
        for (number, vector) in vectors.iter_mut().take(count).enumerate() {
            let from = places.of(first + number);
            *vector = x.get(from..from + self.inputs)?;
        }
        Some(vectors)
    }
}

type Sums = [[f32; LANES]; TOGETHER];

/// `sums[n] = bias + vectors[n] . weights` for `some` vectors, which is 1 or [`TOGETHER`], each as long as `weights`.
fn sum(weights: &[[f32; LANES]], bias: &[f32; LANES], vectors: &[&[f32]; TOGETHER], some: usize, sums: &mut Sums) {
    if vectors.iter().take(some).any(|vector| vector.len() != weights.len()) {
        return;
    }
    #[cfg(target_arch = "x86_64")]
    if std::arch::is_x86_feature_detected!("avx512f") {
        // SAFETY: AVX-512F has just been found in this processor, and the vectors are as long as the weights.
        unsafe {
            if some == TOGETHER { sum_512::<TOGETHER>(weights, bias, vectors, sums) } else { sum_512::<1>(weights, bias, vectors, sums) }
        }
        return;
    }
    #[cfg(target_arch = "x86_64")]
    if std::arch::is_x86_feature_detected!("avx2") && std::arch::is_x86_feature_detected!("fma") {
        // SAFETY: AVX2 and FMA have just been found in this processor, and the vectors are as long as the weights.
        unsafe {
            if some == TOGETHER { sum_256::<TOGETHER>(weights, bias, vectors, sums) } else { sum_256::<1>(weights, bias, vectors, sums) }
        }
        return;
    }
    for (sums, vector) in sums.iter_mut().zip(vectors).take(some) {
        *sums = *bias;
        for (value, weights) in vector.iter().zip(weights) {
            for (sum, weight) in sums.iter_mut().zip(weights) {
                *sum += value * weight;
            }
        }
    }
}

/// Plain loops over arrays, no iterator adaptors or closures: those are functions of their own in a build without link-time
/// optimisation, and then the sums do not stay in registers (measured: 8 times slower).
///
/// # Safety
/// The first `ROWS` vectors are as long as `weights`.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f")]
#[expect(clippy::indexing_slicing, reason = "constant bounds over arrays of that length; see above")]
unsafe fn sum_512<const ROWS: usize>(weights: &[[f32; LANES]], bias: &[f32; LANES], vectors: &[&[f32]; TOGETHER], sums: &mut Sums) {
    // SAFETY: each load and store is of half of an array of 32, and `input` is within vectors that are as long as the weights.
    unsafe {
        let mut low: [__m512; ROWS] = [_mm512_loadu_ps(bias.as_ptr()); ROWS];
        let mut high: [__m512; ROWS] = [_mm512_loadu_ps(bias.as_ptr().add(16)); ROWS];
        let mut from: [*const f32; ROWS] = [std::ptr::null(); ROWS];
        let mut row = 0;
        while row < ROWS {
            from[row] = vectors[row].as_ptr();
            row += 1;
        }
        let matrix = weights.as_ptr().cast::<f32>();
        let mut input = 0;
        while input < weights.len() {
            let weight_low = _mm512_loadu_ps(matrix.add(input * LANES));
            let weight_high = _mm512_loadu_ps(matrix.add(input * LANES + 16));
            let mut row = 0;
            while row < ROWS {
                let value = _mm512_set1_ps(*from[row].add(input));
                low[row] = _mm512_fmadd_ps(value, weight_low, low[row]);
                high[row] = _mm512_fmadd_ps(value, weight_high, high[row]);
                row += 1;
            }
            input += 1;
        }
        let mut row = 0;
        while row < ROWS {
            _mm512_storeu_ps(sums[row].as_mut_ptr(), low[row]);
            _mm512_storeu_ps(sums[row].as_mut_ptr().add(16), high[row]);
            row += 1;
        }
    }
}

/// As [`sum_512`], a half after the other: there are sixteen registers.
///
/// # Safety
/// The first `ROWS` vectors are as long as `weights`.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
#[expect(clippy::indexing_slicing, reason = "constant bounds over arrays of that length; see above")]
unsafe fn sum_256<const ROWS: usize>(weights: &[[f32; LANES]], bias: &[f32; LANES], vectors: &[&[f32]; TOGETHER], sums: &mut Sums) {
    let mut half = 0;
    while half < LANES {
        // SAFETY: each load and store is of 8 of an array of 32 from 0, 8, 16 or 24 on, and `input` is within vectors that are as
        // long as the weights.
        unsafe {
            let mut low: [__m256; ROWS] = [_mm256_loadu_ps(bias.as_ptr().add(half)); ROWS];
            let mut high: [__m256; ROWS] = [_mm256_loadu_ps(bias.as_ptr().add(half + 8)); ROWS];
            let matrix = weights.as_ptr().cast::<f32>().add(half);
            let mut input = 0;
            while input < weights.len() {
                let weight_low = _mm256_loadu_ps(matrix.add(input * LANES));
                let weight_high = _mm256_loadu_ps(matrix.add(input * LANES + 8));
                let mut row = 0;
                while row < ROWS {
                    let value = _mm256_set1_ps(*vectors[row].as_ptr().add(input));
                    low[row] = _mm256_fmadd_ps(value, weight_low, low[row]);
                    high[row] = _mm256_fmadd_ps(value, weight_high, high[row]);
                    row += 1;
                }
                input += 1;
            }
            let mut row = 0;
            while row < ROWS {
                _mm256_storeu_ps(sums[row].as_mut_ptr().add(half), low[row]);
                _mm256_storeu_ps(sums[row].as_mut_ptr().add(half + 8), high[row]);
                row += 1;
            }
        }
        half += 16;
    }
}

#[cfg(test)]
#[expect(clippy::as_conversions, reason = "small integers, exact in f32")]
mod tests {
    use super::*;

    #[test]
    fn every_vector_goes_through_the_layer_whatever_is_beside_it() {
        let (inputs, outputs) = (37, 70);
        let weight = |output: usize, input: usize| ((output * 31 + input * 7) % 17) as f32 - 8.0;
        let layer = Layer::new(inputs, outputs, weight, |output| output as f32);
        let x: Vec<f32> = (0..400).map(|at| ((at * 13) % 29) as f32 - 14.0).collect();
        let places = Places { per_step: 2, stride: 5, step: 41 };
        let mut out = vec![f32::NAN; 17 * layer.outputs()];

        layer.apply(&x, places, &mut out);

        for (row, got) in out.chunks_exact(layer.outputs()).enumerate() {
            let vector = &x[row / 2 * 41 + row % 2 * 5..][..inputs];
            for (output, got) in got.iter().enumerate() {
                let sum: f32 = vector.iter().enumerate().map(|(input, value)| value * weight(output, input)).sum();
                // Sums of products of small integers are exact in f32 in any order; padding gives zero.
                assert_eq!(*got, if output < outputs { output as f32 + sum } else { 0.0 }, "vector {row}, output {output}");
            }
        }
    }

    #[test]
    fn a_vector_that_is_not_there_is_not_read() {
        let layer = Layer::new(8, 32, |_, _| 1.0, |_| 0.0);
        let mut out = vec![7.0; 2 * layer.outputs()];

        layer.apply(&[1.0; 12], Places { per_step: 1, stride: 0, step: 8 }, &mut out);

        assert!(out[..32].iter().all(|sum| *sum == 8.0) && out[32..].iter().all(|sum| *sum == 7.0));
    }

    #[cfg(target_arch = "x86_64")]
    #[test]
    fn every_variant_agrees() {
        let weights: Vec<[f32; LANES]> = (0..53).map(|row| std::array::from_fn(|lane| ((row * 5 + lane) % 11) as f32)).collect();
        let bias = [3.0; LANES];
        let vector: Vec<f32> = (0..53).map(|at| (at % 7) as f32).collect();
        let vectors = [vector.as_slice(); TOGETHER];
        let plain: [f32; LANES] =
            std::array::from_fn(|lane| 3.0 + weights.iter().zip(&vector).map(|(weights, value)| weights[lane] * value).sum::<f32>());
        assert!(std::arch::is_x86_feature_detected!("avx2"), "this test needs a processor with AVX2");

        let mut sums = [[0.0; LANES]; TOGETHER];
        // SAFETY: AVX2 was found, FMA comes with it; the vectors are as long as the weights.
        unsafe { sum_256::<TOGETHER>(&weights, &bias, &vectors, &mut sums) };

        assert!(sums.iter().all(|sum| *sum == plain));
    }
}
