//! What networks of transformers are made of, whoever reads their weights: products, norms, attention of a sequence to itself.
//! Trusts: its makers, who check shapes when a model is loaded.
//! Touches: nothing.
//! Next: `speech::layers` and `text::fused` make them from the weights of their graphs.

#![expect(clippy::indexing_slicing, reason = "rows of buffers that are sized from the same widths")]

use crate::sys::simd::{
    Fours, Half, PANEL, Panels, PanelsRef, Places, Quantised, Rows, RowsMut, normalise, product, product_fours, product_quantised, softmax,
};

/// How large products are computed.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Precision {
    /// With the weights of the file, in single precision.
    #[cfg_attr(not(test), expect(dead_code, reason = "what tests compare with; processors without VNNI compute so anyway"))]
    Exact,
    /// In whole numbers where the processor is faster with those, else as [`Self::Exact`].
    Fastest,
}

/// A matrix of weights in the form that is fastest here.
pub enum Weight {
    /// As in the file.
    Exact(Panels<Half>),
    /// The same in single precision.
    Single(Panels<f32>),
    /// Rounded to bytes, and multiplied with rows that are.
    Rounded(Quantised),
    /// The four bits of the file, multiplied with rows of fifteen.
    Fours(Fours),
}

impl Weight {
    /// In bytes where those are asked for and fast.
    pub fn new(exact: Panels<Half>, precision: Precision) -> Self {
        let round = precision == Precision::Fastest && Quantised::is_fast();
        let rounded = if round { Quantised::new(&exact) } else { None };
        rounded.map_or(Self::Exact(exact), Self::Rounded)
    }

    /// Columns.
    pub fn width(&self) -> usize {
        match self {
            Self::Exact(weight) => weight.width(),
            Self::Single(weight) => weight.padded_width(),
            Self::Rounded(weight) => weight.width(),
            Self::Fours(weight) => weight.width(),
        }
    }

    /// Columns that a row of a product has room for.
    pub fn padded_width(&self) -> usize {
        self.width().next_multiple_of(PANEL)
    }

    /// `out += x W`
    pub fn product(&self, x: Rows<'_>, out: RowsMut<'_>) {
        match self {
            Self::Exact(weight) => product(x, weight, out),
            Self::Single(weight) => product(x, weight, out),
            Self::Rounded(weight) => product_quantised(x, weight, out),
            Self::Fours(weight) => product_fours(x, weight, out),
        }
    }
}

/// `x W + b`.
pub struct Linear {
    weight: Weight,
    bias: Vec<f32>,
}

impl Linear {
    /// `bias` has a number for each column of `weight`, which are whole panels.
    pub const fn new(weight: Weight, bias: Vec<f32>) -> Self {
        Self { weight, bias }
    }

    /// Numbers in an output row.
    pub fn width(&self) -> usize {
        self.weight.width()
    }

    /// `x W + b` for each row, densely.
    pub fn apply(&self, x: Rows<'_>, out: &mut Vec<f32>) {
        out.clear();
        for _ in 0..x.count {
            out.extend_from_slice(&self.bias);
        }
        self.weight.product(x, RowsMut::rows(out, self.width()));
    }

    /// `x W + b` for each row, in panels of as many rows.
    pub fn apply_in_panels(&self, x: Rows<'_>, out: &mut Vec<[f32; PANEL]>) {
        out.clear();
        for bias in self.bias.as_chunks::<PANEL>().0 {
            out.resize(out.len() + x.count, *bias);
        }
        self.weight.product(x, RowsMut::panels(out, x.count));
    }

    /// Adds `x W + b` to dense rows.
    pub fn add(&self, x: Rows<'_>, out: &mut [f32]) {
        for row in out.chunks_exact_mut(self.width()).take(x.count) {
            for (value, bias) in row.iter_mut().zip(&self.bias) {
                *value += bias;
            }
        }
        self.weight.product(x, RowsMut::rows(out, self.width()));
    }
}

/// Layer norm.
pub struct Norm {
    gamma: Vec<f32>,
    beta: Vec<f32>,
    epsilon: f32,
}

impl Norm {
    /// Of rows as long as both.
    pub const fn new(gamma: Vec<f32>, beta: Vec<f32>, epsilon: f32) -> Self {
        Self { gamma, beta, epsilon }
    }

    /// Each dense row of `x`, normalised.
    pub fn apply(&self, x: &[f32], out: &mut Vec<f32>) {
        let width = self.gamma.len();
        out.resize(x.len(), 0.0);
        for (row, out) in x.chunks_exact(width).zip(out.chunks_exact_mut(width)) {
            normalise(row, &self.gamma, &self.beta, self.epsilon, out);
        }
    }
}

/// Rows whose scores are held at once: 48 x 1500 numbers are 288 KB.
const SCORE_ROWS: usize = 48;

