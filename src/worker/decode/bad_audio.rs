//! Recordings that lie, are out of proportion or badly recorded: one clear answer each, in bounded memory.
//! Trusts: nothing.
//! Touches: ffmpeg, temporary directories.
//! Next: nobody.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

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
