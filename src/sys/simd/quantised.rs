//! Products in eight bits, for processors that multiply four pairs of bytes at once (AVX-512 VNNI).
//! Trusts: nothing; sizes are checked before the kernels run.
//! Touches: nothing.
//! Next: `worker::speech` uses it for its large products, where the processor has it.
//!
//! The depth is cut into blocks. In each, every column of the matrix has a scale of its own, found once, and every row that it is
//! multiplied with has one, found for each product: so one large number takes precision from its neighbours only.

use super::half::Half;
use super::panels::{PANEL, Panels};
use super::product::{Rows, RowsMut};

/// Rows of a tile, as in [`super::product`].
const TILE: usize = 12;
/// Bytes that one instruction multiplies and adds in each column.
const GROUP: usize = 4;
/// Rows of the matrix that share a scale in each column.
const BLOCK: usize = 256;
/// What is added to signed bytes of a row, because the instruction takes its first operand as unsigned.
const SHIFT: i32 = 128;
/// Tiles whose rows are quantised before the matrix is gone through: 24 tiles of 12 x 2048 bytes are 590 KB.
const BLOCK_TILES: usize = 24;

/// A matrix in signed bytes.
pub struct Quantised {
    depth: usize,
    width: usize,
    /// `[panel][group of rows][column of the panel][row of the group]`
    cells: Vec<[i8; PANEL * GROUP]>,
    /// `[panel][block]`
    scales: Vec<[f32; PANEL]>,
    /// [`SHIFT`] times the sum of a column's bytes in a block: what the shift of the rows adds. `[panel][block]`
    offsets: Vec<[i32; PANEL]>,
}

impl Quantised {
    /// Whether this processor multiplies so.
    pub fn is_fast() -> bool {
        #[cfg(target_arch = "x86_64")]
        {
            super::unit() == super::Unit::Avx512
                && std::arch::is_x86_feature_detected!("avx512bw")
                && std::arch::is_x86_feature_detected!("avx512vnni")
        }
        #[cfg(not(target_arch = "x86_64"))]
        {
            false
        }
    }

    /// Rounds a matrix; `None` when its depth is no multiple of four.
    pub fn new(matrix: &Panels<Half>) -> Option<Self> {
        let (depth, width) = (matrix.depth(), matrix.width());
        if !depth.is_multiple_of(GROUP) {
            return None;
        }
        let mut made = Self { depth, width, cells: Vec::new(), scales: Vec::new(), offsets: Vec::new() };
        for panel in 0..made.panels() {
            for block in matrix.panel(panel).chunks(BLOCK) {
                made.push_block(block);
            }
        }
        Some(made)
    }

    fn push_block(&mut self, rows: &[[Half; PANEL]]) {
        let mut peaks = [0f32; PANEL];
        for row in rows {
            for (peak, value) in peaks.iter_mut().zip(row) {
                *peak = peak.max(value.wide().abs());
            }
        }
        let scales = peaks.map(|peak| if peak > 0.0 && peak.is_finite() { peak / 127.0 } else { 1.0 });
        let factors = scales.map(|scale| 1.0 / scale);
        let mut sums = [0i32; PANEL];
        for group in rows.chunks_exact(GROUP) {
            let mut cells = [0i8; PANEL * GROUP];
            for (place, row) in group.iter().enumerate() {
                for (column, value) in row.iter().enumerate() {
                    let rounded = nearest(value.wide() * factors[column]);
                    cells[column * GROUP + place] = rounded;
                    sums[column] += i32::from(rounded);
                }
            }
            self.cells.push(cells);
        }
        self.scales.push(scales);
        self.offsets.push(sums.map(|sum| sum * SHIFT));
    }

    const fn panels(&self) -> usize {
        self.width.div_ceil(PANEL)
    }

    const fn blocks(&self) -> usize {
        self.depth.div_ceil(BLOCK)
    }

    /// Columns.
    pub const fn width(&self) -> usize {
        self.width
    }
}

/// To the nearest of -127..=127, ties to even.
///
/// Adding 1.5 * 2^23 leaves the rounded number in the lowest bits: a conversion that checks its limits, and a rounding that is a
/// library call where SSE4.1 is not taken for granted, made loading a model three times as slow.
#[inline(always)]
fn nearest(value: f32) -> i8 {
    const ROUND: f32 = 12_582_912.0;
    i8::from_le_bytes([(value.clamp(-127.0, 127.0) + ROUND).to_le_bytes()[0]])
}

