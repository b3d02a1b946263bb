//! Which of the accepted containers a recording is, by its content and never by its name.
//! Trusts: nothing; looks at a bounded part of the beginning.
//! Touches: nothing but the recording.
//! Next: `wav`, `au`, `mp4` or `open` read the container.

use super::source::Recording;
use super::{au, gsm};
use crate::ipc::worker::CallFailure;

/// Bytes after the tags in which the first MPEG frame must begin.
const MPEG_SEARCH: usize = 64 * 1024;
/// Most ID3v2 tags at the beginning that are skipped.
const TAGS_MAX: usize = 8;

/// Frames of GSM 06.10 in a row by which a recording without header is known: chance is one in 16 for each.
const GSM_FRAMES: u64 = 8;

/// An accepted container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Container {
    Wav,
    Au,
    Gsm,
    Flac,
    Mp4,
    Ogg,
    Mpeg,
}

/// A container and where it begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) container: Container,
    pub(super) start: u64,
}

/// Recognises the container.
pub(super) fn recognise(recording: &mut Recording) -> Result<Found, CallFailure> {
    if recording.len() == 0 {
        return Err(CallFailure::Empty);
    }
    let start = after_id3v2(recording)?;
    let (magic, _) = recording.peek::<12>(start)?;
    let container = match &magic {
        [b'R', b'I', b'F', b'F', _, _, _, _, b'W', b'A', b'V', b'E'] => Container::Wav,
        [a, b, c, d, ..] if &[*a, *b, *c, *d] == au::MAGIC => Container::Au,
        [b'f', b'L', b'a', b'C', ..] => Container::Flac,
        [b'O', b'g', b'g', b'S', ..] => Container::Ogg,
        [_, _, _, _, b'f', b't', b'y', b'p', ..] => Container::Mp4,
        _ if is_gsm(recording, start)? => Container::Gsm,
        _ => {
            let offset = first_mpeg_frame(recording, start)?.ok_or(CallFailure::NotAudio)?;
            return Ok(Found { container: Container::Mpeg, start: start.saturating_add(offset) });
        }
    };
    Ok(Found { container, start })
}

/// ID3v2.4 section 3.1: ten bytes of header, a syncsafe length without it, ten bytes of footer when flagged.
fn after_id3v2(recording: &mut Recording) -> Result<u64, CallFailure> {
    let mut start: u64 = 0;
    for _ in 0..TAGS_MAX {
        let (header, filled) = recording.peek::<10>(start)?;
        let [b'I', b'D', b'3', _, _, flags, size @ ..] = header else { break };
        if filled < header.len() || size.iter().any(|byte| *byte >= 0x80) {
            break;
        }
        let length = size.iter().fold(0_u64, |sum, byte| sum << 7 | u64::from(*byte));
        let footer = if flags & 0x10 == 0 { 0 } else { 10 };
        start = start.saturating_add(10 + length + footer);
        if start >= recording.len() {
            return Err(CallFailure::Truncated);
        }
    }
    Ok(start)
}

/// GSM 06.10 has no header: each of the first frames begins with the magic bits.
fn is_gsm(recording: &mut Recording, start: u64) -> Result<bool, CallFailure> {
    let frame_len = u64::try_from(gsm::FRAME_LEN).unwrap_or(u64::MAX);
    for frame in 0..GSM_FRAMES {
        match recording.peek::<{ gsm::FRAME_LEN }>(start.saturating_add(frame * frame_len))? {
            ([first, ..], gsm::FRAME_LEN) if gsm::is_frame_start(first) => {}
            _ => return Ok(false),
        }
    }
    Ok(true)
}

/// Offset of the first of three frames in a row, or of fewer when the recording ends before.
fn first_mpeg_frame(recording: &mut Recording, start: u64) -> Result<Option<u64>, CallFailure> {
    let mut window = vec![0; MPEG_SEARCH];
    let filled = recording.read_at(start, &mut window)?;
    window.truncate(filled);
    for (index, bytes) in window.windows(4).enumerate() {
        let Some(header) = bytes.try_into().ok().and_then(MpegHeader::parse) else { continue };
        let offset = u64::try_from(index).unwrap_or(u64::MAX);
        if follows(recording, start.saturating_add(offset), header, index == 0)? {
            return Ok(Some(offset));
        }
    }
    Ok(None)
}

/// Two more frames of the same kind follow. At the very beginning the end of the recording may come instead.
fn follows(recording: &mut Recording, at: u64, first: MpegHeader, at_start: bool) -> Result<bool, CallFailure> {
    let mut at = at;
    let mut header = first;
    for _ in 0..2 {
        at = at.saturating_add(header.frame_len);
        let (bytes, filled) = recording.peek::<4>(at)?;
        if filled < bytes.len() {
            return Ok(at_start);
        }
        match MpegHeader::parse(bytes) {
            Some(next) if next.is_like(first) => header = next,
            _ => return Ok(false),
        }
    }
    Ok(true)
}

/// The fields of an MPEG audio frame header (ISO 11172-3 section 2.4.1.3, ISO 13818-3 section 2.4.2.3) that give its length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct MpegHeader {
    version: u8,
    layer: u8,
    sample_rate: u32,
    mono: bool,
    /// Bytes, with the header.
    pub(super) frame_len: u64,
}

