//! The header of a WAV file (Microsoft RIFF, `WAVEFORMATEX`): what it says, as far as it is accepted.
//! Trusts: nothing; reads a bounded number of chunks.
//! Touches: nothing but the recording.
//! Next: `open` reads the samples as blocks, or the frames as MP3, so that no other reader meets a stranger's chunk.

use symphonia::core::codecs::audio::AudioCodecId;
use symphonia::core::codecs::audio::well_known::{
    CODEC_ID_PCM_ALAW, CODEC_ID_PCM_F32LE, CODEC_ID_PCM_F64LE, CODEC_ID_PCM_MULAW, CODEC_ID_PCM_S16LE, CODEC_ID_PCM_S24LE,
    CODEC_ID_PCM_S32LE, CODEC_ID_PCM_U8,
};

use super::blocks::Layout;
use super::gsm;
use super::own_codec::CODEC_ID_GSM;
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
pub(super) enum Coding {
    /// Blocks of one length.
    Blocks {
        /// For `AudioInfo::format`.
        name: &'static str,
        layout: Layout,
    },
    /// MPEG frames, which say themselves what they are.
    Mp3,
}

/// Where the samples are and what they are.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Wav {
    pub(super) coding: Coding,
    /// Offset of the first sample.
    pub(super) start: u64,
    /// Bytes of samples.
    pub(super) len: u64,
}