/// `out += a b`, as [`super::product`].
///
/// # Panics
/// When the rows of `a` are not as wide as the matrix is deep, or `out` is too small.
pub fn product_quantised(a: Rows<'_>, b: &Quantised, out: RowsMut<'_>) {
    assert_eq!(a.width, b.depth, "rows are as wide as the matrix is deep");
    if a.count == 0 || b.panels() == 0 {
        return;
    }
    out.check(a.count, b.panels());
    #[cfg(target_arch = "x86_64")]
    if Quantised::is_fast() {
        // SAFETY: the processor has been found to have what the kernel is compiled for.
        unsafe { vnni::blocks(a, b, out) };
        return;
    }
    portable(a, b, out);
}

/// The same, slowly: what the kernel must give, to the bit.
fn portable(a: Rows<'_>, b: &Quantised, mut out: RowsMut<'_>) {
    for row in 0..a.count {
        let mut whole = vec![0f32; b.width];
        for (block, values) in a.row(row).chunks(BLOCK).enumerate() {
            let scale = row_scale(largest_magnitude(values));
            let factor = if scale > 0.0 { 1.0 / scale } else { 0.0 };
            let bytes: Vec<i32> = values.iter().map(|value| i32::from(nearest(value * factor))).collect();
            for column in 0..b.width {
                let panel = column / PANEL;
                let cells = b.cells[panel * (b.depth / GROUP) + block * (BLOCK / GROUP)..].iter();
                let weights = cells.flat_map(|cell| cell[column % PANEL * GROUP..][..GROUP].iter().copied());
                let sum: i32 = bytes.iter().zip(weights).map(|(byte, weight)| byte * i32::from(weight)).sum();
                let factor = b.scales[panel * b.blocks() + block][column % PANEL] * scale;
                whole[column] = exact(sum).mul_add(factor, whole[column]);
            }
        }
        for (panel, sums) in whole.chunks(PANEL).enumerate() {
            for (out, sum) in out.at(row, panel).iter_mut().zip(sums) {
                *out += sum;
            }
        }
    }
}

/// What a byte of a row with this largest magnitude stands for: 0 for a row of zeros; no number for one that holds something that is
/// infinite or no number, so that its products are none either.
fn row_scale(peak: f32) -> f32 {
    match peak {
        peak if !peak.is_finite() => f32::NAN,
        peak if peak > 1e-30 => peak / 127.0,
        _ => 0.0,
    }
}

/// The largest magnitude in a row; what is no number is larger than all.
pub(super) fn largest_magnitude(row: &[f32]) -> f32 {
    f32::from_bits(row.iter().fold(0, |peak, value| peak.max(value.abs().to_bits())))
}

/// To the nearest, as the processor converts.
#[expect(clippy::as_conversions, reason = "sums of 2048 products of bytes are within 2^25")]
pub(super) fn exact(sum: i32) -> f32 {
    sum as f32
}

#[cfg(target_arch = "x86_64")]
pub(super) mod vnni {
    use std::arch::x86_64::*;

    use super::*;

    /// Rows quantised, interleaved by tile.
    #[derive(Default)]
    struct Interleaved {
        /// `[tile][group][row of the tile]`, four bytes each.
        groups: Vec<[u32; TILE]>,
        /// `[tile][block][row of the tile]`
        scales: Vec<[f32; TILE]>,
        bytes: Vec<u8>,
    }

    impl Interleaved {
        #[target_feature(enable = "avx512f,avx512vl,avx512bw,avx512vnni,avx2,fma,f16c")]
        fn fill(&mut self, a: Rows<'_>, first: usize, count: usize, b: &Quantised) {
            let (depth, blocks, tiles) = (b.depth / GROUP, b.blocks(), count.div_ceil(TILE));
            self.groups.resize(tiles * depth, [0; TILE]);
            self.scales.resize(tiles * blocks, [0.0; TILE]);
            self.bytes.resize(b.depth, 0);
            for row in 0..count {
                let (tile, place) = (row / TILE, row % TILE);
                for (block, (values, bytes)) in a.row(first + row).chunks(BLOCK).zip(self.bytes.chunks_mut(BLOCK)).enumerate() {
                    self.scales[tile * blocks + block][place] = quantise(values, bytes);
                }
                for (group, bytes) in self.groups[tile * depth..][..depth].iter_mut().zip(self.bytes.as_chunks::<GROUP>().0) {
                    group[place] = u32::from_le_bytes(*bytes);
                }
            }
        }
    }

