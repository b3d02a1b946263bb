//! The header of a Sun .au file (pubs.opengroup.org/external/auformat.html): six big-endian words.
//! Trusts: nothing.
//! Touches: nothing but the recording.
//! Next: `open` reads the samples as blocks.

use symphonia::core::codecs::audio::well_known::{
    CODEC_ID_PCM_ALAW, CODEC_ID_PCM_F32BE, CODEC_ID_PCM_F64BE, CODEC_ID_PCM_MULAW, CODEC_ID_PCM_S8, CODEC_ID_PCM_S16BE, CODEC_ID_PCM_S24BE,
    CODEC_ID_PCM_S32BE,
};

use super::blocks::Layout;
use super::source::Recording;
use crate::ipc::worker::CallFailure;

/// The first word.
pub(super) const MAGIC: &[u8; 4] = b".snd";
/// Words before the annotation, bytes.
const HEADER_LEN: u32 = 24;
/// Length of the samples when the writer could not know.
const UNKNOWN_LEN: u32 = u32::MAX;

/// Where the samples are and what they are.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Au {
    /// For `AudioInfo::format`.
    pub(super) name: &'static str,
    pub(super) layout: Layout,
    /// Offset of the first sample.
    pub(super) start: u64,
    /// Bytes of samples.
    pub(super) len: u64,
}

impl Au {
    /// Reads the header of a file that begins at `start` with [`MAGIC`].
    pub(super) fn read(recording: &mut Recording, start: u64) -> Result<Self, CallFailure> {
        let header = recording.exactly::<24>(start)?;
        let mut words = header.chunks_exact(4).skip(1).map(|word| word.iter().fold(0, |sum, byte| sum << 8 | u32::from(*byte)));
        let mut word = || words.next().unwrap_or(0);
        let (offset, declared, encoding, sample_rate, channels) = (word(), word(), word(), word(), word());
        if offset < HEADER_LEN {
            return Err(CallFailure::Damaged);
        }
        let (name, codec, bytes) = match encoding {
            1 => ("au/mulaw", CODEC_ID_PCM_MULAW, 1),
            2 => ("au/pcm_s8", CODEC_ID_PCM_S8, 1),
            3 => ("au/pcm_s16", CODEC_ID_PCM_S16BE, 2),
            4 => ("au/pcm_s24", CODEC_ID_PCM_S24BE, 3),
            5 => ("au/pcm_s32", CODEC_ID_PCM_S32BE, 4),
            6 => ("au/pcm_f32", CODEC_ID_PCM_F32BE, 4),
            7 => ("au/pcm_f64", CODEC_ID_PCM_F64BE, 8),
            27 => ("au/alaw", CODEC_ID_PCM_ALAW, 1),
            _ => return Err(CallFailure::UnsupportedCodec),
        };
        let channels = u16::try_from(channels).ok().filter(|channels| (1..=2).contains(channels)).ok_or(CallFailure::Channels)?;
        let start = start.saturating_add(u64::from(offset));
        let present = recording.len().checked_sub(start).ok_or(CallFailure::Truncated)?;
        let len = if declared == UNKNOWN_LEN { present } else { u64::from(declared) };
        if len > present {
            return Err(CallFailure::Truncated);
        }
        let layout = Layout { codec, sample_rate, channels, block_len: bytes * u32::from(channels), block_frames: 1, single: false };
        Ok(Self { name, layout, start, len })
    }
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::*;

    fn read(words: [u32; 5], rest: usize) -> Result<Au, CallFailure> {
        let mut file = MAGIC.to_vec();
        words.iter().for_each(|word| file.extend(word.to_be_bytes()));
        file.extend(vec![0; rest]);
        Au::read(&mut Recording::new(Box::new(Cursor::new(file))).unwrap(), 0)
    }

    #[test]
    fn samples_begin_where_the_header_says() {
        let au = read([32, 8, 3, 8000, 2], 16).unwrap();
        assert_eq!((au.start, au.len, au.layout.frames(au.len)), (32, 8, 2));
    }

    #[test]
    fn a_length_that_the_writer_could_not_know_reaches_to_the_end() {
        assert_eq!(read([24, u32::MAX, 1, 8000, 1], 10).unwrap().len, 10);
    }

    #[test]
    fn headers_that_lie_are_refused_by_name() {
        for (words, failure) in [
            ([24, 11, 1, 8000, 1], CallFailure::Truncated),
            ([99, 0, 1, 8000, 1], CallFailure::Truncated),
            ([23, 10, 1, 8000, 1], CallFailure::Damaged),
            ([24, 10, 23, 8000, 1], CallFailure::UnsupportedCodec),
            ([24, 10, 1, 8000, 0], CallFailure::Channels),
            ([24, 10, 1, 8000, 65_535], CallFailure::Channels),
            ([24, 10, 1, 8000, u32::MAX], CallFailure::Channels),
        ] {
            assert_eq!(read(words, 10), Err(failure), "{words:?}");
        }
    }
}
