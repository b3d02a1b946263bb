//! Speech to text inside a child: where speech is, what was said, in which language and when.
//! Trusts: the verified models; nothing of the sound.
//! Touches: nothing after [`SpeechModels::warm_up`].
//! Next: `text` redacts the utterances.
//!
//! ```text
//! 16 kHz -> segment (vad) -> Region -> mel -> whisper encoder -> decode_loop (logits, language) -> align -> words -> Utterance
//! ```

mod align;
mod decode_loop;
mod language;
mod logits;
mod mel;
mod numeric;
mod segment;
mod settings;
mod vad;
mod whisper;
mod words;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use tract_onnx::prelude::{InferenceModel, InferenceModelExt, IntoRunnable, TractError, TypedRunnableModel};

pub use segment::{Region, Segmenter};
pub use settings::SettingsError;

use decode_loop::Hypothesis;
use mel::{FRAMES_MAX, SAMPLES_MAX};
use vad::VadModel;
use whisper::{Whisper, WhisperParts};

use crate::ipc::transcript::Utterance;
use crate::model::load::{self, LoadError, Weights};
use crate::model::verify::VerifiedModel;

const VAD_GRAPH: &str = "silero_vad_16k_sequence.onnx";
/// The language that a model of one language reads.
const ONE_LANGUAGE: &str = "en";

/// The models of a worker, read-only: shared by threads, kept over forks.
pub struct SpeechModels {
    vad: Arc<VadModel>,
    whisper: Whisper,
}

impl SpeechModels {
    /// Takes the files out of the verified models and makes them ready to run: about a second.
    ///
    /// # Errors
    /// [`SpeechLoadError`] naming the part that is missing or wrong.
    pub fn load(vad: &mut VerifiedModel, asr: &mut VerifiedModel) -> Result<Self, SpeechLoadError> {
        Ok(Self { vad: load_vad(vad)?, whisper: load_whisper(asr)? })
    }

    /// Runs every graph once, so that whatever reads files lazily (tract asks for the processor's caches) has done so.
    ///
    /// # Errors
    /// [`SpeechError`] when a graph does not run.
    pub fn warm_up(&self) -> Result<(), SpeechError> {
        let silence = vec![0f32; vad::BATCH * vad::FRAME];
        Segmenter::new(self, 0).push(&silence)?;
        let window = self.whisper.listen(&silence, whisper::window_frames(silence.len()))?;
        decode_loop::decode(&self.whisper, &window, None)?;
        Ok(())
    }

    /// Turns a region into utterances, in order of time; none when nobody speaks in it. Runs on the calling thread only.
    ///
    /// `language` is an ISO 639-1 code when it is known; it is listened for when it is `None` or none of the model's.
    ///
    /// # Errors
    /// [`SpeechError::RegionTooLong`] from about 30 s on; otherwise when a graph fails.
    pub fn transcribe(&self, region: &Region, language: Option<&str>) -> Result<Vec<Utterance>, SpeechError> {
        let Some(text) = self.read(region, language)? else { return Ok(Vec::new()) };
        let language = text.language.as_ref().map_or(ONE_LANGUAGE, |language| language.code.as_str());
        Ok(words::utterances(&self.whisper, region, &text, language))
    }

    /// The likeliest language of a region and its probability, 0..=1. A model of one language is always sure.
    ///
    /// # Errors
    /// As [`Self::transcribe`].
    #[cfg(test)]
    pub fn detect_language(&self, region: &Region) -> Result<(String, f32), SpeechError> {
        check_length(region)?;
        let window = self.whisper.listen(&region.samples, whisper::window_frames(region.samples.len()))?;
        let language = decode_loop::open(&self.whisper, &window)?.language;
        Ok(language.map_or_else(|| (ONE_LANGUAGE.to_owned(), 1.0), |language| (language.code, language.probability)))
    }

    /// Mean log-probability and no-speech probability in the first and in the longest window.
    #[cfg(test)]
    fn doubts(&self, region: &Region) -> Result<Vec<(f32, f32, usize)>, SpeechError> {
        let windows = [whisper::window_frames(region.samples.len()), FRAMES_MAX];
        let attempts = windows.iter().map(|frames| self.attempt(region, *frames, None));
        attempts.map(|text| text.map(|text| (text.mean_log_prob, text.no_speech, text.tokens.len()))).collect()
    }

    /// The accepted hypothesis. Instead of sampling at higher temperatures, as the reference does when it
    /// doubts its text, the sound is read again in the window that Whisper was trained on: the same input gives the same text.
    fn read(&self, region: &Region, language: Option<&str>) -> Result<Option<Hypothesis>, SpeechError> {
        check_length(region)?;
        if region.samples.is_empty() {
            return Ok(None);
        }
        let frames = whisper::window_frames(region.samples.len());
        let mut text = self.attempt(region, frames, language)?;
        if text.is_doubtful() && frames < FRAMES_MAX {
            let second = self.attempt(region, FRAMES_MAX, language)?;
            if second.is_better_than(&text) {
                text = second;
            }
        }
        Ok((!text.is_silence()).then_some(text))
    }

    fn attempt(&self, region: &Region, frames: usize, language: Option<&str>) -> Result<Hypothesis, SpeechError> {
        let window = self.whisper.listen(&region.samples, frames)?;
        decode_loop::decode(&self.whisper, &window, language)
    }
}

