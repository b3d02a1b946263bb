//! Rampart's graph with products, norms and attention as operations of our own; tract runs it with them.
//! Trusts: the bytes, which `verify` hashed; a graph of another kind is refused.
//! Touches: nothing.
//! Next: `ner` optimises and runs what comes out.
//!
//! Each `MatMulNBits` with its bias becomes one product, whose weights stay the file's own four bits where the processor is
//! faster with those; each `LayerNormalization` one
//! norm; and what lies between a layer's input and its mixed values one attention. The last stands for about forty nodes and no longer
//! asks for a mask: a window is never filled up, so all of it is seen (docs/adr/0014).

use std::collections::{HashMap, HashSet};

use tract_onnx::pb::{GraphProto, NodeProto, TensorProto};
use tract_onnx::prelude::InferenceModel;
use tract_onnx::tract_hir::ops::expandable::expand;

use super::ops::{Own, Part};
use crate::model::load::{LoadError, attribute, build, element_count, parse, singles};
use crate::sys::simd::{BLOCK, Fours, PANEL, Panels, widen_fours};
use crate::worker::layers::{Linear, Norm, Precision, Weight};

/// What the exporter calls the products and the result of a layer's attention; the layer's name comes before.
const QUERY: &str = "attention/self/query/Add";
const KEY: &str = "attention/self/key/Add";
const VALUE: &str = "attention/self/value/Add";
const MIXED: &str = "attention/self/Reshape_3";
/// The same of the two products after it, and of the middle of the GELU between them.
const UP: &str = "intermediate/dense/Add";
const BENT: &str = "intermediate/intermediate_act_fn/Erf";
const DOWN: &str = "output/dense/Add";

/// The graph for tract, whose inputs are token ids and their kinds. Attention has `heads` heads.
///
/// # Errors
/// [`LoadError`] names the tensor or node that cannot be used.
pub fn graph(onnx: &[u8], heads: usize, precision: Precision) -> Result<InferenceModel, LoadError> {
    let (mut model, mut graph) = parse(onnx)?;
    let mut owned = fuse(&mut graph, heads, precision)?;
    model.graph = Some(graph);
    let mut built = build(&model)?;
    for node in &mut built.nodes {
        if let Some(own) = owned.remove(&node.name) {
            node.op = expand(own);
        }
    }
    Ok(built)
}

/// Puts a node without a meaning for tract in the place of each of our operations; those by the nodes' names.
fn fuse(graph: &mut GraphProto, heads: usize, precision: Precision) -> Result<HashMap<String, Own>, LoadError> {
    let mut owned = HashMap::new();
    for (name, (input, own)) in Parts::of(graph, heads, precision).collect()? {
        let node = graph.node.iter_mut().find(|node| node.name == name).ok_or_else(|| LoadError::Node { node: name.clone() })?;
        node.op_type = "Own".to_owned();
        node.input = vec![input];
        node.attribute.clear();
        owned.insert(name, own);
    }
    drop_unused(graph);
    Ok(owned)
}

/// Removes what no output depends on. Nodes lie in the order in which they are computed.
fn drop_unused(graph: &mut GraphProto) {
    let mut used: HashSet<String> = graph.output.iter().map(|output| output.name.clone()).collect();
    graph.node.reverse();
    graph.node.retain(|node| {
        let kept = node.output.iter().any(|output| used.contains(output));
        if kept {
            used.extend(node.input.iter().cloned());
        }
        kept
    });
    graph.node.reverse();
    graph.initializer.retain(|tensor| used.contains(&tensor.name));
    graph.input.retain(|input| used.contains(&input.name));
}

/// Operations of our own by the name of the node whose place they take, with the name of their input.
type Found = Vec<(String, (String, Own))>;

/// A graph by its names.
struct Parts<'g> {
    graph: &'g GraphProto,
    heads: usize,
    precision: Precision,
    nodes: HashMap<&'g str, &'g NodeProto>,
    /// By what they put out.
    makers: HashMap<&'g str, &'g NodeProto>,
    tensors: HashMap<&'g str, &'g TensorProto>,
}

