//! Silero VAD: how likely each 32 ms of a channel is speech.
//! Trusts: the verified model.
//! Touches: nothing.
//! Next: `segment` turns the probabilities into regions.
//!
//! The network is written out here instead of being run by tract: it is small, always the same, and heard for every second of
//! every channel (docs/adr/0013). Its weights and their names are those of the sequence graph:
//!
//! ```text
//! 64 + 512 samples > 64 mirrored > 4 spectra of 129 > 4 convolutions > LSTM of 128 > one probability
//! ```

use std::ops::Range;
use std::sync::Arc;

use crate::model::load::LoadError;
use crate::model::tensors::Tensors;
use crate::sys::simd::{Panels, Places, Rows, RowsMut, product};

/// Samples in one frame, 32 ms.
pub const FRAME: usize = 512;
/// Samples before the frame that the model also hears.
const CONTEXT: usize = 64;
/// Frames in one run.
pub const BATCH: usize = 16;
/// Samples that are mirrored at the end of a frame.
const MIRROR: usize = 64;
const PADDED: usize = CONTEXT + FRAME + MIRROR;
/// Samples of a spectrum, from one to the next, and frequencies in it.
const WINDOW: usize = 256;
const HOP: usize = WINDOW / 2;
const BINS: usize = WINDOW / 2 + 1;
/// Spectra in a frame.
const STEPS: usize = 4;
/// Channels after the first and last convolution, and numbers in each state of the recurrent layer.
const WIDE: usize = 128;
/// Channels between them.
const NARROW: usize = 64;
/// Places under a convolution.
const TAPS: usize = 3;

/// The network, shared by all channels and threads.
pub struct VadModel {
    spectrum: Layer,
    first: Layer,
    second: Layer,
    third: Layer,
    fourth: Layer,
    input: Layer,
    recurrent: Layer,
    output: [f32; WIDE],
    output_bias: f32,
}

impl VadModel {
    /// Takes the weights out of the sequence graph.
    ///
    /// # Errors
    /// [`LoadError`] for weights that are missing, of another shape or too many: the graph is another version's.
    pub fn new(mut weights: Tensors) -> Result<Self, LoadError> {
        let from = &mut weights;
        let basis = from.take_wide("stft.forward_basis_buffer", &[2 * BINS, 1, WINDOW])?;
        let gates_in = from.take_wide("onnx::LSTM_209", &[1, 4 * WIDE, WIDE])?;
        let gates_back = from.take_wide("onnx::LSTM_210", &[1, 4 * WIDE, WIDE])?;
        let biases = from.take_wide("onnx::LSTM_211", &[1, 8 * WIDE])?;
        let (bias_in, bias_back) = biases.split_at(4 * WIDE);
        let model = Self {
            spectrum: Layer::new(WINDOW, 2 * BINS, |bin, sample| at(&basis, bin * WINDOW + sample), |_| 0.0),
            first: convolution(from, 0, WIDE, BINS, 0..TAPS)?,
            second: convolution(from, 1, NARROW, WIDE, 0..TAPS)?,
            third: convolution(from, 2, NARROW, NARROW, 0..TAPS)?,
            // One step is left, with nothing on either side.
            fourth: convolution(from, 3, WIDE, NARROW, 1..2)?,
            input: Layer::new(WIDE, 4 * WIDE, |gate, i| at(&gates_in, gate * WIDE + i), |gate| at(bias_in, gate) + at(bias_back, gate)),
            recurrent: Layer::new(WIDE, 4 * WIDE, |gate, i| at(&gates_back, gate * WIDE + i), |_| 0.0),
            output: *from.take_wide("output.weight", &[1, WIDE, 1])?.first_chunk().ok_or(LoadError::NoGraph)?,
            output_bias: at(&from.take_wide("output.bias", &[1])?, 0),
        };
        weights.finish()?;
        Ok(model)
    }

    /// A listener for one channel, from its first sample.
    pub fn listen(self: &Arc<Self>) -> VadState {
        VadState { model: Arc::clone(self), hidden: [0.0; WIDE], cell: [0.0; WIDE], context: [0.0; CONTEXT], room: Room::new() }
    }
}

/// A layer: `bias + x . weights`, its outputs filled up by zeros to whole panels.
struct Layer {
    weight: Panels<f32>,
    bias: Vec<f32>,
}