/// Room for the attention of a sequence of `count` rows to all of itself, a head at a time.
pub struct Attention {
    count: usize,
    /// Numbers of a head, whole panels of them.
    head: usize,
    scale: f32,
    /// `[head, count]`
    keys: Panels<f32>,
    /// `[rows][head]`
    queries: Vec<f32>,
    scores: Vec<f32>,
}

impl Attention {
    /// With heads of `head` numbers, whose scores are multiplied by `scale`.
    pub fn new(count: usize, head: usize, scale: f32) -> Self {
        Self { count, head, scale, keys: Panels::zero(head, count), queries: Vec::new(), scores: Vec::new() }
    }

    /// softmax(q k) v of all heads, side by side in dense rows; `qkv` has the panels of all queries, then keys, then values.
    pub fn attend(&mut self, qkv: &[[f32; PANEL]], mixed: &mut Vec<f32>) {
        let width = qkv.len() / (3 * self.count) * PANEL;
        mixed.clear();
        mixed.resize(self.count * width, 0.0);
        let (queries, rest) = qkv.split_at(qkv.len() / 3);
        let (keys, values) = rest.split_at(qkv.len() / 3);
        let of_head = self.head / PANEL * self.count;
        let heads = queries.chunks_exact(of_head).zip(keys.chunks_exact(of_head).zip(values.chunks_exact(of_head)));
        for (head, (queries, (keys, values))) in heads.enumerate() {
            self.attend_head(queries, keys, values, RowsMut::rows(&mut mixed[head * self.head..], width));
        }
    }

    fn attend_head(&mut self, queries: &[[f32; PANEL]], keys: &[[f32; PANEL]], values: &[[f32; PANEL]], mut mixed: RowsMut<'_>) {
        for (panel, keys) in keys.chunks_exact(self.count).enumerate() {
            self.keys.set_transposed(panel * PANEL, keys);
        }
        let stride = self.keys.padded_width();
        for first in (0..self.count).step_by(SCORE_ROWS) {
            let count = (self.count - first).min(SCORE_ROWS);
            self.queries.clear();
            for row in first..first + count {
                queries.iter().skip(row).step_by(self.count).for_each(|piece| self.queries.extend_from_slice(piece));
            }
            self.scores.clear();
            self.scores.resize(count * stride, 0.0);
            product(Rows::dense(&self.queries, count, self.head), &self.keys, RowsMut::rows(&mut self.scores, stride));
            for row in self.scores.chunks_exact_mut(stride) {
                softmax(&mut row[..self.count], self.scale);
            }
            let weights = Rows { data: &self.scores, places: Places::every(stride), count, width: self.count };
            product(weights, PanelsRef::new(self.count, values), mixed.from(first));
        }
    }
}

#[cfg(test)]
#[expect(clippy::as_conversions, reason = "test arithmetic")]
mod tests {
    use super::*;

    /// Numbers between -1 and 1 that look random.
    fn numbers(count: usize, seed: usize) -> Vec<f32> {
        (0..count).map(|at| ((at + seed) * 7919 % 2003) as f32 / 1001.5 - 1.0).collect()
    }

    #[test]
    fn attention_is_what_its_formula_says_for_every_head() {
        for (count, heads, head) in [(1, 1, 32), (2, 3, 32), (49, 2, 64), (130, 12, 32)] {
            let width = heads * head;
            let (qkv, scale) = (numbers(count * 3 * width, count), 0.7);
            let (panels, mut mixed) = (qkv.as_chunks::<PANEL>().0, Vec::new());

            Attention::new(count, head, scale).attend(panels, &mut mixed);

            let at =
                |row: usize, part: usize, column: usize| f64::from(panels[(part * width + column) / PANEL * count + row][column % PANEL]);
            for row in 0..count {
                for first in (0..width).step_by(head) {
                    let dot = |other| (first..first + head).map(|column| at(row, 0, column) * at(other, 1, column)).sum::<f64>();
                    let weights: Vec<f64> = (0..count).map(|other| (dot(other) * f64::from(scale)).exp()).collect();
                    let all: f64 = weights.iter().sum();
                    for column in first..first + head {
                        let expected: f64 = weights.iter().enumerate().map(|(other, weight)| weight / all * at(other, 2, column)).sum();
                        assert!((f64::from(mixed[row * width + column]) - expected).abs() < 1e-5, "{row} {column} of {count} x {width}");
                    }
                }
            }
        }
    }

    #[test]
    fn a_norm_adds_its_own_epsilon() {
        let row = [1e-4, -1e-4];
        for (epsilon, expected) in [(1e-12, 1.0), (3e-8, 0.5)] {
            let mut out = Vec::new();

            Norm::new(vec![1.0; 2], vec![0.0; 2], epsilon).apply(&row, &mut out);

            assert!((out[0] - expected).abs() < 1e-3 && (out[1] + expected).abs() < 1e-3, "{out:?}");
        }
    }
}
