//! A stranger's recording becomes 16 kHz samples, block by block.
//! Trusts: nothing. Panics in the demuxers and codecs are caught: they are findings about the recording.
//! Touches: the recording, through the source it is given; memory that does not grow with the recording's length.
//! Next: `speech` hears each channel on its own.
//!
//! The story: `recognised by content > header checked > codec chosen > packets decoded > trimmed > resampled`.
//! Accepted are exactly WAV (PCM of 1 to 32 bits, float, mu-law, A-law, GSM 06.10, MP3), Sun .au, GSM 06.10, MP3, FLAC,
//! M4A (AAC, ALAC), OGG (Vorbis, Opus), WebM (Opus), and samples that are declared, 8 to 48 kHz, one or two channels.
//! No reader of ID3 tags is built; what a container's own reader keeps of tags is bounded by our check of its header.

mod au;
#[cfg(test)]
mod bad_audio;
mod blocks;
#[cfg(test)]
mod conformance;
mod fault;
mod flac;
mod gsm;
mod matroska;
mod mp4;
mod ogg;
mod open;
mod own_codec;
mod resample;
mod sniff;
mod source;
#[cfg(test)]
mod tests;
mod wav;

use std::sync::Arc;

use symphonia::core::audio::GenericAudioBufferRef;
use symphonia::core::codecs::audio::AudioDecoder;
use symphonia::core::errors::Error;
use symphonia::core::formats::FormatReader;
use symphonia::core::io::MediaSource;
use symphonia::core::packet::Packet;

use self::open::{Ending, Opened};
use self::resample::Resampler;
use self::source::Reading;
use crate::ipc::worker::{AudioInfo, CallFailure, RawSamples};

/// Samples of 16 kHz that one block holds at least, unless the recording ends: a quarter of a second.
const BLOCK: u64 = 4000;
/// Packets without samples in a row after which a recording counts as damaged.
const IDLE_PACKETS_MAX: u32 = 10_000;
/// Undecodable packets that are forgiven, besides one in [`FORGIVEN_SHARE`].
const FORGIVEN: u64 = 3;
const FORGIVEN_SHARE: u64 = 20;
/// Longest piece of silence that is made at once, samples.
const GAP_STEP_MAX: u64 = 65_536;

/// What a recording may be.
#[derive(Clone, Copy, Debug)]
pub struct DecodeLimits {
    /// Longest recording, seconds.
    pub max_seconds: u32,
}

/// Decodes one recording to 16 kHz.
pub struct Decoder {
    reader: Option<Box<dyn FormatReader>>,
    codec: Box<dyn AudioDecoder>,
    track: u32,
    info: AudioInfo,
    ending: Ending,
    reading: Arc<Reading>,
    channels: Vec<Channel>,
    /// Samples a channel at the recording's own rate.
    frames: u64,
    frames_max: u64,
    skip: u64,
    keep: u64,
    packets: u64,
    bad_packets: u64,
    idle_packets: u32,
    given: u64,
    end: Option<Result<(), CallFailure>>,
}

/// One channel: the last packet's samples and its resampler.
struct Channel {
    samples: Vec<f32>,
    resampler: Resampler,
}

impl Decoder {
    /// Recognises the recording and decodes as much of it as tells what it is.
    ///
    /// # Errors
    /// Every [`CallFailure`] about recordings: `Empty`, `NotAudio`, `UnsupportedCodec`, `Truncated`, `Damaged`, `TooLong`,
    /// `SampleRate`, `Channels`; `Unreadable` when `source` fails.
    pub fn open(source: Box<dyn MediaSource>, limits: DecodeLimits) -> Result<Self, CallFailure> {
        Self::of(open::open(source)?, limits)
    }

