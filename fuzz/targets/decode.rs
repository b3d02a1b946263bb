//! The whole way from a stranger's recording to 16 kHz samples: `worker::decode`.
//! Trusts: nothing.
//! Touches: memory.
//! Next: `speech` hears the samples.

use std::io::Cursor;

use super::{Target, audio};
use crate::ipc::worker::{CallFailure, RawSamples};
use crate::worker::decode::{DecodeLimits, Decoder};

/// Longest recording that the target accepts, seconds: short, so that a small file that says it is long ends soon.
const SECONDS: u32 = 20;

/// A recording.
pub const TARGET: Target =
    Target { name: "decode", run, seeds: Vec::new, corpus: "audio", words: audio::WORDS, memory: 24 << 20, longest: 32_768, smoke: 1500 };

/// Samples without a header: four bytes of rate, channels, order of bytes, then the samples.
pub const SAMPLES: Target = Target {
    name: "samples",
    run: samples,
    seeds: sample_seeds,
    corpus: "",
    words: &[
        b"\x40\x1f\0\0",
        b"\x80\x3e\0\0",
        b"\x80\xbb\0\0",
        b"\x44\xac\0\0",
        b"\x3f\x1f\0\0",
        b"\x81\xbb\0\0",
        b"\xff\xff\xff\xff",
        b"\0\x80",
    ],
    longest: 8192,
    ..TARGET
};

/// Noise at full scale swings over the top in the resampler's filter. The sum of its weights' sizes bounds by how much: about
/// 2/pi ln(taps) + 1, under 6 for its at most 2048.
const LOUDEST: f32 = 6.0;

/// Promise: any bytes end in samples or a reason, in bounded memory: finite samples of bounded size, channels of equal length, no more than
/// the limit allows; and the end stays the end.
fn run(data: &[u8]) {
    let limits = DecodeLimits { max_seconds: SECONDS };
    let Ok(decoder) = Decoder::open(Box::new(Cursor::new(data.to_vec())), limits) else { return };
    let _ = drain(decoder, data.len());
}

/// All of the recording, as promised.
fn drain(mut decoder: Decoder, len: usize) -> (Result<(), CallFailure>, Vec<Vec<f32>>) {
    let info = decoder.info();
    let mut all = vec![Vec::new(); info.channels.into()];
    assert!((8_000..=48_000).contains(&info.sample_rate) && (1..=2).contains(&info.channels), "{info:?}");
    let mut out = vec![Vec::new(); info.channels.into()];
    let mut samples = 0;
    let end = loop {
        match decoder.next_block(&mut out) {
            Ok(true) => {
                assert!(!out[0].is_empty(), "a block without samples");
                assert!(out.iter().all(|channel| channel.len() == out[0].len()), "channels of different length");
                let wrong = out.iter().flatten().find(|sample| !sample.is_finite() || sample.abs() > LOUDEST);
                assert_eq!(wrong, None, "a sample that is none");
                samples += out[0].len();
                assert!(samples <= (SECONDS as usize + 5) * 16_000, "{samples} samples");
                all.iter_mut().zip(&mut out).for_each(|(all, block)| all.append(block));
            }
            end => break end,
        }
    };
    assert_eq!(decoder.next_block(&mut out), end, "the end does not stay the end");
    assert!(decoder.position() <= len as u64);
    (end.map(drop), all)
}

/// Promise: a rate and channels that are accepted give every sample that is there, and at 16 kHz exactly those; others are refused by name.
fn samples(data: &[u8]) {
    let Some(([r0, r1, r2, r3, channels, order], data)) = data.split_first_chunk::<6>() else { return };
    let declared = RawSamples { sample_rate: u32::from_le_bytes([*r0, *r1, *r2, *r3]), channels: *channels, big_endian: order & 1 == 1 };
    let limits = DecodeLimits { max_seconds: SECONDS };
    let frame = 2 * usize::from(*channels);
    let expected = match (declared.sample_rate, channels) {
        (_, 0 | 3..) => Err(CallFailure::Channels),
        _ if data.is_empty() => Err(CallFailure::Empty),
        _ if !data.len().is_multiple_of(frame) => Err(CallFailure::Truncated),
        (8_000..=48_000, _) => Ok(()),
        _ => Err(CallFailure::SampleRate),
    };
    let decoder = Decoder::open_samples(Box::new(Cursor::new(data.to_vec())), declared, limits);
    assert_eq!(decoder.as_ref().map(drop).map_err(|failure| *failure), expected, "{declared:?}, {} bytes", data.len());
    let Ok(decoder) = decoder else { return };
    let (end, channels) = drain(decoder, data.len());
    assert_eq!(end, Ok(()), "{declared:?}");
    let frames = data.len() / frame;
    let due = frames * 16_000 / declared.sample_rate as usize;
    assert!(channels[0].len().abs_diff(due) <= 1, "{} samples instead of {due}: {declared:?}", channels[0].len());
    if declared.sample_rate == 16_000 {
        for (at, pair) in data.as_chunks::<2>().0.iter().enumerate() {
            let sample = if declared.big_endian { i16::from_be_bytes(*pair) } else { i16::from_le_bytes(*pair) };
            assert_eq!(channels[at % channels.len()][at / channels.len()], f32::from(sample) / 32_768.0, "sample {at}: {declared:?}");
        }
    }
}

fn sample_seeds() -> Vec<Vec<u8>> {
    let sound: Vec<u8> = (0..600_i16).flat_map(|at| (at % 37 * 800).to_le_bytes()).collect();
    let seed = |rate: u32, channels: u8, order: u8| [&rate.to_le_bytes()[..], &[channels, order], &sound].concat();
    vec![
        seed(8000, 1, 0),
        seed(16_000, 1, 0),
        seed(16_000, 2, 1),
        seed(44_100, 1, 1),
        seed(48_000, 2, 0),
        seed(7999, 1, 0),
        seed(8000, 3, 0),
    ]
}
