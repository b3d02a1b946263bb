//! The values of stored rows, once their seal is open. It stands where `job` stands, whose rows are its own.
//! Trusts: nothing of what was sealed: an older or a newer program may have done it, or a taken-over one.
//! Touches: nothing.
//! Next: `job` and `record` work with what was decoded.

#[path = "../../src/job/header.rs"]
#[allow(dead_code, reason = "a part of the library")]
mod header;
#[path = "../../src/job/state.rs"]
#[allow(dead_code, reason = "a part of the library")]
mod state;

use salama::job::spec;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::base::clock::Timestamp;
use crate::base::ids::CallId;
use crate::ipc::keeper::{ErasedClass, WrappedDek};
use crate::ipc::worker::{CallFailure, Stage};
use crate::record::envelope::Envelope;
use crate::record::schema::Slot;
use crate::targets::{Target, secret};
use header::{Header, Remembered, StoredClear, StoredEntities, StoredErasure, StoredMetadata, StoredTranscript};
use salama::record::epoch::StoredEpoch;
use salama::record::rollback::Says;
use state::Change;

/// The first byte says which row, the rest is its value.
pub const TARGET: Target = Target {
    name: "rows",
    run: rows,
    seeds,
    corpus: "",
    words: &[b"counsellor/amina", b"\xff\xff\xff\xff\x0f", b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", b"{\"consent\":{}}"],
    memory: 4 << 20,
    longest: 2048,
    smoke: 20_000,
};

type Row = fn(&[u8]);

/// By the first byte.
const ROWS: [Row; 13] = [
    header_row,
    row::<Remembered>,
    metadata_row,
    row::<StoredTranscript>,
    row::<StoredClear>,
    row::<StoredEntities>,
    row::<StoredErasure>,
    row::<Says>,
    row::<StoredEpoch>,
    row::<WrappedDek>,
    row::<CallId>,
    row::<u64>,
    row::<u16>,
];

/// Promise: any bytes are the row's value or refused, and a value is the same one when it was stored again. Nothing that is read of it breaks,
/// and no change of state counts back.
fn rows(data: &[u8]) {
    let Some((kind, value)) = data.split_first() else { return };
    ROWS[usize::from(*kind) % ROWS.len()](value);
}

fn row<T: Serialize + DeserializeOwned>(value: &[u8]) {
    drop(read::<T>(value));
}

fn read<T: Serialize + DeserializeOwned>(value: &[u8]) -> Option<T> {
    let (key, slot) = (Envelope::of_call(secret(7)), Slot::of_call(crate::record::schema::Table::Redacted, CALL));
    let decoded = |plain: &[u8]| key.open_value::<T>(&slot, &key.seal(&slot, plain).unwrap());
    let first = decoded(value).ok()?;
    let stored = postcard::to_stdvec(&first).unwrap();
    let second = decoded(&stored).expect("a value that was stored is not read");
    assert!(postcard::to_stdvec(&second).unwrap() == stored, "a value has become another");
    Some(first)
}

fn header_row(value: &[u8]) {
    let Some(header) = read::<Header>(value) else { return };
    for progress in [None, Some((Stage::Queued, u8::MAX))] {
        serde_json::to_vec(&header.view(progress)).expect("a call that is stored is not shown");
    }
    let changes = [
        Change::Start,
        Change::Interrupt { counted: false },
        Change::Interrupt { counted: true },
        Change::Finish,
        Change::Fail(CallFailure::NotAudio),
        Change::Cancel,
    ];
    for after in changes.into_iter().filter_map(|change| header.after(change, header.updated)) {
        assert!(after.event > header.event, "an event's number is given twice");
    }
}

fn metadata_row(value: &[u8]) {
    let Some(metadata) = read::<StoredMetadata>(value).and_then(|stored| stored.metadata().ok()) else { return };
    let stored = StoredMetadata::of(&metadata).expect("what was read of a call is not stored");
    stored.metadata().expect("what was stored of a call is not read");
}

const CALL: CallId = CallId::from_bytes([1; 16]);

fn seeds() -> Vec<Vec<u8>> {
    let (created, owner) = (Timestamp::from_unix_millis(1_700_000_000_000), "counsellor/amina".to_owned());
    let header = Header {
        call: CALL,
        job: 3,
        owner: owner.clone(),
        state: spec::CallState::Queued,
        created,
        updated: created,
        audio_bytes: 1000,
        audio_ms: Some(20_000),
        audio: None,
        failure: None,
        attempts: 1,
        event: 1001,
        idempotency: None,
    };
    // Another state, and the last number that there is.
    let last = Header { state: spec::CallState::Running, event: u64::MAX, ..header.clone() };
    let (erased, classes) = (created, vec![ErasedClass::Recording, ErasedClass::Metadata]);
    let erasure = StoredErasure { owner, erased, classes, epoch: 2, certificate: None };
    let transcript = (0_u8, 0_u8, 0_u8, 20_000_u64, 10_000_u64, 0_u8, 500_u64, ["whisper"].as_slice());
    let values = [
        (0, postcard::to_stdvec(&header)),
        (0, postcard::to_stdvec(&last)),
        (2, postcard::to_stdvec(&b"{}".as_slice())),
        (3, postcard::to_stdvec(&transcript)),
        (6, postcard::to_stdvec(&erasure)),
        // Of the TPM's counter: expected, confirmed, changes of the keyslots.
        (7, postcard::to_stdvec(&(9_u64, 8_u64, 4_u64))),
        (8, postcard::to_stdvec(&StoredEpoch { number: 2, since: created })),
        (10, postcard::to_stdvec(&CALL)),
        (11, postcard::to_stdvec(&42_u64)),
        (12, postcard::to_stdvec(&3_u16)),
    ];
    let genuine = values.into_iter().map(|(kind, value)| [&[kind], value.unwrap().as_slice()].concat());
    let counted = (0..13).map(|kind| [&[kind], [0_u8; 120].as_slice()].concat());
    genuine.chain(counted).collect()
}
