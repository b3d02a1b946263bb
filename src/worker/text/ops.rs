//! Operations of our own inside a graph that tract runs: what `worker::layers` computes, on rows of one width.
//! Trusts: `fused`, which puts them where the graph means the same.
//! Touches: nothing.
//! Next: `fused` makes them; tract calls them in their turn.

use std::sync::Arc;

use tract_onnx::tract_core::{as_op, op_as_typed_op, op_out_of_plan};
use tract_onnx::tract_hir::internal::*;

use crate::sys::simd::{Rows, gelu};
use crate::worker::layers::{Attention, Linear, Norm};

/// What an operation makes of rows.
pub enum Part {
    /// Product and bias, of which the first columns count.
    Dense {
        /// Both.
        linear: Linear,
        /// The columns that count.
        width: usize,
    },
    /// Wide product, GELU, narrow product.
    Feed {
        /// The first.
        up: Linear,
        /// The second.
        down: Linear,
    },
    /// Layer norm.
    Norm {
        /// Of rows.
        norm: Norm,
        /// As long as this.
        width: usize,
    },
    /// Attention of all rows to all, with heads of this many numbers.
    Attention {
        /// Queries, keys and values side by side.
        qkv: Linear,
        /// Numbers of a head.
        head: usize,
    },
}

impl Part {
    /// Numbers in a row that comes out.
    fn width(&self) -> usize {
        match self {
            Self::Dense { width, .. } | Self::Norm { width, .. } => *width,
            Self::Feed { down, .. } => down.width(),
            Self::Attention { qkv, .. } => qkv.width() / 3,
        }
    }

    /// Rows for `count` dense rows of `depth` numbers.
    fn compute(&self, x: &[f32], count: usize, depth: usize) -> Vec<f32> {
        let mut out = Vec::new();
        let x_rows = Rows::dense(x, count, depth);
        match self {
            Self::Dense { linear, width } => {
                linear.apply(x_rows, &mut out);
                if *width < linear.width() {
                    out = out.chunks_exact(linear.width()).flat_map(|row| row.iter().take(*width).copied()).collect();
                }
            }
            Self::Feed { up, down } => {
                let mut wide = Vec::new();
                up.apply(x_rows, &mut wide);
                gelu(&mut wide);
                down.apply(Rows::dense(&wide, count, up.width()), &mut out);
            }
            Self::Norm { norm, .. } => norm.apply(x, &mut out),
            Self::Attention { qkv, head } => {
                let mut rows = Vec::new();
                qkv.apply_in_panels(x_rows, &mut rows);
                Attention::new(count, *head, 1.0 / length(*head).sqrt()).attend(&rows, &mut out);
            }
        }
        out
    }
}

#[expect(clippy::as_conversions, reason = "a head has some ten numbers, exact in f32")]
fn length(head: usize) -> f32 {
    head as f32
}

/// An operation on `[1, rows, depth]`, in single precision.
#[derive(Clone)]
pub struct Own {
    part: Arc<Part>,
    depth: usize,
}

impl Own {
    /// `part`, which takes rows of `depth` numbers.
    pub fn new(part: Part, depth: usize) -> Self {
        Self { part: Arc::new(part), depth }
    }
}

impl std::fmt::Debug for Own {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Own({} > {})", self.depth, self.part.width())
    }
}

impl PartialEq for Own {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.part, &other.part)
    }
}

impl Eq for Own {}

impl Expansion for Own {
    fn name(&self) -> StaticName {
        "Own".into()
    }

    fn wire(&self, prefix: &str, model: &mut TypedModel, inputs: &[OutletId]) -> TractResult<TVec<OutletId>> {
        model.wire_node(prefix, self.clone(), inputs)
    }

    fn rules<'r, 'p: 'r, 's: 'r>(&'s self, s: &mut Solver<'r>, inputs: &'p [TensorProxy], outputs: &'p [TensorProxy]) -> InferenceResult {
        let ([input], [output]) = (inputs, outputs) else { bail!("one input and one output were expected") };
        s.equals(&input.datum_type, f32::datum_type())?;
        s.equals(&output.datum_type, f32::datum_type())?;
        s.given(&input.shape, move |s, shape| s.equals(&output.shape, self.shape(&shape)?))
    }
}

impl Own {
    /// What comes out for `shape`.
    fn shape(&self, shape: &[TDim]) -> TractResult<TVec<TDim>> {
        let [batch, rows, depth] = shape else { bail!("rows of a sequence were expected, not {shape:?}") };
        ensure!(*depth == self.depth.to_dim(), "rows of {} numbers were expected, not {depth}", self.depth);
        Ok(tvec!(batch.clone(), rows.clone(), self.part.width().to_dim()))
    }
}

