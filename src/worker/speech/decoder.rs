//! Whisper's decoder: one token of each of several windows at a time.
//! Trusts: the verified model; shapes are checked when it is loaded.
//! Touches: nothing.
//! Next: `whisper` looks tokens up and keeps positions.
//!
//! Computes the graph `decoder.onnx`, whose weights it reads; `tests` compare with what tract makes of that file. A step reads all
//! weights from memory, and that is what it costs: windows that step together share it.

#![expect(clippy::indexing_slicing, reason = "rows of buffers that are sized here from the same widths")]

use super::encoder::{Cross, SCORE_SCALE};
use super::layers::{Feed, FeedScratch, Precision, SelfAttention, Source};
use super::settings::{HEAD_WIDTH, Settings};
use crate::model::load::LoadError;
use crate::model::tensors::Tensors;
use crate::sys::simd::{Element, Panels, Rows, RowsMut, product, softmax};
use crate::worker::layers::{Linear, Norm};

/// The weights.
pub struct Decoder {
    width: usize,
    layers: Vec<Layer>,
    norm: Norm,
}

struct Layer {
    own: SelfAttention,
    cross_norm: Norm,
    cross_q: Linear,
    cross_out: Linear,
    feed: Feed,
}

/// What the tokens of one window have left behind.
pub struct Past {
    /// For each layer.
    layers: Vec<PastLayer>,
    length: usize,
}

struct PastLayer {
    /// For each head, `[64, positions]`.
    keys: Vec<Panels<f32>>,
    /// For each head, `[positions, 64]`.
    values: Vec<Panels<f32>>,
}

/// One window's part in a step.
pub struct Stepping<'a> {
    /// Grows by one token.
    pub past: &'a mut Past,
    /// What the window sounds like, for each layer.
    pub cross: &'a [Cross],
    /// Takes the attention over the window's frames of the heads `[layer, head]` in `alignment`, one after the other.
    pub attention: Vec<f32>,
}

impl Past {
    /// Nothing yet; room for `positions` tokens.
    pub fn new(settings: &Settings, positions: usize) -> Self {
        let layer = || PastLayer {
            keys: (0..settings.heads).map(|_| Panels::zero(HEAD_WIDTH, positions)).collect(),
            values: (0..settings.heads).map(|_| Panels::zero(positions, HEAD_WIDTH)).collect(),
        };
        Self { layers: (0..settings.layers).map(|_| layer()).collect(), length: 0 }
    }

    /// Tokens so far.
    pub const fn len(&self) -> usize {
        self.length
    }
}

/// Room for the rows of a step.
#[derive(Default)]
struct Scratch {
    normed: Vec<f32>,
    rows: Vec<f32>,
    mixed: Vec<f32>,
    scores: Vec<f32>,
    feed: FeedScratch,
}

impl Decoder {
    /// Lays out the weights of `decoder.onnx`.
    ///
    /// # Errors
    /// [`LoadError`] names the tensor that is missing, wrong or too many.
    pub fn read(onnx: &[u8], settings: &Settings, precision: Precision) -> Result<Self, LoadError> {
        let width = settings.dims;
        let mut source = Source { tensors: Tensors::read(onnx)?, precision };
        let from = &mut source;
        let mut layers = Vec::new();
        for i in 0..settings.layers {
            let cross = |part: &str| format!("layer{i}.cross.{part}");
            layers.push(Layer {
                own: SelfAttention::read(from, &format!("layer{i}.attention"), width)?,
                cross_norm: Norm::read(from, &cross("norm"), width)?,
                cross_q: Linear::read(from, &cross("q"), width, width)?,
                cross_out: Linear::read(from, &cross("out"), width, width)?,
                feed: Feed::read(from, &format!("layer{i}.feed"), width)?,
            });
        }
        let norm = Norm::read(from, "hidden", width)?;
        source.tensors.finish()?;
        Ok(Self { width, layers, norm })
    }