impl MpegHeader {
    /// `None` when the four bytes are no header, or one of a free bit rate.
    pub(super) fn parse(bytes: [u8; 4]) -> Option<Self> {
        let [sync, kind, rates, mode] = bytes;
        if sync != 0xff || kind & 0xe0 != 0xe0 {
            return None;
        }
        let (version, layer) = (kind >> 3 & 3, kind >> 1 & 3);
        let mpeg1 = version == 3;
        let base: u32 = match rates >> 2 & 3 {
            0 => 44_100,
            1 => 48_000,
            2 => 32_000,
            _ => return None,
        };
        let sample_rate = match version {
            3 => base,
            2 => base / 2,
            0 => base / 4,
            _ => return None,
        };
        let kbits = bit_rate(mpeg1, layer, rates >> 4)?;
        let padding = u32::from(rates >> 1 & 1);
        let frame_len = match layer {
            3 => (12_000 * kbits / sample_rate + padding) * 4,
            1 if !mpeg1 => 72_000 * kbits / sample_rate + padding,
            _ => 144_000 * kbits / sample_rate + padding,
        };
        Some(Self { version, layer, sample_rate, mono: mode >> 6 == 3, frame_len: u64::from(frame_len) })
    }

    fn is_like(self, other: Self) -> bool {
        (self.version, self.layer, self.sample_rate) == (other.version, other.layer, other.sample_rate)
    }

    /// Where a Xing or Info tag stands in a frame: after header and side information.
    const fn tag_offset(self) -> u64 {
        match (self.version == 3, self.mono) {
            (true, false) => 36,
            (true, true) | (false, false) => 21,
            (false, true) => 13,
        }
    }
}

/// Thousands of bits a second; layer 3 is coded as 1, layer 2 as 2, layer 1 as 3.
fn bit_rate(mpeg1: bool, layer: u8, index: u8) -> Option<u32> {
    const L1: [u32; 14] = [32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448];
    const L2: [u32; 14] = [32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384];
    const L3: [u32; 14] = [32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320];
    const LOW_L1: [u32; 14] = [32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256];
    const LOW: [u32; 14] = [8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160];
    let table = match (mpeg1, layer) {
        (true, 3) => L1,
        (true, 2) => L2,
        (true, 1) => L3,
        (false, 3) => LOW_L1,
        (false, 1 | 2) => LOW,
        _ => return None,
    };
    table.get(usize::from(index).checked_sub(1)?).copied()
}

/// Length of the first frame when it only carries a Xing, Info or VBRI tag, which count the frames that follow.
pub(super) fn mpeg_tag_frame(recording: &mut Recording, start: u64) -> Result<Option<u64>, CallFailure> {
    let Some(header) = MpegHeader::parse(recording.exactly(start)?) else { return Ok(None) };
    let (tag, _) = recording.peek::<4>(start.saturating_add(header.tag_offset()))?;
    let (vbri, _) = recording.peek::<4>(start.saturating_add(36))?;
    Ok((matches!(&tag, b"Xing" | b"Info") || &vbri == b"VBRI").then_some(header.frame_len))
}

/// Length of an ID3v1 tag at the end: 128 or 0 bytes.
pub(super) fn id3v1_len(recording: &mut Recording) -> Result<u64, CallFailure> {
    let Some(at) = recording.len().checked_sub(128) else { return Ok(0) };
    Ok(if &recording.exactly::<3>(at)? == b"TAG" { 128 } else { 0 })
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::*;

    fn look(bytes: &[u8]) -> Result<Found, CallFailure> {
        recognise(&mut Recording::new(Box::new(Cursor::new(bytes.to_vec()))).unwrap())
    }

    #[test]
    fn frame_lengths_follow_the_standard() {
        let mpeg1_128k_44100 = MpegHeader::parse([0xff, 0xfb, 0x90, 0x00]).unwrap();
        let mpeg2_64k_22050 = MpegHeader::parse([0xff, 0xf3, 0x80, 0xc0]).unwrap();
        let mpeg25_32k_8000 = MpegHeader::parse([0xff, 0xe3, 0x48, 0xc0]).unwrap();
        assert_eq!((mpeg1_128k_44100.frame_len, mpeg2_64k_22050.frame_len, mpeg25_32k_8000.frame_len), (417, 208, 288));
    }

    #[test]
    fn what_is_not_audio_is_called_so() {
        let not_audio: [&[u8]; 7] =
            [b"x", b"hello, this is a text", b"%PDF-1.7", b"\x89PNG\r\n\x1a\n0000", b"RIFF0000AVI ", &[0xff; 4096], &[0; 4096]];
        for bytes in not_audio {
            assert_eq!(look(bytes), Err(CallFailure::NotAudio));
        }
    }

    #[test]
    fn gsm_is_known_by_eight_frames_in_a_row() {
        let frames = |count: usize| [[0xd5_u8].as_slice(), &[0x3a; gsm::FRAME_LEN - 1]].concat().repeat(count);
        assert_eq!(look(&frames(8)), Ok(Found { container: Container::Gsm, start: 0 }));
        assert_eq!(look(&frames(7)), Err(CallFailure::NotAudio));
        let mut broken = frames(9);
        broken[7 * gsm::FRAME_LEN] = 0xc5;
        assert_eq!(look(&broken), Err(CallFailure::NotAudio));
    }

    #[test]
    fn nothing_is_empty() {
        assert_eq!(look(b""), Err(CallFailure::Empty));
    }

    #[test]
    fn an_id3_tag_longer_than_the_recording_is_a_truncation() {
        assert_eq!(look(b"ID3\x04\x00\x00\x00\x00\x7f\x7fxxxx"), Err(CallFailure::Truncated));
    }

    #[test]
    fn a_container_behind_an_id3_tag_is_found() {
        let found = look(b"ID3\x04\x00\x00\x00\x00\x00\x02xxfLaC").unwrap();
        assert_eq!(found, Found { container: Container::Flac, start: 12 });
    }
}
