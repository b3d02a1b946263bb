//! The graphs compute what Whisper computes: tract's numbers against a plain reference.
//! Trusts: the reference below, written from the model's definition.
//! Touches: memory only.
//! Next: nobody.

use tract_onnx::prelude::{InferenceModelExt, IntoRunnable, Tensor, f16};

use super::graph;
use super::synthetic::{self, DECODER_LAYERS, Numbers, WIDTH};
use super::weights::{Half, MEL_BANDS, Tensors, Weights};
use crate::model::load;

const HEADS: usize = WIDTH / 64;
const TOLERANCE: f32 = 2e-4;

type Rows = Vec<Vec<f32>>;

/// Plain loops over the weights.
struct Reference(Tensors);

impl Reference {
    fn values(&self, name: &str) -> Vec<f32> {
        self.0[name].bytes.chunks_exact(2).map(|cell| f16::from_le_bytes([cell[0], cell[1]]).to_f32()).collect()
    }

    fn linear(&self, name: &str, rows: &Rows) -> Rows {
        let weight = self.values(&format!("{name}.weight"));
        let bias = if name.ends_with("k_proj") { vec![0.0; WIDTH] } else { self.values(&format!("{name}.bias")) };
        let one = |row: &Vec<f32>| {
            let products = weight.chunks_exact(row.len()).map(|w| w.iter().zip(row).map(|(w, x)| w * x).sum::<f32>());
            products.zip(&bias).map(|(product, bias)| product + bias).collect()
        };
        rows.iter().map(one).collect()
    }

    fn norm(&self, name: &str, rows: &Rows) -> Rows {
        let (gamma, beta) = (self.values(&format!("{name}.weight")), self.values(&format!("{name}.bias")));
        let one = |row: &Vec<f32>| {
            let mean = row.iter().sum::<f32>() / 128.0;
            let variance = row.iter().map(|x| (x - mean).powi(2)).sum::<f32>() / 128.0;
            let scaled = row.iter().map(|x| (x - mean) / (variance + 1e-5).sqrt());
            scaled.zip(gamma.iter().zip(&beta)).map(|(x, (gamma, beta))| x * gamma + beta).collect()
        };
        rows.iter().map(one).collect()
    }

    /// Output rows and, for the first query, each head's probabilities.
    fn attention(&self, name: &str, queries: &Rows, keys: &Rows, values: &Rows) -> (Rows, Vec<f32>) {
        let queries = self.linear(&format!("{name}.q_proj"), queries);
        let mut probabilities = Vec::new();
        let mut mixed = vec![vec![0.0; WIDTH]; queries.len()];
        for (at, query) in queries.iter().enumerate() {
            for head in (0..HEADS).map(|head| head * 64..head * 64 + 64) {
                let dot = |key: &Vec<f32>| key[head.clone()].iter().zip(&query[head.clone()]).map(|(k, q)| k * q).sum::<f32>() / 8.0;
                let raised: Vec<f32> = keys.iter().map(|key| dot(key).exp()).collect();
                let total: f32 = raised.iter().sum();
                for (weight, value) in raised.iter().zip(values) {
                    head.clone().for_each(|column| mixed[at][column] += weight / total * value[column]);
                }
                if at == 0 {
                    probabilities.extend(raised.iter().map(|weight| weight / total));
                }
            }
        }
        (self.linear(&format!("{name}.out_proj"), &mixed), probabilities)
    }

    fn feed_forward(&self, layer: &str, x: &Rows) -> Rows {
        let normed = self.norm(&format!("{layer}.final_layer_norm"), x);
        let wide = bend(self.linear(&format!("{layer}.fc1"), &normed));
        sum(x, &self.linear(&format!("{layer}.fc2"), &wide))
    }

