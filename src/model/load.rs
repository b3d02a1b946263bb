//! Makes a verified ONNX file ready for tract: one file only, single precision throughout.
//! Trusts: the bytes, which `verify` hashed; damage is still refused, never followed.
//! Touches: memory only; external tensor data is refused before tract could look for it.
//! Next: `worker` fixes the inputs' shapes and optimises the graph.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::panic::{AssertUnwindSafe, catch_unwind};

use prost::Message;
use tract_onnx::pb::tensor_proto::{DataLocation, DataType};
use tract_onnx::pb::{GraphProto, ModelProto, NodeProto, TensorProto, TypeProto, type_proto};
use tract_onnx::prelude::{Framework, InferenceModel, TractError, f16, tract_ndarray::Array2};

/// Parses an ONNX file for tract, with nothing but tract's own operations.
///
/// Half-precision weights that a `Cast` makes single precision become single-precision weights, because tract folds such a cast
/// only below 4 MiB and repeats it on every run above. `MatMulNBits` becomes a plain `MatMul`, which runs three times as fast.
///
/// # Errors
/// [`LoadError`] names the tensor or node that cannot be used.
pub fn graph(onnx: &[u8]) -> Result<InferenceModel, LoadError> {
    let (mut model, mut graph) = parse(onnx)?;
    expand_halves(&mut graph)?;
    dequantise(&mut graph)?;
    model.graph = Some(graph);
    build(&model)
}

/// An ONNX file's graph, and the rest of the file.
///
/// # Errors
/// [`LoadError`] when it is damaged, refers to other files, or defines functions.
pub fn parse(onnx: &[u8]) -> Result<(ModelProto, GraphProto), LoadError> {
    let mut model = ModelProto::decode(onnx).map_err(LoadError::Damaged)?;
    let mut graph = model.graph.take().ok_or(LoadError::NoGraph)?;
    refuse_external_data(&graph)?;
    if let Some(node) = model.functions.iter().flat_map(|function| &function.node).next() {
        return Err(LoadError::Function { node: node.name.clone() });
    }
    // tract refuses to make an input's symbol concrete while shapes inside the graph still name it.
    graph.value_info.clear();
    for output in &mut graph.output {
        if let Some(TypeProto { value: Some(type_proto::Value::TensorType(tensor)), .. }) = &mut output.r#type {
            tensor.shape = None;
        }
    }
    Ok((model, graph))
}

/// Hands a file with its graph to tract.
///
/// # Errors
/// `Broken`, `Unsupported`.
pub fn build(model: &ModelProto) -> Result<InferenceModel, LoadError> {
    // tract panics on some damage, such as raw bytes of a type that has none.
    let built = catch_unwind(AssertUnwindSafe(|| tract_onnx::onnx().model_for_proto_model(model)));
    built.map_err(|_| LoadError::Broken)?.map_err(LoadError::Unsupported)
}

