//! The half-precision weights of a graph, by name, for a program that computes the graph itself.
//! Trusts: the bytes, which `verify` hashed; damage and surprises are refused.
//! Touches: memory only.
//! Next: `worker::speech` lays them out for its products.

use std::collections::HashMap;

use prost::Message;
use tract_onnx::pb::ModelProto;
use tract_onnx::pb::tensor_proto::DataType;

use super::load::{LoadError, element_count, refuse_external_data};
use crate::sys::simd::Half;

/// What the importer's names of stored weights end with; the part before is the weight's own name.
const STORED: &str = ".f16";

/// Weights that have not been taken yet.
pub struct Tensors {
    by_name: HashMap<String, (Vec<usize>, Vec<u8>)>,
}

impl Tensors {
    /// Reads a graph's weights.
    ///
    /// # Errors
    /// [`LoadError`] when the file is damaged or its weights lie elsewhere.
    pub fn read(onnx: &[u8]) -> Result<Self, LoadError> {
        let model = ModelProto::decode(onnx).map_err(LoadError::Damaged)?;
        let graph = model.graph.ok_or(LoadError::NoGraph)?;
        refuse_external_data(&graph)?;
        let mut by_name = HashMap::new();
        for tensor in graph.initializer {
            let Some(name) = tensor.name.strip_suffix(STORED) else { continue };
            let shape = || LoadError::Shape { tensor: tensor.name.clone() };
            let dims: Option<Vec<usize>> = tensor.dims.iter().map(|dim| usize::try_from(*dim).ok()).collect();
            let bytes = element_count(&tensor.dims).and_then(|count| count.checked_mul(2));
            if tensor.data_type != i32::from(DataType::Float16) || bytes != Some(tensor.raw_data.len()) {
                return Err(shape());
            }
            by_name.insert(name.to_owned(), (dims.ok_or_else(shape)?, tensor.raw_data));
        }
        Ok(Self { by_name })
    }

    /// Takes the weight `name`, which must have the shape `dims`.
    ///
    /// # Errors
    /// [`LoadError::Shape`] when there is none, it was taken before, or it has another shape.
    pub fn take(&mut self, name: &str, dims: &[usize]) -> Result<Vec<Half>, LoadError> {
        let found = self.by_name.remove(name).filter(|(found, _)| found == dims);
        let (_, bytes) = found.ok_or_else(|| LoadError::Shape { tensor: format!("{name}{STORED}") })?;
        Ok(bytes.as_chunks::<2>().0.iter().map(|pair| Half::from_bits(u16::from_le_bytes(*pair))).collect())
    }

    /// The weight `name` in single precision.
    ///
    /// # Errors
    /// As [`Self::take`].
    pub fn take_wide(&mut self, name: &str, dims: &[usize]) -> Result<Vec<f32>, LoadError> {
        Ok(self.take(name, dims)?.into_iter().map(Half::wide).collect())
    }

    /// The weight `name` in single precision, or zeros when the graph has none of that name.
    ///
    /// # Errors
    /// As [`Self::take`], when it has another shape.
    pub fn take_wide_or_zero(&mut self, name: &str, count: usize) -> Result<Vec<f32>, LoadError> {
        if self.by_name.contains_key(name) { self.take_wide(name, &[count]) } else { Ok(vec![0.0; count]) }
    }

    /// Refuses a graph that has weights nobody asked for: it is another one than the program computes.
    ///
    /// # Errors
    /// [`LoadError::Unused`] names one of them.
    pub fn finish(self) -> Result<(), LoadError> {
        self.by_name.into_keys().min().map_or(Ok(()), |tensor| Err(LoadError::Unused { tensor }))
    }
}
