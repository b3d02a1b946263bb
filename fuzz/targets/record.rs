//! What lies on disk: sealed records and sealed recordings. It stands where `record` stands, to hand stored bytes to it as the store does.
//! Trusts: nothing of the disk.
//! Touches: a temporary directory.
//! Next: `job` gets what was opened.

#[path = "../../src/record/envelope.rs"]
#[allow(dead_code, reason = "a part of the library")]
pub mod envelope;
#[path = "../../src/record/index.rs"]
#[allow(dead_code, reason = "a part of the library")]
pub mod index;
#[path = "../../src/record/schema.rs"]
#[allow(dead_code, reason = "a part of the library")]
pub mod schema;
#[path = "../../src/record/segments/mod.rs"]
#[allow(dead_code, unused_imports, reason = "a part of the library")]
pub mod segments;
#[cfg(test)]
#[path = "../../src/record/small_disk.rs"]
#[allow(dead_code, reason = "a part of the library's tests")]
pub mod small_disk;
#[cfg(test)]
#[path = "../../src/record/space.rs"]
#[allow(dead_code, reason = "a part of the library")]
pub mod space;

use std::fs;
use std::sync::OnceLock;

use tempfile::TempDir;

use crate::base::ids::CallId;
use crate::targets::{Target, edited, scripts, secret};
use envelope::{Envelope, SealedRecord};
use schema::{Slot, Table};
use segments::{CHUNK, SegmentDirectory};

/// Even first byte: a stored record. Odd: a script that bends a genuine one, see [`edited`].
pub const ENVELOPE: Target = Target {
    name: "envelope",
    run: envelope,
    seeds: envelope_seeds,
    corpus: "",
    words: &[b"\x01\x00", b"\x00\x00", b"\xff\xff"],
    memory: 128 << 10,
    longest: 2048,
    smoke: 10_000,
};
/// Even first byte: a stored recording. Odd: a script that bends a genuine one of three chunks.
pub const SEGMENTS: Target = Target {
    name: "segments",
    run: segments,
    seeds: segment_seeds,
    corpus: "",
    words: &[b"SALSEGv1\n"],
    memory: 1 << 20,
    longest: 2048,
    smoke: 600,
};

const CALL: CallId = CallId::from_bytes([1; 16]);
const PLAIN: &[u8] = b"what a child said";

fn key() -> Envelope {
    Envelope::of_call(secret(7))
}

/// The one genuine record of a run.
fn genuine() -> &'static SealedRecord {
    static GENUINE: OnceLock<SealedRecord> = OnceLock::new();
    GENUINE.get_or_init(|| key().seal(&slot(), PLAIN).unwrap())
}

fn slot() -> Slot {
    Slot::of_call(Table::Redacted, CALL)
}

/// Promise: nothing opens but the very bytes that were sealed, in the very place that they were sealed for, by the very key.
fn envelope(data: &[u8]) {
    let genuine = genuine();
    let Some((kind, rest)) = data.split_first() else { return };
    let stored = if kind.is_multiple_of(2) { rest.to_vec() } else { edited(genuine.as_stored(), rest) };
    let bent = SealedRecord::from_stored(&stored);
    match key().open(&slot(), &bent) {
        Ok(plain) => assert!(bent == *genuine && *plain == *PLAIN, "a bent record opened"),
        Err(_) => assert!(bent != *genuine, "a genuine record did not open"),
    }
    for table in Table::OF_CALL.into_iter().filter(|table| *table != Table::Redacted) {
        assert!(key().open(&Slot::of_call(table, CALL), &bent).is_err(), "it opened as {}", table.name());
    }
    assert!(key().open(&Slot::of_call(Table::Redacted, CallId::from_bytes([2; 16])), &bent).is_err(), "it opened as another call's");
    assert!(key().open_value::<Vec<String>>(&slot(), &bent).is_err(), "text was taken for another value");
}

fn envelope_seeds() -> Vec<Vec<u8>> {
    // Without its tag: libFuzzer reads seeds of another process, whose genuine record is another one.
    let stored = genuine().as_stored();
    let untagged = [&stored[..stored.len() - 16], &[0; 16]].concat();
    let bends = scripts().into_iter().map(|script| [&[1], script.as_slice()].concat());
    bends.chain([[&[0], untagged.as_slice()].concat(), vec![0], vec![0, 1, 0]]).collect()
}

/// Promise: a recording is read back as it was written, or not at all.
fn segments(data: &[u8]) {
    static BENCH: OnceLock<(TempDir, SegmentDirectory, Vec<u8>, Vec<u8>)> = OnceLock::new();
    let (state, directory, plain, genuine) = BENCH.get_or_init(|| {
        let state = tempfile::tempdir().unwrap();
        let directory = SegmentDirectory::open(state.path()).unwrap();
        let plain: Vec<u8> = (0..2 * CHUNK + 100).map(|at| (at % 251) as u8).collect();
        let mut writer = directory.create(CALL, &key()).unwrap();
        writer.push(&plain).unwrap();
        writer.finish().unwrap();
        let genuine = fs::read(state.path().join(format!("audio/{CALL}.seg"))).unwrap();
        (state, directory, plain, genuine)
    });
    let Some((kind, rest)) = data.split_first() else { return };
    let stored = if kind.is_multiple_of(2) { rest.to_vec() } else { edited(genuine, rest) };
    fs::write(state.path().join(format!("audio/{CALL}.seg")), &stored).unwrap();
    let read = directory.read(CALL, &key()).and_then(|mut reader| {
        let mut all = Vec::new();
        while all.len() < reader.bytes() as usize {
            all.extend(reader.read_at(all.len() as u64, CHUNK)?);
        }
        Ok(all)
    });
    match read {
        Ok(all) => assert!(stored == *genuine && all == *plain, "a bent recording was read"),
        Err(_) => assert!(stored != *genuine, "a genuine recording was not read"),
    }
}

fn segment_seeds() -> Vec<Vec<u8>> {
    let bends = scripts().into_iter().map(|script| [&[1], script.as_slice()].concat());
    bends.chain([[b"\0SALSEGv1\nprefix7".as_slice(), &[0; 40]].concat(), vec![0]]).collect()
}
