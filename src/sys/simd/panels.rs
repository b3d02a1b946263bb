//! A matrix laid out for products: panels of 32 columns, each row of a panel in one piece.
//! Trusts: nothing; indices are checked.
//! Touches: nothing.
//! Next: [`super::product`] multiplies with it.

use super::half::Half;

/// Columns of a panel: two vectors of AVX-512, four of AVX2.
pub const PANEL: usize = 32;

/// What a matrix may be made of.
pub trait Element: Copy + Default + sealed::Sealed {
    /// As single precision, exactly.
    fn wide(self) -> f32;
    /// Sixteen numbers as single precision.
    ///
    /// # Safety
    /// Sixteen numbers can be read from `from`; the processor has AVX-512 F.
    #[cfg(target_arch = "x86_64")]
    unsafe fn load_512(from: *const Self) -> std::arch::x86_64::__m512;
    /// Eight numbers as single precision.
    ///
    /// # Safety
    /// Eight numbers can be read from `from`; the processor has AVX2 and F16C.
    #[cfg(target_arch = "x86_64")]
    unsafe fn load_256(from: *const Self) -> std::arch::x86_64::__m256;
}

mod sealed {
    /// Only the kinds of this file.
    pub trait Sealed {}
    impl Sealed for f32 {}
    impl Sealed for super::Half {}
}

impl Element for f32 {
    #[inline(always)]
    fn wide(self) -> f32 {
        self
    }

    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    unsafe fn load_512(from: *const Self) -> std::arch::x86_64::__m512 {
        // SAFETY: the caller's promise.
        unsafe { std::arch::x86_64::_mm512_loadu_ps(from) }
    }

    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    unsafe fn load_256(from: *const Self) -> std::arch::x86_64::__m256 {
        // SAFETY: the caller's promise.
        unsafe { std::arch::x86_64::_mm256_loadu_ps(from) }
    }
}

impl Element for Half {
    #[inline(always)]
    fn wide(self) -> f32 {
        Self::wide(self)
    }

    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    unsafe fn load_512(from: *const Self) -> std::arch::x86_64::__m512 {
        use std::arch::x86_64::{_mm256_loadu_si256, _mm512_cvtph_ps};
        // SAFETY: the caller's promise; a `Half` is a `u16` in memory.
        unsafe { _mm512_cvtph_ps(_mm256_loadu_si256(from.cast())) }
    }

    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    unsafe fn load_256(from: *const Self) -> std::arch::x86_64::__m256 {
        use std::arch::x86_64::{_mm_loadu_si128, _mm256_cvtph_ps};
        // SAFETY: the caller's promise; a `Half` is a `u16` in memory.
        unsafe { _mm256_cvtph_ps(_mm_loadu_si128(from.cast())) }
    }
}

/// A matrix of `depth` rows and `width` columns; the last panel is filled up with zeros.
pub struct Panels<T> {
    depth: usize,
    width: usize,
    /// `[panel][row][column of the panel]`
    cells: Vec<[T; PANEL]>,
}

impl<T: Element> Panels<T> {
    /// All zeros.
    pub fn zero(depth: usize, width: usize) -> Self {
        Self { depth, width, cells: vec![[T::default(); PANEL]; depth * width.div_ceil(PANEL)] }
    }

    /// From `depth` rows of `width` numbers.
    ///
    /// # Panics
    /// When `rows` are fewer.
    pub fn from_rows(depth: usize, width: usize, rows: &[T]) -> Self {
        let mut panels = Self::zero(depth, width);
        for row in 0..depth {
            panels.set_row(row, 0, &rows[row * width..(row + 1) * width]);
        }
        panels
    }

    /// From `width` columns of `depth` numbers.
    ///
    /// # Panics
    /// When `columns` are fewer.
    pub fn from_columns(depth: usize, width: usize, columns: &[T]) -> Self {
        let mut panels = Self::zero(depth, width);
        for panel in 0..width.div_ceil(PANEL) {
            let cells = &mut panels.cells[panel * depth..][..depth];
            let columns = &columns[panel * PANEL * depth..width.min((panel + 1) * PANEL) * depth];
            for (row, cell) in cells.iter_mut().enumerate() {
                for (value, column) in cell.iter_mut().zip(columns.chunks_exact(depth)) {
                    *value = column[row];
                }
            }
        }
        panels
    }

