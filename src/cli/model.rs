//! `salama model import|verify|list`: models on this machine's disk.
//! Trusts: nothing in a model or checkpoint; both are checked byte by byte.
//! Touches: the directories that the operator names; starts `salama-worker` to run a model.
//! Next: `bin/salama` prints the answers, as text or as JSON.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

use clap::{Args, Subcommand};
use serde::Serialize;

use super::output::clean;
use super::programs;
use crate::base::exit::Exit;
use crate::model::import::describe::Description;
use crate::model::import::{self, ImportError, ImportRequest, ImportStep, ManifestSource};
use crate::model::manifest::{Purpose, is_model_name};
use crate::model::verify::{VerifiedModel, VerifyError, directories, verify as verify_directory};

/// What `salama model` can do.
#[derive(Debug, Subcommand)]
pub enum ModelCommand {
    /// Make a model directory of a Whisper checkpoint (CTranslate2 float16 or Hugging Face safetensors)
    Import(ImportArgs),
    /// Check every file of a model directory against its manifest, and the model's answer against its golden one
    Verify {
        /// The model directory
        directory: PathBuf,
        /// Do not run the model: compare its files only
        #[arg(long)]
        files_only: bool,
    },
    /// List the model directories below a directory and check each
    List {
        /// The directory that holds the model directories
        directory: PathBuf,
    },
}

/// Arguments of `salama model import`.
#[derive(Args, Debug)]
pub struct ImportArgs {
    /// Directory of the checkpoint: model.bin, config.json, tokenizer.json, or *.safetensors with the same
    #[arg(long)]
    pub from: PathBuf,
    /// Model directory to make; one that is there already is replaced
    #[arg(long)]
    pub to: PathBuf,
    /// Reviewed manifest whose digests the result must have; without it a new manifest is written
    #[arg(long, conflicts_with_all = ["version", "licence", "attribution", "upstream"])]
    pub manifest: Option<PathBuf>,
    /// Version of the model
    #[arg(long, required_unless_present = "manifest")]
    pub version: Option<String>,
    /// SPDX identifier of the model's licence, such as MIT
    #[arg(long, required_unless_present = "manifest")]
    pub licence: Option<String>,
    /// Who made the model, as its licence asks to be told
    #[arg(long, required_unless_present = "manifest")]
    pub attribution: Option<String>,
    /// Where the checkpoint was published, with its revision
    #[arg(long, required_unless_present = "manifest")]
    pub upstream: Option<String>,
}

/// A model that was verified.
#[derive(Debug, Serialize)]
pub struct ModelSummary {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// What it is for.
    pub purpose: Purpose,
    /// SPDX identifier of its licence.
    pub licence: String,
    /// Who made it.
    pub attribution: String,
    /// Languages it knows.
    pub languages: Vec<String>,
    /// Files beside the manifest.
    pub files: usize,
    /// Their size together.
    pub bytes: u64,
    /// Names this version of the model for good.
    pub manifest_sha256: String,
}

/// What `salama model import` and `verify` say.
#[derive(Debug, Serialize)]
pub struct ProvenModel {
    /// The model, whose files are whole.
    #[serde(flatten)]
    pub model: ModelSummary,
    /// In what it agrees with its golden answer; none when it was not run.
    pub golden: Option<String>,
}

/// One line of `salama model list`.
#[derive(Debug, Serialize)]
pub struct ListedModel {
    /// The directory's name.
    pub directory: String,
    /// What was found in it; none when it was refused.
    pub model: Option<ModelSummary>,
    /// Why it was refused.
    pub refused: Option<String>,
}

/// Makes a model directory of a model that gives its golden answer, see [`golden`]. `progress` hears of each step as it begins.
///
/// # Errors
/// [`ImportModelError`] says what to correct; nothing is left behind then.
pub fn import(args: &ImportArgs, progress: &mut dyn FnMut(ImportStep)) -> Result<ProvenModel, ImportModelError> {
    let request = ImportRequest { from: args.from.clone(), to: args.to.clone(), manifest: manifest_source(args)? };
    let mut proof = None;
    let imported = import::import(&request, progress, |made| {
        proof = golden(made)?;
        Ok::<_, ImportModelError>(())
    })?;
    Ok(ProvenModel { model: summary(&imported), golden: proof })
}

