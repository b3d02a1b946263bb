//! A tiny Whisper model with made-up weights, written as either family of checkpoint.
//! Trusts: nobody; it is for tests only.
//! Touches: the test's own directory.
//! Next: `tests` imports it.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use safetensors::Dtype;
use safetensors::tensor::{TensorView, serialize};
use serde_json::json;
use tract_onnx::prelude::f16;

use super::weights::{AUDIO_CONTEXT, Half, MEL_BANDS, TEXT_CONTEXT, Tensors};

pub const WIDTH: usize = 128;
pub const DECODER_LAYERS: usize = 2;
/// Three letters, seven control tokens, 1501 time tokens.
pub const VOCABULARY: usize = 3 + 7 + 1501;

/// Numbers that look random and are the same every time.
pub struct Numbers(u32);

impl Numbers {
    pub fn new(seed: u32) -> Self {
        Self(seed)
    }

    pub fn list(&mut self, count: usize, around: f32, spread: f32) -> Vec<f32> {
        let mut next = || {
            self.0 = self.0.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let [_, _, low, high] = self.0.to_le_bytes();
            around + spread * (f32::from(u16::from_le_bytes([low, high])) / 32768.0 - 1.0)
        };
        (0..count).map(|_| next()).collect()
    }
}

/// All tensors under their usual names; `bands` is for a model that must be refused.
pub fn tensors(bands: usize) -> Tensors {
    let mut all = Tensors::new();
    let mut numbers = Numbers::new(7);
    let mut put = |name: String, dims: &[usize], around: f32| {
        let values = numbers.list(dims.iter().product(), around, 0.2);
        let bytes = values.into_iter().flat_map(|value| f16::from_f32(value).to_le_bytes()).collect();
        all.insert(name, Half { dims: dims.to_vec(), bytes });
    };
    let (d, wide) = (WIDTH, 4 * WIDTH);
    put("model.encoder.conv1.weight".into(), &[d, bands, 3], 0.0);
    put("model.encoder.conv1.bias".into(), &[d], 0.0);
    put("model.encoder.conv2.weight".into(), &[d, d, 3], 0.0);
    put("model.encoder.conv2.bias".into(), &[d], 0.0);
    put("model.encoder.embed_positions.weight".into(), &[AUDIO_CONTEXT, d], 0.0);
    put("model.decoder.embed_positions.weight".into(), &[TEXT_CONTEXT, d], 0.0);
    put("model.decoder.embed_tokens.weight".into(), &[VOCABULARY, d], 0.0);
    for (side, layers) in [("encoder", 1), ("decoder", DECODER_LAYERS)] {
        let blocks: &[&str] = if side == "encoder" { &["self_attn"] } else { &["self_attn", "encoder_attn"] };
        let mut norms = vec![format!("model.{side}.layer_norm")];
        for layer in (0..layers).map(|layer| format!("model.{side}.layers.{layer}")) {
            for block in blocks {
                norms.push(format!("{layer}.{block}_layer_norm"));
                for part in ["q_proj", "k_proj", "v_proj", "out_proj"] {
                    put(format!("{layer}.{block}.{part}.weight"), &[d, d], 0.0);
                    if part != "k_proj" {
                        put(format!("{layer}.{block}.{part}.bias"), &[d], 0.0);
                    }
                }
            }
            norms.push(format!("{layer}.final_layer_norm"));
            for (name, out, from) in [("fc1", wide, d), ("fc2", d, wide)] {
                put(format!("{layer}.{name}.weight"), &[out, from], 0.0);
                put(format!("{layer}.{name}.bias"), &[out], 0.0);
            }
        }
        for norm in norms {
            put(format!("{norm}.weight"), &[d], 1.0);
            put(format!("{norm}.bias"), &[d], 0.0);
        }
    }
    all
}

