//! Recordings that lie, are out of proportion or badly recorded: one clear answer each, in bounded memory.
//! Trusts: nothing.
//! Touches: ffmpeg, temporary directories.
//! Next: nobody.

use std::io::{self, Read, Seek, SeekFrom};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use super::tests::{Endless, decode_all, encode, failure, mono};
use super::*;

/// Where a chunk of a WAV file begins.
fn chunk(wav: &[u8], name: &[u8; 4]) -> usize {
    wav.windows(4).position(|bytes| bytes == name).unwrap()
}

/// A WAV file of 16 bits with these bytes put at `offset` of its format.
fn bent(offset: usize, bytes: &[u8]) -> Vec<u8> {
    let mut wav = mono("a.wav", &["-c:a", "pcm_s16le"]);
    let at = chunk(&wav, b"fmt ") + 8 + offset;
    wav[at..at + bytes.len()].copy_from_slice(bytes);
    wav
}

#[test]
fn headers_that_lie_are_refused_by_what_they_lie_about() {
    for channels in [0_u16, 65_535] {
        assert_eq!(failure(&bent(2, &channels.to_le_bytes())), CallFailure::Channels, "{channels} channels");
    }
    for rate in [0_u32, 1, 1_000_000, u32::MAX] {
        assert_eq!(failure(&bent(4, &rate.to_le_bytes())), CallFailure::SampleRate, "{rate} Hz");
    }
    let mut long = mono("a.wav", &["-c:a", "pcm_s16le"]);
    let at = chunk(&long, b"data") + 4;
    long[at..at + 4].copy_from_slice(&0x7000_0000_u32.to_le_bytes());
    assert_eq!(failure(&long), CallFailure::Truncated);
    // 4 GB is how a writer says that it does not know.
    long[at..at + 4].copy_from_slice(&u32::MAX.to_le_bytes());
    assert!(decode_all(&long).is_ok());
}

#[test]
fn one_byte_is_no_audio() {
    for byte in 0..=u8::MAX {
        assert_eq!(failure(&[byte]), CallFailure::NotAudio);
    }
}

#[test]
fn a_container_in_a_container_is_not_unpacked() {
    let inner = mono("a.wav", &["-c:a", "pcm_s16le"]);
    let mut outer = inner.clone();
    let at = chunk(&outer, b"data") + 8;
    outer.truncate(at);
    outer[at - 4..].copy_from_slice(&u32::try_from(inner.len()).unwrap().to_le_bytes());
    let tag = chunk(&outer, b"fmt ") + 8;
    outer[tag..tag + 2].copy_from_slice(&0x55_u16.to_le_bytes());
    outer.extend(inner);
    assert!(matches!(failure(&outer), CallFailure::Damaged | CallFailure::Truncated | CallFailure::UnsupportedCodec));
}

/// What an endless recording behind this head comes to, and the largest piece that was read of it.
fn endless(head: Vec<u8>, len: u64, max_seconds: u32) -> (Option<CallFailure>, usize) {
    let largest = Arc::new(AtomicUsize::new(0));
    let source = Box::new(Endless { head, len, at: 0, largest: Arc::clone(&largest) });
    let verdict = Decoder::open(source, DecodeLimits { max_seconds }).and_then(|mut decoder| {
        let mut out = vec![Vec::new(); usize::from(decoder.info().channels)];
        while decoder.next_block(&mut out)? {
            out.iter_mut().for_each(Vec::clear);
        }
        Ok(())
    });
    (verdict.err(), largest.load(Ordering::Relaxed))
}

#[test]
fn five_hours_are_refused_by_their_header_before_they_are_decoded() {
    let mut head = mono("a.wav", &["-c:a", "pcm_mulaw"]);
    let data = chunk(&head, b"data");
    head.truncate(data + 8);
    let samples: u32 = 5 * 3600 * 8000;
    head[data + 4..].copy_from_slice(&samples.to_le_bytes());
    let len = u64::try_from(head.len()).unwrap() + u64::from(samples);
    let (verdict, largest) = endless(head, len, 4 * 3600);
    assert_eq!(verdict, Some(CallFailure::TooLong));
    assert!(largest <= 64 * 1024, "{largest} bytes in one read");
}