    /// As [`Self::open`], for samples without a header.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn open_samples(source: Box<dyn MediaSource>, samples: RawSamples, limits: DecodeLimits) -> Result<Self, CallFailure> {
        Self::of(open::open_samples(source, samples)?, limits)
    }

    fn of(opened: Opened, limits: DecodeLimits) -> Result<Self, CallFailure> {
        let Opened { reader, codec, track, format, sample_rate, channels, length, ending, skip, keep, reading } = opened;
        let max_seconds = u64::from(limits.max_seconds);
        let hint_ms = length.map(|frames| frames.saturating_mul(1000) / u64::from(sample_rate));
        if ending.is_exact() && hint_ms.is_some_and(|hint| hint > max_seconds.saturating_mul(1000)) {
            return Err(CallFailure::TooLong);
        }
        let channel = || Ok(Channel { samples: Vec::new(), resampler: Resampler::new(sample_rate)? });
        Ok(Self {
            reader: Some(reader),
            codec,
            track,
            info: AudioInfo { format, sample_rate, channels },
            ending,
            reading,
            channels: (0..channels).map(|_| channel()).collect::<Result<_, CallFailure>>()?,
            frames: 0,
            frames_max: max_seconds.saturating_mul(u64::from(sample_rate)),
            skip,
            keep,
            packets: 0,
            bad_packets: 0,
            idle_packets: 0,
            given: 0,
            end: None,
        })
    }

    /// What the recording is.
    pub fn info(&self) -> AudioInfo {
        self.info.clone()
    }

    /// Offset in the source up to which it has been read, bytes.
    pub fn position(&self) -> u64 {
        self.reading.position()
    }

    /// Appends the next block of 16 kHz samples, -1..=1, of channel n to `out[n]`; at least a quarter of a second unless the
    /// recording ends. `Ok(false)` at the end, with nothing appended.
    ///
    /// # Errors
    /// As [`Self::open`]; the same again when called again.
    pub fn next_block(&mut self, out: &mut [Vec<f32>]) -> Result<bool, CallFailure> {
        let before = self.given;
        while self.end.is_none() && self.given.saturating_sub(before) < BLOCK {
            if let Err(failure) = self.advance(out) {
                let failure = if self.reading.failed() { CallFailure::Unreadable } else { failure };
                self.end = Some(Err(failure));
            }
        }
        match self.end {
            Some(Err(failure)) => Err(failure),
            _ => Ok(self.given > before),
        }
    }

    /// One packet, or the end.
    fn advance(&mut self, out: &mut [Vec<f32>]) -> Result<(), CallFailure> {
        match self.next_packet()? {
            Some(packet) => {
                self.packets = self.packets.saturating_add(1);
                self.fill_gap(&packet, out)?;
                self.ending.passed(&packet);
                self.decode(&packet)?;
                self.resample(out)
            }
            None => self.finish(out),
        }
    }

    fn next_packet(&mut self) -> Result<Option<Packet>, CallFailure> {
        let Some(reader) = &mut self.reader else { return Ok(None) };
        loop {
            match fault::caught(|| reader.next_packet())? {
                Ok(Some(packet)) if packet.track_id == self.track => return Ok(Some(packet)),
                Ok(Some(_)) => self.idle_packets += 1,
                Ok(None) => return Ok(None),
                Err(error) if fault::is_end(&error) && self.ending.is_reached() => return Ok(None),
                // A chained OGG file: the next part must be of the same kind.
                Err(Error::ResetRequired) => {
                    (self.track, self.codec) = open::choose_codec(reader.as_ref())?;
                    (self.skip, self.keep) = open::trim_of_part(reader.as_ref(), self.track);
                }
                Err(error) => return Err(fault::failure(&error)),
            }
            if self.idle_packets > IDLE_PACKETS_MAX {
                return Err(CallFailure::Damaged);
            }
        }
    }

    /// Silence in place of packets that the demuxer had to leave out, so that what follows keeps its time.
    fn fill_gap(&mut self, packet: &Packet, out: &mut [Vec<f32>]) -> Result<(), CallFailure> {
        let mut gap = self.ending.gap_before(packet);
        if gap == 0 {
            return Ok(());
        }
        let step = packet.dur.get().clamp(1, GAP_STEP_MAX);
        self.bad_packets = self.bad_packets.saturating_add(gap.div_ceil(step));
        self.forgive()?;
        while gap > 0 {
            let silence = gap.min(step);
            for channel in &mut self.channels {
                channel.samples.clear();
                channel.samples.resize(usize::try_from(silence).unwrap_or(0), 0.0);
            }
            self.resample(out)?;
            gap -= silence;
        }
        Ok(())
    }

    /// A few undecodable packets are forgiven.
    const fn forgive(&self) -> Result<(), CallFailure> {
        let forgiven = FORGIVEN.saturating_add(self.packets / FORGIVEN_SHARE);
        if self.bad_packets > forgiven { Err(CallFailure::Damaged) } else { Ok(()) }
    }

    /// Decodes into the channels' `samples`. A packet that cannot be decoded leaves silence as long as the one before.
    fn decode(&mut self, packet: &Packet) -> Result<(), CallFailure> {
        let codec = &mut self.codec;
        let (rate, channels) = (self.info.sample_rate, self.channels.len());
        let planes = &mut self.channels;
        let outcome = fault::caught(|| {
            let decoded = codec.decode(packet)?;
            if decoded.frames() > 0 && (decoded.spec().rate() != rate || decoded.num_planes() != channels) {
                return Ok(false);
            }
            copy(&decoded, planes);
            Ok(true)
        })?;
        match outcome {
            Ok(true) => {}
            Ok(false) => return Err(CallFailure::Damaged),
            // Features of a codec that we do not have show at once; later they are garbage.
            Err(Error::Unsupported(_)) if self.frames == 0 => return Err(CallFailure::UnsupportedCodec),
            Err(Error::DecodeError(_) | Error::IoError(_) | Error::Unsupported(_) | Error::LimitError(_)) => {
                self.bad_packets = self.bad_packets.saturating_add(1);
                for channel in &mut self.channels {
                    channel.samples.fill(0.0);
                }
            }
            Err(error) => return Err(fault::failure(&error)),
        }
        self.forgive()
    }

    /// Trims what is not of the recording, checks the limit, resamples.
    fn resample(&mut self, out: &mut [Vec<f32>]) -> Result<(), CallFailure> {
        let len = self.channels.first().map_or(0, |channel| channel.samples.len());
        let skipped = usize::try_from(self.skip).unwrap_or(usize::MAX).min(len);
        let kept = usize::try_from(self.keep).unwrap_or(usize::MAX).min(len - skipped);
        self.skip = self.skip.saturating_sub(count(skipped));
        self.keep = self.keep.saturating_sub(count(kept));
        self.frames = self.frames.saturating_add(count(kept));
        self.idle_packets = if len == 0 { self.idle_packets.saturating_add(1) } else { 0 };
        if self.frames > self.frames_max {
            return Err(CallFailure::TooLong);
        }
        let end = skipped.saturating_add(kept);
        self.give(out, |channel, out| channel.resampler.push(channel.samples.get(skipped..end).unwrap_or_default(), out))
    }

    /// Was it all there? Then the last samples out of the resamplers.
    fn finish(&mut self, out: &mut [Vec<f32>]) -> Result<(), CallFailure> {
        if let Some(reader) = self.reader.take() {
            self.ending.check(reader)?;
        }
        if self.frames == 0 {
            return Err(if self.bad_packets > 0 { CallFailure::Damaged } else { CallFailure::Empty });
        }
        self.give(out, |channel, out| channel.resampler.finish(out))?;
        self.end = Some(Ok(()));
        Ok(())
    }

    fn give(
        &mut self,
        out: &mut [Vec<f32>],
        mut make: impl FnMut(&mut Channel, &mut Vec<f32>) -> Result<(), CallFailure>,
    ) -> Result<(), CallFailure> {
        for (index, (channel, out)) in self.channels.iter_mut().zip(out).enumerate() {
            let before = out.len();
            make(channel, out)?;
            if index == 0 {
                self.given = self.given.saturating_add(count(out.len() - before));
            }
        }
        Ok(())
    }
}

/// Copies the decoded planes; what is no number becomes silence.
fn copy(decoded: &GenericAudioBufferRef<'_>, channels: &mut [Channel]) {
    for channel in &mut *channels {
        channel.samples.resize(decoded.frames(), 0.0);
    }
    if decoded.frames() > 0 {
        let mut planes: Vec<&mut [f32]> = channels.iter_mut().map(|channel| channel.samples.as_mut_slice()).collect();
        decoded.copy_to_slice_planar::<f32, _>(&mut planes);
    }
    for sample in channels.iter_mut().flat_map(|channel| &mut channel.samples) {
        *sample = if sample.is_finite() { sample.clamp(-1.0, 1.0) } else { 0.0 };
    }
}

fn count(samples: usize) -> u64 {
    u64::try_from(samples).unwrap_or(u64::MAX)
}
