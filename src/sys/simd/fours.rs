//! Products with a matrix of four-bit numbers, for processors that multiply four pairs of bytes at once (AVX-512 VNNI).
//! Trusts: nothing; sizes are checked before the kernel runs.
//! Touches: nothing.
//! Next: `worker::layers` multiplies the name recogniser's rows so.
//!
//! The matrix stays as its file has it: whole numbers, and a scale for each 32 of a column. Rows are rounded to fifteen bits with one
//! scale each, and go through the bytes' instruction in two halves, `128 high + low`. So all sums are whole and exact, and the only
//! rounding is that of rows: eight bits lost a name of the project's tests, fifteen are within a ten thousandth of single precision.

use super::panels::{PANEL, Panels};
use super::product::{Rows, RowsMut};
use super::quantised::{Quantised, exact, largest_magnitude};

/// Rows of the matrix that share a scale in each column: a block of `MatMulNBits`.
pub const BLOCK: usize = 32;
/// Bytes that one instruction multiplies and adds in each column.
const GROUP: usize = 4;
/// Rows of a tile: two halves with two vectors each are 24 sums.
const TILE: usize = 6;
/// Halves of the rows of a tile: first all the high ones, then all the low ones.
const HALVES: usize = 2 * TILE;
/// Tiles whose rows are rounded before the matrix is gone through.
const BLOCK_TILES: usize = 48;
/// What the largest number of a row becomes: 127 high halves.
const LARGEST: f32 = 127.0 * 128.0;

/// A matrix of four-bit numbers with scales, on a processor that has the instruction.
pub struct Fours {
    depth: usize,
    width: usize,
    /// `[panel][group of rows][column of the panel][row of the group]`
    cells: Vec<[i8; PANEL * GROUP]>,
    /// `[panel][block]`
    scales: Vec<[f32; PANEL]>,
    /// 128 times the sum of a column's numbers in a block, which is what unsigned halves add. `[panel][block]`
    offsets: Vec<[i32; PANEL]>,
}

/// The number at `row` in a column of `MatMulNBits`: the low half of a byte first, 8 for zero.
fn four(packed: &[u8], row: usize) -> i8 {
    (packed[row / 2] >> (row % 2 * 4) & 15).wrapping_sub(8).cast_signed()
}

impl Fours {
    /// No columns yet, of `depth` rows, a multiple of [`BLOCK`]; `None` when it is none, or the processor lacks the instruction.
    pub fn new(depth: usize) -> Option<Self> {
        (depth.is_multiple_of(BLOCK) && Quantised::is_fast()).then(|| Self::empty(depth))
    }

    const fn empty(depth: usize) -> Self {
        Self { depth, width: 0, cells: Vec::new(), scales: Vec::new(), offsets: Vec::new() }
    }

    /// Adds columns as `MatMulNBits` stores them: for each its blocks of [`BLOCK`] numbers, and one scale a block. Panels are filled up
    /// with zeros.
    ///
    /// # Panics
    /// When there is not one scale a block, or columns are not whole.
    pub fn push(&mut self, packed: &[u8], scales: &[f32]) {
        let (per_column, blocks) = (self.depth / 2, self.depth / BLOCK);
        assert!(packed.len() == scales.len() * (BLOCK / 2) && packed.len().is_multiple_of(per_column));
        for (columns, scales) in packed.chunks(PANEL * per_column).zip(scales.chunks(PANEL * blocks)) {
            for block in 0..blocks {
                let mut cells = [[0i8; PANEL * GROUP]; BLOCK / GROUP];
                let (mut factors, mut offsets) = ([0f32; PANEL], [0i32; PANEL]);
                for (column, packed) in columns.chunks(per_column).enumerate() {
                    let packed = &packed[block * BLOCK / 2..][..BLOCK / 2];
                    let mut sum = 0;
                    for row in 0..BLOCK {
                        let number = four(packed, row);
                        cells[row / GROUP][column * GROUP + row % GROUP] = number;
                        sum += i32::from(number);
                    }
                    (factors[column], offsets[column]) = (scales[column * blocks + block], 128 * sum);
                }
                self.cells.extend_from_slice(&cells);
                self.scales.push(factors);
                self.offsets.push(offsets);
            }
            self.width += PANEL;
        }
    }

    /// Columns, whole panels of them.
    pub const fn width(&self) -> usize {
        self.width
    }
}

/// Puts columns as [`Fours::push`] takes them from `column` on into a matrix in single precision, which is exact.
///
/// # Panics
/// When they do not fit.
pub fn widen_fours(packed: &[u8], scales: &[f32], column: usize, matrix: &mut Panels<f32>) {
    let blocks = matrix.depth() / BLOCK;
    let mut numbers = vec![0.0; matrix.depth()];
    for (at, (packed, scales)) in packed.chunks(matrix.depth() / 2).zip(scales.chunks(blocks)).enumerate() {
        for (row, number) in numbers.iter_mut().enumerate() {
            *number = f32::from(four(packed, row)) * scales[row / BLOCK];
        }
        matrix.set_column(column + at, &numbers);
    }
}

