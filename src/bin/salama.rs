//! `salama`: the operator's and client's command line.
//! Trusts: the person at the terminal as far as the operating system does.
//! Touches: what the command says.
//! Next: `cli::run`.

#![cfg_attr(test, allow(clippy::as_conversions, clippy::unreachable, reason = "a test says what it expects, loudly"))]

#[path = "../cli/mod.rs"]
mod cli;
#[path = "../model/mod.rs"]
#[allow(dead_code, reason = "salama-worker uses the rest: it loads what this program imports and verifies")]
mod model;

use std::process::ExitCode;

use salama::sys::heap::WipingHeap;
use salama::{base, identity, ipc, job, keys, sandbox, supervisor, sys};

/// Codes, shares and PINs pass through this program on their way between people and the keeper.
#[global_allocator]
static HEAP: WipingHeap = WipingHeap;

fn main() -> ExitCode {
    cli::run::main(std::env::args_os())
}
