//! How often each kind of use is allowed: the keeper's own settings, in its own directory.
//! Trusts: whoever may write the key directory; the core neither reads nor writes it, and its words set no limit.
//! Touches: nothing; `directory` reads the file before confinement.
//! Next: `quota` keeps to them.
//!
//! # Why these defaults
//! In an office of 20 counsellors each finishes at most 6 calls an hour: 120 new calls. Each is opened once for transcription, three times
//! when the daemon is restarted in the middle: 360 an hour. If each of the 20 reads 20 transcripts an hour and three supervisors review one
//! a minute, that is 580 an hour and, should all read at the same moment, 23 in a minute. The limits are twice the hour's and ten times the
//! minute's most. Whoever has taken over the core and opens all that is allowed, of both kinds, day and night, needs 20 days for the calls
//! of five years; the signed stream names each of them, and once an hour it has an incident, from half of the limit on.
//! New calls and handshakes open nothing; their limits keep the keeper from being drowned.

use serde::Deserialize;

/// Most that a settings file may allow of calls opened in a minute: the rest is what a permit's grant is for.
const MINUTE_MAX: u32 = 600;
/// The same in an hour.
const HOUR_MAX: u32 = 6000;
/// Most that calls can be opened in an hour, whatever was granted and by whomever.
const CEILING_MAX: u32 = 12_000;
/// For what opens nothing.
const COMMON_MAX: u32 = 60_000;

/// Most that a TPM's memory may be written in an hour, of each kind: at this rate it lasts for weeks, not for years.
const WRITES_MAX: u32 = 600;

/// Uses of one kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit {
    /// Within any 60 seconds.
    pub per_minute: u32,
    /// Within any 60 minutes.
    pub per_hour: u32,
    /// Within any 60 minutes with all grants.
    pub ceiling_per_hour: u32,
}

impl Limit {
    const fn new(per_minute: u32, per_hour: u32, ceiling_per_hour: u32) -> Self {
        Self { per_minute, per_hour, ceiling_per_hour }
    }

    /// For counting up: no start needs more than one, and tries that fail count too.
    const fn starts(per_hour: u32) -> Self {
        Self::new(if per_hour < 4 { per_hour } else { 4 }, per_hour, per_hour)
    }

    /// For what wears the TPM.
    pub const fn writes(per_hour: u32) -> Self {
        Self::new(per_hour, per_hour, per_hour)
    }

    /// For what no grant lifts.
    pub const fn common(per_minute: u32) -> Self {
        Self::new(per_minute, per_minute.saturating_mul(60), per_minute.saturating_mul(60))
    }
}

/// Of each kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Keys for new calls.
    pub new: Limit,
    /// Calls opened for transcription.
    pub job: Limit,
    /// Calls opened for readers.
    pub read: Limit,
    /// TLS handshakes.
    pub handshake: Limit,
    /// Certificates, at the console.
    pub certificate: Limit,
    /// Grants that are looked at.
    pub grant: Limit,
    /// Counting up in the TPM, whose memory wears: one at a start. A move has paid for its own at its beginning.
    pub start: Limit,
    /// Moves of the erasure epoch, which write that memory three times: each of two places, and the counter.
    pub erasure: Limit,
    /// Certificates of erasure.
    pub certify: Limit,
    /// Messages with keys to re-wrap, above what belongs to the move that is begun.
    pub rewrap: Limit,
    /// Everything else about the epoch, but what ends a move that was begun.
    pub settle: Limit,
    /// Keys of calls that are tried and not opened, for `salama store check`.
    pub verify: Limit,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            new: Limit::common(600),
            job: Limit::new(240, 1200, 4800),
            read: Limit::new(240, 1200, 4800),
            handshake: Limit::common(3000),
            certificate: Limit::common(600),
            grant: Limit::new(30, 120, 120),
            start: Limit::starts(24),
            erasure: Limit::writes(12),
            certify: Limit::common(600),
            rewrap: Limit::common(1500),
            settle: Limit::common(60),
            verify: Limit::common(COMMON_MAX),
        }
    }
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    new: Option<Common>,
    job: Option<Opening>,
    read: Option<Opening>,
    handshake: Option<Common>,
    start: Option<Writes>,
    erasure: Option<Writes>,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields)]
struct Writes {
    per_hour: u32,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields)]
struct Common {
    per_minute: u32,
}

#[derive(Clone, Copy, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Opening {
    per_minute: Option<u32>,
    per_hour: Option<u32>,
    ceiling_per_hour: Option<u32>,
}

impl Limits {
    /// Reads a settings file; what it does not name has its default.
    ///
    /// # Errors
    /// [`LimitsError`].
    pub fn read(file: &[u8]) -> Result<Self, LimitsError> {
        let text = std::str::from_utf8(file).map_err(|_| LimitsError::NoText)?;
        let File { new, job, read, handshake, start, erasure } =
            toml::from_str(text).map_err(|error| LimitsError::Syntax(error.message().to_owned()))?;
        let mut limits = Self::default();
        common(&mut limits.new, new, "new")?;
        opening(&mut limits.job, job, "job")?;
        opening(&mut limits.read, read, "read")?;
        common(&mut limits.handshake, handshake, "handshake")?;
        writes(&mut limits.start, start, "start", Limit::starts)?;
        writes(&mut limits.erasure, erasure, "erasure", Limit::writes)?;
        Ok(limits)
    }
}

