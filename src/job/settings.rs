//! The limits of the desk.
//! Trusts: the configuration.
//! Touches: nothing.
//! Next: [`super::calls`] opens the desk with them.

use std::path::PathBuf;
use std::time::Duration;

/// Limits of the desk; all from the configuration.
#[derive(Clone, Debug)]
pub struct JobSettings {
    /// The state directory.
    pub state: PathBuf,
    /// Bytes that are kept free on its file system.
    pub reserve: u64,
    /// Calls that run at once: runner threads.
    pub concurrent: u8,
    /// Threads of each child.
    pub threads: u8,
    /// Calls that may wait, uploads included.
    pub queue: usize,
    /// Starts of a call, at most.
    pub attempts: u8,
    /// Largest recording, bytes.
    pub max_audio_bytes: u64,
    /// Longest recording, seconds.
    pub max_audio_seconds: u32,
    /// Address space that a child may add, bytes.
    pub child_memory: u64,
    /// Processor time of a child, seconds.
    pub child_cpu_seconds: u32,
    /// Time for any call.
    pub time_base: Duration,
    /// On top, seconds for each second of audio.
    pub time_per_audio: u32,
    /// Longest time for any call, however long it is.
    pub time_limit: Duration,
    /// Longest time from an erasure to the move of the epoch that makes it final; no two moves are closer, unless somebody asks.
    pub epoch_interval: Duration,
    /// Longest time without a word from the child.
    pub silence: Duration,
    /// Texts that are redacted at once.
    pub text_concurrent: u8,
    /// Pause before something is tried again that failed for reasons outside the call; it grows each time that it fails again.
    pub pause: Duration,
    /// Times that a call is set back for reasons outside it before it fails.
    pub setbacks: u32,
    /// Time for one text.
    pub text_time: Duration,
}
