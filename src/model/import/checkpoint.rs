//! A Whisper checkpoint as it lies in a directory, of either family.
//! Trusts: nothing; JSON files are read up to a limit, and pinned digests are checked before anything is read.
//! Touches: the checkpoint's directory, reading.
//! Next: `import` turns it into graphs and tables.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use ring::digest::{Context, SHA256};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::ct2::{self, Ct2Error};
use super::hf::{self, GenerationConfig, HfError};
use super::tables::Generation;
use super::vocabulary::TokenizerFile;
use super::weights::Tensors;
use crate::base::hex::hex;
use crate::model::manifest::Digest;

/// CTranslate2's weights.
const CT2_WEIGHTS: &str = "model.bin";
const TOKENIZER: &str = "tokenizer.json";
const VOCABULARY: &str = "vocab.json";
const ADDED_TOKENS: &str = "added_tokens.json";
const CONFIG: &str = "config.json";
const GENERATION_CONFIG: &str = "generation_config.json";
/// Largest JSON file that is read, in bytes; a multilingual tokenizer has 2 to 4 MB.
const MAX_JSON_BYTES: u64 = 64 * 1024 * 1024;

/// What was read of a checkpoint.
pub struct Checkpoint {
    /// The weights in half precision.
    pub tensors: Tensors,
    /// The tokens.
    pub tokenizer: TokenizerFile,
    /// The settings of the decoding loop.
    pub generation: Generation,
    /// The files that were read, with their digests.
    pub payload: Vec<Digest>,
}

/// CTranslate2's `config.json`.
#[derive(Deserialize)]
struct Ct2Config {
    #[serde(default)]
    suppress_ids: Vec<i64>,
    #[serde(default)]
    suppress_ids_begin: Vec<i64>,
    #[serde(default)]
    alignment_heads: Vec<(usize, usize)>,
}

impl Checkpoint {
    /// Reads the directory. Every file of `pinned` must be there with its digest.
    ///
    /// # Errors
    /// [`CheckpointError`] names the file that is missing or cannot be used.
    pub fn read(directory: &Path, pinned: &[Digest]) -> Result<Self, CheckpointError> {
        for digest in pinned {
            if digest_of(directory, &digest.file)? != digest.sha256 {
                return Err(CheckpointError::Digest { file: digest.file.clone() });
            }
        }
        let family = Family::of(directory)?;
        let (tensors, generation) = family.read(directory)?;
        let tokens = tokenizer_files(directory);
        let files = family.files(directory)?.into_iter().chain(tokens.iter().map(|&file| file.to_owned()));
        let payload = files.map(|file| Ok(Digest { sha256: digest_of(directory, &file)?, file }));
        let payload = payload.collect::<Result<_, CheckpointError>>()?;
        Ok(Self { tensors, tokenizer: tokenizer(directory, tokens)?, generation, payload })
    }
}

