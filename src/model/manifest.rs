//! What a model says of itself: purpose, origin, licence, shapes, digests, golden answers.
//! Trusts: nothing; unknown settings are refused, names of files are single path components.
//! Touches: nothing.
//! Next: `verify` compares a directory with it.

use serde::{Deserialize, Serialize};

/// The format that this program reads and writes.
pub const SCHEMA: u32 = 1;

/// `manifest.toml` of a model's directory.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// [`SCHEMA`].
    pub schema: u32,
    /// The directory's usual name: lower-case letters, digits, hyphens.
    pub name: String,
    /// Version of the model, not of the software that runs it.
    pub version: String,
    /// What it is for.
    pub purpose: Purpose,
    /// SPDX identifier.
    pub licence: String,
    /// Who made it, as the licence asks to be told.
    pub attribution: String,
    /// ISO 639-1 codes of the languages; empty when the model knows no language.
    pub languages: Vec<String>,
    /// Where the files come from.
    pub source: Source,
    /// Inputs and outputs of each graph.
    #[serde(default)]
    pub graphs: Vec<GraphSpec>,
    /// All files of the directory but the manifest itself.
    pub files: Vec<FileEntry>,
    /// An input and what the model must make of it.
    pub golden: Option<Golden>,
}

/// What a model is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Purpose {
    /// Tells speech from silence.
    VoiceActivity,
    /// Writes down speech.
    SpeechRecognition,
    /// Finds names and other personal information in text.
    PersonalInformation,
}

/// Where a model comes from.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Source {
    /// Name of the package, or a word such as `operator` for a model that was brought by hand.
    pub package: String,
    /// Version of the package.
    pub version: String,
    /// Who published the weights first, with their revision.
    pub upstream: String,
    /// Archives that were fetched.
    #[serde(default)]
    pub archives: Vec<Digest>,
    /// Files that the importer reads, as they came out of the archives.
    #[serde(default)]
    pub payload: Vec<Digest>,
}

/// A file's SHA-256.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Digest {
    /// Name without directory.
    pub file: String,
    /// 64 lower-case hexadecimal digits.
    pub sha256: String,
}

/// A file of the model's directory.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct FileEntry {
    /// Name without directory.
    pub name: String,
    /// Size in bytes.
    pub bytes: u64,
    /// 64 lower-case hexadecimal digits.
    pub sha256: String,
}

/// Inputs and outputs of one ONNX file, in order.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct GraphSpec {
    /// The file.
    pub file: String,
    /// Inputs in order.
    pub inputs: Vec<TensorSpec>,
    /// Outputs in order.
    pub outputs: Vec<TensorSpec>,
}

/// One input or output.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct TensorSpec {
    /// Name in the graph.
    pub name: String,
    /// Type of its elements.
    pub element: ElementType,
    /// Sizes of its axes, outermost first.
    pub shape: Vec<Axis>,
}

/// Types of elements that our models have at their rims.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ElementType {
    /// Single precision.
    F32,
    /// 64-bit integers.
    I64,
}

/// The size of an axis.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(untagged)]
pub enum Axis {
    /// Known beforehand.
    Fixed(u64),
    /// Known when the model runs: `K`, `2*K`.
    Symbol(String),
}

/// An input and what the model must make of it. Both are files of the model's directory.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Golden {
    /// A recording (16 kHz, one channel, 16-bit WAV) or a JSON file.
    pub input: String,
    /// A JSON file, of the form that the purpose asks for: see `golden`.
    pub output: String,
    /// The independent program that made the answer, with its version.
    pub witness: String,
}

/// More files than any model of ours has.
const MAX_FILES: usize = 64;
/// Digits of a SHA-256.
const SHA256_DIGITS: usize = 64;

impl Manifest {
    /// Reads and checks `manifest.toml`.
    ///
    /// # Errors
    /// [`ManifestError`] says what is wrong with it.
    pub fn parse(bytes: &[u8]) -> Result<Self, ManifestError> {
        let text = std::str::from_utf8(bytes).map_err(|_| ManifestError::NotText)?;
        let manifest: Self = toml::from_str(text)?;
        if manifest.schema != SCHEMA {
            return Err(ManifestError::Schema { found: manifest.schema });
        }
        if !is_model_name(&manifest.name) {
            return Err(ManifestError::Name { found: manifest.name });
        }
        manifest.check_files()?;
        Ok(manifest)
    }

