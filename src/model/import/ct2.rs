//! Reads a CTranslate2 `model.bin` of a Whisper model in half precision.
//! Trusts: nothing; every count and length is checked against the file's size before memory is taken for it.
//! Touches: the given file.
//! Next: `weights` puts the tensors in their places.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::Path;

use super::weights::{Element, Half, Tensors};

/// Versions of the binary format that are laid out as this reader expects.
const VERSIONS: std::ops::RangeInclusive<u32> = 4..=6;
const SPECIFICATION: &str = "WhisperSpec";
/// More variables than the largest Whisper model has (large-v2: 1260).
const MAX_VARIABLES: u32 = 4096;
/// Highest rank of a Whisper tensor.
const MAX_RANK: u8 = 3;
const PROJECTION: &str = "decoder/projection/weight";
/// Settings by the end of their names, as every Whisper model has them; 3 is the exact (erf) GELU.
const SETTINGS: &[(&str, i64)] = &[
    ("/activation", 3),
    ("/pre_norm", 1),
    ("/scale_embeddings", 0),
    ("/start_from_zero_embedding", 0),
    ("/alibi", 0),
    ("/rms_norm", 0),
    ("/multi_query", 0),
];

/// The tensors under their usual names.
///
/// # Errors
/// [`Ct2Error`] when the file cannot be read, is damaged, quantised or not a Whisper model.
pub fn read(path: &Path) -> Result<Tensors, Ct2Error> {
    let file = File::open(path)?;
    let left = file.metadata()?.len();
    let mut reader = Reader { input: BufReader::new(file), left };
    reader.header()?;
    let mut variables = BTreeMap::new();
    for _ in 0..reader.count()? {
        let (name, variable) = reader.variable()?;
        variables.insert(name, variable);
    }
    // A converter stores equal variables once.
    for _ in 0..reader.count()? {
        let (alias, target) = (reader.string()?, reader.string()?);
        let variable = variables.get(&target).cloned().ok_or(Ct2Error::Alias { alias: alias.clone(), target })?;
        variables.insert(alias, variable);
    }
    if reader.left != 0 {
        return Err(Ct2Error::TrailingBytes { count: reader.left });
    }
    untie(&mut variables)?;
    let mut tensors = Tensors::new();
    for (name, variable) in variables {
        place(name, variable, &mut tensors)?;
    }
    Ok(tensors)
}

/// Why a `model.bin` was not read.
#[derive(Debug, thiserror::Error)]
pub enum Ct2Error {
    /// The file system failed.
    #[error("model.bin cannot be read: {0}")]
    Read(#[from] io::Error),
    /// A length points past the end.
    #[error("model.bin ends in the middle of {what}; it is incomplete, copy it again")]
    Truncated {
        /// What was being read.
        what: &'static str,
    },
    /// Bytes after the last alias.
    #[error("model.bin has {count} bytes after its end")]
    TrailingBytes {
        /// How many.
        count: u64,
    },
    /// Another format version.
    #[error("model.bin has format version {found}; convert the model again with CTranslate2 4")]
    Version {
        /// As read.
        found: u32,
    },
    /// Not a Whisper model.
    #[error("model.bin holds a {found:?}, not a Whisper model")]
    Specification {
        /// As read.
        found: String,
    },
    /// Too many variables.
    #[error("model.bin claims {found} variables; a Whisper model has at most {MAX_VARIABLES}")]
    Variables {
        /// As read.
        found: u32,
    },
    /// A name that is not text.
    #[error("model.bin has a name that is not text; it is damaged")]
    Name,
    /// The quantised form of a weight.
    #[error("model.bin is quantised ({variable}); convert the model with --quantization float16")]
    Quantised {
        /// First variable that is.
        variable: String,
    },
    /// An element type that Whisper models do not have.
    #[error("the variable {variable} has the element type {found}, which this importer does not know")]
    ElementType {
        /// Its name.
        variable: String,
        /// As read.
        found: u8,
    },
    /// Rank, dimensions and byte count do not fit together.
    #[error("the variable {variable} has a shape that does not fit its {bytes} bytes")]
    Shape {
        /// Its name.
        variable: String,
        /// As read.
        bytes: u64,
    },
    /// A setting that changes how the model computes.
    #[error("the setting {variable} is {found}; every Whisper model has {expected}")]
    Setting {
        /// Its name.
        variable: String,
        /// As read.
        found: i64,
        /// As every Whisper model has it.
        expected: i64,
    },
    /// The keys have a bias, which no Whisper model has.
    #[error("{variable} gives the keys a bias, which no Whisper model has")]
    KeyBias {
        /// Its name.
        variable: String,
    },
    /// An alias of nothing.
    #[error("{alias} is said to equal {target}, which is not there; model.bin is damaged")]
    Alias {
        /// The second name.
        alias: String,
        /// The first name.
        target: String,
    },
    /// A variable that this importer does not know.
    #[error("the variable {variable} belongs to no Whisper model that this importer knows")]
    Unknown {
        /// Its name.
        variable: String,
    },
    /// A number that half precision cannot hold.
    #[error("the variable {variable} holds a number that half precision cannot hold")]
    Overflow {
        /// Its name.
        variable: String,
    },
}

/// The file, and how many of its bytes are left.
struct Reader<R> {
    input: R,
    left: u64,
}

impl<R: Read> Reader<R> {
    fn bytes<const N: usize>(&mut self, what: &'static str) -> Result<[u8; N], Ct2Error> {
        let mut bytes = [0; N];
        self.take(u64::try_from(N).unwrap_or(u64::MAX), what)?;
        self.input.read_exact(&mut bytes)?;
        Ok(bytes)
    }

