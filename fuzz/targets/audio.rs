//! The readers of headers that are our own: `worker::decode::{sniff, wav, mp4}`.
//! Trusts: nothing.
//! Touches: memory.
//! Next: `decode` runs the whole way.

#[path = "../../src/worker/decode/au.rs"]
#[allow(dead_code, reason = "a part of the program `salama-worker`")]
mod au;
#[path = "../../src/worker/decode/blocks.rs"]
#[allow(dead_code, reason = "a part of the program `salama-worker`")]
mod blocks;
#[path = "../../src/worker/decode/gsm.rs"]
#[allow(dead_code, reason = "a part of the program `salama-worker`")]
mod gsm;
#[path = "../../src/worker/decode/mp4.rs"]
#[allow(dead_code, reason = "a part of the program `salama-worker`")]
mod mp4;
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
/// The boxes of an MP4 file.
pub const MP4: Target = Target { name: "mp4", run: mp4, ..BASE };

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

/// Promise: any boxes are walked in bounded steps, to an edit or a refusal.
fn mp4(data: &[u8]) {
    let _ = mp4::inspect(&mut recording(data), 0);
}
