//! The Whisper model: one window of sound through the encoder, then the decoder token by token.
//! Trusts: the verified model; shapes that differ from the contract are errors of tract, not faults.
//! Touches: nothing.
//! Next: `decode_loop` drives it.

use std::sync::Arc;

use tract_onnx::prelude::*;

use super::logits::{Embedding, halves};
use super::mel::{BANDS, FRAMES_MAX, LogMel};
use super::numeric::index_of;
use super::settings::{HEAD_WIDTH, Settings, Tokens};
use super::{SpeechError, SpeechLoadError};

/// Frames of 10 ms in the shortest window. Whisper was trained on 30 s; below 10 s it starts to loop.
const WINDOW_MIN: usize = 1000;
/// Frames that a window has beyond its clip at least, so that the end of speech is heard as an end.
const WINDOW_MARGIN: usize = 300;
/// Windows are multiples of this many frames, so that tract meets few shapes.
const WINDOW_STEP: usize = 250;

/// `mel [1,80,2K]` to `enc [1,K,d]` and each decoder layer's `ck_i [1,H,64,K]`, `cv_i [1,H,K,64]`.
pub const ENCODER: &str = "encoder.onnx";
/// `x [1,1,d]` and each layer's `pk_i, pv_i [1,H,P,64], ck_i, cv_i` to `hidden [1,1,d]` and each layer's
/// `nk_i, nv_i [1,H,P+1,64], xa_i [1,H,1,K]`.
pub const DECODER: &str = "decoder.onnx";
/// `[vocabulary, d]` f16.
pub const EMBEDDING: &str = "emb.f16";
/// `[positions, d]` f16.
pub const POSITIONS: &str = "dpos.f16";
/// The bytes of each id, see [`Tokens`].
pub const TOKENS: &str = "tokens.bin";
/// The meaning of ids, see [`Settings`].
pub const SETTINGS: &str = "asr.json";

/// The parts of a Whisper directory.
pub struct WhisperParts {
    /// [`ENCODER`], optimised.
    pub encoder: Arc<TypedRunnableModel>,
    /// [`DECODER`], optimised.
    pub decoder: Arc<TypedRunnableModel>,
    /// [`EMBEDDING`]
    pub embedding: Vec<u8>,
    /// [`POSITIONS`]
    pub positions: Vec<u8>,
    /// [`TOKENS`]
    pub tokens: Vec<u8>,
    /// [`SETTINGS`]
    pub settings: Vec<u8>,
}

/// Everything that is read-only, shared by threads and forks.
pub struct Whisper {
    /// What the ids mean.
    pub settings: Settings,
    /// Their bytes.
    pub tokens: Tokens,
    /// Input and output embedding.
    pub embedding: Embedding,
    positions: Vec<f32>,
    mel: LogMel,
    encoder: Arc<TypedRunnableModel>,
    decoder: Arc<TypedRunnableModel>,
}

/// What the decoder attends to: keys and values of one window.
pub struct Window {
    /// `ck_0, cv_0, ck_1, …`
    cross: Vec<TValue>,
    /// Encoder frames of 20 ms in the window, padding included.
    pub frames: usize,
    /// Encoder frames that hold sound.
    pub clip: usize,
}

/// Frames of the window for a clip of `samples`: [`WINDOW_MIN`] or the clip with its margin, rounded up, at most 30 s.
pub fn window_frames(samples: usize) -> usize {
    let clip = samples.div_ceil(super::mel::HOP) + WINDOW_MARGIN;
    clip.max(WINDOW_MIN).next_multiple_of(WINDOW_STEP).min(FRAMES_MAX)
}

impl Whisper {
    /// Checks the tables and graphs against each other.
    ///
    /// # Errors
    /// [`SpeechLoadError`] naming the part that is wrong.
    pub fn new(parts: WhisperParts) -> Result<Self, SpeechLoadError> {
        let settings = Settings::parse(&parts.settings)?;
        let embedding = Embedding::new(parts.embedding, settings.dims).filter(|table| table.vocabulary() == settings.vocab);
        let embedding = embedding.ok_or(SpeechLoadError::Table { file: EMBEDDING })?;
        let positions: Vec<f32> = halves(&parts.positions).collect();
        if parts.positions.len() != 2 * settings.text_ctx * settings.dims {
            return Err(SpeechLoadError::Table { file: POSITIONS });
        }
        let tokens = Tokens::parse(parts.tokens, settings.vocab).ok_or(SpeechLoadError::Table { file: TOKENS })?;
        let ports = |file, plan: &TypedRunnableModel, inputs: usize, outputs: usize| {
            let fit = plan.model().inputs.len() == inputs && plan.model().outputs.len() == outputs;
            if fit { Ok(()) } else { Err(SpeechLoadError::Ports { file, inputs, outputs }) }
        };
        ports(ENCODER, &parts.encoder, 1, 1 + 2 * settings.layers)?;
        ports(DECODER, &parts.decoder, 1 + 4 * settings.layers, 1 + 3 * settings.layers)?;
        let (encoder, decoder) = (parts.encoder, parts.decoder);
        Ok(Self { settings, tokens, embedding, positions, mel: LogMel::new(), encoder, decoder })
    }

