//! What the whole of redaction promises, on sentences and calls of our own (`testdata/`, made up, nobody's).
//! Trusts: the shipped name model.
//! Touches: firmware-models/rampart, or `SALAMA_MODELS`/rampart.
//! Next: nothing.

#![expect(clippy::as_conversions, reason = "test arithmetic")]
#![allow(clippy::print_stdout, reason = "measured shares and times are shown with --nocapture; the benchmarks print anyway")]

use std::path::PathBuf;
use std::sync::OnceLock;

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

fn words_of(text: &str) -> impl Iterator<Item = &str> {
    words::words(text).into_iter().filter_map(|range| text.get(range))
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
fn recall(kind: EntityKind, lines: &str) -> (f64, Vec<String>) {
    let (mut all, mut missed) = (0, Vec::new());
    for line in lines.lines() {
        let (clear, plants) = planted(line);
        let redacted = models().redact_text(&clear).unwrap().text;
        for (_, plant) in plants.iter().filter(|(of, _)| *of == kind) {
            all += 1;
            if plant.split(' ').any(|part| words_of(&redacted).any(|word| word == part)) {
                missed.push(format!("{plant}: {redacted}"));
            }
        }
    }
    (1.0 - missed.len() as f64 / f64::from(all), missed)
}

#[test]
fn names_that_no_list_holds_are_masked_too() {
    let lexicon = lexicon::Lexicon::build();
    let (mut all, mut missed) = (0, Vec::new());
    for line in include_str!("testdata/planted.txt").lines() {
        let (clear, plants) = planted(line);
        let redacted = models().redact_text(&clear).unwrap().text;
        for (_, plant) in plants.iter().filter(|(_, plant)| plant.split(' ').all(|word| lexicon.listed(word).is_none())) {
            all += 1;
            missed.extend(plant.split(' ').filter(|part| words_of(&redacted).any(|word| word == *part)).map(|_| redacted.clone()));
        }
    }
    println!("{} of {all} unlisted names and places missed: {missed:#?}", missed.len());
    assert!(all >= 14 && missed.len() * 10 <= all, "{missed:#?}");
}

#[test]
fn nineteen_of_twenty_east_african_names_are_masked() {
    let (share, missed) = recall(EntityKind::Person, include_str!("testdata/planted.txt"));
    println!("names: {share:.3}, missed: {missed:#?}");
    assert!(share >= 0.95, "{missed:#?}");
}

/// The rules and lists were fitted while looking at `planted.txt`, so its recall flatters. These lines were written afterwards and nothing
/// was changed for them: 24 of 27 names and 16 of 17 places were found. The floors were set below that measurement and only keep it.
#[test]
fn names_and_places_of_lines_that_nothing_was_fitted_to_are_masked() {
    let (names, missed_names) = recall(EntityKind::Person, include_str!("testdata/heldout.txt"));
    let (places, missed_places) = recall(EntityKind::Location, include_str!("testdata/heldout.txt"));
    println!("held out: names {names:.3}, missed: {missed_names:#?}, places {places:.3}, missed: {missed_places:#?}");
    assert!(names >= 0.88 && places >= 0.94, "{missed_names:#?} {missed_places:#?}");
}

#[test]
fn seventeen_of_twenty_places_are_masked() {
    let (share, missed) = recall(EntityKind::Location, include_str!("testdata/planted.txt"));
    println!("places: {share:.3}, missed: {missed:#?}");
    assert!(share >= 0.85, "{missed:#?}");
}

#[test]
fn sentences_without_personal_information_stay_almost_untouched() {
    let lines: Vec<&str> = include_str!("testdata/clean.txt").lines().collect();
    let touched: Vec<String> = lines
        .iter()
        .map(|line| models().redact_text(line).unwrap())
        .filter(|plain| !plain.entities.is_empty())
        .map(|plain| plain.text)
        .collect();
    println!("{touched:#?}");
    assert!(touched.len() * 20 <= lines.len(), "{touched:#?}");
}

/// Our operations round rows to bytes: no name or place that single precision finds may be lost by it, and none be added.
#[test]
fn what_is_masked_is_what_single_precision_masks() {
    let models = models();
    let exact = ner::tests::Exact::load();
    let lines = [include_str!("testdata/planted.txt"), include_str!("testdata/heldout.txt"), include_str!("testdata/clean.txt")];
    for line in lines.iter().flat_map(|lines| lines.lines()) {
        let clear = planted(line).0;

        let expected = models.redactor.text(&clear, &mut |text| Ok(exact.score(&models.ner, text)?)).unwrap();

        assert_eq!(models.redact_text(&clear).unwrap(), expected);
    }
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
        wrong.extend(
            others
                .into_iter()
                .filter(|word| !redacted.contains(word.trim_matches(['.', ',', '?'])))
                .map(|word| format!("{word}: {redacted}")),
        );
    }
    println!("{} of {words} words wrongly masked: {wrong:#?}", wrong.len());
    assert!(wrong.len() * 50 <= words, "{wrong:#?}");
}

