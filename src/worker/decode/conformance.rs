//! What we decode is what ffmpeg decodes: made recordings of every kind, and the test recordings of scipy and Python.
//! Trusts: ffmpeg as a witness.
//! Touches: ffmpeg, temporary directories, the recordings of the packages python3-scipy and libpython3.11-testsuite.
//! Next: nobody.

#![expect(clippy::as_conversions, reason = "small numbers")]

use std::path::{Path, PathBuf};
use std::process::Command;

use super::resample::Resampler;
use super::tests::{FORMATS, LENGTH, TELEPHONE, TONES, decode_all, encode};
use super::*;

/// Whatever is decoded by integers differs by rounding alone; the others' arithmetic is free within limits.
const EXACT: f32 = 1e-6;
const LOSSY: f32 = 2e-3;

/// ffmpeg leaves the silence in that fills the last frame of AAC; the edit list says where the recording ends.
const AAC_FRAME: usize = 1024;
/// Samples at 16 kHz in a packet of Opus, 20 ms.
const OPUS_PACKET: usize = 320;

/// What ffmpeg decodes of each recording: its samples, interleaved.
fn witness(paths: &[PathBuf]) -> Vec<Vec<f32>> {
    witness_with(&[], paths)
}

/// As [`witness`], with these options before each recording.
fn witness_with(options: &[&str], paths: &[PathBuf]) -> Vec<Vec<f32>> {
    let folder = tempfile::tempdir().unwrap();
    let mut command = Command::new("ffmpeg");
    command.current_dir(folder.path()).args(["-v", "error", "-nostdin"]);
    for path in paths {
        command.args(options).arg("-i").arg(path);
    }
    for index in 0..paths.len() {
        command.args(["-map", &format!("{index}:a"), "-c:a", "pcm_f32le", "-f", "f32le", &format!("{index}.raw")]);
    }
    let done = command.output().expect("ffmpeg is missing: apt-get install ffmpeg");
    assert!(done.status.success(), "ffmpeg: {}", String::from_utf8_lossy(&done.stderr));
    let samples = |bytes: Vec<u8>| bytes.chunks_exact(4).map(|four| f32::from_le_bytes(four.try_into().unwrap())).collect();
    (0..paths.len()).map(|index| samples(std::fs::read(folder.path().join(format!("{index}.raw"))).unwrap())).collect()
}

/// One channel of the witness's samples at 16 kHz, by our own resampler.
fn channel(witness: &[f32], info: &AudioInfo, index: usize) -> Vec<f32> {
    let plane: Vec<f32> = witness.iter().skip(index).step_by(usize::from(info.channels)).map(|sample| sample.clamp(-1.0, 1.0)).collect();
    let (mut resampler, mut out) = (Resampler::new(info.sample_rate).unwrap(), Vec::new());
    resampler.push(&plane, &mut out).unwrap();
    resampler.finish(&mut out).unwrap();
    out
}

/// How two decodings differ: in length, or by how much; `None` when they do not.
fn difference(ours: &[Vec<f32>], info: &AudioInfo, witness: &[f32], tolerance: f32) -> Option<String> {
    for (index, ours) in ours.iter().enumerate() {
        let (mut wanted, mut tail) = (channel(witness, info, index), 0);
        if info.format == "m4a/aac" && wanted.len() - ours.len().min(wanted.len()) < AAC_FRAME * 16_000 / info.sample_rate as usize {
            // Near the cut the resampler has heard what followed.
            wanted.truncate(ours.len());
            tail = 400;
        }
        // Only ffmpeg reads how much of the last packet is filling.
        let filled = ours.len().saturating_sub(wanted.len());
        if info.format == "webm/opus" && filled < OPUS_PACKET {
            tail = 400;
        } else if ours.len() != wanted.len() {
            return Some(format!("{} samples instead of {}", ours.len(), wanted.len()));
        }
        let worst = ours.iter().zip(&wanted).take(wanted.len() - tail).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        if worst > tolerance {
            return Some(format!("channel {index} is off by {worst}"));
        }
    }
    None
}

fn tolerance(format: &str) -> f32 {
    if ["mp3", "wav/mp3", "m4a/aac", "ogg/vorbis", "ogg/opus", "webm/opus"].contains(&format) { LOSSY } else { EXACT }
}

