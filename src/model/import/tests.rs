//! What the importer makes of a checkpoint, and what it refuses.
//! Trusts: `synthetic` checkpoints.
//! Touches: temporary directories.
//! Next: nobody.

use std::fs;
use std::path::{Path, PathBuf};

use super::ct2::Ct2Error;
use super::describe::Description;
use super::hf::HfError;
use super::synthetic::{self, Ct2Writer, VOCABULARY, WIDTH};
use super::vocabulary::{TokenizerFile, Vocabulary, VocabularyError};
use super::weights::{Half, Tensors, Weights, WeightsError};
use super::*;

fn description() -> Description {
    let words = |text: &str| text.to_owned();
    Description {
        name: words("tiny"),
        version: words("1"),
        licence: words("MIT"),
        attribution: words("nobody \"at\" all \\ \n here"),
        upstream: words("made up"),
    }
}

fn unproven(_: &Path) -> Result<(), ImportError> {
    Ok(())
}

fn import_from(from: &Path, to: &Path) -> Result<VerifiedModel, ImportError> {
    let manifest = ManifestSource::Described(description());
    import(&ImportRequest { from: from.to_owned(), to: to.to_owned(), manifest }, &mut |_| {}, unproven)
}

/// A room with a checkpoint of each family.
struct Room {
    directory: tempfile::TempDir,
}

