//! The whole pipeline, sound to words, with tiny.en unless a test says otherwise.
//! Trusts: nothing.
//! Touches: the models, reading.
//! Next: nobody.

use super::super::{Joiner, Region, Segmenter, SpeechError, SpeechModels};
use super::{ENGLISH, MULTILINGUAL, noise, recording, silence, tones, verified};
use crate::ipc::transcript::Utterance;
use crate::model::golden::GoldenAnswer;

/// Five LibriVox sentences and what is said in them.
const SENTENCES: [(&str, &str); 5] = [
    (
        "librivox/sense_and_sensibility_01_austen_64kb-0870.wav",
        "and mr john dashwood had then leisure to consider how much there might be prudently in his power to do for them",
    ),
    ("librivox/sense_and_sensibility_01_austen_64kb-0880.wav", "he was not an ill disposed young man"),
    ("librivox/sense_and_sensibility_01_austen_64kb-0890.wav", "unless to be rather cold hearted and rather selfish is to be ill disposed"),
    (
        "librivox/sense_and_sensibility_01_austen_64kb-0920.wav",
        "had he married a more amiable woman he might have been made still more respectable than he was",
    ),
    ("librivox/sense_and_sensibility_01_austen_64kb-0930.wav", "he might even have been made amiable himself"),
];

fn regions(models: &SpeechModels, channel: u8, samples: &[f32]) -> Vec<Region> {
    let mut segmenter = Segmenter::new(models, channel);
    let mut regions = segmenter.push(samples).expect("the model runs");
    regions.extend(segmenter.finish().expect("the model runs"));
    regions
}

fn one(models: &SpeechModels, region: &Region, language: Option<&str>) -> Vec<Utterance> {
    models.transcribe(std::slice::from_ref(region), language).expect("the model runs").remove(0)
}

fn transcript(models: &SpeechModels, samples: &[f32]) -> Vec<Utterance> {
    models.transcribe(&regions(models, 0, samples), None).expect("the model runs").into_iter().flatten().collect()
}

fn words(text: &str) -> Vec<String> {
    text.to_lowercase().split(|c: char| !c.is_alphanumeric() && c != '\'').filter(|word| !word.is_empty()).map(str::to_owned).collect()
}

/// Words to insert, delete or replace (Levenshtein).
fn errors(said: &[String], read: &[String]) -> usize {
    let mut row: Vec<usize> = (0..=read.len()).collect();
    for (i, word) in said.iter().enumerate() {
        let mut corner = std::mem::replace(&mut row[0], i + 1);
        for (j, other) in read.iter().enumerate() {
            let change = corner + usize::from(word != other);
            corner = row[j + 1];
            row[j + 1] = change.min(row[j] + 1).min(corner + 1);
        }
    }
    row[read.len()]
}

/// Word errors and words over the sentences.
fn sentence_errors(models: &SpeechModels) -> (usize, usize) {
    let mut total = (0, 0);
    for (file, said) in SENTENCES {
        let read: Vec<String> = transcript(models, &recording(file)).iter().flat_map(|utterance| words(&utterance.text())).collect();
        let said = words(said);
        let wrong = errors(&said, &read);
        total = (total.0 + wrong, total.1 + said.len());
    }
    total
}

#[test]
fn a_language_that_the_model_does_not_know_is_listened_for() {
    let golden = verified("whisper-base").golden().expect("a golden answer that can be read");
    let Some(GoldenAnswer::Transcript { samples, language, text, .. }) = golden else { panic!("a golden transcript") };
    let region = Region::whole(0, 0, samples);

    let read = one(&MULTILINGUAL, &region, Some("tlh"));

    assert_eq!(read.iter().flat_map(|utterance| words(&utterance.text())).collect::<Vec<_>>(), words(&text));
    let (heard, probability) = MULTILINGUAL.detect_language(&region).expect("the model runs");
    assert_eq!(heard, language);
    assert!(probability > 0.9, "{probability}");
}

#[test]
fn one_word_in_ten_is_wrong_at_most_in_read_english() {
    let (wrong, words) = sentence_errors(&ENGLISH);

    assert!(wrong * 10 <= words, "{wrong} of {words} words are wrong");
}

#[test]
fn one_word_in_twenty_is_wrong_at_most_with_the_larger_model() {
    let (wrong, words) = sentence_errors(&MULTILINGUAL);

    assert!(wrong * 20 <= words, "{wrong} of {words} words are wrong");
}

#[test]
fn what_is_not_speech_gives_no_text_even_when_it_gets_past_voice_detection() {
    for (name, samples) in [
        ("silence", silence(3.0)),
        ("faint noise", noise(3.0, 0.002)),
        ("loud noise", noise(3.0, 0.3)),
        ("tone", tones(3.0, &[440.0], 0.3)),
        ("mains hum", tones(3.0, &[50.0, 100.0, 150.0], 0.2)),
        ("nothing", vec![]),
    ] {
        let region = Region::whole(0, 0, samples.clone());

        let gated = transcript(&ENGLISH, &samples);
        let ungated = one(&ENGLISH, &region, None);

        assert_eq!(gated, [], "{name}");
        assert_eq!(ungated, [], "{name}: {:?}", ENGLISH.doubts(&region));
    }
}