/// `out += a b`, as [`super::product`].
///
/// # Panics
/// When the rows of `a` are not as wide as the matrix is deep, or `out` is too small.
pub fn product_fours(a: Rows<'_>, b: &Fours, out: RowsMut<'_>) {
    assert_eq!(a.width, b.depth, "rows are as wide as the matrix is deep");
    if a.count == 0 || b.width == 0 {
        return;
    }
    out.check(a.count, b.width / PANEL);
    #[cfg(target_arch = "x86_64")]
    if Quantised::is_fast() {
        // SAFETY: the processor has been found to have what the kernel is compiled for.
        unsafe { vnni::product(a, b, out) };
        return;
    }
    portable(a, b, out);
}

/// The same, slowly: what the kernel must give, to the bit.
fn portable(a: Rows<'_>, b: &Fours, mut out: RowsMut<'_>) {
    for row in 0..a.count {
        let values = a.row(row);
        let (scale, factor) = row_scale(largest_magnitude(values));
        let whole: Vec<i32> = values.iter().map(|value| nearest(value * factor)).collect();
        for column in 0..b.width {
            let (panel, place) = (column / PANEL, column % PANEL);
            let mut total = 0f32;
            for (block, values) in whole.chunks(BLOCK).enumerate() {
                let cells = &b.cells[(panel * b.depth + block * BLOCK) / GROUP..];
                let number = |at: usize| i32::from(cells[at / GROUP][place * GROUP + at % GROUP]);
                let sum: i32 = values.iter().enumerate().map(|(at, value)| value * number(at)).sum();
                total = exact(sum).mul_add(b.scales[panel * (b.depth / BLOCK) + block][place], total);
            }
            let out = &mut out.at(row, panel)[place];
            *out = total.mul_add(scale, *out);
        }
    }
}

/// What a step of a row with this largest magnitude stands for, and its inverse: both 0 for a row of zeros; no number for one that holds
/// something that is infinite or no number, so that its products are none either.
fn row_scale(peak: f32) -> (f32, f32) {
    match peak {
        peak if !peak.is_finite() => (f32::NAN, 0.0),
        peak if peak > 1e-30 => (peak / LARGEST, LARGEST / peak),
        _ => (0.0, 0.0),
    }
}

/// Ties to even, as the processor converts; something that is no number is nothing.
#[expect(clippy::as_conversions, reason = "within 127 x 128")]
fn nearest(value: f32) -> i32 {
    value.round_ties_even() as i32
}

#[cfg(target_arch = "x86_64")]
mod vnni {
    use std::arch::x86_64::*;

    use super::super::quantised::vnni::largest;
    use super::*;

    /// # Safety
    /// The processor has AVX-512 F, VL, BW and VNNI.
    #[target_feature(enable = "avx512f,avx512vl,avx512bw,avx512vnni,avx2,fma,f16c")]
    pub(super) unsafe fn product(a: Rows<'_>, b: &Fours, mut out: RowsMut<'_>) {
        let (depth, blocks) = (b.depth / GROUP, b.depth / BLOCK);
        let mut halves = [vec![0u8; b.depth], vec![0u8; b.depth]];
        let (mut groups, mut scales) = (Vec::new(), Vec::new());
        for first in (0..a.count).step_by(BLOCK_TILES * TILE) {
            let count = (a.count - first).min(BLOCK_TILES * TILE);
            groups.resize(count.div_ceil(TILE) * depth, [0u32; HALVES]);
            scales.resize(count, 0f32);
            for (row, scale) in scales.iter_mut().enumerate().take(count) {
                *scale = round(a.row(first + row), &mut halves);
                let tile = &mut groups[row / TILE * depth..][..depth];
                let [high, low] = [&halves[0], &halves[1]].map(|bytes| bytes.as_chunks::<GROUP>().0);
                for at in 0..depth {
                    tile[at][row % TILE] = u32::from_le_bytes(high[at]);
                    tile[at][TILE + row % TILE] = u32::from_le_bytes(low[at]);
                }
            }
            for panel in 0..b.width / PANEL {
                for (tile, groups) in groups.chunks_exact(depth).enumerate().take(count.div_ceil(TILE)) {
                    let mut sums = [[0f32; PANEL]; TILE];
                    // SAFETY: the processor has it; groups and cells are as many, and so are scales and offsets.
                    unsafe {
                        one_tile(
                            groups,
                            &b.cells[panel * depth..][..depth],
                            &b.scales[panel * blocks..][..blocks],
                            &b.offsets[panel * blocks..][..blocks],
                            &mut sums,
                        );
                    }
                    for (row, sums) in (tile * TILE..count).zip(&sums) {
                        let out = &mut out.at(first + row, panel)[..PANEL];
                        for column in 0..PANEL {
                            out[column] = sums[column].mul_add(scales[row], out[column]);
                        }
                    }
                }
            }
        }
    }

