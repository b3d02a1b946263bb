//! Reads a Hugging Face directory of a Whisper model: safetensors in one file or in shards.
//! Trusts: nothing; the header is checked by the `safetensors` crate, shapes by `weights`.
//! Touches: the given directory.
//! Next: `weights` puts the tensors in their places.

use std::collections::{BTreeSet, HashMap};
use std::fs;
use std::io;
use std::path::Path;

use safetensors::{Dtype, SafeTensorError, SafeTensors};
use serde::Deserialize;

use super::tables::Generation;
use super::weights::{Element, HEAD_WIDTH, Half, Tensors};
use crate::model::manifest::is_file_name;

/// The weights in one file.
pub const SINGLE: &str = "model.safetensors";
/// The list of shards.
pub const INDEX: &str = "model.safetensors.index.json";
/// The output projection, the same table as the embeddings.
const PROJECTION: &str = "proj_out.weight";
const EMBEDDINGS: &str = "model.decoder.embed_tokens.weight";

/// `config.json`, as far as it changes the graphs.
#[derive(Deserialize)]
pub struct Config {
    model_type: String,
    d_model: usize,
    encoder_attention_heads: usize,
    decoder_attention_heads: usize,
    #[serde(default = "gelu")]
    activation_function: String,
    #[serde(default)]
    scale_embedding: bool,
    suppress_tokens: Option<Vec<i64>>,
    begin_suppress_tokens: Option<Vec<i64>>,
}

/// `generation_config.json`, as far as it matters here.
#[derive(Default, Deserialize)]
pub struct GenerationConfig {
    suppress_tokens: Option<Vec<i64>>,
    begin_suppress_tokens: Option<Vec<i64>>,
    alignment_heads: Option<Vec<(usize, usize)>>,
}

#[derive(Deserialize)]
struct Index {
    weight_map: HashMap<String, String>,
}

fn gelu() -> String {
    "gelu".to_owned()
}

impl Config {
    /// Refuses what the graphs do not compute.
    ///
    /// # Errors
    /// [`HfError::Config`] names the setting.
    pub fn check(&self) -> Result<(), HfError> {
        let heads = self.d_model / HEAD_WIDTH;
        let wrong = [
            ("model_type", self.model_type != "whisper"),
            ("encoder_attention_heads", self.encoder_attention_heads != heads),
            ("decoder_attention_heads", self.decoder_attention_heads != heads),
            ("activation_function", self.activation_function != "gelu"),
            ("scale_embedding", self.scale_embedding),
        ];
        match wrong.into_iter().find(|&(_, wrong)| wrong) {
            Some((setting, _)) => Err(HfError::Config { setting }),
            None => Ok(()),
        }
    }

    /// What both files say about decoding; the newer `generation_config.json` wins.
    pub fn generation(self, newer: GenerationConfig) -> Generation {
        Generation {
            suppress: newer.suppress_tokens.or(self.suppress_tokens).unwrap_or_default(),
            suppress_begin: newer.begin_suppress_tokens.or(self.begin_suppress_tokens).unwrap_or_default(),
            alignment_heads: newer.alignment_heads.unwrap_or_default(),
        }
    }
}

/// The tensors of all shards under their usual names. Takes as much memory as the largest shard beside them.
///
/// # Errors
/// [`HfError`] names the file or tensor that cannot be used.
pub fn read(directory: &Path) -> Result<Tensors, HfError> {
    let mut tensors = Tensors::new();
    for shard in shards(directory)? {
        let failed = |source| HfError::Read { file: shard.clone(), source };
        let bytes = fs::read(directory.join(&shard)).map_err(failed)?;
        let parsed = SafeTensors::deserialize(&bytes).map_err(|source| HfError::Damaged { file: shard.clone(), source })?;
        for (name, view) in parsed.tensors() {
            let element = match view.dtype() {
                Dtype::F32 => Element::F32,
                Dtype::F16 => Element::F16,
                Dtype::BF16 => Element::Bf16,
                _ => return Err(HfError::ElementType { tensor: name }),
            };
            let half = Half::convert(view.shape().to_vec(), element, view.data().to_vec());
            let half = half.ok_or_else(|| HfError::Overflow { tensor: name.clone() })?;
            tensors.insert(usual_name(name), half);
        }
    }
    match tensors.remove(PROJECTION) {
        Some(projection) if tensors.get(EMBEDDINGS) != Some(&projection) => Err(HfError::Untied),
        _ => Ok(tensors),
    }
}

/// Why a directory of safetensors was not read.
#[derive(Debug, thiserror::Error)]
pub enum HfError {
    /// The file system failed.
    #[error("{file} cannot be read: {source}")]
    Read {
        /// The file.
        file: String,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The header does not fit the file.
    #[error("{file} is damaged: {source}; copy it again")]
    Damaged {
        /// The file.
        file: String,
        /// What the reader said.
        #[source]
        source: SafeTensorError,
    },
    /// The list of shards is no such list.
    #[error("{INDEX} cannot be understood: {0}")]
    Index(#[source] serde_json::Error),
    /// A shard's name is a path.
    #[error("{INDEX} names the shard {name:?}, which is not a plain file name")]
    ShardName {
        /// As read.
        name: String,
    },
    /// Integers or another type.
    #[error("the tensor {tensor} is not of float32, float16 or bfloat16; quantised checkpoints cannot be imported")]
    ElementType {
        /// Its name.
        tensor: String,
    },
    /// A number that half precision cannot hold.
    #[error("the tensor {tensor} holds a number that half precision cannot hold")]
    Overflow {
        /// Its name.
        tensor: String,
    },
    /// The output projection is a table of its own.
    #[error("{PROJECTION} differs from the embeddings; in a Whisper model they are one table")]
    Untied,
    /// A setting that the graphs do not compute.
    #[error("config.json has a {setting} that no Whisper model has")]
    Config {
        /// Its name.
        setting: &'static str,
    },
}

/// File names of the shards, once each, in order.
///
/// # Errors
/// [`HfError`] when the list of shards cannot be used.
pub fn shards(directory: &Path) -> Result<BTreeSet<String>, HfError> {
    let text = match fs::read(directory.join(INDEX)) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(BTreeSet::from([SINGLE.to_owned()])),
        Err(source) => return Err(HfError::Read { file: INDEX.to_owned(), source }),
    };
    let index: Index = serde_json::from_slice(&text).map_err(HfError::Index)?;
    let shards: BTreeSet<String> = index.weight_map.into_values().collect();
    match shards.iter().find(|name| !is_file_name(name)) {
        Some(name) => Err(HfError::ShardName { name: name.clone() }),
        None => Ok(shards),
    }
}

/// Some checkpoints leave out the leading `model.`.
fn usual_name(name: String) -> String {
    if name == PROJECTION || name.starts_with("model.") { name } else { format!("model.{name}") }
}
