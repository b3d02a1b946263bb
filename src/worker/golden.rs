//! Runs a model on its golden input and compares with what an independent program made of it.
//! Trusts: the verified bytes of the model, its golden answer included.
//! Touches: the model's directory, reading.
//! Next: `salama-worker check` prints the outcome; `salama model verify` shows it.

use std::fmt;
use std::path::Path;

use super::speech::{Ear, Reader, Region, SpeechError, SpeechLoadError};
use super::text::ner::NerError;
use super::text::{TextLoadError, load_ner};
use crate::model::golden::{GoldenAnswer, GoldenError};
use crate::model::verify::{VerifiedModel, VerifyError, verify};

/// A model that gave its golden answer.
#[derive(Debug)]
pub struct Checked {
    name: String,
    version: String,
    agreement: Agreement,
}

/// In what it agrees with the independent program.
#[derive(Debug)]
enum Agreement {
    /// Ids of a transcript, all equal.
    Tokens(usize),
    /// Probabilities of speech, none further away than `difference`.
    Frames { count: usize, difference: f32 },
    /// Labels of a sentence, all equal.
    Labels(usize),
    /// Its manifest names no golden answer.
    NotAsked,
}

/// Verifies the model in `directory` and asks it for its golden answer: some seconds for a recogniser of speech.
///
/// # Errors
/// [`CheckError`] says where the model departs from the answer, or why it cannot be asked.
pub fn check(directory: &Path) -> Result<Checked, CheckError> {
    let mut model = verify(directory)?;
    let (name, version) = (model.manifest().name.clone(), model.manifest().version.clone());
    let agreement = match model.golden()? {
        None => Agreement::NotAsked,
        Some(GoldenAnswer::Transcript { samples, language, tokens, .. }) => transcript(&mut model, samples, &language, &tokens)?,
        Some(GoldenAnswer::Speech { samples, probabilities, tolerance }) => speech(&mut model, &samples, &probabilities, tolerance)?,
        Some(GoldenAnswer::Labels { text, tokens, labels }) => sentence(&mut model, &text, &tokens, &labels)?,
    };
    Ok(Checked { name, version, agreement })
}

