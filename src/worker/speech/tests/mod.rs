//! The speech pipeline on real models and real recordings (Debian's pocketsphinx-testdata, BSD).
//! Trusts: nothing.
//! Touches: the models and recordings, reading.
//! Next: nobody.

#![expect(clippy::as_conversions, reason = "sizes and samples of test sounds")]

mod graph;
mod recognition;
mod segmentation;

use std::path::PathBuf;
use std::sync::LazyLock;

use super::SpeechModels;
use crate::model::verify::{VerifiedModel, verify};

/// Silero and the small English Whisper, loaded once for all tests.
pub static ENGLISH: LazyLock<SpeechModels> = LazyLock::new(|| models("whisper-tiny-en"));
/// Silero and the multilingual Whisper.
pub static MULTILINGUAL: LazyLock<SpeechModels> = LazyLock::new(|| models("whisper-base"));

fn models(asr: &str) -> SpeechModels {
    SpeechModels::load(&mut verified("silero-vad"), &mut verified(asr)).expect("the models load")
}

/// A model of the repository, or of the directory that `SALAMA_MODELS` names.
pub fn verified(name: &str) -> VerifiedModel {
    let root = std::env::var_os("SALAMA_MODELS")
        .map_or_else(|| PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/firmware-models")), PathBuf::from);
    verify(&root.join(name)).unwrap_or_else(|error| panic!("the model {name} cannot be used: {error}; run `make models`"))
}

/// A recording of pocketsphinx-testdata, 16 kHz mono 16 bit: headerless `.raw`, or `.wav` with the plain 44-byte header.
pub fn recording(name: &str) -> Vec<f32> {
    let path = PathBuf::from("/usr/share/pocketsphinx/test/data").join(name);
    let bytes = std::fs::read(&path).unwrap_or_else(|_| panic!("{} is missing: apt-get install pocketsphinx-testdata", path.display()));
    let header = if name.ends_with(".wav") { 44 } else { 0 };
    pcm(&bytes[header..])
}

/// Samples from 16-bit little-endian PCM.
pub fn pcm(bytes: &[u8]) -> Vec<f32> {
    bytes.as_chunks::<2>().0.iter().map(|pair| f32::from(i16::from_le_bytes(*pair)) / 32768.0).collect()
}

/// Seconds of zeros.
pub fn silence(seconds: f32) -> Vec<f32> {
    vec![0.0; (seconds * 16_000.0) as usize]
}

/// White noise of this amplitude, the same each time.
pub fn noise(seconds: f32, amplitude: f32) -> Vec<f32> {
    let mut state = 0x9e37_79b9_u32;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        (state as f32 / u32::MAX as f32 * 2.0 - 1.0) * amplitude
    };
    (0..(seconds * 16_000.0) as usize).map(|_| next()).collect()
}

/// A sum of sines of these frequencies.
pub fn tones(seconds: f32, hertz: &[f32], amplitude: f32) -> Vec<f32> {
    let tone = |n: usize, hz: f32| (std::f32::consts::TAU * hz * n as f32 / 16_000.0).sin();
    (0..(seconds * 16_000.0) as usize).map(|n| amplitude * hertz.iter().map(|hz| tone(n, *hz)).sum::<f32>()).collect()
}
