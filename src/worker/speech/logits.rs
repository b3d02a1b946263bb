//! From the decoder's hidden vector to a score for each token: the tied embedding as int8 rows, near ties settled with its f16 rows.
//! Trusts: the verified model's table.
//! Touches: nothing.
//! Next: `decode_loop` picks tokens by the scores.
//!
//! The product with all rows is bound by memory: int8 reads half of f16's bytes and a quarter of f32's. Only the rows within
//! [`NEAR`] of the best are then computed from f16, so that the chosen token is the one of full precision.

use crate::sys::simd::{Half, nearest, rows_dot};

/// Scores this close to the best are computed again: several times the largest error of an int8 row.
const NEAR: f32 = 1.0;
/// And at most this many of them.
const NEAR_MAX: usize = 32;

/// Rows that stay in the first cache while all vectors are multiplied with them.
const ROWS_AT_ONCE: usize = 64;

/// A table of f16 rows with its int8 copy.
pub struct Embedding {
    width: usize,
    /// Row by row.
    exact: Vec<Half>,
    rows: Vec<i8>,
    scales: Vec<f32>,
}

impl Embedding {
    /// From `[vocabulary, width]` little-endian f16, row by row; `None` when the length is not a whole number of rows or nothing.
    pub fn new(table: &[u8], width: usize) -> Option<Self> {
        if width == 0 || table.is_empty() || !table.len().is_multiple_of(2 * width) {
            return None;
        }
        let mut rows = Vec::with_capacity(table.len() / 2);
        let mut scales = Vec::with_capacity(table.len() / 2 / width);
        let mut row = Vec::with_capacity(width);
        let exact: Vec<Half> = halves(table).collect();
        for halves in exact.chunks_exact(width) {
            row.clear();
            row.extend(halves.iter().map(|half| half.wide()));
            let peak = row.iter().fold(0f32, |peak, value| peak.max(value.abs()));
            let scale = if peak > 0.0 && peak.is_finite() { peak / 127.0 } else { 1.0 };
            let factor = 1.0 / scale;
            rows.extend(row.iter().map(|value| nearest(value * factor)));
            scales.push(scale);
        }
        Some(Self { width, exact, rows, scales })
    }

    /// Number of rows.
    pub fn vocabulary(&self) -> usize {
        self.scales.len()
    }

    /// Adds row `token` to `out`; nothing for a token that is not in the table.
    pub fn add_row(&self, token: usize, out: &mut [f32]) {
        for (value, weight) in out.iter_mut().zip(self.row(token)) {
            *value += weight;
        }
    }

    /// The score of every token for each of the dense `hidden` vectors, to the precision of int8 rows: `[vectors][vocabulary]`.
    pub fn scores(&self, hidden: &[f32]) -> Vec<f32> {
        let vocabulary = self.vocabulary();
        let mut out = vec![0f32; hidden.len() / self.width * vocabulary];
        // A few rows for all vectors, then the next: the table is read from memory once.
        for first in (0..vocabulary).step_by(ROWS_AT_ONCE) {
            let rows = self.rows.get(first * self.width..).unwrap_or_default();
            let scales = self.scales.get(first..).unwrap_or_default();
            for (vector, out) in hidden.chunks_exact(self.width).zip(out.chunks_exact_mut(vocabulary)) {
                let end = (first + ROWS_AT_ONCE).min(vocabulary);
                rows_dot(rows, scales, vector, out.get_mut(first..end).unwrap_or_default());
            }
        }
        out
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
        self.exact.get(from..from.saturating_add(self.width)).unwrap_or_default().iter().map(|half| half.wide())
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

    fn table(values: &[u16]) -> Vec<u8> {
        values.iter().flat_map(|value| value.to_le_bytes()).collect()
    }

    #[test]
    fn scores_are_products_with_the_rows() {
        let embedding = Embedding::new(&table(&[ONE, HALF, MINUS_TWO, ONE]), 2).unwrap();

        let mut scores = embedding.scores(&[2.0, 4.0]);
        embedding.settle(&[2.0, 4.0], &mut scores);

        assert_eq!(scores[0], 4.0, "the best is exact");
        assert!(scores[1].abs() < 0.05, "the rest is near: {}", scores[1]);
    }

    #[test]
    fn near_ties_are_settled_at_full_precision() {
        // 0x3555 and 0x3556 are neighbours that int8 cannot tell apart.
        let embedding = Embedding::new(&table(&[ONE, 0x3555, ONE, 0x3556]), 2).unwrap();

        let mut scores = embedding.scores(&[1.0, 1.0]);
        assert_eq!(scores[0], scores[1]);
        embedding.settle(&[1.0, 1.0], &mut scores);

        assert!(scores[1] > scores[0]);
    }

    #[test]
    fn a_token_that_is_suppressed_stays_suppressed() {
        let embedding = Embedding::new(&table(&[ONE, ONE, QUARTER, QUARTER]), 2).unwrap();
        let mut scores = vec![f32::NEG_INFINITY, 0.5];

        embedding.settle(&[1.0, 1.0], &mut scores);

        assert_eq!(scores, [f32::NEG_INFINITY, 0.5]);
    }

    #[test]
    fn a_table_of_broken_rows_is_refused() {
        assert!(Embedding::new(&[0; 7], 2).is_none());
        assert!(Embedding::new(&[], 2).is_none());
        assert!(Embedding::new(&[0; 8], 0).is_none());
    }
}