impl Room {
    fn new() -> Self {
        Self { directory: tempfile::tempdir().unwrap() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn ct2(&self, tensors: &Tensors) -> PathBuf {
        let path = self.path("ct2");
        fs::create_dir(&path).unwrap();
        synthetic::write_ct2(&path, tensors);
        path
    }

    fn hugging_face(&self, tensors: &Tensors, single: bool) -> PathBuf {
        let path = self.path(if single { "hf32" } else { "hf16" });
        fs::create_dir(&path).unwrap();
        synthetic::write_hugging_face(&path, tensors, single);
        path
    }

    fn import(&self, from: &Path) -> Result<VerifiedModel, ImportError> {
        import_from(from, &self.path("model"))
    }

    fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(self.directory.path()).unwrap();
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }
}

const MADE: [&str; 6] = ["encoder.onnx", "decoder.onnx", "emb.f16", "dpos.f16", "tokens.bin", "asr.json"];

#[test]
fn both_families_of_checkpoint_give_the_same_bytes() {
    let room = Room::new();
    let tensors = synthetic::good();
    let ct2 = import_from(&room.ct2(&tensors), &room.path("a")).unwrap();
    let half = import_from(&room.hugging_face(&tensors, false), &room.path("b")).unwrap();
    let single = import_from(&room.hugging_face(&tensors, true), &room.path("c")).unwrap();
    for name in MADE {
        assert_eq!(ct2.file(name).unwrap(), half.file(name).unwrap(), "{name}");
        assert_eq!(ct2.file(name).unwrap(), single.file(name).unwrap(), "{name}");
    }
}

#[test]
fn the_same_checkpoint_gives_the_same_manifest() {
    let room = Room::new();
    let from = room.ct2(&synthetic::good());
    let first = import_from(&from, &room.path("a")).unwrap();
    let second = import_from(&from, &room.path("b")).unwrap();
    assert_eq!(first.manifest_sha256(), second.manifest_sha256());
    assert_eq!(first.manifest().attribution, description().attribution);
}

#[test]
fn tables_hold_tokens_as_bytes_and_settings_as_agreed() {
    let room = Room::new();
    let model = room.import(&room.ct2(&synthetic::good())).unwrap();
    let tokens = model.file("tokens.bin").unwrap();
    assert!(tokens.starts_with(b"\x01\0a\x02\0 b\x01\0\xc3\x0d\0<|endoftext|>"));
    assert!(tokens.ends_with(b"\x09\0<|29.98|>\x09\0<|30.00|>"));
    let settings: serde_json::Value = serde_json::from_slice(model.file("asr.json").unwrap()).unwrap();
    let expected = serde_json::json!({
        "dims": WIDTH, "heads": 2, "layers": 2, "vocab": VOCABULARY, "text_ctx": 448, "audio_ctx": 1500, "multilingual": true,
        "sot": 4, "eot": 3, "transcribe": 7, "no_timestamps": 9, "no_speech": 8, "timestamp_begin": 10,
        "languages": [["en", 5], ["sw", 6]], "suppress": [1, 2], "suppress_begin": [1, 3], "alignment_heads": [[1, 0], [1, 1]],
    });
    assert_eq!(settings, expected);
    assert_eq!(model.file("emb.f16").unwrap().len(), 2 * VOCABULARY * WIDTH);
    assert_eq!(model.file("dpos.f16").unwrap(), synthetic::good()["model.decoder.embed_positions.weight"].bytes);
}

#[test]
fn an_import_replaces_what_was_there_and_leaves_nothing_beside_it() {
    let room = Room::new();
    let from = room.ct2(&synthetic::good());
    fs::create_dir(room.path("model")).unwrap();
    fs::write(room.path("model").join("old"), "old").unwrap();
    room.import(&from).unwrap();
    verify::verify(&room.path("model")).unwrap();
    assert_eq!(room.names().len(), 2);
}

#[test]
fn a_failed_import_changes_nothing() {
    let room = Room::new();
    let mut tensors = synthetic::good();
    tensors.remove("model.decoder.layers.1.fc2.bias");
    let from = room.hugging_face(&tensors, false);
    fs::create_dir(room.path("model")).unwrap();
    fs::write(room.path("model").join("old"), "old").unwrap();
    assert!(matches!(room.import(&from), Err(ImportError::Weights(WeightsError::Missing { name })) if name.ends_with("1.fc2.bias")));
    assert_eq!(fs::read(room.path("model").join("old")).unwrap(), b"old");
    assert_eq!(room.names().len(), 2);
}

/// A pinned manifest in its own directory, made from an import of `from`.
fn pin(room: &Room, from: &Path) -> PathBuf {
    import_from(from, &room.path("pinned")).unwrap();
    room.path("pinned").join(MANIFEST)
}

#[test]
fn a_pinned_manifest_accepts_the_same_checkpoint() {
    let room = Room::new();
    let from = room.ct2(&synthetic::good());
    let manifest = ManifestSource::Pinned(pin(&room, &from));
    let mut steps = Vec::new();
    import(&ImportRequest { from, to: room.path("model"), manifest }, &mut |step| steps.push(step), unproven).unwrap();
    assert_eq!(steps, [ImportStep::Reading, ImportStep::Encoder, ImportStep::Decoder, ImportStep::Tables, ImportStep::Verifying]);
}

#[test]
fn a_model_that_is_not_proven_is_not_put_in_place() {
    let room = Room::new();
    let request =
        ImportRequest { from: room.ct2(&synthetic::good()), to: room.path("model"), manifest: ManifestSource::Described(description()) };
    let refuse = |made: &Path| {
        assert!(made.join(MANIFEST).is_file());
        Err(ImportError::Write(io::ErrorKind::Other.into()))
    };
    let refused = import(&request, &mut |_| {}, refuse);
    assert!(matches!(refused, Err(ImportError::Write(_))));
    assert!(!room.path("model").exists());
}

#[test]
fn a_checkpoint_with_another_digest_than_pinned_is_refused_before_it_is_read() {
    let room = Room::new();
    let from = room.ct2(&synthetic::good());
    let manifest = ManifestSource::Pinned(pin(&room, &from));
    fs::write(from.join("model.bin"), "something else").unwrap();
    let refused = import(&ImportRequest { from, to: room.path("model"), manifest }, &mut |_| {}, unproven);
    assert!(matches!(refused, Err(ImportError::Checkpoint(CheckpointError::Digest { file })) if file == "model.bin"));
}

#[test]
fn a_result_with_another_digest_than_pinned_is_refused_by_its_name() {
    let room = Room::new();
    let from = room.ct2(&synthetic::good());
    let pinned = pin(&room, &from);
    let made = verify::verify(&room.path("pinned")).unwrap();
    let digest = |name: &str| made.manifest().files.iter().find(|file| file.name == name).unwrap().sha256.clone();
    let text = fs::read_to_string(&pinned).unwrap().replace(&digest("decoder.onnx"), &digest("encoder.onnx"));
    fs::write(&pinned, text).unwrap();
    let refused = import(&ImportRequest { from, to: room.path("model"), manifest: ManifestSource::Pinned(pinned) }, &mut |_| {}, unproven);
    assert!(matches!(refused, Err(ImportError::Verify(VerifyError::Digest { name })) if name == "decoder.onnx"));
    assert!(!room.path("model").exists());
}

#[test]
fn a_model_of_128_mel_bands_is_refused() {
    let room = Room::new();
    let refused = room.import(&room.hugging_face(&synthetic::tensors(128), false));
    assert!(matches!(refused, Err(ImportError::Weights(WeightsError::MelBands { found: 128 }))));
}

#[test]
fn a_directory_without_weights_is_refused() {
    let room = Room::new();
    assert!(matches!(room.import(room.directory.path()), Err(ImportError::Checkpoint(CheckpointError::Neither { .. }))));
}

#[test]
fn shapes_and_surplus_tensors_are_refused_by_name() {
    let mut wrong = synthetic::good();
    wrong.insert("model.encoder.layer_norm.bias".into(), Half { dims: vec![1], bytes: vec![0; 2] });
    let error = Weights::assemble(wrong).err().unwrap();
    assert!(matches!(error, WeightsError::Shape { name, .. } if name == "model.encoder.layer_norm.bias"));
    let mut surplus = synthetic::good();
    surplus.insert("model.encoder.adapter.weight".into(), Half { dims: vec![1], bytes: vec![0; 2] });
    let error = Weights::assemble(surplus).err().unwrap();
    assert_eq!(error, WeightsError::Unknown { name: "model.encoder.adapter.weight".into() });
}

fn read_ct2(bytes: &[u8]) -> Result<Tensors, Ct2Error> {
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), bytes).unwrap();
    ct2::read(file.path())
}

