//! What the whole of redaction promises, on sentences and calls of our own.

use std::path::PathBuf;
use std::sync::OnceLock;
use std::time::Instant;

use proptest::prelude::*;

use super::redactor::Redactor;
use super::*;
use crate::ipc::transcript::Word;

fn model_directory() -> PathBuf {
    let shipped = || PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/firmware-models"));
    std::env::var_os("SALAMA_MODELS").map_or_else(shipped, PathBuf::from).join("rampart")
}

/// A file of the Rampart directory.
pub fn model_file(name: &str) -> Vec<u8> {
    let path = model_directory().join(name);
    std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}; run `make models`", path.display()))
}

fn models() -> &'static TextModels {
    static MODELS: OnceLock<TextModels> = OnceLock::new();
    MODELS.get_or_init(|| {
        let mut rampart = crate::model::verify::verify(&model_directory()).unwrap_or_else(|error| panic!("{error}; run `make models`"));
        TextModels::load(&mut rampart).unwrap()
    })
}

/// Rules and lists without the model.
fn rules() -> &'static Redactor {
    static RULES: OnceLock<Redactor> = OnceLock::new();
    RULES.get_or_init(|| Redactor::new().unwrap())
}

fn by_rules(text: &str) -> RedactedPlain {
    rules().text(text, &mut |_| Ok(Vec::new())).unwrap()
}

fn utterance(channel: u8, start_ms: u32, text: &str) -> Utterance {
    let words = (0_u32..)
        .zip(text.split_whitespace())
        .map(|(at, word)| Word { start_ms: start_ms + at * 100, end_ms: start_ms + at * 100 + 90, text: word.to_owned(), confidence: 0.9 })
        .collect();
    Utterance { channel, start_ms, end_ms: start_ms + 5_000, language: "en".to_owned(), confidence: 0.9, words }
}

fn call(lines: &[(u8, &str)]) -> Vec<Utterance> {
    (0_u32..).zip(lines).map(|(at, (channel, text))| utterance(*channel, at * 6_000, text)).collect()
}

fn redacted_lines(clear: &[Utterance]) -> Vec<String> {
    models().redact_call(clear, &mut |_| {}).unwrap().iter().map(|(utterance, _)| utterance.text()).collect()
}

/// The planted words of a line, without its marks: `<name>` and `{place}`.
fn planted(line: &str) -> (String, Vec<(EntityKind, String)>) {
    let mut plants = Vec::new();
    for (open, close, kind) in [('<', '>', EntityKind::Person), ('{', '}', EntityKind::Location)] {
        for part in line.split(open).skip(1) {
            plants.push((kind, part.split(close).next().unwrap().to_owned()));
        }
    }
    (line.replace(['<', '>', '{', '}'], ""), plants)
}

/// How many of the planted names of `kind` left no word in the redacted line, and which did.
fn recall(kind: EntityKind) -> (f64, Vec<String>) {
    let (mut all, mut missed) = (0, Vec::new());
    for line in include_str!("testdata/planted.txt").lines() {
        let (clear, plants) = planted(line);
        let redacted = models().redact_text(&clear).unwrap().text;
        for (_, plant) in plants.iter().filter(|(of, _)| *of == kind) {
            all += 1;
            if plant.split(' ').any(|word| redacted.contains(word)) {
                missed.push(format!("{plant}: {redacted}"));
            }
        }
    }
    (1.0 - missed.len() as f64 / f64::from(all), missed)
}

#[test]
fn nineteen_of_twenty_east_african_names_are_masked() {
    let (share, missed) = recall(EntityKind::Person);
    println!("names: {share:.3}, missed: {missed:#?}");
    assert!(share >= 0.95, "{missed:#?}");
}

#[test]
fn seventeen_of_twenty_places_are_masked() {
    let (share, missed) = recall(EntityKind::Location);
    println!("places: {share:.3}, missed: {missed:#?}");
    assert!(share >= 0.85, "{missed:#?}");
}

#[test]
fn sentences_without_personal_information_stay_almost_untouched() {
    let lines: Vec<&str> = include_str!("testdata/clean.txt").lines().collect();
    let touched: Vec<String> = lines.iter().map(|line| models().redact_text(line).unwrap()).filter(|plain| !plain.entities.is_empty()).map(|plain| plain.text).collect();
    println!("{touched:#?}");
    assert!(touched.len() * 20 <= lines.len(), "{touched:#?}");
}

#[test]
fn words_around_planted_names_stay() {
    let (mut words, mut wrong) = (0, Vec::new());
    for line in include_str!("testdata/planted.txt").lines() {
        let (clear, plants) = planted(line);
        let redacted = models().redact_text(&clear).unwrap().text;
        let is_plant = |word: &&str| plants.iter().any(|(_, plant)| plant.split(' ').any(|part| word.contains(part)));
        let others: Vec<&str> = clear.split(' ').filter(|word| !is_plant(word)).collect();
        words += others.len();
        wrong.extend(others.into_iter().filter(|word| !redacted.contains(word.trim_matches(['.', ',', '?']))).map(|word| format!("{word}: {redacted}")));
    }
    println!("{} of {words} words wrongly masked: {wrong:#?}", wrong.len());
    assert!(wrong.len() * 50 <= words, "{wrong:#?}");
}

#[test]
fn speed() {
    let text: String = include_str!("testdata/planted.txt").lines().map(|line| planted(line).0 + " ").collect();
    models().warm_up().unwrap();
    let start = Instant::now();
    models().redact_text(&text).unwrap();
    let all = start.elapsed();
    let start = Instant::now();
    by_rules(&text);
    let rules = start.elapsed();
    println!("{} ms per 1 000 characters, rules alone {} ms", all.as_secs_f64() * 1e6 / text.len() as f64, rules.as_secs_f64() * 1e6 / text.len() as f64);
}

