//! Makes a model directory of a Whisper checkpoint: read > check > write > manifest > verify > prove > put in place.
//! Trusts: nothing in the checkpoint; a pinned manifest decides which bytes may come out.
//! Touches: the checkpoint's directory, reading; the new directory and a temporary one beside it, writing.
//! Next: `verify` reads the new directory before it is put in place, and whoever uses the model does so again.

mod checkpoint;
pub mod ct2;
pub mod describe;
pub mod graph;
pub mod hf;
mod onnx;
mod staging;
pub mod tables;
pub mod vocabulary;
pub mod weights;

#[cfg(test)]
mod numbers_tests;
#[cfg(test)]
mod synthetic;
#[cfg(test)]
mod tests;

use std::io;
use std::path::{Path, PathBuf};

use super::manifest::{GraphSpec, Manifest, ManifestError};
use super::verify::{self, MANIFEST, VerifiedModel, VerifyError};
use checkpoint::{Checkpoint, CheckpointError};
use describe::Description;
use onnx::Graph;
use staging::Staging;
use tables::{Generation, TablesError};
use vocabulary::{Vocabulary, VocabularyError};
use weights::{Weights, WeightsError};

/// What to import, where to, and what it must become.
pub struct ImportRequest {
    /// Directory of the checkpoint: CTranslate2 (`model.bin`) or Hugging Face (`*.safetensors`).
    pub from: PathBuf,
    /// The model directory to make. One that is there already is replaced.
    pub to: PathBuf,
    /// Where the manifest comes from.
    pub manifest: ManifestSource,
}

/// Where the new directory's manifest comes from.
pub enum ManifestSource {
    /// A reviewed manifest: what comes in and what comes out must have its digests. Files that the importer does not make,
    /// such as golden answers, are taken from beside it.
    Pinned(PathBuf),
    /// A new manifest with the digests of what came out.
    Described(Description),
}

/// A stage of the import, for whoever waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ImportStep {
    /// The checkpoint is read and its shapes are checked.
    Reading,
    /// The encoder is written.
    Encoder,
    /// The decoder is written.
    Decoder,
    /// Embeddings, tokens and settings are written.
    Tables,
    /// The new directory is read back, and the new model proven.
    Verifying,
}

impl ImportStep {
    /// What to show.
    pub const fn words(self) -> &'static str {
        match self {
            Self::Reading => "reading the checkpoint",
            Self::Encoder => "writing the encoder",
            Self::Decoder => "writing the decoder",
            Self::Tables => "writing tables and tokens",
            Self::Verifying => "verifying what was written",
        }
    }
}

/// Imports a Whisper checkpoint. The new directory appears whole or not at all, once `prove` has taken it for good; the same
/// checkpoint gives the same bytes.
///
/// # Errors
/// [`ImportError`] says which step failed, or that of `prove`; nothing is left behind then.
pub fn import<E: From<ImportError>>(
    request: &ImportRequest,
    progress: &mut dyn FnMut(ImportStep),
    prove: impl FnOnce(&Path) -> Result<(), E>,
) -> Result<VerifiedModel, E> {
    let (staging, verified) = make(request, progress)?;
    prove(staging.path())?;
    staging.put_in_place(&request.to).map_err(ImportError::Write)?;
    Ok(verified)
}