#[test]
fn a_model_bin_cut_anywhere_is_refused() {
    let whole = synthetic::ct2(&synthetic::good());
    let cuts = (0..600).chain((1..300).map(|part| whole.len() * part / 300));
    for cut in cuts {
        assert!(read_ct2(&whole[..cut]).is_err(), "cut at {cut}");
    }
    assert!(matches!(read_ct2(&[whole.as_slice(), b"more"].concat()), Err(Ct2Error::TrailingBytes { count: 4 })));
}

#[test]
fn a_model_bin_that_claims_more_than_it_has_takes_no_memory_for_it() {
    let mut huge = Ct2Writer::new();
    huge.variable("encoder/conv1/weight", &[3], 4, &[0; 6]);
    let mut file = huge.finish();
    let at = file.windows(4).position(|window| window == 6_u32.to_le_bytes()).and_then(|_| file.len().checked_sub(4 + 6 + 4)).unwrap();
    file[at..at + 4].copy_from_slice(&u32::MAX.to_le_bytes());
    assert!(matches!(read_ct2(&file), Err(Ct2Error::Shape { .. })));
    let mut many = Ct2Writer::new().finish();
    let at = many.len() - 8;
    many[at..at + 4].copy_from_slice(&u32::MAX.to_le_bytes());
    assert!(matches!(read_ct2(&many), Err(Ct2Error::Variables { found: u32::MAX })));
}

#[test]
fn a_model_bin_that_is_quantised_or_of_another_kind_is_refused() {
    let with = |name: &str, dims: &[usize], element: u8, bytes: &[u8]| {
        let mut file = Ct2Writer::new();
        file.variable(name, dims, element, bytes);
        read_ct2(&file.finish())
    };
    assert!(matches!(with("encoder/conv1/weight", &[2], 1, &[0; 2]), Err(Ct2Error::Quantised { .. })));
    assert!(matches!(with("encoder/conv1/weight_scale", &[1], 0, &[0; 4]), Err(Ct2Error::Quantised { .. })));
    assert!(matches!(with("encoder/conv1/weight", &[2], 9, &[0; 2]), Err(Ct2Error::ElementType { found: 9, .. })));
    assert!(matches!(with("encoder/else/weight", &[1], 4, &[0; 2]), Err(Ct2Error::Unknown { .. })));
    assert!(matches!(with("decoder/alibi", &[], 1, &[1]), Err(Ct2Error::Setting { found: 1, expected: 0, .. })));
    assert!(matches!(with("encoder/conv1/bias", &[1], 4, &[0xFF, 0x7F]), Err(Ct2Error::Overflow { .. })));
    let key_bias = [[0_u8; 2], [1, 0], [0, 0]].concat();
    assert!(matches!(with("encoder/layer_0/self_attention/linear_0/bias", &[3], 4, &key_bias), Err(Ct2Error::KeyBias { .. })));
    let mut other = Ct2Writer::new().finish();
    other[6] = b'T';
    assert!(matches!(read_ct2(&other), Err(Ct2Error::Specification { found }) if found == "ThisperSpec"));
    other[0] = 9;
    assert!(matches!(read_ct2(&other), Err(Ct2Error::Version { found: 9 })));
}

