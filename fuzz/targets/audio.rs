//! What of the decoder is our own: the readers of headers `worker::decode::{sniff, wav, au, mp4, matroska, flac, ogg}`, and GSM 06.10.
//! Trusts: nothing.
//! Touches: memory.
//! Next: `decode` runs the whole way.

#[path = "../../src/worker/decode/au.rs"]
#[allow(dead_code, reason = "a part of the program `salama-worker`")]
mod au;
#[path = "../../src/worker/decode/blocks.rs"]
#[allow(dead_code, reason = "a part of the program `salama-worker`")]
mod blocks;
#[path = "../../src/worker/decode/flac.rs"]
#[allow(dead_code, reason = "a part of the program `salama-worker`")]
mod flac;
#[path = "../../src/worker/decode/gsm.rs"]
#[allow(dead_code, reason = "a part of the program `salama-worker`")]
mod gsm;
#[path = "../../src/worker/decode/matroska.rs"]
#[allow(dead_code, reason = "a part of the program `salama-worker`")]
mod matroska;
#[path = "../../src/worker/decode/mp4.rs"]
#[allow(dead_code, reason = "a part of the program `salama-worker`")]
mod mp4;
#[path = "../../src/worker/decode/ogg.rs"]
#[allow(dead_code, reason = "a part of the program `salama-worker`")]
mod ogg;
#[path = "../../src/worker/decode/own_codec.rs"]
#[allow(dead_code, reason = "a part of the program `salama-worker`")]
mod own_codec;
#[path = "../../src/worker/decode/sniff.rs"]
#[allow(dead_code, reason = "a part of the program `salama-worker`")]
mod sniff;
#[path = "../../src/worker/decode/source.rs"]
#[allow(dead_code, reason = "a part of the program `salama-worker`")]
mod source;
#[path = "../../src/worker/decode/wav.rs"]
#[allow(dead_code, reason = "a part of the program `salama-worker`")]
mod wav;

use std::io::Cursor;

use source::Recording;

use super::Target;

/// Which container it is.
pub const RECOGNISE: Target = Target { name: "recognise", run: recognise, memory: 512 << 10, smoke: 8000, ..BASE };
/// The chunks of a WAV file.
pub const WAV: Target = Target { name: "wav", run: wav, ..BASE };
/// The header of a Sun .au file.
pub const AU: Target = Target { name: "au", run: au, ..BASE };
/// The boxes of an MP4 file.
pub const MP4: Target = Target { name: "mp4", run: mp4, ..BASE };
/// The elements of a WebM file.
pub const MATROSKA: Target = Target { name: "matroska", run: matroska, ..BASE };
/// The metadata blocks of a FLAC file.
pub const FLAC: Target = Target { name: "flac", run: flac, ..BASE };
/// The pages of headers of an OGG file.
pub const OGG: Target = Target { name: "ogg", run: ogg, ..BASE };
/// GSM 06.10, any bits of it.
pub const GSM: Target = Target { name: "gsm", run: gsm, words: &[b"\xd0", b"\xdf\xff\xff\xff"], longest: 33 * 65, smoke: 2000, ..BASE };

/// Pieces of all containers.
pub const WORDS: &[&[u8]] = &[
    b"RIFF",
    b"WAVE",
    b"fmt ",
    b"data",
    b"fact",
    b"LIST",
    b"\xff\xff\xff\xff",
    b"\x00\x00\x00\x00",
    b"OpusHead",
    b"OpusTags",
    b"\x1a\x45\xdf\xa3",
    b"\x18\x53\x80\x67",
    b"\x1f\x43\xb6\x75",
    b"\x16\x54\xae\x6b",
    b"\x01\xff\xff\xff\xff\xff\xff\xff",
    b"A_OPUS",
    b".snd",
    b"\x00\x00\x00\x18",
    b"ID3\x04\x00\x10",
    b"TAG",
    b"Xing",
    b"Info",
    b"LAME",
    b"OggS",
    b"\x01vorbis",
    b"fLaC",
    b"ftypM4A ",
    b"moov",
    b"mvhd",
    b"trak",
    b"mdia",
    b"hdlr",
    b"soun",
    b"mdhd",
    b"edts",
    b"elst",
    b"minf",
    b"stbl",
    b"stsd",
    b"mp4a",
    b"alac",
    b"esds",
    b"stts",
    b"stsc",
    b"stsz",
    b"stco",
    b"mdat",
    b"moof",
    b"\x00\x00\x00\x01mdat",
    b"\xff\xfb\x90\x00",
    b"\xff\xf3",
    b"\x01\x00",
    b"\x02\x00",
    b"\x40\x1f\x00\x00",
    b"\x80\xbb\x00\x00",
    b"\xfe\xff",
    b"\x31\x00",
    b"\x00\x00\x00\x00\x10\x00\x80\x00\x00\xaa\x00\x38\x9b\x71",
];