    /// A convolution of width 3 with padding 1 over rows of channels.
    fn convolution(&self, name: &str, rows: &Rows, stride: usize) -> Rows {
        let (weight, bias) = (self.values(&format!("{name}.weight")), self.values(&format!("{name}.bias")));
        let channels = rows[0].len();
        let cell = |out: usize, at: usize| {
            let tap = |channel: usize, tap: usize| {
                let row = (at * stride + tap).checked_sub(1).and_then(|row| rows.get(row));
                row.map_or(0.0, |row| row[channel] * weight[(out * channels + channel) * 3 + tap])
            };
            bias[out] + (0..channels).flat_map(|channel| (0..3).map(move |number| tap(channel, number)).collect::<Vec<_>>()).sum::<f32>()
        };
        bend((0..rows.len() / stride).map(|at| (0..WIDTH).map(|out| cell(out, at)).collect()).collect())
    }
}

fn sum(a: &Rows, b: &Rows) -> Rows {
    a.iter().zip(b).map(|(a, b)| a.iter().zip(b).map(|(a, b)| a + b).collect()).collect()
}

fn bend(rows: Rows) -> Rows {
    let gelu = |x: f32| x * 0.5 * (1.0 + erf(x * std::f32::consts::FRAC_1_SQRT_2));
    rows.into_iter().map(|row| row.into_iter().map(gelu).collect()).collect()
}

/// The Maclaurin series in double precision: exact enough for |x| < 4, and 1 beyond.
fn erf(x: f32) -> f32 {
    let x = f64::from(x);
    if x.abs() > 4.0 {
        return if x > 0.0 { 1.0 } else { -1.0 };
    }
    let mut term = x;
    let mut total = x;
    for n in 1..100 {
        let n = f64::from(n);
        term *= -x * x / n;
        total += term / (2.0 * n + 1.0);
    }
    #[expect(clippy::as_conversions, reason = "rounding to single precision is meant")]
    let rounded = (total * std::f64::consts::FRAC_2_SQRT_PI) as f32;
    rounded
}

fn rows(flat: &[f32], width: usize) -> Rows {
    flat.chunks_exact(width).map(<[f32]>::to_vec).collect()
}

fn tensor(dims: &[usize], values: &[f32]) -> Tensor {
    Tensor::from_shape(dims, values).unwrap()
}

fn run(graph: &super::onnx::Graph, inputs: Vec<Vec<Tensor>>) -> Vec<Vec<Vec<f32>>> {
    let model = load::graph(&graph.bytes).unwrap().into_optimized().unwrap().into_runnable().unwrap();
    let values = |tensor: &Tensor| tensor.try_as_plain_ram().unwrap().as_slice::<f32>().unwrap().to_vec();
    let answer = |inputs: Vec<Tensor>| {
        let outputs = model.run(inputs.into_iter().map(Into::into).collect()).unwrap();
        outputs.iter().map(|output| values(output)).collect()
    };
    inputs.into_iter().map(answer).collect()
}

