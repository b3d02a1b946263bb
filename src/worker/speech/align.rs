//! When each token was said: dynamic time warping over the cross-attention of the heads that follow the sound.
//! Trusts: nothing; sizes are taken from the data.
//! Touches: nothing.
//! Next: `words` joins tokens to words.
//!
//! The method of openai/whisper `timing.py`: cut the attention to the clip's frames, renormalise, standardise over the tokens,
//! median filter of 7 over the frames, mean over the heads, then the cheapest monotonic path.

#![expect(clippy::indexing_slicing, reason = "matrices that are sized in the same function; indices come from its own loops")]

use super::decode_loop::Hypothesis;
use super::numeric::f32_of;

/// Width of the median filter, frames.
const MEDIAN: usize = 7;

/// For each token the frame of 20 ms at which it begins, and one more for the end of the last; never falling, at most `frames`.
pub fn token_starts(text: &Hypothesis, heads: usize, frames: usize) -> Vec<usize> {
    let window_frames = text.frames;
    let tokens = text.tokens.len();
    let frames = frames.clamp(1, window_frames.max(1));
    let prompt = text.prompt_attention.len();
    let rows: Vec<&[f32]> = text.prompt_attention.iter().chain(&text.attention).map(Vec::as_slice).collect();
    if tokens == 0 || heads == 0 || rows.len() <= prompt || rows.iter().any(|row| row.len() != heads * window_frames) {
        return evenly(tokens, frames);
    }
    let mut mean = vec![0f32; rows.len() * frames];
    let mut head_matrix = vec![0f32; rows.len() * frames];
    for head in 0..heads {
        for (out, row) in head_matrix.chunks_exact_mut(frames).zip(&rows) {
            let cut = &row[head * window_frames..head * window_frames + frames];
            let total = cut.iter().sum::<f32>().max(1e-20);
            for (value, probability) in out.iter_mut().zip(cut) {
                *value = probability / total;
            }
        }
        standardise(&mut head_matrix, frames);
        for (sum, row) in mean.chunks_exact_mut(frames).zip(head_matrix.chunks_exact(frames)) {
            add_median(row, sum);
        }
    }
    let mut starts = first_frames(&mean[prompt * frames..], frames);
    starts.truncate(tokens + 1);
    starts.resize(tokens + 1, frames);
    starts
}

/// Without attention, tokens of equal length.
fn evenly(tokens: usize, frames: usize) -> Vec<usize> {
    (0..=tokens).map(|token| token * frames / tokens.max(1)).collect()
}

/// Each column to mean 0 and variance 1 over the rows.
fn standardise(matrix: &mut [f32], columns: usize) {
    let rows = f32_of(matrix.len() / columns);
    for column in 0..columns {
        let values = || matrix[column..].iter().step_by(columns);
        let mean = values().sum::<f32>() / rows;
        let variance = values().map(|value| (value - mean) * (value - mean)).sum::<f32>() / rows;
        let scale = 1.0 / variance.sqrt().max(1e-10);
        for value in matrix[column..].iter_mut().step_by(columns) {
            *value = (*value - mean) * scale;
        }
    }
}

/// Adds the running median of `row`, whose edges are reflected, to `sum`.
fn add_median(row: &[f32], sum: &mut [f32]) {
    let half = MEDIAN / 2;
    if row.len() <= half {
        for (sum, value) in sum.iter_mut().zip(row) {
            *sum += value;
        }
        return;
    }
    let last = row.len() - 1;
    for (at, sum) in sum.iter_mut().enumerate() {
        let mut near = [0f32; MEDIAN];
        for (offset, value) in near.iter_mut().enumerate() {
            let position = (at + offset).abs_diff(half);
            *value = row[if position > last { 2 * last - position } else { position }];
        }
        near.sort_by(f32::total_cmp);
        *sum += near[half];
    }
}

/// The path of highest sum from the first to the last cell, moving right, down or both; the first column of each row on it.
fn first_frames(gain: &[f32], columns: usize) -> Vec<usize> {
    #[derive(Clone, Copy)]
    enum Step {
        Both,
        Down,
        Right,
    }
    let rows = gain.len() / columns;
    let mut above = vec![f32::INFINITY; columns + 1];
    let mut steps = vec![Step::Right; rows * columns];
    above[0] = 0.0;
    for row in 0..rows {
        let mut current = vec![f32::INFINITY; columns + 1];
        for column in 0..columns {
            let (both, down, right) = (above[column], above[column + 1], current[column]);
            let (cost, step) = if both < down && both < right {
                (both, Step::Both)
            } else if down < both && down < right {
                (down, Step::Down)
            } else {
                (right, Step::Right)
            };
            current[column + 1] = cost - gain[row * columns + column];
            steps[row * columns + column] = step;
        }
        above = current;
    }
    let mut first = vec![0; rows];
    let (mut row, mut column) = (rows, columns);
    while row > 0 && column > 0 {
        first[row - 1] = column - 1;
        match steps[(row - 1) * columns + column - 1] {
            Step::Both => (row, column) = (row - 1, column - 1),
            Step::Down => row -= 1,
            Step::Right => column -= 1,
        }
    }
    first
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One head; each token looks at `widths` frames one after the other.
    fn hypothesis(widths: &[usize], window: usize) -> Hypothesis {
        let mut rows = Vec::new();
        let mut from = 0;
        for width in widths {
            let mut row = vec![0.001; window];
            row[from..from + width].fill(1.0);
            rows.push(row);
            from += width;
        }
        Hypothesis {
            tokens: vec![1; widths.len() - 1],
            log_probs: vec![0.0; widths.len() - 1],
            attention: rows,
            prompt_attention: vec![vec![1.0; window]],
            frames: window,
            language: None,
            no_speech: 0.0,
            mean_log_prob: 0.0,
            looped: false,
        }
    }

    #[test]
    fn tokens_begin_where_their_attention_begins() {
        let text = hypothesis(&[20, 10, 30, 15], 100);

        let starts = token_starts(&text, 1, 75);

        let near = starts.iter().zip([0, 20, 30, 60]).all(|(found, planted)| found.abs_diff(planted) <= 1);
        assert!(near, "{starts:?}");
    }

    #[test]
    fn without_usable_attention_tokens_are_spread_evenly() {
        let mut text = hypothesis(&[20, 10, 30], 100);
        text.attention[0].pop();

        assert_eq!(token_starts(&text, 1, 60), [0, 30, 60]);
    }

    #[test]
    fn a_text_that_was_not_ended_ends_with_the_clip() {
        let mut text = hypothesis(&[20, 10, 30], 60);
        text.tokens.push(1);

        let starts = token_starts(&text, 1, 60);

        assert_eq!(starts.len(), 4);
        assert_eq!(starts[3], 60);
    }

    #[test]
    fn starts_never_fall_and_stay_in_the_clip() {
        let mut text = hypothesis(&[3, 3, 3, 3], 40);
        for (row, values) in text.attention.iter_mut().enumerate() {
            values.rotate_left(row * 7);
        }

        let starts = token_starts(&text, 1, 12);

        assert!(starts.is_sorted() && starts.iter().all(|start| *start <= 12), "{starts:?}");
    }

    #[test]
    fn the_median_ignores_a_spike_and_reflects_at_the_edges() {
        let mut sum = vec![0.0; 9];

        add_median(&[2.0, 1.0, 1.0, 1.0, 99.0, 1.0, 1.0, 1.0, 2.0], &mut sum);

        assert_eq!(sum, [1.0; 9]);
    }
}