const BASE: Target =
    Target { name: "", run: recognise, seeds: Vec::new, corpus: "audio", words: WORDS, memory: 128 << 10, longest: 32_768, smoke: 20_000 };

fn recording(data: &[u8]) -> Recording {
    Recording::new(Box::new(Cursor::new(data.to_vec()))).expect("memory is readable")
}

/// Promise: a container that is recognised begins inside the recording; the tags around it lie inside, too.
fn recognise(data: &[u8]) {
    let mut recording = recording(data);
    if let Ok(found) = sniff::recognise(&mut recording) {
        assert!(found.start < recording.len(), "{found:?} of {} bytes", recording.len());
        assert!(sniff::id3v1_len(&mut recording).expect("memory is readable") <= recording.len());
        let _ = sniff::mpeg_tag_frame(&mut recording, found.start);
    }
}

/// Promise: the samples that a header announces are all there.
fn wav(data: &[u8]) {
    let mut recording = recording(data);
    if let Ok(wav) = wav::Wav::read(&mut recording, 0) {
        let end = wav.start.checked_add(wav.len).expect("no overflow");
        assert!(end <= recording.len(), "samples up to {end} of {} bytes", recording.len());
    }
}

/// Promise: the same, of one or two channels, behind the header.
fn au(data: &[u8]) {
    let mut recording = recording(data);
    if let Ok(au) = au::Au::read(&mut recording, 0) {
        let end = au.start.checked_add(au.len).expect("no overflow");
        assert!(au.start >= 24 && end <= recording.len(), "samples from {} to {end} of {} bytes", au.start, recording.len());
        assert!((1..=2).contains(&au.layout.channels) && au.layout.frames(au.len) <= au.len, "{au:?}");
    }
}

/// Promise: every frame with its magic is a sound of 13 bits, in a file and in a block of WAV; no state leads to a panic.
fn gsm(data: &[u8]) {
    let is_sound = |samples: &[i16]| samples.iter().all(|sample| sample & 7 == 0);
    let mut decoder = gsm::Gsm::new();
    for frame in data.as_chunks().0 {
        let sound = decoder.frame(frame);
        assert_eq!(sound.is_some(), gsm::is_frame_start(frame[0]));
        assert!(sound.is_none_or(|samples| is_sound(&samples)));
    }
    let mut decoder = gsm::Gsm::new();
    for block in data.as_chunks().0 {
        assert!(decoder.block(block).iter().all(|samples| is_sound(samples)));
    }
}

/// Promise: any boxes are walked in bounded steps, to an edit or a refusal.
fn mp4(data: &[u8]) {
    let _ = mp4::inspect(&mut recording(data), 0);
}

/// Promise: any metadata blocks are walked in bounded steps, to the end or a refusal.
fn flac(data: &[u8]) {
    let _ = flac::inspect(&mut recording(data), 0);
}

/// Promise: the same of any pages.
fn ogg(data: &[u8]) {
    let _ = ogg::inspect(&mut recording(data), 0);
}

/// Promise: any elements are walked in bounded steps, to the end or a refusal.
fn matroska(data: &[u8]) {
    let _ = matroska::inspect(&mut recording(data), 0);
}