fn assert_close(what: &str, found: &[f32], expected: &[f32]) {
    assert_eq!(found.len(), expected.len(), "{what}");
    let worst = found.iter().zip(expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(worst < TOLERANCE, "{what}: {worst}");
}

/// `[1,H,T,64]` from rows.
fn by_head(rows: &Rows) -> Vec<f32> {
    (0..HEADS).flat_map(|head| rows.iter().flat_map(move |row| row[head * 64..head * 64 + 64].to_vec())).collect()
}

/// `[1,H,64,T]` from rows.
fn by_column(rows: &Rows) -> Vec<f32> {
    (0..WIDTH).flat_map(|column| rows.iter().map(move |row| row[column])).collect()
}

#[test]
fn the_encoder_equals_a_plain_reference_at_every_length() {
    let graph = graph::encoder(&Weights::assemble(synthetic::good()).unwrap());
    let reference = Reference(synthetic::good());
    let lengths = [6_usize, 20];
    let mels = lengths.map(|length| Numbers::new(3).list(MEL_BANDS * length, 0.0, 1.0));
    let inputs = lengths.iter().zip(&mels).map(|(&length, mel)| vec![tensor(&[1, MEL_BANDS, length], mel)]).collect();

    let outputs = run(&graph, inputs);

    for ((&length, mel), found) in lengths.iter().zip(&mels).zip(&outputs) {
        let frames: Rows = (0..length).map(|at| mel.chunks_exact(length).map(|band| band[at]).collect()).collect();
        let mut x = reference.convolution("model.encoder.conv1", &frames, 1);
        x = reference.convolution("model.encoder.conv2", &x, 2);
        x = sum(&x, &rows(&reference.values("model.encoder.embed_positions.weight"), WIDTH));
        let layer = "model.encoder.layers.0";
        let normed = reference.norm(&format!("{layer}.self_attn_layer_norm"), &x);
        let keys = reference.linear(&format!("{layer}.self_attn.k_proj"), &normed);
        let values = reference.linear(&format!("{layer}.self_attn.v_proj"), &normed);
        x = sum(&x, &reference.attention(&format!("{layer}.self_attn"), &normed, &keys, &values).0);
        x = reference.norm("model.encoder.layer_norm", &reference.feed_forward(layer, &x));
        assert_eq!(found.len(), 1 + 2 * DECODER_LAYERS);
        assert_close("enc", &found[0], &x.concat());
        assert_close("ck_1", &found[3], &by_column(&reference.linear("model.decoder.layers.1.encoder_attn.k_proj", &x)));
        assert_close("cv_1", &found[4], &by_head(&reference.linear("model.decoder.layers.1.encoder_attn.v_proj", &x)));
    }
}

#[test]
fn a_decoder_step_equals_a_plain_reference_with_and_without_a_past() {
    let graph = graph::decoder(&Weights::assemble(synthetic::good()).unwrap());
    let reference = Reference(synthetic::good());
    for past in [0_usize, 3] {
        let mut numbers = Numbers::new(11);
        let x0 = vec![numbers.list(WIDTH, 0.0, 1.0)];
        let sound = 5;
        let mut given = |count| rows(&numbers.list(WIDTH * count, 0.0, 1.0), WIDTH);
        let layers: Vec<[Rows; 4]> = (0..DECODER_LAYERS).map(|_| [given(past), given(past), given(sound), given(sound)]).collect();
        let mut inputs = vec![tensor(&[1, 1, WIDTH], &x0[0])];
        for [pk, pv, ck, cv] in &layers {
            inputs.push(tensor(&[1, HEADS, past, 64], &by_head(pk)));
            inputs.push(tensor(&[1, HEADS, past, 64], &by_head(pv)));
            inputs.push(tensor(&[1, HEADS, 64, sound], &by_column(ck)));
            inputs.push(tensor(&[1, HEADS, sound, 64], &by_head(cv)));
        }

        let found = run(&graph, vec![inputs]).remove(0);

        let mut x = x0;
        for (index, [pk, pv, ck, cv]) in layers.iter().enumerate() {
            let layer = format!("model.decoder.layers.{index}");
            let normed = reference.norm(&format!("{layer}.self_attn_layer_norm"), &x);
            let keys = [pk.clone(), reference.linear(&format!("{layer}.self_attn.k_proj"), &normed)].concat();
            let values = [pv.clone(), reference.linear(&format!("{layer}.self_attn.v_proj"), &normed)].concat();
            x = sum(&x, &reference.attention(&format!("{layer}.self_attn"), &normed, &keys, &values).0);
            let normed = reference.norm(&format!("{layer}.encoder_attn_layer_norm"), &x);
            let (heard, probabilities) = reference.attention(&format!("{layer}.encoder_attn"), &normed, ck, cv);
            x = reference.feed_forward(&layer, &sum(&x, &heard));
            assert_close("nk", &found[1 + 3 * index], &by_head(&keys));
            assert_close("nv", &found[2 + 3 * index], &by_head(&values));
            assert_close("xa", &found[3 + 3 * index], &probabilities);
        }
        assert_close("hidden", &found[0], &reference.norm("model.decoder.layer_norm", &x)[0]);
    }
}

#[test]
fn a_transpose_turns_rows_into_columns() {
    let half = |dims: &[usize], bytes: &[u8]| Half { dims: dims.to_vec(), bytes: bytes.to_vec() };
    let matrix = half(&[2, 3], &[1, 0, 2, 0, 3, 0, 4, 0, 5, 0, 6, 0]);
    assert_eq!(matrix.transposed(), half(&[3, 2], &[1, 0, 4, 0, 2, 0, 5, 0, 3, 0, 6, 0]));
}
