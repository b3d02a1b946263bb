//! The two ONNX graphs of a Whisper model: encoder with the cross-attention's keys and values, and one decoder step.
//! Trusts: `Weights`, whose shapes have been checked.
//! Touches: memory only.
//! Next: `import` writes them to files; `worker::speech` runs them.

use super::onnx::{Graph, GraphBuilder, attribute_int, attribute_ints, int};
use super::weights::{Attention, FeedForward, HEAD_WIDTH, Linear, MEL_BANDS, Weights};
use crate::model::manifest::Axis;

/// 1/sqrt(64): scales the queries.
const QUERY_SCALE: f32 = 0.125;

/// `mel [1,80,2K]` -> `enc [1,K,d]` and, for each decoder layer, `ck_i [1,H,64,K]` and `cv_i [1,H,K,64]`.
/// Cross keys and values are made here, once a window, and the keys already lie transposed.
pub fn encoder(weights: &Weights) -> Graph {
    let mut g = GraphBuilder::new("encoder.onnx");
    let mel = g.input("mel", vec![fixed(1), fixed(MEL_BANDS), symbol("2*K")]);
    let heads = Heads::new(&mut g, weights);

    let mut x = convolution(&mut g, "conv1", &mel, &weights.conv1, 1);
    x = convolution(&mut g, "conv2", &x, &weights.conv2, 2);
    x = g.node("Transpose", "sound", &[&x], vec![attribute_ints("perm", &[0, 2, 1])]);
    x = add_positions(&mut g, &x, weights);
    for (i, layer) in weights.encoder.iter().enumerate() {
        x = sound_attention(&mut g, &format!("layer{i}.attention"), &x, &layer.attention, &heads);
        x = feed_forward(&mut g, &format!("layer{i}.feed"), &x, &layer.feed);
    }
    let sound = g.norm("enc", &x, &weights.encoder_norm);
    g.output("enc", vec![fixed(1), symbol("K"), fixed(weights.width)]);

    for (i, layer) in weights.decoder.iter().enumerate() {
        let k = g.linear(&format!("cross{i}.k"), &sound, &layer.cross.k);
        heads.split(&mut g, &format!("ck_{i}"), &k, KEY_ORDER);
        g.output(&format!("ck_{i}"), vec![fixed(1), fixed(weights.heads()), fixed(HEAD_WIDTH), symbol("K")]);
        let v = g.linear(&format!("cross{i}.v"), &sound, &layer.cross.v);
        heads.split(&mut g, &format!("cv_{i}"), &v, ROW_ORDER);
        g.output(&format!("cv_{i}"), vec![fixed(1), fixed(weights.heads()), symbol("K"), fixed(HEAD_WIDTH)]);
    }
    g.finish()
}

/// One token: `x [1,1,d]`, then `pk_i, pv_i [1,H,P,64], ck_i, cv_i` for each layer -> `hidden [1,1,d]`, then `nk_i, nv_i [1,H,P+1,64]`
/// and `xa_i [1,H,1,K]`, the attention to the sound. One token needs no mask.
pub fn decoder(weights: &Weights) -> Graph {
    let mut g = GraphBuilder::new("decoder.onnx");
    let (h, width) = (fixed(weights.heads()), fixed(HEAD_WIDTH));
    let mut x = g.input("x", vec![fixed(1), fixed(1), fixed(weights.width)]);
    for i in 0..weights.decoder.len() {
        g.input(&format!("pk_{i}"), vec![fixed(1), h.clone(), symbol("P"), width.clone()]);
        g.input(&format!("pv_{i}"), vec![fixed(1), h.clone(), symbol("P"), width.clone()]);
        g.input(&format!("ck_{i}"), vec![fixed(1), h.clone(), width.clone(), symbol("K")]);
        g.input(&format!("cv_{i}"), vec![fixed(1), h.clone(), symbol("K"), width.clone()]);
    }
    let heads = Heads::new(&mut g, weights);
    for (i, layer) in weights.decoder.iter().enumerate() {
        x = text_attention(&mut g, i, &x, &layer.attention, &heads);
        x = cross_attention(&mut g, i, &x, &layer.cross, &heads);
        x = feed_forward(&mut g, &format!("layer{i}.feed"), &x, &layer.feed);
    }
    g.norm("hidden", &x, &weights.decoder_norm);

    g.output("hidden", vec![fixed(1), fixed(1), fixed(weights.width)]);
    for i in 0..weights.decoder.len() {
        g.output(&format!("nk_{i}"), vec![fixed(1), h.clone(), symbol("P+1"), width.clone()]);
        g.output(&format!("nv_{i}"), vec![fixed(1), h.clone(), symbol("P+1"), width.clone()]);
        g.output(&format!("xa_{i}"), vec![fixed(1), h.clone(), fixed(1), symbol("K")]);
    }
    g.finish()
}