impl<'g> Parts<'g> {
    fn of(graph: &'g GraphProto, heads: usize, precision: Precision) -> Self {
        let makers = graph.node.iter().flat_map(|node| node.output.iter().map(move |output| (output.as_str(), node))).collect();
        let nodes = graph.node.iter().map(|node| (node.name.as_str(), node)).collect();
        let tensors = graph.initializer.iter().map(|tensor| (tensor.name.as_str(), tensor)).collect();
        Self { graph, heads, precision, nodes, makers, tensors }
    }

    fn collect(&self) -> Result<Found, LoadError> {
        let mut found = Vec::new();
        let mut inside = HashSet::new();
        for node in &self.graph.node {
            if let Some(layer) = node.name.strip_suffix(QUERY) {
                let names = [QUERY, KEY, VALUE].map(|part| format!("{layer}{part}"));
                found.push((format!("{layer}{MIXED}"), self.attention(&names)?));
                let feed = [UP, BENT, DOWN].map(|part| format!("{layer}{part}"));
                found.push((format!("{layer}{DOWN}"), self.feed(&feed)?));
                inside.extend(names.into_iter().chain(feed));
            }
        }
        for node in &self.graph.node {
            let own = match node.op_type.as_str() {
                "Add" if self.product_before(node).is_some() && !inside.contains(&node.name) => self.dense(node)?,
                "LayerNormalization" => self.norm(node)?,
                _ => continue,
            };
            found.push((node.name.clone(), own));
        }
        Ok(found)
    }

    /// The quantised product that an addition takes, and what it adds.
    fn product_before(&self, add: &'g NodeProto) -> Option<(&'g NodeProto, &'g str)> {
        let [one, other] = add.input.as_slice() else { return None };
        let product = |name: &str| self.makers.get(name).copied().filter(|node| node.op_type == "MatMulNBits");
        product(one).map(|node| (node, other.as_str())).or_else(|| product(other).map(|node| (node, one.as_str())))
    }

    fn dense(&self, add: &'g NodeProto) -> Result<(String, Own), LoadError> {
        let product = Product::of(self, add)?;
        let (input, depth, width) = (product.input.to_owned(), product.depth, product.width);
        Ok((input, Own::new(Part::Dense { linear: side_by_side(&[product], self.precision), width }, depth)))
    }

    fn norm(&self, node: &NodeProto) -> Result<(String, Own), LoadError> {
        let refused = || LoadError::Node { node: node.name.clone() };
        let [input, gamma, beta] = node.input.as_slice() else { return Err(refused()) };
        let epsilon = node.attribute.iter().find(|attribute| attribute.name == "epsilon").ok_or_else(refused)?.f;
        let last = attribute(node, "axis").unwrap_or(-1) == -1;
        let (gamma, beta) = (self.singles(gamma, None)?, self.singles(beta, None)?);
        if !last || gamma.len() != beta.len() || gamma.is_empty() {
            return Err(refused());
        }
        let width = gamma.len();
        Ok((input.clone(), Own::new(Part::Norm { norm: Norm::new(gamma, beta, epsilon), width }, width)))
    }