fn make(request: &ImportRequest, progress: &mut dyn FnMut(ImportStep)) -> Result<(Staging, VerifiedModel), ImportError> {
    let pinned = match &request.manifest {
        ManifestSource::Pinned(path) => Some(Pinned::read(path)?),
        ManifestSource::Described(_) => None,
    };

    progress(ImportStep::Reading);
    let payload = pinned.as_ref().map(|pinned| pinned.manifest.source.payload.as_slice()).unwrap_or_default();
    let checkpoint = Checkpoint::read(&request.from, payload)?;
    let weights = Weights::assemble(checkpoint.tensors)?;
    let vocabulary = Vocabulary::read(checkpoint.tokenizer, weights.vocabulary)?;

    let mut staging = Staging::beside(&request.to).map_err(ImportError::Write)?;
    let graphs = write(&weights, &vocabulary, &checkpoint.generation, &mut staging, progress)?;
    match (&request.manifest, pinned) {
        (ManifestSource::Described(description), _) => {
            let manifest = describe::manifest(description, &vocabulary, &checkpoint.payload, &graphs, staging.files());
            staging.write(MANIFEST, manifest.as_bytes()).map_err(ImportError::Write)?;
        }
        (ManifestSource::Pinned(_), pinned) => pinned.into_iter().try_for_each(|pinned| pinned.complete(&mut staging))?,
    }

    progress(ImportStep::Verifying);
    let verified = verify::verify(staging.path())?;
    Ok((staging, verified))
}

/// Why a checkpoint was not imported.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// The pinned manifest cannot be read.
    #[error("the manifest {} cannot be read: {source}", path.display())]
    Pinned {
        /// Its path.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The pinned manifest cannot be used.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// The checkpoint cannot be read.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// The tensors are not a Whisper model.
    #[error(transparent)]
    Weights(#[from] WeightsError),
    /// The tokens are not a Whisper vocabulary.
    #[error(transparent)]
    Vocabulary(#[from] VocabularyError),
    /// The settings do not fit the model.
    #[error(transparent)]
    Tables(#[from] TablesError),
    /// The new directory cannot be written.
    #[error("the new model cannot be written: {0}")]
    Write(#[source] io::Error),
    /// What came out is not what the manifest says.
    #[error("what the import made was refused: {0}")]
    Verify(#[from] VerifyError),
}

fn write(
    weights: &Weights,
    vocabulary: &Vocabulary,
    generation: &Generation,
    staging: &mut Staging,
    progress: &mut dyn FnMut(ImportStep),
) -> Result<Vec<GraphSpec>, ImportError> {
    let settings = tables::settings(weights, vocabulary, generation)?;
    let mut specs = Vec::new();
    let mut put = |graph: Graph, staging: &mut Staging| {
        staging.write(&graph.spec.file, &graph.bytes)?;
        specs.push(graph.spec);
        Ok(())
    };
    progress(ImportStep::Encoder);
    put(graph::encoder(weights), staging).map_err(ImportError::Write)?;
    progress(ImportStep::Decoder);
    put(graph::decoder(weights), staging).map_err(ImportError::Write)?;
    progress(ImportStep::Tables);
    let tables: [(&str, &[u8]); 4] = [
        ("emb.f16", &weights.embeddings.bytes),
        ("dpos.f16", &weights.text_positions.bytes),
        ("tokens.bin", &tables::tokens(vocabulary)),
        ("asr.json", &settings),
    ];
    for (name, bytes) in tables {
        staging.write(name, bytes).map_err(ImportError::Write)?;
    }
    Ok(specs)
}

/// A reviewed manifest and the directory it lies in.
struct Pinned {
    manifest: Manifest,
    text: Vec<u8>,
    directory: PathBuf,
}

impl Pinned {
    fn read(path: &Path) -> Result<Self, ImportError> {
        let text = std::fs::read(path).map_err(|source| ImportError::Pinned { path: path.to_owned(), source })?;
        let manifest = Manifest::parse(&text)?;
        Ok(Self { manifest, text, directory: path.parent().unwrap_or(Path::new(".")).to_owned() })
    }

    /// Adds the manifest itself and those of its files that the importer does not make.
    fn complete(self, staging: &mut Staging) -> Result<(), ImportError> {
        for entry in &self.manifest.files {
            if !staging.files().iter().any(|made| made.name == entry.name) {
                let path = self.directory.join(&entry.name);
                let bytes = std::fs::read(&path).map_err(|source| ImportError::Pinned { path, source })?;
                staging.write(&entry.name, &bytes).map_err(ImportError::Write)?;
            }
        }
        staging.write(MANIFEST, &self.text).map_err(ImportError::Write)
    }
}
