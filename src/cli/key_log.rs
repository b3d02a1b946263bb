//! `salama audit verify`: whether the key keeper's signed lines are whole.
//! Trusts: the public key on the command line, and nothing of the lines.
//! Touches: standard input.
//! Next: `ipc::key_log` judges; standard output.

use std::io::{self, BufRead as _, Read as _};
use std::path::PathBuf;

use clap::Args;

use super::failure::Failure;
use super::output::{Output, table, warn};
use crate::base::hex::unhex;
use crate::ipc::key_log::{LINE_MAX, LogFault, Report, Verifier};

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
    unhex(text).ok_or_else(|| "the key is 64 lower-case hexadecimal digits".to_owned())
}

/// Faults that are told one by one; more are counted.
const TOLD_MAX: usize = 20;

/// Reads lines to their end and says all that is wrong with them.
pub(super) fn verify(output: Output, args: VerifyArgs) -> Result<(), Failure> {
    let (report, faults) = read(io::stdin().lock(), args)?;
    if let Some((last, before)) = faults.split_last() {
        for fault in before {
            warn(&fault.to_string());
        }
        let told = u64::try_from(faults.len()).unwrap_or(u64::MAX);
        if report.faults > told {
            warn(&format!("{} more things are wrong", report.faults.saturating_sub(told)));
        }
        return Err((*last).into());
    }
    output.either(&report, |report| {
        let rows = [
            ("signed lines", report.lines),
            ("starts of the keeper", report.chains),
            ("starts without an orderly end", report.without_end),
            ("incidents", report.incidents),
            ("changes of the keyslots", report.slot_changes),
            ("changes whose end is not told (they may be in force)", report.slot_changes_open),
            ("lines of others, passed over", report.others),
        ];
        let rows: Vec<Vec<String>> = rows.iter().map(|(what, count)| vec![(*what).to_owned(), count.to_string()]).collect();
        format!("every line is the key keeper's, unchanged, and none is missing between the first and the last\n{}", table(&rows))
    })
}

fn read(mut input: impl io::BufRead, args: VerifyArgs) -> Result<(Report, Vec<LogFault>), Failure> {
    let mut verifier = Verifier::new(args.key, args.part);
    let (mut line, mut faults) = (Vec::new(), Vec::new());
    let failed = |cause| Failure::Read { path: PathBuf::from("standard input"), cause };
    for number in 1.. {
        line.clear();
        let most = u64::try_from(LINE_MAX).unwrap_or(u64::MAX).saturating_add(1);
        if input.by_ref().take(most).read_until(b'\n', &mut line).map_err(failed)? == 0 {
            break;
        }
        if line.len() > LINE_MAX {
            // None of the keeper's; but it may have been written behind this.
            skip_line(&mut input, &mut line).map_err(failed)?;
        }
        if let Err(fault) = verifier.line(number, line.strip_suffix(b"\n").unwrap_or(&line))
            && faults.len() < TOLD_MAX
        {
            faults.push(fault);
        }
    }
    Ok((verifier.finish()?, faults))
}

/// To the end of an overlong line, of which the end is kept.
fn skip_line(input: &mut impl io::BufRead, line: &mut Vec<u8>) -> io::Result<()> {
    while !line.ends_with(b"\n") {
        let kept = line.len().saturating_sub(LINE_MAX / 2);
        line.drain(..kept);
        let most = u64::try_from(LINE_MAX / 2).unwrap_or(u64::MAX);
        if input.by_ref().take(most).read_until(b'\n', line)? == 0 {
            break;
        }
    }
    Ok(())
}