/// Why a file of a verified model cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The verified model has no such file.
    #[error("the model has no file {name}, or it was taken before; its manifest does not fit its purpose")]
    NoFile {
        /// The file.
        name: String,
    },
    /// Not an ONNX file.
    #[error("the model's graph is damaged: {0}; install the model again")]
    Damaged(#[source] prost::DecodeError),
    /// No graph in the file.
    #[error("the model's file holds no graph; install the model again")]
    NoGraph,
    /// Weights in another file.
    #[error("the tensor {tensor} lies in another file; a model's graph must be one file")]
    ExternalData {
        /// Its name.
        tensor: String,
    },
    /// Functions defined by the model itself.
    #[error("the model defines functions of its own (node {node}), which are not supported")]
    Function {
        /// First node of the first function.
        node: String,
    },
    /// A tensor whose data do not fill its shape.
    #[error("the tensor {tensor} has data that do not fit its shape; install the model again")]
    Shape {
        /// Its name.
        tensor: String,
    },
    /// A weight that the program computes with and the file does not have.
    #[error("the tensor {tensor} is not in the model's file; install the model again")]
    Missing {
        /// Its name.
        tensor: String,
    },
    /// Two weights that go by one name.
    #[error("the tensor {tensor} is in the model's file twice; install the model again")]
    Doubled {
        /// Its name.
        tensor: String,
    },
    /// Single precision where half is computed with.
    #[error("the tensor {tensor} is not in half precision; build the model again with `salama model import`")]
    Precision {
        /// Its name.
        tensor: String,
    },
    /// Weights that the program has no place for.
    #[error("the tensor {tensor} has no place in what this program computes; build the model again with `salama model import`")]
    Unused {
        /// Its name.
        tensor: String,
    },
    /// A quantised product of another kind than ours.
    #[error("the node {node} is quantised in a way that is not supported (4 bits, single-precision scales, no zero points)")]
    Quantised {
        /// Its name.
        node: String,
    },
    /// A node that our own operations need, of another kind than they know.
    #[error("the graph has no node {node} of the kind that this program computes; install the model again")]
    Node {
        /// Its name.
        node: String,
    },
    /// tract gave up on the graph.
    #[error("the model's graph is damaged inside; install the model again")]
    Broken,
    /// tract refused the graph.
    #[error("the model's graph cannot be run: {0}")]
    Unsupported(#[source] TractError),
}

/// Tensors of the graph, of its nodes' attributes and of graphs inside those. Nesting is bounded by the decoder.
pub(super) fn refuse_external_data(graph: &GraphProto) -> Result<(), LoadError> {
    let sparse = |tensor: &TensorProto| refuse_external(tensor);
    graph.initializer.iter().try_for_each(refuse_external)?;
    for tensor in &graph.sparse_initializer {
        tensor.values.iter().chain(&tensor.indices).try_for_each(sparse)?;
    }
    for attribute in graph.node.iter().flat_map(|node| &node.attribute) {
        attribute.t.iter().chain(&attribute.tensors).try_for_each(refuse_external)?;
        for tensor in attribute.sparse_tensor.iter().chain(&attribute.sparse_tensors) {
            tensor.values.iter().chain(&tensor.indices).try_for_each(sparse)?;
        }
        attribute.g.iter().chain(&attribute.graphs).try_for_each(refuse_external_data)?;
    }
    Ok(())
}

fn refuse_external(tensor: &TensorProto) -> Result<(), LoadError> {
    let elsewhere = tensor.data_location.is_some_and(|location| location != i32::from(DataLocation::Default));
    if elsewhere || !tensor.external_data.is_empty() {
        return Err(LoadError::ExternalData { tensor: tensor.name.clone() });
    }
    Ok(())
}

/// Replaces each `Cast` of a half-precision weight by a single-precision weight with the cast's name.
fn expand_halves(graph: &mut GraphProto) -> Result<(), LoadError> {
    let inputs: HashSet<&str> = graph.input.iter().map(|input| input.name.as_str()).collect();
    let half = |tensor: &&TensorProto| tensor.data_type == i32::from(DataType::Float16) && !inputs.contains(tensor.name.as_str());
    let halves: HashMap<&str, &TensorProto> = graph.initializer.iter().filter(half).map(|tensor| (tensor.name.as_str(), tensor)).collect();
    let mut expanded = Vec::new();
    let mut gone = HashSet::new();
    for node in graph.node.iter().filter(|node| is_cast_to_single(node)) {
        if let ([input], [output]) = (node.input.as_slice(), node.output.as_slice())
            && let Some(tensor) = halves.get(input.as_str())
        {
            expanded.push(expand(tensor, output)?);
            gone.insert(output.clone());
        }
    }
    graph.node.retain(|node| !node.output.first().is_some_and(|output| gone.contains(output)));
    let mut used = HashSet::new();
    collect_uses(graph, &mut used);
    let unused = |tensor: &TensorProto| tensor.data_type == i32::from(DataType::Float16) && !used.contains(tensor.name.as_str());
    let kept: Vec<bool> = graph.initializer.iter().map(|tensor| !unused(tensor)).collect();
    let mut kept = kept.into_iter();
    graph.initializer.retain(|_| kept.next().unwrap_or(true));
    graph.initializer.extend(expanded);
    Ok(())
}

fn is_cast_to_single(node: &NodeProto) -> bool {
    node.op_type == "Cast" && attribute(node, "to") == Some(i32::from(DataType::Float).into())
}

/// The number that a node's attribute is.
pub fn attribute(node: &NodeProto, name: &str) -> Option<i64> {
    node.attribute.iter().find(|attribute| attribute.name == name).map(|attribute| attribute.i)
}

/// Names that nodes of the graph, or of graphs inside it, take as input or give as output.
fn collect_uses<'g>(graph: &'g GraphProto, used: &mut HashSet<&'g str>) {
    used.extend(graph.output.iter().map(|output| output.name.as_str()));
    for node in &graph.node {
        used.extend(node.input.iter().map(String::as_str));
        let inner = node.attribute.iter().flat_map(|attribute| attribute.g.iter().chain(&attribute.graphs));
        inner.for_each(|graph| collect_uses(graph, used));
    }
}

fn expand(tensor: &TensorProto, name: &str) -> Result<TensorProto, LoadError> {
    let wrong = || LoadError::Shape { tensor: tensor.name.clone() };
    let numbers: Vec<f16> = if tensor.int32_data.is_empty() {
        let (cells, rest) = tensor.raw_data.as_chunks::<2>();
        rest.is_empty().then_some(()).ok_or_else(wrong)?;
        cells.iter().map(|&cell| f16::from_le_bytes(cell)).collect()
    } else {
        let bits = tensor.int32_data.iter().map(|&bits| u16::try_from(bits).map(f16::from_bits));
        bits.collect::<Result<_, _>>().map_err(|_| wrong())?
    };
    if element_count(&tensor.dims) != Some(numbers.len()) {
        return Err(wrong());
    }
    Ok(single(name, tensor.dims.clone(), numbers.into_iter().map(f16::to_f32)))
}

