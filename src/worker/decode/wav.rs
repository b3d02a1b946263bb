//! The header of a WAV file: what it says, and a plain one of ours in its place.
//! Trusts: nothing; reads a bounded number of chunks.
//! Touches: nothing but the recording.
//! Next: `open` gives symphonia our header and the range of the samples, so that it meets no stranger's chunk.

use super::source::Recording;
use crate::ipc::worker::CallFailure;

/// Most chunks before the samples.
const CHUNKS_MAX: usize = 256;
/// Lengths from here on mean that the writer could not know: ffmpeg writes 0xFFFF_FFFF, sox about 0x7FFF_F000.
const UNKNOWN_LEN: u32 = 0x7fff_0000;
/// GUIDs of `WAVEFORMATEXTENSIBLE` are a format tag and these bytes (`KSDATAFORMAT_SUBTYPE_*` in ksmedia.h).
const SUBTYPE_TAIL: [u8; 14] = [0x00, 0x00, 0x00, 0x00, 0x10, 0x00, 0x80, 0x00, 0x00, 0xaa, 0x00, 0x38, 0x9b, 0x71];

/// Coding of the samples.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Coding {
    Pcm,
    Float,
    ALaw,
    MuLaw,
}

/// The `fmt ` chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Format {
    coding: Coding,
    channels: u16,
    sample_rate: u32,
    bits: u16,
}

/// Where the samples are and what they are.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Wav {
    format: Format,
    /// Offset of the first sample.
    pub(super) start: u64,
    /// Bytes of samples.
    pub(super) len: u64,
}

impl Wav {
    /// Reads the chunks up to the samples of a file that begins at `start` with `RIFF....WAVE`.
    pub(super) fn read(recording: &mut Recording, start: u64) -> Result<Self, CallFailure> {
        let mut at = start.saturating_add(12);
        let mut format = None;
        for _ in 0..CHUNKS_MAX {
            let [name @ .., a, b, c, d] = recording.exactly::<8>(at)?;
            let declared = u32::from_le_bytes([a, b, c, d]);
            let body = at.saturating_add(8);
            match &name {
                b"data" => {
                    let format = format.ok_or(CallFailure::Damaged)?;
                    return Ok(Self { format, start: body, len: samples_len(recording, body, declared)? });
                }
                b"fmt " => format = Some(Format::read(recording, body, declared)?),
                _ => {}
            }
            // Chunks are padded to an even length.
            at = body.saturating_add(u64::from(declared)).saturating_add(u64::from(declared % 2));
        }
        Err(CallFailure::Damaged)
    }

    /// A header that holds nothing but what was understood.
    pub(super) fn plain_header(&self) -> Vec<u8> {
        let Format { coding, channels, sample_rate, bits } = self.format;
        let tag: u16 = match coding {
            Coding::Pcm => 1,
            Coding::Float => 3,
            Coding::ALaw => 6,
            Coding::MuLaw => 7,
        };
        let frame = self.frame_len();
        let mut header = Vec::with_capacity(46);
        header.extend(b"RIFF\xff\xff\xff\xffWAVEfmt ");
        header.extend(18_u32.to_le_bytes());
        header.extend(tag.to_le_bytes());
        header.extend(channels.to_le_bytes());
        header.extend(sample_rate.to_le_bytes());
        header.extend(sample_rate.saturating_mul(u32::from(frame)).to_le_bytes());
        header.extend(frame.to_le_bytes());
        header.extend(bits.to_le_bytes());
        header.extend(0_u16.to_le_bytes());
        header.extend(b"data");
        header.extend(u32::try_from(self.len).unwrap_or(u32::MAX).to_le_bytes());
        header
    }

    /// Samples a channel.
    pub(super) fn frames(&self) -> u64 {
        self.len / u64::from(self.frame_len().max(1))
    }

    /// Bytes of one sample of all channels.
    fn frame_len(&self) -> u16 {
        (self.format.bits / 8).saturating_mul(self.format.channels)
    }

    /// For `AudioInfo::format`.
    pub(super) const fn name(&self) -> &'static str {
        match (self.format.coding, self.format.bits) {
            (Coding::Pcm, 8) => "wav/pcm_u8",
            (Coding::Pcm, 16) => "wav/pcm_s16",
            (Coding::Pcm, 24) => "wav/pcm_s24",
            (Coding::Pcm, _) => "wav/pcm_s32",
            (Coding::Float, 64) => "wav/pcm_f64",
            (Coding::Float, _) => "wav/pcm_f32",
            (Coding::ALaw, _) => "wav/alaw",
            (Coding::MuLaw, _) => "wav/mulaw",
        }
    }
}

