//! Word error rate with one normaliser for every engine: lower case, no punctuation, figures for number words, keys by name.
//! Trusts: nothing.
//! Touches: standard streams.
//! Next: `bench.py` sums the errors.

use std::io::{BufRead as _, stdin};

const NUMBERS: [&str; 21] = [
    "zero",
    "one",
    "two",
    "three",
    "four",
    "five",
    "six",
    "seven",
    "eight",
    "nine",
    "ten",
    "eleven",
    "twelve",
    "thirteen",
    "fourteen",
    "fifteen",
    "sixteen",
    "seventeen",
    "eighteen",
    "nineteen",
    "twenty",
];

/// Errors and words of each line.
pub fn run() {
    for line in stdin().lock().lines() {
        let line = line.expect("text");
        let (said, heard) = line.split_once('\t').expect("said TAB heard");
        let (errors, words) = score(said, heard);
        println!("{errors}\t{words}");
    }
}

/// Words to insert, delete or replace, and the words that were said.
pub fn score(said: &str, heard: &str) -> (usize, usize) {
    let (said, heard) = (words(said), words(heard));
    let mut row: Vec<usize> = (0..=heard.len()).collect();
    for (i, word) in said.iter().enumerate() {
        let mut corner = std::mem::replace(&mut row[0], i + 1);
        for (j, other) in heard.iter().enumerate() {
            let change = corner + usize::from(word != other);
            corner = row[j + 1];
            row[j + 1] = change.min(row[j] + 1).min(corner + 1);
        }
    }
    (row[heard.len()], said.len())
}

/// The words that count.
fn words(text: &str) -> Vec<String> {
    let text = text.to_lowercase().replace('#', " pound ").replace('*', " star ").replace('’', "'");
    let kept: String = text.chars().map(|c| if c.is_alphanumeric() || c == '\'' { c } else { ' ' }).collect();
    let plain = kept.split_whitespace().map(|word| word.trim_matches('\'').replace('\'', ""));
    plain.filter(|word| !word.is_empty()).map(figures).collect()
}

fn figures(word: String) -> String {
    NUMBERS.iter().position(|number| *number == word).map_or(word, |number| number.to_string())
}
