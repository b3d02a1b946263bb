//! The parts that encoder and decoder are made of, from a graph's weights, and the two products after a norm.
//! Trusts: the verified model; shapes are checked when it is loaded.
//! Touches: nothing.
//! Next: `encoder` and `decoder` put them together.

#![expect(clippy::indexing_slicing, reason = "filters of a convolution, whose shape was asked for")]

use crate::model::load::LoadError;
use crate::model::tensors::Tensors;
use crate::sys::simd::{Half, Panels, Rows, gelu};
pub use crate::worker::layers::Precision;
use crate::worker::layers::{Linear, Norm, Weight};

/// Epsilon of every norm.
const EPSILON: f32 = 1e-5;

/// Rows that go through the two products after a norm at once: their inner rows of 2048 numbers stay in the second cache.
const FEED_ROWS: usize = 144;

/// A graph's weights on their way into layers.
pub struct Source {
    /// Those that no layer has taken yet.
    pub tensors: Tensors,
    /// How large products are to be computed.
    pub precision: Precision,
}

impl Linear {
    /// Takes `{name}.weight` `[depth, width]` and `{name}.bias`, zeros when there is none.
    pub fn read(source: &mut Source, name: &str, depth: usize, width: usize) -> Result<Self, LoadError> {
        Self::read_side_by_side(source, &[name], depth, width)
    }

    /// One matrix out of several of the same shape, whose outputs then lie side by side.
    pub fn read_side_by_side(source: &mut Source, names: &[&str], depth: usize, width: usize) -> Result<Self, LoadError> {
        let mut weight = Panels::zero(depth, width * names.len());
        let mut bias = Vec::with_capacity(width * names.len());
        for (part, name) in names.iter().enumerate() {
            let rows = source.tensors.take(&format!("{name}.weight"), &[depth, width])?;
            for (row, values) in rows.chunks_exact(width).enumerate() {
                weight.set_row(row, part * width, values);
            }
            bias.extend(source.tensors.take_wide_or_zero(&format!("{name}.bias"), width)?);
        }
        Ok(Self::new(Weight::new(weight, source.precision), bias))
    }

    /// A convolution over three frames, `{name}.weight` `[width, channels, 3]`, as a product with rows `[3][channels]`.
    pub fn read_convolution(source: &mut Source, name: &str, channels: usize, width: usize) -> Result<Self, LoadError> {
        let filters = source.tensors.take(&format!("{name}.weight"), &[width, channels, 3])?;
        let mut weight = Panels::zero(3 * channels, width);
        for (column, filter) in filters.chunks_exact(3 * channels).enumerate() {
            let row = |at: usize| filter[at % channels * 3 + at / channels];
            weight.set_column(column, &(0..3 * channels).map(row).collect::<Vec<Half>>());
        }
        // The sound's own numbers are few and vary most: they stay exact.
        Ok(Self::new(Weight::Exact(weight), source.tensors.take_wide(&format!("{name}.bias"), &[width])?))
    }
}

impl Norm {
    /// Takes `{name}.gamma` and `{name}.beta`.
    pub fn read(source: &mut Source, name: &str, width: usize) -> Result<Self, LoadError> {
        let gamma = source.tensors.take_wide(&format!("{name}.gamma"), &[width])?;
        Ok(Self::new(gamma, source.tensors.take_wide(&format!("{name}.beta"), &[width])?, EPSILON))
    }
}

/// The products of attention of a sequence to itself; what lies between them is the encoder's and the decoder's own.
pub struct SelfAttention {
    /// Before it.
    pub norm: Norm,
    /// Queries, keys and values side by side.
    pub qkv: Linear,
    /// What is added to what came in.
    pub out: Linear,
}

impl SelfAttention {
    /// Takes `{name}.norm`, `{name}.q`, `{name}.k`, `{name}.v` and `{name}.out`.
    pub fn read(source: &mut Source, name: &str, width: usize) -> Result<Self, LoadError> {
        let part = |part: &str| format!("{name}.{part}");
        Ok(Self {
            norm: Norm::read(source, &part("norm"), width)?,
            qkv: Linear::read_side_by_side(source, &[&part("q"), &part("k"), &part("v")], width, width)?,
            out: Linear::read(source, &part("out"), width, width)?,
        })
    }
}

/// Norm, wide product, GELU, narrow product, added to what came in.
pub struct Feed {
    norm: Norm,
    up: Linear,
    down: Linear,
}

impl Feed {
    /// Takes `{name}.norm`, `{name}.up` and `{name}.down`.
    pub fn read(source: &mut Source, name: &str, width: usize) -> Result<Self, LoadError> {
        Ok(Self {
            norm: Norm::read(source, &format!("{name}.norm"), width)?,
            up: Linear::read(source, &format!("{name}.up"), width, 4 * width)?,
            down: Linear::read(source, &format!("{name}.down"), 4 * width, width)?,
        })
    }

    /// Changes dense rows in place.
    pub fn apply(&self, x: &mut [f32], scratch: &mut FeedScratch) {
        let width = self.down.width();
        for block in x.chunks_mut(FEED_ROWS * width) {
            let count = block.len() / width;
            self.norm.apply(block, &mut scratch.normed);
            self.up.apply(Rows::dense(&scratch.normed, count, width), &mut scratch.wide);
            gelu(&mut scratch.wide);
            self.down.add(Rows::dense(&scratch.wide, count, 4 * width), block);
        }
    }
}

/// Room for the inner rows of [`Feed`].
#[derive(Default)]
pub struct FeedScratch {
    normed: Vec<f32>,
    wide: Vec<f32>,
}
