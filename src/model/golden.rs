//! A model's golden answer: an input, and what an independent program made of it.
//! Trusts: the verified bytes; their form is checked, because a manifest may pair the wrong files.
//! Touches: memory only.
//! Next: `salama-worker check` runs the model and compares.

use serde::Deserialize;

use super::load::LoadError;
use super::manifest::Purpose;
use super::verify::VerifiedModel;

/// Bytes before the samples of a canonical WAV file.
const WAV_HEADER: usize = 44;
/// 16-bit PCM, one channel, 16 kHz: bytes 20 to 27 of the header.
const WAV_FORMAT: [u8; 8] = [1, 0, 1, 0, 0x80, 0x3E, 0, 0];
/// One over the largest 16-bit magnitude.
const SAMPLE_SCALE: f32 = 1.0 / 32768.0;

/// What to feed a model and what must come out.
#[derive(Debug, PartialEq)]
pub enum GoldenAnswer {
    /// Greedy decoding of the whole recording in one window, without time tokens, in the given language.
    Transcript {
        /// 16 kHz, one channel, -1 to 1.
        samples: Vec<f32>,
        /// ISO 639-1.
        language: String,
        /// Ids after the prompt and before the end of text.
        tokens: Vec<u32>,
        /// What they read.
        text: String,
    },
    /// Speech probability of each whole frame of 32 ms, from a zero state and a zero context.
    Speech {
        /// 16 kHz, one channel, -1 to 1.
        samples: Vec<f32>,
        /// One a frame, 0 to 1.
        probabilities: Vec<f32>,
        /// Largest difference that is no fault.
        tolerance: f32,
    },
    /// The most probable label of each token.
    Labels {
        /// A sentence.
        text: String,
        /// Its WordPiece ids with those of start and end.
        tokens: Vec<u32>,
        /// One a token.
        labels: Vec<String>,
    },
}

impl VerifiedModel {
    /// The golden answer in the form that the model's purpose asks for; none when the manifest has none.
    ///
    /// # Errors
    /// [`GoldenError`] names the file that is not of that form.
    pub fn golden(&self) -> Result<Option<GoldenAnswer>, GoldenError> {
        let Some(golden) = &self.manifest().golden else { return Ok(None) };
        let input = (golden.input.as_str(), self.file(&golden.input)?);
        let output = (golden.output.as_str(), self.file(&golden.output)?);
        Ok(Some(match self.manifest().purpose {
            Purpose::SpeechRecognition => {
                let Transcript { language, tokens, text } = parse(output)?;
                GoldenAnswer::Transcript { samples: recording(input)?, language, tokens, text }
            }
            Purpose::VoiceActivity => {
                let Speech { tolerance, probabilities } = parse(output)?;
                GoldenAnswer::Speech { samples: recording(input)?, probabilities, tolerance }
            }
            Purpose::PersonalInformation => {
                let (Sentence { text, tokens }, Labels { labels }) = (parse(input)?, parse(output)?);
                GoldenAnswer::Labels { text, tokens, labels }
            }
        }))
    }
}

/// Why a golden answer cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum GoldenError {
    /// A file was taken from the model before.
    #[error(transparent)]
    File(#[from] LoadError),
    /// JSON of another form.
    #[error("the golden file {name} cannot be understood: {source}; install the model again")]
    Json {
        /// The file.
        name: String,
        /// What the parser said.
        #[source]
        source: serde_json::Error,
    },
    /// A recording of another form.
    #[error("the golden file {name} is not a WAV file of 16 kHz, one channel and 16 bits; install the model again")]
    Recording {
        /// The file.
        name: String,
    },
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Transcript {
    language: String,
    tokens: Vec<u32>,
    text: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Speech {
    tolerance: f32,
    probabilities: Vec<f32>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Sentence {
    text: String,
    tokens: Vec<u32>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Labels {
    labels: Vec<String>,
}

fn parse<'a, T: Deserialize<'a>>((name, bytes): (&str, &'a [u8])) -> Result<T, GoldenError> {
    serde_json::from_slice(bytes).map_err(|source| GoldenError::Json { name: name.to_owned(), source })
}

fn recording((name, bytes): (&str, &[u8])) -> Result<Vec<f32>, GoldenError> {
    let wrong = || GoldenError::Recording { name: name.to_owned() };
    let (header, samples) = bytes.split_at_checked(WAV_HEADER).ok_or_else(wrong)?;
    let canonical = header.starts_with(b"RIFF")
        && header.get(8..16) == Some(b"WAVEfmt ")
        && header.get(20..28) == Some(&WAV_FORMAT)
        && header.get(34..40) == Some(b"\x10\0data");
    let (samples, rest) = samples.as_chunks::<2>();
    if !canonical || !rest.is_empty() {
        return Err(wrong());
    }
    Ok(samples.iter().map(|&sample| f32::from(i16::from_le_bytes(sample)) * SAMPLE_SCALE).collect())
}