#[test]
fn a_hundred_megabytes_of_tags_are_passed_over_in_small_reads() {
    let tags: u32 = 100 << 20;
    let id3 = [b"ID3\x04\0\0".as_slice(), &[0x32, 0, 0, 0]].concat();
    let wav = [b"RIFF\xff\xff\xff\xffWAVELIST".as_slice(), &tags.to_le_bytes()].concat();
    for head in [id3, wav] {
        let (verdict, largest) = endless(head, u64::from(tags) + 4096, 60);
        assert!(verdict.is_some_and(|failure| failure.is_of_recording()), "{verdict:?}");
        assert!(largest <= 64 * 1024, "{largest} bytes in one read");
    }
}

#[test]
fn clipped_and_shifted_recordings_decode() {
    for (name, filter) in [("clipped.wav", "volume=20dB"), ("shifted.wav", "dcshift=0.3")] {
        let made = encode(8000, &[440.0], 1.0, &[(name, &["-af", filter, "-c:a", "pcm_s16le"])]);
        let (_, out) = decode_all(&made[0]).unwrap();
        assert!(out[0].len() == 16_000 && out[0].iter().all(|sample| sample.abs() < 1.5), "{name}");
    }
}

/// A long recording of pieces: bytes, and how many times; never in memory as a whole. Counts what is read of it.
struct Pieces {
    pieces: Vec<(Vec<u8>, u64)>,
    at: u64,
    read: Arc<AtomicU64>,
}

impl Pieces {
    fn len(&self) -> u64 {
        self.pieces.iter().map(|(bytes, times)| u64::try_from(bytes.len()).unwrap() * times).sum()
    }

    /// The bytes from here on that lie in one copy of one piece.
    fn here(&self) -> &[u8] {
        let mut at = self.at;
        for (bytes, times) in self.pieces.iter().filter(|(bytes, _)| !bytes.is_empty()) {
            let one = u64::try_from(bytes.len()).unwrap();
            if at < one * times {
                return &bytes[usize::try_from(at % one).unwrap()..];
            }
            at -= one * times;
        }
        &[]
    }
}

impl Read for Pieces {
    fn read(&mut self, mut buffer: &mut [u8]) -> io::Result<usize> {
        let mut total = 0;
        while !buffer.is_empty() {
            let count = self.here().len().min(buffer.len());
            if count == 0 {
                break;
            }
            buffer[..count].copy_from_slice(&self.here()[..count]);
            buffer = &mut buffer[count..];
            self.at += u64::try_from(count).unwrap();
            total += count;
        }
        self.read.fetch_add(u64::try_from(total).unwrap(), Ordering::Relaxed);
        Ok(total)
    }
}

impl Seek for Pieces {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.at = match to {
            SeekFrom::Start(at) => at,
            SeekFrom::Current(by) => self.at.checked_add_signed(by).unwrap(),
            SeekFrom::End(by) => self.len().checked_add_signed(by).unwrap(),
        };
        Ok(self.at)
    }
}

impl MediaSource for Pieces {
    fn is_seekable(&self) -> bool {
        true
    }
    fn byte_len(&self) -> Option<u64> {
        Some(self.len())
    }
}

/// Samples of the first channel or the failure, and bytes that were read for it.
fn heard(pieces: Vec<(Vec<u8>, u64)>) -> (Result<usize, CallFailure>, u64) {
    let read = Arc::new(AtomicU64::new(0));
    let source = Box::new(Pieces { pieces, at: 0, read: Arc::clone(&read) });
    let decoded = Decoder::open(source, DecodeLimits { max_seconds: 60 }).and_then(|mut decoder| {
        let mut out = vec![Vec::new(); usize::from(decoder.info().channels)];
        while decoder.next_block(&mut out)? {}
        Ok(out[0].len())
    });
    (decoded, read.load(Ordering::Relaxed))
}

