//! Products of rows with a matrix in panels.
//! Trusts: nothing; sizes are checked before the kernels run.
//! Touches: nothing.
//! Next: `worker::speech` builds the recogniser's layers from it.
//!
//! Rows are copied into blocks that stay in the second cache, twelve rows interleaved, so that a kernel reads both operands in one
//! piece: the scheme of Goto and van de Geijn, "Anatomy of High-Performance Matrix Multiplication" (2008). A matrix of two panels
//! or fewer does not pay for the copy: it reads whole tiles of rows where they are.

use super::panels::{Element, PANEL, PanelsRef};
use super::{Unit, unit};

/// Rows of a tile: with two vectors a row, 24 of the 32 registers of AVX-512 hold sums.
const TILE: usize = 12;
/// Rows of the matrix that a block takes: 24 tiles of 12 x 192 numbers are 221 KB.
const BLOCK_DEPTH: usize = 192;
/// Tiles in a block.
const BLOCK_TILES: usize = 24;
/// Panels up to which rows are read where they are.
const PANELS_FEW: usize = 2;

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

/// Where the product goes: panel `p` of row `i` begins at `i * stride + p * panel`.
pub struct RowsMut<'a> {
    data: &'a mut [f32],
    stride: usize,
    panel: usize,
}

impl<'a> RowsMut<'a> {
    /// Row after row, each beginning `stride` after the one before.
    pub const fn rows(data: &'a mut [f32], stride: usize) -> Self {
        Self { data, stride, panel: PANEL }
    }

    /// Panel after panel, as [`Panels`] hold a matrix of as many rows.
    pub const fn panels(cells: &'a mut [[f32; PANEL]], rows: usize) -> Self {
        Self { data: cells.as_flattened_mut(), stride: PANEL, panel: rows * PANEL }
    }

    /// From a row on.
    pub fn from(&mut self, row: usize) -> RowsMut<'_> {
        RowsMut { data: &mut self.data[row * self.stride..], stride: self.stride, panel: self.panel }
    }

    /// From the panel of a row on.
    pub(super) fn at(&mut self, row: usize, panel: usize) -> &mut [f32] {
        &mut self.data[row * self.stride + panel * self.panel..]
    }

    pub(super) const fn stride(&self) -> usize {
        self.stride
    }

    /// # Panics
    /// When so many rows and panels do not fit, or would overlap.
    pub(super) fn check(&self, rows: usize, panels: usize) {
        let reach = (rows - 1) * self.stride + (panels - 1) * self.panel + PANEL;
        let apart = rows == 1 || self.stride >= panels * PANEL || (self.stride == PANEL && self.panel >= rows * PANEL);
        assert!(self.data.len() >= reach && apart, "the product fits where it goes");
    }
}

/// `out += a b`. Rows of `out` are written up to [`Panels::padded_width`]: columns past the width stay as they are, because the
/// matrix has zeros there.
///
/// # Panics
/// When the rows of `a` are not as wide as the matrix is deep, or `out` is too small.
pub fn product<'b, T: Element + 'b>(a: Rows<'_>, b: impl Into<PanelsRef<'b, T>>, mut out: RowsMut<'_>) {
    let b = b.into();
    assert_eq!(a.width, b.depth(), "rows are as wide as the matrix is deep");
    if a.count == 0 || b.panels() == 0 {
        return;
    }
    out.check(a.count, b.panels());
    let unit = unit();
    if a.count == 1 {
        for panel in 0..b.panels() {
            if let Some(out) = out.at(0, panel).first_chunk_mut() {
                one_row(unit, a.row(0), b.panel(panel), out);
            }
        }
        return;
    }
    let whole = if b.panels() <= PANELS_FEW && a.places.per_step == 1 { a.count / TILE * TILE } else { 0 };
    in_place(unit, a, whole, b, &mut out);
    let mut block = Vec::new();
    for first in (whole..a.count).step_by(BLOCK_TILES * TILE) {
        let count = (a.count - first).min(BLOCK_TILES * TILE);
        for from in (0..a.width).step_by(BLOCK_DEPTH) {
            let depth = (a.width - from).min(BLOCK_DEPTH);
            interleave(a, first, count, from..from + depth, &mut block);
            for panel in 0..b.panels() {
                let cells = &b.panel(panel)[from..from + depth];
                for (tile, rows) in block.chunks_exact(depth).enumerate() {
                    let row = first + tile * TILE;
                    let (rows, stride) = (Tile::Interleaved(rows), out.stride());
                    let present = (a.count - row).min(TILE);
                    if present == TILE {
                        one_tile(unit, rows, cells, out.at(row, panel), stride);
                    } else {
                        last_tile(unit, rows, cells, out.at(row, panel), stride, present);
                    }
                }
            }
        }
    }
}