    /// Rows.
    pub const fn depth(&self) -> usize {
        self.depth
    }

    /// Columns.
    pub const fn width(&self) -> usize {
        self.width
    }

    /// Columns with those that fill the last panel: what a row of a product's output has room for.
    pub const fn padded_width(&self) -> usize {
        self.width.next_multiple_of(PANEL)
    }

    /// Replaces columns of `row` from `column`, a multiple of [`PANEL`], on.
    ///
    /// # Panics
    /// When they do not fit.
    pub fn set_row(&mut self, row: usize, column: usize, values: &[T]) {
        assert!(row < self.depth && column.is_multiple_of(PANEL) && column + values.len() <= self.width);
        for (panel, piece) in values.chunks(PANEL).enumerate() {
            self.cells[(column / PANEL + panel) * self.depth + row][..piece.len()].copy_from_slice(piece);
        }
    }

    /// Replaces the column `column`.
    ///
    /// # Panics
    /// When there is no such column, or it has another number of rows.
    pub fn set_column(&mut self, column: usize, values: &[T]) {
        assert!(column < self.width && values.len() == self.depth);
        let cells = &mut self.cells[column / PANEL * self.depth..][..self.depth];
        for (cell, value) in cells.iter_mut().zip(values) {
            cell[column % PANEL] = *value;
        }
    }

    /// Replaces the rows `first..` of a matrix by the columns of a panel of `count` rows: what was `[column][row]` becomes
    /// `[row][column]`.
    ///
    /// # Panics
    /// When they do not fit.
    pub fn set_transposed(&mut self, first: usize, columns: &[[T; PANEL]]) {
        assert!(first + PANEL <= self.depth && columns.len() == self.width);
        for (panel, columns) in columns.chunks(PANEL).enumerate() {
            let cells = &mut self.cells[panel * self.depth + first..][..PANEL];
            for (row, cell) in cells.iter_mut().enumerate() {
                for (value, column) in cell.iter_mut().zip(columns) {
                    *value = column[row];
                }
            }
        }
    }

    /// The rows of the panel number `panel`.
    pub(super) fn panel(&self, panel: usize) -> &[[T; PANEL]] {
        PanelsRef::from(self).panel(panel)
    }
}

/// A matrix in panels that lie in somebody else's memory.
#[derive(Clone, Copy)]
pub struct PanelsRef<'a, T> {
    depth: usize,
    cells: &'a [[T; PANEL]],
}

impl<'a, T> From<&'a Panels<T>> for PanelsRef<'a, T> {
    fn from(panels: &'a Panels<T>) -> Self {
        Self { depth: panels.depth, cells: &panels.cells }
    }
}

impl<'a, T> PanelsRef<'a, T> {
    /// Panels of `depth` rows, one after the other.
    ///
    /// # Panics
    /// When the last one is not whole.
    pub fn new(depth: usize, cells: &'a [[T; PANEL]]) -> Self {
        assert!(depth > 0 && cells.len().is_multiple_of(depth));
        Self { depth, cells }
    }

    /// Rows.
    pub const fn depth(self) -> usize {
        self.depth
    }

    /// Panels.
    pub(super) fn panels(self) -> usize {
        self.cells.len().checked_div(self.depth).unwrap_or(0)
    }

    /// The rows of the panel number `panel`.
    pub(super) fn panel(self, panel: usize) -> &'a [[T; PANEL]] {
        &self.cells[panel * self.depth..(panel + 1) * self.depth]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_rows_and_a_transposed_matrix_make_the_same_panels() {
        // 64 x 40, every number different.
        let at = |row: u16, column: u16| f32::from(row * 40 + column);
        let by_rows: Vec<f32> = (0..64).flat_map(|row| (0..40).map(move |column| at(row, column))).collect();
        let by_columns: Vec<f32> = (0..40).flat_map(|column| (0..64).map(move |row| at(row, column))).collect();
        // Two panels of 40 rows, which are the columns.
        let transposed = Panels::from_rows(40, 64, &by_columns);
        let mut turned = Panels::zero(64, 40);

        for panel in 0..2 {
            turned.set_transposed(panel * PANEL, transposed.panel(panel));
        }

        let (rows, columns) = (Panels::from_rows(64, 40, &by_rows), Panels::from_columns(64, 40, &by_columns));
        assert_eq!((rows.cells.clone(), rows.cells), (columns.cells, turned.cells));
    }
}
