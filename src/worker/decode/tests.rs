//! Recordings made by ffmpeg, whole, cut, bent and wrong, through the whole decoder.
//! Trusts: nothing.
//! Touches: ffmpeg, temporary directories.
//! Next: nobody.

#![expect(clippy::as_conversions, reason = "made signals, small numbers")]

use std::f64::consts::TAU;
use std::io::{self, Cursor, Read, Seek, SeekFrom};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use proptest::prelude::*;
use symphonia::core::io::MediaSource;

use super::*;

const LIMITS: DecodeLimits = DecodeLimits { max_seconds: 60 };
/// Length of the made recordings, seconds.
pub(super) const LENGTH: f64 = 1.73;
/// Tones of the two channels, hertz.
pub(super) const TONES: [f64; 2] = [440.0, 1000.0];
/// File name and encoder of each accepted format, and what it is called.
pub(super) const FORMATS: [(&str, &[&str], &str); 21] = [
    ("u8.wav", &["-c:a", "pcm_u8"], "wav/pcm_u8"),
    ("s16.wav", &["-c:a", "pcm_s16le"], "wav/pcm_s16"),
    ("s24.wav", &["-c:a", "pcm_s24le"], "wav/pcm_s24"),
    ("s32.wav", &["-c:a", "pcm_s32le"], "wav/pcm_s32"),
    ("f32.wav", &["-c:a", "pcm_f32le"], "wav/pcm_f32"),
    ("mulaw.wav", &["-c:a", "pcm_mulaw"], "wav/mulaw"),
    ("alaw.wav", &["-c:a", "pcm_alaw"], "wav/alaw"),
    ("mulaw.au", &["-c:a", "pcm_mulaw"], "au/mulaw"),
    ("alaw.au", &["-c:a", "pcm_alaw"], "au/alaw"),
    ("s8.au", &["-c:a", "pcm_s8"], "au/pcm_s8"),
    ("s16.au", &["-c:a", "pcm_s16be"], "au/pcm_s16"),
    ("s24.au", &["-c:a", "pcm_s24be"], "au/pcm_s24"),
    ("s32.au", &["-c:a", "pcm_s32be"], "au/pcm_s32"),
    ("f32.au", &["-c:a", "pcm_f32be"], "au/pcm_f32"),
    ("f64.au", &["-c:a", "pcm_f64be"], "au/pcm_f64"),
    ("f64.wav", &["-c:a", "pcm_f64le"], "wav/pcm_f64"),
    ("lame.mp3", &["-c:a", "libmp3lame"], "mp3"),
    ("flac.flac", &["-c:a", "flac"], "flac"),
    ("aac.m4a", &["-c:a", "aac"], "m4a/aac"),
    ("alac.m4a", &["-c:a", "alac"], "m4a/alac"),
    ("vorbis.ogg", &["-c:a", "libvorbis"], "ogg/vorbis"),
];

/// What browsers record.
const BROWSER: [(&str, &[&str], &str); 2] =
    [("opus.ogg", &["-c:a", "libopus"], "ogg/opus"), ("opus.webm", &["-c:a", "libopus"], "webm/opus")];

/// As [`FORMATS`], for 8 kHz and one channel only.
pub(super) const TELEPHONE: [(&str, &[&str], &str); 2] =
    [("gsm.gsm", &["-c:a", "libgsm"], "gsm"), ("gsm.wav", &["-c:a", "libgsm_ms"], "wav/gsm")];

/// Runs ffmpeg over a made tone (one a channel) and gives the bytes of each output file.
pub(super) fn encode(rate: u32, tones: &[f64], seconds: f64, outputs: &[(&str, &[&str])]) -> Vec<Vec<u8>> {
    let directory = tempfile::tempdir().unwrap();
    let tones: Vec<String> = tones.iter().map(|hertz| format!("0.4*sin(2*PI*{hertz}*t)")).collect();
    let mut command = Command::new("ffmpeg");
    command.current_dir(directory.path()).args(["-v", "error", "-nostdin", "-f", "lavfi", "-i"]);
    command.arg(format!("aevalsrc='{}':s={rate}:d={seconds}", tones.join("|")));
    for (name, options) in outputs {
        command.args(["-bitexact"]).args(*options).arg(name);
    }
    let done = command.output().expect("ffmpeg is missing: apt-get install ffmpeg");
    assert!(done.status.success(), "ffmpeg: {}", String::from_utf8_lossy(&done.stderr));
    outputs.iter().map(|(name, _)| std::fs::read(directory.path().join(name)).unwrap()).collect()
}