/// Names and dimensions as a reader of `Half` expects them, for the checkpoints of both families.
fn write_tokenizer(directory: &Path) {
    let control = ["<|endoftext|>", "<|startoftranscript|>", "<|en|>", "<|sw|>", "<|transcribe|>", "<|nocaptions|>", "<|notimestamps|>"];
    let added: Vec<_> = (3..).zip(control).map(|(id, content)| json!({ "id": id, "content": content })).collect();
    // U+0120 stands for a space, U+00C3 for the byte C3.
    let tokenizer = json!({ "model": { "vocab": { "a": 0, "\u{120}b": 1, "\u{c3}": 2 } }, "added_tokens": added });
    fs::write(directory.join("tokenizer.json"), tokenizer.to_string()).unwrap();
}

/// A Hugging Face directory, its tensors in single or half precision.
pub fn write_hugging_face(directory: &Path, tensors: &Tensors, single: bool) {
    let data: BTreeMap<&str, (Vec<usize>, Vec<u8>)> = tensors
        .iter()
        .map(|(name, half)| (name.as_str(), (half.dims.clone(), if single { widened(half) } else { half.bytes.clone() })))
        .collect();
    let dtype = if single { Dtype::F32 } else { Dtype::F16 };
    let views = data.iter().map(|(name, (dims, bytes))| (*name, TensorView::new(dtype, dims.clone(), bytes).unwrap()));
    fs::write(directory.join("model.safetensors"), serialize(views, None).unwrap()).unwrap();
    let heads = WIDTH / 64;
    let config = json!({ "model_type": "whisper", "d_model": WIDTH, "encoder_attention_heads": heads, "decoder_attention_heads": heads, "vocab_size": VOCABULARY });
    fs::write(directory.join("config.json"), config.to_string()).unwrap();
    let generation = json!({ "suppress_tokens": [2, 1], "begin_suppress_tokens": [1, 3], "alignment_heads": [[1, 0], [1, 1]] });
    fs::write(directory.join("generation_config.json"), generation.to_string()).unwrap();
    write_tokenizer(directory);
}

fn widened(half: &Half) -> Vec<u8> {
    half.bytes.chunks_exact(2).flat_map(|cell| f16::from_le_bytes([cell[0], cell[1]]).to_f32().to_le_bytes()).collect()
}

/// A CTranslate2 directory in half precision.
pub fn write_ct2(directory: &Path, tensors: &Tensors) {
    fs::write(directory.join("model.bin"), ct2(tensors)).unwrap();
    let config = json!({ "suppress_ids": [1, 2], "suppress_ids_begin": [1, 3], "alignment_heads": [[1, 0], [1, 1]], "lang_ids": [5, 6] });
    fs::write(directory.join("config.json"), config.to_string()).unwrap();
    write_tokenizer(directory);
}

/// `model.bin`.
pub fn ct2(tensors: &Tensors) -> Vec<u8> {
    let mut file = Ct2Writer::new();
    for (name, value) in [("decoder/activation", 3), ("decoder/pre_norm", 1), ("decoder/alibi", 0), ("decoder/scale_embeddings", 0)] {
        file.variable(name, &[], 1, &[value]);
    }
    file.variable("encoder/num_heads", &[], 2, &[2, 0]);
    let half = |name: &str| tensors.get(name).unwrap_or_else(|| panic!("no tensor {name}"));
    for side in ["encoder", "decoder"] {
        let usual = |rest: &str| format!("model.{side}.{rest}");
        let mut plain = vec![
            ("position_encodings/encodings", "embed_positions.weight"),
            ("layer_norm/gamma", "layer_norm.weight"),
            ("layer_norm/beta", "layer_norm.bias"),
        ];
        plain.extend(if side == "encoder" {
            vec![
                ("conv1/weight", "conv1.weight"),
                ("conv1/bias", "conv1.bias"),
                ("conv2/weight", "conv2.weight"),
                ("conv2/bias", "conv2.bias"),
            ]
        } else {
            vec![("embeddings/weight", "embed_tokens.weight")]
        });
        for (theirs, ours) in plain {
            file.half(&format!("{side}/{theirs}"), &[half(&usual(ours))]);
        }
        let layers = if side == "encoder" { 1 } else { DECODER_LAYERS };
        for layer in 0..layers {
            let to = format!("{side}/layer_{layer}");
            let from = usual(&format!("layers.{layer}"));
            file.layer(&to, &from, tensors, side == "decoder");
        }
    }
    file.alias("decoder/projection/weight", "decoder/embeddings/weight");
    file.finish()
}

