//! What a check finds, and that it finds it.
//! Trusts: nothing.
//! Touches: temporary directories.
//! Next: nobody.

use std::fs::{self, OpenOptions};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use super::*;
use crate::record::store::{Batch, OpenStore, Outcome, Store};
use crate::record::tests::{call, index};

const CALLS: u64 = 3;
/// Header, key, metadata and three entries of each call; the counter and the schema.
const RECORDS: u64 = CALLS * 6 + 2;

fn dek(call: CallId) -> Secret<KEY_BYTES> {
    let key = Secret::try_fill(|key| {
        key[..16].copy_from_slice(call.as_bytes());
        Ok::<(), ()>(())
    });
    key.unwrap()
}

fn unwrap(call: CallId, wrapped: &WrappedDek) -> Result<Secret<KEY_BYTES>, UnwrapError> {
    if wrapped.0 == call.as_bytes() { Ok(dek(call)) } else { Err(UnwrapError::Wrong) }
}

fn verify(call: CallId, wrapped: &WrappedDek) -> Result<(), UnwrapError> {
    unwrap(call, wrapped).map(drop)
}

/// Of a keeper that opens all.
fn keys(index: &IndexKeys) -> Keys<'_> {
    Keys { index, unwrap: &unwrap, verify: &verify, open_most: CALLS, turn: 0 }
}

fn change(state: &Path, batch: impl FnOnce(Batch) -> Batch) {
    let store = OpenStore::open(state, 0, &index()).unwrap().start().unwrap();
    assert_eq!(store.commit(batch(Batch::new())).unwrap(), Outcome::Committed);
}

fn put<T: serde::Serialize>(batch: Batch, slot: Slot, value: &T) -> Batch {
    let sealed = index().envelope().seal_value(&slot, value).unwrap();
    batch.put(slot, sealed)
}

fn metadata(number: u64) -> (Slot, SealedRecord) {
    let slot = Slot::of_call(Table::Metadata, call(number));
    let sealed = Envelope::of_call(dek(call(number))).seal(&slot, b"metadata").unwrap();
    (slot, sealed)
}

/// A state directory as a daemon leaves it.
fn whole() -> tempfile::TempDir {
    let state = tempfile::tempdir().unwrap();
    let segments = SegmentDirectory::open(state.path()).unwrap();
    let index = index();
    let store: Store = OpenStore::open(state.path(), 1 << 12, &index).unwrap().start().unwrap();
    for number in 1..=CALLS {
        let id = call(number);
        let mut writer = segments.create(id, &Envelope::of_call(dek(id))).unwrap();
        writer.push(&[7; 100_000]).unwrap();
        writer.finish().unwrap();
        let mut batch = put(Batch::new(), Slot::of_call(Table::Header, id), &number);
        batch = put(batch, Slot::of_call(Table::WrappedDek, id), &WrappedDek(id.as_bytes().to_vec()));
        for slot in [Slot::queue(number), Slot::by_job(number), Slot::by_owner(&index.owner("a"), number)] {
            batch = put(batch, slot, &id);
        }
        let (slot, sealed) = metadata(number);
        let _ = store.commit(put(batch.put(slot, sealed), Slot::counter(), &number)).unwrap();
    }
    state
}

fn checked(state: &Path) -> CheckReport {
    check(state, Ok(keys(&index())), &mut |_| ()).unwrap()
}

fn checked_without_keys(state: &Path) -> CheckReport {
    check(state, Err("no TPM".to_owned()), &mut |_| ()).unwrap()
}

fn recording(state: &Path, number: u64) -> PathBuf {
    state.join(format!("audio/{}.seg", call(number)))
}

#[test]
fn a_whole_store_has_no_fault_and_every_record_of_it_is_opened() {
    let state = whole();
    fs::write(state.path().join("audio").join(format!("{}.part", call(9))), b"an upload that was cut off").unwrap();
    let mut stages = Vec::new();
    let report = check(state.path(), Ok(keys(&index())), &mut |at| stages.push(at.stage)).unwrap();
    assert_eq!(report.faults, []);
    assert_eq!((report.calls, report.records, report.opened, report.recordings), (CALLS, RECORDS, RECORDS, CALLS));
    assert_eq!((report.schema, &report.without_keys), (Some(migration::SCHEMA), &None));
    stages.dedup();
    assert_eq!(stages, [Stage::Pages, Stage::Records, Stage::Calls]);
}