/// One channel of 8 kHz in this format.
pub(super) fn mono(name: &str, options: &[&str]) -> Vec<u8> {
    encode(8000, &TONES[..1], LENGTH, &[(name, options)]).pop().unwrap()
}

/// Everything a recording holds, block by block.
pub(super) fn decode_all(bytes: &[u8]) -> Result<(AudioInfo, Vec<Vec<f32>>), CallFailure> {
    decode_with(bytes, LIMITS)
}

fn decode_with(bytes: &[u8], limits: DecodeLimits) -> Result<(AudioInfo, Vec<Vec<f32>>), CallFailure> {
    let mut decoder = Decoder::open(Box::new(Cursor::new(bytes.to_vec())), limits)?;
    let mut out = vec![Vec::new(); usize::from(decoder.info().channels)];
    while decoder.next_block(&mut out)? {}
    Ok((decoder.info(), out))
}

pub(super) fn failure(bytes: &[u8]) -> CallFailure {
    decode_all(bytes).map(|_| ()).expect_err("this recording was accepted")
}

/// Strength of a tone in the middle of 16 kHz samples, and how late it is, seconds.
fn tone(samples: &[f32], hertz: f64) -> (f64, f64) {
    let (from, len) = (4000_usize, 16_000_usize);
    let (mut sine, mut cosine) = (0.0, 0.0);
    for (n, sample) in samples[from..from + len].iter().enumerate() {
        let angle = TAU * hertz * (n + from) as f64 / 16_000.0;
        sine += f64::from(*sample) * angle.sin();
        cosine += f64::from(*sample) * angle.cos();
    }
    let strength = 2.0 * sine.hypot(cosine) / len as f64;
    (strength, -cosine.atan2(sine) / (TAU * hertz))
}

#[test]
fn every_format_rate_and_channel_is_decoded_in_place() {
    let outputs: Vec<(&str, &[&str])> = FORMATS.iter().map(|(name, options, _)| (*name, *options)).collect();
    for rate in [8_000, 16_000, 22_050, 44_100, 48_000] {
        for channels in [1, 2] {
            for (bytes, (_, _, format)) in encode(rate, &TONES[..channels], LENGTH, &outputs).iter().zip(FORMATS) {
                let case = format!("{format} {rate} Hz, {channels} channels");
                let (info, out) = decode_all(bytes).unwrap_or_else(|failure| panic!("{case}: {failure}"));
                let heard = (info.format.as_str(), info.sample_rate, usize::from(info.channels));
                assert_eq!(heard, (format, rate, channels), "{case}");
                for (channel, samples) in out.iter().enumerate() {
                    let off = (samples.len() as f64 / 16_000.0 - LENGTH).abs();
                    let (own, late) = tone(samples, TONES[channel]);
                    let (other, _) = tone(samples, TONES[1 - channel]);
                    assert!(off < 0.030, "{case}: {off} s too long or short");
                    assert!((own - 0.4).abs() < 0.03, "{case}: tone {own}");
                    assert!(other < 0.01, "{case}: other channel's tone {other}");
                    assert!(late.abs() < 0.0002, "{case}: {late} s late");
                }
            }
        }
    }
}

#[test]
fn telephone_formats_are_decoded_in_place() {
    for (name, options, format) in TELEPHONE {
        let (info, out) = decode_all(&mono(name, options)).unwrap();
        let (strength, late) = tone(&out[0], TONES[0]);
        assert_eq!((info.format.as_str(), info.sample_rate, info.channels), (format, 8000, 1));
        assert!((out[0].len() as f64 / 16_000.0 - LENGTH).abs() < 0.041, "{format}: {} samples", out[0].len());
        assert!((strength - 0.4).abs() < 0.05 && late.abs() < 0.0002, "{format}: {strength} {late}");
    }
}

