//! The tokens of a Whisper model as bytes, and the ids of its control tokens.
//! Trusts: nothing; every id must be there and below the vocabulary's size.
//! Touches: the tokenizer's JSON file.
//! Next: `tables` writes it out.

use std::collections::{BTreeMap, HashMap};

use serde::Deserialize;

/// End of text in the English-only vocabulary (GPT-2's own); the multilingual one has moved it.
const ENGLISH_END_OF_TEXT: u32 = 50256;
/// Time tokens follow the last control token: 0.00 to 30.00 s in steps of 20 ms.
const TIME_TOKENS: u32 = 1501;
/// Length of the longest token that the table's 16-bit length can tell.
const MAX_TOKEN_BYTES: usize = 65_535;

/// Tokens by id, and what the decoding loop must know of them.
pub struct Vocabulary {
    /// UTF-8 fragments by id; control tokens as their literal text.
    pub tokens: Vec<Vec<u8>>,
    /// True when the model knows more than English.
    pub multilingual: bool,
    /// `<|startoftranscript|>`.
    pub start: u32,
    /// `<|endoftext|>`.
    pub end: u32,
    /// `<|transcribe|>`.
    pub transcribe: u32,
    /// `<|notimestamps|>`.
    pub no_timestamps: u32,
    /// `<|nocaptions|>`, in newer files `<|nospeech|>`.
    pub no_speech: u32,
    /// `<|0.00|>`.
    pub timestamp_begin: u32,
    /// Language codes with their ids in order; empty for an English-only model.
    pub languages: Vec<(String, u32)>,
}

/// `tokenizer.json`, as far as it matters here.
#[derive(Deserialize)]
pub struct TokenizerFile {
    model: BytePairs,
    #[serde(default)]
    added_tokens: Vec<AddedToken>,
}

#[derive(Deserialize)]
struct BytePairs {
    vocab: HashMap<String, u32>,
}

#[derive(Deserialize)]
struct AddedToken {
    id: u32,
    content: String,
}

impl TokenizerFile {
    /// From the older pair of files, `vocab.json` and `added_tokens.json`.
    pub fn from_pair(vocab: HashMap<String, u32>, added: HashMap<String, u32>) -> Self {
        let added_tokens = added.into_iter().map(|(content, id)| AddedToken { id, content }).collect();
        Self { model: BytePairs { vocab }, added_tokens }
    }
}

impl Vocabulary {
    /// Tokens `0..size` of the file.
    ///
    /// # Errors
    /// [`VocabularyError`] names the id or the control token that is wrong.
    pub fn read(file: TokenizerFile, size: usize) -> Result<Self, VocabularyError> {
        let mut tokens: BTreeMap<u32, Vec<u8>> = BTreeMap::new();
        let byte_of = byte_of_symbol();
        for (text, id) in file.model.vocab {
            let bytes: Option<Vec<u8>> = text.chars().map(|symbol| byte_of.get(&symbol).copied()).collect();
            tokens.insert(id, bytes.ok_or(VocabularyError::Symbol { id })?);
        }
        let mut control: HashMap<String, u32> = HashMap::new();
        for added in file.added_tokens {
            tokens.insert(added.id, added.content.clone().into_bytes());
            control.insert(added.content, added.id);
        }
        let id_of = |names: &[&'static str]| {
            let found = names.iter().find_map(|&name| control.get(name).copied());
            found.ok_or(VocabularyError::Control { token: names.first().copied().unwrap_or_default() })
        };
        let no_timestamps = id_of(&["<|notimestamps|>"])?;
        let timestamp_begin = no_timestamps.saturating_add(1);
        for step in 0..TIME_TOKENS {
            let (seconds, hundredths) = (step * 2 / 100, step * 2 % 100);
            let text = format!("<|{seconds}.{hundredths:02}|>").into_bytes();
            tokens.insert(timestamp_begin.saturating_add(step), text);
        }
        let (start, end) = (id_of(&["<|startoftranscript|>"])?, id_of(&["<|endoftext|>"])?);
        let multilingual = end != ENGLISH_END_OF_TEXT;
        let languages = if multilingual { languages(&tokens, start) } else { Vec::new() };
        Ok(Self {
            multilingual,
            start,
            end,
            transcribe: id_of(&["<|transcribe|>"])?,
            no_timestamps,
            no_speech: id_of(&["<|nocaptions|>", "<|nospeech|>"])?,
            timestamp_begin,
            languages,
            tokens: dense(tokens, size)?,
        })
    }
}

/// Why the tokens are not a Whisper vocabulary.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum VocabularyError {
    /// A token that is no byte-level text.
    #[error("token {id} of the tokenizer has a symbol that stands for no byte")]
    Symbol {
        /// Its id.
        id: u32,
    },
    /// A control token is missing.
    #[error("the tokenizer lacks the control token {token}; it does not belong to a Whisper model")]
    Control {
        /// Its text.
        token: &'static str,
    },
    /// An id without a token.
    #[error("the tokenizer has no token {id}, though the model has {size}; they do not belong together")]
    Missing {
        /// The id.
        id: usize,
        /// The model's vocabulary size.
        size: usize,
    },
    /// A token that the model does not have.
    #[error("the tokenizer has the token {id}, but the model only {size}; they do not belong together")]
    Surplus {
        /// The id.
        id: u32,
        /// The model's vocabulary size.
        size: usize,
    },
    /// A token that the table cannot hold.
    #[error("token {id} of the tokenizer is longer than {MAX_TOKEN_BYTES} bytes")]
    TooLong {
        /// The id.
        id: usize,
    },
}

/// Every id from 0 to `size` exactly once.
fn dense(tokens: BTreeMap<u32, Vec<u8>>, size: usize) -> Result<Vec<Vec<u8>>, VocabularyError> {
    let mut all = Vec::with_capacity(size);
    for (id, token) in tokens {
        let expected = all.len();
        if expected == size {
            return Err(VocabularyError::Surplus { id, size });
        }
        if usize::try_from(id) != Ok(expected) {
            return Err(VocabularyError::Missing { id: expected, size });
        }
        if token.len() > MAX_TOKEN_BYTES {
            return Err(VocabularyError::TooLong { id: expected });
        }
        all.push(token);
    }
    if all.len() == size { Ok(all) } else { Err(VocabularyError::Missing { id: all.len(), size }) }
}

/// The language tokens stand right behind `<|startoftranscript|>`: two or three lower-case letters.
fn languages(tokens: &BTreeMap<u32, Vec<u8>>, start: u32) -> Vec<(String, u32)> {
    let code = |token: &[u8]| {
        let code = token.strip_prefix(b"<|")?.strip_suffix(b"|>")?;
        let plain = matches!(code.len(), 2..=3) && code.iter().all(u8::is_ascii_lowercase);
        plain.then(|| String::from_utf8_lossy(code).into_owned())
    };
    tokens.range(start.saturating_add(1)..).map_while(|(&id, token)| Some((code(token)?, id))).collect()
}

/// GPT-2's byte-level alphabet: printable Latin-1 stands for itself, the other bytes for U+0100 onwards.
fn byte_of_symbol() -> HashMap<char, u8> {
    let mut next = 0x100;
    let mut symbol_of = |byte: u8| match byte {
        b'!'..=b'~' | 0xA1..=0xAC | 0xAE..=0xFF => char::from(byte),
        _ => {
            let symbol = char::from_u32(next).unwrap_or(char::REPLACEMENT_CHARACTER);
            next += 1;
            symbol
        }
    };
    (0..=u8::MAX).map(|byte| (symbol_of(byte), byte)).collect()
}
