//! The Whisper model: one window of sound through the encoder, then the decoder token by token.
//! Trusts: the verified model; shapes were checked when it was loaded.
//! Touches: nothing.
//! Next: `decode_loop` drives it.

use super::decoder::{Decoder, Past, Stepping};
use super::encoder::{Cross, Encoder};
use super::layers::Precision;
use super::logits::{Embedding, halves};
use super::mel::{FRAMES_MAX, LogMel};
use super::numeric::index_of;
use super::settings::{Settings, Tokens};
use super::{SpeechError, SpeechLoadError};
use crate::model::verify::VerifiedModel;
use crate::sys::simd::Half;
use crate::worker::beside::beside;

/// Frames of 10 ms in the shortest window. Whisper was trained on 30 s; below 10 s it starts to loop.
const WINDOW_MIN: usize = 1000;
/// Frames that a window has beyond its clip at least, so that the end of speech is heard as an end.
const WINDOW_MARGIN: usize = 300;
/// Windows are multiples of this many frames.
const WINDOW_STEP: usize = 50;
/// Tokens that one window has room for: prompt, text and end, see `decode_loop`.
const POSITIONS: usize = 232;

/// `mel [1,80,2K]` to `enc [1,K,d]` and each decoder layer's `ck_i [1,H,64,K]`, `cv_i [1,H,K,64]`.
pub const ENCODER: &str = "encoder.onnx";
/// `x [1,1,d]` and each layer's `pk_i, pv_i [1,H,P,64], ck_i, cv_i` to `hidden [1,1,d]` and each layer's
/// `nk_i, nv_i [1,H,P+1,64], xa_i [1,H,1,K]`.
pub const DECODER: &str = "decoder.onnx";
/// `[vocabulary, d]` f16.
pub const EMBEDDING: &str = "emb.f16";
/// `[positions, d]` f16.
pub const POSITION_TABLE: &str = "dpos.f16";
/// The bytes of each id, see [`Tokens`].
pub const TOKENS: &str = "tokens.bin";
/// The meaning of ids, see [`Settings`].
pub const SETTINGS: &str = "asr.json";

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
    encoder: Encoder,
    decoder: Decoder,
}

/// What the decoder attends to: keys and values of one window.
pub struct Window {
    cross: Vec<Cross>,
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
    /// Takes the files of a model and checks them against each other.
    ///
    /// # Errors
    /// [`SpeechLoadError`] naming the part that is missing or wrong.
    pub fn load(model: &mut VerifiedModel, precision: Precision) -> Result<Self, SpeechLoadError> {
        let settings = Settings::parse(&model.take(SETTINGS)?)?;
        let embedding = Embedding::new(&model.take(EMBEDDING)?, settings.dims, precision);
        let embedding = embedding.filter(|table| table.vocabulary() == settings.vocab).ok_or(SpeechLoadError::Table { file: EMBEDDING })?;
        let positions = model.take(POSITION_TABLE)?;
        if positions.len() != 2 * settings.text_ctx * settings.dims {
            return Err(SpeechLoadError::Table { file: POSITION_TABLE });
        }
        let positions = halves(&positions).map(Half::wide).collect();
        let tokens = Tokens::parse(model.take(TOKENS)?, settings.vocab).ok_or(SpeechLoadError::Table { file: TOKENS })?;
        // Each file is dropped as soon as its weights are laid out: no weight is in memory twice for long.
        let graph = |file| move |source| SpeechLoadError::Weights { file, source };
        let (encoder, decoder) = (model.take(ENCODER)?, model.take(DECODER)?);
        let known = &settings;
        let (encoder, decoder) = beside(
            move || Encoder::read(&encoder, known, precision).map_err(graph(ENCODER)),
            move || Decoder::read(&decoder, known, precision).map_err(graph(DECODER)),
        );
        Ok(Self { encoder: encoder?, decoder: decoder?, settings, tokens, embedding, positions, mel: LogMel::new() })
    }

    /// Encodes `samples` in a window of `frames` (even, at most 3000).
    pub fn listen(&self, samples: &[f32], frames: usize) -> Window {
        let mel = self.mel.compute(samples, frames);
        Window { cross: self.encoder.run(&mel, frames), frames: frames / 2, clip: samples.len().div_ceil(2 * super::mel::HOP) }
    }

    /// A decoder at position 0 of `window`.
    pub fn begin<'a>(&self, window: &'a Window) -> Session<'a> {
        let room = POSITIONS.min(self.settings.text_ctx);
        Session { window, past: Past::new(&self.settings, room), room, attention: Vec::new() }
    }

    /// What the decoder takes for `token` at `position`, which is one of the model's.
    pub fn embed(&self, position: usize, token: u32) -> Vec<f32> {
        let dims = self.settings.dims;
        let mut row = self.positions.get(position * dims..(position + 1) * dims).unwrap_or_default().to_vec();
        self.embedding.add_row(index_of(token), &mut row);
        row
    }

    /// Feeds one token to each session; the hidden vectors that predict the next ones, `[sessions][width]`.
    ///
    /// # Errors
    /// [`SpeechError::NoRoom`] when a session has used up its positions.
    pub fn step(&self, sessions: &mut [&mut Session<'_>], tokens: &[u32]) -> Result<Vec<f32>, SpeechError> {
        let mut x = Vec::with_capacity(sessions.len() * self.settings.dims);
        for (session, token) in sessions.iter().zip(tokens) {
            if session.room() == 0 {
                return Err(SpeechError::NoRoom);
            }
            x.extend(self.embed(session.past.len(), *token));
        }
        let mut windows: Vec<Stepping<'_>> = sessions
            .iter_mut()
            .map(|session| Stepping { past: &mut session.past, cross: &session.window.cross, attention: Vec::new() })
            .collect();
        let hidden = self.decoder.step(x, &mut windows, &self.settings.alignment_heads);
        let rows: Vec<Vec<f32>> = windows.into_iter().map(|window| window.attention).collect();
        for (session, row) in sessions.iter_mut().zip(rows) {
            session.attention.push(row);
        }
        Ok(hidden)
    }
}

/// One pass of the decoder over one window.
pub struct Session<'a> {
    window: &'a Window,
    past: Past,
    room: usize,
    /// For each token so far, for each alignment head, its attention over the window's frames of 20 ms.
    attention: Vec<Vec<f32>>,
}

impl Session<'_> {
    /// Positions left.
    pub fn room(&self) -> usize {
        self.room - self.past.len()
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

    /// The attention of the newest token.
    #[cfg(test)]
    pub fn last_attention(&self) -> &[f32] {
        self.attention.last().map(Vec::as_slice).unwrap_or_default()
    }

    /// The attention rows of all tokens that were fed: `[token][alignment head * frames]`.
    pub fn into_attention(self) -> Vec<Vec<f32>> {
        self.attention
    }
}