    /// # Safety
    /// The processor has AVX-512 F, VL, BW and VNNI.
    #[target_feature(enable = "avx512f,avx512vl,avx512bw,avx512vnni,avx2,fma,f16c")]
    pub(super) unsafe fn blocks(a: Rows<'_>, b: &Quantised, mut out: RowsMut<'_>) {
        let (depth, blocks) = (b.depth / GROUP, b.blocks());
        let mut rows = Interleaved::default();
        for first in (0..a.count).step_by(BLOCK_TILES * TILE) {
            let count = (a.count - first).min(BLOCK_TILES * TILE);
            rows.fill(a, first, count, b);
            for (panel, cells) in b.cells.chunks(depth).enumerate() {
                for tile in 0..count.div_ceil(TILE) {
                    let row = first + tile * TILE;
                    let present = (a.count - row).min(TILE);
                    let mut whole = [[0f32; PANEL]; TILE];
                    for (block, cells) in cells.chunks(BLOCK / GROUP).enumerate() {
                        let groups = &rows.groups[tile * depth + block * (BLOCK / GROUP)..][..cells.len()];
                        let mut sums = [[0i32; PANEL]; TILE];
                        // SAFETY: the features are enabled here too; groups and cells have the same length.
                        unsafe {
                            match present {
                                1 => few::<1>(groups, cells, &mut sums),
                                2 => few::<2>(groups, cells, &mut sums),
                                3..=4 => few::<4>(groups, cells, &mut sums),
                                5..=6 => few::<6>(groups, cells, &mut sums),
                                _ => few::<TILE>(groups, cells, &mut sums),
                            }
                        }
                        let (of_rows, of_columns) = (&rows.scales[tile * blocks + block], panel * blocks + block);
                        for (place, sums) in sums.iter().take(present).enumerate() {
                            add(sums, &b.offsets[of_columns], &b.scales[of_columns], of_rows[place], &mut whole[place]);
                        }
                    }
                    for (place, sums) in whole.iter().take(present).enumerate() {
                        for (out, sum) in out.at(row + place, panel)[..PANEL].iter_mut().zip(sums) {
                            *out += sum;
                        }
                    }
                }
            }
        }
    }

    /// `out += (sums - offsets) * scales * scale`
    #[target_feature(enable = "avx512f,avx512vl,avx512bw,avx512vnni,avx2,fma,f16c")]
    fn add(sums: &[i32; PANEL], offsets: &[i32; PANEL], scales: &[f32; PANEL], scale: f32, out: &mut [f32; PANEL]) {
        for half in [0, 16] {
            // SAFETY: all have 32 numbers.
            unsafe {
                let sum = _mm512_sub_epi32(
                    _mm512_loadu_si512(sums.as_ptr().add(half).cast()),
                    _mm512_loadu_si512(offsets.as_ptr().add(half).cast()),
                );
                let factor = _mm512_mul_ps(_mm512_loadu_ps(scales.as_ptr().add(half)), _mm512_set1_ps(scale));
                let out = out.as_mut_ptr().add(half);
                _mm512_storeu_ps(out, _mm512_fmadd_ps(_mm512_cvtepi32_ps(sum), factor, _mm512_loadu_ps(out)));
            }
        }
    }

    /// Bytes of a row, shifted to be unsigned, and the scale that gives its numbers back, see [`row_scale`].
    #[target_feature(enable = "avx512f,avx512vl,avx512bw,avx512vnni,avx2,fma,f16c")]
    fn quantise(row: &[f32], bytes: &mut [u8]) -> f32 {
        assert!(row.len() == bytes.len());
        let whole = row.len() / 16 * 16;
        let scale = row_scale(largest(row));
        let factor = if scale > 0.0 { 1.0 / scale } else { 0.0 };
        for at in (0..whole).step_by(16) {
            // SAFETY: sixteen numbers from `at` are below `whole`, and as many bytes.
            unsafe {
                let rounded = _mm512_cvtps_epi32(_mm512_mul_ps(_mm512_loadu_ps(row.as_ptr().add(at)), _mm512_set1_ps(factor)));
                let shifted =
                    _mm512_cvtusepi32_epi8(_mm512_max_epi32(_mm512_add_epi32(rounded, _mm512_set1_epi32(SHIFT)), _mm512_setzero_si512()));
                _mm_storeu_si128(bytes.as_mut_ptr().add(at).cast(), shifted);
            }
        }
        for (byte, value) in bytes[whole..].iter_mut().zip(&row[whole..]) {
            *byte = nearest(value * factor).cast_unsigned().wrapping_add(128);
        }
        scale
    }

