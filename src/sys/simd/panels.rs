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
    impl Sealed for i8 {}
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

impl Element for i8 {
    #[inline(always)]
    fn wide(self) -> f32 {
        f32::from(self)
    }

    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    unsafe fn load_512(from: *const Self) -> std::arch::x86_64::__m512 {
        use std::arch::x86_64::{_mm_loadu_si128, _mm512_cvtepi8_epi32, _mm512_cvtepi32_ps};
        // SAFETY: the caller's promise.
        unsafe { _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(from.cast()))) }
    }

    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    unsafe fn load_256(from: *const Self) -> std::arch::x86_64::__m256 {
        use std::arch::x86_64::{_mm_loadl_epi64, _mm256_cvtepi8_epi32, _mm256_cvtepi32_ps};
        // SAFETY: the caller's promise.
        unsafe { _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64(from.cast()))) }
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

    /// The rows of the panel number `panel`.
    pub(super) fn panel(&self, panel: usize) -> &[[T; PANEL]] {
        &self.cells[panel * self.depth..(panel + 1) * self.depth]
    }
}
