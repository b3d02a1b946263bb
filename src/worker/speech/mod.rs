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
mod decoder;
mod encoder;
mod language;
mod layers;
mod logits;
mod mel;
mod numeric;
mod region;
mod segment;
mod settings;
mod vad;
mod whisper;
mod words;

#[cfg(test)]
mod tests;

use std::sync::Arc;

pub use region::{Joiner, Region};
pub use segment::Segmenter;
pub use settings::SettingsError;

use decode_loop::Hypothesis;
use layers::Precision;
pub use mel::FRAMES_MAX;
use mel::SAMPLES_MAX;
use vad::VadModel;
use whisper::{Whisper, Window};

use crate::ipc::transcript::Utterance;
use crate::model::load::LoadError;
use crate::model::tensors::Tensors;
use crate::model::verify::VerifiedModel;

const VAD_GRAPH: &str = "silero_vad_16k_sequence.onnx";
/// The language that a model of one language reads.
const ONE_LANGUAGE: &str = "en";

/// Speech of a part that must have left a word, milliseconds.
const TURN_MS: u32 = 500;
/// Parts of a doubtful region that are read together: each needs a window of its own.
const PARTS_TOGETHER: usize = 4;

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
        Ok(Self { vad: load_vad(vad)?, whisper: Whisper::load(asr, Precision::Fastest)? })
    }

    /// Runs every graph once, so that what a library reads or decides at its first use (files, the processor's features) is done before confinement and before the fork.
    ///
    /// # Errors
    /// [`SpeechError`] when a graph does not run.
    pub fn warm_up(&self) -> Result<(), SpeechError> {
        let silence = vec![0f32; vad::BATCH * vad::FRAME];
        Segmenter::new(self, 0).push(&silence)?;
        self.attempt(&[&Region::whole(0, 0, silence)], None, whisper::window_frames)?;
        Ok(())
    }

    /// Turns regions into utterances, each in order of time; none for one in which nobody speaks. Runs on the calling thread only,
    /// and reads them together, which costs less than one after the other; each has its place in memory meanwhile.
    ///
    /// `language` is an ISO 639-1 code when it is known; it is listened for when it is `None` or none of the model's.
    ///
    /// # Errors
    /// [`SpeechError::RegionTooLong`] from about 30 s on.
    pub fn transcribe(&self, regions: &[Region], language: Option<&str>) -> Result<Vec<Vec<Utterance>>, SpeechError> {
        let texts = self.read(regions, language)?;
        regions.iter().zip(texts).map(|(region, text)| self.utterances(region, &text, language)).collect()
    }

    /// A joined region whose text is doubtful is read again part by part: what is wrong with one must not cost the others.
    fn utterances(&self, region: &Region, text: &Hypothesis, language: Option<&str>) -> Result<Vec<Utterance>, SpeechError> {
        let parts = if text.is_doubtful() || text.is_silence() { region.parts() } else { Vec::new() };
        if !parts.is_empty() {
            let mut utterances = Vec::new();
            for parts in parts.chunks(PARTS_TOGETHER) {
                utterances.extend(self.transcribe(parts, language)?.into_iter().flatten());
            }
            return Ok(utterances);
        }
        if region.samples.is_empty() || text.is_silence() {
            return Ok(Vec::new());
        }
        let code = text.language.as_ref().map_or(ONE_LANGUAGE, |language| language.code.as_str());
        let mut utterances = words::utterances(&self.whisper, region, text, code);
        // The recogniser may pass over a quiet turn between two loud ones, and be sure of what it read.
        let words: Vec<u32> = utterances.iter().flat_map(|utterance| &utterance.words).map(|word| word.start_ms).collect();
        let passed_over = |part: &Region| part.speech_ms() >= TURN_MS && !words.iter().any(|ms| part.times().contains(ms));
        for part in region.parts().iter().filter(|part| passed_over(part)) {
            utterances.extend(self.transcribe(std::slice::from_ref(part), language)?.into_iter().flatten());
        }
        utterances.sort_by_key(|utterance| utterance.start_ms);
        Ok(utterances)
    }

    /// Whether regions may be joined before they are read: a window has one language, so it must be known beforehand.
    pub fn may_join(&self, language: Option<&str>) -> bool {
        let settings = &self.whisper.settings;
        !settings.multilingual || language.is_some_and(|code| language::known(settings, code).is_some())
    }

    /// Frames of 10 ms of the window in which a region is read first: what it costs.
    pub fn window_frames(region: &Region) -> usize {
        whisper::window_frames(region.samples.len())
    }

    /// The likeliest language of a region and its probability, 0..=1. A model of one language is always sure.
    ///
    /// # Errors
    /// As [`Self::transcribe`].
    #[cfg(test)]
    pub fn detect_language(&self, region: &Region) -> Result<(String, f32), SpeechError> {
        let language = self.attempt(&[region], None, whisper::window_frames)?.pop().and_then(|text| text.language);
        Ok(language.map_or_else(|| (ONE_LANGUAGE.to_owned(), 1.0), |language| (language.code, language.probability)))
    }

    /// Mean log-probability and no-speech probability in the first and in the longest window.
    #[cfg(test)]
    fn doubts(&self, region: &Region) -> Result<Vec<(f32, f32, usize)>, SpeechError> {
        let mut texts = self.attempt(&[region], None, whisper::window_frames)?;
        texts.extend(self.attempt(&[region], None, |_| FRAMES_MAX)?);
        Ok(texts.into_iter().map(|text| (text.mean_log_prob, text.no_speech, text.tokens.len())).collect())
    }

    /// The accepted hypotheses. Instead of sampling at higher temperatures, as the reference does when it
    /// doubts its text, the sound is read again in the window that Whisper was trained on: the same input gives the same text.
    fn read(&self, regions: &[Region], language: Option<&str>) -> Result<Vec<Hypothesis>, SpeechError> {
        let mut texts = self.attempt(&regions.iter().collect::<Vec<_>>(), language, whisper::window_frames)?;
        for (region, text) in regions.iter().zip(&mut texts) {
            if text.is_doubtful() && region.joints.is_empty() && Self::window_frames(region) < FRAMES_MAX {
                let second = self.attempt(&[region], language, |_| FRAMES_MAX)?.pop();
                if let Some(second) = second.filter(|second| second.is_better_than(text)) {
                    *text = second;
                }
            }
        }
        Ok(texts)
    }

    /// Reads regions in windows whose frames follow from their samples.
    fn attempt(
        &self,
        regions: &[&Region],
        language: Option<&str>,
        frames: impl Fn(usize) -> usize,
    ) -> Result<Vec<Hypothesis>, SpeechError> {
        attempt(&self.whisper, regions, language, frames)
    }
}

