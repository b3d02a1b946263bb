//! The weights of one Whisper model as half-precision tensors under their usual names, and their check for shape.
//! Trusts: nothing; every tensor's shape is checked against the model's dimensions, and nothing may be left over.
//! Touches: memory only.
//! Next: `graph` and `tables` write them out.

use std::collections::BTreeMap;

use tract_onnx::prelude::f16;

/// Mel bands that the speech front end computes; models trained on 128 bands are refused.
pub const MEL_BANDS: usize = 80;
/// Width of one attention head, the same in every Whisper model.
pub const HEAD_WIDTH: usize = 64;
/// Positions of the decoder, the same in every Whisper model.
pub const TEXT_CONTEXT: usize = 448;
/// Positions of the encoder: 30 s of sound, 20 ms each.
pub const AUDIO_CONTEXT: usize = 1500;
/// More layers than any published model has; a larger count is a damaged file.
const MAX_LAYERS: usize = 64;

/// A tensor of IEEE half-precision numbers, row-major, little-endian.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Half {
    /// Sizes of the axes, outermost first.
    pub dims: Vec<usize>,
    /// Two bytes a number.
    pub bytes: Vec<u8>,
}

/// How a number is stored before it is made half precision.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Element {
    /// IEEE single precision.
    F32,
    /// IEEE half precision.
    F16,
    /// The upper half of a single-precision number.
    Bf16,
}

impl Half {
    /// Makes little-endian numbers half precision; none when one of them is too large or no number.
    pub fn convert(dims: Vec<usize>, element: Element, bytes: Vec<u8>) -> Option<Self> {
        let bytes = match element {
            Element::F16 => {
                let finite = bytes.chunks_exact(2).all(|cell| matches!(cell, &[a, b] if f16::from_le_bytes([a, b]).is_finite()));
                return finite.then_some(Self { dims, bytes });
            }
            Element::F32 => {
                let numbers = bytes.chunks_exact(4).map(|cell| match *cell {
                    [a, b, c, d] => f32::from_le_bytes([a, b, c, d]),
                    _ => f32::NAN,
                });
                halves(numbers)?
            }
            Element::Bf16 => {
                let numbers = bytes.chunks_exact(2).map(|cell| match *cell {
                    [a, b] => f32::from_le_bytes([0, 0, a, b]),
                    _ => f32::NAN,
                });
                halves(numbers)?
            }
        };
        Some(Self { dims, bytes })
    }

    /// Rows `from..to` of the first axis.
    fn rows(&self, from: usize, to: usize) -> Option<Self> {
        let (&count, rest) = self.dims.split_first()?;
        let row = self.bytes.len().checked_div(count)?;
        let bytes = self.bytes.get(from.checked_mul(row)?..to.checked_mul(row)?)?.to_vec();
        let dims = std::iter::once(to.checked_sub(from)?).chain(rest.iter().copied()).collect();
        Some(Self { dims, bytes })
    }

    /// Cuts the first axis in `parts` equal pieces; none when it does not divide.
    pub fn split_rows(&self, parts: usize) -> Option<Vec<Self>> {
        let count = *self.dims.first()?;
        let each = count.checked_div(parts)?;
        if each.checked_mul(parts)? != count {
            return None;
        }
        (0..parts).map(|part| self.rows(part * each, (part + 1) * each)).collect()
    }

    /// The transpose of a matrix; other ranks come back unchanged.
    pub fn transposed(&self) -> Self {
        let &[rows, columns] = self.dims.as_slice() else { return self.clone() };
        let mut bytes = Vec::with_capacity(self.bytes.len());
        for column in 0..columns {
            let cells = self.bytes.chunks_exact(2).skip(column).step_by(columns.max(1));
            cells.for_each(|cell| bytes.extend_from_slice(cell));
        }
        Self { dims: vec![columns, rows], bytes }
    }

    /// True when every bit but the signs is zero.
    pub fn is_zero(&self) -> bool {
        self.bytes.chunks_exact(2).all(|cell| matches!(cell, [0, 0 | 0x80]))
    }
}

fn halves(numbers: impl ExactSizeIterator<Item = f32>) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(2 * numbers.len());
    for number in numbers {
        let half = f16::from_f32(number);
        if !half.is_finite() {
            return None;
        }
        bytes.extend_from_slice(&half.to_le_bytes());
    }
    Some(bytes)
}

/// Tensors by the names of the usual checkpoint: `model.encoder.conv1.weight`.
pub type Tensors = BTreeMap<String, Half>;

/// `y = W x + b`, `W` as `[out, in]` (or `[out, in, 3]` for a convolution).
pub struct Linear {
    /// `W`.
    pub weight: Half,
    /// `b`; key projections have none.
    pub bias: Option<Half>,
}