#[test]
fn without_keys_it_says_so_and_still_finds_what_is_not_there() {
    let state = whole();
    let report = checked_without_keys(state.path());
    assert_eq!((report.faults.as_slice(), report.opened, report.recordings, report.schema), ([].as_slice(), 0, 0, None));
    assert_eq!(report.without_keys.as_deref(), Some("no TPM"));
    fs::remove_file(recording(state.path(), 1)).unwrap();
    fs::write(recording(state.path(), 2), b"not sealed").unwrap();
    change(state.path(), |batch| batch.delete(Slot::of_call(Table::WrappedDek, call(3))));
    let faults = checked_without_keys(state.path()).faults;
    assert!(faults.contains(&StoreFault::RecordingMissing { call: call(1) }), "{faults:?}");
    assert!(faults.contains(&StoreFault::RecordingDamaged { call: call(2) }), "{faults:?}");
    assert!(faults.contains(&StoreFault::KeyMissing { call: call(3) }), "{faults:?}");
}

/// The faults of a store that was whole until `harm`.
fn faults_after(harm: impl FnOnce(&Path)) -> Vec<StoreFault> {
    let state = whole();
    harm(state.path());
    checked(state.path()).faults
}

fn bad(table: Table, of: Option<u64>, why: RecordFault) -> StoreFault {
    StoreFault::Record { table: table.name().to_owned(), call: of.map(call), why }
}

#[test]
fn a_record_that_was_forged_moved_or_is_of_another_version_is_named() {
    let forged = faults_after(|state| {
        let (slot, _) = metadata(1);
        let sealed = Envelope::of_call(dek(call(2))).seal(&slot, b"metadata").unwrap();
        change(state, |batch| batch.put(slot, sealed));
    });
    assert_eq!(forged, [bad(Table::Metadata, Some(1), RecordFault::Seal)]);
    let moved = faults_after(|state| {
        let sealed = index().envelope().seal_value(&Slot::queue(1), &call(1)).unwrap();
        change(state, |batch| batch.put(Slot::queue(2), sealed));
    });
    assert_eq!(moved, [bad(Table::Queue, None, RecordFault::Seal)]);
    let cut = faults_after(|state| {
        change(state, |batch| batch.put(Slot::of_call(Table::Header, call(2)), SealedRecord::from_stored(b"\x01\x00cut")));
    });
    assert_eq!(cut, [bad(Table::Header, Some(2), RecordFault::Seal)]);
    let content = faults_after(|state| change(state, |batch| put(batch, Slot::by_job(2), &0_u8)));
    assert_eq!(content, [bad(Table::ByJob, None, RecordFault::Content)]);
    let key = faults_after(|state| {
        let slot = Slot::found(Table::Idempotency, b"short");
        change(state, |batch| put(batch, slot, &0_u8));
    });
    assert_eq!(key, [bad(Table::Idempotency, None, RecordFault::Key)]);
}

#[test]
fn of_calls_that_are_not_opened_the_key_is_tried_and_each_run_opens_others() {
    let state = whole();
    let index = index();
    let found = |turn| check(state.path(), Ok(Keys { open_most: 1, turn, ..keys(&index) }), &mut |_| ()).unwrap();
    for turn in 0..CALLS {
        let report = found(turn);
        assert_eq!((report.keys_only, report.recordings, report.opened), (CALLS - 1, 1, RECORDS - (CALLS - 1)), "{turn}");
    }
    // Damage in a call that is opened at one run of three; a key that does not open shows at each.
    let (slot, _) = metadata(1);
    change(state.path(), |batch| batch.put(slot, metadata(2).1));
    assert_eq!((0..CALLS).map(|turn| found(turn).faults.len()).sum::<usize>(), 1);
    change(state.path(), |batch| put(batch, Slot::of_call(Table::WrappedDek, call(1)), &WrappedDek(vec![0; 9])));
    for turn in 0..CALLS {
        assert_eq!(found(turn).faults, [StoreFault::KeyRefused { call: call(1) }]);
    }
    // So it is when the keeper opens no more.
    let enough = |_, _: &WrappedDek| Err(UnwrapError::Enough);
    let report = check(state.path(), Ok(Keys { unwrap: &enough, ..keys(&index) }), &mut |_| ()).unwrap();
    assert_eq!((report.keys_only, report.faults), (CALLS - 1, vec![StoreFault::KeyRefused { call: call(1) }]));
}

