//! Products of rows with a matrix in panels.
//! Trusts: nothing; sizes are checked before the kernels run.
//! Touches: nothing.
//! Next: `worker::speech` builds the recogniser's layers from it.
//!
//! Rows are copied into blocks that stay in the second cache, twelve rows interleaved, so that a kernel reads both operands in one
//! piece: the scheme of Goto and van de Geijn, "Anatomy of High-Performance Matrix Multiplication" (2008).

use super::panels::{Element, PANEL, Panels};
use super::{Unit, unit};

/// Rows of a tile: with two vectors a row, 24 of the 32 registers of AVX-512 hold sums.
const TILE: usize = 12;
/// Rows of the matrix that a block takes: 24 tiles of 12 x 192 numbers are 221 KB.
const BLOCK_DEPTH: usize = 192;
/// Tiles in a block.
const BLOCK_TILES: usize = 24;

/// Where rows begin: `per_step` of them, each `stride` after the one before; the next step is `step` further on.
#[derive(Clone, Copy)]
pub struct Places {
    /// Rows in a step, at least 1.
    pub per_step: usize,
    /// From one of them to the next.
    pub stride: usize,
    /// From one step to the next.
    pub step: usize,
}

impl Places {
    /// One row after `stride` numbers each.
    pub const fn every(stride: usize) -> Self {
        Self { per_step: 1, stride: 0, step: stride }
    }

    const fn of(self, row: usize) -> usize {
        row / self.per_step * self.step + row % self.per_step * self.stride
    }
}

/// Rows of `width` numbers at their places. Rows may overlap.
#[derive(Clone, Copy)]
pub struct Rows<'a> {
    /// The numbers.
    pub data: &'a [f32],
    /// Where each row begins.
    pub places: Places,
    /// Rows.
    pub count: usize,
    /// Numbers in a row.
    pub width: usize,
}

impl<'a> Rows<'a> {
    /// Rows that follow each other.
    pub const fn dense(data: &'a [f32], count: usize, width: usize) -> Self {
        Self { data, places: Places::every(width), count, width }
    }

    pub(super) fn row(&self, row: usize) -> &'a [f32] {
        &self.data[self.places.of(row)..][..self.width]
    }
}

/// Where the product goes: row `i` begins at `i * stride`.
pub struct RowsMut<'a> {
    /// The numbers.
    pub data: &'a mut [f32],
    /// Numbers from one row to the next.
    pub stride: usize,
}

/// `out += a b`. Rows of `out` are written up to [`Panels::padded_width`]: columns past the width stay as they are, because the
/// matrix has zeros there.
///
/// # Panics
/// When the rows of `a` are not as wide as the matrix is deep, or `out` is too small.
pub fn product<T: Element>(a: Rows<'_>, b: &Panels<T>, out: RowsMut<'_>) {
    assert_eq!(a.width, b.depth(), "rows are as wide as the matrix is deep");
    if a.count == 0 {
        return;
    }
    let reach = (a.count - 1) * out.stride + b.padded_width();
    assert!(out.data.len() >= reach && (a.count == 1 || out.stride >= b.padded_width()), "the product fits where it goes");
    let unit = unit();
    if a.count == 1 {
        let (row, _) = out.data.as_chunks_mut::<PANEL>();
        for (panel, out) in row[..b.padded_width() / PANEL].iter_mut().enumerate() {
            one_row(unit, a.row(0), b.panel(panel), out);
        }
        return;
    }
    let mut block = Vec::new();
    for first in (0..a.count).step_by(BLOCK_TILES * TILE) {
        let count = (a.count - first).min(BLOCK_TILES * TILE);
        for from in (0..a.width).step_by(BLOCK_DEPTH) {
            let depth = (a.width - from).min(BLOCK_DEPTH);
            interleave(a, first, count, from..from + depth, &mut block);
            for panel in 0..b.padded_width() / PANEL {
                let cells = &b.panel(panel)[from..from + depth];
                for (tile, rows) in block.chunks_exact(depth).enumerate() {
                    let row = first + tile * TILE;
                    let target = &mut out.data[row * out.stride + panel * PANEL..];
                    let present = (a.count - row).min(TILE);
                    if present == TILE {
                        one_tile(unit, rows, cells, target, out.stride);
                    } else {
                        last_tile(unit, rows, cells, target, out.stride, present);
                    }
                }
            }
        }
    }
}

/// `[tile][depth][row of the tile]`; rows that are not there are zeros.
fn interleave(a: Rows<'_>, first: usize, count: usize, depth: std::ops::Range<usize>, block: &mut Vec<[f32; TILE]>) {
    let length = depth.len();
    block.clear();
    block.resize(count.div_ceil(TILE) * length, [0.0; TILE]);
    for row in 0..count {
        let source = &a.row(first + row)[depth.clone()];
        let target = &mut block[row / TILE * length..][..length];
        for (cell, value) in target.iter_mut().zip(source) {
            cell[row % TILE] = *value;
        }
    }
}