    /// Encodes `samples` in a window of `frames` (even, at most 3000).
    ///
    /// # Errors
    /// [`SpeechError::Encoder`] when tract fails.
    pub fn listen(&self, samples: &[f32], frames: usize) -> Result<Window, SpeechError> {
        let run = || {
            let mel = Tensor::from_shape(&[1, BANDS, frames], &self.mel.compute(samples, frames))?;
            self.encoder.run(tvec!(mel.into()))
        };
        let outputs = run().map_err(SpeechError::Encoder)?;
        // The first output is what the keys and values were made from; only those are used.
        Ok(Window { cross: outputs.into_iter().skip(1).collect(), frames: frames / 2, clip: samples.len().div_ceil(2 * super::mel::HOP) })
    }

    /// A decoder at position 0 of `window`.
    ///
    /// # Errors
    /// [`SpeechError::Decoder`] when tract fails.
    pub fn begin<'a>(&'a self, window: &'a Window) -> Result<Session<'a>, SpeechError> {
        let begin = || {
            let empty = TValue::from(Tensor::zero::<f32>(&[1, self.settings.heads, 0, HEAD_WIDTH])?);
            let state = TypedSimpleState::new(&self.decoder)?;
            Ok(Session { whisper: self, window, state, past: vec![empty; 2 * self.settings.layers], position: 0, attention: Vec::new() })
        };
        begin().map_err(SpeechError::Decoder)
    }
}

/// State of the decoder between tokens.
type TypedSimpleState = tract_onnx::tract_core::plan::SimpleState<TypedFact, Box<dyn TypedOp>>;

/// One pass of the decoder over one window.
pub struct Session<'a> {
    whisper: &'a Whisper,
    window: &'a Window,
    state: TypedSimpleState,
    /// `pk_0, pv_0, pk_1, …`
    past: Vec<TValue>,
    position: usize,
    /// For each token so far, for each alignment head, its attention over the window's frames of 20 ms.
    attention: Vec<Vec<f32>>,
}

impl Session<'_> {
    /// Feeds one token; gives the hidden vector that predicts the next.
    ///
    /// # Errors
    /// [`SpeechError::Decoder`] when tract fails or the positions are used up.
    pub fn step(&mut self, token: u32) -> Result<Vec<f32>, SpeechError> {
        self.advance(token).map_err(SpeechError::Decoder)
    }

    /// Positions left.
    pub fn room(&self) -> usize {
        self.whisper.settings.text_ctx - self.position.min(self.whisper.settings.text_ctx)
    }

    /// The frame that each token fed so far looked at most, all alignment heads together.
    pub fn focus(&self) -> Vec<usize> {
        let frames = self.window.frames.max(1);
        let peak = |row: &Vec<f32>| {
            let mut sum = vec![0f32; frames];
            for head in row.chunks(frames) {
                for (total, value) in sum.iter_mut().zip(head) {
                    *total += value;
                }
            }
            sum.iter().enumerate().max_by(|one, other| one.1.total_cmp(other.1)).map_or(0, |(frame, _)| frame)
        };
        self.attention.iter().map(peak).collect()
    }

    /// The attention rows of all tokens that were fed: `[token][alignment head * frames]`.
    pub fn into_attention(self) -> Vec<Vec<f32>> {
        self.attention
    }

    fn advance(&mut self, token: u32) -> TractResult<Vec<f32>> {
        let Settings { dims, layers, .. } = self.whisper.settings;
        let from = self.position * dims;
        let Some(position) = self.whisper.positions.get(from..from + dims) else {
            return Err(TractError::msg("the decoder has no position left"));
        };
        let mut x = position.to_vec();
        self.whisper.embedding.add_row(index_of(token), &mut x);
        let mut inputs: TVec<TValue> = tvec!(Tensor::from_shape(&[1, 1, dims], &x)?.into());
        for (past, cross) in self.past.drain(..).collect::<Vec<_>>().chunks(2).zip(self.window.cross.chunks(2)) {
            inputs.extend(past.iter().cloned());
            inputs.extend(cross.iter().cloned());
        }
        let mut outputs = self.state.run(inputs)?.into_iter();
        let hidden = outputs.next().map(|hidden| values(&hidden)).transpose()?.unwrap_or_default();
        let mut cross_attention = Vec::with_capacity(layers);
        for _ in 0..layers {
            self.past.extend(outputs.by_ref().take(2));
            cross_attention.extend(outputs.next());
        }
        self.keep_attention(&cross_attention)?;
        self.position += 1;
        Ok(hidden)
    }

    fn keep_attention(&mut self, layers: &[TValue]) -> TractResult<()> {
        let mut row = Vec::new();
        for (layer, head) in &self.whisper.settings.alignment_heads {
            let Some(probabilities) = layers.get(*layer) else { continue };
            let frames = probabilities.shape().last().copied().unwrap_or(0);
            let all = probabilities.try_as_plain_ram()?.as_slice::<f32>()?;
            row.extend_from_slice(all.get(head * frames..(head + 1) * frames).unwrap_or_default());
        }
        self.attention.push(row);
        Ok(())
    }
}

fn values(tensor: &Tensor) -> TractResult<Vec<f32>> {
    Ok(tensor.try_as_plain_ram()?.as_slice::<f32>()?.to_vec())
}