/// Why a model was not imported.
#[derive(Debug, thiserror::Error)]
pub enum ImportModelError {
    /// The target's name cannot be a model's.
    #[error("{} cannot be a model's name; end --to with 1 to 64 lower-case letters, digits and hyphens", to.display())]
    Name {
        /// As given.
        to: PathBuf,
    },
    /// The import failed.
    #[error(transparent)]
    Import(#[from] ImportError),
    /// Its golden answer is not known to be right.
    #[error("the new model was not kept: {0}")]
    Golden(#[from] GoldenError),
}

/// Checks a model directory.
///
/// # Errors
/// [`VerifyError`] names the file that is wrong.
pub fn verify(directory: &Path) -> Result<ModelSummary, VerifyError> {
    verify_directory(directory).map(|model| summary(&model))
}

/// Has `salama-worker` run the model and compare with its golden answer, and gives its words. None when that program does not lie
/// beside this one, as on a machine that is a client only.
///
/// # Errors
/// [`GoldenError`] has the worker's words.
pub fn golden(directory: &Path) -> Result<Option<String>, GoldenError> {
    let worker = programs::worker().map_err(GoldenError::Start)?;
    if !worker.is_file() {
        return Ok(None);
    }
    let directory = directory.canonicalize().map_err(GoldenError::Start)?;
    let (Some(models), Some(model)) = (directory.parent(), directory.file_name()) else { return Ok(None) };
    let mut check = Command::new(worker);
    let checked = check.arg("check").arg("--models").arg(models).arg("--").arg(model).output().map_err(GoldenError::Start)?;
    let words = clean(String::from_utf8_lossy(&checked.stdout).trim_end());
    if checked.status.success() {
        Ok(Some(words))
    } else if checked.status.code() == Some(Exit::BadInput.code().into()) {
        Err(GoldenError::Refused(words))
    } else {
        Err(GoldenError::Broken(clean(String::from_utf8_lossy(&checked.stderr).trim_end())))
    }
}

/// Why the golden answer is not known to be right.
#[derive(Debug, thiserror::Error)]
pub enum GoldenError {
    /// The worker cannot be run.
    #[error("salama-worker could not be started: {0}")]
    Start(#[source] io::Error),
    /// The model gave another answer.
    #[error("{0}")]
    Refused(String),
    /// The worker failed by itself.
    #[error("salama-worker could not check the model: {0}")]
    Broken(String),
}

/// Checks every model directory below `directory`, in order of name. A directory without a manifest is no model and is left out.
///
/// # Errors
/// When `directory` itself cannot be read.
pub fn list(directory: &Path) -> io::Result<Vec<ListedModel>> {
    let found = directories(directory)?;
    let listed = found.iter().map(|path| {
        let directory = path.file_name().map(|name| name.display().to_string()).unwrap_or_default();
        match verify(path) {
            Ok(model) => ListedModel { directory, model: Some(model), refused: None },
            Err(error) => ListedModel { directory, model: None, refused: Some(error.to_string()) },
        }
    });
    Ok(listed.collect())
}

impl fmt::Display for ModelSummary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (name, version, files, bytes) = (&self.name, &self.version, self.files, self.bytes);
        write!(f, "{name} {version}: {files} files, {bytes} bytes, all as the manifest says ({})", self.manifest_sha256)
    }
}

impl fmt::Display for ProvenModel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.golden {
            Some(golden) => write!(f, "{}\n{golden}", self.model),
            None => write!(f, "{}\n{}: its golden answer was not asked for", self.model, self.model.name),
        }
    }
}