/// A tile of which only the first `present` rows exist.
fn last_tile<T: Element>(unit: Unit, a: &[[f32; TILE]], b: &[[T; PANEL]], out: &mut [f32], stride: usize, present: usize) {
    let mut whole = [0f32; TILE * PANEL];
    one_tile(unit, a, b, &mut whole, PANEL);
    for (row, sums) in whole.chunks_exact(PANEL).take(present).enumerate() {
        for (out, sum) in out[row * stride..][..PANEL].iter_mut().zip(sums) {
            *out += sum;
        }
    }
}

/// `out += a b` for twelve rows and one panel; row `i` of `out` begins at `i * stride`.
fn one_tile<T: Element>(unit: Unit, a: &[[f32; TILE]], b: &[[T; PANEL]], out: &mut [f32], stride: usize) {
    assert!(a.len() == b.len() && out.len() >= (TILE - 1) * stride + PANEL);
    match unit {
        // SAFETY: `unit` says that the processor has it; the kernel reads `a` and `b` to their common length and writes what was checked above.
        #[cfg(target_arch = "x86_64")]
        Unit::Avx512 => unsafe { tile_512(a, b, out.as_mut_ptr(), stride) },
        // SAFETY: as above.
        #[cfg(target_arch = "x86_64")]
        Unit::Avx2 => unsafe { tile_256(a, b, out.as_mut_ptr(), stride) },
        Unit::Portable => {
            for (values, weights) in a.iter().zip(b) {
                for (row, value) in values.iter().enumerate() {
                    for (out, weight) in out[row * stride..][..PANEL].iter_mut().zip(weights) {
                        *out += value * weight.wide();
                    }
                }
            }
        }
    }
}

/// `out += a b` for one row and one panel.
fn one_row<T: Element>(unit: Unit, a: &[f32], b: &[[T; PANEL]], out: &mut [f32; PANEL]) {
    assert_eq!(a.len(), b.len());
    match unit {
        // SAFETY: `unit` says that the processor has it; the kernel reads `a` and `b` to their common length.
        #[cfg(target_arch = "x86_64")]
        Unit::Avx512 => unsafe { row_512(a, b, out) },
        // SAFETY: as above.
        #[cfg(target_arch = "x86_64")]
        Unit::Avx2 => unsafe { row_256(a, b, out) },
        Unit::Portable => {
            for (value, weights) in a.iter().zip(b) {
                for (out, weight) in out.iter_mut().zip(weights) {
                    *out += value * weight.wide();
                }
            }
        }
    }
}

/// # Safety
/// The processor has AVX-512 F and F16C; `b` is as long as `a`; twelve rows of 32 can be written at `out`, `stride` apart.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512vl,avx2,fma,f16c")]
unsafe fn tile_512<T: Element>(a: &[[f32; TILE]], b: &[[T; PANEL]], out: *mut f32, stride: usize) {
    use std::arch::x86_64::{_mm512_fmadd_ps, _mm512_loadu_ps, _mm512_set1_ps, _mm512_setzero_ps, _mm512_storeu_ps};
    let mut sums = [[_mm512_setzero_ps(); 2]; TILE];
    // SAFETY: rows and columns stay below the bounds that the caller promises.
    unsafe {
        for row in 0..TILE {
            sums[row] = [_mm512_loadu_ps(out.add(row * stride)), _mm512_loadu_ps(out.add(row * stride + 16))];
        }
        for depth in 0..a.len() {
            let (values, weights) = (a.as_ptr().add(depth).cast::<f32>(), b.as_ptr().add(depth).cast::<T>());
            let weights = [T::load_512(weights), T::load_512(weights.add(16))];
            for row in 0..TILE {
                let value = _mm512_set1_ps(*values.add(row));
                sums[row] = [_mm512_fmadd_ps(value, weights[0], sums[row][0]), _mm512_fmadd_ps(value, weights[1], sums[row][1])];
            }
        }
        for row in 0..TILE {
            _mm512_storeu_ps(out.add(row * stride), sums[row][0]);
            _mm512_storeu_ps(out.add(row * stride + 16), sums[row][1]);
        }
    }
}

