//! The manifest of a freshly imported model, as text.
//! Trusts: its caller's words, which it only quotes.
//! Touches: memory only.
//! Next: `verify` reads it back at once.

use std::fmt::Write;

use super::vocabulary::Vocabulary;
use crate::model::manifest::{Axis, Digest, FileEntry, GraphSpec, SCHEMA, TensorSpec};

/// What only a person can say of a model.
#[derive(Clone, Debug)]
pub struct Description {
    /// The directory's usual name.
    pub name: String,
    /// Version of the model.
    pub version: String,
    /// SPDX identifier.
    pub licence: String,
    /// Who made it.
    pub attribution: String,
    /// Who published the weights, with their revision.
    pub upstream: String,
}

/// `manifest.toml` for what was written.
pub fn manifest(
    description: &Description,
    vocabulary: &Vocabulary,
    payload: &[Digest],
    graphs: &[GraphSpec],
    files: &[FileEntry],
) -> String {
    let languages: Vec<String> =
        if vocabulary.multilingual { vocabulary.languages.iter().map(|(code, _)| quoted(code)).collect() } else { vec![quoted("en")] };
    let payload = payload.iter().map(|digest| format!("{{ file = {}, sha256 = {} }}", quoted(&digest.file), quoted(&digest.sha256)));
    let mut text = format!(
        "schema = {SCHEMA}\nname = {}\nversion = {}\npurpose = \"speech-recognition\"\nlicence = {}\nattribution = {}\nlanguages = [{}]\n",
        quoted(&description.name),
        quoted(&description.version),
        quoted(&description.licence),
        quoted(&description.attribution),
        languages.join(", "),
    );
    // Writing to a String cannot fail.
    let _ = write!(
        text,
        "\n[source]\npackage = \"operator\"\nversion = {}\nupstream = {}\npayload = [{}]\n",
        quoted(&description.version),
        quoted(&description.upstream),
        payload.collect::<Vec<_>>().join(", "),
    );
    for graph in graphs {
        let _ = write!(text, "\n[[graphs]]\nfile = {}\n", quoted(&graph.file));
        let _ = write!(text, "inputs = [\n{}]\noutputs = [\n{}]\n", tensors(&graph.inputs), tensors(&graph.outputs));
    }
    for file in files {
        let (name, digest) = (quoted(&file.name), quoted(&file.sha256));
        let _ = write!(text, "\n[[files]]\nname = {name}\nbytes = {}\nsha256 = {digest}\n", file.bytes);
    }
    text
}

fn tensors(specs: &[TensorSpec]) -> String {
    specs.iter().fold(String::new(), |text, spec| {
        let shape: Vec<String> = spec.shape.iter().map(axis).collect();
        text + &format!("  {{ name = {}, element = \"f32\", shape = [{}] }},\n", quoted(&spec.name), shape.join(", "))
    })
}

fn axis(axis: &Axis) -> String {
    match axis {
        Axis::Fixed(size) => size.to_string(),
        Axis::Symbol(text) => quoted(text),
    }
}

/// A TOML basic string: printable ASCII and letters as they are, everything else escaped.
fn quoted(text: &str) -> String {
    let escaped = text.chars().fold(String::from('"'), |escaped, symbol| match symbol {
        '"' | '\\' => escaped + "\\" + symbol.encode_utf8(&mut [0; 4]),
        _ if symbol.is_control() => escaped + &format!("\\u{:04X}", u32::from(symbol)),
        _ => escaped + symbol.encode_utf8(&mut [0; 4]),
    });
    escaped + "\""
}