/// `[1,T,H,64]` -> `[1,H,T,64]`.
const ROW_ORDER: &[i64] = &[0, 2, 1, 3];
/// `[1,T,H,64]` -> `[1,H,64,T]`: keys ready for the product with queries.
const KEY_ORDER: &[i64] = &[0, 2, 3, 1];

fn fixed(size: usize) -> Axis {
    Axis::Fixed(size.try_into().unwrap_or(u64::MAX))
}

fn symbol(text: &str) -> Axis {
    Axis::Symbol(text.to_owned())
}

/// Constants that cut rows into heads and put them together again.
struct Heads {
    split: String,
    join: String,
    scale: String,
}

impl Heads {
    fn new(g: &mut GraphBuilder, weights: &Weights) -> Self {
        // 0 keeps an axis as it is.
        let split = g.integers("heads.split", &[0, 0, int(weights.heads()), int(HEAD_WIDTH)]);
        let join = g.integers("heads.join", &[0, 0, int(weights.width)]);
        let scale = g.number("heads.scale", QUERY_SCALE);
        Self { split, join, scale }
    }

    fn split(&self, g: &mut GraphBuilder, name: &str, x: &str, order: &[i64]) -> String {
        let cut = g.node("Reshape", &format!("{name}.heads"), &[x, &self.split], vec![]);
        g.node("Transpose", name, &[&cut], vec![attribute_ints("perm", order)])
    }

    fn query(&self, g: &mut GraphBuilder, name: &str, x: &str, q: &Linear) -> String {
        let q = g.linear(&format!("{name}.q"), x, q);
        let scaled = g.node("Mul", &format!("{name}.q.scaled"), &[&q, &self.scale], vec![]);
        self.split(g, &format!("{name}.q.rows"), &scaled, ROW_ORDER)
    }

    fn join(&self, g: &mut GraphBuilder, name: &str, x: &str) -> String {
        let rows = g.node("Transpose", &format!("{name}.rows"), &[x], vec![attribute_ints("perm", ROW_ORDER)]);
        g.node("Reshape", &format!("{name}.joined"), &[&rows, &self.join], vec![])
    }

    /// softmax(q k) v, joined, projected and added to `x`. `k` is `[1,H,64,T]`; the softmax is the node `probabilities`.
    fn attend(&self, g: &mut GraphBuilder, block: &Block<'_>, q: &str, k: &str, v: &str) -> String {
        let name = block.name;
        let scores = g.node("MatMul", &format!("{name}.scores"), &[q, k], vec![]);
        let weights = g.node("Softmax", block.probabilities, &[&scores], vec![attribute_int("axis", -1)]);
        let mixed = g.node("MatMul", &format!("{name}.mixed"), &[&weights, v], vec![]);
        let joined = self.join(g, &format!("{name}.mixed"), &mixed);
        let out = g.linear(&format!("{name}.out"), &joined, &block.attention.out);
        g.node("Add", name, &[block.x, &out], vec![])
    }
}

/// What every kind of attention block has.
struct Block<'a> {
    name: &'a str,
    probabilities: &'a str,
    x: &'a str,
    attention: &'a Attention,
}

