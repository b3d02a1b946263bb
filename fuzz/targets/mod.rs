//! Every target: what is run, from which seeds, with which words, in how much memory.
//! Trusts: nothing.
//! Touches: nothing.
//! Next: one file a trust boundary; each `run` states its promise.

mod audio;
mod certificate;
mod checkpoint;
mod config;
mod decode;
mod form;
mod graph;
mod ipc;
mod key_files;
mod key_records;
mod manifest;
mod metadata;
mod planted;
mod redaction;

use salama::base::secret::Secret;

use crate::{record, rows};

/// A reader of bytes that somebody else chose.
pub struct Target {
    /// For the command line.
    pub name: &'static str,
    /// Panics when the promise is broken.
    pub run: fn(&[u8]),
    /// Inputs that lead far into the reader.
    pub seeds: fn() -> Vec<Vec<u8>>,
    /// Folder of `fuzz/corpus` with more of them; none when empty.
    pub corpus: &'static str,
    /// Pieces of the format.
    pub words: &'static [&'static [u8]],
    /// Heap that one input may take, bytes.
    pub memory: usize,
    /// Longest input, bytes.
    pub longest: usize,
    /// Bent inputs of a run in `make test`.
    pub smoke: u32,
}

/// All of them, by boundary.
pub const TARGETS: &[Target] = &[
    ipc::KEEPER,
    ipc::WORKER,
    ipc::CHILD_WORDS,
    form::TARGET,
    metadata::TARGET,
    certificate::IDENTITY,
    certificate::REQUEST,
    audio::RECOGNISE,
    audio::WAV,
    audio::AU,
    audio::MP4,
    audio::MATROSKA,
    audio::FLAC,
    audio::OGG,
    audio::GSM,
    decode::TARGET,
    decode::SAMPLES,
    redaction::TARGET,
    manifest::TARGET,
    graph::TARGET,
    checkpoint::CT2,
    checkpoint::SAFETENSORS,
    record::ENVELOPE,
    record::SEGMENTS,
    rows::TARGET,
    key_files::KEYSLOT,
    key_files::PRINTED_CODE,
    key_files::KEYRING,
    key_files::WRAPPED_KEY,
    key_records::LEDGER,
    key_records::LEAVE,
    key_records::NOTE,
    key_records::LIMITS,
    config::TARGET,
];

/// The target of this name, or one of those that are broken on purpose.
pub fn named(name: &str) -> &'static Target {
    let mut all = TARGETS.iter().chain(planted::TARGETS);
    all.find(|target| target.name == name).unwrap_or_else(|| panic!("no target is called {name}: see `fuzz list`"))
}

/// A key that is nobody's.
pub fn secret(byte: u8) -> Secret<32> {
    let filled = Secret::try_fill(|to| {
        to.fill(byte);
        Ok::<(), ()>(())
    });
    filled.unwrap()
}

/// `original` bent as `script` says: triples of place (16 bits) and difference, then what is appended; cut first.
pub fn edited(original: &[u8], script: &[u8]) -> Vec<u8> {
    let mut bytes = original.to_vec();
    let Some(([cut, count], mut rest)) = script.split_first_chunk::<2>() else { return bytes };
    bytes.truncate(bytes.len().saturating_sub((*cut).into()));
    for _ in 0..count % 8 {
        let Some(([high, low, by], later)) = rest.split_first_chunk::<3>() else { break };
        let at = usize::from(u16::from_be_bytes([*high, *low])) * bytes.len() / 65_536;
        if let Some(byte) = bytes.get_mut(at) {
            *byte ^= by;
        }
        rest = later;
    }
    bytes.extend_from_slice(rest);
    bytes
}

/// Scripts for [`edited`]: nothing, one bit, a cut, something more, all of these.
pub fn scripts() -> Vec<Vec<u8>> {
    [&[][..], &[0, 0], &[0, 1, 0, 9, 1], &[1, 0], &[0, 0, 7], &[16, 2, 0x80, 0, 0x80, 0xff, 0xff, 1, 1, 2, 3]].map(<[u8]>::to_vec).to_vec()
}