/// A layer norm with epsilon 1e-5.
pub struct Norm {
    /// Scale.
    pub gamma: Half,
    /// Shift.
    pub beta: Half,
}

/// One attention block with the norm before it.
pub struct Attention {
    /// Norm of the input.
    pub norm: Norm,
    /// Query.
    pub q: Linear,
    /// Key, without bias.
    pub k: Linear,
    /// Value.
    pub v: Linear,
    /// Output projection.
    pub out: Linear,
}

/// Two linear layers around a GELU, with the norm before them.
pub struct FeedForward {
    /// Norm of the input.
    pub norm: Norm,
    /// `[4 d, d]`.
    pub up: Linear,
    /// `[d, 4 d]`.
    pub down: Linear,
}

/// A layer of the encoder.
pub struct EncoderLayer {
    /// Attention over the sound.
    pub attention: Attention,
    /// Feed-forward block.
    pub feed: FeedForward,
}

/// A layer of the decoder.
pub struct DecoderLayer {
    /// Attention over the text so far.
    pub attention: Attention,
    /// Attention over the encoder's output.
    pub cross: Attention,
    /// Feed-forward block.
    pub feed: FeedForward,
}

/// A whole model whose shapes fit together.
pub struct Weights {
    /// Width of the model, a multiple of [`HEAD_WIDTH`].
    pub width: usize,
    /// Size of the vocabulary.
    pub vocabulary: usize,
    /// First convolution, `[d, 80, 3]`.
    pub conv1: Linear,
    /// Second convolution, `[d, d, 3]`, stride 2.
    pub conv2: Linear,
    /// `[1500, d]`.
    pub audio_positions: Half,
    /// Encoder layers, first to last.
    pub encoder: Vec<EncoderLayer>,
    /// Norm after the encoder.
    pub encoder_norm: Norm,
    /// `[V, d]`; also the output projection.
    pub embeddings: Half,
    /// `[448, d]`.
    pub text_positions: Half,
    /// Decoder layers, first to last.
    pub decoder: Vec<DecoderLayer>,
    /// Norm after the decoder.
    pub decoder_norm: Norm,
}

impl Weights {
    /// Attention heads.
    pub const fn heads(&self) -> usize {
        self.width / HEAD_WIDTH
    }

    /// Puts the tensors in their places.
    ///
    /// # Errors
    /// [`WeightsError`] names the tensor that is missing, of another shape, or unknown.
    pub fn assemble(tensors: Tensors) -> Result<Self, WeightsError> {
        let (width, vocabulary) = dimensions(&tensors)?;
        let mut parts = Parts { tensors, width };
        let weights = Self {
            width,
            vocabulary,
            conv1: parts.linear("model.encoder.conv1", &[width, MEL_BANDS, 3])?,
            conv2: parts.linear("model.encoder.conv2", &[width, width, 3])?,
            audio_positions: parts.take("model.encoder.embed_positions.weight", &[AUDIO_CONTEXT, width])?,
            encoder: parts.layers("model.encoder", Parts::encoder_layer)?,
            encoder_norm: parts.norm("model.encoder.layer_norm")?,
            embeddings: parts.take("model.decoder.embed_tokens.weight", &[vocabulary, width])?,
            text_positions: parts.take("model.decoder.embed_positions.weight", &[TEXT_CONTEXT, width])?,
            decoder: parts.layers("model.decoder", Parts::decoder_layer)?,
            decoder_norm: parts.norm("model.decoder.layer_norm")?,
        };
        match parts.tensors.into_keys().next() {
            Some(name) => Err(WeightsError::Unknown { name }),
            None => Ok(weights),
        }
    }
}

/// Why tensors are not a Whisper model.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum WeightsError {
    /// A tensor is not there.
    #[error("the weights lack the tensor {name}; the file is incomplete or not a Whisper model")]
    Missing {
        /// Its usual name.
        name: String,
    },
    /// A tensor has another shape than the model's dimensions ask for.
    #[error("the tensor {name} has the shape {found:?} instead of {expected:?}")]
    Shape {
        /// Its usual name.
        name: String,
        /// As read.
        found: Vec<usize>,
        /// As needed.
        expected: Vec<usize>,
    },
    /// Another number of mel bands than the speech front end computes.
    #[error("the model wants {found} mel bands, this importer knows models of {MEL_BANDS} (tiny to large-v2, not large-v3)")]
    MelBands {
        /// As read.
        found: usize,
    },
    /// The width is not a whole number of heads.
    #[error("the model's width of {found} is not a multiple of {HEAD_WIDTH}")]
    Width {
        /// As read.
        found: usize,
    },
    /// No layer, or more than any Whisper model has.
    #[error("{part} has {found} layers; a Whisper model has 1 to {MAX_LAYERS}")]
    Layers {
        /// `model.encoder` or `model.decoder`.
        part: &'static str,
        /// As counted.
        found: usize,
    },
    /// A tensor that no Whisper model has.
    #[error("the tensor {name} belongs to no Whisper model that this importer knows")]
    Unknown {
        /// Its name.
        name: String,
    },
}