#[test]
fn samples_without_a_header_are_read_as_declared_and_never_guessed() {
    for (format, big_endian) in [("s16le", false), ("s16be", true)] {
        let made = encode(16_000, &TONES, LENGTH, &[("a.raw", &["-f", format])]);
        let declared = RawSamples { sample_rate: 16_000, channels: 2, big_endian };
        let mut decoder = Decoder::open_samples(Box::new(Cursor::new(made[0].clone())), declared, LIMITS).unwrap();
        let mut out = vec![Vec::new(); 2];
        while decoder.next_block(&mut out).unwrap() {}
        let strengths = [tone(&out[0], TONES[0]).0, tone(&out[1], TONES[1]).0];
        assert!(out[0].len() == 27_680 && strengths.iter().all(|strength| (strength - 0.4).abs() < 0.01), "{format}: {strengths:?}");
        assert!(decode_all(&made[0]).is_err());

        let odd = Cursor::new(made[0][1..].to_vec());
        assert_eq!(Decoder::open_samples(Box::new(odd), declared, LIMITS).err(), Some(CallFailure::Truncated));
    }
}

#[test]
fn a_cut_recording_is_called_truncated_wherever_it_is_cut() {
    for (name, options, format) in FORMATS.into_iter().chain(TELEPHONE).chain(BROWSER) {
        let whole = mono(name, options);
        for share in [0.15, 0.5, 0.9, 0.99] {
            let len = (whole.len() as f64 * share) as usize;
            assert_eq!(failure(&whole[..len]), CallFailure::Truncated, "{format} cut to {share}");
        }
    }
}

#[test]
fn an_mp4_with_its_index_first_is_checked_for_its_samples() {
    let whole = mono("fast.m4a", &["-c:a", "aac", "-movflags", "+faststart"]);
    assert!(decode_all(&whole).is_ok());
    assert_eq!(failure(&whole[..whole.len() - 100]), CallFailure::Truncated);
}

#[test]
fn an_mp3_without_a_tag_is_whole_only_when_its_last_frame_is() {
    let whole = mono("bare.mp3", &["-c:a", "libmp3lame", "-write_xing", "0", "-id3v2_version", "0"]);
    assert!(decode_all(&whole).is_ok());
    assert_eq!(failure(&whole[..whole.len() - 5]), CallFailure::Truncated);
    let tagged = [whole.as_slice(), b"TAG", &[0; 125]].concat();
    assert!(decode_all(&tagged).is_ok());
}

#[test]
fn wav_from_a_streaming_writer_reads_to_its_end() {
    for length in [0_u32, u32::MAX] {
        let mut bytes = mono("s16.wav", &["-c:a", "pcm_s16le"]);
        let data = bytes.windows(4).position(|name| name == b"data").unwrap();
        bytes[4..8].copy_from_slice(&length.to_le_bytes());
        bytes[data + 4..data + 8].copy_from_slice(&length.to_le_bytes());
        assert_eq!(decode_all(&bytes).unwrap().1[0].len(), 27_680);
    }
}

#[test]
fn recordings_outside_the_accepted_kinds_are_refused_by_name() {
    let surround = [440.0, 500.0, 600.0];
    let cases = [
        (encode(8000, &surround, 1.0, &[("a.wav", &["-c:a", "pcm_s16le"])]), CallFailure::Channels),
        (encode(48_000, &surround, 1.0, &[("a.flac", &["-c:a", "flac"])]), CallFailure::Channels),
        (encode(96_000, &TONES, 1.0, &[("a.wav", &["-c:a", "pcm_s16le"])]), CallFailure::SampleRate),
        (encode(96_000, &TONES, 1.0, &[("a.flac", &["-c:a", "flac"])]), CallFailure::SampleRate),
        (encode(4000, &TONES, 1.0, &[("a.wav", &["-c:a", "pcm_s16le"])]), CallFailure::SampleRate),
        (encode(8000, &TONES, 1.0, &[("a.wav", &["-c:a", "adpcm_ms"])]), CallFailure::UnsupportedCodec),
        (encode(48_000, &TONES, 1.0, &[("a.webm", &["-c:a", "libvorbis"])]), CallFailure::UnsupportedCodec),
        (encode(48_000, &TONES, 1.0, &[("a.m4a", &["-c:a", "ac3"])]), CallFailure::UnsupportedCodec),
        (encode(48_000, &TONES, 1.0, &[("a.mp2", &["-c:a", "mp2"])]), CallFailure::UnsupportedCodec),
        (encode(48_000, &TONES, 1.0, &[("a.aiff", &["-c:a", "pcm_s16be"])]), CallFailure::NotAudio),
    ];
    for (number, (files, expected)) in cases.iter().enumerate() {
        assert_eq!(decode_all(&files[0]).err(), Some(*expected), "case {number}");
    }
}

