//! `[jobs]`: how many calls are worked on, and how large one may be.
//! Trusts: nothing.
//! Touches: nothing.
//! Next: `job` and `supervisor`.

use std::time::Duration;

use super::read::Section;

/// The section.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Jobs {
    /// Calls that are worked on at once.
    pub concurrent: u8,
    /// Threads for each.
    pub threads: u8,
    /// Calls that may wait.
    pub queue: u32,
    /// Times that a call is tried when the daemon or its child ends in the middle.
    pub attempts: u8,
    /// Largest recording, bytes.
    pub max_audio: u64,
    /// Longest recording.
    pub max_duration: Duration,
    /// Memory that a child may add to the models it shares, bytes.
    pub memory: u64,
    /// Longest time that one try may take, and processor time on each of its threads.
    pub time_limit: Duration,
}

impl Jobs {
    pub(super) fn read(section: &mut Section<'_>) -> Self {
        Self {
            concurrent: section.number("concurrent", 1, 1..=64),
            threads: section.number("threads", 2, 1..=64),
            queue: section.number("queue", 1000, 1..=100_000),
            attempts: section.number("attempts", 3, 1..=10),
            max_audio: section.size("max_audio", "500 MB", "1 MB", "500 MB"),
            max_duration: section.duration("max_duration", "4 h", "1 min", "4 h"),
            memory: section.size("memory", "2 GiB", "512 MiB", "16 GiB"),
            time_limit: section.duration("time_limit", "6 h", "1 s", "24 h"),
        }
    }
}
