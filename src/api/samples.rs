//! Recordings without a header: what their Content-Type declares.
//! Trusts: nothing.
//! Touches: nothing.
//! Next: [`super::upload`] keeps it with the metadata; the child reads the samples by it.

use super::multipart::parameter;
use super::problem::{Kind, Problem};
use crate::ipc::worker::RawSamples;

/// Samples a second of `audio/x-sln` without a rate: Asterisk's `.sln`.
const SLN_RATE: u32 = 8000;

/// What this Content-Type declares: `audio/L16` (RFC 2586, big-endian) or `audio/x-sln` (Asterisk, little-endian).
///
/// # Errors
/// 415 for parameters that are missing or outside what is decoded.
pub(super) fn declared_samples(content_type: &str) -> Result<Option<RawSamples>, Problem> {
    let (media, parameters) = content_type.split_once(';').unwrap_or((content_type, ""));
    let (big_endian, default_rate) = match media.trim().to_ascii_lowercase().as_str() {
        "audio/l16" => (true, None),
        "audio/x-sln" => (false, Some(SLN_RATE)),
        _ => return Ok(None),
    };
    let number = |name: &str, absent: Option<u32>| match parameter(parameters, name) {
        Some(value) => value.parse().ok(),
        None => absent,
    };
    let sample_rate = number("rate", default_rate).filter(|rate| (8_000..=48_000).contains(rate));
    let channels = number("channels", Some(1)).and_then(|count| u8::try_from(count).ok()).filter(|count| (1..=2).contains(count));
    match (sample_rate, channels) {
        (Some(sample_rate), Some(channels)) => Ok(Some(RawSamples { sample_rate, channels, big_endian })),
        _ => Err(Problem::new(
            Kind::UnsupportedMediaType,
            "Samples without a header need `rate` (8000 to 48000) and have `channels` 1 or 2: audio/x-sln; rate=16000",
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_are_taken_as_declared() {
        let cases = [
            ("audio/x-sln", 8000, 1, false),
            ("audio/x-sln; rate=16000", 16_000, 1, false),
            ("Audio/L16; Rate=44100; channels=2", 44_100, 2, true),
        ];
        for (declared, sample_rate, channels, big_endian) in cases {
            let found = declared_samples(declared).unwrap();
            assert_eq!(found, Some(RawSamples { sample_rate, channels, big_endian }), "{declared}");
        }
    }

    #[test]
    fn other_types_declare_no_samples() {
        for declared in ["", "audio/wav", "audio/wav; rate=8000", "application/octet-stream"] {
            assert_eq!(declared_samples(declared).unwrap(), None, "{declared}");
        }
    }

    #[test]
    fn samples_that_could_not_be_decoded_are_refused() {
        for declared in
            ["audio/L16", "audio/L16; rate=x", "audio/x-sln; rate=4000", "audio/x-sln; rate=8000; channels=3", "audio/x-sln; channels=0"]
        {
            assert!(declared_samples(declared).is_err(), "{declared}");
        }
    }
}
