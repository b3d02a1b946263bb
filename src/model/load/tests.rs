//! What becomes of weights on the way to tract, and which files are refused.
//! Trusts: graphs made here, and the small models that come with the source.
//! Touches: `firmware-models`, reading.
//! Next: nobody.

use tract_onnx::pb::tensor_shape_proto::{Dimension, dimension};
use tract_onnx::pb::{AttributeProto, OperatorSetIdProto, SparseTensorProto, StringStringEntryProto, TensorShapeProto, ValueInfoProto};
use tract_onnx::prelude::{InferenceModelExt, IntoRunnable, Tensor};

use super::*;
use crate::model::golden::GoldenAnswer;
use crate::model::verify::{VerifiedModel, verify};

fn half(name: &str, dims: &[i64], numbers: &[f32]) -> TensorProto {
    let raw_data = numbers.iter().flat_map(|&number| f16::from_f32(number).to_le_bytes()).collect();
    TensorProto { name: name.into(), dims: dims.to_vec(), data_type: DataType::Float16.into(), raw_data, ..Default::default() }
}

fn node(op: &str, inputs: &[&str], output: &str, attributes: &[(&str, i64)]) -> NodeProto {
    let attribute = attributes.iter().map(|&(name, i)| AttributeProto { name: name.into(), r#type: 2, i, ..Default::default() });
    NodeProto {
        op_type: op.into(),
        name: output.into(),
        input: inputs.iter().map(|&input| input.into()).collect(),
        output: vec![output.into()],
        attribute: attribute.collect(),
        ..Default::default()
    }
}

/// A single-precision input or output.
fn value(name: &str, dims: &[i64]) -> ValueInfoProto {
    let dim = dims.iter().map(|&dim| Dimension { value: Some(dimension::Value::DimValue(dim)), ..Default::default() }).collect();
    let tensor = type_proto::Tensor { elem_type: DataType::Float.into(), shape: Some(TensorShapeProto { dim }) };
    let r#type = TypeProto { value: Some(type_proto::Value::TensorType(tensor)), ..Default::default() };
    ValueInfoProto { name: name.into(), r#type: Some(r#type), ..Default::default() }
}

fn file(graph: GraphProto) -> Vec<u8> {
    let opset_import = vec![OperatorSetIdProto { domain: String::new(), version: 18 }];
    ModelProto { ir_version: 9, opset_import, graph: Some(graph), ..Default::default() }.encode_to_vec()
}

fn run(onnx: &[u8], inputs: Vec<Tensor>) -> Vec<Vec<f32>> {
    let model = graph(onnx).unwrap().into_optimized().unwrap().into_runnable().unwrap();
    let outputs = model.run(inputs.into_iter().map(Into::into).collect()).unwrap();
    outputs.iter().map(|output| output.try_as_plain_ram().unwrap().as_slice::<f32>().unwrap().to_vec()).collect()
}

#[test]
fn a_cast_half_weight_becomes_a_single_weight_of_the_cast_s_name() {
    let mut graph = GraphProto {
        initializer: vec![half("w.f16", &[2], &[0.1, -3.0])],
        node: vec![node("Cast", &["w.f16"], "w", &[("to", 1)]), node("Add", &["x", "w"], "y", &[])],
        input: vec![value("x", &[2])],
        output: vec![value("y", &[2])],
        ..Default::default()
    };
    expand_halves(&mut graph).unwrap();
    let expected = [0.1, -3.0].map(|number| f16::from_f32(number).to_f32());
    assert_eq!(graph.initializer, [single("w", vec![2], expected.into_iter())]);
    assert_eq!(graph.node.len(), 1);
    let found = run(&file(graph), vec![Tensor::from_shape(&[2], &[1.0_f32, 1.0]).unwrap()]);
    assert_eq!(found, [[1.0 + expected[0], -2.0]]);
}

#[test]
fn a_half_weight_that_is_used_as_such_stays() {
    let mut graph = GraphProto {
        initializer: vec![half("w", &[1], &[2.0])],
        node: vec![node("Cast", &["w"], "v", &[("to", 1)]), node("Add", &["x", "w"], "y", &[]), node("Cast", &["y"], "z", &[("to", 1)])],
        ..Default::default()
    };
    expand_halves(&mut graph).unwrap();
    let names: Vec<&str> = graph.initializer.iter().map(|tensor| tensor.name.as_str()).collect();
    assert_eq!(names, ["w", "v"]);
    assert_eq!(graph.node.len(), 2);
}

#[test]
fn a_half_weight_whose_data_do_not_fill_its_shape_is_refused() {
    let mut graph = GraphProto {
        initializer: vec![half("w.f16", &[3], &[0.1, -3.0])],
        node: vec![node("Cast", &["w.f16"], "w", &[("to", 1)])],
        ..Default::default()
    };
    assert!(matches!(expand_halves(&mut graph), Err(LoadError::Shape { tensor }) if tensor == "w.f16"));
}

/// A product of `x [1,K]` with a quantised `[K,2]`, K = 34 in two blocks of 32.
fn quantised(zero_points: bool) -> GraphProto {
    // Column 0: every low nibble 9 (+1), every high nibble 7 (-1). Column 1: every nibble 15 (+7).
    let packed = [[0x79; 32], [0xFF; 32]].concat();
    let mut inputs = vec!["x", "w", "scales"];
    inputs.extend(zero_points.then_some("zeros"));
    GraphProto {
        initializer: vec![
            TensorProto {
                name: "w".into(),
                dims: vec![2, 2, 16],
                data_type: DataType::Uint8.into(),
                raw_data: packed,
                ..Default::default()
            },
            single("scales", vec![2, 2], [0.5, 2.0, 1.0, 0.25].into_iter()),
            TensorProto {
                name: "zeros".into(),
                dims: vec![2],
                data_type: DataType::Uint8.into(),
                raw_data: vec![0; 2],
                ..Default::default()
            },
        ],
        node: vec![node("MatMulNBits", &inputs, "y", &[("K", 34), ("N", 2), ("bits", 4), ("block_size", 32)])],
        input: vec![value("x", &[1, 34])],
        output: vec![value("y", &[1, 2])],
        ..Default::default()
    }
}

#[test]
fn a_quantised_product_equals_the_hand_computation() {
    let mut x = [0.0_f32; 34];
    (x[0], x[1], x[31], x[32], x[33]) = (1.0, 10.0, 100.0, 1000.0, 10000.0);
    let found = run(&file(quantised(false)), vec![Tensor::from_shape(&[1, 34], &x).unwrap()]);
    let column0 = 0.5 * (1.0 - 10.0 - 100.0) + 2.0 * (1000.0 - 10000.0);
    let column1 = 7.0 * (1.0 + 10.0 + 100.0) + 1.75 * (1000.0 + 10000.0);
    assert_eq!(found, [[column0, column1]]);
}

#[test]
fn a_quantised_product_of_another_kind_is_refused() {
    assert!(matches!(graph(&file(quantised(true))), Err(LoadError::Quantised { node }) if node == "y"));
    let mut two_bits = quantised(false);
    two_bits.node[0].attribute[2].i = 2;
    assert!(matches!(graph(&file(two_bits)), Err(LoadError::Quantised { .. })));
    let mut short = quantised(false);
    short.initializer[0].raw_data.pop();
    assert!(matches!(graph(&file(short)), Err(LoadError::Shape { tensor }) if tensor == "w"));
    let mut endless = quantised(false);
    endless.node[0].attribute[1].i = i64::MAX;
    assert!(matches!(graph(&file(endless)), Err(LoadError::Shape { .. })));
}

#[test]
fn external_tensor_data_is_refused_wherever_it_hides() {
    let location = StringStringEntryProto { key: "location".into(), value: "/etc/passwd".into() };
    let elsewhere = TensorProto { name: "w".into(), data_location: Some(1), external_data: vec![location], ..Default::default() };
    let marked = TensorProto { name: "w".into(), data_location: Some(1), ..Default::default() };
    let attribute = |attribute: AttributeProto| NodeProto { attribute: vec![attribute], ..Default::default() };
    let inner = GraphProto { initializer: vec![elsewhere.clone()], ..Default::default() };
    let sparse = SparseTensorProto { indices: Some(elsewhere.clone()), ..Default::default() };
    let hidden = [
        inner.clone(),
        GraphProto { initializer: vec![marked], ..Default::default() },
        GraphProto { sparse_initializer: vec![sparse], ..Default::default() },
        GraphProto { node: vec![attribute(AttributeProto { t: Some(elsewhere), ..Default::default() })], ..Default::default() },
        GraphProto { node: vec![attribute(AttributeProto { g: Some(inner), ..Default::default() })], ..Default::default() },
    ];
    for graph_with in hidden {
        assert!(matches!(graph(&file(graph_with)), Err(LoadError::ExternalData { tensor }) if tensor == "w"));
    }
}

#[test]
fn bytes_that_are_no_graph_are_refused() {
    assert!(matches!(graph(b"not a graph"), Err(LoadError::Damaged(_))));
    assert!(matches!(graph(b""), Err(LoadError::NoGraph)));
}

fn shipped(name: &str) -> VerifiedModel {
    verify(&std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("firmware-models").join(name))
        .expect("the small models come with the source: restore them with git")
}

#[test]
fn damage_on_which_tract_panics_is_refused() {
    let text =
        TensorProto { name: "w".into(), dims: vec![1], data_type: DataType::String.into(), raw_data: vec![0; 4], ..Default::default() };
    let onnx = file(GraphProto {
        initializer: vec![text],
        node: vec![node("Add", &["x", "w"], "y", &[])],
        input: vec![value("x", &[1])],
        output: vec![value("y", &[1])],
        ..Default::default()
    });
    assert!(matches!(graph(&onnx), Err(LoadError::Broken)));
}

#[test]
fn silero_gives_its_golden_probabilities() {
    let model = shipped("silero-vad");
    let Some(GoldenAnswer::Speech { samples, probabilities, tolerance }) = model.golden().unwrap() else { panic!("no golden answer") };
    let padded = [vec![0.0; 64], samples].concat();
    let frames: Vec<f32> = (0..probabilities.len()).flat_map(|frame| padded[frame * 512..frame * 512 + 576].to_vec()).collect();
    let state = Tensor::from_shape(&[1, 1, 128], &[0.0_f32; 128]).unwrap();
    let input = Tensor::from_shape(&[probabilities.len(), 576], &frames).unwrap();
    let found = run(model.file("silero_vad_16k_sequence.onnx").unwrap(), vec![input, state.clone(), state]);
    let worst = found[0].iter().zip(&probabilities).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(worst < tolerance, "{worst}");
}

#[test]
fn rampart_gives_its_golden_labels() {
    let model = shipped("rampart");
    let Some(GoldenAnswer::Labels { tokens, labels, .. }) = model.golden().unwrap() else { panic!("no golden answer") };
    let config: serde_json::Value = serde_json::from_slice(model.file("config.json").unwrap()).unwrap();
    let row =
        |number: &dyn Fn(&u32) -> i64| Tensor::from_shape(&[1, tokens.len()], &tokens.iter().map(number).collect::<Vec<i64>>()).unwrap();
    let inputs = vec![row(&|&id| id.into()), row(&|_| 1), row(&|_| 0)];
    let logits = run(model.file("model_q4.onnx").unwrap(), inputs).remove(0);
    let best = |logits: &[f32]| logits.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1)).map(|(index, _)| index.to_string()).unwrap();
    let found: Vec<&str> = logits.chunks_exact(35).map(|logits| config["id2label"][best(logits)].as_str().unwrap()).collect();
    assert_eq!(found, labels);
}