impl Layer {
    /// `weight(output, input)` and `bias(output)` for each.
    fn new(inputs: usize, outputs: usize, weight: impl Fn(usize, usize) -> f32, bias: impl Fn(usize) -> f32) -> Self {
        let mut panels = Panels::zero(inputs, outputs);
        for output in 0..outputs {
            panels.set_column(output, &(0..inputs).map(|input| weight(output, input)).collect::<Vec<f32>>());
        }
        let mut bias: Vec<f32> = (0..outputs).map(bias).collect();
        bias.resize(panels.padded_width(), 0.0);
        Self { weight: panels, bias }
    }

    /// Outputs of one vector, padding included.
    const fn outputs(&self) -> usize {
        self.weight.padded_width()
    }

    /// Fills `out` with the outputs of as many vectors as it has room for.
    fn apply(&self, x: &[f32], places: Places, out: &mut [f32]) {
        let count = out.len() / self.outputs();
        for row in out.chunks_exact_mut(self.outputs()) {
            row.copy_from_slice(&self.bias);
        }
        let rows = Rows { data: x, places, count, width: self.weight.depth() };
        product(rows, &self.weight, RowsMut::rows(out, self.outputs()));
    }
}

/// The convolution `encoder.NUMBER` over `taps` of its three places, inputs in the order place, channel.
fn convolution(from: &mut Tensors, number: usize, outputs: usize, channels: usize, taps: Range<usize>) -> Result<Layer, LoadError> {
    let weight = from.take_wide(&format!("encoder.{number}.weight"), &[outputs, channels, TAPS])?;
    let bias = from.take_wide(&format!("encoder.{number}.bias"), &[outputs])?;
    let of = |output: usize, input: usize| at(&weight, (output * channels + input % channels) * TAPS + taps.start + input / channels);
    Ok(Layer::new(taps.len() * channels, outputs, of, |output| at(&bias, output)))
}

/// Lengths were checked.
fn at(numbers: &[f32], index: usize) -> f32 {
    numbers.get(index).copied().unwrap_or_default()
}

/// What is between the layers, for one batch. Places that no layer writes are the zeros beside a convolution.
struct Room {
    samples: Vec<f32>,
    parts: Vec<f32>,
    spectra: Vec<f32>,
    wide: Vec<f32>,
    first: Vec<f32>,
    narrow: Vec<f32>,
    second: Vec<f32>,
    third: Vec<f32>,
    fourth: Vec<f32>,
    gates: Vec<f32>,
    back: Vec<f32>,
}

impl Room {
    fn new() -> Self {
        let zeros = |each: usize| vec![0.0; BATCH * each];
        Self {
            samples: zeros(PADDED),
            parts: Vec::new(),
            spectra: zeros((STEPS + 2) * BINS),
            wide: zeros(STEPS * WIDE),
            first: zeros((STEPS + 1) * WIDE),
            narrow: zeros(2 * NARROW),
            second: zeros(3 * NARROW),
            third: zeros(NARROW),
            fourth: zeros(WIDE),
            gates: zeros(4 * WIDE),
            back: vec![0.0; 4 * WIDE],
        }
    }
}

/// What the model remembers of one channel.
pub struct VadState {
    model: Arc<VadModel>,
    hidden: [f32; WIDE],
    cell: [f32; WIDE],
    context: [f32; CONTEXT],
    room: Room,
}

impl VadState {
    /// Probability of speech, 0..=1, for each of the [`BATCH`] frames in `samples`, which follow those of the last call.
    /// Samples past `BATCH * FRAME` are not heard, missing ones are silence. `None` when one comes out that is no number: it must
    /// not look like silence.
    pub fn hear(&mut self, samples: &[f32]) -> Option<Vec<f32>> {
        self.take(samples);
        self.encode();
        Some(self.recall()).filter(|told| told.iter().all(|probability| probability.is_finite()))
    }

