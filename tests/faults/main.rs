//! Processes that fail on purpose: hostile children, and a daemon that is killed at any moment, through the whole appliance.
//! This executable is the worker, too: beside a copy of salamad, by the name `salama-worker`, it is the real fork server with
//! children that do what the recording tells them ([`stand_in`]). Run as root, as CI does.

#![allow(
    clippy::as_conversions,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a test says what it expects, loudly"
)]

mod chance;
mod children;
#[path = "../../src/worker/forkserver.rs"]
#[allow(dead_code, reason = "it is the worker's")]
mod forkserver;
mod kills;
mod lost;
mod office;
#[path = "../confinement/runner.rs"]
mod runner;
mod soak;
mod stand_in;
#[path = "../support/mod.rs"]
mod support;
mod wire;

use salama::{ipc, sandbox, sys};

fn main() -> std::process::ExitCode {
    let mut arguments = std::env::args();
    let name = arguments.next().unwrap_or_default();
    if name.ends_with(stand_in::NAME) {
        return stand_in::fork_server(arguments);
    }
    let arguments: Vec<String> = arguments.collect();
    if arguments == ["soak"] {
        return soak::run();
    }
    runner::run(&arguments, &[children::TESTS, lost::TESTS, kills::TESTS])
}