impl Op for Own {
    fn name(&self) -> StaticName {
        "Own".into()
    }

    op_as_typed_op!();
}

impl EvalOp for Own {
    fn eval(&self, _: &EvalContext, inputs: TVec<TValue>) -> TractResult<TVec<TValue>> {
        let [input] = &*inputs else { bail!("one input was expected, not {}", inputs.len()) };
        let &[1, count, depth] = input.shape() else { bail!("one sequence was expected, not {:?}", input.shape()) };
        ensure!(depth == self.depth, "rows of {} numbers were expected, not {depth}", self.depth);
        let view = input.to_plain_array_view::<f32>()?;
        let rows = view.as_slice().context("dense rows were expected")?;
        let out = self.part.compute(rows, count, depth);
        Ok(tvec!(tract_ndarray::Array3::from_shape_vec((1, count, self.part.width()), out)?.into_tvalue()))
    }

    op_out_of_plan!();
}

impl TypedOp for Own {
    fn output_facts(&self, inputs: &[&TypedFact]) -> TractResult<TVec<TypedFact>> {
        let [input] = inputs else { bail!("one input was expected, not {}", inputs.len()) };
        Ok(tvec!(f32::fact(self.shape(&input.shape.to_tvec())?)))
    }

    as_op!();
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::simd::{PANEL, Panels};
    use crate::worker::layers::Weight;

    /// A product of 64 numbers whose weights are all 1, with the bias 0.5, of which `width` columns count.
    fn sums(width: usize) -> Part {
        let weight = Panels::from_rows(64, PANEL, &[1.0; 64 * PANEL]);
        Part::Dense { linear: Linear::new(Weight::Single(weight), vec![0.5; PANEL]), width }
    }

    fn run(part: Part, input: Tensor) -> TractResult<TValue> {
        Own::new(part, 64).eval(&EvalContext::out_of_plan(), tvec!(input.into_tvalue())).map(|mut out| out.remove(0))
    }

    #[test]
    fn a_dense_part_gives_the_columns_that_count() {
        let rows: Vec<f32> = (0_u8..128).map(|at| if at < 64 { 1.0 } else { -2.0 }).collect();

        let out = run(sums(3), Tensor::from_shape(&[1, 2, 64], &rows).unwrap()).unwrap();

        assert_eq!(out.shape(), [1, 2, 3]);
        let expected = [64.5, 64.5, 64.5, -127.5, -127.5, -127.5];
        let found = out.to_plain_array_view::<f32>().unwrap();
        assert!(found.iter().zip(expected).all(|(found, expected)| (found - expected).abs() < 1e-3), "{found}");
    }

    #[test]
    fn a_feed_part_bends_what_is_between_its_products() {
        let linear = |weight: f32, depth, width| {
            let weight = Panels::from_rows(depth, width, &vec![weight; depth * width]);
            Linear::new(Weight::Single(weight), vec![0.25; width])
        };

        let part = Part::Feed { up: linear(1.0 / 64.0, 64, 96), down: linear(1.0, 96, 32) };

        let out = run(part, Tensor::from_shape(&[1, 1, 64], &[0.75_f32; 64]).unwrap()).unwrap();
        // GELU of 1 is 0.841345.
        assert!(out.to_plain_array_view::<f32>().unwrap().iter().all(|value| (value - 96.0 * 0.841_345 - 0.25).abs() < 1e-3));
    }

    #[test]
    fn attention_to_equal_rows_gives_their_values() {
        let weight = Panels::from_rows(64, 3 * PANEL, &[0.01; 64 * 3 * PANEL]);
        let part = Part::Attention { qkv: Linear::new(Weight::Single(weight), vec![0.0; 3 * PANEL]), head: PANEL };

        let out = run(part, Tensor::from_shape(&[1, 5, 64], &[1.0_f32; 5 * 64]).unwrap()).unwrap();

        assert_eq!(out.shape(), [1, 5, 32]);
        assert!(out.to_plain_array_view::<f32>().unwrap().iter().all(|value| (value - 0.64).abs() < 1e-5));
    }

    #[test]
    fn inputs_of_another_shape_or_kind_are_errors() {
        for shape in [&[1, 2, 32][..], &[2, 1, 64], &[64], &[1, 1, 1, 64]] {
            assert!(run(sums(3), Tensor::zero::<f32>(shape).unwrap()).is_err(), "{shape:?}");
        }
        assert!(run(sums(3), Tensor::zero::<i64>(&[1, 1, 64]).unwrap()).is_err());
        assert!(Own::new(sums(3), 64).output_facts(&[&f32::fact([1, 2, 32])]).is_err());
    }
}