/// # Safety
/// As [`tile_512`], with AVX2, FMA and F16C.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn tile_256<T: Element>(a: &[[f32; TILE]], b: &[[T; PANEL]], out: *mut f32, stride: usize) {
    use std::arch::x86_64::{_mm256_fmadd_ps, _mm256_loadu_ps, _mm256_set1_ps, _mm256_setzero_ps, _mm256_storeu_ps};
    /// With two vectors a row, twelve of the sixteen registers hold sums.
    const ROWS: usize = 6;
    for column in (0..PANEL).step_by(16) {
        for first in (0..TILE).step_by(ROWS) {
            let mut sums = [[_mm256_setzero_ps(); 2]; ROWS];
            // SAFETY: rows and columns stay below the bounds that the caller promises.
            unsafe {
                let out = out.add(first * stride + column);
                for row in 0..ROWS {
                    sums[row] = [_mm256_loadu_ps(out.add(row * stride)), _mm256_loadu_ps(out.add(row * stride + 8))];
                }
                for depth in 0..a.len() {
                    let values = a.as_ptr().add(depth).cast::<f32>().add(first);
                    let weights = b.as_ptr().add(depth).cast::<T>().add(column);
                    let weights = [T::load_256(weights), T::load_256(weights.add(8))];
                    for row in 0..ROWS {
                        let value = _mm256_set1_ps(*values.add(row));
                        sums[row] = [_mm256_fmadd_ps(value, weights[0], sums[row][0]), _mm256_fmadd_ps(value, weights[1], sums[row][1])];
                    }
                }
                for row in 0..ROWS {
                    _mm256_storeu_ps(out.add(row * stride), sums[row][0]);
                    _mm256_storeu_ps(out.add(row * stride + 8), sums[row][1]);
                }
            }
        }
    }
}

/// # Safety
/// The processor has AVX-512 F and F16C; `b` is as long as `a`.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512vl,avx2,fma,f16c")]
unsafe fn row_512<T: Element>(a: &[f32], b: &[[T; PANEL]], out: &mut [f32; PANEL]) {
    use std::arch::x86_64::{_mm512_add_ps, _mm512_fmadd_ps, _mm512_loadu_ps, _mm512_set1_ps, _mm512_setzero_ps, _mm512_storeu_ps};
    // Four chains of additions for each half of the panel, so that their latency does not count.
    let mut sums = [[_mm512_setzero_ps(); 2]; 4];
    // SAFETY: `depth` stays below the common length; `out` has 32 numbers.
    unsafe {
        let step = |depth: usize, sums: &mut [std::arch::x86_64::__m512; 2]| {
            let (value, weights) = (_mm512_set1_ps(*a.as_ptr().add(depth)), b.as_ptr().add(depth).cast::<T>());
            sums[0] = _mm512_fmadd_ps(value, T::load_512(weights), sums[0]);
            sums[1] = _mm512_fmadd_ps(value, T::load_512(weights.add(16)), sums[1]);
        };
        let whole = a.len() / 4 * 4;
        for depth in (0..whole).step_by(4) {
            for chain in 0..4 {
                step(depth + chain, &mut sums[chain]);
            }
        }
        for depth in whole..a.len() {
            step(depth, &mut sums[0]);
        }
        for half in 0..2 {
            let sum = _mm512_add_ps(_mm512_add_ps(sums[0][half], sums[1][half]), _mm512_add_ps(sums[2][half], sums[3][half]));
            let out = out.as_mut_ptr().add(16 * half);
            _mm512_storeu_ps(out, _mm512_add_ps(_mm512_loadu_ps(out), sum));
        }
    }
}

/// # Safety
/// As [`row_512`], with AVX2, FMA and F16C.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn row_256<T: Element>(a: &[f32], b: &[[T; PANEL]], out: &mut [f32; PANEL]) {
    use std::arch::x86_64::{_mm256_add_ps, _mm256_fmadd_ps, _mm256_loadu_ps, _mm256_set1_ps, _mm256_setzero_ps, _mm256_storeu_ps};
    let mut sums = [[_mm256_setzero_ps(); 4]; 2];
    // SAFETY: `depth` stays below the common length; `out` has 32 numbers.
    unsafe {
        let step = |depth: usize, sums: &mut [std::arch::x86_64::__m256; 4]| {
            let (value, weights) = (_mm256_set1_ps(*a.as_ptr().add(depth)), b.as_ptr().add(depth).cast::<T>());
            for quarter in 0..4 {
                sums[quarter] = _mm256_fmadd_ps(value, T::load_256(weights.add(8 * quarter)), sums[quarter]);
            }
        };
        let whole = a.len() / 2 * 2;
        for depth in (0..whole).step_by(2) {
            step(depth, &mut sums[0]);
            step(depth + 1, &mut sums[1]);
        }
        for depth in whole..a.len() {
            step(depth, &mut sums[0]);
        }
        for quarter in 0..4 {
            let out = out.as_mut_ptr().add(8 * quarter);
            _mm256_storeu_ps(out, _mm256_add_ps(_mm256_loadu_ps(out), _mm256_add_ps(sums[0][quarter], sums[1][quarter])));
        }
    }
}