#[test]
fn a_call_without_its_key_its_header_or_its_recording_is_named() {
    let keyless = faults_after(|state| change(state, |batch| batch.delete(Slot::of_call(Table::WrappedDek, call(1)))));
    assert_eq!(keyless, [StoreFault::KeyMissing { call: call(1) }]);
    let wrong = faults_after(|state| change(state, |batch| put(batch, Slot::of_call(Table::WrappedDek, call(1)), &WrappedDek(vec![0; 9]))));
    assert_eq!(wrong, [StoreFault::KeyRefused { call: call(1) }]);
    let lost = faults_after(|state| change(state, |batch| batch.delete(Slot::of_call(Table::Header, call(1)))));
    let no_call = |table: Table| StoreFault::NoCall { table: table.name().to_owned(), call: call(1) };
    for table in [Table::Queue, Table::ByJob, Table::ByOwner, Table::WrappedDek, Table::Metadata] {
        assert!(lost.contains(&no_call(table)), "{table:?} {lost:?}");
    }
    assert!(lost.contains(&StoreFault::RecordingWithoutCall { call: call(1) }) && lost.len() == 6, "{lost:?}");
    let silent = faults_after(|state| fs::remove_file(recording(state, 1)).unwrap());
    assert_eq!(silent, [StoreFault::RecordingMissing { call: call(1) }]);
}

#[test]
fn a_recording_that_is_damaged_at_either_end_is_named() {
    for at in [0, 12, 40] {
        let faults = faults_after(|state| flip(&recording(state, 1), at));
        assert_eq!(faults, [StoreFault::RecordingDamaged { call: call(1) }], "{at}");
    }
    let end = faults_after(|state| flip(&recording(state, 1), 100_000));
    assert_eq!(end, [StoreFault::RecordingDamaged { call: call(1) }]);
    let cut = faults_after(|state| OpenOptions::new().write(true).open(recording(state, 1)).unwrap().set_len(65_552).unwrap());
    assert_eq!(cut, [StoreFault::RecordingDamaged { call: call(1) }]);
}

#[test]
fn a_stray_file_is_named() {
    let faults = faults_after(|state| {
        fs::write(state.join("notes.txt"), b"").unwrap();
        fs::write(state.join("audio/old.wav"), b"").unwrap();
    });
    let named = |name: &str| faults.iter().any(|fault| matches!(fault, StoreFault::Stray { file } if file.ends_with(name)));
    assert!(named("notes.txt") && named("old.wav") && faults.len() == 2, "{faults:?}");
}

#[test]
fn what_a_crash_or_a_person_leaves_beside_a_whole_store_is_no_damage() {
    let state = whole();
    fs::create_dir(state.path().join("lost+found")).unwrap();
    fs::write(state.path().join(std::ffi::OsStr::from_bytes(b"\xff not text")), b"").unwrap();
    let id = call(9);
    SegmentDirectory::open(state.path()).unwrap().create(id, &Envelope::of_call(dek(id))).unwrap().finish().unwrap();
    let report = checked(state.path());
    assert!(report.is_sound() && report.faults.len() == 2, "{:?}", report.faults);
    assert!(report.faults.contains(&StoreFault::RecordingWithoutCall { call: id }));
}

#[test]
fn a_recording_that_was_put_aside_for_an_older_store_is_not_lost() {
    let state = whole();
    let recording = recording(state.path(), 1);
    let aside = state.path().join("audio.rollback-7");
    fs::create_dir(&aside).unwrap();
    fs::rename(&recording, aside.join(recording.file_name().unwrap())).unwrap();
    let report = checked(state.path());
    assert_eq!((report.faults, report.recordings), (Vec::new(), CALLS));
    // It is looked at as if it lay where it belongs.
    let moved = aside.join(recording.file_name().unwrap());
    OpenOptions::new().write(true).open(&moved).unwrap().set_len(70_000).unwrap();
    assert_eq!(checked(state.path()).faults, [StoreFault::RecordingDamaged { call: call(1) }]);
    assert_eq!(checked_without_keys(state.path()).faults, [], "its end is sealed");
    OpenOptions::new().write(true).open(&moved).unwrap().set_len(20).unwrap();
    assert_eq!(checked_without_keys(state.path()).faults, [StoreFault::RecordingDamaged { call: call(1) }]);
    fs::remove_dir_all(&aside).unwrap();
    assert_eq!(checked(state.path()).faults, [StoreFault::RecordingMissing { call: call(1) }]);
}