fn common(limit: &mut Limit, read: Option<Common>, kind: &'static str) -> Result<(), LimitsError> {
    if let Some(Common { per_minute }) = read {
        within(kind, "per_minute", per_minute, 1, COMMON_MAX)?;
        *limit = Limit::common(per_minute);
    }
    Ok(())
}

fn writes(limit: &mut Limit, read: Option<Writes>, kind: &'static str, of: fn(u32) -> Limit) -> Result<(), LimitsError> {
    if let Some(Writes { per_hour }) = read {
        within(kind, "per_hour", per_hour, 1, WRITES_MAX)?;
        *limit = of(per_hour);
    }
    Ok(())
}

fn opening(limit: &mut Limit, read: Option<Opening>, kind: &'static str) -> Result<(), LimitsError> {
    let Opening { per_minute, per_hour, ceiling_per_hour } = read.unwrap_or_default();
    limit.per_minute = per_minute.unwrap_or(limit.per_minute);
    within(kind, "per_minute", limit.per_minute, 1, MINUTE_MAX)?;
    limit.per_hour = per_hour.unwrap_or(limit.per_hour);
    within(kind, "per_hour", limit.per_hour, limit.per_minute, HOUR_MAX)?;
    limit.ceiling_per_hour = ceiling_per_hour.unwrap_or_else(|| limit.ceiling_per_hour.max(limit.per_hour));
    within(kind, "ceiling_per_hour", limit.ceiling_per_hour, limit.per_hour, CEILING_MAX)
}

const fn within(kind: &'static str, key: &'static str, value: u32, least: u32, most: u32) -> Result<(), LimitsError> {
    if value < least || value > most { Err(LimitsError::Range { kind, key, least, most }) } else { Ok(()) }
}

/// Why the settings cannot be used.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum LimitsError {
    /// Not text.
    #[error("the file limits.toml of the key directory is no text: correct it, or remove it for the defaults")]
    NoText,
    /// Not settings.
    #[error(
        "the file limits.toml of the key directory is not understood ({0}): it has sections [new], [job], [read], [handshake], [start] and [erasure]"
    )]
    Syntax(String),
    /// A number that cannot be.
    #[error("limits.toml of the key directory: {kind}.{key} must be a whole number from {least} to {most}")]
    Range {
        /// The section.
        kind: &'static str,
        /// The setting.
        key: &'static str,
        /// At least.
        least: u32,
        /// At most.
        most: u32,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shipped_example_says_the_defaults() {
        assert_eq!(Limits::read(include_bytes!("../../config/limits.toml")).unwrap(), Limits::default());
    }

    #[test]
    fn what_the_file_does_not_name_has_its_default() {
        assert_eq!(Limits::read(b"").unwrap(), Limits::default());
        let read = Limits::read(b"[read]\nper_minute = 5\n[new]\nper_minute = 7").unwrap();
        assert_eq!((read.read, read.new), (Limit::new(5, 1200, 4800), Limit::common(7)));
        assert_eq!(Limits { read: Limits::default().read, new: Limits::default().new, ..read }, Limits::default());
    }

    #[test]
    fn each_border_is_held_and_named() {
        let refused = |text: &str| Limits::read(text.as_bytes()).unwrap_err().to_string();
        for (text, words) in [
            ("[read]\nper_minute = 0", "read.per_minute must be a whole number from 1 to 600"),
            ("[read]\nper_minute = 601", "read.per_minute must be a whole number from 1 to 600"),
            ("[job]\nper_minute = 300\nper_hour = 299", "job.per_hour must be a whole number from 300 to 6000"),
            ("[job]\nper_hour = 6001", "job.per_hour must be a whole number from 240 to 6000"),
            ("[job]\nceiling_per_hour = 12001", "job.ceiling_per_hour must be a whole number from 1200 to 12000"),
            ("[new]\nper_minute = 60001", "new.per_minute must be a whole number from 1 to 60000"),
            ("[start]\nper_hour = 0", "start.per_hour must be a whole number from 1 to 600"),
            ("[erasure]\nper_hour = 601", "erasure.per_hour must be a whole number from 1 to 600"),
            ("[handshake]\nper_hour = 5", "unknown field `per_hour`"),
            ("[raed]\nper_minute = 5", "unknown field `raed`"),
            ("[read]\nper_minute = -1", "is not understood"),
            ("[read", "is not understood"),
        ] {
            assert!(refused(text).contains(words), "{text}: {}", refused(text));
        }
        assert_eq!(Limits::read(&[0xff]), Err(LimitsError::NoText));
        let widest = Limits::read(b"[read]\nper_minute = 600\nper_hour = 6000\nceiling_per_hour = 12000").unwrap();
        assert_eq!(widest.read, Limit::new(600, 6000, 12_000));
    }

    #[test]
    fn an_office_of_twenty_stays_far_below_the_defaults() {
        let (counsellors, supervisors) = (20, 3);
        let (finished, attempts, reads, reviews) = (6, 3, 20, 60);
        let defaults = Limits::default();
        assert!(counsellors * finished * attempts * 2 <= defaults.job.per_hour);
        assert!((counsellors * reads + supervisors * reviews) * 2 <= defaults.read.per_hour);
        assert!((counsellors + supervisors) * 10 <= defaults.read.per_minute);
    }
}
