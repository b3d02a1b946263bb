//! The fuzz targets in one program: `list`, `smoke NAME`, `replay NAME FILE...`, `seeds NAME DIRECTORY`, `guided NAME ...`.
//! Trusts: nothing that a target is given.
//! Touches: the folder of findings, temporary files of targets that read files.
//! Next: `targets` says what each promises, `runner` runs one, `smoke.rs` lets `cargo test` run all.

#![allow(
    clippy::as_conversions,
    clippy::duplicate_mod,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a test program: a failure should be loud; parts that are private in their own place are read once more from here"
)]

#[path = "../src/keeper/mod.rs"]
#[allow(dead_code, reason = "a part of the program `salama-keeper`")]
mod keeper;
#[cfg(fuzzing)]
mod libfuzzer;
#[path = "../src/model/mod.rs"]
#[allow(dead_code, reason = "a part of the programs `salama` and `salama-worker`")]
mod model;
mod mutate;
#[path = "targets/record.rs"]
mod record;
#[path = "targets/rows.rs"]
mod rows;
mod runner;
mod targets;
#[allow(dead_code, reason = "a part of the program `salama-worker`")]
mod worker;

use std::process::ExitCode;

use peak_alloc::PeakAlloc;
use salama::{base, ipc, sandbox, sys};

/// Counts what an input takes of the heap.
#[global_allocator]
static HEAP: PeakAlloc = PeakAlloc;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["list"] => {
            targets::TARGETS.iter().for_each(|target| println!("{}", target.name));
            ExitCode::SUCCESS
        }
        ["smoke", name, rest @ ..] => runner::smoke(targets::named(name), rest),
        ["replay", name, files @ ..] => runner::replay(targets::named(name), files),
        ["seeds", name, directory] => runner::write_seeds(targets::named(name), directory),
        #[cfg(fuzzing)]
        ["guided", name, rest @ ..] => libfuzzer::guided(targets::named(name), rest),
        _ => {
            println!("usage: fuzz list | smoke NAME [SEED [INPUTS]] | replay NAME FILE... | seeds NAME DIRECTORY; see fuzz/README.md");
            ExitCode::from(2)
        }
    }
}
