//! The whole way from a stranger's recording to 16 kHz samples: `worker::decode`.
//! Trusts: nothing.
//! Touches: memory.
//! Next: `speech` hears the samples.

use std::io::Cursor;

use super::{Target, audio};
use crate::worker::decode::{DecodeLimits, Decoder};

/// Longest recording that the target accepts, seconds: short, so that a small file that says it is long ends soon.
const SECONDS: u32 = 20;

/// A recording.
pub const TARGET: Target =
    Target { name: "decode", run, seeds: Vec::new, corpus: "audio", words: audio::WORDS, memory: 24 << 20, longest: 32_768, smoke: 1500 };

/// Noise at full scale swings over the top in the resampler's filter. The sum of its weights' sizes bounds by how much: about
/// 2/pi ln(taps) + 1, under 6 for its at most 2048.
const LOUDEST: f32 = 6.0;

/// Promise: any bytes end in samples or a reason, in bounded memory: finite samples of bounded size, channels of equal length, no more than
/// the limit allows; and the end stays the end.
fn run(data: &[u8]) {
    let limits = DecodeLimits { max_seconds: SECONDS };
    let Ok(mut decoder) = Decoder::open(Box::new(Cursor::new(data.to_vec())), limits) else { return };
    let info = decoder.info();
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
                out.iter_mut().for_each(Vec::clear);
            }
            end => break end,
        }
    };
    assert_eq!(decoder.next_block(&mut out), end, "the end does not stay the end");
    assert!(decoder.position() <= data.len() as u64);
}