fn once(bytes: &[u8]) -> (Vec<u8>, u64) {
    (bytes.to_vec(), 1)
}

/// What a refusal may read at most: nothing of the hundred megabytes.
const LITTLE: u64 = 3 * 1024 * 1024;
/// Samples at 16 kHz of what [`mono`] makes.
const SAMPLES: usize = 27_680;

fn assert_refused_early(pieces: Vec<(Vec<u8>, u64)>) {
    let (decoded, read) = heard(pieces);
    assert_eq!(decoded, Err(CallFailure::Damaged));
    assert!(read < LITTLE, "{read} bytes were read");
}

fn assert_heard_whole(pieces: Vec<(Vec<u8>, u64)>) {
    let (decoded, _) = heard(pieces);
    assert!(decoded.is_ok_and(|samples| samples.abs_diff(SAMPLES) < 500), "{decoded:?}");
}

/// A FLAC file in two: up to the end of STREAMINFO, which is no longer the last block, and its frames.
fn flac() -> (Vec<u8>, Vec<u8>) {
    let whole = mono("a.flac", &["-c:a", "flac"]);
    let mut frames = 4;
    loop {
        let [kind, high, middle, low] = *whole[frames..].first_chunk().unwrap();
        frames += 4 + usize::try_from(u32::from_be_bytes([0, high, middle, low])).unwrap();
        if kind & 0x80 != 0 {
            break;
        }
    }
    let mut head = whole[..42].to_vec();
    head[4] = 0;
    (head, whole[frames..].to_vec())
}

#[test]
fn a_flac_file_with_a_hundred_megabytes_of_tags_is_refused_and_of_padding_is_heard() {
    let (head, frames) = flac();
    let block = |kind: u8| [vec![kind, 0xff, 0xff, 0xff], vec![0; 0xff_ffff]].concat();
    for tags in [2, 3, 4, 6] {
        assert_refused_early(vec![once(&head), (block(tags), 6), once(&[0x81, 0, 0, 0]), once(&frames)]);
    }
    assert_heard_whole(vec![once(&head), (block(1), 6), once(&[0x81, 0, 0, 0]), once(&frames)]);
}

#[test]
fn a_flac_file_that_lies_about_its_length_or_blocks_has_one_answer() {
    let (head, frames) = flac();
    let bent = |at: usize, bytes: &[u8]| {
        let mut head = head.clone();
        head[at..at + bytes.len()].copy_from_slice(bytes);
        heard(vec![once(&head), once(&[0x81, 0, 0, 0]), once(&frames)]).0
    };
    assert!(bent(0, b"fLaC").is_ok_and(|samples| samples.abs_diff(SAMPLES) < 2));
    // 2^36 - 1 samples: the low four bits of one byte, and four more.
    assert_eq!(bent(21, &[head[21] | 0x0f, 0xff, 0xff, 0xff, 0xff]), Err(CallFailure::TooLong));
    assert_eq!(bent(25, &[0xff]), Err(CallFailure::Truncated));
    // Smallest and largest block, then smallest and largest frame.
    for (at, bytes) in [(8, [0_u8; 4]), (8, [0, 1, 0, 1]), (8, [0, 16, 0, 16]), (8, [0xff; 4]), (8, [0xff, 0xff, 0, 16])] {
        let decoded = bent(at, &bytes);
        let fits = decoded.is_ok_and(|samples| samples.abs_diff(SAMPLES) < 2) || decoded.is_err_and(CallFailure::is_of_recording);
        assert!(fits, "blocks {bytes:?}: {decoded:?}");
    }
    for bytes in [[0, 0, 1, 0, 0, 1], [0xff; 6], [0xff, 0xff, 0xff, 0, 0, 1]] {
        let decoded = bent(12, &bytes);
        let fits = decoded.is_ok_and(|samples| samples.abs_diff(SAMPLES) < 2) || decoded.is_err_and(CallFailure::is_of_recording);
        assert!(fits, "frames {bytes:?}: {decoded:?}");
    }
}

