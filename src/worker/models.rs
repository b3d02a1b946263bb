//! The models that all children share: verified, loaded and warmed up once, before the first fork.
//! Trusts: a model only once its manifest and digests have been verified.
//! Touches: the model directory, before confinement.
//! Next: [`super::run`] serves a call with them.

use std::path::Path;

use super::beside::beside;
use super::speech::{SpeechError, SpeechLoadError, SpeechModels};
use super::text::{TextError, TextLoadError, TextModels};
use crate::ipc::worker::LoadedModel;
use crate::model::verify::{VerifiedModel, VerifyError, verify};

/// Directory of the voice-activity model.
const VAD: &str = "silero-vad";
/// Directory of the name recogniser.
const NER: &str = "rampart";

/// Everything that a child computes with.
pub struct Models {
    /// Finds speech and turns it into text.
    pub speech: SpeechModels,
    /// Finds and masks personal information.
    pub text: TextModels,
    loaded: Vec<LoadedModel>,
}

/// Why there are no models.
#[derive(Debug, thiserror::Error)]
pub enum LoadModelsError {
    /// A directory is not what its manifest says.
    #[error(transparent)]
    Verify(#[from] VerifyError),
    /// A speech model.
    #[error(transparent)]
    Speech(#[from] SpeechLoadError),
    /// A text model.
    #[error(transparent)]
    Text(#[from] TextLoadError),
    /// A speech model does not run.
    #[error("a speech model does not run")]
    SpeechWarmUp(#[source] SpeechError),
    /// A text model does not run.
    #[error("a text model does not run")]
    TextWarmUp(#[source] TextError),
}

impl Models {
    /// Verifies, loads and runs once the models below `directory`, with the speech recogniser `asr`: speech and text beside each other.
    ///
    /// # Errors
    /// The first model that is missing, wrong or does not run.
    pub fn load(directory: &Path, asr: &str) -> Result<Self, LoadModelsError> {
        let (speech, text) = beside(|| load_speech(directory, asr), || load_text(directory));
        let ((speech, mut loaded), (text, ner)) = (speech?, text?);
        loaded.push(ner);
        Ok(Self { speech, text, loaded })
    }

    /// What was loaded, for the greeting.
    pub fn loaded(&self) -> &[LoadedModel] {
        &self.loaded
    }
}

fn load_speech(directory: &Path, asr: &str) -> Result<(SpeechModels, Vec<LoadedModel>), LoadModelsError> {
    let mut vad = verify(&directory.join(VAD))?;
    let mut asr = verify(&directory.join(asr))?;
    let loaded = [&vad, &asr].map(describe).into();
    let speech = SpeechModels::load(&mut vad, &mut asr)?;
    speech.warm_up().map_err(LoadModelsError::SpeechWarmUp)?;
    Ok((speech, loaded))
}

fn load_text(directory: &Path) -> Result<(TextModels, LoadedModel), LoadModelsError> {
    let mut ner = verify(&directory.join(NER))?;
    let loaded = describe(&ner);
    let text = TextModels::load(&mut ner)?;
    text.warm_up().map_err(LoadModelsError::TextWarmUp)?;
    Ok((text, loaded))
}

fn describe(model: &VerifiedModel) -> LoadedModel {
    let manifest = model.manifest();
    LoadedModel { name: manifest.name.clone(), version: manifest.version.clone(), manifest_sha256: model.manifest_sha256().to_owned() }
}
