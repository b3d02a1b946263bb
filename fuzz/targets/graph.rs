//! A model's graph: `model::load` of damaged ONNX, plain and with the operations that the name model's gets, and `model::tensors`.
//! Trusts: nothing here; in the worker the bytes have the manifest's digest.
//! Touches: memory.
//! Next: tract runs it, or our own layers compute with its weights.

use tract_onnx::pb::tensor_proto::DataType;
use tract_onnx::pb::{AttributeProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto, TensorProto, ValueInfoProto};

use prost::Message;

use super::Target;
use crate::model::load;
use crate::model::tensors::Tensors;
use crate::worker::layers::Precision;
use crate::worker::text::fused;

/// ONNX.
pub const TARGET: Target = Target {
    name: "graph",
    run,
    seeds,
    corpus: "",
    words: &[
        b"Cast",
        b"MatMul",
        b"MatMulNBits",
        b"Add",
        b"If",
        b"Loop",
        b"Constant",
        b"to",
        b"bits",
        b"block_size",
        b"K",
        b"N",
        b"w.f16",
        b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
        b"\xff\xff\xff\xff\x07",
        b"\x08\x0a",
        b"\x10\x01",
        b"\x7a\x00",
        b"../../etc/passwd",
    ],
    memory: 16 << 20,
    longest: 16_384,
    smoke: 4000,
};

/// Promise: damaged bytes are refused or give a graph; no size in them is believed before it is checked against the bytes that are there.
/// Weights that are taken have as many numbers as their shape says; who takes all has none left.
fn run(data: &[u8]) {
    let _ = load::graph(data);
    let _ = fused::graph(data, 1, Precision::Fastest);
    let Ok(mut tensors) = Tensors::read(data) else { return };
    let Ok(model) = ModelProto::decode(data) else { panic!("weights of what is no model") };
    for tensor in model.graph.into_iter().flat_map(|graph| graph.initializer).filter(|tensor| !tensor.dims.is_empty()) {
        let dims: Vec<usize> = tensor.dims.iter().filter_map(|dim| usize::try_from(*dim).ok()).collect();
        let half = tensor.data_type == i32::from(DataType::Float16);
        let name = if half { tensor.name.strip_suffix(".f16").unwrap_or(&tensor.name) } else { &tensor.name };
        if half || tensor.data_type == i32::from(DataType::Float) {
            let numbers = tensors.take_wide(name, &dims).expect("what was read can be taken");
            assert_eq!(numbers.len(), dims.iter().product::<usize>());
        }
    }
    tensors.finish().expect("all were taken");
}

fn tensor(name: &str, dims: &[i64], data_type: DataType, raw_data: Vec<u8>) -> TensorProto {
    TensorProto { name: name.into(), dims: dims.to_vec(), data_type: data_type.into(), raw_data, ..Default::default() }
}

fn node(op: &str, inputs: &[&str], output: &str, attributes: &[(&str, i64)]) -> NodeProto {
    let attribute = attributes.iter().map(|(name, i)| AttributeProto { name: (*name).into(), r#type: 2, i: *i, ..Default::default() });
    NodeProto {
        op_type: op.into(),
        name: output.into(),
        input: inputs.iter().map(|input| (*input).into()).collect(),
        output: vec![output.into()],
        attribute: attribute.collect(),
        ..Default::default()
    }
}

fn file(initializer: Vec<TensorProto>, node: Vec<NodeProto>) -> Vec<u8> {
    let value = |name: &str| ValueInfoProto { name: name.into(), ..Default::default() };
    let graph = GraphProto { initializer, node, input: vec![value("x")], output: vec![value("y")], ..Default::default() };
    let opset_import = vec![OperatorSetIdProto { domain: String::new(), version: 18 }];
    ModelProto { ir_version: 9, opset_import, graph: Some(graph), ..Default::default() }.encode_to_vec()
}

fn seeds() -> Vec<Vec<u8>> {
    let half = file(
        vec![tensor("w.f16", &[2, 2], DataType::Float16, vec![0, 60, 0, 64, 0, 66, 0, 68])],
        vec![node("Cast", &["w.f16"], "w", &[("to", 1)]), node("MatMul", &["x", "w"], "y", &[])],
    );
    let quantised = file(
        vec![
            tensor("q", &[2, 1, 16], DataType::Uint8, vec![0x98; 32]),
            tensor("s", &[2], DataType::Float, vec![0, 0, 128, 63, 0, 0, 0, 64]),
        ],
        vec![node("MatMulNBits", &["x", "q", "s"], "y", &[("K", 32), ("N", 2), ("bits", 4), ("block_size", 32)])],
    );
    let plain = file(
        vec![tensor("b", &[1], DataType::Float, vec![0, 0, 128, 63])],
        vec![node("Add", &["x", "b"], "z", &[]), node("Relu", &["z"], "y", &[])],
    );
    let weights = file(
        vec![
            tensor("a.weight.f16", &[1, 2], DataType::Float16, vec![0, 60, 0, 64]),
            tensor("a.bias", &[2], DataType::Float, vec![0, 0, 128, 63, 0, 0, 0, 64]),
            tensor("scale", &[], DataType::Float, vec![0, 0, 128, 63]),
            TensorProto { float_data: vec![1.0, 2.0, 3.0], ..tensor("packed", &[3], DataType::Float, Vec::new()) },
        ],
        Vec::new(),
    );
    vec![half, quantised, plain, weights, attention()]
}

/// A layer of attention with one head and a norm, as `fused` looks for them.
fn attention() -> Vec<u8> {
    let floats = |name: &str, count: usize| tensor(name, &[i64::try_from(count).unwrap()], DataType::Float, [0, 0, 128, 63].repeat(count));
    let mut nodes = Vec::new();
    for part in ["query", "key", "value"] {
        let sizes = [("K", 32), ("N", 32), ("bits", 4), ("block_size", 32)];
        nodes.push(node("MatMulNBits", &["x", "q", "s"], &format!("{part}/MatMul"), &sizes));
        nodes.push(node("Add", &["b", &format!("{part}/MatMul")], &format!("attention/self/{part}/Add"), &[]));
    }
    nodes.push(node("Identity", &["attention/self/query/Add"], "attention/self/Reshape_3", &[]));
    nodes.push(node("LayerNormalization", &["attention/self/Reshape_3", "b", "b"], "y", &[("epsilon", 0)]));
    for node in &mut nodes {
        node.name = node.output.concat();
    }
    file(vec![tensor("q", &[32, 1, 16], DataType::Uint8, vec![0x98; 512]), floats("s", 32), floats("b", 32)], nodes)
}
