//! Checkpoints that an operator imports: `model::import::{ct2, hf}`.
//! Trusts: nothing.
//! Touches: a temporary directory.
//! Next: `model::import` puts the tensors in their places.

use std::fs;

use tempfile::TempDir;

use super::Target;
use crate::model::import::{ct2, hf};

/// `model.bin` of CTranslate2.
pub const CT2: Target = Target { name: "ct2", run: ct2, seeds: ct2_seeds, ..BASE };
/// `model.safetensors`, or the list of shards when it begins with a curly bracket.
pub const SAFETENSORS: Target = Target { name: "safetensors", run: safetensors, seeds: safetensors_seeds, ..BASE };

const BASE: Target = Target {
    name: "",
    run: ct2,
    seeds: Vec::new,
    corpus: "",
    words: &[
        b"WhisperSpec\0",
        b"encoder/conv1/weight\0",
        b"decoder/embeddings/weight\0",
        b"/activation\0",
        b"_scale\0",
        b"\xff\xff\xff\xff",
        b"\"dtype\":\"F16\"",
        b"\"shape\":[",
        b"\"data_offsets\":[0,",
        b"__metadata__",
        b"18446744073709551615",
        b"-1",
        b"proj_out.weight",
        b"weight_map",
        b"../x",
    ],
    memory: 1 << 20,
    longest: 8192,
    smoke: 5000,
};

fn directory_with<T>(name: &str, data: &[u8], read: impl FnOnce(&TempDir) -> T) -> T {
    thread_local! {
        static DIRECTORY: TempDir = tempfile::tempdir().unwrap();
    }
    DIRECTORY.with(|directory| {
        let file = directory.path().join(name);
        fs::write(&file, data).unwrap();
        let result = read(directory);
        fs::remove_file(file).unwrap();
        result
    })
}

/// Promise: any bytes give tensors or a refusal; what is given has the bytes that its shape asks for.
fn ct2(data: &[u8]) {
    let read = directory_with("model.bin", data, |directory| ct2::read(&directory.path().join("model.bin")));
    for (name, tensor) in read.into_iter().flatten() {
        assert_eq!(tensor.dims.iter().product::<usize>() * 2, tensor.bytes.len(), "{name}");
    }
}

/// Promise: as [`ct2`]; and a list of shards names plain files only.
fn safetensors(data: &[u8]) {
    if data.first() == Some(&b'{') {
        if let Ok(shards) = directory_with(hf::INDEX, data, |directory| hf::shards(directory.path())) {
            assert!(shards.iter().all(|name| !name.contains('/') && !name.starts_with('.')), "{shards:?}");
        }
        return;
    }
    let read = directory_with(hf::SINGLE, data, |directory| hf::read(directory.path()));
    for (name, tensor) in read.into_iter().flatten() {
        assert_eq!(tensor.dims.iter().product::<usize>() * 2, tensor.bytes.len(), "{name}");
    }
}

fn ct2_seeds() -> Vec<Vec<u8>> {
    fn string(bytes: &mut Vec<u8>, text: &str) {
        bytes.extend(u16::try_from(text.len() + 1).unwrap().to_le_bytes());
        bytes.extend(text.bytes().chain([0]));
    }
    let mut file = 6_u32.to_le_bytes().to_vec();
    string(&mut file, "WhisperSpec");
    file.extend([3_u32, 4].map(u32::to_le_bytes).concat());
    for (name, dims, element, bytes) in [
        ("encoder/conv1/weight", &[2_u32, 2, 3][..], 4_u8, [0, 60].repeat(12)),
        ("decoder/embeddings/weight", &[2, 4], 0, [0, 0, 128, 63].repeat(8)),
        ("encoder/layer_0/self_attention/linear_0/weight", &[6, 2], 5, [128, 63].repeat(12)),
        ("encoder/activation", &[], 1, vec![3]),
    ] {
        string(&mut file, name);
        file.push(dims.len().try_into().unwrap());
        file.extend(dims.iter().flat_map(|dim| dim.to_le_bytes()));
        file.push(element);
        file.extend(u32::try_from(bytes.len()).unwrap().to_le_bytes());
        file.extend(bytes);
    }
    let mut aliased = file.clone();
    file.extend(0_u32.to_le_bytes());
    aliased.extend(1_u32.to_le_bytes());
    string(&mut aliased, "decoder/projection/weight");
    string(&mut aliased, "decoder/embeddings/weight");
    vec![file, aliased]
}

fn safetensors_seeds() -> Vec<Vec<u8>> {
    let file = |header: &str, data: &[u8]| [&(header.len() as u64).to_le_bytes(), header.as_bytes(), data].concat();
    vec![
        file(r#"{"model.encoder.conv1.bias":{"dtype":"F16","shape":[4],"data_offsets":[0,8]}}"#, &[0; 8]),
        file(
            r#"{"__metadata__":{"format":"pt"},"encoder.a":{"dtype":"F32","shape":[2,1],"data_offsets":[0,8]},"proj_out.weight":{"dtype":"BF16","shape":[2],"data_offsets":[8,12]}}"#,
            &[0; 12],
        ),
        br#"{"weight_map":{"model.a":"model-00001-of-00002.safetensors","model.b":"model-00002-of-00002.safetensors"}}"#.to_vec(),
    ]
}
