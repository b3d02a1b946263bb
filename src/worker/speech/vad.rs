//! Silero VAD: how likely each 32 ms of a channel is speech.
//! Trusts: the verified model.
//! Touches: nothing.
//! Next: `segment` turns the probabilities into regions.

use std::sync::Arc;

use tract_onnx::prelude::*;

/// Samples in one frame, 32 ms.
pub const FRAME: usize = 512;
/// Samples before the frame that the model also hears.
const CONTEXT: usize = 64;
/// Frames in one run. Always the same number, so that the probabilities do not depend on how the samples were cut into pieces.
pub const BATCH: usize = 16;
/// Numbers in each of the two states of the recurrent layer.
const STATE: usize = 128;

/// The graph, shared by all channels and threads.
pub struct VadModel {
    plan: Arc<TypedRunnableModel>,
}

impl VadModel {
    /// Takes the sequence graph: `input [frames,576]`, `h` and `c` `[1,1,128]` to `speech_probs [frames]`, `hn`, `cn`.
    pub const fn new(plan: Arc<TypedRunnableModel>) -> Self {
        Self { plan }
    }

    /// A listener for one channel, from its first sample.
    ///
    /// # Errors
    /// What tract says when it cannot make two small tensors.
    pub fn listen(&self) -> TractResult<VadState> {
        let zero = || Tensor::zero::<f32>(&[1, 1, STATE]).map(TValue::from);
        Ok(VadState { plan: Arc::clone(&self.plan), hidden: zero()?, cell: zero()?, context: [0.0; CONTEXT] })
    }
}

/// What the model remembers of one channel.
pub struct VadState {
    plan: Arc<TypedRunnableModel>,
    hidden: TValue,
    cell: TValue,
    context: [f32; CONTEXT],
}

impl VadState {
    /// Probability of speech, 0..=1, for each of the [`BATCH`] frames in `samples`, which follow those of the last call.
    /// Samples past `BATCH * FRAME` are not heard, missing ones are silence.
    ///
    /// # Errors
    /// What tract says.
    pub fn hear(&mut self, samples: &[f32]) -> TractResult<Vec<f32>> {
        let mut input = Vec::with_capacity(BATCH * (CONTEXT + FRAME));
        let silence = [0f32; FRAME];
        let mut frames = samples.chunks(FRAME);
        for _ in 0..BATCH {
            let frame = frames.next().unwrap_or(&silence);
            input.extend_from_slice(&self.context);
            input.extend_from_slice(frame);
            input.resize(input.len() + FRAME - frame.len(), 0.0);
            if let Some(tail) = input.last_chunk::<CONTEXT>() {
                self.context = *tail;
            }
        }
        let input = Tensor::from_shape(&[BATCH, CONTEXT + FRAME], &input)?;
        let outputs = self.plan.run(tvec!(input.into(), self.hidden.clone(), self.cell.clone()))?;
        let mut outputs = outputs.into_iter();
        let (Some(probabilities), Some(hidden), Some(cell)) = (outputs.next(), outputs.next(), outputs.next()) else {
            return Err(TractError::msg("the voice activity graph has fewer than three outputs"));
        };
        self.hidden = hidden;
        self.cell = cell;
        Ok(probabilities.try_as_plain_ram()?.as_slice::<f32>()?.to_vec())
    }
}