    fn check_files(&self) -> Result<(), ManifestError> {
        if self.files.is_empty() || self.files.len() > MAX_FILES {
            return Err(ManifestError::FileCount { found: self.files.len() });
        }
        for (index, entry) in self.files.iter().enumerate() {
            if !is_file_name(&entry.name) {
                return Err(ManifestError::FileName { name: entry.name.clone() });
            }
            if self.files.iter().take(index).any(|other| other.name == entry.name) {
                return Err(ManifestError::Twice { name: entry.name.clone() });
            }
            if entry.bytes > super::verify::MAX_FILE_BYTES {
                return Err(ManifestError::TooLarge { name: entry.name.clone() });
            }
        }
        let digests = self.source.archives.iter().chain(&self.source.payload);
        let digests = digests.map(|digest| (&digest.file, &digest.sha256));
        for (name, sha256) in self.files.iter().map(|entry| (&entry.name, &entry.sha256)).chain(digests) {
            if sha256.len() != SHA256_DIGITS || !sha256.bytes().all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f')) {
                return Err(ManifestError::Digest { name: name.clone() });
            }
        }
        let golden = self.golden.iter().flat_map(|golden| [&golden.input, &golden.output]);
        for name in self.graphs.iter().map(|graph| &graph.file).chain(golden) {
            if !self.files.iter().any(|entry| &entry.name == name) {
                return Err(ManifestError::Unlisted { name: name.clone() });
            }
        }
        Ok(())
    }
}

/// Why a manifest was refused.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// Not UTF-8.
    #[error("manifest.toml is not text; install the model again")]
    NotText,
    /// Not TOML, or not of this form.
    #[error("manifest.toml cannot be understood: {0}")]
    Syntax(#[from] toml::de::Error),
    /// Another form than this program knows.
    #[error("manifest.toml has the form {found}, this program knows form {SCHEMA}; install the model that belongs to this release")]
    Schema {
        /// As read.
        found: u32,
    },
    /// A name that is not one plain word.
    #[error("manifest.toml calls the model {found:?}; a name is 1 to 64 lower-case letters, digits and hyphens")]
    Name {
        /// As read.
        found: String,
    },
    /// No file, or more than any model has.
    #[error("manifest.toml lists {found} files; a model has 1 to {MAX_FILES}")]
    FileCount {
        /// As read.
        found: usize,
    },
    /// A path instead of a name.
    #[error("manifest.toml lists {name:?}, which is not a plain file name")]
    FileName {
        /// As read.
        name: String,
    },
    /// The same file again.
    #[error("manifest.toml lists {name} twice")]
    Twice {
        /// The file.
        name: String,
    },
    /// A file beyond any limit.
    #[error("manifest.toml gives {name} more than {} bytes", super::verify::MAX_FILE_BYTES)]
    TooLarge {
        /// The file.
        name: String,
    },
    /// Not a digest.
    #[error("manifest.toml gives {name} a SHA-256 that is not {SHA256_DIGITS} lower-case hexadecimal digits")]
    Digest {
        /// The file.
        name: String,
    },
    /// A graph or golden file without a digest.
    #[error("manifest.toml names {name} without listing it under files")]
    Unlisted {
        /// The file.
        name: String,
    },
}

/// Letters, digits and `._-`, not starting with a dot: nothing that leads out of a directory or hides in it.
pub fn is_file_name(name: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    matches!(name.len(), 1..=128) && !name.starts_with('.') && name.bytes().all(plain) && name != super::verify::MANIFEST
}

/// 1 to 64 lower-case letters, digits and hyphens, the first a letter.
pub fn is_model_name(name: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    matches!(name.len(), 1..=64) && name.bytes().all(plain) && name.starts_with(|first: char| first.is_ascii_lowercase())
}