/// Why a model must not be used.
#[derive(Debug, thiserror::Error)]
pub enum CheckError {
    /// It is not what its manifest says.
    #[error(transparent)]
    Verify(#[from] VerifyError),
    /// Its golden answer cannot be read.
    #[error(transparent)]
    Golden(#[from] GoldenError),
    /// It cannot be loaded.
    #[error(transparent)]
    LoadSpeech(#[from] SpeechLoadError),
    /// It cannot be loaded.
    #[error(transparent)]
    LoadText(#[from] TextLoadError),
    /// It does not run.
    #[error(transparent)]
    Speech(#[from] SpeechError),
    /// It does not run.
    #[error(transparent)]
    Text(#[from] NerError),
    /// It gave another answer.
    #[error(
        "it gives another answer than the golden one, first at number {at} of its {what} ({count} instead of {expected}); \
         do not use it, import it again"
    )]
    Differs {
        /// Tokens, probabilities, labels.
        what: &'static str,
        /// Place of the first difference, counted from 0.
        at: usize,
        /// Length of the model's answer.
        count: usize,
        /// Length of the golden one.
        expected: usize,
    },
}

fn transcript(model: &mut VerifiedModel, samples: Vec<f32>, language: &str, golden: &[u32]) -> Result<Agreement, CheckError> {
    let tokens = Reader::load(model)?.tokens(&Region::whole(0, 0, samples), Some(language))?;
    same("tokens", &tokens, golden, |token, golden| token == golden)?;
    Ok(Agreement::Tokens(tokens.len()))
}

fn speech(model: &mut VerifiedModel, samples: &[f32], golden: &[f32], tolerance: f32) -> Result<Agreement, CheckError> {
    let probabilities = Ear::load(model)?.probabilities(samples)?;
    // NaN is within no tolerance.
    same("probabilities", &probabilities, golden, |probability, golden| (probability - golden).abs() <= tolerance)?;
    let difference = probabilities.iter().zip(golden).map(|(probability, golden)| (probability - golden).abs()).fold(0.0, f32::max);
    Ok(Agreement::Frames { count: probabilities.len(), difference })
}

fn sentence(model: &mut VerifiedModel, text: &str, tokens: &[u32], golden: &[String]) -> Result<Agreement, CheckError> {
    let ner = load_ner(model)?;
    let (ids, labels) = ner.label(text)?;
    same("tokens", &ids, tokens, |id, golden| *id == i64::from(*golden))?;
    same("labels", &labels, golden, |label, golden| label == golden)?;
    Ok(Agreement::Labels(labels.len()))
}

fn same<A, B>(what: &'static str, answer: &[A], golden: &[B], equal: impl Fn(&A, &B) -> bool) -> Result<(), CheckError> {
    let (count, expected) = (answer.len(), golden.len());
    let differs = answer.iter().zip(golden).position(|(answer, golden)| !equal(answer, golden));
    match differs.or_else(|| (count != expected).then_some(count.min(expected))) {
        None => Ok(()),
        Some(at) => Err(CheckError::Differs { what, at, count, expected }),
    }
}

impl fmt::Display for Checked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}: ", self.name, self.version)?;
        match self.agreement {
            Agreement::Tokens(count) => write!(f, "all {count} tokens of the golden recording are as they must be"),
            Agreement::Frames { count, difference } => {
                write!(f, "all {count} probabilities of the golden recording are as they must be, within {difference:.6}")
            }
            Agreement::Labels(count) => write!(f, "all {count} tokens and labels of the golden sentence are as they must be"),
            Agreement::NotAsked => f.write_str("there is no golden answer to compare with"),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::PathBuf;

    use ring::digest::{SHA256, digest};

    use super::*;

    /// The models of the repository, or of the directory that `SALAMA_MODELS` names.
    fn models() -> PathBuf {
        std::env::var_os("SALAMA_MODELS").map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("firmware-models"), PathBuf::from)
    }

    /// A copy of a model whose golden answer was changed, and its manifest with it.
    fn with_another_answer(name: &str, change: impl Fn(&str) -> String) -> tempfile::TempDir {
        let room = tempfile::tempdir().unwrap();
        let mut manifest = String::new();
        for file in fs::read_dir(models().join(name)).expect("the model is there; run `make models`") {
            let path = file.unwrap().path();
            let target = room.path().join(path.file_name().unwrap());
            match path.file_name().unwrap().to_str().unwrap() {
                "manifest.toml" => manifest = fs::read_to_string(&path).unwrap(),
                _ => drop(fs::copy(&path, target).unwrap()),
            }
        }
        let before = fs::read_to_string(room.path().join("golden.json")).unwrap();
        let after = change(&before);
        assert_ne!(before, after);
        let hex = |text: &str| digest(&SHA256, text.as_bytes()).as_ref().iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        let manifest = manifest
            .replace(&hex(&before), &hex(&after))
            .replace(&format!("bytes = {}\n", before.len()), &format!("bytes = {}\n", after.len()));
        fs::write(room.path().join("golden.json"), after).unwrap();
        fs::write(room.path().join("manifest.toml"), manifest).unwrap();
        room
    }

    #[test]
    fn every_model_gives_its_golden_answer() {
        for name in ["silero-vad", "rampart", "whisper-base", "whisper-tiny-en"] {
            let checked = check(&models().join(name)).unwrap_or_else(|error| panic!("{name}: {error}; run `make models`"));
            assert!(!matches!(checked.agreement, Agreement::NotAsked), "{checked}");
        }
    }

    #[test]
    fn a_label_that_differs_is_refused() {
        let model = with_another_answer("rampart", |answer| answer.replacen("B-CITY", "B-STATE", 1));
        assert!(matches!(check(model.path()), Err(CheckError::Differs { what: "labels", at: 17, .. })));
    }

    #[test]
    fn a_probability_that_differs_is_refused() {
        let model = with_another_answer("silero-vad", |answer| answer.replacen("\"probabilities\": [", "\"probabilities\": [0.99, ", 1));
        assert!(matches!(check(model.path()), Err(CheckError::Differs { what: "probabilities", at: 0, .. })));
    }

    #[test]
    fn a_token_that_differs_is_refused() {
        let model = with_another_answer("whisper-tiny-en", |answer| answer.replacen("\"tokens\": [", "\"tokens\": [1, ", 1));
        assert!(matches!(check(model.path()), Err(CheckError::Differs { what: "tokens", at: 0, .. })));
    }
}
