//! Our encoder and decoder against tract, which runs the whole graphs of the same files.
//! Trusts: tract.
//! Touches: the model, reading.
//! Next: nobody.

use std::sync::Arc;

use tract_onnx::prelude::*;

use super::super::layers::Precision;
use super::super::mel::{BANDS, LogMel};
use super::super::whisper::{DECODER, ENCODER, Whisper};
use super::{recording, verified};
use crate::model::load;

/// Frames of the window.
const FRAMES: usize = 1000;

fn run(file: &str) -> Arc<TypedRunnableModel> {
    let onnx = verified("whisper-tiny-en").take(file).expect("the file is there");
    load::graph(&onnx).expect("a graph").into_optimized().and_then(|graph| graph.into_runnable()).expect("tract runs it")
}

fn cosine(a: &[f32], b: &[f32]) -> f32 {
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f32>();
    dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
}

fn numbers(tensor: &TValue) -> Vec<f32> {
    tensor.try_as_plain_ram().and_then(|plain| Ok(plain.as_slice::<f32>()?.to_vec())).expect("single precision")
}

#[test]
fn encoder_and_decoder_compute_what_tract_makes_of_the_graphs() {
    compare(Precision::Exact, 0.999_99, 0.999_99);
}

#[test]
fn in_the_fastest_precision_they_stay_close() {
    // Products in bytes turn a hidden vector by some degrees, and attention, a softmax, by some more; a mistake turns them anywhere.
    compare(Precision::Fastest, 0.995, 0.98);
}

/// Steps through a few tokens; the cosines of hidden vectors are at least `alike`, those of attention `attentive`.
fn compare(precision: Precision, alike: f32, attentive: f32) {
    let whisper = Whisper::load(&mut verified("whisper-tiny-en"), precision).expect("the model loads");
    let settings = &whisper.settings;
    let sound = recording("goforward.raw");
    let mel = Tensor::from_shape(&[1, BANDS, FRAMES], &LogMel::new().compute(&sound, FRAMES)).expect("a spectrogram");
    let cross: Vec<TValue> = run(ENCODER).run(tvec!(mel.into())).expect("tract encodes").into_iter().skip(1).collect();
    let decoder = run(DECODER);
    let empty = TValue::from(Tensor::zero::<f32>(&[1, settings.heads, 0, 64]).expect("an empty tensor"));
    let mut past = vec![empty; 2 * settings.layers];
    let window = whisper.listen(&sound, FRAMES);
    let mut session = whisper.begin(&window);

    for (position, token) in [settings.sot, settings.no_timestamps, 1514, 2651].into_iter().enumerate() {
        let mut inputs: TVec<TValue> =
            tvec!(Tensor::from_shape(&[1, 1, settings.dims], &whisper.embed(position, token)).expect("a row").into());
        for (past, cross) in past.chunks(2).zip(cross.chunks(2)) {
            inputs.extend(past.iter().chain(cross).cloned());
        }
        let mut outputs = decoder.run(inputs).expect("tract decodes").into_iter();
        let expected = numbers(&outputs.next().expect("the hidden vector"));
        past.clear();
        let mut attention = Vec::new();
        for _ in 0..settings.layers {
            past.extend(outputs.by_ref().take(2));
            attention.push(numbers(&outputs.next().expect("attention")));
        }

        let hidden = whisper.step(&mut [&mut session], &[token]).expect("a step");

        assert!(cosine(&hidden, &expected) > alike, "position {position}: {}", cosine(&hidden, &expected));
        let last = session.last_attention();
        let mut heads = settings.alignment_heads.clone();
        heads.sort_unstable();
        for ((layer, head), ours) in heads.into_iter().zip(last.chunks(FRAMES / 2)) {
            let theirs = &attention[layer][head * FRAMES / 2..(head + 1) * FRAMES / 2];
            assert!(cosine(ours, theirs) > attentive, "attention of head {head} in layer {layer}: {}", cosine(ours, theirs));
        }
    }
}
