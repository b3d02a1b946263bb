//! `asr.json` and `tokens.bin` of a Whisper directory: what the token ids mean.
//! Trusts: nothing, although the files were verified: an id outside the vocabulary is refused here and cannot be met later.
//! Touches: nothing.
//! Next: `whisper` and everything behind it.

use serde::Deserialize;

use super::numeric::index_of;

/// Numbers in one attention head, of every Whisper.
pub const HEAD_WIDTH: usize = 64;

/// `asr.json`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// Width of the hidden vectors.
    pub dims: usize,
    /// Attention heads in a layer.
    pub heads: usize,
    /// Decoder layers.
    pub layers: usize,
    /// Token ids.
    pub vocab: usize,
    /// Positions that the decoder has.
    pub text_ctx: usize,
    /// Encoder frames of 20 ms in the longest window.
    pub audio_ctx: usize,
    /// Whether the prompt names language and task.
    pub multilingual: bool,
    /// Start of transcript.
    pub sot: u32,
    /// End of text; every id above it is special.
    pub eot: u32,
    /// Task: transcribe, not translate.
    pub transcribe: u32,
    /// Ends the prompt: plain text follows.
    pub no_timestamps: u32,
    /// Its probability after `sot` is the probability that nobody speaks.
    pub no_speech: u32,
    /// First timestamp id.
    pub timestamp_begin: u32,
    /// ISO 639-1 codes and their ids.
    pub languages: Vec<(String, u32)>,
    /// Ids that are never chosen.
    pub suppress: Vec<u32>,
    /// Ids that are not chosen first.
    pub suppress_begin: Vec<u32>,
    /// `[layer, head]` pairs whose cross-attention follows the sound.
    pub alignment_heads: Vec<(usize, usize)>,
}

impl Settings {
    /// Reads and checks.
    ///
    /// # Errors
    /// [`SettingsError`] with what is wrong in the file.
    pub fn parse(json: &[u8]) -> Result<Self, SettingsError> {
        let mut settings: Self = serde_json::from_slice(json)?;
        settings.check()?;
        if settings.alignment_heads.is_empty() {
            // As openai/whisper does for a model whose heads nobody measured: all of the upper half.
            let (layers, heads) = (settings.layers, settings.heads);
            settings.alignment_heads = (layers / 2..layers).flat_map(|layer| (0..heads).map(move |head| (layer, head))).collect();
        }
        Ok(settings)
    }

    fn check(&self) -> Result<(), SettingsError> {
        if self.dims == 0 || self.layers == 0 || self.heads.checked_mul(HEAD_WIDTH) != Some(self.dims) {
            return Err(SettingsError::Shape { dims: self.dims, heads: self.heads, layers: self.layers });
        }
        // A prompt, one word and the end must fit; 30 s is what the mel window gives.
        if self.text_ctx < 8 || self.audio_ctx != 1500 {
            return Err(SettingsError::Context { text: self.text_ctx, audio: self.audio_ctx });
        }
        if self.multilingual && self.languages.is_empty() {
            return Err(SettingsError::NoLanguages);
        }
        let special = [self.sot, self.eot, self.transcribe, self.no_timestamps, self.no_speech, self.timestamp_begin];
        let languages = self.languages.iter().map(|(_, id)| *id);
        let suppressed = self.suppress.iter().chain(&self.suppress_begin).copied();
        if let Some(id) = special.into_iter().chain(languages).chain(suppressed).find(|id| index_of(*id) >= self.vocab) {
            return Err(SettingsError::Token { id, vocab: self.vocab });
        }
        if let Some((layer, head)) = self.alignment_heads.iter().find(|(layer, head)| *layer >= self.layers || *head >= self.heads) {
            return Err(SettingsError::Head { layer: *layer, head: *head });
        }
        Ok(())
    }
}

/// Why `asr.json` is refused.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// Not the JSON that was agreed.
    #[error("asr.json cannot be read")]
    Json(#[from] serde_json::Error),
    /// Sizes that no Whisper has.
    #[error("asr.json: {dims} dims, {heads} heads and {layers} layers do not belong together")]
    Shape {
        /// Width of the hidden vectors.
        dims: usize,
        /// Heads in a layer.
        heads: usize,
        /// Decoder layers.
        layers: usize,
    },
    /// Contexts that this program cannot use.
    #[error("asr.json: text_ctx {text} must be at least 8 and audio_ctx {audio} must be 1500")]
    Context {
        /// Decoder positions.
        text: usize,
        /// Encoder frames.
        audio: usize,
    },
    /// Multilingual without languages.
    #[error("asr.json: a multilingual model must list its languages")]
    NoLanguages,
    /// An id outside the vocabulary.
    #[error("asr.json: token {id} is outside the vocabulary of {vocab}")]
    Token {
        /// The id.
        id: u32,
        /// Number of ids.
        vocab: usize,
    },
    /// An attention head that is not there.
    #[error("asr.json: alignment head {head} of layer {layer} does not exist")]
    Head {
        /// Layer, counted from 0.
        layer: usize,
        /// Head, counted from 0.
        head: usize,
    },
}