/// A length that the writer knew must be there in full; otherwise the samples reach to the end of the file.
fn samples_len(recording: &Recording, body: u64, declared: u32) -> Result<u64, CallFailure> {
    let present = recording.len().saturating_sub(body);
    if declared == 0 || declared >= UNKNOWN_LEN {
        return Ok(present);
    }
    if u64::from(declared) > present { Err(CallFailure::Truncated) } else { Ok(u64::from(declared)) }
}

impl Format {
    fn read(recording: &mut Recording, body: u64, declared: u32) -> Result<Self, CallFailure> {
        if declared < 16 {
            return Err(CallFailure::Damaged);
        }
        let fields = recording.exactly::<16>(body)?;
        let [t0, t1, c0, c1, r0, r1, r2, r3, _, _, _, _, _, _, b0, b1] = fields;
        let mut tag = u16::from_le_bytes([t0, t1]);
        if tag == 0xfffe {
            if declared < 40 {
                return Err(CallFailure::Damaged);
            }
            let [s0, s1, tail @ ..] = recording.exactly::<16>(body.saturating_add(24))?;
            if tail != SUBTYPE_TAIL {
                return Err(CallFailure::UnsupportedCodec);
            }
            tag = u16::from_le_bytes([s0, s1]);
        }
        let bits = u16::from_le_bytes([b0, b1]);
        let coding = match (tag, bits) {
            (1, 8 | 16 | 24 | 32) => Coding::Pcm,
            (3, 32 | 64) => Coding::Float,
            (6, 8) => Coding::ALaw,
            (7, 8) => Coding::MuLaw,
            _ => return Err(CallFailure::UnsupportedCodec),
        };
        let channels = u16::from_le_bytes([c0, c1]);
        if !(1..=2).contains(&channels) {
            return Err(CallFailure::Channels);
        }
        Ok(Self { coding, channels, sample_rate: u32::from_le_bytes([r0, r1, r2, r3]), bits })
    }
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::*;

    fn read(bytes: &[u8]) -> Result<Wav, CallFailure> {
        Wav::read(&mut Recording::new(Box::new(Cursor::new(bytes.to_vec()))).unwrap(), 0)
    }

    fn file(tag: u16, channels: u16, bits: u16, declared: u32, samples: &[u8]) -> Vec<u8> {
        let mut file = b"RIFF\0\0\0\0WAVEJUNK\x03\0\0\0xyz\0fmt \x10\0\0\0".to_vec();
        file.extend(tag.to_le_bytes());
        file.extend(channels.to_le_bytes());
        file.extend(8000_u32.to_le_bytes());
        file.extend([0; 6]);
        file.extend(bits.to_le_bytes());
        file.extend(b"data");
        file.extend(declared.to_le_bytes());
        file.extend(samples);
        file
    }

    #[test]
    fn lengths_that_a_streaming_writer_cannot_know_reach_to_the_end() {
        for declared in [0, u32::MAX, 0x7fff_f000] {
            assert_eq!(read(&file(1, 1, 16, declared, &[0; 6])).unwrap().frames(), 3);
        }
    }

    #[test]
    fn fewer_samples_than_declared_are_a_truncation() {
        assert_eq!(read(&file(1, 1, 16, 8, &[0; 6])), Err(CallFailure::Truncated));
    }

    #[test]
    fn codings_that_are_not_listed_are_unsupported() {
        for (tag, bits) in [(2, 4), (0x31, 0), (1, 12), (3, 16), (7, 16)] {
            assert_eq!(read(&file(tag, 1, bits, 6, &[0; 6])), Err(CallFailure::UnsupportedCodec), "{tag} {bits}");
        }
    }

    #[test]
    fn other_numbers_of_channels_are_refused() {
        for channels in [0, 3, 6, u16::MAX] {
            assert_eq!(read(&file(1, channels, 16, 6, &[0; 6])), Err(CallFailure::Channels));
        }
    }

    #[test]
    fn what_follows_the_samples_is_not_taken_for_samples() {
        assert_eq!(read(&file(1, 1, 16, 6, &[0; 60])).unwrap().len, 6);
    }
}
