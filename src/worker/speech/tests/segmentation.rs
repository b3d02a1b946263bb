//! Silero with the segmenter, on sound.
//! Trusts: nothing.
//! Touches: the models, reading.
//! Next: nobody.

use proptest::prelude::*;

use super::super::region::Region;
use super::super::segment::{BUFFER_MAX, Segmenter};
use super::super::{Ear, SpeechError};
use super::{ENGLISH, noise, recording, silence, tones, verified};

fn regions(samples: &[f32]) -> Vec<Region> {
    let mut segmenter = Segmenter::new(&ENGLISH, 0);
    let mut regions = segmenter.push(samples).expect("the model runs");
    regions.extend(segmenter.finish().expect("the model runs"));
    regions
}

/// Two sentences with silence before, between and after them.
fn conversation() -> Vec<f32> {
    [
        silence(1.0),
        recording("librivox/sense_and_sensibility_01_austen_64kb-0880.wav"),
        silence(3.0),
        recording("librivox/sense_and_sensibility_01_austen_64kb-0930.wav"),
        silence(1.0),
    ]
    .concat()
}

#[test]
fn sentences_apart_are_regions_apart() {
    let second = recording("librivox/sense_and_sensibility_01_austen_64kb-0880.wav").len() / 16 + 4000;

    let regions = regions(&conversation());

    assert_eq!(regions.len(), 2);
    assert!((700..1400).contains(&regions[0].start_ms), "{}", regions[0].start_ms);
    assert!((second - 300..second + 500).contains(&(regions[1].start_ms as usize)), "{}", regions[1].start_ms);
}

#[test]
fn what_is_not_speech_is_no_region() {
    for (name, samples) in [
        ("silence", silence(10.0)),
        ("faint noise", noise(10.0, 0.01)),
        ("loud noise", noise(10.0, 0.5)),
        ("dialling tone", tones(10.0, &[350.0, 440.0], 0.2)),
        ("touch tone", tones(10.0, &[770.0, 1336.0], 0.3)),
        ("mains hum", tones(10.0, &[50.0, 100.0, 150.0], 0.2)),
        ("not numbers", vec![f32::NAN; 40_000]),
    ] {
        assert_eq!(regions(&samples).len(), 0, "{name}");
    }
}

#[test]
fn speech_in_a_recording_with_a_shifted_baseline_is_found_where_it_is() {
    let speech = conversation();
    let plain = regions(&speech);
    for shift in [-0.6, 0.1, 0.3, 0.6] {
        let shifted: Vec<f32> = speech.iter().map(|sample| (sample + shift).clamp(-1.0, 1.0)).collect();
        let found = regions(&shifted);
        let near = |(one, other): (&Region, &Region)| {
            one.start_ms.abs_diff(other.start_ms) <= 200 && one.speech_ms().abs_diff(other.speech_ms()) <= 400
        };
        assert!(
            found.len() == plain.len() && found.iter().zip(&plain).all(near),
            "{shift}: {:?}",
            found.iter().map(|region| (region.start_ms, region.speech_ms())).collect::<Vec<_>>()
        );
    }
}

/// Nothing of a recording comes so large; should the model ever give no number, that must not look like silence.
#[test]
fn a_model_that_gives_no_numbers_is_an_error_and_not_silence() {
    let ear = Ear::load(&mut verified("silero-vad")).unwrap();
    for wrong in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, f32::MAX] {
        let mut samples = silence(1.0);
        samples[8000] = wrong;
        assert!(matches!(ear.probabilities(&samples), Err(SpeechError::Vad)), "{wrong}");
    }
    let mut segmenter = Segmenter::new(&ENGLISH, 0);
    assert!(matches!(segmenter.push(&[f32::MAX; 16_000]), Err(SpeechError::Vad)));
}

#[test]
fn memory_stays_bounded_however_long_and_dense_the_speech_is() {
    let speech = recording("librivox/sense_and_sensibility_01_austen_64kb-0870.wav");
    let mut segmenter = Segmenter::new(&ENGLISH, 0);
    let mut kept = 0;

    for _ in 0..30 {
        for region in segmenter.push(&speech).expect("the model runs") {
            assert!(region.samples.len() <= 28 * 16_000);
            kept += region.keep.len();
        }
        assert!(segmenter.buffered() <= BUFFER_MAX, "{}", segmenter.buffered());
    }

    assert!(kept > 24 * speech.len(), "most of the speech has come out: {kept} of {}", 30 * speech.len());
}

#[test]
fn nothing_at_all_gives_nothing() {
    assert_eq!(regions(&[]).len(), 0);
}

#[test]
fn speech_up_to_the_last_sample_is_kept() {
    let samples = recording("cards/005.wav");

    let regions = regions(&samples);

    let last = regions.last().expect("a region");
    assert!(last.start_ms as usize * 16 + last.samples.len() <= samples.len() + 16);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, ..ProptestConfig::default() })]
    #[test]
    fn regions_do_not_depend_on_how_the_samples_are_cut(cuts in prop::collection::vec(0usize..140_000, 0..40)) {
        let samples = conversation();
        let whole = regions(&samples);
        let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(samples.len())).chain([0, samples.len()]).collect();
        cuts.sort_unstable();

        let mut segmenter = Segmenter::new(&ENGLISH, 0);
        let mut pieces = Vec::new();
        for pair in cuts.windows(2) {
            pieces.extend(segmenter.push(&samples[pair[0]..pair[1]]).expect("the model runs"));
        }
        pieces.extend(segmenter.finish().expect("the model runs"));

        prop_assert_eq!(whole, pieces);
    }
}
