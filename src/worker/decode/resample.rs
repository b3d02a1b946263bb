//! Any sample rate to 16 kHz, block by block, without drift.
//! Trusts: samples are finite.
//! Touches: its own buffers, whose size depends on the rate alone.
//! Next: `speech` hears the result.

use rubato::audioadapter_buffers::direct::SequentialSlice;
use rubato::{Fft, FixedSync, Indexing, Resampler as _, WindowFunction};

use crate::ipc::worker::CallFailure;

/// What the models hear, samples a second.
pub(super) const TARGET_RATE: u32 = 16_000;
/// Input samples in one transform at least. With the squared Blackman-Harris window the pass band of 8 kHz audio reaches to
/// 3.97 kHz and images of it lie below -100 dB.
const CHUNK: usize = 1024;

/// Resamples one channel.
pub(super) struct Resampler {
    /// Absent when nothing is to be done.
    fft: Option<Fft<f32>>,
    rate: u32,
    waiting: Vec<f32>,
    block: Vec<f32>,
    delay: usize,
    taken: u64,
    given: u64,
}

impl Resampler {
    /// From `rate` samples a second.
    pub(super) fn new(rate: u32) -> Result<Self, CallFailure> {
        let mut resampler = Self { fft: None, rate, waiting: Vec::new(), block: Vec::new(), delay: 0, taken: 0, given: 0 };
        if rate != TARGET_RATE {
            let [from, to] = [rate, TARGET_RATE].map(|rate| usize::try_from(rate).unwrap_or(0));
            let fft = Fft::new_custom(from, to, chunk(from, to), 1, 1, WindowFunction::BlackmanHarris2, FixedSync::Both)
                .map_err(|_| CallFailure::SampleRate)?;
            resampler.block = vec![0.0; fft.output_frames_max()];
            resampler.delay = fft.output_delay();
            resampler.fft = Some(fft);
        }
        Ok(resampler)
    }

    /// Takes the next samples and appends what is ready of the result.
    pub(super) fn push(&mut self, samples: &[f32], out: &mut Vec<f32>) -> Result<(), CallFailure> {
        self.taken = self.taken.saturating_add(length(samples));
        let Some(fft) = &mut self.fft else {
            out.extend_from_slice(samples);
            return Ok(());
        };
        let need = fft.input_frames_next();
        let mut rest = samples;
        while self.waiting.len() + rest.len() >= need {
            let (now, later) = rest.split_at(need.saturating_sub(self.waiting.len()));
            self.waiting.extend_from_slice(now);
            rest = later;
            let made = transform(fft, &self.waiting, &mut self.block)?;
            self.waiting.clear();
            self.given += keep(&self.block, made, &mut self.delay, u64::MAX, out);
        }
        self.waiting.extend_from_slice(rest);
        Ok(())
    }

    /// Appends what is still inside, so that the whole result is as long as the input, to the sample.
    pub(super) fn finish(&mut self, out: &mut Vec<f32>) -> Result<(), CallFailure> {
        let Some(fft) = &mut self.fft else { return Ok(()) };
        let rate = u64::from(self.rate);
        let target = (self.taken.saturating_mul(u64::from(TARGET_RATE)) + rate / 2) / rate;
        while self.given < target {
            let made = transform(fft, &self.waiting, &mut self.block)?;
            self.waiting.clear();
            self.given += keep(&self.block, made, &mut self.delay, target - self.given, out);
        }
        Ok(())
    }
}

/// Input samples in one transform: an even number, so that the filter's delay is a whole one, with a whole number of output samples.
fn chunk(from: usize, to: usize) -> usize {
    let (mut unit, mut rest) = (from, to);
    while rest > 0 {
        (unit, rest) = (rest, unit % rest);
    }
    let unit = from / unit.max(1);
    let chunk = unit * CHUNK.div_ceil(unit.max(1));
    if chunk.is_multiple_of(2) { chunk } else { chunk + unit }
}