#[test]
fn a_whole_call_keeps_its_sense_and_loses_its_people() {
    let clear = call(&[
        (0, "Hello, this is the child helpline. What is your name?"),
        (1, "My name is Grace Wanjiku."),
        (0, "How old are you, Grace?"),
        (1, "Eleven. My brother Otieno is 14 years old."),
        (0, "Where do you live?"),
        (1, "I live in Kibera, near Olympic Primary School, house number 14."),
        (0, "Is there a number that I can call?"),
        (1, "Yes, zero seven one two, three four"),
        (0, "mm-hm"),
        (1, "five, six seven eight. My aunt is amina at example dot org."),
        (0, "And do you have your birth certificate number?"),
        (1, "It is 23456789. wanjiku is my second name."),
        (0, "Thank you, Wanjiku. You can call 116 again at any time."),
    ]);
    let lines = redacted_lines(&clear);
    let expected = [
        "Hello, this is the child helpline. What is your name?",
        "My name is [PERSON_1].",
        "How old are you, [PERSON_1]?",
        "[AGE_1]. My brother [PERSON_2] is [AGE_2] years old.",
        "Where do you live?",
        "I live in [LOCATION_1], near [LOCATION_2] Primary School, house number [LOCATION_3].",
        "Is there a number that I can call?",
        "Yes, [PHONE_1]",
        "mm-hm",
        "[PHONE_1]. My aunt is [EMAIL_1].",
        "And do you have your birth certificate number?",
        "It is [NATIONAL_ID_1]. [PERSON_1] is my second name.",
        "Thank you, [PERSON_1]. You can call 116 again at any time.",
    ];
    assert_eq!(lines, expected);
}

#[test]
fn masked_words_become_one_word_with_their_times() {
    let clear = [utterance(0, 1_000, "so (Grace Wanjiku), came")];
    let (redacted, entities) = models().redact_call(&clear, &mut |_| {}).unwrap().pop().unwrap();
    let word = &redacted.words[1];
    assert_eq!((word.text.as_str(), word.start_ms, word.end_ms), ("([PERSON_1]),", 1_100, 1_290));
    assert_eq!(entities, [Entity { kind: EntityKind::Person, number: 1, start: 4, end: 17 }]);
}

#[test]
fn a_name_over_two_utterances_is_masked_in_both() {
    let lines = redacted_lines(&call(&[(0, "My name is Grace"), (0, "Wanjiku and I need help")]));
    assert!(lines.iter().all(|line| !line.contains("Grace") && !line.contains("Wanjiku")), "{lines:?}");
}

#[test]
fn a_number_that_is_read_back_in_parts_is_masked() {
    let lines = redacted_lines(&call(&[(0, "it is 0712 345 678"), (1, "so 0712, then 345?"), (0, "yes, 345 678")]));
    assert_eq!(lines, ["it is [PHONE_1]", "so [PHONE_1]?", "yes, [PHONE_1]"]);
}

#[test]
fn utterances_out_of_order_come_back_in_their_order() {
    let mut clear = call(&[(0, "my name is Juma"), (1, "thank you Juma")]);
    clear.reverse();
    assert_eq!(redacted_lines(&clear), ["thank you [PERSON_1]", "my name is [PERSON_1]"]);
}

#[test]
fn an_empty_call_and_empty_words_are_no_error() {
    assert_eq!(models().redact_call(&[], &mut |_| {}).unwrap(), []);
    let empty = Utterance { words: Vec::new(), ..utterance(0, 0, "") };
    assert_eq!(redacted_lines(&[empty.clone(), utterance(0, 9, "hello"), empty]), ["", "hello", ""]);
}

#[test]
fn progress_rises_to_a_thousand() {
    let mut seen = Vec::new();
    let line = "the neighbours heard her cry again and nobody came to help ".repeat(5);
    models().redact_call(&call(&[(0, &line), (1, &line), (0, &line)]), &mut |share| seen.push(share)).unwrap();
    assert!(seen.is_sorted() && seen.len() > 1 && seen.last().is_some_and(|last| *last >= 990), "{seen:?}");
}