/// Why a checkpoint was not read.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    /// No weights that this importer knows.
    #[error("{} holds neither {CT2_WEIGHTS} (CTranslate2) nor {} (Hugging Face); name the directory that holds the weights", directory.display(), hf::SINGLE)]
    Neither {
        /// The directory.
        directory: PathBuf,
    },
    /// The file system failed.
    #[error("the checkpoint's file {file} cannot be read: {source}")]
    Read {
        /// The file.
        file: String,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// A JSON file that is too large or not of the usual form.
    #[error("the checkpoint's file {file} cannot be understood: {source}")]
    Json {
        /// The file.
        file: String,
        /// What the parser said.
        #[source]
        source: serde_json::Error,
    },
    /// Another file than the reviewed one.
    #[error("the checkpoint's file {file} is not the one that the manifest pins; fetch it again")]
    Digest {
        /// The file.
        file: String,
    },
    /// CTranslate2 weights.
    #[error(transparent)]
    Ct2(#[from] Ct2Error),
    /// Hugging Face weights.
    #[error(transparent)]
    Hf(#[from] HfError),
}

/// Who wrote the checkpoint.
enum Family {
    Ct2,
    HuggingFace,
}

impl Family {
    fn of(directory: &Path) -> Result<Self, CheckpointError> {
        let holds = |file| directory.join(file).is_file();
        if holds(CT2_WEIGHTS) {
            Ok(Self::Ct2)
        } else if holds(hf::SINGLE) || holds(hf::INDEX) {
            Ok(Self::HuggingFace)
        } else {
            Err(CheckpointError::Neither { directory: directory.to_owned() })
        }
    }

    /// All files that [`read`](Self::read) reads.
    fn files(&self, directory: &Path) -> Result<Vec<String>, CheckpointError> {
        let mut files = match self {
            Self::Ct2 => vec![CT2_WEIGHTS.to_owned()],
            Self::HuggingFace => hf::shards(directory)?.into_iter().collect(),
        };
        files.push(CONFIG.to_owned());
        if matches!(self, Self::HuggingFace) && directory.join(GENERATION_CONFIG).is_file() {
            files.push(GENERATION_CONFIG.to_owned());
        }
        Ok(files)
    }

    fn read(&self, directory: &Path) -> Result<(Tensors, Generation), CheckpointError> {
        match self {
            Self::Ct2 => {
                let config: Ct2Config = json(directory, CONFIG)?;
                let generation = Generation {
                    suppress: config.suppress_ids,
                    suppress_begin: config.suppress_ids_begin,
                    alignment_heads: config.alignment_heads,
                };
                Ok((ct2::read(&directory.join(CT2_WEIGHTS))?, generation))
            }
            Self::HuggingFace => {
                let config: hf::Config = json(directory, CONFIG)?;
                config.check()?;
                let newer = directory.join(GENERATION_CONFIG).is_file();
                let newer = if newer { json(directory, GENERATION_CONFIG)? } else { GenerationConfig::default() };
                Ok((hf::read(directory)?, config.generation(newer)))
            }
        }
    }
}

/// `tokenizer.json`, or the older pair where only that is there.
fn tokenizer_files(directory: &Path) -> &'static [&'static str] {
    let older = !directory.join(TOKENIZER).is_file() && directory.join(VOCABULARY).is_file();
    if older { &[VOCABULARY, ADDED_TOKENS] } else { &[TOKENIZER] }
}

fn tokenizer(directory: &Path, files: &[&str]) -> Result<TokenizerFile, CheckpointError> {
    if files == [TOKENIZER] {
        return json(directory, TOKENIZER);
    }
    let vocab: HashMap<String, u32> = json(directory, VOCABULARY)?;
    let added: HashMap<String, u32> = json(directory, ADDED_TOKENS)?;
    Ok(TokenizerFile::from_pair(vocab, added))
}

fn json<T: DeserializeOwned>(directory: &Path, file: &str) -> Result<T, CheckpointError> {
    let mut bytes = Vec::new();
    let opened = File::open(directory.join(file)).and_then(|opened| opened.take(MAX_JSON_BYTES).read_to_end(&mut bytes));
    opened.map_err(|source| CheckpointError::Read { file: file.to_owned(), source })?;
    serde_json::from_slice(&bytes).map_err(|source| CheckpointError::Json { file: file.to_owned(), source })
}

fn digest_of(directory: &Path, file: &str) -> Result<String, CheckpointError> {
    let failed = |source| CheckpointError::Read { file: file.to_owned(), source };
    let mut opened = File::open(directory.join(file)).map_err(failed)?;
    let mut context = Context::new(&SHA256);
    let mut buffer = vec![0; 1 << 20];
    loop {
        match opened.read(&mut buffer).map_err(failed)? {
            0 => return Ok(hex(context.finish().as_ref())),
            read => context.update(buffer.get(..read).unwrap_or_default()),
        }
    }
}
