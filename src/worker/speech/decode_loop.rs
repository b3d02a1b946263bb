//! Greedy decoding of windows, with guards against what Whisper does when it has nothing to say.
//! Trusts: nothing; every loop is bounded by the decoder's positions.
//! Touches: nothing.
//! Next: `words` gives the tokens their times.

use std::collections::VecDeque;

use super::SpeechError;
use super::language::{Language, known, likeliest};
use super::numeric::{f32_of, index_of};
use super::whisper::{Session, Whisper, Window};
use crate::sys::simd::{largest, log_sum_exp};

/// Tokens of text in a window at most: half the decoder's positions, as the reference.
const TOKENS_MAX: usize = 224;
/// A mean log-probability below this is a guess (reference: `logprob_threshold`).
const GUESS: f32 = -1.0;
/// A guess with a no-speech probability above this is no speech (reference: `no_speech_threshold`).
const NOBODY: f32 = 0.6;
/// Text that is a little unlikely is no speech either when the model is all but sure of that.
const UNLIKELY: f32 = -0.3;
/// That sure.
const SURELY_NOBODY: f32 = 0.9;
/// Frames of 20 ms that attention moves on with each round when words are really said again.
const ROUND_MIN: usize = 5;
/// Below this mean log-probability the text has nothing to do with the sound.
const NONSENSE: f32 = -2.0;

/// The text of one window.
#[derive(Debug)]
pub struct Hypothesis {
    /// Text tokens without prompt and end.
    pub tokens: Vec<u32>,
    /// Log-probability of each.
    pub log_probs: Vec<f32>,
    /// Attention while each was predicted, and one row more for the end: `[token][alignment head * frames]`.
    pub attention: Vec<Vec<f32>>,
    /// Attention rows of the prompt before them.
    pub prompt_attention: Vec<Vec<f32>>,
    /// Encoder frames of 20 ms in the window.
    pub frames: usize,
    /// As heard or asked for; `None` for a model of one language.
    pub language: Option<Language>,
    /// Probability that nobody speaks, 0..=1.
    pub no_speech: f32,
    /// Mean log-probability over text and end.
    pub mean_log_prob: f32,
    /// The text ran into a loop and was cut.
    pub looped: bool,
}

impl Hypothesis {
    /// Worth a second opinion in another window.
    pub fn is_doubtful(&self) -> bool {
        self.looped || self.mean_log_prob < GUESS
    }

    /// The window holds no speech that this model can read.
    pub fn is_silence(&self) -> bool {
        self.tokens.is_empty()
            || self.mean_log_prob < NONSENSE
            || (self.mean_log_prob < GUESS && self.no_speech > NOBODY)
            || (self.mean_log_prob < UNLIKELY && self.no_speech > SURELY_NOBODY)
    }

    /// Rather without a loop, then rather likely.
    pub fn is_better_than(&self, other: &Self) -> bool {
        (self.looped, -self.mean_log_prob) < (other.looped, -other.mean_log_prob)
    }
}

/// Decodes windows greedily, all of them together: a step costs little more for several than for one. A `language` that the model
/// does not know is listened for.
///
/// # Errors
/// [`SpeechError::NoRoom`] if a guard against too long a text failed; [`SpeechError::NotANumber`].
pub fn decode(whisper: &Whisper, windows: &[Window], language: Option<&str>) -> Result<Vec<Hypothesis>, SpeechError> {
    let mut readings: Vec<Reading<'_>> = windows.iter().map(|window| Reading::begin(whisper, window)).collect();
    loop {
        let mut going: Vec<(&mut Reading<'_>, u32)> =
            readings.iter_mut().filter_map(|reading| reading.next.pop_front().map(|token| (reading, token))).collect();
        if going.is_empty() {
            return Ok(readings.into_iter().map(Reading::finish).collect());
        }
        let tokens: Vec<u32> = going.iter().map(|(_, token)| *token).collect();
        let mut sessions: Vec<&mut Session<'_>> = going.iter_mut().map(|(reading, _)| &mut reading.session).collect();
        let hidden = whisper.step(&mut sessions, &tokens)?;
        let (mut asking, mut vectors) = (Vec::new(), Vec::new());
        for ((reading, _), hidden) in going.into_iter().zip(hidden.chunks_exact(whisper.settings.dims)) {
            // Inside a prompt the next token is known.
            if reading.next.is_empty() {
                asking.push(reading);
                vectors.extend_from_slice(hidden);
            }
        }
        let mut scores = whisper.embedding.scores(&vectors);
        let answers = scores.rows().zip(vectors.chunks_exact(whisper.settings.dims));
        for (reading, (scores, hidden)) in asking.into_iter().zip(answers) {
            match reading.prompt_rows {
                0 => reading.open(whisper, hidden, scores, language),
                _ => reading.choose(whisper, hidden, scores)?,
            }
        }
    }
}

/// One window on its way to a text.
struct Reading<'a> {
    window: &'a Window,
    session: Session<'a>,
    /// Tokens to feed; none when the text has ended.
    next: VecDeque<u32>,
    /// Tokens of the prompt behind the start token; 0 until it is known.
    prompt_rows: usize,
    language: Option<Language>,
    no_speech: f32,
    text: Text,
}

