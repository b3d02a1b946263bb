//! What must be nowhere in clear, in every shape in which it could lie somewhere; and the search for it.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use aho_corasick::AhoCorasick;

/// Bytes that are searched at a time.
const PIECE: usize = 4 << 20;
/// Shorter words would be met by chance in hundreds of megabytes.
const WORD_MIN: usize = 7;
/// Samples of a recording that are one needle: about a millisecond and a half at 16 kHz.
const SAMPLES: usize = 24;
const BASE64: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// Gathers what to look for.
#[derive(Clone, Default)]
pub struct Needles {
    patterns: Vec<(String, Vec<u8>)>,
}

impl Needles {
    /// A word or phrase: as it is in any case, in UTF-16, hexadecimal and base64.
    pub fn word(&mut self, word: &str) {
        assert!(word.is_ascii() && word.len() >= WORD_MIN, "chance writes {word:?}");
        self.add(word, word.as_bytes());
        let wide: Vec<u8> = word.encode_utf16().flat_map(u16::to_le_bytes).collect();
        self.add(&format!("{word} (UTF-16)"), &wide);
        self.encoded(word, word.as_bytes());
    }

    /// A key or other bytes that chance does not write: as they are, in hexadecimal, base64 and as a printed list of numbers.
    pub fn key(&mut self, name: &str, key: &[u8]) {
        assert!(key.len() >= 16 && key.iter().any(|byte| *byte != key[0]), "{name} is no key");
        self.add(name, key);
        self.encoded(name, key);
        for separator in [", ", ","] {
            let numbers: Vec<String> = key.iter().take(16).map(u8::to_string).collect();
            self.add(&format!("{name} (numbers)"), numbers.join(separator).as_bytes());
        }
    }

    /// A recording's samples as 16-bit integers, as floats of one, and (of a file) as the bytes that were uploaded.
    pub fn recording(&mut self, name: &str, samples: &[i16]) {
        for at in loud_places(samples) {
            let piece = &samples[at..at + SAMPLES];
            let integers: Vec<u8> = piece.iter().flat_map(|sample| sample.to_le_bytes()).collect();
            let floats: Vec<u8> = piece.iter().flat_map(|sample| (f32::from(*sample) / 32_768.0).to_le_bytes()).collect();
            self.add(&format!("{name} (16-bit samples)"), &integers);
            self.add(&format!("{name} (float samples)"), &floats);
        }
    }

    /// Stretches of an uploaded file.
    pub fn upload(&mut self, name: &str, bytes: &[u8]) {
        let step = (bytes.len() / 12).max(64);
        for stretch in bytes.windows(48).step_by(step).filter(|stretch| stretch.iter().collect::<BTreeSet<_>>().len() > 12) {
            self.add(&format!("{name} (as uploaded)"), stretch);
        }
    }

    fn encoded(&mut self, name: &str, bytes: &[u8]) {
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        self.add(&format!("{name} (hexadecimal)"), hex.as_bytes());
        for encoding in base64_at_any_place(bytes) {
            let other_alphabet: Vec<u8> = encoding
                .iter()
                .map(|digit| {
                    if *digit == b'+' {
                        b'-'
                    } else if *digit == b'/' {
                        b'_'
                    } else {
                        *digit
                    }
                })
                .collect();
            if other_alphabet != encoding {
                self.add(&format!("{name} (base64url)"), &other_alphabet);
            }
            self.add(&format!("{name} (base64)"), &encoding);
        }
    }

    fn add(&mut self, name: &str, pattern: &[u8]) {
        self.patterns.push((name.to_owned(), pattern.to_vec()));
    }

    /// Without those whose names `known` has.
    pub fn without(mut self, known: &BTreeSet<String>) -> Self {
        self.patterns.retain(|(name, _)| !known.contains(name));
        self
    }

    /// Names and bytes of all.
    pub fn patterns(&self) -> &[(String, Vec<u8>)] {
        &self.patterns
    }

    /// Ready to search.
    pub fn search(&self) -> Search {
        // Whatever the case: wrong for base64 and raw bytes only in finding more.
        let automaton = AhoCorasick::builder().ascii_case_insensitive(true).build(self.patterns.iter().map(|(_, bytes)| bytes)).unwrap();
        let longest = self.patterns.iter().map(|(_, bytes)| bytes.len()).max().unwrap_or(1);
        Search { automaton, names: self.patterns.iter().map(|(name, _)| name.clone()).collect(), longest }
    }
}

/// Places of the recording that are loud and so unlike any other, evenly spread.
fn loud_places(samples: &[i16]) -> Vec<usize> {
    let loud = |at: &usize| {
        samples
            .get(*at..*at + SAMPLES)
            .is_some_and(|piece| piece.iter().map(|sample| u32::from(sample.unsigned_abs())).sum::<u32>() > 24_000)
    };
    // Close enough for every stretch that is worked on at once to have one.
    (0..samples.len()).step_by(3_989).filter(loud).collect()
}

/// What base64 makes of `bytes` inside of something longer, whatever comes before and after.
fn base64_at_any_place(bytes: &[u8]) -> Vec<Vec<u8>> {
    let digit_of = |before: usize| {
        let padded = [&vec![0; before][..], bytes].concat();
        let bit = |at: usize| usize::from(padded[at / 8] >> (7 - at % 8) & 1);
        let digits = (before * 8).div_ceil(6)..padded.len() * 8 / 6;
        digits.map(|digit| BASE64[(0..6).fold(0, |value, at| value << 1 | bit(digit * 6 + at))]).collect()
    };
    (0..3).map(digit_of).collect()
}

/// Finds needles.
pub struct Search {
    automaton: AhoCorasick,
    names: Vec<String>,
    longest: usize,
}

impl Search {
    /// The names of what occurs in `bytes`.
    pub fn bytes(&self, bytes: &[u8]) -> BTreeSet<String> {
        self.automaton.find_overlapping_iter(bytes).map(|found| self.names[found.pattern().as_usize()].clone()).collect()
    }

    /// The names of what occurs in all that can be read from `source`.
    pub fn reader(&self, mut source: impl Read) -> io::Result<BTreeSet<String>> {
        let mut found = BTreeSet::new();
        let mut piece = vec![0; PIECE];
        let mut kept = 0;
        loop {
            let read = source.read(&mut piece[kept..])?;
            if read == 0 {
                return Ok(found);
            }
            let filled = kept + read;
            found.extend(self.bytes(&piece[..filled]));
            // What may be the first part of something that goes on in the next piece.
            kept = filled.min(self.longest - 1);
            piece.copy_within(filled - kept..filled, 0);
        }
    }

    /// The names of what occurs in a file, holes included. A file that is gone holds nothing.
    pub fn file(&self, path: &Path) -> BTreeSet<String> {
        match File::open(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => BTreeSet::new(),
            opened => self.reader(opened.unwrap_or_else(|error| panic!("{}: {error}", path.display()))).unwrap(),
        }
    }
}
