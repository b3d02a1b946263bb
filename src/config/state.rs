//! `[state]`: the one directory that the daemon writes, and room kept on its disk.
//! Trusts: nothing.
//! Touches: nothing.
//! Next: `record`.

use std::path::PathBuf;
use std::time::Duration;

use super::read::Section;

/// The section.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct State {
    /// Store and sealed recordings.
    pub directory: PathBuf,
    /// Size of the file that is given up when the disk is full, so that calls can still be erased. Bytes.
    pub ballast: u64,
    /// Free space below which no new call is accepted. Bytes.
    pub reserve: u64,
    /// Longest time from an erasure until no old copy of the disk, without paper of its time, opens the call any more.
    pub erasure_interval: Duration,
}

impl State {
    pub(super) fn read(section: &mut Section<'_>) -> Self {
        Self {
            directory: section.path("directory", "/var/lib/salama"),
            ballast: section.size("ballast", "64 MiB", "16 MiB", "1 GiB"),
            reserve: section.size("reserve", "1 GiB", "64 MiB", "1000 GiB"),
            erasure_interval: section.duration("erasure_interval", "15 min", "5 min", "24 h"),
        }
    }
}