impl<'a> Reading<'a> {
    fn begin(whisper: &Whisper, window: &'a Window) -> Self {
        Self {
            window,
            session: whisper.begin(window),
            next: VecDeque::from([whisper.settings.sot]),
            prompt_rows: 0,
            language: None,
            no_speech: 0.0,
            text: Text::default(),
        }
    }

    /// After the start token: whether anybody speaks, in which language, and so the prompt.
    fn open(&mut self, whisper: &Whisper, hidden: &[f32], scores: &mut [f32], language: Option<&str>) {
        let settings = &whisper.settings;
        whisper.embedding.settle(hidden, scores);
        self.no_speech = scores.get(index_of(settings.no_speech)).map_or(0.0, |score| (score - log_sum_exp(scores)).exp());
        if settings.multilingual {
            self.language = language.and_then(|code| known(settings, code)).or_else(|| likeliest(settings, scores));
        }
        self.next.extend(self.language.iter().flat_map(|language| [language.token, settings.transcribe]));
        self.next.push_back(settings.no_timestamps);
        self.prompt_rows = self.next.len();
    }

    /// Takes the likeliest token; the text ends there, or goes on with it.
    fn choose(&mut self, whisper: &Whisper, hidden: &[f32], scores: &mut [f32]) -> Result<(), SpeechError> {
        let text = &mut self.text;
        mask(whisper, text.tokens.is_empty(), scores);
        whisper.embedding.settle(hidden, scores);
        let (token, log_prob) = best(scores).ok_or(SpeechError::NotANumber)?;
        text.total += log_prob;
        text.scored += 1;
        if token == whisper.settings.eot {
            return Ok(());
        }
        text.tokens.push(token);
        text.log_probs.push(log_prob);
        let ended = text.cut_loop(&self.session, self.prompt_rows, self.window) || text.tokens.len() >= TOKENS_MAX;
        if !ended && self.session.room() > 0 {
            self.next.push_back(token);
        }
        Ok(())
    }

    fn finish(self) -> Hypothesis {
        let (text, mut rows) = (self.text, self.session.into_attention());
        // The start token's row is the first of the prompt's; the row of the last prompt token predicts the first of the text.
        let mut attention = rows.split_off(self.prompt_rows.min(rows.len()));
        attention.truncate(text.tokens.len() + 1);
        Hypothesis {
            mean_log_prob: text.total / f32_of(text.scored),
            tokens: text.tokens,
            log_probs: text.log_probs,
            attention,
            prompt_attention: rows,
            frames: self.window.frames,
            language: self.language,
            no_speech: self.no_speech,
            looped: text.looped,
        }
    }
}

#[derive(Default)]
struct Text {
    tokens: Vec<u32>,
    log_probs: Vec<f32>,
    total: f32,
    scored: usize,
    looped: bool,
}

impl Text {
    /// Cuts the text after the first round of a loop at its end, unless the attention shows that it was said again and again.
    fn cut_loop(&mut self, session: &Session<'_>, prompt_rows: usize, window: &Window) -> bool {
        let Some(keep) = loop_start(&self.tokens) else { return false };
        // The row before a token is the one that predicted it; the last token has not been fed yet, its row is there.
        let focus = session.focus();
        let rounds = focus.get(prompt_rows..).and_then(|rows| rows.get(keep.len_before()..)).unwrap_or_default();
        if moves_on(rounds, keep.block, window.clip) {
            return false;
        }
        let keep = keep.first_round_end;
        self.tokens.truncate(keep);
        self.log_probs.truncate(keep);
        self.looped = true;
        true
    }
}

/// Repetitions at the end of a text.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Loop {
    /// Tokens in a round.
    block: usize,
    /// Tokens up to the end of the first round.
    first_round_end: usize,
}