#[test]
fn aliases_are_copies_and_an_alias_of_nothing_is_refused() {
    let mut file = Ct2Writer::new();
    file.variable("encoder/layer_norm/beta", &[1], 4, &[1, 2]);
    file.alias("decoder/layer_norm/beta", "encoder/layer_norm/beta");
    let tensors = read_ct2(&file.finish()).unwrap();
    assert_eq!(tensors["model.decoder.layer_norm.bias"], tensors["model.encoder.layer_norm.bias"]);
    let mut file = Ct2Writer::new();
    file.alias("decoder/layer_norm/beta", "encoder/layer_norm/beta");
    assert!(matches!(read_ct2(&file.finish()), Err(Ct2Error::Alias { .. })));
}

#[test]
fn a_separate_output_projection_is_refused() {
    let room = Room::new();
    let mut tensors = synthetic::good();
    let mut other = tensors["model.decoder.embed_tokens.weight"].clone();
    tensors.insert("proj_out.weight".into(), other.clone());
    assert!(import_from(&room.hugging_face(&tensors, false), &room.path("model")).is_ok());
    other.bytes[0] ^= 1;
    tensors.insert("proj_out.weight".into(), other);
    let refused = import_from(&room.hugging_face(&tensors, true), &room.path("model"));
    assert!(matches!(refused, Err(ImportError::Checkpoint(CheckpointError::Hf(HfError::Untied)))));
}

#[test]
fn a_shard_that_is_a_path_is_refused() {
    let room = Room::new();
    let from = room.hugging_face(&synthetic::good(), false);
    fs::write(from.join(hf::INDEX), r#"{"weight_map": {"a": "../secret"}}"#).unwrap();
    let refused = room.import(&from);
    assert!(matches!(refused, Err(ImportError::Checkpoint(CheckpointError::Hf(HfError::ShardName { name }))) if name == "../secret"));
}

#[test]
fn a_damaged_safetensors_file_is_refused() {
    let room = Room::new();
    let from = room.hugging_face(&synthetic::good(), false);
    let bytes = fs::read(from.join(hf::SINGLE)).unwrap();
    fs::write(from.join(hf::SINGLE), &bytes[..bytes.len() - 1]).unwrap();
    assert!(matches!(room.import(&from), Err(ImportError::Checkpoint(CheckpointError::Hf(HfError::Damaged { .. })))));
}

fn tokenizer(added: serde_json::Value) -> TokenizerFile {
    serde_json::from_value(serde_json::json!({ "model": { "vocab": { "a": 0 } }, "added_tokens": added })).unwrap()
}

#[test]
fn a_tokenizer_of_another_model_is_refused() {
    let control = |id: u32, content: &str| serde_json::json!({ "id": id, "content": content });
    let names = ["<|endoftext|>", "<|startoftranscript|>", "<|transcribe|>", "<|nospeech|>", "<|notimestamps|>"];
    let added = || (1..).zip(names).map(|(id, name)| control(id, name)).collect::<Vec<_>>();
    let size = 6 + 1501;
    assert!(Vocabulary::read(tokenizer(added().into()), size).is_ok());
    let error = |file, size| Vocabulary::read(file, size).err().unwrap();
    assert_eq!(error(tokenizer(added().into()), size + 1), VocabularyError::Missing { id: size, size: size + 1 });
    assert_eq!(error(tokenizer(added().into()), size - 1), VocabularyError::Surplus { id: 1506, size: size - 1 });
    assert_eq!(error(tokenizer(serde_json::json!([])), size), VocabularyError::Control { token: "<|notimestamps|>" });
    let mut symbol = added();
    symbol.pop();
    let vocab = [("\u{4e2d}".to_owned(), 0)].into();
    assert_eq!(error(TokenizerFile::from_pair(vocab, [].into()), size), VocabularyError::Symbol { id: 0 });
}