#[test]
fn redacted_text_is_not_redacted_further() {
    for line in include_str!("testdata/planted.txt").lines() {
        let once = models().redact_text(&planted(line).0).unwrap().text;
        assert_eq!(models().redact_text(&once).unwrap().text, once);
    }
}

#[test]
fn hidden_numbers_and_names_are_masked() {
    for text in [
        "call ٠٧١٢ ٣٤٥ ٦٧٨ now",
        "call 0\u{200B}712\u{2060}345\u{FEFF}678 now",
        "call \u{202E}0712345678\u{202C} now",
        "call ０７１２３４５６７８ now",
        "call O7I2 345 678 now",
        "call (0712) 345-678 now",
        "call +254(0)712.345.678 now",
        "call 0.7.1.2.3.4.5.6.7.8 now",
    ] {
        let plain = by_rules(text);
        assert_eq!(plain.text.replace(['\u{202E}', '\u{202C}'], ""), "call [PHONE_1] now", "{text:?}");
    }
    let plain = models().redact_text("my name is Wan\u{AD}ji\u{200D}ku and Zoe\u{308} Otie\u{301}no is here").unwrap();
    assert_eq!(count(plain.entities.iter()), [EntityCount { kind: EntityKind::Person, count: 2 }], "{}", plain.text);
}

#[test]
fn a_failing_model_gives_an_error_and_no_text() {
    let failing = &mut |_: &str| Err(TextError::Ner(NerError::Output));
    assert!(matches!(rules().text("hello", failing), Err(TextError::Ner(NerError::Output))));
    assert!(rules().call(&[utterance(0, 0, "hello")], failing).is_err());
}

#[test]
fn helpline_numbers_times_years_and_prices_stay() {
    for clean in [
        "call 116 or 999 or 1195",
        "at 10:30 in 2019",
        "it cost 1,500,000 shillings",
        "Ksh 250000",
        "from 2014 to 2016, 2018 2019 2020",
        "12 or 13 people",
    ] {
        assert_eq!(by_rules(clean).text, clean);
    }
}

/// A thread pool before the fork would be lost in every child. The count is taken in a process of its own, where no other test runs.
#[test]
fn loading_and_using_the_models_starts_no_thread() {
    let probe = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "worker::text::tests::probe_of_threads", "--test-threads=1", "--nocapture"])
        .env("SALAMA_PROBE_THREADS", "1")
        .output()
        .unwrap();
    let output = String::from_utf8_lossy(&probe.stdout).into_owned();
    assert!(probe.status.success() && output.contains("threads stayed"), "{output}{}", String::from_utf8_lossy(&probe.stderr));
}

#[test]
fn probe_of_threads() {
    let threads = || std::fs::read_dir("/proc/self/task").unwrap().count();
    if std::env::var_os("SALAMA_PROBE_THREADS").is_some() {
        let before = threads();
        models().warm_up().unwrap();
        assert_eq!(threads(), before);
        println!("threads stayed");
    }
}

/// A score for every word, so that the model's part of the story runs without the model.
fn scores(text: &str, seed: usize) -> Vec<ner::ScoredWord> {
    let kinds = [EntityKind::Person, EntityKind::Location, EntityKind::Phone];
    let score = |(at, range): (usize, std::ops::Range<usize>)| ner::ScoredWord {
        kind: kinds[(at * 7 + seed) % 3],
        probability: if (at * 31 + seed).is_multiple_of(5) { 0.95 } else { 0.01 },
        range,
    };
    words::words(text).into_iter().enumerate().map(score).collect()
}

fn assert_sound(clear: &str, plain: &RedactedPlain) -> Result<(), TestCaseError> {
    let (mut rebuilt, mut end) = (String::new(), 0);
    for entity in &plain.entities {
        let (from, to) = (entity.start as usize, entity.end as usize);
        prop_assert!(end <= from && from < to, "{plain:?}");
        let kept = clear.get(end..from);
        prop_assert!(kept.is_some() && clear.get(from..to).is_some());
        rebuilt.push_str(kept.unwrap());
        rebuilt.push_str(&placeholder::placeholder(entity.kind, entity.number));
        let cut = |at: usize| {
            clear[..at].chars().next_back().is_some_and(words::is_word_char) && clear[at..].chars().next().is_some_and(words::is_word_char)
        };
        prop_assert!(!cut(from) && !cut(to), "a word is cut: {plain:?}");
        end = to;
    }
    rebuilt.push_str(&clear[end..]);
    prop_assert_eq!(rebuilt, &*plain.text);
    Ok(())
}

