//! The log-mel spectrogram that Whisper was trained on.
//! Trusts: nothing; any samples give finite values.
//! Touches: nothing.
//! Next: `whisper` feeds it to the encoder.
//!
//! 16 kHz, FFT of 400 every 160 samples (10 ms), periodic Hann window, centred with reflected edges, power, 80 Slaney mel
//! bands of equal area from 0 to 8 kHz, log10, clamped to 8 below the maximum, (x + 4) / 4: openai/whisper `audio.py`.
//! The clamp looks at 30 s with zeros behind the clip, as the reference does, also when a shorter window is cut from it.

#![expect(clippy::indexing_slicing, reason = "numeric kernels over buffers that are sized here, from constants")]

use std::sync::Arc;

use realfft::num_complex::Complex;
use realfft::{RealFftPlanner, RealToComplex};

use super::numeric::{f32_of_f64, f64_of};

/// Mel bands.
pub const BANDS: usize = 80;
/// Frames of 10 ms in the longest window, 30 s.
pub const FRAMES_MAX: usize = 3000;
/// Samples between frames.
pub const HOP: usize = 160;
/// Longest clip, samples: a little under 30 s, so that the reflected right edge is always of zeros.
pub const SAMPLES_MAX: usize = FRAMES_MAX * HOP - 2 * FFT;

const FFT: usize = 400;
const BINS: usize = FFT / 2 + 1;
/// log10 of the floor under the power.
const FLOOR: f32 = -10.0;

/// Window, filters and FFT plan; made once, shared by threads.
pub struct LogMel {
    fft: Arc<dyn RealToComplex<f32>>,
    window: Vec<f32>,
    /// For each band the first bin and the weights from there.
    filters: Vec<(usize, Vec<f32>)>,
}

impl LogMel {
    /// Builds the tables.
    pub fn new() -> Self {
        let window = (0..FFT).map(|n| f32_of_f64(0.5 - 0.5 * (std::f64::consts::TAU * f64_of(n) / f64_of(FFT)).cos())).collect();
        Self { fft: RealFftPlanner::new().plan_fft_forward(FFT), window, filters: filters() }
    }

    /// The first `frames` frames of the spectrogram of `samples` followed by silence, band by band: `[BANDS][frames]`.
    /// Of more than [`SAMPLES_MAX`] samples the rest is not looked at; `frames` is at most [`FRAMES_MAX`].
    pub fn compute(&self, samples: &[f32], frames: usize) -> Vec<f32> {
        let samples = &samples[..samples.len().min(SAMPLES_MAX)];
        let frames = frames.min(FRAMES_MAX);
        let padded = centred(samples);
        // Frames past these see only zeros and are the floor.
        let sounding = ((samples.len() + FFT / 2) / HOP + 1).min(FRAMES_MAX);
        let mut mel = vec![FLOOR; BANDS * sounding];
        let mut input = self.fft.make_input_vec();
        let mut spectrum = self.fft.make_output_vec();
        let mut scratch = self.fft.make_scratch_vec();
        let mut power = vec![0f32; BINS];
        let mut peak = FLOOR;
        for frame in 0..sounding {
            for ((value, sample), weight) in input.iter_mut().zip(&padded[frame * HOP..]).zip(&self.window) {
                *value = sample * weight;
            }
            if self.fft.process_with_scratch(&mut input, &mut spectrum, &mut scratch).is_err() {
                continue; // only lengths can be wrong, and those came from the plan
            }
            for (value, bin) in power.iter_mut().zip(&spectrum) {
                *value = Complex::norm_sqr(bin);
            }
            for (band, (first, weights)) in self.filters.iter().enumerate() {
                let energy: f32 = weights.iter().zip(&power[*first..]).map(|(weight, value)| weight * value).sum();
                let level = energy.max(1e-10).log10();
                peak = peak.max(level);
                mel[band * sounding + frame] = level;
            }
        }
        let scale = |level: f32| (level.max(peak - 8.0) + 4.0) / 4.0;
        let mut out = vec![scale(FLOOR); BANDS * frames];
        let shared = sounding.min(frames);
        for (row, levels) in out.chunks_exact_mut(frames.max(1)).zip(mel.chunks_exact(sounding)) {
            for (value, level) in row[..shared].iter_mut().zip(levels) {
                *value = scale(*level);
            }
        }
        out
    }
}

