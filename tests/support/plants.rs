//! Names, numbers and recordings that no other run has, so that wherever they are found, they were leaked.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use ring::rand::{SecureRandom as _, SystemRandom};

use super::audio;

/// A name that nobody has: twelve letters that can be spoken.
pub fn name() -> String {
    let letters = |bytes: &[u8; 2]| {
        let pick = |alphabet: &[u8], byte: u8| char::from(alphabet[usize::from(byte) % alphabet.len()]);
        [pick(b"bdfgklmnprstvz", bytes[0]), pick(b"aeiou", bytes[1])]
    };
    let name: String = random::<12>().as_chunks::<2>().0.iter().flat_map(letters).collect();
    name[..1].to_uppercase() + &name[1..]
}

/// A mobile number of Kenya's form that was drawn by lot.
pub fn number() -> String {
    random::<9>().iter().map(|byte| char::from(b'0' + byte % 10)).fold("07".to_owned(), |number, digit| number + &digit.to_string())
}

fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    SystemRandom::new().fill(&mut bytes).unwrap();
    bytes
}

/// A recording and its samples.
pub struct Recording {
    pub file: PathBuf,
    pub samples: Vec<i16>,
}

/// `text` spoken `times` times at 16 kHz, with a faint noise that makes the recording's every piece unlike any other's.
pub fn spoken(folder: &Path, text: &str, times: usize) -> Recording {
    let raw = folder.join("raw.wav");
    let flite = Command::new("flite")
        .args(["-voice", "slt", "-t", text, "-o"])
        .arg(&raw)
        .output()
        .expect("flite is missing: apt-get install flite");
    assert!(flite.status.success());
    let speech = samples_of(&raw);
    let mut noise = vec![0; speech.len() * times];
    SystemRandom::new().fill(&mut noise).unwrap();
    let samples: Vec<i16> =
        speech.iter().cycle().zip(&noise).map(|(sample, noise)| sample.saturating_add(i16::from(*noise) - 128)).collect();
    let file = folder.join(format!("{}.wav", name()));
    let raw = folder.join("raw.s16");
    fs::write(&raw, samples.iter().flat_map(|sample| sample.to_le_bytes()).collect::<Vec<u8>>()).unwrap();
    audio::ffmpeg(&["-f", "s16le", "-ar", "16000", "-ac", "1", "-i", raw.to_str().unwrap(), "-c:a", "pcm_s16le", file.to_str().unwrap()]);
    Recording { file, samples }
}

/// The same recording as a telephone exchange keeps it: two channels, 8 kHz, mu-law.
pub fn telephone(recording: &Recording) -> Recording {
    let file = recording.file.with_extension("telephone.wav");
    audio::converted(&recording.file, &file, &["-ar", "8000", "-ac", "2", "-c:a", "pcm_mulaw"]);
    Recording { samples: samples_of(&file), file }
}

/// The samples of the first channel, as ffmpeg decodes them.
fn samples_of(file: &Path) -> Vec<i16> {
    let raw = file.with_extension("decoded.s16");
    audio::converted(file, &raw, &["-map_channel", "0.0.0", "-f", "s16le"]);
    fs::read(raw).unwrap().as_chunks::<2>().0.iter().map(|pair| i16::from_le_bytes(*pair)).collect()
}