fn digits_in(text: &str) -> String {
    view::View::new(text).text().chars().filter(char::is_ascii_digit).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn any_text_is_redacted_soundly(text in "[\\s\\S]{0,120}|\\PC{0,120}|[a-zA-Z0-9@.+ ,:/'-]{0,200}", seed in 0_usize..100) {
        let plain = rules().text(&text, &mut |text| Ok(scores(text, seed))).unwrap();
        assert_sound(&text, &plain)?;
    }

    #[test]
    fn any_telephone_number_is_masked_to_its_last_digit(
        subscriber in "[17][0-9]{8}",
        prefix in prop::sample::select(vec!["0", "+254", "+255 ", "256", "+250-", "00254"]),
        gaps in prop::collection::vec(prop::sample::select(vec!["", "", " ", "-", ".", "  ", ", ", "\u{200B}", "\u{A0}"]), 8),
        zero in prop::sample::select(vec!['0', '٠', '۰', '０', '𝟎']),
        carrier in prop::sample::select(vec![("", ""), ("call ", "."), ("piga simu ", " sasa"), ("(", ")"), ("\"", "\"!"), ("it's ", ", thanks")]),
    ) {
        let mut number = prefix.to_owned();
        for (place, digit) in subscriber.chars().enumerate() {
            number.push(char::from_u32(zero as u32 + digit.to_digit(10).unwrap()).unwrap());
            number.push_str(gaps.get(place).copied().unwrap_or(""));
        }
        let text = format!("{}{number}{}", carrier.0, carrier.1);
        let plain = by_rules(&text);
        assert_sound(&text, &plain)?;
        let kept = plain.text.replace("[PHONE_1]", "");
        prop_assert_eq!(digits_in(&kept), "", "{} -> {}", text, plain.text);
    }

    #[test]
    fn dictated_telephone_numbers_are_masked(digits in "0[17][0-9]{8}", swahili in any::<bool>(), commas in prop::collection::vec(any::<bool>(), 10)) {
        const ENGLISH: [&str; 10] = ["oh", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"];
        const SWAHILI: [&str; 10] = ["sifuri", "moja", "mbili", "tatu", "nne", "tano", "sita", "saba", "nane", "tisa"];
        let words = if swahili { SWAHILI } else { ENGLISH };
        let said: String = digits
            .chars()
            .zip(&commas)
            .map(|(digit, comma)| format!("{}{} ", words[digit.to_digit(10).unwrap() as usize], if *comma { "," } else { "" }))
            .collect();
        let plain = by_rules(&format!("my number is {said}thank you"));
        prop_assert!(words_of(&plain.text).all(|word| !words.contains(&word)), "{}", plain.text);
    }

    #[test]
    fn redacting_again_masks_no_less(parts in prop::collection::vec(prop::sample::select(vec![
        "my name is Wanjiku", "call", "0712 345 678", "+254 700 111 222", "amina@example.org", "amina at example dot org", "I am 12", "in Kisumu", "ID number",
        "23456789", "4111 1111 1111 1111", "and", ".", ",", "www.example.org/a", "10.0.0.1", "GB29NWBK60161331926819", "born on 12/05/2011", "[PERSON_1]", "Mr. Otieno", "2019",
        "\u{200B}", "password is x9", "KBC 123A", "CM9501234567AB", "\n",
    ]), 0..12)) {
        let once = by_rules(&parts.join(" ")).text;
        let again = by_rules(&once).text;
        // A masked date can make the next number look like one: more may be masked, but what was masked stays as it is.
        let mut rest = again.as_str();
        for placeholder in once.split_inclusive(']').filter_map(|part| part.rfind('[').map(|start| &part[start..])) {
            let found = rest.find(placeholder);
            prop_assert!(found.is_some(), "{placeholder} of {once} is not in {again}");
            rest = &rest[found.unwrap() + placeholder.len()..];
        }
    }

    #[test]
    fn any_call_is_redacted_soundly(lines in prop::collection::vec((0_u8..2, "[a-zA-Z0-9@+. ,']{0,60}|\\PC{0,30}"), 0..6), seed in 0_usize..100) {
        let lines: Vec<(u8, &str)> = lines.iter().map(|(channel, text)| (*channel, text.as_str())).collect();
        let clear = call(&lines);
        let redacted = rules().call(&clear, &mut |text| Ok(scores(text, seed))).unwrap();
        prop_assert_eq!(redacted.len(), clear.len());
        for ((after, entities), before) in redacted.iter().zip(&clear) {
            assert_sound(&before.text(), &RedactedPlain { text: after.text(), entities: entities.clone() })?;
        }
    }
}
