//! Which directories are models and which are refused, by the name of what is wrong.
//! Trusts: nobody.
//! Touches: temporary directories; `firmware-models`, reading.
//! Next: nobody.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;

use super::*;
use crate::model::golden::GoldenAnswer;

/// A model of two files.
struct Model {
    directory: tempfile::TempDir,
}

impl Model {
    fn new() -> Self {
        let model = Self { directory: tempfile::tempdir().unwrap() };
        fs::write(model.path("a.bin"), b"first").unwrap();
        fs::write(model.path("b.json"), b"{}").unwrap();
        model.describe(&[("a.bin", b"first"), ("b.json", b"{}")], "");
        model
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn describe(&self, files: &[(&str, &[u8])], more: &str) {
        let mut text = "schema = 1\nname = \"tiny\"\nversion = \"1\"\npurpose = \"voice-activity\"\nlicence = \"MIT\"\nattribution = \"nobody\"\nlanguages = []\n".to_owned();
        text += "[source]\npackage = \"p\"\nversion = \"1\"\nupstream = \"u\"\n";
        for (name, bytes) in files {
            text += &format!("[[files]]\nname = {name:?}\nbytes = {}\nsha256 = \"{}\"\n", bytes.len(), sha256(bytes));
        }
        fs::write(self.path(MANIFEST), text + more).unwrap();
    }

    fn verify(&self) -> Result<VerifiedModel, VerifyError> {
        verify(self.directory.path())
    }

    fn refusal(&self) -> VerifyError {
        self.verify().err().expect("refused")
    }

    fn manifest_refusal(&self) -> ManifestError {
        match self.refusal() {
            VerifyError::Manifest(error) => error,
            other => panic!("{other}"),
        }
    }
}

#[test]
fn a_directory_as_its_manifest_says_is_handed_out_once() {
    let mut model = Model::new().verify().unwrap();
    assert_eq!(model.file("a.bin").unwrap(), b"first");
    assert_eq!(model.take("a.bin").unwrap(), b"first");
    assert!(matches!(model.take("a.bin"), Err(LoadError::NoFile { name }) if name == "a.bin"));
    assert!(matches!(model.file("c.bin"), Err(LoadError::NoFile { .. })));
}

#[test]
fn the_manifest_s_own_digest_names_the_version() {
    let model = Model::new();
    let text = fs::read(model.path(MANIFEST)).unwrap();
    assert_eq!(model.verify().unwrap().manifest_sha256(), sha256(&text));
}

#[test]
fn a_missing_file_is_refused_by_name() {
    let model = Model::new();
    fs::remove_file(model.path("a.bin")).unwrap();
    assert!(matches!(model.refusal(), VerifyError::Missing { name } if name == "a.bin"));
}

#[test]
fn a_missing_directory_or_manifest_is_refused() {
    let model = Model::new();
    fs::remove_file(model.path(MANIFEST)).unwrap();
    assert!(matches!(model.refusal(), VerifyError::Missing { name } if name == MANIFEST));
    assert!(matches!(verify(&model.path("nowhere")), Err(VerifyError::Directory { .. })));
}

#[test]
fn an_extra_file_is_refused_by_name() {
    let model = Model::new();
    fs::write(model.path(".hidden"), b"").unwrap();
    assert!(matches!(model.refusal(), VerifyError::Surplus { name } if name == ".hidden"));
}

#[test]
fn a_link_is_refused_even_to_the_right_bytes() {
    let model = Model::new();
    let elsewhere = tempfile::NamedTempFile::new().unwrap();
    fs::write(elsewhere.path(), b"first").unwrap();
    fs::remove_file(model.path("a.bin")).unwrap();
    symlink(elsewhere.path(), model.path("a.bin")).unwrap();
    assert!(matches!(model.refusal(), VerifyError::NotAFile { name } if name == "a.bin"));
}

#[test]
fn a_link_to_the_directory_is_refused() {
    let model = Model::new();
    let other = tempfile::tempdir().unwrap();
    symlink(model.directory.path(), other.path().join("link")).unwrap();
    assert!(matches!(verify(&other.path().join("link")), Err(VerifyError::Directory { .. })));
}

#[test]
fn a_pipe_or_directory_in_place_of_a_file_is_refused_without_waiting() {
    let model = Model::new();
    fs::remove_file(model.path("a.bin")).unwrap();
    nix::unistd::mkfifo(&model.path("a.bin"), Mode::S_IRWXU).unwrap();
    assert!(matches!(model.refusal(), VerifyError::NotAFile { name } if name == "a.bin"));
    fs::remove_file(model.path("a.bin")).unwrap();
    fs::create_dir(model.path("a.bin")).unwrap();
    assert!(matches!(model.refusal(), VerifyError::NotAFile { name } if name == "a.bin"));
}

#[test]
fn another_byte_is_refused_by_name() {
    let model = Model::new();
    fs::write(model.path("a.bin"), b"fir5t").unwrap();
    assert!(matches!(model.refusal(), VerifyError::Digest { name } if name == "a.bin"));
}

#[test]
fn another_size_is_refused_by_name() {
    let model = Model::new();
    fs::write(model.path("a.bin"), b"firs").unwrap();
    assert!(matches!(model.refusal(), VerifyError::Size { name, expected: 5, found: 4 } if name == "a.bin"));
    fs::write(model.path("a.bin"), b"first and more").unwrap();
    assert!(matches!(model.refusal(), VerifyError::TooLarge { name, limit: 5 } if name == "a.bin"));
}

#[test]
fn a_manifest_beyond_the_limit_is_refused() {
    let model = Model::new();
    let limit = usize::try_from(MAX_MANIFEST_BYTES).unwrap();
    model.describe(&[("a.bin", b"first"), ("b.json", b"{}")], &"#".repeat(limit));
    assert!(matches!(model.refusal(), VerifyError::TooLarge { name, .. } if name == MANIFEST));
}

#[test]
fn a_name_that_leads_out_of_the_directory_is_refused() {
    let model = Model::new();
    for name in ["../secret", "/etc/passwd", "sub/file", "..", ".hidden", "", "manifest.toml", "a b", "naïve"] {
        model.describe(&[(name, b"")], "");
        assert!(matches!(model.manifest_refusal(), ManifestError::FileName { name: found } if found == name), "{name}");
    }
}

#[test]
fn a_manifest_that_contradicts_itself_is_refused() {
    let model = Model::new();
    model.describe(&[("a.bin", b"first"), ("a.bin", b"first")], "");
    assert!(matches!(model.manifest_refusal(), ManifestError::Twice { name } if name == "a.bin"));
    model.describe(&[("a.bin", b"first")], "[golden]\ninput = \"a.bin\"\noutput = \"b.json\"\nwitness = \"w\"\n");
    assert!(matches!(model.manifest_refusal(), ManifestError::Unlisted { name } if name == "b.json"));
    model.describe(&[("a.bin", b"first")], "[[files]]\nname = \"c\"\nbytes = 5000000000\nsha256 = \"\"\n");
    assert!(matches!(model.manifest_refusal(), ManifestError::TooLarge { name } if name == "c"));
    model.describe(&[("a.bin", b"first")], "[[files]]\nname = \"c\"\nbytes = 5\nsha256 = \"ABCD\"\n");
    assert!(matches!(model.manifest_refusal(), ManifestError::Digest { name } if name == "c"));
    model.describe(&[], "files = []\n");
    assert!(matches!(model.manifest_refusal(), ManifestError::Syntax(_)));
}

#[test]
fn an_unknown_setting_or_schema_is_refused() {
    let model = Model::new();
    let text = fs::read_to_string(model.path(MANIFEST)).unwrap();
    fs::write(model.path(MANIFEST), format!("trusted = true\n{text}")).unwrap();
    assert!(matches!(model.manifest_refusal(), ManifestError::Syntax(_)));
    fs::write(model.path(MANIFEST), text.replace("schema = 1", "schema = 2")).unwrap();
    assert!(matches!(model.manifest_refusal(), ManifestError::Schema { found: 2 }));
    fs::write(model.path(MANIFEST), text.replace("\"tiny\"", "\"../tiny\"")).unwrap();
    assert!(matches!(model.manifest_refusal(), ManifestError::Name { found } if found == "../tiny"));
}

#[test]
fn every_shipped_manifest_is_understood_and_has_a_golden_answer() {
    let models = Path::new(env!("CARGO_MANIFEST_DIR")).join("firmware-models");
    for name in ["silero-vad", "rampart", "whisper-base", "whisper-tiny-en"] {
        let manifest = Manifest::parse(&fs::read(models.join(name).join(MANIFEST)).unwrap()).unwrap();
        assert_eq!(manifest.name, name);
        assert!(manifest.golden.is_some(), "{name}");
        assert!(!manifest.source.archives.is_empty(), "{name}");
    }
}

#[test]
fn the_large_models_were_built_as_pinned() {
    let models = Path::new(env!("CARGO_MANIFEST_DIR")).join("firmware-models");
    for name in ["whisper-base", "whisper-tiny-en"] {
        let model = verify(&models.join(name)).unwrap_or_else(|error| panic!("{name}: {error}\nrun `make models` first"));
        let Some(GoldenAnswer::Transcript { samples, tokens, language, .. }) = model.golden().unwrap() else { panic!("no golden answer") };
        assert_eq!((samples.len(), language.as_str()), (113_600, "en"));
        assert!(tokens.len() > 20);
    }
}
