//! What a model says of itself: `model::manifest`.
//! Trusts: nothing.
//! Touches: nothing.
//! Next: `model::verify` reads the files that it names.

use super::Target;
use crate::model::manifest::{Manifest, SCHEMA, is_file_name, is_model_name};
use crate::model::verify::MAX_FILE_BYTES;

/// TOML.
pub const TARGET: Target = Target {
    name: "manifest",
    run,
    seeds,
    corpus: "",
    words: &[
        b"[[files]]",
        b"[[graphs]]",
        b"[source]",
        b"[golden]",
        b"name = \"",
        b"../",
        b"/etc/passwd",
        b"manifest.toml",
        b"bytes = ",
        b"sha256 = \"",
        b"schema = 1",
        b"shape = [",
        b"\"2*K\"",
        b"-1",
        b"9223372036854775807",
    ],
    memory: 4 << 20,
    longest: 16_384,
    smoke: 2500,
};

/// Promise: an accepted manifest names files by plain names, once each, of a size that may be read, and every digest is one.
fn run(data: &[u8]) {
    let Ok(manifest) = Manifest::parse(data) else { return };
    assert!(manifest.schema == SCHEMA && is_model_name(&manifest.name));
    let mut names: Vec<&str> = manifest.files.iter().map(|file| file.name.as_str()).collect();
    assert!(names.iter().all(|name| is_file_name(name) && !name.contains(['/', '\0']) && *name != ".."), "{names:?}");
    names.sort_unstable();
    assert!(names.windows(2).all(|pair| pair[0] != pair[1]), "{names:?}");
    for file in &manifest.files {
        assert!(file.bytes <= MAX_FILE_BYTES && file.sha256.len() == 64 && file.sha256.bytes().all(|digit| digit.is_ascii_hexdigit()));
    }
}

fn seeds() -> Vec<Vec<u8>> {
    vec![
        include_bytes!("../../firmware-models/rampart/manifest.toml").to_vec(),
        include_bytes!("../../firmware-models/silero-vad/manifest.toml").to_vec(),
    ]
}