    /// As [`largest_magnitude`].
    #[target_feature(enable = "avx512f,avx512vl,avx512bw,avx512vnni,avx2,fma,f16c")]
    pub(in super::super) fn largest(row: &[f32]) -> f32 {
        let whole = row.len() / 16 * 16;
        // Of the bits, as whole numbers: what is no number is larger than all.
        let mut peak = _mm512_setzero_si512();
        for at in (0..whole).step_by(16) {
            // SAFETY: sixteen numbers from `at` are below `whole`.
            peak = unsafe { _mm512_max_epu32(peak, _mm512_castps_si512(_mm512_abs_ps(_mm512_loadu_ps(row.as_ptr().add(at))))) };
        }
        f32::from_bits(_mm512_reduce_max_epu32(peak).max(largest_magnitude(&row[whole..]).to_bits()))
    }

    /// The products of the first `ROWS` rows of a tile with a panel.
    ///
    /// # Safety
    /// The processor has AVX-512 F, VL, BW and VNNI; `cells` is as long as `groups`.
    #[target_feature(enable = "avx512f,avx512vl,avx512bw,avx512vnni,avx2,fma,f16c")]
    unsafe fn few<const ROWS: usize>(groups: &[[u32; TILE]], cells: &[[i8; PANEL * GROUP]], out: &mut [[i32; PANEL]; TILE]) {
        let mut sums = [[_mm512_setzero_si512(); 2]; ROWS];
        for group in 0..groups.len() {
            // SAFETY: `group` is below the common length; a cell has 128 bytes, and `ROWS` is at most `TILE`.
            unsafe {
                let values = groups.as_ptr().add(group).cast::<i32>();
                let weights = cells.as_ptr().add(group).cast::<i8>();
                let weights = [_mm512_loadu_si512(weights.cast()), _mm512_loadu_si512(weights.add(64).cast())];
                for row in 0..ROWS {
                    let value = _mm512_set1_epi32(*values.add(row));
                    sums[row] =
                        [_mm512_dpbusd_epi32(sums[row][0], value, weights[0]), _mm512_dpbusd_epi32(sums[row][1], value, weights[1])];
                }
            }
        }
        for (sums, out) in sums.iter().zip(out) {
            // SAFETY: 32 numbers are written to an array of 32.
            unsafe {
                _mm512_storeu_si512(out.as_mut_ptr().cast(), sums[0]);
                _mm512_storeu_si512(out.as_mut_ptr().add(16).cast(), sums[1]);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::product;
    use super::*;

    /// Numbers between -1 and 1 that look random.
    fn numbers(count: usize, mut state: u32) -> Vec<f32> {
        let mut next = || {
            state ^= state << 13;
            state ^= state >> 17;
            state ^= state << 5;
            f32::from(i16::from_le_bytes([state.to_le_bytes()[1], state.to_le_bytes()[2]])) / 32768.0
        };
        (0..count).map(|_| next()).collect()
    }

    #[test]
    fn eight_bits_are_within_a_hundredth_of_the_exact_product() {
        for (count, depth, width) in [(1, 64, 32), (2, 512, 96), (3, 36, 40), (5, 384, 64), (30, 2048, 32), (301, 64, 32)] {
            let (a, b) = (numbers(count * depth, 1), numbers(depth * width, 2));
            let matrix = Panels::from_rows(depth, width, &b.iter().map(|value| Half::nearest(*value)).collect::<Vec<_>>());
            let rows = Rows::dense(&a, count, depth);
            let stride = matrix.padded_width();
            let (mut exact, mut rounded) = (vec![1.0; count * stride], vec![1.0; count * stride]);

            let quantised = Quantised::new(&matrix).unwrap();
            let mut expected = rounded.clone();

            product(rows, &matrix, RowsMut::rows(&mut exact, stride));
            product_quantised(rows, &quantised, RowsMut::rows(&mut rounded, stride));
            portable(rows, &quantised, RowsMut::rows(&mut expected, stride));

            let bits = |values: &[f32]| values.iter().map(|value| value.to_bits()).collect::<Vec<_>>();
            assert!(bits(&rounded) == bits(&expected), "the kernel and its portable form differ in {count} x {depth} x {width}");
            let size = f32::from(u16::try_from(depth).unwrap()).sqrt();
            for (exact, rounded) in exact.iter().zip(&rounded) {
                assert!((exact - rounded).abs() < 0.01 * size, "{rounded} instead of {exact} in {count} x {depth} x {width}");
            }
        }
    }

    /// Rows and columns whose blocks hold whole numbers up to 127, and 127 itself, become bytes exactly: the product must be exact,
    /// in the portable form on every machine and in the kernel where the processor has one.
    #[test]
    fn whole_numbers_are_multiplied_exactly_with_and_without_a_kernel() {
        for (count, depth, width) in [(1, 64, 32), (2, 516, 40), (3, 36, 40), (7, 1028, 64), (13, 2048, 96)] {
            let whole = |count, seed| numbers(count, seed).into_iter().map(|value| (value * 127.0).round()).collect::<Vec<f32>>();
            let (mut a, mut b) = (whole(count * depth, 3), whole(depth * width, 4));
            for first in (0..depth).step_by(BLOCK) {
                (0..count).for_each(|row| a[row * depth + first] = 127.0);
                (0..width).for_each(|column| b[first * width + column] = -127.0);
            }
            let expected: Vec<f32> = (0..count * width)
                .map(|at| (0..depth).map(|inner| a[at / width * depth + inner] * b[inner * width + at % width]).sum())
                .collect();
            let matrix = Panels::from_rows(depth, width, &b.iter().map(|value| Half::nearest(*value)).collect::<Vec<_>>());
            let (quantised, stride) = (Quantised::new(&matrix).unwrap(), matrix.padded_width());
            for (form, product) in [("portable", portable as fn(Rows<'_>, &Quantised, RowsMut<'_>)), ("fastest", product_quantised)] {
                let mut out = vec![0.0; count * stride];
                product(Rows::dense(&a, count, depth), &quantised, RowsMut::rows(&mut out, stride));
                for (row, expected) in out.chunks(stride).zip(expected.chunks(width)) {
                    assert_eq!(&row[..width], expected, "{form}: {count} x {depth} x {width}");
                }
            }
        }
    }

    #[test]
    fn a_product_in_panels_is_the_product_in_rows() {
        let (a, b) = (numbers(25 * 64, 5), numbers(64 * 96, 6));
        let halves: Vec<Half> = b.iter().map(|value| Half::nearest(*value)).collect();
        let (rows, matrix) = (Rows::dense(&a, 25, 64), Quantised::new(&Panels::from_rows(64, 96, &halves)).unwrap());
        let (mut in_rows, mut in_panels) = (vec![0f32; 25 * 96], vec![[0f32; PANEL]; 3 * 25]);

        product_quantised(rows, &matrix, RowsMut::rows(&mut in_rows, 96));
        product_quantised(rows, &matrix, RowsMut::panels(&mut in_panels, 25));

        for (row, expected) in in_rows.chunks(96).enumerate() {
            let found: Vec<f32> = (0..3).flat_map(|panel| in_panels[panel * 25 + row]).collect();
            assert_eq!(found, expected);
        }
    }

    #[test]
    fn rows_of_nothing_give_nothing_and_rows_that_are_no_numbers_give_none() {
        let matrix = Panels::from_rows(64, 32, &vec![Half::nearest(1.0); 64 * 32]);
        let matrix = Quantised::new(&matrix).unwrap();
        for value in [f32::INFINITY, f32::NEG_INFINITY, f32::NAN] {
            for place in [0, 15, 16, 63] {
                let (mut row, mut outs) = ([0.5; 64], [vec![2.0; 32], vec![2.0; 32]]);
                row[place] = value;

                product_quantised(Rows::dense(&row, 1, 64), &matrix, RowsMut::rows(&mut outs[0], 32));
                portable(Rows::dense(&row, 1, 64), &matrix, RowsMut::rows(&mut outs[1], 32));

                assert!(outs.iter().flatten().all(|out| out.is_nan()), "{value} at {place}");
            }
        }
        for value in [0.0, 1e-38] {
            let mut out = vec![2.0; 32];

            product_quantised(Rows::dense(&[value; 64], 1, 64), &matrix, RowsMut::rows(&mut out, 32));
            portable(Rows::dense(&[value; 64], 1, 64), &matrix, RowsMut::rows(&mut out, 32));

            assert_eq!(out, [2.0; 32]);
        }
    }
}