/// Width and vocabulary, from the tensors that show them.
fn dimensions(tensors: &Tensors) -> Result<(usize, usize), WeightsError> {
    let dims = |name: &str| match tensors.get(name) {
        Some(tensor) => Ok(tensor.dims.clone()),
        None => Err(WeightsError::Missing { name: name.to_owned() }),
    };
    let conv = dims("model.encoder.conv1.weight")?;
    let &[width, bands, 3] = conv.as_slice() else {
        let expected = vec![conv.first().copied().unwrap_or(0), MEL_BANDS, 3];
        return Err(WeightsError::Shape { name: "model.encoder.conv1.weight".to_owned(), found: conv, expected });
    };
    if bands != MEL_BANDS {
        return Err(WeightsError::MelBands { found: bands });
    }
    if width == 0 || !width.is_multiple_of(HEAD_WIDTH) {
        return Err(WeightsError::Width { found: width });
    }
    let vocabulary = dims("model.decoder.embed_tokens.weight")?.first().copied().unwrap_or(0);
    Ok((width, vocabulary))
}

/// Tensors that have not found their place yet.
struct Parts {
    tensors: Tensors,
    width: usize,
}

impl Parts {
    fn take(&mut self, name: &str, dims: &[usize]) -> Result<Half, WeightsError> {
        let tensor = self.tensors.remove(name).ok_or_else(|| WeightsError::Missing { name: name.to_owned() })?;
        if tensor.dims == dims {
            Ok(tensor)
        } else {
            Err(WeightsError::Shape { name: name.to_owned(), found: tensor.dims, expected: dims.to_vec() })
        }
    }

    fn linear(&mut self, name: &str, dims: &[usize]) -> Result<Linear, WeightsError> {
        let mut linear = self.linear_without_bias(name, dims)?;
        linear.bias = Some(self.take(&format!("{name}.bias"), dims.get(..1).unwrap_or(dims))?);
        Ok(linear)
    }

    fn linear_without_bias(&mut self, name: &str, dims: &[usize]) -> Result<Linear, WeightsError> {
        Ok(Linear { weight: self.take(&format!("{name}.weight"), dims)?, bias: None })
    }

    fn norm(&mut self, name: &str) -> Result<Norm, WeightsError> {
        let dims = [self.width];
        Ok(Norm { gamma: self.take(&format!("{name}.weight"), &dims)?, beta: self.take(&format!("{name}.bias"), &dims)? })
    }

    fn attention(&mut self, layer: &str, block: &str) -> Result<Attention, WeightsError> {
        let square = [self.width, self.width];
        Ok(Attention {
            norm: self.norm(&format!("{layer}.{block}_layer_norm"))?,
            q: self.linear(&format!("{layer}.{block}.q_proj"), &square)?,
            k: self.linear_without_bias(&format!("{layer}.{block}.k_proj"), &square)?,
            v: self.linear(&format!("{layer}.{block}.v_proj"), &square)?,
            out: self.linear(&format!("{layer}.{block}.out_proj"), &square)?,
        })
    }

    fn feed_forward(&mut self, layer: &str) -> Result<FeedForward, WeightsError> {
        let (narrow, wide) = (self.width, 4 * self.width);
        Ok(FeedForward {
            norm: self.norm(&format!("{layer}.final_layer_norm"))?,
            up: self.linear(&format!("{layer}.fc1"), &[wide, narrow])?,
            down: self.linear(&format!("{layer}.fc2"), &[narrow, wide])?,
        })
    }

    fn encoder_layer(&mut self, layer: &str) -> Result<EncoderLayer, WeightsError> {
        Ok(EncoderLayer { attention: self.attention(layer, "self_attn")?, feed: self.feed_forward(layer)? })
    }

    fn decoder_layer(&mut self, layer: &str) -> Result<DecoderLayer, WeightsError> {
        Ok(DecoderLayer {
            attention: self.attention(layer, "self_attn")?,
            cross: self.attention(layer, "encoder_attn")?,
            feed: self.feed_forward(layer)?,
        })
    }

    fn layers<L>(&mut self, part: &'static str, read: impl Fn(&mut Self, &str) -> Result<L, WeightsError>) -> Result<Vec<L>, WeightsError> {
        let marker = |index: usize| format!("{part}.layers.{index}.fc1.weight");
        let count = (0..=MAX_LAYERS).take_while(|&index| self.tensors.contains_key(&marker(index))).count();
        if count == 0 || count > MAX_LAYERS {
            return Err(WeightsError::Layers { part, found: count });
        }
        (0..count).map(|index| read(self, &format!("{part}.layers.{index}"))).collect()
    }
}
