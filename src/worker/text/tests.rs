use std::path::PathBuf;
use std::sync::OnceLock;
use super::*;

/// A file of the Rampart directory.
pub fn model_file(name: &str) -> Vec<u8> {
    let models = std::env::var_os("SALAMA_MODELS").map_or_else(|| PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/firmware-models")), PathBuf::from);
    let path = models.join("rampart").join(name);
    std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}; run `make models`", path.display()))
}

fn models() -> &'static TextModels {
    static M: OnceLock<TextModels> = OnceLock::new();
    M.get_or_init(|| {
    use tract_onnx::prelude::*;
    let g = tract_onnx::onnx().model_for_read(&mut std::io::Cursor::new(model_file("model_q4.onnx"))).unwrap();
    TextModels::from_parts(g, &model_file("vocab.txt"), &model_file("config.json")).unwrap()
    })
}

#[test]
fn explore() {
    let Ok(text) = std::fs::read_to_string("/tmp/explore.txt") else { return };
    for line in text.lines() {
        let t = std::time::Instant::now();
        let r = models().redact_text(line).unwrap();
        println!("{}   {:?}\n    {}", line, t.elapsed(), r.text);
    }
}