#[test]
fn a_flac_file_of_a_hundred_megabytes_without_a_frame_is_given_up() {
    let (head, _) = flac();
    for filler in [0_u8, 0xff, 0xf8] {
        let (decoded, _) = heard(vec![once(&head), once(&[0x81, 0, 0, 0]), (vec![filler; 1 << 20], 100)]);
        assert!(decoded.is_err_and(CallFailure::is_of_recording), "{filler:#x}: {decoded:?}");
    }
}

#[test]
fn an_ogg_file_with_a_hundred_megabytes_of_comments_is_refused() {
    for (name, codec) in [("a.ogg", "libvorbis"), ("b.ogg", "libopus")] {
        let whole = mono(name, &["-c:a", codec]);
        let first = 28 + usize::from(whole[27]);
        let page = [&whole[first..first + 5], &[1], &[0xff; 8], &whole[first + 14..first + 26], &[255], &[255; 255], &[0; 65_025]].concat();
        assert_refused_early(vec![once(&whole[..first]), (page, 1600), once(&whole[first..])]);
    }
}

#[test]
fn an_mp4_file_with_a_hundred_megabytes_of_tags_or_tables_is_refused_and_of_nothing_is_heard() {
    let whole = mono("a.m4a", &["-c:a", "aac", "-movflags", "+faststart"]);
    let movie = chunk(&whole, b"moov") - 4;
    let len = usize::try_from(u32::from_be_bytes(*whole[movie..].first_chunk().unwrap())).unwrap();
    let filler = (vec![0; 1 << 20], 100);
    let head = |name: &[u8; 4], len: u32| [&len.to_be_bytes()[..], name].concat();
    let long = (100 << 20) + 8;
    // Tags inside of the index, tables inside of it, tags beside it.
    for inner in [b"udta", b"trak"] {
        let grown = head(b"moov", u32::try_from(len).unwrap() + long);
        let movie_of = &whole[movie + 8..movie + len];
        assert_refused_early(vec![once(&whole[..movie]), once(&grown), once(movie_of), once(&head(inner, long)), filler.clone()]);
    }
    assert_refused_early(vec![once(&whole[..movie]), once(&head(b"meta", long)), filler.clone(), once(&whole[movie..])]);
    // Offsets in the index count from the beginning.
    assert_heard_whole(vec![once(&whole), once(&head(b"free", long)), filler]);
}

#[test]
fn an_mp4_file_whose_tables_claim_four_billion_samples_has_one_answer() {
    let whole = mono("a.m4a", &["-c:a", "aac"]);
    for (table, at) in [(b"stsz", 12), (b"stts", 8), (b"stts", 12), (b"stsc", 8), (b"stsc", 16), (b"stco", 8)] {
        let mut bent = whole.clone();
        let at = chunk(&whole, table) + at;
        bent[at..at + 4].fill(0xff);
        let (decoded, _) = heard(vec![once(&bent)]);
        // Tables that say one thing twice may contradict each other where nobody looks.
        let fits = decoded.is_ok_and(|samples| samples == SAMPLES) || decoded.is_err_and(CallFailure::is_of_recording);
        assert!(fits, "{table:?} {at}: {decoded:?}");
    }
    // Each of four billion samples one byte long: the end of the file comes first.
    let mut bent = whole.clone();
    let at = chunk(&whole, b"stsz") + 8;
    bent[at..at + 8].copy_from_slice(&[0, 0, 0, 1, 0xff, 0xff, 0xff, 0xff]);
    let (decoded, _) = heard(vec![once(&bent)]);
    assert!(decoded.is_err_and(CallFailure::is_of_recording), "{decoded:?}");
}