    /// Takes one embedded token a window, `[windows][width]`, and gives the hidden vectors that predict the next ones.
    /// Each window has a position left.
    pub fn step(&self, mut x: Vec<f32>, windows: &mut [Stepping<'_>], alignment: &[(usize, usize)]) -> Vec<f32> {
        let (width, count) = (self.width, windows.len());
        let mut scratch = Scratch::default();
        for (i, layer) in self.layers.iter().enumerate() {
            layer.own.norm.apply(&x, &mut scratch.normed);
            layer.own.qkv.apply(Rows::dense(&scratch.normed, count, width), &mut scratch.rows);
            scratch.mixed.clear();
            scratch.mixed.resize(count * width, 0.0);
            let rows = scratch.rows.chunks_exact(3 * width).zip(scratch.mixed.chunks_exact_mut(width));
            for (window, (row, mixed)) in windows.iter_mut().zip(rows) {
                window.past.attend(i, row, &mut scratch.scores, mixed);
            }
            layer.own.out.add(Rows::dense(&scratch.mixed, count, width), &mut x);

            layer.cross_norm.apply(&x, &mut scratch.normed);
            layer.cross_q.apply(Rows::dense(&scratch.normed, count, width), &mut scratch.rows);
            scratch.mixed.clear();
            scratch.mixed.resize(count * width, 0.0);
            let rows = scratch.rows.chunks_exact(width).zip(scratch.mixed.chunks_exact_mut(width));
            for (window, (queries, mixed)) in windows.iter_mut().zip(rows) {
                let Some(cross) = window.cross.get(i) else { continue };
                for (head, (query, mixed)) in heads(queries, mixed).enumerate() {
                    let frames = cross.keys[head].width();
                    attend(query, &cross.keys[head], &cross.values[head], frames, &mut scratch.scores, mixed);
                    if alignment.contains(&(i, head)) {
                        window.attention.extend_from_slice(&scratch.scores[..frames]);
                    }
                }
            }
            layer.cross_out.add(Rows::dense(&scratch.mixed, count, width), &mut x);
            layer.feed.apply(&mut x, &mut scratch.feed);
        }
        for window in windows {
            window.past.length += 1;
        }
        self.norm.apply(&x, &mut scratch.normed);
        scratch.normed
    }
}

impl Past {
    /// Takes the newest token's keys and values into layer `i`, and attends to all so far.
    fn attend(&mut self, i: usize, qkv: &[f32], scores: &mut Vec<f32>, mixed: &mut [f32]) {
        let width = mixed.len();
        let (length, layer) = (self.length, &mut self.layers[i]);
        for (head, (query, mixed)) in heads(&qkv[..width], mixed).enumerate() {
            let column = head * HEAD_WIDTH;
            layer.keys[head].set_column(length, &qkv[width + column..][..HEAD_WIDTH]);
            layer.values[head].set_row(length, 0, &qkv[2 * width + column..][..HEAD_WIDTH]);
            attend(query, &layer.keys[head], &layer.values[head], length + 1, scores, mixed);
        }
    }
}

/// The heads of a row and of its answer.
fn heads<'a>(row: &'a [f32], mixed: &'a mut [f32]) -> impl Iterator<Item = (&'a [f32], &'a mut [f32])> {
    row.chunks_exact(HEAD_WIDTH).zip(mixed.chunks_exact_mut(HEAD_WIDTH))
}

/// Adds softmax(q k) v to `mixed`, over the first `length` keys; the probabilities stay in `scores`.
fn attend<T: Element>(query: &[f32], keys: &Panels<T>, values: &Panels<T>, length: usize, scores: &mut Vec<f32>, mixed: &mut [f32]) {
    scores.clear();
    scores.resize(keys.padded_width(), 0.0);
    product(Rows::dense(query, 1, HEAD_WIDTH), keys, RowsMut::rows(scores, keys.padded_width()));
    softmax(&mut scores[..length], SCORE_SCALE);
    // What comes after has no keys yet, and scores of zero.
    product(Rows::dense(&scores[..values.depth()], 1, values.depth()), values, RowsMut::rows(mixed, HEAD_WIDTH));
}