impl Wav {
    /// Reads the chunks up to the samples of a file that begins at `start` with `RIFF....WAVE`.
    pub(super) fn read(recording: &mut Recording, start: u64) -> Result<Self, CallFailure> {
        let mut at = start.saturating_add(12);
        let mut coding = None;
        for _ in 0..CHUNKS_MAX {
            let [name @ .., a, b, c, d] = recording.exactly::<8>(at)?;
            let declared = u32::from_le_bytes([a, b, c, d]);
            let body = at.saturating_add(8);
            match &name {
                b"data" => {
                    let coding = coding.ok_or(CallFailure::Damaged)?;
                    return Ok(Self { coding, start: body, len: samples_len(recording, body, declared)? });
                }
                b"fmt " => coding = Some(Coding::read(recording, body, declared)?),
                _ => {}
            }
            // Chunks are padded to an even length.
            at = body.saturating_add(u64::from(declared)).saturating_add(u64::from(declared % 2));
        }
        Err(CallFailure::Damaged)
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

impl Coding {
    /// The `fmt ` chunk.
    fn read(recording: &mut Recording, body: u64, declared: u32) -> Result<Self, CallFailure> {
        if declared < 16 {
            return Err(CallFailure::Damaged);
        }
        let fields = recording.exactly::<16>(body)?;
        let [t0, t1, c0, c1, r0, r1, r2, r3, _, _, _, _, l0, l1, b0, b1] = fields;
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
        let channels = u16::from_le_bytes([c0, c1]);
        let bits = u16::from_le_bytes([b0, b1]);
        let block_len = u16::from_le_bytes([l0, l1]);
        if !(1..=2).contains(&channels) {
            return Err(CallFailure::Channels);
        }
        let coding = sample_coding(tag, bits, block_len, channels)?;
        let layout = |codec, block_len, block_frames, single| {
            let sample_rate = u32::from_le_bytes([r0, r1, r2, r3]);
            Layout { codec, sample_rate, channels, block_len, block_frames, single }
        };
        Ok(match coding {
            Samples::Plain(name, codec, bytes) => {
                Self::Blocks { name, layout: layout(codec, u32::from(bytes) * u32::from(channels), 1, false) }
            }
            Samples::Gsm if channels == 1 => Self::Blocks { name: "wav/gsm", layout: layout(CODEC_ID_GSM, 65, 320, true) },
            Samples::Gsm => return Err(CallFailure::Channels),
            Samples::Mp3 => Self::Mp3,
        })
    }
}

/// What one sample is.
enum Samples {
    /// For `AudioInfo::format`, the codec, bytes of one sample.
    Plain(&'static str, AudioCodecId, u16),
    Gsm,
    Mp3,
}

/// By format tag (`WAVE_FORMAT_*` in mmreg.h).
fn sample_coding(tag: u16, bits: u16, block_len: u16, channels: u16) -> Result<Samples, CallFailure> {
    Ok(match (tag, bits) {
        (1, 1..=32) => pcm(container(bits, block_len, channels)?),
        (3, 32) => Samples::Plain("wav/pcm_f32", CODEC_ID_PCM_F32LE, 4),
        (3, 64) => Samples::Plain("wav/pcm_f64", CODEC_ID_PCM_F64LE, 8),
        (6, 8) => Samples::Plain("wav/alaw", CODEC_ID_PCM_ALAW, 1),
        (7, 8) => Samples::Plain("wav/mulaw", CODEC_ID_PCM_MULAW, 1),
        (0x31, _) if usize::from(block_len) == gsm::BLOCK_LEN => Samples::Gsm,
        (0x55, _) => Samples::Mp3,
        _ => return Err(CallFailure::UnsupportedCodec),
    })
}

/// Samples of fewer bits stand left-justified in whole bytes, so that those bytes can be read as they are.
fn pcm(bytes: u16) -> Samples {
    match bytes {
        1 => Samples::Plain("wav/pcm_u8", CODEC_ID_PCM_U8, 1),
        2 => Samples::Plain("wav/pcm_s16", CODEC_ID_PCM_S16LE, 2),
        3 => Samples::Plain("wav/pcm_s24", CODEC_ID_PCM_S24LE, 3),
        _ => Samples::Plain("wav/pcm_s32", CODEC_ID_PCM_S32LE, 4),
    }
}

/// Bytes that hold one sample of `bits`.
fn container(bits: u16, block_len: u16, channels: u16) -> Result<u16, CallFailure> {
    let least = bits.div_ceil(8);
    match block_len.checked_div(channels) {
        // Some writers leave the block's length out.
        Some(0) if block_len == 0 => Ok(least),
        Some(bytes) if (least..=4).contains(&bytes) && block_len.is_multiple_of(channels) => Ok(bytes),
        _ => Err(CallFailure::Damaged),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::*;

    fn read(bytes: &[u8]) -> Result<Wav, CallFailure> {
        Wav::read(&mut Recording::new(Box::new(Cursor::new(bytes.to_vec()))).unwrap(), 0)
    }

    fn frames(bytes: &[u8]) -> u64 {
        let wav = read(bytes).unwrap();
        let Coding::Blocks { layout, .. } = wav.coding else { panic!("{wav:?}") };
        layout.frames(wav.len)
    }

    fn file(tag: u16, channels: u16, bits: u16, declared: u32, samples: &[u8]) -> Vec<u8> {
        file_of_blocks(tag, channels, bits, channels.wrapping_mul(bits.div_ceil(8)), declared, samples)
    }

    fn file_of_blocks(tag: u16, channels: u16, bits: u16, block_len: u16, declared: u32, samples: &[u8]) -> Vec<u8> {
        let mut file = b"RIFF\0\0\0\0WAVEJUNK\x03\0\0\0xyz\0fmt \x10\0\0\0".to_vec();
        file.extend(tag.to_le_bytes());
        file.extend(channels.to_le_bytes());
        file.extend(8000_u32.to_le_bytes());
        file.extend([0; 4]);
        file.extend(block_len.to_le_bytes());
        file.extend(bits.to_le_bytes());
        file.extend(b"data");
        file.extend(declared.to_le_bytes());
        file.extend(samples);
        file
    }

    #[test]
    fn lengths_that_a_streaming_writer_cannot_know_reach_to_the_end() {
        for declared in [0, u32::MAX, 0x7fff_f000] {
            assert_eq!(frames(&file(1, 1, 16, declared, &[0; 6])), 3);
        }
    }

    #[test]
    fn fewer_samples_than_declared_are_a_truncation() {
        assert_eq!(read(&file(1, 1, 16, 8, &[0; 6])), Err(CallFailure::Truncated));
    }

    #[test]
    fn codings_that_are_not_listed_are_unsupported() {
        for (tag, bits) in [(2, 4), (0x31, 0), (1, 0), (1, 33), (1, 64), (3, 16), (7, 16)] {
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

    #[test]
    fn samples_of_odd_widths_stand_in_whole_bytes() {
        for (bits, block_len, bytes) in [(12, 2, 2), (12, 4, 4), (20, 3, 3), (20, 0, 3), (5, 1, 1)] {
            assert_eq!(frames(&file_of_blocks(1, 1, bits, block_len, 12, &[0; 12])), 12 / bytes, "{bits} in {block_len}");
        }
    }

    #[test]
    fn blocks_that_do_not_fit_the_samples_are_damage() {
        for (bits, block_len, channels) in [(24, 2, 1), (16, 3, 2), (16, 5, 1)] {
            assert_eq!(
                read(&file_of_blocks(1, channels, bits, block_len, 12, &[0; 12])),
                Err(CallFailure::Damaged),
                "{bits} in {block_len}"
            );
        }
    }

    #[test]
    fn gsm_has_one_channel() {
        let gsm = |channels| read(&file_of_blocks(0x31, channels, 0, 65, 65, &[0; 65]));
        assert!(gsm(1).is_ok());
        assert_eq!(gsm(2), Err(CallFailure::Channels));
    }
}