#[test]
fn a_header_without_samples_is_empty() {
    let mut bytes = mono("s16.wav", &["-c:a", "pcm_s16le"]);
    let data = bytes.windows(4).position(|name| name == b"data").unwrap();
    bytes.truncate(data + 4);
    bytes.extend([0; 4]);
    assert_eq!(failure(&bytes), CallFailure::Empty);
}

#[test]
fn one_spoilt_frame_of_a_flac_becomes_silence_and_moves_nothing() {
    let mut bytes = encode(8000, &TONES[..1], 8.0, &[("a.flac", &["-c:a", "flac"])]).pop().unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0x55;
    let (_, out) = decode_all(&bytes).unwrap();
    let (strength, late) = tone(&out[0][100_000..], TONES[0]);
    assert_eq!(out[0].len(), 128_000);
    assert!(strength > 0.39 && late.abs() < 0.0002, "{strength} {late}");
}

#[test]
fn a_recording_longer_than_the_limit_is_refused_by_its_header_or_by_its_samples() {
    let second = DecodeLimits { max_seconds: 1 };
    for (name, options, format) in FORMATS {
        assert_eq!(decode_with(&mono(name, options), second).err(), Some(CallFailure::TooLong), "{format}");
    }
    let bare = mono("bare.mp3", &["-c:a", "libmp3lame", "-write_xing", "0"]);
    let mut decoder = Decoder::open(Box::new(Cursor::new(bare)), second).unwrap();
    let mut out = vec![Vec::new()];
    let verdict = (0..100).find_map(|_| decoder.next_block(&mut out).err());
    assert_eq!((verdict, out[0].len() <= 16_000), (Some(CallFailure::TooLong), true));
}

#[test]
fn noise_in_the_middle_is_damage_when_there_is_much_of_it() {
    // PCM and ALAC have no redundancy that would tell noise from sound.
    for (name, options, format) in FORMATS[16..].iter().filter(|(_, _, format)| *format != "m4a/alac") {
        let mut bytes = mono(name, options);
        let len = bytes.len();
        for (n, byte) in bytes[len / 4..len * 3 / 4].iter_mut().enumerate() {
            *byte ^= (n * 89 % 251) as u8;
        }
        let verdict = decode_all(&bytes).err();
        assert!(matches!(verdict, Some(CallFailure::Damaged | CallFailure::Truncated)), "{format}: {verdict:?}");
    }
}

#[test]
fn samples_that_are_no_numbers_become_silence() {
    let mut bytes = mono("f32.wav", &["-c:a", "pcm_f32le"]);
    let data = bytes.windows(4).position(|name| name == b"data").unwrap() + 8;
    for (n, sample) in bytes[data..].chunks_exact_mut(4).enumerate() {
        sample.copy_from_slice(&[f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 7.0][n % 4].to_le_bytes());
    }
    let (_, out) = decode_all(&bytes).unwrap();
    assert!(out[0].iter().all(|sample| sample.is_finite() && sample.abs() < 1.5));
}

/// A recording of `repeats` times the same bytes behind a header, never in memory as a whole; remembers the largest read.
pub(super) struct Endless {
    pub(super) head: Vec<u8>,
    pub(super) len: u64,
    pub(super) at: u64,
    pub(super) largest: Arc<AtomicUsize>,
}

impl Read for Endless {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.largest.fetch_max(buffer.len(), Ordering::Relaxed);
        let count = buffer.len().min((self.len - self.at) as usize);
        for (n, byte) in buffer[..count].iter_mut().enumerate() {
            *byte = self.head.get(self.at as usize + n).copied().unwrap_or(0x7f);
        }
        self.at += count as u64;
        Ok(count)
    }
}

impl Seek for Endless {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.at = match to {
            SeekFrom::Start(at) => at,
            SeekFrom::Current(by) => self.at.checked_add_signed(by).unwrap(),
            SeekFrom::End(by) => self.len.checked_add_signed(by).unwrap(),
        };
        Ok(self.at)
    }
}

impl MediaSource for Endless {
    fn is_seekable(&self) -> bool {
        true
    }
    fn byte_len(&self) -> Option<u64> {
        Some(self.len)
    }
}

