//! `[limits]`: how long a peer may take, and how often it may come.
//! Trusts: nothing.
//! Touches: nothing.
//! Next: `connection` (times), `api` (rates).

use std::num::NonZeroU32;
use std::time::Duration;

use super::read::Section;

/// The section.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// For the TLS handshake.
    pub handshake_timeout: Duration,
    /// For the head of a request; also for the next request on an HTTP/1 connection.
    pub header_timeout: Duration,
    /// Longest silence in a body.
    pub body_timeout: Duration,
    /// For a whole upload.
    pub upload_timeout: Duration,
    /// How long a connection without a request is kept.
    pub idle_timeout: Duration,
    /// How long requests may finish when the daemon stops.
    pub drain_timeout: Duration,
    /// Requests a minute of one identity, by class.
    pub rates: Rates,
}

/// Requests a minute of one identity, by class; also the largest burst.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rates {
    /// Recordings posted.
    pub uploads: NonZeroU32,
    /// Calls and their content read.
    pub reads: NonZeroU32,
    /// Calls cancelled and erased.
    pub changes: NonZeroU32,
    /// Texts redacted.
    pub texts: NonZeroU32,
    /// Health, metrics, the peer's own name.
    pub status: NonZeroU32,
}

impl Limits {
    pub(super) fn read(section: &mut Section<'_>) -> Self {
        Self {
            handshake_timeout: section.duration("handshake_timeout", "10 s", "1 s", "60 s"),
            header_timeout: section.duration("header_timeout", "10 s", "1 s", "60 s"),
            body_timeout: section.duration("body_timeout", "30 s", "1 s", "5 min"),
            upload_timeout: section.duration("upload_timeout", "2 h", "1 min", "12 h"),
            idle_timeout: section.duration("idle_timeout", "60 s", "5 s", "10 min"),
            drain_timeout: section.duration("drain_timeout", "20 s", "1 s", "5 min"),
            rates: Rates {
                uploads: rate(section, "uploads_per_minute", 60, 6_000),
                reads: rate(section, "reads_per_minute", 600, 60_000),
                changes: rate(section, "changes_per_minute", 60, 6_000),
                texts: rate(section, "texts_per_minute", 60, 6_000),
                status: rate(section, "status_per_minute", 600, 60_000),
            },
        }
    }
}

fn rate(section: &mut Section<'_>, key: &str, default: u32, most: u32) -> NonZeroU32 {
    NonZeroU32::new(section.number(key, default, 1..=most)).unwrap_or(NonZeroU32::MIN)
}
