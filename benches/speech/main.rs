//! Our side of the benchmarks of a child's work: the product's own modules, on the way that a call takes, one answer a line.
//! Trusts: its arguments; it is run by `benches/bench.py` and by hand.
//! Touches: the models and recordings, reading.
//! Next: `benches/bench.py` runs it in turn with a peer and compares.
//!
//! ```text
//! cargo build --bench speech            (the profile of tests: no dependency is built again)
//! speech calls --asr whisper-base --threads 1 --cpu 1 CLIPS/*.wav
//! ```

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::as_conversions,
    reason = "a measuring program: a failure should be loud"
)]
#![allow(dead_code, unused_imports, clippy::unreachable, reason = "the modules' tests are compiled without their harness")]

mod calls;
mod ear;
#[path = "../../src/model/mod.rs"]
mod model;
mod names;
mod wer;
#[path = "../../src/worker/mod.rs"]
mod worker;

use std::path::PathBuf;

use clap::Parser;
use salama::{base, ipc, sandbox, sys};

#[derive(Debug, Parser)]
enum CommandLine {
    /// Recordings through decode, voice activity, transcription and redaction, as a child takes them.
    Calls(calls::Arguments),
    /// Voice activity of a recording.
    Ear(ear::Arguments),
    /// Names in a text.
    Names(names::Arguments),
    /// Word errors: reads lines of `said TAB heard`, prints `errors TAB words` for each.
    Score,
}

fn main() {
    match CommandLine::parse() {
        CommandLine::Calls(arguments) => calls::run(&arguments),
        CommandLine::Ear(arguments) => ear::run(&arguments),
        CommandLine::Names(arguments) => names::run(&arguments),
        CommandLine::Score => wer::run(),
    }
}
