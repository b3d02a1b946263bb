//! The tables beside the graphs: embeddings, positions, tokens, and the settings of the decoding loop.
//! Trusts: nothing; ids and heads are checked against the model.
//! Touches: memory only.
//! Next: `import` writes them to files; `worker::speech` reads them.

use serde::Serialize;

use super::vocabulary::Vocabulary;
use super::weights::{AUDIO_CONTEXT, TEXT_CONTEXT, Weights};

/// What a checkpoint says about decoding, as far as weights and tokens do not.
#[derive(Debug, Default)]
pub struct Generation {
    /// Ids that are never written; negative ones mean none.
    pub suppress: Vec<i64>,
    /// Ids that may not come first.
    pub suppress_begin: Vec<i64>,
    /// Layer and head of the attentions that follow the sound; empty when the checkpoint does not say.
    pub alignment_heads: Vec<(usize, usize)>,
}

/// `asr.json`.
#[derive(Serialize)]
struct Settings<'a> {
    dims: usize,
    heads: usize,
    layers: usize,
    vocab: usize,
    text_ctx: usize,
    audio_ctx: usize,
    multilingual: bool,
    sot: u32,
    eot: u32,
    transcribe: u32,
    no_timestamps: u32,
    no_speech: u32,
    timestamp_begin: u32,
    languages: &'a [(String, u32)],
    suppress: Vec<u32>,
    suppress_begin: Vec<u32>,
    alignment_heads: Vec<(usize, usize)>,
}

/// `tokens.bin`: for each id two bytes of length, little-endian, then the token.
pub fn tokens(vocabulary: &Vocabulary) -> Vec<u8> {
    let mut table = Vec::new();
    for token in &vocabulary.tokens {
        // `Vocabulary::read` refuses longer tokens.
        let length = u16::try_from(token.len()).unwrap_or(u16::MAX);
        table.extend_from_slice(&length.to_le_bytes());
        table.extend_from_slice(token);
    }
    table
}

/// `asr.json`, the same bytes for the same model.
///
/// # Errors
/// [`TablesError`] names the id or head that the model does not have.
pub fn settings(weights: &Weights, vocabulary: &Vocabulary, generation: &Generation) -> Result<Vec<u8>, TablesError> {
    let (heads, layers) = (weights.heads(), weights.decoder.len());
    let mut alignment_heads = generation.alignment_heads.clone();
    if alignment_heads.is_empty() {
        // The reference's own choice for a model without a list: every head of the upper half.
        alignment_heads = (layers / 2..layers).flat_map(|layer| (0..heads).map(move |head| (layer, head))).collect();
    }
    if let Some(&(layer, head)) = alignment_heads.iter().find(|&&(layer, head)| layer >= layers || head >= heads) {
        return Err(TablesError::Head { layer, head });
    }
    let settings = Settings {
        dims: weights.width,
        heads,
        layers,
        vocab: weights.vocabulary,
        text_ctx: TEXT_CONTEXT,
        audio_ctx: AUDIO_CONTEXT,
        multilingual: vocabulary.multilingual,
        sot: vocabulary.start,
        eot: vocabulary.end,
        transcribe: vocabulary.transcribe,
        no_timestamps: vocabulary.no_timestamps,
        no_speech: vocabulary.no_speech,
        timestamp_begin: vocabulary.timestamp_begin,
        languages: &vocabulary.languages,
        suppress: ids(&generation.suppress, weights.vocabulary)?,
        suppress_begin: ids(&generation.suppress_begin, weights.vocabulary)?,
        alignment_heads,
    };
    serde_json::to_vec_pretty(&settings).map_err(TablesError::Encode)
}

/// Why the settings of the decoding loop were not written.
#[derive(Debug, thiserror::Error)]
pub enum TablesError {
    /// A head that the model does not have.
    #[error("the checkpoint names the attention head {head} of layer {layer}, which the model does not have")]
    Head {
        /// Layer, counted from 0.
        layer: usize,
        /// Head, counted from 0.
        head: usize,
    },
    /// An id beyond the vocabulary.
    #[error("the checkpoint suppresses token {id}, which the model does not have")]
    Id {
        /// The id.
        id: i64,
    },
    /// JSON refused.
    #[error("asr.json cannot be written: {0}")]
    Encode(#[source] serde_json::Error),
}

/// Ids in order and once; a negative one is a checkpoint's way to say none.
fn ids(listed: &[i64], vocabulary: usize) -> Result<Vec<u32>, TablesError> {
    let mut ids = Vec::with_capacity(listed.len());
    for &id in listed.iter().filter(|&&id| id >= 0) {
        let known = usize::try_from(id).is_ok_and(|id| id < vocabulary);
        ids.push(u32::try_from(id).ok().filter(|_| known).ok_or(TablesError::Id { id })?);
    }
    ids.sort_unstable();
    ids.dedup();
    Ok(ids)
}