impl Loop {
    /// Tokens before the first round.
    const fn len_before(self) -> usize {
        self.first_round_end - self.block
    }
}

/// Whether each round was read from a later place in the clip than the one before it.
fn moves_on(focus: &[usize], block: usize, clip: usize) -> bool {
    let rounds: Vec<usize> = focus.chunks(block.max(1)).filter_map(|round| round.first().copied()).collect();
    let (Some(first), Some(last)) = (rounds.first(), rounds.last()) else { return false };
    *last < clip && *last >= first + ROUND_MIN * (rounds.len() - 1) && rounds.is_sorted()
}

/// The repetitions at the end of `tokens`, when those are so many that a loop is likely.
///
/// A caller may say "no" eight times; Whisper in a loop never stops. So a block of one to three tokens must fill
/// twenty places, one of up to seven come four times, and a longer one three times.
fn loop_start(tokens: &[u32]) -> Option<Loop> {
    let longest = tokens.len() / 3;
    (1..=longest).find_map(|block| {
        let rounds = match block {
            1..=3 => 20 / block,
            4..=7 => 4,
            _ => 3,
        };
        let span = block.checked_mul(rounds)?;
        let tail = tokens.get(tokens.len().checked_sub(span)?..)?;
        let first = tail.get(..block)?;
        tail.chunks(block).all(|round| round == first).then_some(Loop { block, first_round_end: tokens.len() - span + block })
    })
}

/// Sets what may not be chosen to minus infinity.
fn mask(whisper: &Whisper, first: bool, scores: &mut [f32]) {
    let settings = &whisper.settings;
    if let Some(special) = scores.get_mut(index_of(settings.eot) + 1..) {
        special.fill(f32::NEG_INFINITY);
    }
    let begin = if first { settings.suppress_begin.as_slice() } else { &[] };
    for id in settings.suppress.iter().chain(begin) {
        if let Some(score) = scores.get_mut(index_of(*id)) {
            *score = f32::NEG_INFINITY;
        }
    }
}

/// The best token and its log-probability; nothing when the scores are no numbers.
fn best(scores: &[f32]) -> Option<(u32, f32)> {
    let best = largest(scores);
    let token = (0..).zip(scores).find(|(_, score)| **score == best).map_or(0, |(token, _)| token);
    let log_prob = best - log_sum_exp(scores);
    log_prob.is_finite().then_some((token, log_prob))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_loop_is_cut_after_its_first_round() {
        let mut tokens = vec![9, 8];
        tokens.extend([1, 2, 3, 4].repeat(4));

        assert_eq!(loop_start(&tokens), Some(Loop { block: 4, first_round_end: 6 }));
    }

    #[test]
    fn a_word_said_eight_times_is_not_a_loop() {
        let tokens = [vec![5, 6], vec![7; 8]].concat();

        assert_eq!(loop_start(&tokens), None);
    }

    #[test]
    fn one_token_for_ever_is_a_loop() {
        assert_eq!(loop_start(&[7; 20]), Some(Loop { block: 1, first_round_end: 1 }));
    }

    #[test]
    fn a_long_block_three_times_is_a_loop() {
        let block: Vec<u32> = (0..30).collect();

        assert_eq!(loop_start(&block.repeat(2)), None);
        assert_eq!(loop_start(&block.repeat(3)), Some(Loop { block: 30, first_round_end: 30 }));
    }

    #[test]
    fn words_that_are_said_again_move_on_in_the_clip() {
        let said = [10, 15, 40, 45, 70, 75];

        assert!(moves_on(&said, 2, 100));
        assert!(!moves_on(&said, 2, 60), "past the end of the clip nothing is said");
        assert!(!moves_on(&[70, 75, 70, 75, 70, 76], 2, 100), "stuck");
    }

    #[test]
    fn the_best_token_comes_with_its_log_probability() {
        let (token, log_prob) = best(&[f32::NEG_INFINITY, 0.0, 3f32.ln()]).unwrap();

        assert_eq!(token, 2);
        assert!((log_prob - 0.75f32.ln()).abs() < 1e-6);
    }

    #[test]
    fn scores_that_are_no_numbers_are_no_text() {
        assert_eq!(best(&[f32::NAN; 40]), None);
        assert_eq!(best(&[f32::NEG_INFINITY; 40]), None);
        assert_eq!(best(&[0.0, f32::INFINITY]), None);
    }
}