fn convolution(g: &mut GraphBuilder, name: &str, x: &str, conv: &Linear, stride: i64) -> String {
    let weight = g.weight(&format!("{name}.weight"), &conv.weight);
    let mut inputs = vec![x, weight.as_str()];
    let bias = conv.bias.as_ref().map(|bias| g.weight(&format!("{name}.bias"), bias));
    inputs.extend(bias.as_deref());
    let attributes = vec![attribute_ints("kernel_shape", &[3]), attribute_ints("pads", &[1, 1]), attribute_ints("strides", &[stride])];
    let out = g.node("Conv", &format!("{name}.convolved"), &inputs, attributes);
    g.node("Gelu", name, &[&out], vec![])
}

/// Adds the first K rows of the position table.
fn add_positions(g: &mut GraphBuilder, x: &str, weights: &Weights) -> String {
    let table = g.weight("positions.table", &weights.audio_positions);
    let shape = g.node("Shape", "positions.shape", &[x], vec![]);
    let (zero, one, two) = (g.integers("positions.0", &[0]), g.integers("positions.1", &[1]), g.integers("positions.2", &[2]));
    let length = g.node("Slice", "positions.length", &[&shape, &one, &two, &zero], vec![]);
    let rows = g.node("Slice", "positions.rows", &[&table, &zero, &length, &zero], vec![]);
    g.node("Add", "positions", &[x, &rows], vec![])
}

fn sound_attention(g: &mut GraphBuilder, name: &str, x: &str, attention: &Attention, heads: &Heads) -> String {
    let normed = g.norm(&format!("{name}.norm"), x, &attention.norm);
    let q = heads.query(g, name, &normed, &attention.q);
    let k = g.linear(&format!("{name}.k"), &normed, &attention.k);
    let k = heads.split(g, &format!("{name}.k.columns"), &k, KEY_ORDER);
    let v = g.linear(&format!("{name}.v"), &normed, &attention.v);
    let v = heads.split(g, &format!("{name}.v.rows"), &v, ROW_ORDER);
    let block = Block { name, probabilities: &format!("{name}.probabilities"), x, attention };
    heads.attend(g, &block, &q, &k, &v)
}

fn text_attention(g: &mut GraphBuilder, i: usize, x: &str, attention: &Attention, heads: &Heads) -> String {
    let name = &format!("layer{i}.attention");
    let normed = g.norm(&format!("{name}.norm"), x, &attention.norm);
    let q = heads.query(g, name, &normed, &attention.q);
    let grown = |g: &mut GraphBuilder, which: &str, linear: &Linear| {
        let new = g.linear(&format!("{name}.{which}"), &normed, linear);
        let new = heads.split(g, &format!("{name}.{which}.rows"), &new, ROW_ORDER);
        g.node("Concat", &format!("n{which}_{i}"), &[&format!("p{which}_{i}"), &new], vec![attribute_int("axis", 2)])
    };
    let k = grown(g, "k", &attention.k);
    let v = grown(g, "v", &attention.v);
    let k = g.node("Transpose", &format!("{name}.k.columns"), &[&k], vec![attribute_ints("perm", &[0, 1, 3, 2])]);
    let block = Block { name, probabilities: &format!("{name}.probabilities"), x, attention };
    heads.attend(g, &block, &q, &k, &v)
}

fn cross_attention(g: &mut GraphBuilder, i: usize, x: &str, attention: &Attention, heads: &Heads) -> String {
    let name = &format!("layer{i}.cross");
    let normed = g.norm(&format!("{name}.norm"), x, &attention.norm);
    let q = heads.query(g, name, &normed, &attention.q);
    let block = Block { name, probabilities: &format!("xa_{i}"), x, attention };
    heads.attend(g, &block, &q, &format!("ck_{i}"), &format!("cv_{i}"))
}

fn feed_forward(g: &mut GraphBuilder, name: &str, x: &str, feed: &FeedForward) -> String {
    let normed = g.norm(&format!("{name}.norm"), x, &feed.norm);
    let wide = g.linear(&format!("{name}.up"), &normed, &feed.up);
    let bent = g.node("Gelu", &format!("{name}.gelu"), &[&wide], vec![]);
    let out = g.linear(&format!("{name}.down"), &bent, &feed.down);
    g.node("Add", name, &[x, &out], vec![])
}