/// One step; missing input is silence.
fn transform(fft: &mut Fft<f32>, input: &[f32], block: &mut [f32]) -> Result<usize, CallFailure> {
    let frames = block.len();
    let input_frames = input.len();
    let from = SequentialSlice::new(input, 1, input_frames).map_err(|_| CallFailure::Damaged)?;
    let mut to = SequentialSlice::new_mut(block, 1, frames).map_err(|_| CallFailure::Damaged)?;
    let indexing = Indexing::new().partial_len(input_frames);
    fft.process_into_buffer(&from, &mut to, Some(&indexing)).map(|(_, made)| made).map_err(|_| CallFailure::Damaged)
}

/// Appends the made samples without the filter's delay, at most `most`; says how many.
fn keep(block: &[f32], made: usize, delay: &mut usize, most: u64, out: &mut Vec<f32>) -> u64 {
    let skipped = (*delay).min(made);
    *delay -= skipped;
    let most = usize::try_from(most).unwrap_or(usize::MAX);
    let end = made.min(skipped.saturating_add(most));
    let kept = block.get(skipped..end).unwrap_or_default();
    out.extend_from_slice(kept);
    length(kept)
}

fn length(samples: &[f32]) -> u64 {
    u64::try_from(samples.len()).unwrap_or(u64::MAX)
}

#[cfg(test)]
#[expect(clippy::as_conversions, reason = "made signals, small numbers")]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A sine of `hertz` at half amplitude.
    fn sine(rate: u32, hertz: f64, samples: u32) -> Vec<f32> {
        (0..samples).map(|n| (0.5 * (std::f64::consts::TAU * hertz * f64::from(n) / f64::from(rate)).sin()) as f32).collect()
    }

    fn resample(rate: u32, input: &[f32], piece: usize) -> Vec<f32> {
        let mut resampler = Resampler::new(rate).unwrap();
        let mut out = Vec::new();
        for piece in input.chunks(piece) {
            resampler.push(piece, &mut out).unwrap();
        }
        resampler.finish(&mut out).unwrap();
        out
    }

    fn worst_error(result: &[f32], wanted: &[f32]) -> f32 {
        let middle = 400..result.len() - 400;
        result[middle.clone()].iter().zip(&wanted[middle]).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
    }

    #[test]
    fn a_tone_keeps_its_place_and_strength_at_every_usual_rate() {
        for rate in [8_000, 11_025, 12_000, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000] {
            let result = resample(rate, &sine(rate, 1000.0, rate), 1152);
            assert_eq!(result.len(), 16_000, "{rate}");
            let error = worst_error(&result, &sine(16_000, 1000.0, 16_000));
            assert!(error < 1e-3, "{rate}: {error}");
        }
    }

    #[test]
    fn what_16_khz_cannot_hold_is_filtered_out() {
        let result = resample(48_000, &sine(48_000, 9_000.0, 48_000), 1000);
        let loudest = result[400..15_600].iter().fold(0.0_f32, |loudest, sample| loudest.max(sample.abs()));
        assert!(loudest < 1e-3, "{loudest}");
    }

    #[test]
    fn an_hour_does_not_drift() {
        let mut resampler = Resampler::new(44_100).unwrap();
        let (second, mut out, mut total) = (vec![0.25; 44_100], Vec::new(), 0);
        for _ in 0..3600 {
            out.clear();
            resampler.push(&second, &mut out).unwrap();
            total += out.len();
        }
        out.clear();
        resampler.finish(&mut out).unwrap();
        assert_eq!(total + out.len(), 3600 * 16_000);
    }

    proptest! {
        #[test]
        fn pieces_of_any_size_give_the_same_samples(rate in 8_000_u32..=48_000, samples in 0_u32..6000, piece in 1_usize..3000) {
            let input = sine(rate, 440.0, samples);
            let result = resample(rate, &input, piece);
            prop_assert_eq!(&result, &resample(rate, &input, usize::MAX));
            let exact = f64::from(samples) * 16_000.0 / f64::from(rate);
            prop_assert!((result.len() as f64 - exact).abs() <= 0.5);
        }
    }
}