#[test]
fn every_format_rate_channel_and_depth_decodes_to_what_ffmpeg_decodes() {
    let mp3_in_wav: (&str, &[&str], &str) = ("mp3.wav", &["-c:a", "libmp3lame"], "wav/mp3");
    let mut faults = Vec::new();
    for rate in [8_000, 11_025, 12_000, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000] {
        for channels in [1, 2] {
            let telephone = (rate == 8000 && channels == 1).then_some(TELEPHONE).into_iter().flatten();
            let formats: Vec<_> = FORMATS.into_iter().chain([mp3_in_wav]).chain(telephone).collect();
            let outputs: Vec<(&str, &[&str])> = formats.iter().map(|(name, options, _)| (*name, *options)).collect();
            let folder = tempfile::tempdir().unwrap();
            let made = encode(rate, &TONES[..channels], LENGTH, &outputs);
            let paths: Vec<PathBuf> = formats.iter().map(|(name, ..)| folder.path().join(name)).collect();
            made.iter().zip(&paths).for_each(|(bytes, path)| std::fs::write(path, bytes).unwrap());
            for ((bytes, (_, _, format)), wanted) in made.iter().zip(&formats).zip(witness(&paths)) {
                let fault = match decode_all(bytes) {
                    Ok((info, ours)) => difference(&ours, &info, &wanted, tolerance(format)),
                    Err(failure) => Some(failure.to_string()),
                };
                faults.extend(fault.map(|fault| format!("{format}, {rate} Hz, {channels}: {fault}")));
            }
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

/// File name and encoder of each kind of Opus, and what it is called: CELT, SILK, both, and what browsers record.
const OPUS: [(&str, &[&str], &str); 6] = [
    ("celt.ogg", &["-c:a", "libopus", "-application", "audio", "-b:a", "96k"], "ogg/opus"),
    ("silk.ogg", &["-c:a", "libopus", "-application", "voip", "-b:a", "16k", "-frame_duration", "60"], "ogg/opus"),
    ("hybrid.ogg", &["-c:a", "libopus", "-application", "voip", "-b:a", "28k"], "ogg/opus"),
    ("short.ogg", &["-c:a", "libopus", "-application", "lowdelay", "-b:a", "48k", "-frame_duration", "2.5"], "ogg/opus"),
    ("live.webm", &["-c:a", "libopus", "-live", "1"], "webm/opus"),
    ("browser.webm", &["-c:a", "libopus", "-application", "voip", "-b:a", "32k"], "webm/opus"),
];

#[test]
fn opus_of_every_mode_decodes_to_what_libopus_decodes() {
    let outputs: Vec<(&str, &[&str])> = OPUS.iter().map(|(name, options, _)| (*name, *options)).collect();
    let mut faults = Vec::new();
    for rate in [8_000, 16_000, 48_000] {
        for channels in [1, 2] {
            let folder = tempfile::tempdir().unwrap();
            let made = encode(rate, &TONES[..channels], LENGTH, &outputs);
            let paths: Vec<PathBuf> = OPUS.iter().map(|(name, ..)| folder.path().join(name)).collect();
            made.iter().zip(&paths).for_each(|(bytes, path)| std::fs::write(path, bytes).unwrap());
            // ffmpeg's own decoder resamples what was narrow-band in its own way; libopus is the reference.
            for ((bytes, (name, _, format)), wanted) in made.iter().zip(OPUS).zip(witness_with(&["-c:a", "libopus"], &paths)) {
                let fault = match decode_all(bytes) {
                    Ok((info, ours)) if info.format == format => difference(&ours, &info, &wanted, LOSSY),
                    Ok((info, _)) => Some(format!("{info:?}")),
                    Err(failure) => Some(failure.to_string()),
                };
                faults.extend(fault.map(|fault| format!("{name}, {rate} Hz, {channels}: {fault}")));
            }
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn chained_opus_is_heard_to_the_end_of_its_last_part() {
    let made = encode(48_000, &TONES[..1], LENGTH, &[("one.ogg", OPUS[0].1), ("other.ogg", OPUS[1].1)]);

    let parts: Vec<usize> = made.iter().map(|part| decode_all(part).unwrap().1[0].len()).collect();
    let (_, chained) = decode_all(&made.concat()).unwrap();

    // Each part begins a resampler of its own when it is heard alone.
    assert!(chained[0].len().abs_diff(parts[0] + parts[1]) < 200, "{} instead of {parts:?}", chained[0].len());
}

/// Recordings of the packages that are refused, and why.
const REFUSED: [(&str, CallFailure); 24] = [
    // Big-endian RIFF.
    ("test-44100Hz-2ch-32bit-float-be.wav", CallFailure::NotAudio),
    ("test-44100Hz-be-1ch-4bytes.wav", CallFailure::NotAudio),
    ("test-8000Hz-be-3ch-5S-24bit.wav", CallFailure::NotAudio),
    // Less is there than the header says.
    ("test-44100Hz-le-1ch-4bytes-early-eof-no-data.wav", CallFailure::Truncated),
    ("test-44100Hz-le-1ch-4bytes-early-eof.wav", CallFailure::Truncated),
    ("test-44100Hz-le-1ch-4bytes-incomplete-chunk.wav", CallFailure::Truncated),
    // Its header says one sample a second.
    ("test-8000Hz-le-1ch-10S-20bit-extra.wav", CallFailure::SampleRate),
    ("test-8000Hz-le-3ch-5S-24bit-inconsistent.wav", CallFailure::Channels),
    ("test-8000Hz-le-3ch-5S-24bit.wav", CallFailure::Channels),
    ("test-8000Hz-le-3ch-5S-36bit.wav", CallFailure::Channels),
    ("test-8000Hz-le-3ch-5S-45bit.wav", CallFailure::Channels),
    ("test-8000Hz-le-3ch-5S-53bit.wav", CallFailure::Channels),
    ("test-8000Hz-le-3ch-5S-64bit.wav", CallFailure::Channels),
    ("test-8000Hz-le-4ch-9S-12bit.wav", CallFailure::Channels),
    ("test-8000Hz-le-5ch-9S-5bit.wav", CallFailure::Channels),
    // AIFF.
    ("Sine-1000Hz-300ms.aif", CallFailure::NotAudio),
    ("pluck-alaw.aifc", CallFailure::NotAudio),
    ("pluck-pcm16.aiff", CallFailure::NotAudio),
    ("pluck-pcm24.aiff", CallFailure::NotAudio),
    ("pluck-pcm32.aiff", CallFailure::NotAudio),
    ("pluck-pcm8.aiff", CallFailure::NotAudio),
    ("pluck-ulaw.aifc", CallFailure::NotAudio),
    ("sndhdr.aifc", CallFailure::NotAudio),
    ("sndhdr.aiff", CallFailure::NotAudio),
];

/// The recordings in a folder of a package.
fn packaged(folder: &str, package: &str) -> Vec<PathBuf> {
    assert!(Path::new(folder).is_dir(), "test recordings are missing: apt-get install {package}");
    let audio = |path: &PathBuf| {
        let ending = path.extension().and_then(|ending| ending.to_str()).unwrap_or_default();
        ["wav", "au", "aif", "aiff", "aifc"].contains(&ending)
    };
    let mut paths: Vec<PathBuf> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).filter(audio).collect();
    paths.sort();
    assert!(!paths.is_empty(), "{folder} holds no recording: apt-get install --reinstall {package}");
    paths
}

#[test]
fn recordings_of_scipy_and_python_decode_to_what_ffmpeg_decodes_or_are_refused_for_a_known_reason() {
    let mut paths = packaged("/usr/lib/python3/dist-packages/scipy/io/tests/data", "python3-scipy");
    for folder in ["", "audiodata", "sndhdrdata", "test_email/data"] {
        paths.extend(packaged(&format!("/usr/lib/python3.11/test/{folder}"), "libpython3.11-testsuite"));
    }
    let mut faults = Vec::new();
    for path in paths {
        let name = path.file_name().unwrap().to_str().unwrap();
        let refused = REFUSED.iter().find(|(refused, _)| *refused == name).map(|(_, why)| *why);
        let fault = match (decode_all(&std::fs::read(&path).unwrap()), refused) {
            (Ok((info, ours)), None) => difference(&ours, &info, &witness(std::slice::from_ref(&path)).remove(0), tolerance(&info.format)),
            (Err(failure), Some(refused)) if failure == refused => None,
            (outcome, refused) => Some(format!("{:?}, the table says {refused:?}", outcome.map(|(info, _)| info))),
        };
        faults.extend(fault.map(|fault| format!("{name}: {fault}")));
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}