/// The samples with the left edge reflected and enough zeros on the right for the last frame that hears any of them.
fn centred(samples: &[f32]) -> Vec<f32> {
    let half = FFT / 2;
    let mut padded = Vec::with_capacity(samples.len() + 3 * FFT);
    padded.extend((1..=half).rev().map(|back| samples.get(back).copied().map_or(0.0, finite)));
    padded.extend(samples.iter().copied().map(finite));
    padded.resize(samples.len() + 3 * FFT, 0.0);
    padded
}

/// A decoder must not hand on infinities, but one that does must not poison a whole window.
fn finite(sample: f32) -> f32 {
    if sample.is_finite() { sample.clamp(-8.0, 8.0) } else { 0.0 }
}

/// Slaney's mel scale: linear to 1 kHz, logarithmic above (Auditory Toolbox, 1998).
fn hz_of_mel(mel: f64) -> f64 {
    let (linear, log_from) = (200.0 / 3.0, 15.0);
    if mel < log_from { mel * linear } else { 1000.0 * ((mel - log_from) * 6.4f64.ln() / 27.0).exp() }
}

fn mel_of_hz(hz: f64) -> f64 {
    if hz < 1000.0 { hz * 3.0 / 200.0 } else { 15.0 + (hz / 1000.0).ln() * 27.0 / 6.4f64.ln() }
}

/// Triangles between neighbouring mel points, scaled to equal area.
fn filters() -> Vec<(usize, Vec<f32>)> {
    let top = mel_of_hz(8000.0);
    let edges: Vec<f64> = (0..BANDS + 2).map(|point| hz_of_mel(top * f64_of(point) / f64_of(BANDS + 1))).collect();
    edges
        .windows(3)
        .map(|edge| {
            let weights: Vec<f64> = (0..BINS)
                .map(|bin| {
                    let hz = 8000.0 * f64_of(bin) / f64_of(BINS - 1);
                    let slope = ((hz - edge[0]) / (edge[1] - edge[0])).min((edge[2] - hz) / (edge[2] - edge[1]));
                    slope.max(0.0) * 2.0 / (edge[2] - edge[0])
                })
                .collect();
            let first = weights.iter().position(|weight| *weight > 0.0).unwrap_or(0);
            let last = weights.iter().rposition(|weight| *weight > 0.0).unwrap_or(0);
            (first, weights[first..=last].iter().copied().map(f32_of_f64).collect())
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::super::tests::recording;
    use super::*;

    #[test]
    fn the_spectrogram_equals_the_reference() {
        let samples = recording("goforward.raw");

        let mel = LogMel::new().compute(&samples, 1000);

        // faster-whisper 1.2.1 `FeatureExtractor` on the same samples, padded to 30 s.
        for (band, frame, value) in [
            (0, 0, 0.217_780_7),
            (0, 10, 0.334_174_8),
            (5, 50, -0.298_145_18),
            (20, 100, 0.259_072_96),
            (40, 150, -0.490_866_78),
            (79, 200, -0.182_090_88),
            (10, 278, -0.604_535_6),
            (3, 279, -0.499_928),
            (0, 280, -0.886_190_65),
            (60, 999, -0.886_190_65),
        ] {
            let found = mel[band * 1000 + frame];
            assert!((found - value).abs() < 2e-4, "band {band} frame {frame}: {found} instead of {value}");
        }
        let sum: f64 = mel.iter().copied().map(f64::from).sum();
        assert!((sum + 57_564.062).abs() < 1.0, "{sum}");
    }

    #[test]
    fn a_shorter_window_is_a_part_of_the_long_one() {
        let samples = recording("goforward.raw");
        let mel = LogMel::new();

        let (short, long) = (mel.compute(&samples, 250), mel.compute(&samples, FRAMES_MAX));

        for (short, long) in short.chunks(250).zip(long.chunks(FRAMES_MAX)) {
            assert_eq!(*short, long[..250]);
        }
    }

    #[test]
    fn silence_and_nothing_are_flat() {
        for samples in [vec![], vec![0.0; 16_000], vec![f32::NAN; 16_000]] {
            let mel = LogMel::new().compute(&samples, 300);

            assert!(mel.iter().all(|value| *value == -1.5), "{:?}", &mel[..3]);
        }
    }

    #[test]
    fn more_than_thirty_seconds_are_cut() {
        assert_eq!(LogMel::new().compute(&vec![0.1; 600_000], 5000).len(), BANDS * FRAMES_MAX);
    }
}
