//! Whisper's encoder: a window's spectrogram to what the decoder attends to.
//! Trusts: the verified model; shapes are checked when it is loaded.
//! Touches: nothing.
//! Next: `decoder` attends to the keys and values.
//!
//! Computes the graph `encoder.onnx`, whose weights it reads; `tests` compare with what tract makes of that file.

#![expect(clippy::indexing_slicing, reason = "rows of buffers that are sized here from the same widths")]

use super::layers::{Feed, FeedScratch, Precision, SelfAttention, Source};
use super::mel::{BANDS, FRAMES_MAX};
use super::settings::{HEAD_WIDTH, Settings};
use crate::model::load::LoadError;
use crate::model::tensors::Tensors;
use crate::sys::simd::{Half, Panels, Places, Rows, gelu, narrow};
use crate::worker::layers::{Attention, Linear, Norm};

/// Scales scores: 1 / sqrt([`HEAD_WIDTH`]).
pub const SCORE_SCALE: f32 = 0.125;

/// The weights.
pub struct Encoder {
    width: usize,
    conv1: Linear,
    conv2: Linear,
    positions: Vec<f32>,
    layers: Vec<Layer>,
    norm: Norm,
    /// Keys and values for each layer of the decoder.
    cross: Vec<Linear>,
}

struct Layer {
    attention: SelfAttention,
    feed: Feed,
}

/// What one layer of the decoder attends to.
pub struct Cross {
    /// For each head, `[64, frames]`.
    pub keys: Vec<Panels<Half>>,
    /// For each head, `[frames, 64]`.
    pub values: Vec<Panels<Half>>,
}

impl Encoder {
    /// Lays out the weights of `encoder.onnx`.
    ///
    /// # Errors
    /// [`LoadError`] names the tensor that is missing, wrong or too many.
    pub fn read(onnx: &[u8], settings: &Settings, precision: Precision) -> Result<Self, LoadError> {
        let width = settings.dims;
        let mut source = Source { tensors: Tensors::read(onnx)?, precision };
        let from = &mut source;
        let mut layers = Vec::new();
        // Encoder and decoder of every published Whisper have as many layers.
        for i in 0..settings.layers {
            layers.push(Layer {
                attention: SelfAttention::read(from, &format!("layer{i}.attention"), width)?,
                feed: Feed::read(from, &format!("layer{i}.feed"), width)?,
            });
        }
        let cross = (0..settings.layers)
            .map(|i| Linear::read_side_by_side(from, &[&format!("cross{i}.k"), &format!("cross{i}.v")], width, width))
            .collect::<Result<_, _>>()?;
        let encoder = Self {
            width,
            conv1: Linear::read_convolution(from, "conv1", BANDS, width)?,
            conv2: Linear::read_convolution(from, "conv2", width, width)?,
            positions: from.tensors.take_wide("positions.table", &[FRAMES_MAX / 2, width])?,
            layers,
            norm: Norm::read(from, "enc", width)?,
            cross,
        };
        source.tensors.finish()?;
        Ok(encoder)
    }

    /// Encodes a spectrogram of `frames` (even) frames, band by band; a [`Cross`] for each layer of the decoder.
    pub fn run(&self, mel: &[f32], frames: usize) -> Vec<Cross> {
        let mut sound = self.convolve(mel, frames);
        let count = frames / 2;
        let (mut normed, mut qkv, mut mixed) = (Vec::new(), Vec::new(), Vec::new());
        let mut attention = Attention::new(count, HEAD_WIDTH, SCORE_SCALE);
        let mut feed = FeedScratch::default();
        for layer in &self.layers {
            layer.attention.norm.apply(&sound, &mut normed);
            layer.attention.qkv.apply_in_panels(Rows::dense(&normed, count, self.width), &mut qkv);
            attention.attend(&qkv, &mut mixed);
            layer.attention.out.add(Rows::dense(&mixed, count, self.width), &mut sound);
            layer.feed.apply(&mut sound, &mut feed);
        }
        self.norm.apply(&sound, &mut normed);
        let mut rows = Vec::new();
        let cross = |layer: &Linear| {
            layer.apply(Rows::dense(&normed, count, self.width), &mut rows);
            Cross::split(&rows, self.width, count)
        };
        self.cross.iter().map(cross).collect()
    }

    /// Two convolutions over three frames each, the second by steps of two, and the positions.
    fn convolve(&self, mel: &[f32], frames: usize) -> Vec<f32> {
        let width = self.width;
        let mut near = vec![0f32; frames * 3 * BANDS];
        for (frame, row) in near.chunks_exact_mut(3 * BANDS).enumerate() {
            for (tap, row) in row.chunks_exact_mut(BANDS).enumerate() {
                let at = frame + tap;
                if (1..=frames).contains(&at) {
                    for (band, value) in row.iter_mut().enumerate() {
                        *value = mel[band * frames + at - 1];
                    }
                }
            }
        }
        let mut first = Vec::new();
        self.conv1.apply(Rows::dense(&near, frames, 3 * BANDS), &mut first);
        gelu(&mut first);
        // A row of silence before and after: then the three frames of each step lie in one piece.
        let mut padded = vec![0f32; width];
        padded.append(&mut first);
        padded.resize((frames + 2) * width, 0.0);
        let mut sound = Vec::new();
        self.conv2.apply(Rows { data: &padded, places: Places::every(2 * width), count: frames / 2, width: 3 * width }, &mut sound);
        gelu(&mut sound);
        for (value, position) in sound.iter_mut().zip(&self.positions) {
            *value += position;
        }
        sound
    }
}

impl Cross {
    /// From rows of keys and values side by side.
    fn split(rows: &[f32], width: usize, count: usize) -> Self {
        let heads = width / HEAD_WIDTH;
        let mut cross = Self {
            keys: (0..heads).map(|_| Panels::zero(HEAD_WIDTH, count)).collect(),
            values: (0..heads).map(|_| Panels::zero(count, HEAD_WIDTH)).collect(),
        };
        let mut halves = vec![Half::default(); 2 * width];
        for (frame, row) in rows.chunks_exact(2 * width).enumerate() {
            narrow(row, &mut halves);
            let (keys, values) = halves.split_at(width);
            for (panels, head) in cross.keys.iter_mut().zip(keys.chunks_exact(HEAD_WIDTH)) {
                panels.set_column(frame, head);
            }
            for (panels, head) in cross.values.iter_mut().zip(values.chunks_exact(HEAD_WIDTH)) {
                panels.set_row(frame, 0, head);
            }
        }
        cross
    }
}