impl fmt::Display for ListedModel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.model, &self.refused) {
            (Some(model), _) => write!(f, "{}: {model}", self.directory),
            (None, reason) => write!(f, "{}: REFUSED: {}", self.directory, reason.as_deref().unwrap_or_default()),
        }
    }
}

fn manifest_source(args: &ImportArgs) -> Result<ManifestSource, ImportModelError> {
    if let Some(path) = &args.manifest {
        return Ok(ManifestSource::Pinned(path.clone()));
    }
    let name = args.to.file_name().and_then(|name| name.to_str()).filter(|name| is_model_name(name));
    let name = name.ok_or_else(|| ImportModelError::Name { to: args.to.clone() })?.to_owned();
    Ok(ManifestSource::Described(Description {
        name,
        version: args.version.clone().unwrap_or_default(),
        licence: args.licence.clone().unwrap_or_default(),
        attribution: args.attribution.clone().unwrap_or_default(),
        upstream: args.upstream.clone().unwrap_or_default(),
    }))
}

fn summary(model: &VerifiedModel) -> ModelSummary {
    let manifest = model.manifest();
    ModelSummary {
        name: manifest.name.clone(),
        version: manifest.version.clone(),
        purpose: manifest.purpose,
        licence: manifest.licence.clone(),
        attribution: manifest.attribution.clone(),
        languages: manifest.languages.clone(),
        files: manifest.files.len(),
        bytes: manifest.files.iter().map(|file| file.bytes).sum(),
        manifest_sha256: model.manifest_sha256().to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::model::verify::MANIFEST;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(subcommand)]
        command: ModelCommand,
    }

    const DESCRIPTION: [&str; 8] = ["--version", "1", "--licence", "MIT", "--attribution", "me", "--upstream", "there"];

    fn parse(words: &[&str]) -> Result<ModelCommand, clap::Error> {
        Line::try_parse_from([["model", "import", "--from", "a"].as_slice(), words].concat()).map(|line| line.command)
    }

    #[test]
    fn an_import_is_either_pinned_or_described() {
        assert!(parse(&["--to", "b", "--manifest", "m"]).is_ok());
        assert!(parse(&[["--to", "b"].as_slice(), &DESCRIPTION].concat()).is_ok());
        assert!(parse(&["--to", "b"]).is_err());
        assert!(parse(&[["--to", "b", "--manifest", "m"].as_slice(), &DESCRIPTION].concat()).is_err());
    }

    #[test]
    fn a_target_that_cannot_be_a_model_s_name_is_refused() {
        let Ok(ModelCommand::Import(args)) = parse(&[["--to", "x/My Model"].as_slice(), &DESCRIPTION].concat()) else { panic!("parses") };
        assert!(matches!(import(&args, &mut |_| {}), Err(ImportModelError::Name { to }) if to == Path::new("x/My Model")));
    }

    #[test]
    fn a_list_tells_what_is_whole_and_why_the_rest_is_refused() {
        let room = tempfile::tempdir().unwrap();
        let models = Path::new(env!("CARGO_MANIFEST_DIR")).join("firmware-models");
        for name in ["rampart", ".hidden", "broken", "no-model"] {
            std::fs::create_dir(room.path().join(name)).unwrap();
        }
        for name in ["manifest.toml", "model_q4.onnx", "vocab.txt", "config.json", "golden-input.json", "golden.json"] {
            std::fs::copy(models.join("rampart").join(name), room.path().join("rampart").join(name)).unwrap();
        }
        std::fs::write(room.path().join("broken").join(MANIFEST), "").unwrap();
        std::fs::write(room.path().join(".hidden").join(MANIFEST), "").unwrap();
        let listed = list(room.path()).unwrap();
        assert_eq!(listed.iter().map(|model| model.directory.as_str()).collect::<Vec<_>>(), ["broken", "rampart"]);
        assert!(listed[0].to_string().starts_with("broken: REFUSED: manifest.toml cannot be understood"));
        assert_eq!(listed[1].model.as_ref().unwrap().name, "rampart");
    }
}