    fn vec(&mut self, length: u64, what: &'static str) -> Result<Vec<u8>, Ct2Error> {
        self.take(length, what)?;
        let mut bytes = Vec::new();
        self.input.by_ref().take(length).read_to_end(&mut bytes)?;
        if u64::try_from(bytes.len()) == Ok(length) { Ok(bytes) } else { Err(Ct2Error::Truncated { what }) }
    }

    fn take(&mut self, length: u64, what: &'static str) -> Result<(), Ct2Error> {
        self.left = self.left.checked_sub(length).ok_or(Ct2Error::Truncated { what })?;
        Ok(())
    }

    fn u8(&mut self, what: &'static str) -> Result<u8, Ct2Error> {
        self.bytes::<1>(what).map(|[byte]| byte)
    }

    fn u32(&mut self, what: &'static str) -> Result<u32, Ct2Error> {
        self.bytes(what).map(u32::from_le_bytes)
    }

    /// Two bytes of length that count a closing zero, then the text.
    fn string(&mut self) -> Result<String, Ct2Error> {
        let length = u16::from_le_bytes(self.bytes("a name")?);
        let mut text = self.vec(length.into(), "a name")?;
        match text.pop() {
            Some(0) => String::from_utf8(text).map_err(|_| Ct2Error::Name),
            _ => Err(Ct2Error::Name),
        }
    }

    fn header(&mut self) -> Result<(), Ct2Error> {
        let version = self.u32("the header")?;
        if !VERSIONS.contains(&version) {
            return Err(Ct2Error::Version { found: version });
        }
        let found = self.string()?;
        self.u32("the header")?;
        if found == SPECIFICATION { Ok(()) } else { Err(Ct2Error::Specification { found }) }
    }

    fn count(&mut self) -> Result<u32, Ct2Error> {
        let found = self.u32("the header")?;
        if found <= MAX_VARIABLES { Ok(found) } else { Err(Ct2Error::Variables { found }) }
    }

    fn variable(&mut self) -> Result<(String, Variable), Ct2Error> {
        let name = self.string()?;
        let rank = self.u8("a shape")?;
        if rank > MAX_RANK {
            return Err(Ct2Error::Shape { variable: name, bytes: 0 });
        }
        let dims = (0..rank).map(|_| self.u32("a shape")).collect::<Result<Vec<u32>, _>>()?;
        let number = self.u8("a type")?;
        let length = u64::from(self.u32("a length")?);
        let Some(stored) = Stored::numbered(number) else {
            return Err(Ct2Error::ElementType { variable: name, found: number });
        };
        let expected = dims.iter().try_fold(stored.width(), |bytes, &dim| bytes.checked_mul(dim.into()));
        if expected != Some(length) {
            return Err(Ct2Error::Shape { variable: name, bytes: length });
        }
        let dims = dims.into_iter().filter_map(|dim| usize::try_from(dim).ok()).collect();
        let bytes = self.vec(length, "a tensor")?;
        Ok((name, Variable { dims, stored, bytes }))
    }
}

/// A variable as stored.
#[derive(Clone, PartialEq, Eq)]
struct Variable {
    dims: Vec<usize>,
    stored: Stored,
    bytes: Vec<u8>,
}

/// Element types by CTranslate2's numbers.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Stored {
    Float(Element),
    Integer(u64),
}

impl Stored {
    const fn numbered(number: u8) -> Option<Self> {
        Some(match number {
            0 => Self::Float(Element::F32),
            1 => Self::Integer(1),
            2 => Self::Integer(2),
            3 => Self::Integer(4),
            4 => Self::Float(Element::F16),
            5 => Self::Float(Element::Bf16),
            _ => return None,
        })
    }

    const fn width(self) -> u64 {
        match self {
            Self::Float(Element::F32) => 4,
            Self::Float(_) => 2,
            Self::Integer(width) => width,
        }
    }
}

