//! The weights of a graph, by name, for a program that computes the graph itself.
//! Trusts: the bytes, which `verify` hashed; damage and surprises are refused.
//! Touches: memory only.
//! Next: `worker::speech` lays them out for its products.

use std::collections::HashMap;

use prost::Message;
use tract_onnx::pb::tensor_proto::DataType;
use tract_onnx::pb::{ModelProto, TensorProto};

use super::load::{LoadError, element_count, refuse_external_data, singles};
use crate::sys::simd::Half;

/// What the importer's names of half-precision weights end with; the part before is the weight's own name.
const STORED: &str = ".f16";

/// Weights that have not been taken yet: the half- and single-precision tensors of a graph but for its numbers of rank 0, which are
/// constants of its arithmetic.
pub struct Tensors {
    by_name: HashMap<String, Stored>,
}

struct Stored {
    dims: Vec<usize>,
    numbers: Numbers,
}

enum Numbers {
    /// As in the file, two bytes each.
    Half(Vec<u8>),
    Single(Vec<f32>),
}

impl Tensors {
    /// Reads a graph's weights.
    ///
    /// # Errors
    /// [`LoadError`] when the file is damaged, its weights lie elsewhere or do not fill their shapes, or two have one name.
    pub fn read(onnx: &[u8]) -> Result<Self, LoadError> {
        let model = ModelProto::decode(onnx).map_err(LoadError::Damaged)?;
        let graph = model.graph.ok_or(LoadError::NoGraph)?;
        refuse_external_data(&graph)?;
        let mut by_name = HashMap::new();
        for mut tensor in graph.initializer.into_iter().filter(|tensor| !tensor.dims.is_empty()) {
            let name = std::mem::take(&mut tensor.name);
            let Some(stored) = Stored::read(tensor).ok_or_else(|| LoadError::Shape { tensor: name.clone() })? else { continue };
            let own_name = match stored.numbers {
                Numbers::Half(_) => name.strip_suffix(STORED).unwrap_or(&name).to_owned(),
                Numbers::Single(_) => name.clone(),
            };
            if by_name.insert(own_name, stored).is_some() {
                return Err(LoadError::Doubled { tensor: name });
            }
        }
        Ok(Self { by_name })
    }

    /// Takes the half-precision weight `name`, which must have the shape `dims`.
    ///
    /// # Errors
    /// [`LoadError::Missing`] when there is none or it was taken before, [`LoadError::Shape`], [`LoadError::Precision`].
    pub fn take(&mut self, name: &str, dims: &[usize]) -> Result<Vec<Half>, LoadError> {
        match self.remove(name, dims)? {
            Numbers::Half(bytes) => Ok(halves(&bytes).collect()),
            Numbers::Single(_) => Err(LoadError::Precision { tensor: name.to_owned() }),
        }
    }

    /// Takes the weight `name` of either precision in single precision, which is exact.
    ///
    /// # Errors
    /// As [`Self::take`], but for `Precision`.
    pub fn take_wide(&mut self, name: &str, dims: &[usize]) -> Result<Vec<f32>, LoadError> {
        match self.remove(name, dims)? {
            Numbers::Half(bytes) => Ok(halves(&bytes).map(Half::wide).collect()),
            Numbers::Single(numbers) => Ok(numbers),
        }
    }

    /// The weight `name` in single precision, or zeros when the graph has none of that name.
    ///
    /// # Errors
    /// As [`Self::take_wide`], when it has another shape.
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

    fn remove(&mut self, name: &str, dims: &[usize]) -> Result<Numbers, LoadError> {
        let stored = self.by_name.remove(name).ok_or_else(|| LoadError::Missing { tensor: name.to_owned() })?;
        if stored.dims == dims { Ok(stored.numbers) } else { Err(LoadError::Shape { tensor: name.to_owned() }) }
    }
}

impl Stored {
    /// `None` when the data do not fill the shape; `Some(None)` for numbers of a kind that no weight of ours has.
    fn read(tensor: TensorProto) -> Option<Option<Self>> {
        let count = element_count(&tensor.dims)?;
        let dims = tensor.dims.iter().map(|dim| usize::try_from(*dim).ok()).collect::<Option<_>>()?;
        let numbers = if tensor.data_type == i32::from(DataType::Float16) {
            Numbers::Half(Some(tensor.raw_data).filter(|bytes| Some(bytes.len()) == count.checked_mul(2))?)
        } else if tensor.data_type == i32::from(DataType::Float) {
            Numbers::Single(singles(&tensor).filter(|numbers| numbers.len() == count)?)
        } else {
            return Some(None);
        };
        Some(Some(Self { dims, numbers }))
    }
}

fn halves(bytes: &[u8]) -> impl Iterator<Item = Half> {
    bytes.as_chunks::<2>().0.iter().map(|pair| Half::from_bits(u16::from_le_bytes(*pair)))
}

#[cfg(test)]
mod tests {
    use tract_onnx::pb::GraphProto;

    use super::*;

    /// 1.5, -2.0 and 65504.0 in half precision.
    const HALVES: [u8; 6] = [0x00, 0x3e, 0x00, 0xc0, 0xff, 0x7b];

    fn half(name: &str, dims: &[i64], raw_data: &[u8]) -> TensorProto {
        let data_type = DataType::Float16.into();
        TensorProto { name: name.into(), dims: dims.to_vec(), data_type, raw_data: raw_data.to_vec(), ..Default::default() }
    }

    fn single(name: &str, dims: &[i64], numbers: &[f32]) -> TensorProto {
        let raw_data = numbers.iter().copied().flat_map(f32::to_le_bytes).collect();
        TensorProto { name: name.into(), dims: dims.to_vec(), data_type: DataType::Float.into(), raw_data, ..Default::default() }
    }