    /// A row in two halves of each number, shifted to be unsigned, and the scale that gives its numbers back, see [`row_scale`].
    #[target_feature(enable = "avx512f,avx512vl,avx512bw,avx512vnni,avx2,fma,f16c")]
    fn round(row: &[f32], halves: &mut [Vec<u8>; 2]) -> f32 {
        let [high, low] = halves;
        assert!(row.len().is_multiple_of(16) && row.len() == high.len() && row.len() == low.len());
        let (scale, factor) = row_scale(largest(row));
        for at in (0..row.len()).step_by(16) {
            // SAFETY: sixteen numbers from `at` are in the row, and as many bytes in each half.
            unsafe {
                let whole = _mm512_cvtps_epi32(_mm512_mul_ps(_mm512_loadu_ps(row.as_ptr().add(at)), _mm512_set1_ps(factor)));
                let upper = _mm512_srai_epi32::<7>(_mm512_add_epi32(whole, _mm512_set1_epi32(64)));
                let lower = _mm512_sub_epi32(whole, _mm512_slli_epi32::<7>(upper));
                let shift = _mm512_set1_epi32(128);
                _mm_storeu_si128(high.as_mut_ptr().add(at).cast(), _mm512_cvtepi32_epi8(_mm512_add_epi32(upper, shift)));
                _mm_storeu_si128(low.as_mut_ptr().add(at).cast(), _mm512_cvtepi32_epi8(_mm512_add_epi32(lower, shift)));
            }
        }
        scale
    }