/// `tokens.bin`: the bytes that each id stands for.
pub struct Tokens {
    bytes: Vec<u8>,
    /// Start of each token's bytes; one more at the end.
    starts: Vec<usize>,
    /// Length prefixes are 2 bytes.
    count: usize,
}

impl Tokens {
    /// Walks `vocab` entries of a little-endian u16 length and that many bytes; `None` when the file does not hold exactly those.
    pub fn parse(bytes: Vec<u8>, vocab: usize) -> Option<Self> {
        let mut starts = Vec::with_capacity(vocab);
        let mut at = 0usize;
        for _ in 0..vocab {
            let length = u16::from_le_bytes(*bytes.get(at..)?.first_chunk::<2>()?);
            starts.push(at + 2);
            at = at + 2 + usize::from(length);
            if at > bytes.len() {
                return None;
            }
        }
        (at == bytes.len()).then_some(Self { bytes, starts, count: vocab })
    }

    /// The bytes of `id`, which may be a part of a UTF-8 character; nothing for an id that does not exist.
    pub fn bytes(&self, id: u32) -> &[u8] {
        let id = index_of(id);
        let end = if id + 1 < self.count { self.starts.get(id + 1).map(|next| next - 2) } else { Some(self.bytes.len()) };
        match (self.starts.get(id), end) {
            (Some(start), Some(end)) => self.bytes.get(*start..end).unwrap_or_default(),
            _ => &[],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = r#"{"dims":384,"heads":6,"layers":4,"vocab":100,"text_ctx":448,"audio_ctx":1500,"multilingual":true,
        "sot":90,"eot":80,"transcribe":91,"no_timestamps":92,"no_speech":93,"timestamp_begin":95,"languages":[["en",94]],
        "suppress":[1],"suppress_begin":[2],"alignment_heads":[[3,5]]}"#;

    #[test]
    fn settings_are_read() {
        let settings = Settings::parse(GOOD.as_bytes()).unwrap();

        assert_eq!(settings.languages, [("en".to_owned(), 94)]);
        assert_eq!(settings.alignment_heads, [(3, 5)]);
    }

    #[test]
    fn without_alignment_heads_the_upper_half_is_taken() {
        let settings = Settings::parse(GOOD.replace("[[3,5]]", "[]").as_bytes()).unwrap();

        assert_eq!(settings.alignment_heads.len(), 12);
        assert!(settings.alignment_heads.iter().all(|(layer, _)| *layer >= 2));
    }

    #[test]
    fn ids_and_heads_outside_the_model_are_refused() {
        for (from, to, reason) in [
            ("\"eot\":80", "\"eot\":100", "token 100"),
            ("[[\"en\",94]]", "[[\"en\",4000000000]]", "token 4000000000"),
            ("\"suppress\":[1]", "\"suppress\":[101]", "token 101"),
            ("[[3,5]]", "[[4,0]]", "layer 4"),
            ("\"dims\":384", "\"dims\":385", "385 dims"),
            ("[[\"en\",94]]", "[]", "languages"),
            ("\"audio_ctx\":1500", "\"audio_ctx\":0", "1500"),
            ("\"dims\":384", "\"dims\":384,\"more\":1", "cannot be read"),
        ] {
            let error = Settings::parse(GOOD.replace(from, to).as_bytes()).unwrap_err();
            assert!(error.to_string().contains(reason), "{error}");
        }
    }

    #[test]
    fn tokens_are_found_by_id() {
        let tokens = Tokens::parse(vec![1, 0, b'a', 0, 0, 2, 0, 0xc3, 0xa9], 3).unwrap();

        assert_eq!(tokens.bytes(0), b"a");
        assert_eq!(tokens.bytes(1), b"");
        assert_eq!(tokens.bytes(2), "é".as_bytes());
        assert_eq!(tokens.bytes(3), b"");
        assert_eq!(tokens.bytes(u32::MAX), b"");
    }

    #[test]
    fn a_token_file_of_another_length_is_refused() {
        assert!(Tokens::parse(vec![1, 0, b'a'], 2).is_none());
        assert!(Tokens::parse(vec![1, 0, b'a', 9], 1).is_none());
        assert!(Tokens::parse(vec![5, 0, b'a'], 1).is_none());
    }
}