/// A WebM file in two: its EBML header, and what is in its segment.
fn webm() -> (Vec<u8>, Vec<u8>) {
    let whole = mono("a.webm", &["-c:a", "libopus"]);
    let segment = chunk(&whole, &[0x18, 0x53, 0x80, 0x67]);
    (whole[..segment].to_vec(), whole[segment + 12..].to_vec())
}

/// An element whose length takes eight bytes, or none.
fn element(id: &[u8], len: Option<u64>) -> (Vec<u8>, u64) {
    once(&[id, &len.map_or([1, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff], |len| (len | 1 << 56).to_be_bytes())].concat())
}

#[test]
fn a_webm_file_with_a_hundred_megabytes_of_tags_is_refused_and_of_nothing_is_heard() {
    let (head, body) = webm();
    let segment = element(&[0x18, 0x53, 0x80, 0x67], None);
    let filler = (vec![0; 1 << 20], 100);
    for id in [[0x12, 0x54, 0xc3, 0x67], [0x19, 0x41, 0xa4, 0x69], [0x10, 0x43, 0xa7, 0x70], [0x1c, 0x53, 0xbb, 0x6b]] {
        let tags = element(&id, Some(100 << 20));
        assert_refused_early(vec![once(&head), segment.clone(), tags, filler.clone(), once(&body)]);
        let many = [element(&id, Some(500_000)).0, vec![0; 500_000]].concat();
        assert_refused_early(vec![once(&head), segment.clone(), (many, 200), once(&body)]);
    }
    assert_heard_whole(vec![once(&head), segment, element(&[0xec], Some(100 << 20)), filler, once(&body)]);
}

#[test]
fn pointers_at_the_beginning_of_a_webm_file_are_not_followed() {
    let (head, body) = webm();
    let tags = [element(&[0x12, 0x54, 0xc3, 0x67], Some(900_000)).0, vec![0; 900_000]].concat();
    let offset = u64::try_from(20_000 * 21 + 12 + body.len()).unwrap();
    // Seek > SeekID Tags, SeekPosition: all point to the same.
    let pointer = [&[0x4d, 0xbb, 0x92, 0x53, 0xab, 0x84, 0x12, 0x54, 0xc3, 0x67, 0x53, 0xac, 0x88][..], &offset.to_be_bytes()].concat();
    assert_eq!(pointer.len(), 21);
    let index = element(&[0x11, 0x4d, 0x9b, 0x74], Some(20_000 * 21));
    let segment = element(&[0x18, 0x53, 0x80, 0x67], None);
    let all = vec![once(&head), segment, index, (pointer, 20_000), once(&body)];
    let len = offset + 2_000_000;
    let (decoded, read) = heard(all.clone());
    assert!(decoded.is_ok_and(|samples| samples.abs_diff(SAMPLES) < 500), "{decoded:?}");
    assert!(read < len, "{read} bytes were read of {len}");
    // With the tags there, header and tags together are out of proportion.
    assert_refused_early([all, vec![once(&tags)]].concat());
}

#[test]
fn clusters_without_a_length_are_heard_and_blocks_out_of_proportion_refused() {
    let (head, mut body) = webm();
    let cluster = chunk(&body, &[0x1f, 0x43, 0xb6, 0x75]);
    let size = body[cluster + 4].leading_zeros() + 1;
    let size = usize::try_from(size).unwrap();
    let known = body.clone();
    body.splice(cluster + 4..cluster + 4 + size, [1, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]);
    let segment = element(&[0x18, 0x53, 0x80, 0x67], None);
    let filler = (vec![0; 1 << 20], 100);
    assert_heard_whole(vec![once(&head), segment.clone(), once(&body)]);
    let block = element(&[0xa3], Some(100 << 20));
    assert_refused_early(vec![once(&head), segment.clone(), once(&body[..cluster + 12]), block.clone(), filler.clone()]);
    let grown = element(&[0x1f, 0x43, 0xb6, 0x75], Some((100 << 20) + 9));
    assert_refused_early(vec![once(&head), segment, once(&known[..cluster]), grown, block, filler]);
}
