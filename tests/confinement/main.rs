//! Confinement, proved on real processes: each role below is this executable, started again, confined by a shipped policy.
//! Run as root, as CI does: the processes give root up on their way.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::as_conversions,
    reason = "a test program: a failure should be loud"
)]

mod children;
mod denials;
mod exercises;
mod files;
#[path = "../../src/worker/forkserver.rs"]
mod forkserver;
mod keeper;
mod preparation;
mod roles;
mod runner;
mod toy;

use salama::{ipc, sandbox, sys};

fn main() -> std::process::ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.split_first() {
        Some((first, rest)) if first == "--role" => roles::play(rest),
        _ => runner::run(&arguments, &[denials::TESTS, files::TESTS, exercises::TESTS, keeper::TESTS, preparation::TESTS, children::TESTS]),
    }
}
