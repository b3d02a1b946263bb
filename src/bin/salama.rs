//! `salama`: the operator's and client's command line.
//! Trusts: the person at the terminal as far as the operating system does.
//! Touches: what the command says.
//! Next: `salama::cli::run`.

use std::process::ExitCode;

fn main() -> ExitCode {
    salama::cli::run::main(std::env::args_os())
}