    fn read(initializer: Vec<TensorProto>) -> Result<Tensors, LoadError> {
        let graph = Some(GraphProto { initializer, ..Default::default() });
        Tensors::read(&ModelProto { graph, ..Default::default() }.encode_to_vec())
    }

    fn shape_of(refused: Result<Tensors, LoadError>) -> Option<String> {
        match refused {
            Err(LoadError::Shape { tensor }) => Some(tensor),
            _ => None,
        }
    }

    #[test]
    fn weights_of_both_precisions_are_taken_by_their_own_names() {
        let packed = TensorProto { raw_data: vec![], float_data: vec![0.25, 4.0], ..single("packed", &[2], &[]) };
        let mut tensors = read(vec![half("half.f16", &[1, 3], &HALVES), single("single", &[2, 1], &[0.5, -3.0]), packed]).unwrap();
        assert_eq!(tensors.take_wide("single", &[2, 1]).unwrap(), [0.5, -3.0]);
        assert_eq!(tensors.take_wide("packed", &[2]).unwrap(), [0.25, 4.0]);
        let found = tensors.take("half", &[1, 3]).unwrap();
        assert_eq!(found.into_iter().map(Half::wide).collect::<Vec<_>>(), [1.5, -2.0, 65504.0]);
        tensors.finish().unwrap();
    }

    #[test]
    fn a_half_weight_in_single_precision_is_the_same_numbers() {
        let mut tensors = read(vec![half("w.f16", &[3], &HALVES)]).unwrap();
        assert_eq!(tensors.take_wide("w", &[3]).unwrap(), [1.5, -2.0, 65504.0]);
    }

    #[test]
    fn a_name_that_is_not_there_or_no_more_is_missing() {
        let mut tensors = read(vec![single("w", &[1], &[1.0])]).unwrap();
        assert!(matches!(tensors.take_wide("v", &[1]), Err(LoadError::Missing { tensor }) if tensor == "v"));
        tensors.take_wide("w", &[1]).unwrap();
        assert!(matches!(tensors.take_wide("w", &[1]), Err(LoadError::Missing { tensor }) if tensor == "w"));
    }

    #[test]
    fn a_weight_that_may_be_absent_is_zeros_and_one_of_another_shape_is_refused() {
        let mut tensors = read(vec![single("w", &[2], &[1.0, 2.0])]).unwrap();
        assert_eq!(tensors.take_wide_or_zero("v", 3).unwrap(), [0.0; 3]);
        assert!(matches!(tensors.take_wide_or_zero("w", 3), Err(LoadError::Shape { .. })));
    }

    #[test]
    fn another_shape_is_refused_even_with_as_many_numbers() {
        for dims in [&[2, 3][..], &[6], &[3, 2, 1], &[]] {
            let mut tensors = read(vec![single("w", &[3, 2], &[0.0; 6])]).unwrap();
            assert!(matches!(tensors.take_wide("w", dims), Err(LoadError::Shape { tensor }) if tensor == "w"), "{dims:?}");
        }
    }

    #[test]
    fn a_single_weight_is_not_taken_for_halves() {
        let mut tensors = read(vec![single("w", &[1], &[1.0])]).unwrap();
        assert!(matches!(tensors.take("w", &[1]), Err(LoadError::Precision { tensor }) if tensor == "w"));
    }

    #[test]
    fn data_that_do_not_fill_the_shape_are_refused() {
        assert_eq!(shape_of(read(vec![half("cut.f16", &[3], &HALVES[..5])])).unwrap(), "cut.f16");
        assert_eq!(shape_of(read(vec![half("short.f16", &[3], &HALVES[..4])])).unwrap(), "short.f16");
        assert_eq!(shape_of(read(vec![single("long", &[2], &[0.0; 3])])).unwrap(), "long");
        let mut cut = single("cut", &[1], &[1.0]);
        cut.raw_data.pop();
        assert_eq!(shape_of(read(vec![cut])).unwrap(), "cut");
        for dims in [&[-1, 3][..], &[i64::MAX, i64::MAX], &[i64::MAX]] {
            assert_eq!(shape_of(read(vec![half("w.f16", dims, &HALVES)])).unwrap(), "w.f16", "{dims:?}");
        }
    }

    #[test]
    fn two_weights_of_one_name_are_refused() {
        let doubled = |first, second| matches!(read(vec![first, second]), Err(LoadError::Doubled { .. }));
        assert!(doubled(single("w", &[1], &[1.0]), single("w", &[1], &[1.0])));
        assert!(doubled(half("w.f16", &[3], &HALVES), half("w.f16", &[3], &HALVES)));
        assert!(doubled(half("w.f16", &[3], &HALVES), single("w", &[1], &[1.0])));
    }

    #[test]
    fn a_weight_that_nobody_took_is_refused_and_constants_are_none() {
        let scale = single("scale", &[], &[0.125]);
        let sizes = TensorProto { data_type: DataType::Int64.into(), raw_data: vec![0; 8], ..single("sizes", &[1], &[]) };
        read(vec![scale, sizes]).unwrap().finish().unwrap();
        let left = read(vec![single("b", &[1], &[1.0]), half("a.f16", &[3], &HALVES)]).unwrap();
        assert!(matches!(left.finish(), Err(LoadError::Unused { tensor }) if tensor == "a"));
    }

    #[test]
    fn a_file_that_is_cut_is_refused_at_every_byte() {
        let graph = Some(GraphProto { initializer: vec![half("w.f16", &[3], &HALVES), single("v", &[1], &[1.0])], ..Default::default() });
        let whole = ModelProto { graph, ..Default::default() }.encode_to_vec();
        for len in 0..whole.len() {
            assert!(Tensors::read(&whole[..len]).is_err(), "{len} of {} bytes", whole.len());
        }
    }
}