fn attempt(
    whisper: &Whisper,
    regions: &[&Region],
    language: Option<&str>,
    frames: impl Fn(usize) -> usize,
) -> Result<Vec<Hypothesis>, SpeechError> {
    if let Some(region) = regions.iter().find(|region| region.samples.len() > SAMPLES_MAX) {
        return Err(SpeechError::RegionTooLong { samples: region.samples.len() });
    }
    let windows: Vec<Window> = regions.iter().map(|region| whisper.listen(&region.samples, frames(region.samples.len()))).collect();
    decode_loop::decode(whisper, &windows, language)
}

/// The recogniser alone, to hear its golden recording.
pub struct Reader(Whisper);

impl Reader {
    /// Takes the files out of the verified model.
    ///
    /// # Errors
    /// [`SpeechLoadError`] naming the part that is missing or wrong.
    pub fn load(asr: &mut VerifiedModel) -> Result<Self, SpeechLoadError> {
        Whisper::load(asr, Precision::Fastest).map(Self)
    }

    /// The greedy text tokens of a region in its first window.
    ///
    /// # Errors
    /// As [`SpeechModels::transcribe`].
    pub fn tokens(&self, region: &Region, language: Option<&str>) -> Result<Vec<u32>, SpeechError> {
        let text = attempt(&self.0, &[region], language, whisper::window_frames)?.pop();
        Ok(text.map(|text| text.tokens).unwrap_or_default())
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
    let onnx = model.take(VAD_GRAPH)?;
    let model = Tensors::read(&onnx).and_then(VadModel::new);
    Ok(Arc::new(model.map_err(|source| SpeechLoadError::Weights { file: VAD_GRAPH, source })?))
}

/// Why speech could not be read.
#[derive(Debug, thiserror::Error)]
pub enum SpeechError {
    /// The voice activity model gave no probabilities.
    #[error("the voice activity model gave no probabilities")]
    Vad,
    /// The recogniser's scores were no numbers; a text made of them would be an invention.
    #[error("the recogniser's scores are not numbers")]
    NotANumber,
    /// A text that ran past the decoder's positions; a guard ends it before.
    #[error("the text of a window is longer than the recogniser has positions")]
    NoRoom,
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
    /// A graph has other weights than this program computes with.
    #[error("{file} cannot be used")]
    Weights {
        /// Which.
        file: &'static str,
        /// What is wrong with it.
        #[source]
        source: LoadError,
    },
}