/// The first `count` rows, a multiple of a tile, read where they are.
fn in_place<T: Element>(unit: Unit, a: Rows<'_>, count: usize, b: PanelsRef<'_, T>, out: &mut RowsMut<'_>) {
    for from in (0..a.width).step_by(BLOCK_DEPTH) {
        let depth = (a.width - from).min(BLOCK_DEPTH);
        for panel in 0..b.panels() {
            let cells = &b.panel(panel)[from..from + depth];
            for row in (0..count).step_by(TILE) {
                let rows = Tile::InPlace(&a.data[a.places.of(row) + from..], a.places.step);
                let stride = out.stride();
                one_tile(unit, rows, cells, out.at(row, panel), stride);
            }
        }
    }
}

/// Twelve rows.
#[derive(Clone, Copy)]
enum Tile<'a> {
    /// As [`interleave`] lays them out.
    Interleaved(&'a [[f32; TILE]]),
    /// Each beginning so many numbers after the one before.
    InPlace(&'a [f32], usize),
}

impl Tile<'_> {
    /// Numbers in a row, at least `depth`.
    fn holds(self, depth: usize) -> bool {
        match self {
            Tile::Interleaved(cells) => cells.len() >= depth,
            Tile::InPlace(data, stride) => data.len() >= (TILE - 1) * stride + depth,
        }
    }

    fn value(self, row: usize, depth: usize) -> f32 {
        match self {
            Tile::Interleaved(cells) => cells[depth][row],
            Tile::InPlace(data, stride) => data[row * stride + depth],
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
fn last_tile<T: Element>(unit: Unit, a: Tile<'_>, b: &[[T; PANEL]], out: &mut [f32], stride: usize, present: usize) {
    let mut whole = [0f32; TILE * PANEL];
    one_tile(unit, a, b, &mut whole, PANEL);
    for (row, sums) in whole.chunks_exact(PANEL).take(present).enumerate() {
        for (out, sum) in out[row * stride..][..PANEL].iter_mut().zip(sums) {
            *out += sum;
        }
    }
}

/// `out += a b` for twelve rows and one panel; row `i` of `out` begins at `i * stride`.
fn one_tile<T: Element>(unit: Unit, a: Tile<'_>, b: &[[T; PANEL]], out: &mut [f32], stride: usize) {
    assert!(a.holds(b.len()) && out.len() >= (TILE - 1) * stride + PANEL);
    match unit {
        // SAFETY: `unit` says that the processor has it; the kernel reads as much of `a` as `b` is long, and writes, as was checked above.
        #[cfg(target_arch = "x86_64")]
        Unit::Avx512 => unsafe {
            match a {
                Tile::Interleaved(cells) => tile_512::<T, true>(cells.as_ptr().cast(), 1, b, out.as_mut_ptr(), stride),
                Tile::InPlace(data, step) => tile_512::<T, false>(data.as_ptr(), step, b, out.as_mut_ptr(), stride),
            }
        },
        // SAFETY: as above.
        #[cfg(target_arch = "x86_64")]
        Unit::Avx2 => unsafe {
            match a {
                Tile::Interleaved(cells) => tile_256::<T, true>(cells.as_ptr().cast(), 1, b, out.as_mut_ptr(), stride),
                Tile::InPlace(data, step) => tile_256::<T, false>(data.as_ptr(), step, b, out.as_mut_ptr(), stride),
            }
        },
        Unit::Portable => {
            for (at, weights) in b.iter().enumerate() {
                for row in 0..TILE {
                    let value = a.value(row, at);
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

/// Where a kernel reads the rows of a tile. In place, every third row has a pointer of its own, from which the processor reaches the
/// next two: twelve pointers would not fit its registers.
#[cfg(target_arch = "x86_64")]
struct Cursor<const INTERLEAVED: bool> {
    thirds: [*const f32; TILE / 3],
    steps: [usize; 3],
}

#[cfg(target_arch = "x86_64")]
impl<const INTERLEAVED: bool> Cursor<INTERLEAVED> {
    /// At the row `first` of the tile at `a`.
    #[inline(always)]
    fn new(a: *const f32, step: usize, first: usize) -> Self {
        let third = |third: usize| a.wrapping_add((first + 3 * third) * step);
        Self { thirds: [third(0), third(1), third(2), third(3)], steps: [0, step, 2 * step] }
    }

    /// # Safety
    /// The tile has that row and depth.
    #[inline(always)]
    unsafe fn value(&self, row: usize, depth: usize) -> f32 {
        // SAFETY: the caller's promise.
        unsafe {
            if INTERLEAVED { *self.thirds[0].add(depth * TILE + row) } else { *self.thirds[row / 3].add(depth).add(self.steps[row % 3]) }
        }
    }
}

/// # Safety
/// The processor has AVX-512 F and F16C; `a` has twelve rows as long as `b`; twelve rows of 32 can be written at `out`, `stride` apart.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512vl,avx2,fma,f16c")]
unsafe fn tile_512<T: Element, const INTERLEAVED: bool>(a: *const f32, step: usize, b: &[[T; PANEL]], out: *mut f32, stride: usize) {
    use std::arch::x86_64::{_mm512_fmadd_ps, _mm512_loadu_ps, _mm512_set1_ps, _mm512_setzero_ps, _mm512_storeu_ps};
    let mut sums = [[_mm512_setzero_ps(); 2]; TILE];
    let rows = Cursor::<INTERLEAVED>::new(a, step, 0);
    // SAFETY: rows and columns stay below the bounds that the caller promises.
    unsafe {
        for row in 0..TILE {
            sums[row] = [_mm512_loadu_ps(out.add(row * stride)), _mm512_loadu_ps(out.add(row * stride + 16))];
        }
        for depth in 0..b.len() {
            let weights = b.as_ptr().add(depth).cast::<T>();
            let weights = [T::load_512(weights), T::load_512(weights.add(16))];
            for row in 0..TILE {
                let value = _mm512_set1_ps(rows.value(row, depth));
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
unsafe fn tile_256<T: Element, const INTERLEAVED: bool>(a: *const f32, step: usize, b: &[[T; PANEL]], out: *mut f32, stride: usize) {
    use std::arch::x86_64::{_mm256_fmadd_ps, _mm256_loadu_ps, _mm256_set1_ps, _mm256_setzero_ps, _mm256_storeu_ps};
    /// With two vectors a row, twelve of the sixteen registers hold sums.
    const ROWS: usize = 6;
    for column in (0..PANEL).step_by(16) {
        for first in (0..TILE).step_by(ROWS) {
            let mut sums = [[_mm256_setzero_ps(); 2]; ROWS];
            let rows = Cursor::<INTERLEAVED>::new(a, step, first);
            // SAFETY: rows and columns stay below the bounds that the caller promises.
            unsafe {
                let out = out.add(first * stride + column);
                for row in 0..ROWS {
                    sums[row] = [_mm256_loadu_ps(out.add(row * stride)), _mm256_loadu_ps(out.add(row * stride + 8))];
                }
                for depth in 0..b.len() {
                    let weights = b.as_ptr().add(depth).cast::<T>().add(column);
                    let weights = [T::load_256(weights), T::load_256(weights.add(8))];
                    for row in 0..ROWS {
                        let value = _mm256_set1_ps(rows.value(row, depth));
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
    use super::super::{Half, Panels};
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

            product(rows, &panels, RowsMut::rows(&mut out, stride));

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
            let mut tiles = [vec![0f32; TILE * PANEL], vec![0f32; TILE * PANEL], vec![0f32; TILE * PANEL]];
            let interleaved = Tile::Interleaved(&block);
            one_tile(unit, interleaved, single.panel(0), &mut tiles[0], PANEL);
            one_tile(unit, interleaved, half.panel(0), &mut tiles[1], PANEL);
            one_tile(unit, Tile::InPlace(&a, 70), half.panel(0), &mut tiles[2], PANEL);
            let mut rows = [[0f32; PANEL]; 2];
            one_row(unit, &a[..70], single.panel(0), &mut rows[0]);
            one_row(unit, &a[..70], half.panel(0), &mut rows[1]);

            assert!(tiles.iter().all(|tile| *tile == expected));
            assert!(rows.iter().all(|row| *row == expected[..PANEL]));
        }
    }

    #[test]
    fn a_product_in_panels_is_a_matrix_again() {
        let (a, b) = (numbers(25 * 40, 8), numbers(40 * 96, 9));
        let rows = Rows::dense(&a, 25, 40);
        let mut cells = vec![[0f32; PANEL]; 3 * 25];

        product(rows, &Panels::from_rows(40, 96, &b), RowsMut::panels(&mut cells, 25));

        let expected = exact(rows, &b, 96);
        let found = PanelsRef::new(25, &cells);
        for (row, expected) in expected.chunks(96).enumerate() {
            let found: Vec<f32> = (0..3).flat_map(|panel| found.panel(panel)[row]).collect();
            assert_eq!(found, expected);
        }
        let one = numbers(25, 10);
        let mut out = vec![0f32; 96];
        product(Rows::dense(&one, 1, 25), found, RowsMut::rows(&mut out, 96));
        assert_eq!(out, exact(Rows::dense(&one, 1, 25), &expected, 96));
    }

    #[test]
    fn rows_may_overlap_as_a_convolution_needs() {
        let a = numbers(20, 5);
        let rows = Rows { data: &a, places: Places::every(2), count: 8, width: 6 };
        let b = numbers(6 * 32, 6);
        let mut out = vec![0f32; 8 * 32];

        product(rows, &Panels::from_rows(6, 32, &b), RowsMut::rows(&mut out, 32));

        assert_eq!(out, exact(rows, &b, 32));
    }

    #[test]
    fn rows_may_lie_in_steps_as_frames_with_a_margin_do() {
        let a = numbers(17 * 41, 7);
        let rows = Rows { data: &a, places: Places { per_step: 2, stride: 5, step: 41 }, count: 34, width: 36 };
        let b = numbers(36 * 32, 8);
        let mut out = vec![0f32; 34 * 32];

        product(rows, &Panels::from_rows(36, 32, &b), RowsMut::rows(&mut out, 32));

        assert_eq!(out, exact(rows, &b, 32));
        assert_eq!(rows.row(3), &a[41 + 5..][..36]);
    }

    #[test]
    #[should_panic(expected = "the product fits where it goes")]
    fn a_product_that_does_not_fit_is_refused() {
        product(Rows::dense(&[1.0; 4], 2, 2), &Panels::<f32>::zero(2, 32), RowsMut::rows(&mut [0.0; 63], 32));
    }
}
