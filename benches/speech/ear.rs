//! Voice activity and segmentation of one recording, on one thread, against the bare graph elsewhere.
//! Trusts: its arguments.
//! Touches: the models and the recording, reading; a file of samples for the peer.
//! Next: `bench.py` reads the answers.

use std::io::{BufRead as _, Write as _, stdin, stdout};
use std::path::PathBuf;
use std::time::Instant;

use clap::Args;
use serde_json::json;

use super::calls::{cpu_time, millis};
use crate::model::verify::verify;
use crate::worker::decode::{DecodeLimits, Decoder};
use crate::worker::speech::Ear;

#[derive(Args, Debug)]
pub struct Arguments {
    /// Directory of the models.
    #[arg(long, default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/firmware-models"))]
    models: PathBuf,
    /// Writes the samples that are heard, for the peer.
    #[arg(long)]
    samples: PathBuf,
    /// The recording.
    file: PathBuf,
}

/// Each line on standard input is answered with one hearing of the whole recording.
pub fn run(arguments: &Arguments) {
    let recording = std::fs::File::open(&arguments.file).unwrap();
    let mut decoder = Decoder::open(Box::new(recording), DecodeLimits { max_seconds: 3600 }).expect("a recording");
    let mut channels = vec![Vec::new()];
    while decoder.next_block(&mut channels).expect("a recording") {}
    let bytes: Vec<u8> = channels[0].iter().flat_map(|sample: &f32| sample.to_le_bytes()).collect();
    std::fs::write(&arguments.samples, bytes).unwrap();

    let mut model = verify(&arguments.models.join("silero-vad")).unwrap_or_else(|error| panic!("{error}; run `make models`"));
    let ear = Ear::load(&mut model).expect("the model loads");
    println!("{}", json!({ "samples": channels[0].len() }));
    for _ in stdin().lock().lines() {
        let (cpu, began) = (cpu_time(), Instant::now());
        let heard = ear.probabilities(&channels[0]).expect("the model runs");
        let (wall, cpu) = (began.elapsed(), cpu_time().saturating_sub(cpu));
        let speech = heard.iter().filter(|probability| **probability >= 0.5).count();
        let sum: f32 = heard.iter().sum();
        let answer = json!({ "wall_ms": millis(wall), "cpu_ms": millis(cpu), "frames": heard.len(), "sum": sum, "speech": speech });
        println!("{answer}");
        stdout().flush().unwrap();
    }
}
