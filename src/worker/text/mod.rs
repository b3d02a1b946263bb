//! Redaction of personal information, a call or a text at a time.
//! Trusts: the name model, which was verified. Not the text: it is a stranger's, and may try to hide what it holds.
//! Touches: memory and processor.
//! Next: `worker::run` sends redacted and clear text to `salamad`, which seals them apart.
//!
//! ```text
//! clear > rules > names > propagate > merge > number > replace
//! ```
//! An error is an error: no path gives back text that was not searched.

pub mod document;
pub mod finding;
pub mod fused;
pub mod language;
pub mod lexicon;
pub mod merge;
pub mod names;
pub mod ner;
mod ops;
pub mod placeholder;
pub mod propagate;
pub mod recognise;
pub mod redactor;
pub mod view;
pub mod wordpiece;
pub mod words;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use self::language::LanguageJudge;
use self::ner::{Ner, NerError, NerLoadError};
use self::redactor::Redactor;
use crate::ipc::transcript::{Entity, EntityCount, EntityKind, Utterance};
use crate::ipc::worker::TextLanguage;
use crate::model::load::LoadError;
use crate::model::verify::VerifiedModel;

/// All that reads text. Shared by threads; survives a fork.
pub struct TextModels {
    redactor: Redactor,
    ner: Ner,
    language: LanguageJudge,
}

/// A text with placeholders.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RedactedPlain {
    /// The text; every byte outside the entities is as it was.
    pub text: String,
    /// What was masked, as byte ranges of the clear text, in order.
    pub entities: Vec<Entity>,
}

impl TextModels {
    /// Builds everything; takes the files of the verified Rampart model.
    ///
    /// # Errors
    /// When a file is missing or does not fit the others, or a rule of ours does not compile.
    pub fn load(ner: &mut VerifiedModel) -> Result<Self, TextLoadError> {
        Ok(Self { redactor: Redactor::new().map_err(TextLoadError::Rules)?, ner: load_ner(ner)?, language: LanguageJudge::build() })
    }

    /// Uses everything once, so that nothing is read or unpacked for the first time after confinement.
    ///
    /// # Errors
    /// As [`TextModels::redact_text`].
    pub fn warm_up(&self) -> Result<(), TextError> {
        self.language.warm_up();
        self.redact_text("Amina from Kisumu, +254 712 345 678, is 12 years old. Naitwa Juma.").map(|_| ())
    }

    /// Redacts a call. The utterances come back in the order given, each with what was masked in it as byte ranges of its clear text.
    /// `progress` is told the share that is done, 0..=1000.
    ///
    /// # Errors
    /// When the model fails. Nothing of the call may then be shown.
    pub fn redact_call(&self, clear: &[Utterance], progress: &mut dyn FnMut(u16)) -> Result<Vec<(Utterance, Vec<Entity>)>, TextError> {
        let total: usize = clear.iter().flat_map(|utterance| &utterance.words).map(|word| word.text.len() + 1).sum();
        let mut done = |bytes: usize| progress(per_mille(bytes, total));
        self.redactor.call(clear, &mut |text| Ok(self.ner.score(text, &mut done)?))
    }

    /// Redacts a text.
    ///
    /// # Errors
    /// When the model fails. The text may then not be shown.
    pub fn redact_text(&self, text: &str) -> Result<RedactedPlain, TextError> {
        self.redactor.text(text, &mut |text| Ok(self.ner.score(text, &mut |_| {})?))
    }

    /// The language of `text`; `None` when it is short or unclear.
    pub fn language(&self, text: &str) -> Option<TextLanguage> {
        self.language.judge(text)
    }
}

/// The name model alone.
///
/// # Errors
/// When a file is missing or does not fit the others.
pub fn load_ner(model: &mut VerifiedModel) -> Result<Ner, TextLoadError> {
    let onnx = model.take("model_q4.onnx")?;
    Ok(Ner::load(&onnx, model.file("vocab.txt")?, model.file("config.json")?)?)
}

/// Why the models cannot be loaded.
#[derive(Debug, thiserror::Error)]
pub enum TextLoadError {
    /// A file of it.
    #[error("the name model cannot be loaded; run `make models` again")]
    Model(#[from] LoadError),
    /// The name model.
    #[error("the name model cannot be loaded; run `make models` again")]
    Ner(#[from] NerLoadError),
    /// A rule.
    #[error("a redaction rule does not compile; this build of Salama is broken")]
    Rules(#[source] regex::Error),
}

/// Why a text could not be redacted.
#[derive(Debug, thiserror::Error)]
pub enum TextError {
    /// The name model.
    #[error("personal names could not be looked for")]
    Ner(#[from] NerError),
    /// A text of more than 4 GiB.
    #[error("the text is too long to be redacted")]
    TooLong,
    /// A range of ours that does not fit the text: a fault of ours.
    #[error("the places of personal information could not be carried back to the text")]
    Range,
}

/// How often each kind was redacted, in the order of [`EntityKind`].
pub fn count<'a>(entities: impl Iterator<Item = &'a Entity>) -> Vec<EntityCount> {
    let mut counts: BTreeMap<EntityKind, u32> = BTreeMap::new();
    for entity in entities {
        *counts.entry(entity.kind).or_insert(0) += 1;
    }
    counts.into_iter().map(|(kind, count)| EntityCount { kind, count }).collect()
}

fn per_mille(done: usize, total: usize) -> u16 {
    u16::try_from(done.saturating_mul(1000) / total.max(1)).unwrap_or(1000).min(1000)
}