/// Writes the format that `ct2` reads.
pub struct Ct2Writer {
    variables: Vec<u8>,
    count: u32,
    aliases: Vec<u8>,
    alias_count: u32,
}

impl Ct2Writer {
    pub fn new() -> Self {
        Self { variables: Vec::new(), count: 0, aliases: Vec::new(), alias_count: 0 }
    }

    pub fn variable(&mut self, name: &str, dims: &[usize], element: u8, bytes: &[u8]) {
        self.variables.extend(string(name));
        self.variables.push(u8::try_from(dims.len()).unwrap());
        self.variables.extend(dims.iter().flat_map(|&dim| u32::try_from(dim).unwrap().to_le_bytes()));
        self.variables.push(element);
        self.variables.extend(u32::try_from(bytes.len()).unwrap().to_le_bytes());
        self.variables.extend(bytes);
        self.count += 1;
    }

    /// Tensors fused by rows.
    fn half(&mut self, name: &str, parts: &[&Half]) {
        let mut dims = parts[0].dims.clone();
        dims[0] *= parts.len();
        self.variable(name, &dims, 4, &parts.iter().flat_map(|part| part.bytes.clone()).collect::<Vec<u8>>());
    }

    fn layer(&mut self, to: &str, from: &str, tensors: &Tensors, cross: bool) {
        let zero = Half { dims: vec![WIDTH], bytes: vec![0; 2 * WIDTH] };
        let find = |name: String| if name.ends_with("k_proj.bias") { &zero } else { &tensors[&name] };
        let mut blocks = vec![
            ("self_attention/linear_0", vec!["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"]),
            ("self_attention/linear_1", vec!["self_attn.out_proj"]),
            ("ffn/linear_0", vec!["fc1"]),
            ("ffn/linear_1", vec!["fc2"]),
        ];
        let mut norms = vec![("self_attention", "self_attn_layer_norm"), ("ffn", "final_layer_norm")];
        if cross {
            blocks.push(("attention/linear_0", vec!["encoder_attn.q_proj"]));
            blocks.push(("attention/linear_1", vec!["encoder_attn.k_proj", "encoder_attn.v_proj"]));
            blocks.push(("attention/linear_2", vec!["encoder_attn.out_proj"]));
            norms.push(("attention", "encoder_attn_layer_norm"));
        }
        for (block, parts) in blocks {
            for leaf in ["weight", "bias"] {
                let parts: Vec<&Half> = parts.iter().map(|part| find(format!("{from}.{part}.{leaf}"))).collect();
                self.half(&format!("{to}/{block}/{leaf}"), &parts);
            }
        }
        for (block, norm) in norms {
            self.half(&format!("{to}/{block}/layer_norm/gamma"), &[find(format!("{from}.{norm}.weight"))]);
            self.half(&format!("{to}/{block}/layer_norm/beta"), &[find(format!("{from}.{norm}.bias"))]);
        }
    }

    pub fn alias(&mut self, alias: &str, target: &str) {
        self.aliases.extend(string(alias));
        self.aliases.extend(string(target));
        self.alias_count += 1;
    }

    pub fn finish(self) -> Vec<u8> {
        let mut file = 6_u32.to_le_bytes().to_vec();
        file.extend(string("WhisperSpec"));
        file.extend(3_u32.to_le_bytes());
        file.extend(self.count.to_le_bytes());
        file.extend(self.variables);
        file.extend(self.alias_count.to_le_bytes());
        file.extend(self.aliases);
        file
    }
}

fn string(text: &str) -> Vec<u8> {
    let mut bytes = u16::try_from(text.len() + 1).unwrap().to_le_bytes().to_vec();
    bytes.extend(text.bytes());
    bytes.push(0);
    bytes
}

/// The tensors of a model that is fine.
pub fn good() -> Tensors {
    tensors(MEL_BANDS)
}
