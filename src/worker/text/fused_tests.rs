//! Our operations inside Rampart's graph against plain tract, and graphs that are not Rampart's.
//! Trusts: tract.
//! Touches: firmware-models/rampart, or `SALAMA_MODELS`/rampart.
//! Next: nobody.

use std::sync::Arc;

use tract_onnx::pb::AttributeProto;
use tract_onnx::prelude::*;

use super::*;
use crate::model::load;
use crate::worker::text::tests::model_file;

const HEADS: usize = 12;

fn shipped() -> GraphProto {
    parse(&model_file("model_q4.onnx")).unwrap().1
}

/// Rows of logits for `ids`, with as many inputs as the graph has: ids, then what is the same for each, such as a mask.
fn logits(plan: &Arc<TypedRunnableModel>, ids: &[i64], others: &[i64]) -> Vec<f32> {
    let row = |value: &dyn Fn(usize) -> i64| {
        let values: Vec<i64> = (0..ids.len()).map(value).collect();
        Tensor::from_shape(&[1, ids.len()], &values).unwrap().into_tvalue()
    };
    let mut inputs: TVec<TValue> = tvec!(row(&|at| ids[at]));
    inputs.extend(others.iter().map(|other| row(&|_| *other)));
    plan.run(inputs).unwrap()[0].to_plain_array_view::<f32>().unwrap().iter().copied().collect()
}

#[test]
fn logits_are_within_the_rounding_of_plain_tracts() {
    let onnx = model_file("model_q4.onnx");
    let plain = load::graph(&onnx).unwrap().into_optimized().unwrap().into_runnable().unwrap();
    let ours = |precision| graph(&onnx, HEADS, precision).unwrap().into_optimized().unwrap().into_runnable().unwrap();
    let (single, fastest) = (ours(Precision::Exact), ours(Precision::Fastest));
    for (length, seed) in [(1, 5), (2, 9), (41, 3), (128, 97), (512, 31)] {
        let ids: Vec<i64> = (0..length).map(|at| (at * seed + at * at) % 19_000).collect();

        let expected = logits(&plain, &ids, &[1, 0]);

        for (plan, bound) in [(&single, 2e-4), (&fastest, 5e-3)] {
            let found = logits(plan, &ids, &[0]);
            let worst = expected.iter().zip(&found).map(|(one, other)| (one - other).abs()).fold(0.0, f32::max);
            assert!(expected.len() == found.len() && worst < bound, "{length} tokens: {worst}");
        }
    }
}

#[test]
fn all_products_norms_and_attentions_of_the_graph_are_ours() {
    let mut graph = shipped();

    let owned = fuse(&mut graph, HEADS, Precision::Fastest).unwrap();

    // For each of six layers an attention, its product, two products with GELU, and two norms; a norm before and a product after them.
    assert_eq!(owned.len(), 6 * (1 + 1 + 1 + 2) + 2);
    assert!(
        graph.node.iter().all(|node| !["MatMulNBits", "MatMul", "LayerNormalization", "Softmax", "Erf"].contains(&node.op_type.as_str()))
    );
    assert_eq!(graph.input.iter().map(|input| input.name.as_str()).collect::<Vec<_>>(), ["input_ids", "token_type_ids"]);
}

/// What `fuse` says of the shipped graph after a change.
fn refused(change: impl Fn(&mut GraphProto)) -> LoadError {
    let mut graph = shipped();
    change(&mut graph);
    fuse(&mut graph, HEADS, Precision::Fastest).expect_err("a graph like no Rampart")
}

fn node<'g>(graph: &'g mut GraphProto, name: &str) -> &'g mut NodeProto {
    graph.node.iter_mut().find(|node| node.name.ends_with(name)).unwrap()
}

fn number<'n>(node: &'n mut NodeProto, name: &str) -> &'n mut AttributeProto {
    node.attribute.iter_mut().find(|attribute| attribute.name == name).unwrap()
}

#[test]
fn a_graph_without_one_of_its_weights_is_refused() {
    for name in ["onnx::MatMul_774_Q4", "onnx::MatMul_759_scales", "classifier.bias", "bert.embeddings.LayerNorm.weight"] {
        let error = refused(|graph| graph.initializer.retain(|tensor| tensor.name != name));
        assert!(matches!(&error, LoadError::Shape { tensor } if tensor == name), "{error}");
        let error = refused(|graph| {
            let tensor = graph.initializer.iter_mut().find(|tensor| tensor.name == name).unwrap();
            tensor.raw_data.truncate(tensor.raw_data.len() - 4);
        });
        assert!(matches!(&error, LoadError::Shape { tensor } if tensor == name) || matches!(error, LoadError::Node { .. }), "{error}");
    }
}

#[test]
fn a_product_of_another_kind_is_refused() {
    let product = "layer.3/intermediate/dense/MatMul_Q4";
    for (name, value) in [("bits", 8), ("block_size", 64), ("K", 380), ("N", 0), ("K", -1)] {
        let error = refused(|graph| number(node(graph, product), name).i = value);
        assert!(matches!(&error, LoadError::Quantised { node } if node.ends_with(product)), "{name}: {error}");
    }
    for (name, value) in [("K", 416), ("N", 1504), ("N", i64::MAX)] {
        let error = refused(|graph| number(node(graph, product), name).i = value);
        assert!(matches!(error, LoadError::Shape { .. }), "{name}: {error}");
    }
    let error = refused(|graph| node(graph, product).input.push("zero_points".to_owned()));
    assert!(matches!(error, LoadError::Quantised { .. }), "{error}");
}

#[test]
fn an_attention_feed_or_norm_of_another_kind_is_refused() {
    let is_node = |error: LoadError| assert!(matches!(error, LoadError::Node { .. }), "{error}");
    is_node(refused(|graph| graph.node.retain(|node| !node.name.ends_with("layer.2/attention/self/key/Add"))));
    is_node(refused(|graph| graph.node.retain(|node| !node.name.ends_with("layer.2/attention/self/Reshape_3"))));
    is_node(refused(|graph| node(graph, "layer.2/attention/self/key/MatMul_Q4").input[0] = "input_ids".to_owned()));
    is_node(refused(|graph| node(graph, "layer.5/output/LayerNorm/LayerNormalization").attribute.clear()));
    is_node(refused(|graph| number(node(graph, "layer.5/output/LayerNorm/LayerNormalization"), "axis").i = 1));
    is_node(refused(|graph| node(graph, "layer.4/intermediate/intermediate_act_fn/Erf").op_type = "Tanh".to_owned()));
    for heads in [0, 7, 24] {
        is_node(fuse(&mut shipped(), heads, Precision::Fastest).unwrap_err());
    }
}

#[test]
fn what_tract_still_needs_is_missed_by_tract() {
    let onnx = model_file("model_q4.onnx");
    let (mut model, mut graph) = parse(&onnx).unwrap();
    graph.initializer.retain(|tensor| tensor.name != "bert.embeddings.word_embeddings.weight_quantized");
    model.graph = Some(graph);

    let error = super::graph(&prost::Message::encode_to_vec(&model), HEADS, Precision::Fastest).unwrap_err();

    assert!(matches!(error, LoadError::Unsupported(_)), "{error}");
}