/// The recogniser alone, to hear its golden recording.
pub struct Reader(Whisper);

impl Reader {
    /// Takes the files out of the verified model.
    ///
    /// # Errors
    /// [`SpeechLoadError`] naming the part that is missing or wrong.
    pub fn load(asr: &mut VerifiedModel) -> Result<Self, SpeechLoadError> {
        load_whisper(asr).map(Self)
    }

    /// The greedy text tokens of a region in its first window.
    ///
    /// # Errors
    /// As [`SpeechModels::transcribe`].
    pub fn tokens(&self, region: &Region, language: Option<&str>) -> Result<Vec<u32>, SpeechError> {
        check_length(region)?;
        let window = self.0.listen(&region.samples, whisper::window_frames(region.samples.len()))?;
        Ok(decode_loop::decode(&self.0, &window, language)?.tokens)
    }
}

/// The voice-activity model alone, to hear its golden recording.
pub struct Ear(Arc<VadModel>);

impl Ear {
    /// Takes the graph out of the verified model.
    ///
    /// # Errors
    /// [`SpeechLoadError`] when it is missing or cannot be run.
    pub fn load(vad: &mut VerifiedModel) -> Result<Self, SpeechLoadError> {
        load_vad(vad).map(Self)
    }

    /// Probability of speech, 0..=1, of each whole frame of 32 ms of 16 kHz sound.
    ///
    /// # Errors
    /// [`SpeechError::Vad`] for sound that is no numbers.
    pub fn probabilities(&self, samples: &[f32]) -> Result<Vec<f32>, SpeechError> {
        let mut state = self.0.listen();
        let mut probabilities = Vec::with_capacity(samples.len() / vad::FRAME + vad::BATCH);
        for batch in samples.chunks(vad::BATCH * vad::FRAME) {
            probabilities.extend(state.hear(batch).ok_or(SpeechError::Vad)?);
        }
        probabilities.truncate(samples.len() / vad::FRAME);
        Ok(probabilities)
    }
}

fn load_vad(model: &mut VerifiedModel) -> Result<Arc<VadModel>, SpeechLoadError> {
    Ok(Arc::new(VadModel::new(&Weights::read(&model.take(VAD_GRAPH)?)?)?))
}

fn load_whisper(model: &mut VerifiedModel) -> Result<Whisper, SpeechLoadError> {
    Whisper::new(WhisperParts {
        encoder: plan(model, whisper::ENCODER)?,
        decoder: plan(model, whisper::DECODER)?,
        embedding: model.take(whisper::EMBEDDING)?,
        positions: model.take(whisper::POSITIONS)?,
        tokens: model.take(whisper::TOKENS)?,
        settings: model.take(whisper::SETTINGS)?,
    })
}

/// The bytes of a graph are dropped before the next is parsed: each is in memory twice for a moment only.
fn plan(model: &mut VerifiedModel, file: &'static str) -> Result<Arc<TypedRunnableModel>, SpeechLoadError> {
    optimised(file, load::graph(&model.take(file)?)?)
}

fn optimised(file: &'static str, graph: InferenceModel) -> Result<Arc<TypedRunnableModel>, SpeechLoadError> {
    graph.into_optimized().and_then(|graph| graph.into_runnable()).map_err(|source| SpeechLoadError::Graph { file, source })
}

fn check_length(region: &Region) -> Result<(), SpeechError> {
    if region.samples.len() > SAMPLES_MAX { Err(SpeechError::RegionTooLong { samples: region.samples.len() }) } else { Ok(()) }
}

/// Why speech could not be read.
#[derive(Debug, thiserror::Error)]
pub enum SpeechError {
    /// The voice activity model gave no probabilities.
    #[error("the voice activity model gave no probabilities")]
    Vad,
    /// The encoder failed.
    #[error("the speech recogniser's encoder failed")]
    Encoder(#[source] TractError),
    /// The decoder failed.
    #[error("the speech recogniser's decoder failed")]
    Decoder(#[source] TractError),
    /// A region that no window holds; the segmenter makes none.
    #[error("a region of {samples} samples is longer than the recogniser's window of {SAMPLES_MAX}; cut it with the segmenter")]
    RegionTooLong {
        /// Its length.
        samples: usize,
    },
}

/// Why the models cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SpeechLoadError {
    /// A file is not there or its graph cannot be read.
    #[error(transparent)]
    Model(#[from] LoadError),
    /// `asr.json` is wrong.
    #[error(transparent)]
    Settings(#[from] SettingsError),
    /// A table does not have the size that `asr.json` says.
    #[error("{file} does not have the size that asr.json says; build the model again with `salama model import`")]
    Table {
        /// Which.
        file: &'static str,
    },
    /// tract cannot run a graph.
    #[error("{file} cannot be run")]
    Graph {
        /// Which.
        file: &'static str,
        /// What tract says.
        #[source]
        source: TractError,
    },
    /// A graph has other inputs or outputs than this program uses.
    #[error("{file} does not have {inputs} inputs and {outputs} outputs; build the model again with `salama model import`")]
    Ports {
        /// Which.
        file: &'static str,
        /// Inputs that are needed.
        inputs: usize,
        /// Outputs that are needed.
        outputs: usize,
    },
}