#[cfg(test)]
#[expect(clippy::as_conversions, reason = "small integers, exact in f32")]
mod tests {
    use super::super::all_units;
    use super::super::half::Half;
    use super::*;

    /// Small integers, so that sums are exact in any order.
    fn numbers(count: usize, seed: usize) -> Vec<f32> {
        (0..count).map(|at| ((at * 7919 + seed * 104_729) % 17) as f32 - 8.0).collect()
    }

    fn exact(a: Rows<'_>, b: &[f32], width: usize) -> Vec<f32> {
        let cell = |row: usize, column: usize| a.row(row).iter().enumerate().map(|(at, value)| value * b[at * width + column]).sum();
        (0..a.count).flat_map(|row| (0..width).map(move |column| (row, column))).map(|(row, column)| cell(row, column)).collect()
    }

    #[test]
    fn products_of_every_shape_are_exact() {
        for (count, depth, width) in [(1, 1, 1), (1, 67, 33), (2, 5, 32), (12, 64, 64), (13, 200, 40), (25, 400, 96), (300, 3, 7)] {
            let (a, b) = (numbers(count * depth, 1), numbers(depth * width, 2));
            let rows = Rows::dense(&a, count, depth);
            let panels = Panels::from_rows(depth, width, &b);
            let stride = panels.padded_width();
            let mut out = vec![1.0; count * stride];

            product(rows, &panels, RowsMut { data: &mut out, stride });

            let expected = exact(rows, &b, width);
            for (row, expected) in expected.chunks(width).enumerate() {
                let found: Vec<f32> = out[row * stride..][..width].iter().map(|value| value - 1.0).collect();
                assert_eq!(found, expected, "row {row} of {count} x {depth} x {width}");
            }
        }
    }

    #[test]
    fn every_unit_gives_the_same_for_both_kinds_of_numbers() {
        let (a, b) = (numbers(TILE * 70, 3), numbers(70 * PANEL, 4));
        let halves: Vec<Half> = b.iter().map(|value| Half::nearest(*value)).collect();
        let (single, half) = (Panels::from_rows(70, PANEL, &b), Panels::from_rows(70, PANEL, &halves));
        let mut block = Vec::new();
        interleave(Rows::dense(&a, TILE, 70), 0, TILE, 0..70, &mut block);
        let expected = exact(Rows::dense(&a, TILE, 70), &b, PANEL);
        for unit in all_units() {
            let mut tiles = [vec![0f32; TILE * PANEL], vec![0f32; TILE * PANEL]];
            one_tile(unit, &block, single.panel(0), &mut tiles[0], PANEL);
            one_tile(unit, &block, half.panel(0), &mut tiles[1], PANEL);
            let mut rows = [[0f32; PANEL]; 2];
            one_row(unit, &a[..70], single.panel(0), &mut rows[0]);
            one_row(unit, &a[..70], half.panel(0), &mut rows[1]);

            assert!(tiles.iter().all(|tile| *tile == expected));
            assert!(rows.iter().all(|row| *row == expected[..PANEL]));
        }
    }

    #[test]
    fn rows_may_overlap_as_a_convolution_needs() {
        let a = numbers(20, 5);
        let rows = Rows { data: &a, places: Places::every(2), count: 8, width: 6 };
        let b = numbers(6 * 32, 6);
        let mut out = vec![0f32; 8 * 32];

        product(rows, &Panels::from_rows(6, 32, &b), RowsMut { data: &mut out, stride: 32 });

        assert_eq!(out, exact(rows, &b, 32));
    }

    #[test]
    fn rows_may_lie_in_steps_as_frames_with_a_margin_do() {
        let a = numbers(17 * 41, 7);
        let rows = Rows { data: &a, places: Places { per_step: 2, stride: 5, step: 41 }, count: 34, width: 36 };
        let b = numbers(36 * 32, 8);
        let mut out = vec![0f32; 34 * 32];

        product(rows, &Panels::from_rows(36, 32, &b), RowsMut { data: &mut out, stride: 32 });

        assert_eq!(out, exact(rows, &b, 32));
        assert_eq!(rows.row(3), &a[41 + 5..][..36]);
    }

    #[test]
    #[should_panic(expected = "the product fits where it goes")]
    fn a_product_that_does_not_fit_is_refused() {
        product(Rows::dense(&[1.0; 4], 2, 2), &Panels::<f32>::zero(2, 32), RowsMut { data: &mut [0.0; 63], stride: 32 });
    }
}