#[test]
fn words_lie_in_order_where_the_speech_is() {
    let lead = 5;
    let sound = [silence(5.0), recording(SENTENCES[3].0), silence(2.0)].concat();

    let utterances = transcript(&ENGLISH, &sound);

    let words: Vec<_> = utterances.iter().flat_map(|utterance| &utterance.words).collect();
    assert!(words.is_sorted_by_key(|word| word.start_ms), "{words:?}");
    assert!(words.iter().all(|word| word.start_ms <= word.end_ms && word.confidence > 0.0 && word.confidence <= 1.0));
    for utterance in &utterances {
        assert_eq!(utterance.start_ms, utterance.words[0].start_ms);
        assert!(utterance.words.iter().all(|word| word.end_ms <= utterance.end_ms));
    }
    // As faster-whisper 1.2.1 aligns the same clip (its first word begins with the clip; ours where speech does).
    for (text, start, end) in [("married", 740, 980), ("woman", 2120, 2500), ("still", 3900, 4180), ("respectable", 4480, 4920)] {
        let word = words.iter().find(|word| word.text.trim_end_matches(',') == text).expect(text);
        let (start, end) = (lead * 1000 + start, lead * 1000 + end);
        assert!(word.start_ms.abs_diff(start) <= 150 && word.end_ms.abs_diff(end) <= 150, "{word:?} instead of {start}-{end}");
    }
}

fn read(region: &Region) -> Vec<String> {
    one(&ENGLISH, region, None).iter().flat_map(|utterance| words(&utterance.text())).collect()
}

#[test]
fn speech_that_had_to_be_cut_keeps_each_word_once() {
    let sound = recording(SENTENCES[0].0);
    let whole = read(&Region::whole(0, 0, sound.clone()));
    // As the segmenter tears it, through a word.
    let second = 16_000;
    let cut = 33 * second / 10;
    let left = Region { keep: 0..cut, ..Region::whole(0, 0, sound[..cut + second].to_vec()) };
    let right = sound[cut - second..].to_vec();
    let right = Region { keep: second..right.len(), ..Region::whole(0, 2300, right) };

    let parts = [read(&left), read(&right)].concat();

    assert!(errors(&whole, &parts) <= 1, "{parts:?}");
}

#[test]
fn a_region_that_no_window_holds_is_refused() {
    let error = ENGLISH.transcribe(&[Region::whole(0, 0, silence(31.0))], None).unwrap_err();

    assert!(matches!(error, SpeechError::RegionTooLong { samples: 496_000 }), "{error}");
}

#[test]
fn one_set_of_models_serves_many_threads() {
    let sound = recording(SENTENCES[4].0);
    let region = Region::whole(0, 0, sound);
    let alone = one(&ENGLISH, &region, None);

    let together: Vec<Vec<Utterance>> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..2).map(|_| scope.spawn(|| one(&ENGLISH, &region, None))).collect();
        threads.into_iter().map(|thread| thread.join().expect("no panic")).collect()
    });

    assert!(together.iter().all(|utterances| *utterances == alone));
}

#[test]
fn regions_that_are_read_together_give_what_each_gives_alone() {
    let sounds = [recording(SENTENCES[4].0), silence(2.0), recording(SENTENCES[3].0), vec![], recording("goforward.raw")];
    let regions: Vec<Region> = sounds.into_iter().map(|sound| Region::whole(0, 0, sound)).collect();

    let together = ENGLISH.transcribe(&regions, None).expect("the model runs");

    let text = |utterances: &[Utterance]| utterances.iter().map(Utterance::text).collect::<Vec<_>>();
    for (region, utterances) in regions.iter().zip(&together) {
        assert_eq!(text(utterances), text(&one(&ENGLISH, region, None)));
    }
    assert_eq!(together.iter().filter(|utterances| !utterances.is_empty()).count(), 3);
}

/// The regions of `samples`, joined.
fn joined(samples: &[f32]) -> Region {
    let mut joiner = Joiner::default();
    let apart: Vec<_> = regions(&ENGLISH, 0, samples).into_iter().filter_map(|region| joiner.push(region)).collect();
    assert_eq!(apart, [], "all fit one region");
    joiner.finish().expect("speech")
}

#[test]
fn words_of_joined_regions_are_where_they_were_said() {
    let sound = [silence(1.0), recording(SENTENCES[1].0), silence(40.0), recording(SENTENCES[4].0), silence(1.0)].concat();
    let apart = transcript(&ENGLISH, &sound);

    let together = one(&ENGLISH, &joined(&sound), None);

    let timed = |utterances: &[Utterance]| {
        let all = utterances.iter().flat_map(|utterance| utterance.words.clone());
        all.map(|word| (words(&word.text), word.start_ms, word.end_ms)).collect::<Vec<_>>()
    };
    let (apart, together) = (timed(&apart), timed(&together));
    assert_eq!(apart.len(), together.len(), "{together:?}");
    for (one, other) in apart.iter().zip(&together) {
        assert_eq!(one.0, other.0);
        assert!(one.1.abs_diff(other.1) <= 200 && one.2.abs_diff(other.2) <= 200, "{other:?} instead of {one:?}");
    }
}

#[test]
fn noise_that_is_joined_to_a_sentence_does_not_silence_it() {
    let (sentence, spoiled) = (recording(SENTENCES[1].0), noise(8.0, 0.6));
    let heard = regions(&ENGLISH, 0, &[silence(1.0), sentence, silence(5.0)].concat());
    let mut joiner = Joiner::default();
    assert!(heard.iter().cloned().chain([Region::whole(0, 60_000, spoiled)]).all(|region| joiner.push(region).is_none()));

    let read = one(&ENGLISH, &joiner.finish().expect("speech"), None);

    let read: Vec<String> = read.iter().flat_map(|utterance| words(&utterance.text())).collect();
    // Loud noise may cost the smallest model a sound or two.
    assert!(errors(&words(SENTENCES[1].1), &read) <= 2, "{read:?}");
}
