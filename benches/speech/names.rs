//! The name model over the text of a call, cut as redaction cuts it, on one thread.
//! Trusts: its arguments.
//! Touches: the model and the text, reading; a file of token ids for the peer.
//! Next: `bench.py` reads the answers.

use std::io::{BufRead as _, Write as _, stdin, stdout};
use std::path::PathBuf;
use std::time::Instant;

use clap::Args;
use serde_json::json;

use super::calls::{cpu_time, millis};
use crate::model::verify::verify;
use crate::worker::text::load_ner;

#[derive(Args, Debug)]
pub struct Arguments {
    /// Directory of the models.
    #[arg(long, default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/firmware-models"))]
    models: PathBuf,
    /// Writes the token ids of each window, for the peer.
    #[arg(long)]
    windows: PathBuf,
    /// The text.
    file: PathBuf,
}

/// Each line on standard input is answered with one scoring of the whole text.
pub fn run(arguments: &Arguments) {
    let text = std::fs::read_to_string(&arguments.file).unwrap();
    let mut model = verify(&arguments.models.join("rampart")).unwrap_or_else(|error| panic!("{error}; run `make models`"));
    let ner = load_ner(&mut model).expect("the model loads");
    let windows = ner.ids_of(&text).expect("a text");
    let tokens: usize = windows.iter().map(Vec::len).sum();
    std::fs::write(&arguments.windows, json!(windows).to_string()).unwrap();
    println!("{}", json!({ "windows": windows.len(), "tokens": tokens }));
    for _ in stdin().lock().lines() {
        let (cpu, began) = (cpu_time(), Instant::now());
        let scored = ner.score(&text, &mut |_| {}).expect("the model runs");
        let (wall, cpu) = (began.elapsed(), cpu_time().saturating_sub(cpu));
        let personal = scored.iter().filter(|word| word.probability >= 0.5).count();
        println!("{}", json!({ "wall_ms": millis(wall), "cpu_ms": millis(cpu), "tokens": tokens, "personal": personal }));
        stdout().flush().unwrap();
    }
}