    /// Sums for a tile and a panel, without the rows' scales. The largest sum of a block is 128 x 32 x 128 x 8 < 2^24.
    ///
    /// # Safety
    /// The processor has AVX-512 F, VL, BW and VNNI; there is a cell for each group, and a scale and offset for each block.
    #[target_feature(enable = "avx512f,avx512vl,avx512bw,avx512vnni,avx2,fma,f16c")]
    unsafe fn one_tile(
        groups: &[[u32; HALVES]],
        cells: &[[i8; PANEL * GROUP]],
        scales: &[[f32; PANEL]],
        offsets: &[[i32; PANEL]],
        out: &mut [[f32; PANEL]; TILE],
    ) {
        for block in 0..scales.len() {
            // SAFETY: the caller's promise; a cell has 128 bytes, a row of scales, offsets or sums 32 numbers.
            unsafe {
                let pair = |from: *const i32| [_mm512_loadu_si512(from.cast()), _mm512_loadu_si512(from.add(16).cast())];
                let none = pair(offsets.as_ptr().add(block).cast()).map(|offset| _mm512_sub_epi32(_mm512_setzero_si512(), offset));
                let mut sums = [none; HALVES];
                for group in block * (BLOCK / GROUP)..(block + 1) * (BLOCK / GROUP) {
                    let values = groups.as_ptr().add(group).cast::<i32>();
                    let weights = pair(cells.as_ptr().add(group).cast());
                    for half in 0..HALVES {
                        let value = _mm512_set1_epi32(*values.add(half));
                        sums[half] =
                            [_mm512_dpbusd_epi32(sums[half][0], value, weights[0]), _mm512_dpbusd_epi32(sums[half][1], value, weights[1])];
                    }
                }
                let scales = scales.as_ptr().add(block).cast::<f32>();
                for row in 0..TILE {
                    for side in 0..2 {
                        let sum = _mm512_add_epi32(_mm512_slli_epi32::<7>(sums[row][side]), sums[TILE + row][side]);
                        let out = out[row].as_mut_ptr().add(16 * side);
                        let scale = _mm512_loadu_ps(scales.add(16 * side));
                        _mm512_storeu_ps(out, _mm512_fmadd_ps(_mm512_cvtepi32_ps(sum), scale, _mm512_loadu_ps(out)));
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::product;
    use super::*;

    /// Bytes that look random.
    fn noise(count: usize, mut state: u32) -> Vec<u8> {
        let mut next = || {
            state ^= state << 13;
            state ^= state >> 17;
            state ^= state << 5;
            state.to_le_bytes()[1]
        };
        (0..count).map(|_| next()).collect()
    }

    fn numbers(count: usize, state: u32) -> Vec<f32> {
        noise(count, state).into_iter().map(|byte| f32::from(byte) / 128.0 - 1.0).collect()
    }

    fn matrices(depth: usize, packed: &[u8], scales: &[f32]) -> (Fours, Panels<f32>) {
        let mut fours = Fours::empty(depth);
        fours.push(packed, scales);
        let mut wide = Panels::zero(depth, packed.len() * 2 / depth);
        widen_fours(packed, scales, 0, &mut wide);
        (fours, wide)
    }

    #[test]
    fn four_bits_mean_what_the_format_says() {
        let (mut packed, scales) = (vec![0x88; 16 * 2], [0.5, 2.0]);
        (packed[0], packed[17]) = (0xf0, 0x19);

        let mut wide = Panels::zero(32, 2);
        widen_fours(&packed, &scales, 0, &mut wide);

        let cell = |row: usize, column: usize| wide.panel(0)[row][column];
        assert_eq!([cell(0, 0), cell(1, 0), cell(2, 1), cell(3, 1), cell(4, 1)], [-4.0, 3.5, 2.0, -14.0, 0.0]);
    }

    #[test]
    fn fifteen_bits_are_within_a_ten_thousandth_of_the_exact_product() {
        for (count, depth, width) in [(1, 32, 32), (2, 384, 35), (5, 64, 64), (6, 96, 40), (13, 1536, 32), (300, 32, 64)] {
            let scales: Vec<f32> = numbers(width * depth / BLOCK, 3).iter().map(|number| number.abs() + 0.01).collect();
            let (fours, wide) = matrices(depth, &noise(width * depth / 2, 4), &scales);
            assert_eq!(fours.width(), width.next_multiple_of(PANEL));
            let (a, stride) = (numbers(count * depth, 5), fours.width());
            let (mut found, mut expected) = (vec![1.0; count * stride], vec![1.0; count * stride]);

            let mut slowly = found.clone();

            product_fours(Rows::dense(&a, count, depth), &fours, RowsMut::rows(&mut found, stride));
            portable(Rows::dense(&a, count, depth), &fours, RowsMut::rows(&mut slowly, stride));
            product(Rows::dense(&a, count, depth), &wide, RowsMut::rows(&mut expected, stride));

            let bits = |values: &[f32]| values.iter().map(|value| value.to_bits()).collect::<Vec<_>>();
            assert!(bits(&found) == bits(&slowly), "the kernel and its portable form differ in {count} x {depth} x {width}");
            let size = f32::from(u16::try_from(depth).unwrap()).sqrt();
            for (found, expected) in found.iter().zip(&expected) {
                assert!((found - expected).abs() < 5e-4 * size, "{found} instead of {expected} in {count} x {depth} x {width}");
            }
        }
    }

    #[test]
    fn the_largest_numbers_do_not_overflow() {
        for (value, byte, weight) in [(1.0, 0x00, -8.0), (1.0, 0xff, 7.0), (-1.0, 0x00, -8.0), (0.996, 0xff, 7.0)] {
            let (fours, _) = matrices(64, &[byte; 32 * 32], &[1.0; 64]);
            let mut a = [value; 64 * 6];
            a[0] = 1.0;
            let mut out = vec![0.0; 32 * 6];

            product_fours(Rows::dense(&a, 6, 64), &fours, RowsMut::rows(&mut out, 32));

            let expected: f32 = 64.0 * value * weight;
            assert!(out[32..].iter().all(|found| (found - expected).abs() < 0.03), "{} instead of {expected}", out[32]);
        }
    }

    #[test]
    fn rows_of_nothing_give_nothing_and_rows_that_are_no_numbers_give_none() {
        let (fours, _) = matrices(64, &[0xff; 32 * 32], &[1.0; 64]);
        for value in [f32::INFINITY, f32::NEG_INFINITY, f32::NAN] {
            for place in [0, 15, 16, 63] {
                let (mut row, mut outs) = ([0.5; 64], [vec![2.0; 32], vec![2.0; 32]]);
                row[place] = value;

                product_fours(Rows::dense(&row, 1, 64), &fours, RowsMut::rows(&mut outs[0], 32));
                portable(Rows::dense(&row, 1, 64), &fours, RowsMut::rows(&mut outs[1], 32));

                assert!(outs.iter().flatten().all(|out| out.is_nan()), "{value} at {place}");
            }
        }
        for value in [0.0, 1e-38] {
            let mut out = vec![2.0; 32];

            product_fours(Rows::dense(&[value; 64], 1, 64), &fours, RowsMut::rows(&mut out, 32));

            assert_eq!(out, [2.0; 32]);
        }
    }

    #[test]
    fn a_depth_of_no_whole_blocks_has_no_such_matrix() {
        assert!(Fours::new(48).is_none());
    }
}