    fn node(&self, name: &str) -> Result<&'g NodeProto, LoadError> {
        self.nodes.get(name).copied().ok_or_else(|| LoadError::Node { node: name.to_owned() })
    }

    /// The two products after a layer's attention, with GELU between them.
    fn feed(&self, [up, bent, down]: &[String; 3]) -> Result<(String, Own), LoadError> {
        let (first, second) = (Product::of(self, self.node(up)?)?, Product::of(self, self.node(down)?)?);
        let fits = self.node(bent)?.op_type == "Erf" && first.width == second.depth;
        let fits = fits && [first.width, second.width].iter().all(|width| width.is_multiple_of(PANEL));
        if !fits {
            return Err(LoadError::Node { node: bent.clone() });
        }
        let (input, depth) = (first.input.to_owned(), first.depth);
        let (up, down) = (side_by_side(&[first], self.precision), side_by_side(&[second], self.precision));
        Ok((input, Own::new(Part::Feed { up, down }, depth)))
    }

    /// The attention that ends in the mixed values of a layer.
    fn attention(&self, [query, key, value]: &[String; 3]) -> Result<(String, Own), LoadError> {
        let product = |name: &str| Product::of(self, self.node(name)?);
        let products = [product(query)?, product(key)?, product(value)?];
        let [Product { input, depth, width, .. }, ..] = products;
        let alike = products.iter().all(|product| (product.input, product.depth, product.width) == (input, depth, width));
        let head = width.checked_div(self.heads).filter(|head| head * self.heads == width && head.is_multiple_of(PANEL) && *head > 0);
        let head = head.filter(|_| alike).ok_or_else(|| LoadError::Node { node: query.clone() })?;
        Ok((input.to_owned(), Own::new(Part::Attention { qkv: side_by_side(&products, self.precision), head }, depth)))
    }

    /// A tensor in single precision, of `count` numbers if that is known.
    fn singles(&self, name: &str, count: Option<usize>) -> Result<Vec<f32>, LoadError> {
        let numbers = self.tensors.get(name).and_then(|tensor| {
            let whole = |numbers: &Vec<f32>| element_count(&tensor.dims) == Some(numbers.len());
            singles(tensor).filter(whole).filter(|numbers| count.is_none_or(|count| count == numbers.len()))
        });
        numbers.ok_or_else(|| LoadError::Shape { tensor: name.to_owned() })
    }
}

/// A quantised product and its bias.
struct Product<'g> {
    input: &'g str,
    depth: usize,
    width: usize,
    packed: &'g [u8],
    scales: Vec<f32>,
    bias: Vec<f32>,
}

impl<'g> Product<'g> {
    /// Of four bits in blocks of [`BLOCK`], without zero points, and a constant bias.
    fn of(parts: &Parts<'g>, add: &'g NodeProto) -> Result<Self, LoadError> {
        let (node, bias) = parts.product_before(add).ok_or_else(|| LoadError::Node { node: add.name.clone() })?;
        let refused = || LoadError::Quantised { node: node.name.clone() };
        let size = |name| attribute(node, name).and_then(|size| usize::try_from(size).ok()).ok_or_else(refused);
        let (depth, width) = (size("K")?, size("N")?);
        let plain = node.input.iter().skip(3).all(String::is_empty) && attribute(node, "bits").unwrap_or(4) == 4;
        let [input, packed, scales] = node.input.get(..3).and_then(|inputs| inputs.first_chunk::<3>()).ok_or_else(refused)?;
        if !plain || size("block_size")? != BLOCK || !depth.is_multiple_of(BLOCK) || depth == 0 || width == 0 {
            return Err(refused());
        }
        let wrong = || LoadError::Shape { tensor: packed.clone() };
        let count = depth.checked_mul(width).ok_or_else(wrong)?;
        let bytes = parts.tensors.get(packed.as_str()).filter(|tensor| tensor.raw_data.len() == count / 2).ok_or_else(wrong)?;
        let (scales, bias) = (parts.singles(scales, Some(count / BLOCK))?, parts.singles(bias, Some(width))?);
        Ok(Self { input, depth, width, packed: &bytes.raw_data, scales, bias })
    }
}

/// One product out of several of the same depth, whose outputs then lie side by side, each in whole panels.
fn side_by_side(products: &[Product<'_>], precision: Precision) -> Linear {
    let depth = products.first().map_or(0, |product| product.depth);
    let mut bias = Vec::new();
    for product in products {
        bias.extend_from_slice(&product.bias);
        bias.resize(bias.len().next_multiple_of(PANEL), 0.0);
    }
    if precision == Precision::Fastest
        && let Some(mut weight) = Fours::new(depth)
    {
        products.iter().for_each(|product| weight.push(product.packed, &product.scales));
        return Linear::new(Weight::Fours(weight), bias);
    }
    let mut weight = Panels::zero(depth, bias.len());
    let mut column = 0;
    for product in products {
        widen_fours(product.packed, &product.scales, column, &mut weight);
        column += product.width.next_multiple_of(PANEL);
    }
    Linear::new(Weight::Single(weight), bias)
}

#[cfg(test)]
#[path = "fused_tests.rs"]
mod tests;