    /// Frames with what was before them, and mirrored at their end.
    fn take(&mut self, samples: &[f32]) {
        let mut given = samples.chunks(FRAME);
        for frame in self.room.samples.chunks_exact_mut(PADDED) {
            let (before, rest) = frame.split_at_mut(CONTEXT);
            before.copy_from_slice(&self.context);
            let (here, mirror) = rest.split_at_mut(FRAME);
            let given = given.next().unwrap_or_default();
            let (heard, missing) = here.split_at_mut(given.len());
            heard.copy_from_slice(given);
            missing.fill(0.0);
            for (to, from) in mirror.iter_mut().zip(here.iter().rev().skip(1)) {
                *to = *from;
            }
            if let Some(tail) = here.last_chunk::<CONTEXT>() {
                self.context = *tail;
            }
        }
    }

    /// Spectra and convolutions of all frames.
    fn encode(&mut self) {
        let Self { model, room, .. } = self;
        room.parts.resize(BATCH * STEPS * model.spectrum.outputs(), 0.0);
        model.spectrum.apply(&room.samples, Places { per_step: STEPS, stride: HOP, step: PADDED }, &mut room.parts);
        let spectra = room.spectra.chunks_exact_mut((STEPS + 2) * BINS);
        for (frame, parts) in spectra.zip(room.parts.chunks_exact(STEPS * model.spectrum.outputs())) {
            for (spectrum, parts) in frame.chunks_exact_mut(BINS).skip(1).zip(parts.chunks_exact(model.spectrum.outputs())) {
                let (real, imaginary) = parts.split_at(BINS);
                for ((bin, real), imaginary) in spectrum.iter_mut().zip(real).zip(imaginary) {
                    *bin = (real * real + imaginary * imaginary).sqrt();
                }
            }
        }
        model.first.apply(&room.spectra, Places { per_step: STEPS, stride: BINS, step: (STEPS + 2) * BINS }, &mut room.wide);
        after_a_zero(&room.wide, &mut room.first, STEPS * WIDE, WIDE);
        model.second.apply(&room.first, Places { per_step: 2, stride: 2 * WIDE, step: (STEPS + 1) * WIDE }, &mut room.narrow);
        after_a_zero(&room.narrow, &mut room.second, 2 * NARROW, NARROW);
        model.third.apply(&room.second, Places::every(3 * NARROW), &mut room.third);
        rectify(&mut room.third);
        model.fourth.apply(&room.third, Places::every(NARROW), &mut room.fourth);
        rectify(&mut room.fourth);
        model.input.apply(&room.fourth, Places::every(WIDE), &mut room.gates);
    }

    /// The recurrent layer, frame by frame. Gates in the order of ONNX: input, output, forget, cell.
    #[expect(clippy::indexing_slicing, reason = "four arrays of one length, within it; adaptors would not be inlined here")]
    fn recall(&mut self) -> Vec<f32> {
        let Self { model, hidden, cell, room, .. } = self;
        let mut told = Vec::with_capacity(BATCH);
        let gates: (&[[f32; WIDE]], _) = room.gates.as_chunks();
        for ahead in gates.0.as_chunks::<4>().0 {
            model.recurrent.apply(hidden.as_slice(), Places::every(WIDE), &mut room.back);
            let Some(back) = room.back.as_chunks::<WIDE>().0.first_chunk::<4>() else { continue };
            let mut sum = model.output_bias;
            for at in 0..WIDE {
                let gate = |number: usize| ahead[number][at] + back[number][at];
                cell[at] = sigmoid(gate(2)) * cell[at] + sigmoid(gate(0)) * tanh(gate(3));
                hidden[at] = sigmoid(gate(1)) * tanh(cell[at]);
                sum += model.output[at] * rectified(hidden[at]);
            }
            told.push(sigmoid(sum));
        }
        told
    }
}

/// Rectified, each frame of `len` numbers behind the `gap` zeros that its convolution sees before it.
fn after_a_zero(from: &[f32], to: &mut [f32], len: usize, gap: usize) {
    for (from, to) in from.chunks_exact(len).zip(to.chunks_exact_mut(gap + len)) {
        for (from, to) in from.iter().zip(to.iter_mut().skip(gap)) {
            *to = rectified(*from);
        }
    }
}

fn rectify(numbers: &mut [f32]) {
    for number in numbers {
        *number = rectified(*number);
    }
}

/// What is no number stays so: it must not look like silence.
fn rectified(number: f32) -> f32 {
    if number < 0.0 { 0.0 } else { number }
}

fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + (-x).exp())
}

fn tanh(x: f32) -> f32 {
    2.0 * sigmoid(2.0 * x) - 1.0
}