/// The output projection must be the embedding table; the graphs have room for one.
fn untie(variables: &mut BTreeMap<String, Variable>) -> Result<(), Ct2Error> {
    match variables.remove(PROJECTION) {
        Some(projection) if variables.get("decoder/embeddings/weight") != Some(&projection) => {
            Err(Ct2Error::Unknown { variable: PROJECTION.to_owned() })
        }
        _ => Ok(()),
    }
}

fn place(name: String, variable: Variable, tensors: &mut Tensors) -> Result<(), Ct2Error> {
    let element = match variable.stored {
        Stored::Float(element) if !variable.dims.is_empty() && !name.ends_with("_scale") => element,
        _ if variable.dims.is_empty() => return check_setting(name, &variable),
        _ => return Err(Ct2Error::Quantised { variable: name }),
    };
    let Some(usual) = usual_names(&name) else { return Err(Ct2Error::Unknown { variable: name }) };
    let bytes = u64::try_from(variable.bytes.len()).unwrap_or(u64::MAX);
    let half = Half::convert(variable.dims, element, variable.bytes).ok_or_else(|| Ct2Error::Overflow { variable: name.clone() })?;
    let Some(parts) = half.split_rows(usual.len()) else { return Err(Ct2Error::Shape { variable: name, bytes }) };
    for (usual, part) in usual.into_iter().zip(parts) {
        if !usual.ends_with("k_proj.bias") {
            tensors.insert(usual, part);
        } else if !part.is_zero() {
            return Err(Ct2Error::KeyBias { variable: name });
        }
    }
    Ok(())
}

/// Settings that would change the graph must be as in every Whisper model; others only steer CTranslate2.
fn check_setting(name: String, variable: &Variable) -> Result<(), Ct2Error> {
    let Some((_, expected)) = SETTINGS.iter().find(|(suffix, _)| name.ends_with(suffix)) else { return Ok(()) };
    let found = match *variable.bytes.as_slice() {
        [byte] => i64::from(i8::from_le_bytes([byte])),
        [low, high] => i16::from_le_bytes([low, high]).into(),
        [a, b, c, d] => i32::from_le_bytes([a, b, c, d]).into(),
        _ => return Err(Ct2Error::Shape { variable: name, bytes: 0 }),
    };
    if found == *expected { Ok(()) } else { Err(Ct2Error::Setting { variable: name, found, expected: *expected }) }
}

/// The usual names of the tensors that lie fused, by rows, in one of CTranslate2's.
fn usual_names(name: &str) -> Option<Vec<String>> {
    let (side, rest) = name.split_once('/')?;
    if !matches!(side, "encoder" | "decoder") {
        return None;
    }
    let one = |usual: &str| Some(vec![format!("model.{side}.{usual}")]);
    if let Some(rest) = rest.strip_prefix("layer_").filter(|rest| !rest.starts_with("norm")) {
        let (index, rest) = rest.split_once('/')?;
        let index: u8 = index.parse().ok()?;
        let (block, leaf) = rest.rsplit_once('/')?;
        let (targets, leaf) = (layer_block(block)?, usual_leaf(leaf)?);
        return Some(targets.iter().map(|target| format!("model.{side}.layers.{index}.{target}.{leaf}")).collect());
    }
    match rest {
        "embeddings/weight" => one("embed_tokens.weight"),
        "position_encodings/encodings" => one("embed_positions.weight"),
        "layer_norm/gamma" => one("layer_norm.weight"),
        "layer_norm/beta" => one("layer_norm.bias"),
        _ => {
            let (conv, leaf) = rest.split_once('/')?;
            if matches!(conv, "conv1" | "conv2") { one(&format!("{conv}.{}", usual_leaf(leaf)?)) } else { None }
        }
    }
}

fn layer_block(block: &str) -> Option<&'static [&'static str]> {
    Some(match block {
        "self_attention/layer_norm" => &["self_attn_layer_norm"],
        "self_attention/linear_0" => &["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"],
        "self_attention/linear_1" => &["self_attn.out_proj"],
        "attention/layer_norm" => &["encoder_attn_layer_norm"],
        "attention/linear_0" => &["encoder_attn.q_proj"],
        "attention/linear_1" => &["encoder_attn.k_proj", "encoder_attn.v_proj"],
        "attention/linear_2" => &["encoder_attn.out_proj"],
        "ffn/layer_norm" => &["final_layer_norm"],
        "ffn/linear_0" => &["fc1"],
        "ffn/linear_1" => &["fc2"],
        _ => return None,
    })
}

fn usual_leaf(leaf: &str) -> Option<&'static str> {
    match leaf {
        "weight" | "gamma" => Some("weight"),
        "bias" | "beta" => Some("bias"),
        _ => None,
    }
}
