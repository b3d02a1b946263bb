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

use salama::{base, identity, ipc, job, keys, supervisor, sys};

fn main() -> ExitCode {
    cli::run::main(std::env::args_os())
}
