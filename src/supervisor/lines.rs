//! Where a key keeper's signed lines go: into a stream of their own, which nobody else can write into.
//! Trusts: the journal to keep what it takes.
//! Touches: journald's socket for streams, or a file that the operator names.
//! Next: the keeper has it as standard error.

use std::env;
use std::fs::OpenOptions;
use std::io::{self, Write as _};
use std::net::Shutdown;
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt as _;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Stdio;

/// As the journal files them: `journalctl -t salama-keeper`.
pub const IDENTIFIER: &str = "salama-keeper";

/// Set by systemd for a service that has the journal as standard error.
const IN_THE_JOURNAL: &str = "JOURNAL_STREAM";
const SOCKET: &str = "/run/systemd/journal/stdout";
/// Informational, of the daemon facility: what a line has that says nothing else.
const PRIORITY: u8 = 6;

/// For the keeper beside the daemon: in the journal, where the daemon's own lines go there; else where they go.
///
/// # Errors
/// What the system says, when there should be a journal.
pub fn of_the_daemon() -> io::Result<Stdio> {
    if env::var_os(IN_THE_JOURNAL).is_none() {
        return Ok(Stdio::inherit());
    }
    Ok(journal()?.into())
}

/// For a keeper that opens a store for maintenance: in the journal, where there is one.
pub fn of_maintenance() -> Stdio {
    journal().map_or_else(|_| Stdio::inherit(), Stdio::from)
}

/// For the keeper at the console: in the journal, or at the end of the file that is named.
///
/// # Errors
/// What the system says.
pub fn of_the_console(file: Option<&Path>) -> io::Result<Stdio> {
    match file {
        Some(file) => Ok(OpenOptions::new().append(true).create(true).mode(0o600).open(file)?.into()),
        None => Ok(journal()?.into()),
    }
}

/// As sd_journal_stream_fd(3): identifier, no unit, priority, prefixes of priority are taken off, nothing is forwarded.
fn journal() -> io::Result<OwnedFd> {
    let mut stream = UnixStream::connect(SOCKET)?;
    stream.shutdown(Shutdown::Read)?;
    stream.write_all(format!("{IDENTIFIER}\n\n{PRIORITY}\n1\n0\n0\n0\n").as_bytes())?;
    Ok(stream.into())
}
