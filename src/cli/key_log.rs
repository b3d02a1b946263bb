//! `salama audit verify`: whether the key keeper's signed lines are whole.
//! Trusts: the public key on the command line, and nothing of the lines.
//! Touches: standard input.
//! Next: `ipc::key_log` judges; standard output.

use std::io;
use std::path::PathBuf;

use clap::Args;

use super::failure::Failure;
use super::output::{Output, table};
use crate::ipc::burst::bytes;
use crate::ipc::key_log::{Report, Verifier};

/// Arguments of `salama audit verify`.
#[derive(Clone, Copy, Debug, Args)]
pub struct VerifyArgs {
    /// The keeper's public key, 64 hexadecimal digits, as `salama keys verify` says it at the console.
    #[arg(long, value_name = "KEY", value_parser = key)]
    key: [u8; 32],
    /// The lines are a part: the first chain may begin in its middle.
    #[arg(long)]
    part: bool,
}

fn key(text: &str) -> Result<[u8; 32], String> {
    bytes(text).ok_or_else(|| "the key is 64 lower-case hexadecimal digits".to_owned())
}

/// Reads lines to their end and says the first thing that is wrong with them.
pub(super) fn verify(output: Output, args: VerifyArgs) -> Result<(), Failure> {
    let report = read(io::stdin().lock(), args)?;
    output.either(&report, |report| {
        let rows = [
            ("signed lines", report.lines),
            ("starts of the keeper", report.chains),
            ("starts without an orderly end", report.without_end),
            ("incidents", report.incidents),
            ("lines of others, passed over", report.others),
        ];
        let rows: Vec<Vec<String>> = rows.iter().map(|(what, count)| vec![(*what).to_owned(), count.to_string()]).collect();
        format!("every line is the key keeper's, unchanged, and none is missing between the first and the last\n{}", table(&rows))
    })
}

fn read(mut input: impl io::BufRead, args: VerifyArgs) -> Result<Report, Failure> {
    let mut verifier = Verifier::new(args.key, args.part);
    let mut line = Vec::new();
    for number in 1.. {
        line.clear();
        let read = input.read_until(b'\n', &mut line);
        if read.map_err(|cause| Failure::Read { path: PathBuf::from("standard input"), cause })? == 0 {
            break;
        }
        verifier.line(number, line.strip_suffix(b"\n").unwrap_or(&line))?;
    }
    Ok(verifier.finish()?)
}
