//! A writer of ONNX graphs: half-precision initialisers with their casts, nodes, inputs and outputs.
//! Trusts: its caller to name tensors without repetition.
//! Touches: memory only.
//! Next: `graph` builds the Whisper graphs with it.

use prost::Message;
use tract_onnx::pb::attribute_proto::AttributeType;
use tract_onnx::pb::tensor_proto::DataType;
use tract_onnx::pb::tensor_shape_proto::{Dimension, dimension};
use tract_onnx::pb::{
    AttributeProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto, TensorProto, TensorShapeProto, TypeProto, ValueInfoProto,
    type_proto,
};

use super::weights::{Half, Linear, Norm};
use crate::model::manifest::{Axis, ElementType, GraphSpec, TensorSpec};

/// First operator set with `Gelu`.
const OPSET: i64 = 20;
/// The format version that goes with it.
const IR_VERSION: i64 = 9;
/// Epsilon of every Whisper layer norm.
const NORM_EPSILON: f32 = 1e-5;

/// A graph under construction. Every node has one output, named like the node.
pub struct GraphBuilder {
    graph: GraphProto,
    spec: GraphSpec,
}

/// A finished graph.
pub struct Graph {
    /// The ONNX file.
    pub bytes: Vec<u8>,
    /// Its inputs and outputs, for the manifest.
    pub spec: GraphSpec,
}

impl GraphBuilder {
    /// An empty graph for the file `file`.
    pub fn new(file: &str) -> Self {
        Self {
            graph: GraphProto { name: file.to_owned(), ..Default::default() },
            spec: GraphSpec { file: file.to_owned(), inputs: Vec::new(), outputs: Vec::new() },
        }
    }

    /// Declares a single-precision input.
    pub fn input(&mut self, name: &str, shape: Vec<Axis>) -> String {
        self.graph.input.push(value_info(name, Some(&shape)));
        self.spec.inputs.push(TensorSpec { name: name.to_owned(), element: ElementType::F32, shape });
        name.to_owned()
    }

    /// Declares the node `name` as a single-precision output.
    pub fn output(&mut self, name: &str, shape: Vec<Axis>) {
        // tract refuses to make an input's symbol concrete when an output's shape names it too, so the file leaves it open.
        self.graph.output.push(value_info(name, None));
        self.spec.outputs.push(TensorSpec { name: name.to_owned(), element: ElementType::F32, shape });
    }

    /// Adds a node and returns the name of its output.
    pub fn node(&mut self, op: &str, name: &str, inputs: &[&str], attribute: Vec<AttributeProto>) -> String {
        self.graph.node.push(NodeProto {
            op_type: op.to_owned(),
            name: name.to_owned(),
            input: inputs.iter().map(|&input| input.to_owned()).collect(),
            output: vec![name.to_owned()],
            attribute,
            ..Default::default()
        });
        name.to_owned()
    }

    /// A weight: stored in half precision, cast to single precision.
    pub fn weight(&mut self, name: &str, half: &Half) -> String {
        let stored = format!("{name}.f16");
        self.graph.initializer.push(TensorProto {
            name: stored.clone(),
            dims: half.dims.iter().map(|&dim| int(dim)).collect(),
            data_type: DataType::Float16.into(),
            raw_data: half.bytes.clone(),
            ..Default::default()
        });
        self.node("Cast", name, &[&stored], vec![attribute_int("to", i32::from(DataType::Float).into())])
    }

    /// A constant list of integers.
    pub fn integers(&mut self, name: &str, values: &[i64]) -> String {
        self.graph.initializer.push(TensorProto {
            name: name.to_owned(),
            dims: vec![int(values.len())],
            data_type: DataType::Int64.into(),
            raw_data: values.iter().flat_map(|value| value.to_le_bytes()).collect(),
            ..Default::default()
        });
        name.to_owned()
    }

    /// A constant number of rank 0.
    pub fn number(&mut self, name: &str, value: f32) -> String {
        self.graph.initializer.push(TensorProto {
            name: name.to_owned(),
            data_type: DataType::Float.into(),
            raw_data: value.to_le_bytes().to_vec(),
            ..Default::default()
        });
        name.to_owned()
    }

    /// `x W^T + b`.
    pub fn linear(&mut self, name: &str, x: &str, linear: &Linear) -> String {
        let weight = self.weight(&format!("{name}.weight"), &linear.weight.transposed());
        let Some(bias) = &linear.bias else { return self.node("MatMul", name, &[x, &weight], vec![]) };
        let product = self.node("MatMul", &format!("{name}.product"), &[x, &weight], vec![]);
        let bias = self.weight(&format!("{name}.bias"), bias);
        self.node("Add", name, &[&product, &bias], vec![])
    }

    /// Layer norm over the last axis.
    pub fn norm(&mut self, name: &str, x: &str, norm: &Norm) -> String {
        let gamma = self.weight(&format!("{name}.gamma"), &norm.gamma);
        let beta = self.weight(&format!("{name}.beta"), &norm.beta);
        let attributes = vec![attribute_int("axis", -1), attribute_float("epsilon", NORM_EPSILON)];
        self.node("LayerNormalization", name, &[x, &gamma, &beta], attributes)
    }

    /// The file and its description. The same graph always gives the same bytes.
    pub fn finish(self) -> Graph {
        let model = ModelProto {
            ir_version: IR_VERSION,
            opset_import: vec![OperatorSetIdProto { domain: String::new(), version: OPSET }],
            producer_name: "salama".to_owned(),
            graph: Some(self.graph),
            ..Default::default()
        };
        Graph { bytes: model.encode_to_vec(), spec: self.spec }
    }
}

/// An integer attribute.
pub fn attribute_int(name: &str, i: i64) -> AttributeProto {
    AttributeProto { name: name.to_owned(), r#type: AttributeType::Int.into(), i, ..Default::default() }
}

/// A list of integers as attribute.
pub fn attribute_ints(name: &str, ints: &[i64]) -> AttributeProto {
    AttributeProto { name: name.to_owned(), r#type: AttributeType::Ints.into(), ints: ints.to_vec(), ..Default::default() }
}

fn attribute_float(name: &str, f: f32) -> AttributeProto {
    AttributeProto { name: name.to_owned(), r#type: AttributeType::Float.into(), f, ..Default::default() }
}

fn value_info(name: &str, shape: Option<&[Axis]>) -> ValueInfoProto {
    let shape = shape.map(|axes| TensorShapeProto { dim: axes.iter().map(dimension).collect() });
    let tensor = type_proto::Tensor { elem_type: DataType::Float.into(), shape };
    let r#type = TypeProto { value: Some(type_proto::Value::TensorType(tensor)), ..Default::default() };
    ValueInfoProto { name: name.to_owned(), r#type: Some(r#type), ..Default::default() }
}

fn dimension(axis: &Axis) -> Dimension {
    let value = match axis {
        Axis::Fixed(size) => dimension::Value::DimValue(i64::try_from(*size).unwrap_or(i64::MAX)),
        Axis::Symbol(text) => dimension::Value::DimParam(text.clone()),
    };
    Dimension { value: Some(value), ..Default::default() }
}

/// A size as ONNX counts; no tensor in memory comes near the limit.
pub fn int(size: usize) -> i64 {
    i64::try_from(size).unwrap_or(i64::MAX)
}