fn single(name: &str, dims: Vec<i64>, numbers: impl Iterator<Item = f32>) -> TensorProto {
    let raw_data = numbers.flat_map(f32::to_le_bytes).collect();
    TensorProto { name: name.to_owned(), dims, data_type: DataType::Float.into(), raw_data, ..Default::default() }
}

/// Numbers in a tensor of this shape.
pub fn element_count(dims: &[i64]) -> Option<usize> {
    dims.iter().try_fold(1_usize, |count, &dim| count.checked_mul(usize::try_from(dim).ok()?))
}

/// Replaces each `MatMulNBits` by a `MatMul` with single-precision weights.
fn dequantise(graph: &mut GraphProto) -> Result<(), LoadError> {
    let weights: HashMap<&str, &TensorProto> = graph.initializer.iter().map(|tensor| (tensor.name.as_str(), tensor)).collect();
    let mut made: BTreeMap<String, TensorProto> = BTreeMap::new();
    let mut replaced = HashSet::new();
    for node in &mut graph.node {
        if node.op_type != "MatMulNBits" {
            continue;
        }
        let refused = || LoadError::Quantised { node: node.name.clone() };
        let plain = node.input.iter().skip(3).all(String::is_empty) && attribute(node, "bits").unwrap_or(4) == 4;
        let [x, packed, scales] = node.input.get(..3).and_then(|inputs| inputs.first_chunk::<3>()).filter(|_| plain).ok_or_else(refused)?;
        let size = |name| attribute(node, name).and_then(|size| usize::try_from(size).ok());
        let shape = NBits {
            rows: size("K").ok_or_else(refused)?,
            columns: size("N").ok_or_else(refused)?,
            block: size("block_size").filter(|&block| block > 0 && block.is_multiple_of(2)).ok_or_else(refused)?,
        };
        let (Some(packed), Some(scales)) = (weights.get(packed.as_str()), weights.get(scales.as_str())) else { return Err(refused()) };
        let name = format!("{}.f32", packed.name);
        if !made.contains_key(&name) {
            made.insert(name.clone(), shape.dequantise(packed, scales, &name)?);
        }
        replaced.extend([packed.name.clone(), scales.name.clone()]);
        node.input = vec![x.clone(), name];
        node.op_type = "MatMul".to_owned();
        node.domain.clear();
        node.attribute.clear();
    }
    let mut used = HashSet::new();
    collect_uses(graph, &mut used);
    replaced.retain(|name| !used.contains(name.as_str()));
    graph.initializer.retain(|tensor| !replaced.contains(&tensor.name));
    graph.initializer.extend(made.into_values());
    Ok(())
}

/// Shape of a quantised matrix `[rows, columns]`: each column lies in blocks along the rows, two numbers a byte.
struct NBits {
    rows: usize,
    columns: usize,
    block: usize,
}

impl NBits {
    /// `(nibble - 8) * scale`, the low nibble first; `scales` has one number a block.
    fn dequantise(&self, packed: &TensorProto, scales: &TensorProto, name: &str) -> Result<TensorProto, LoadError> {
        let blocks = self.rows.div_ceil(self.block);
        let wrong = |tensor: &TensorProto| LoadError::Shape { tensor: tensor.name.clone() };
        let count = self.columns.checked_mul(blocks).ok_or_else(|| wrong(scales))?;
        let factors = singles(scales).filter(|factors| factors.len() == count).ok_or_else(|| wrong(scales))?;
        if Some(packed.raw_data.len()) != count.checked_mul(self.block / 2) || packed.data_type != i32::from(DataType::Uint8) {
            return Err(wrong(packed));
        }
        let numbers = packed.raw_data.chunks_exact(self.block / 2).zip(factors).flat_map(|(bytes, factor)| {
            let nibbles = bytes.iter().flat_map(|byte| [byte & 0x0F, byte >> 4]);
            nibbles.map(move |nibble| (f32::from(nibble) - 8.0) * factor)
        });
        let columns = Array2::from_shape_vec((self.columns, blocks * self.block), numbers.collect()).map_err(|_| wrong(packed))?;
        let dims = [self.rows, self.columns].map(|size| i64::try_from(size).unwrap_or(i64::MAX)).to_vec();
        // The last block may reach beyond the matrix.
        let rows = columns.columns().into_iter().take(self.rows).flat_map(|row| row.to_vec());
        Ok(single(name, dims, rows))
    }
}

/// The numbers of a tensor in single precision; `None` when it is another kind, or damaged.
pub fn singles(tensor: &TensorProto) -> Option<Vec<f32>> {
    if tensor.data_type != i32::from(DataType::Float) {
        return None;
    }
    if !tensor.float_data.is_empty() {
        return Some(tensor.float_data.clone());
    }
    let (cells, rest) = tensor.raw_data.as_chunks::<4>();
    rest.is_empty().then(|| cells.iter().map(|&cell| f32::from_le_bytes(cell)).collect())
}

#[cfg(test)]
mod tests;