#[test]
fn an_hour_is_decoded_in_small_reads_and_small_blocks() {
    let mut head = mono("mulaw.wav", &["-c:a", "pcm_mulaw"]);
    let data = head.windows(4).position(|name| name == b"data").unwrap();
    head.truncate(data + 8);
    let samples: u32 = 3600 * 8000;
    head[data + 4..].copy_from_slice(&samples.to_le_bytes());
    let largest = Arc::new(AtomicUsize::new(0));
    let len = head.len() as u64 + u64::from(samples);
    let source = Endless { head, len, at: 0, largest: Arc::clone(&largest) };
    let mut decoder = Decoder::open(Box::new(source), DecodeLimits { max_seconds: 3600 }).unwrap();
    let (mut out, mut total, mut longest) = (vec![Vec::new()], 0, 0);
    while decoder.next_block(&mut out).unwrap() {
        total += out[0].len();
        longest = longest.max(out[0].len());
        out[0].clear();
    }
    assert_eq!((total, decoder.position()), (3600 * 16_000, len));
    assert!(longest <= 8192, "{longest} samples in one block");
    let largest = largest.load(Ordering::Relaxed);
    assert!(largest <= 64 * 1024, "{largest} bytes in one read");
}

/// A source that fails after `good` bytes.
struct Failing(Cursor<Vec<u8>>, u64);

impl Read for Failing {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.0.position() > self.1 { Err(io::Error::other("gone")) } else { self.0.read(buffer) }
    }
}

impl Seek for Failing {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.0.seek(to)
    }
}

impl MediaSource for Failing {
    fn is_seekable(&self) -> bool {
        true
    }
    fn byte_len(&self) -> Option<u64> {
        Some(self.0.get_ref().len() as u64)
    }
}

#[test]
fn a_source_that_fails_is_not_blamed_on_the_recording() {
    let bytes = encode(48_000, &TONES, LENGTH, &[("a.wav", &["-c:a", "pcm_s16le"])]).pop().unwrap();
    let mut decoder = Decoder::open(Box::new(Failing(Cursor::new(bytes), 100_000)), LIMITS).unwrap();
    let mut out = vec![Vec::new(), Vec::new()];
    let verdict = (0..100).find_map(|_| decoder.next_block(&mut out).err());
    assert_eq!(verdict, Some(CallFailure::Unreadable));
    assert_eq!(decoder.next_block(&mut out), Err(CallFailure::Unreadable));
}

/// Small recordings of every format for bending.
fn seeds() -> Vec<Vec<u8>> {
    let outputs: Vec<(&str, &[&str])> = FORMATS.iter().map(|(name, options, _)| (*name, *options)).collect();
    let mut seeds = encode(8000, &TONES, 0.3, &outputs);
    seeds.extend(encode(8000, &TONES[..1], 0.3, &TELEPHONE.map(|(name, options, _)| (name, options))));
    seeds.extend(encode(8000, &TONES, 0.3, &BROWSER.map(|(name, options, _)| (name, options))));
    seeds
}

fn quietly<T>(work: impl FnOnce() -> T) -> T {
    // Caught panics of the codecs are expected here; their messages would drown the test's own.
    std::panic::set_hook(Box::new(|_| {}));
    let result = work();
    drop(std::panic::take_hook());
    result
}

#[test]
fn bent_recordings_end_in_a_verdict_and_in_time() {
    let seeds = seeds();
    let change = (0_usize..400, any::<u8>());
    let bends = (0..seeds.len(), prop::collection::vec(change, 1..6), prop::option::of(0_usize..3000));
    let mut runner =
        proptest::test_runner::TestRunner::new(ProptestConfig { cases: 1500, failure_persistence: None, ..Default::default() });
    let outcome = quietly(|| {
        runner.run(&bends, |(seed, changes, cut)| {
            let mut bytes = seeds[seed].clone();
            for (at, value) in changes {
                let at = at % bytes.len();
                bytes[at] = value;
            }
            bytes.truncate(cut.unwrap_or(usize::MAX));
            let verdict = decode_all(&bytes);
            prop_assert!(verdict.is_err() || verdict.is_ok_and(|(_, out)| out.iter().all(|out| out.len() <= 60 * 16_000)));
            Ok(())
        })
    });
    outcome.unwrap();
}

proptest! {
    #[test]
    fn random_bytes_are_no_audio(bytes in prop::collection::vec(any::<u8>(), 1..4000)) {
        prop_assert!(decode_all(&bytes).is_err());
    }
}
