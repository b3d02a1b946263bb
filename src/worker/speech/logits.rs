//! From the decoder's hidden vector to a score for each token: the tied embedding in bytes, near ties settled with its f16 columns.
//! Trusts: the verified model's table.
//! Touches: nothing.
//! Next: `decode_loop` picks tokens by the scores.
//!
//! The product with the whole table is bound by memory, and bytes are half of f16. Only the scores within [`NEAR`] of the best are
//! then computed from f16, so that the chosen token is the one of full precision.

use crate::sys::simd::{Half, Panels, Rows, RowsMut};
use crate::worker::layers::{Precision, Weight};

/// Scores this close to the best are computed again: several times the largest error of a product in bytes.
const NEAR: f32 = 1.0;
/// And at most this many of them.
const NEAR_MAX: usize = 32;

/// A table of f16 rows, one a token.
pub struct Embedding {
    width: usize,
    /// Row by row, for single tokens.
    rows: Vec<Half>,
    /// The rows as columns, for all tokens.
    columns: Weight,
}

impl Embedding {
    /// From `[vocabulary, width]` little-endian f16, row by row; `None` when the length is not a whole number of rows or nothing.
    pub fn new(table: &[u8], width: usize, precision: Precision) -> Option<Self> {
        if width == 0 || table.is_empty() || !table.len().is_multiple_of(2 * width) {
            return None;
        }
        let rows: Vec<Half> = halves(table).collect();
        let columns = Weight::new(Panels::from_columns(width, rows.len() / width, &rows), precision);
        Some(Self { width, rows, columns })
    }

    /// Number of rows.
    pub fn vocabulary(&self) -> usize {
        self.columns.width()
    }

    /// Adds row `token` to `out`; nothing for a token that is not in the table.
    pub fn add_row(&self, token: usize, out: &mut [f32]) {
        for (value, weight) in out.iter_mut().zip(self.row(token)) {
            *value += weight;
        }
    }

    /// The score of every token for each of the dense `hidden` vectors, to the precision of bytes.
    pub fn scores(&self, hidden: &[f32]) -> Scores {
        let (vectors, stride) = (hidden.len() / self.width, self.columns.padded_width());
        let mut data = vec![0f32; vectors * stride];
        self.columns.product(Rows::dense(hidden, vectors, self.width), RowsMut::rows(&mut data, stride));
        Scores { data, stride, vocabulary: self.vocabulary() }
    }

    /// Replaces the scores that compete for the best by those of the f16 rows. Scores of minus infinity are out of the competition.
    pub fn settle(&self, hidden: &[f32], scores: &mut [f32]) {
        let best = scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let mut near: Vec<(usize, f32)> = scores.iter().copied().enumerate().filter(|(_, score)| *score > best - NEAR).collect();
        near.sort_by(|one, other| other.1.total_cmp(&one.1));
        for (token, _) in near.into_iter().take(NEAR_MAX) {
            if let Some(score) = scores.get_mut(token) {
                *score = self.row(token).zip(hidden).map(|(weight, value)| weight * value).sum();
            }
        }
    }

    fn row(&self, token: usize) -> impl Iterator<Item = f32> {
        let from = token.saturating_mul(self.width);
        self.rows.get(from..from.saturating_add(self.width)).unwrap_or_default().iter().map(|half| half.wide())
    }
}

/// For each vector, a score for each token.
pub struct Scores {
    data: Vec<f32>,
    /// From one vector's scores to the next.
    stride: usize,
    vocabulary: usize,
}

impl Scores {
    /// Vector by vector.
    pub fn rows(&mut self) -> impl Iterator<Item = &mut [f32]> {
        self.data.chunks_exact_mut(self.stride).filter_map(|row| row.get_mut(..self.vocabulary))
    }
}

/// Reads little-endian f16.
pub fn halves(bytes: &[u8]) -> impl Iterator<Item = Half> {
    bytes.as_chunks::<2>().0.iter().map(|pair| Half::from_bits(u16::from_le_bytes(*pair)))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 1.0, 0.5, 0.25, -2.0 as f16.
    const ONE: u16 = 0x3c00;
    const HALF: u16 = 0x3800;
    const QUARTER: u16 = 0x3400;
    const MINUS_TWO: u16 = 0xc000;

    const ZERO: u16 = 0;

    /// Of rows of four.
    fn embedding(values: &[u16]) -> Embedding {
        Embedding::new(&table(values), 4, Precision::Fastest).unwrap()
    }

    fn table(values: &[u16]) -> Vec<u8> {
        values.iter().flat_map(|value| value.to_le_bytes()).collect()
    }

    #[test]
    fn scores_are_products_with_the_rows() {
        let embedding = embedding(&[ONE, HALF, ZERO, ZERO, MINUS_TWO, ONE, ZERO, ZERO]);

        let hidden = [2.0, 4.0, 1.0, 1.0];
        let mut scores = embedding.scores(&hidden);
        let scores = scores.rows().next().unwrap();
        embedding.settle(&hidden, scores);

        assert_eq!(scores[0], 4.0, "the best is exact");
        assert!(scores[1].abs() < 0.05, "the rest is near: {}", scores[1]);
    }

    #[test]
    fn near_ties_are_settled_at_full_precision() {
        // 0x3555 and 0x3556 are neighbours that bytes cannot tell apart.
        let embedding = embedding(&[ONE, 0x3555, ZERO, ZERO, ONE, 0x3556, ZERO, ZERO]);
        let mut scores = vec![1.0, 1.0];

        embedding.settle(&[1.0; 4], &mut scores);

        assert!(scores[1] > scores[0]);
    }

    #[test]
    fn several_vectors_are_scored_at_once() {
        let values: Vec<u16> = (0..40 * 4).map(|at| if at % 5 == 0 { ONE } else { HALF }).collect();
        let embedding = embedding(&values);
        let hidden = [[1.0, 2.0, 3.0, 4.0], [-4.0, 0.0, 1.0, 0.5], [0.0; 4]];

        let mut together = embedding.scores(hidden.as_flattened());

        for (scores, hidden) in together.rows().zip(hidden) {
            assert_eq!(*scores, *embedding.scores(&hidden).rows().next().unwrap());
            assert_eq!(scores.len(), 40);
        }
    }

    #[test]
    fn a_token_that_is_suppressed_stays_suppressed() {
        let embedding = embedding(&[ONE, ONE, ZERO, ZERO, QUARTER, QUARTER, ZERO, ZERO]);
        let mut scores = vec![f32::NEG_INFINITY, 0.5];

        embedding.settle(&[1.0; 4], &mut scores);

        assert_eq!(scores, [f32::NEG_INFINITY, 0.5]);
    }

    #[test]
    fn a_table_of_broken_rows_is_refused() {
        assert!(Embedding::new(&[0; 7], 2, Precision::Fastest).is_none());
        assert!(Embedding::new(&[], 2, Precision::Fastest).is_none());
        assert!(Embedding::new(&[0; 8], 0, Precision::Fastest).is_none());
    }
}