#[test]
fn a_call_that_no_list_names_and_a_lost_count_of_jobs_are_named() {
    let unnamed = |table: Table| StoreFault::Unnamed { table: table.name().to_owned(), call: call(2) };
    let by_job = faults_after(|state| change(state, |batch| batch.delete(Slot::by_job(2))));
    assert_eq!(by_job, [unnamed(Table::ByJob)]);
    let by_owner = faults_after(|state| change(state, |batch| batch.delete(Slot::by_owner(&index().owner("a"), 2))));
    assert_eq!(by_owner, [unnamed(Table::ByOwner)]);
    assert_eq!(faults_after(|state| change(state, |batch| batch.delete(Slot::counter()))), [StoreFault::CounterMissing]);
}

#[test]
fn the_first_schema_is_known_without_keys() {
    let state = whole();
    let database = database::open_existing(&state.path().join(database::FILE)).unwrap();
    let gone = database::transact(&database, |transaction| Ok(transaction.delete_table(definition(Table::Store))?));
    assert!(gone.unwrap());
    drop(database);
    let report = checked_without_keys(state.path());
    assert!(report.is_sound(), "{:?}", report.faults);
    assert_eq!(report.schema, Some(1));
}

#[test]
fn a_table_that_the_next_start_makes_is_no_damage() {
    let state = whole();
    let database = database::open_existing(&state.path().join(database::FILE)).unwrap();
    let gone = database::transact(&database, |transaction| Ok(transaction.delete_table(definition(Table::Erasure))?));
    assert!(gone.unwrap());
    drop(database);
    assert!(checked_without_keys(state.path()).is_sound());
    // A store that says that it is of the present schema must have it.
    assert_eq!(checked(state.path()).faults, [StoreFault::Table { table: "erasure".to_owned() }]);
}

#[test]
fn a_state_directory_without_a_store_is_no_damage() {
    let state = tempfile::tempdir().unwrap();
    assert!(matches!(check(state.path(), Err(String::new()), &mut |_| ()), Err(CheckError::Absent { .. })));
    fs::write(state.path().join("store.redb"), b"").unwrap();
    assert!(matches!(check(state.path(), Err(String::new()), &mut |_| ()), Err(CheckError::Absent { .. })));
}

fn flip(file: &Path, at: u64) {
    let file = OpenOptions::new().read(true).write(true).open(file).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[byte[0] ^ 0x10], at).unwrap();
}

#[test]
fn a_bit_that_flipped_on_any_page_is_a_fault_or_was_on_a_free_page() {
    const PAGE: u64 = 4096;
    let state = whole();
    let path = state.path().join("store.redb");
    let sound = fs::read(&path).unwrap();
    let (mut faulty, mut free) = (0, 0);
    // The first page is the database's own header. It has two commits and a byte, without a checksum, that says which is the newer: a bit
    // of that byte makes the store one commit older, which no check of the store alone can notice.
    for page in 1..u64::try_from(sound.len()).unwrap() / PAGE {
        let bytes = &sound[usize::try_from(page * PAGE).unwrap()..usize::try_from((page + 1) * PAGE).unwrap()];
        let Some(used) = bytes.iter().rposition(|byte| *byte != 0) else { continue };
        for at in [page * PAGE + 4, page * PAGE + u64::try_from(used).unwrap()] {
            fs::write(&path, &sound).unwrap();
            flip(&path, at);
            match check(state.path(), Ok(keys(&index())), &mut |_| ()) {
                Ok(report) if report.is_sound() => {
                    assert_eq!((report.opened, report.recordings), (RECORDS, CALLS), "{at}");
                    free += 1;
                }
                Ok(_) => faulty += 1,
                Err(error) => panic!("{at}: {}", told(&error)),
            }
        }
    }
    assert!(faulty > 10, "{faulty} faulty, {free} free");
}
