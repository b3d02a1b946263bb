//! Updates of a store: each step once, a copy before the first, cut off anywhere.
//! Trusts: nothing.
//! Touches: temporary directories, a small tmpfs, memory.
//! Next: nobody.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use redb::{Builder, ReadableTable};

use super::*;
use crate::record::copy::tests::{at_any_fault, content};
use crate::record::database::{self, Definition, FILE};
use crate::record::erasure;
use crate::record::faulty_directory::FaultyDirectory;
use crate::record::faulty_disk::{Fault, FaultyDisk};
use crate::record::segments::SegmentDirectory;
use crate::record::small_disk::SmallDisk;
use crate::record::store::{Batch, OpenStore, OpenStoreError, Store};
use crate::record::tests::{call, index};

/// The tables of schema 1, as the programs that wrote it named them.
const TABLES_OF_1: [&str; 11] =
    ["header", "wrapped_dek", "metadata", "redacted", "clear", "entities", "queue", "by_job", "by_owner", "idempotency", "counter"];
/// Job number 42 in table `counter`, sealed by another program than this (HKDF and AES-GCM of pyca/cryptography) under the index key
/// of zeros; so is the next.
const COUNTER_OF_1: &str = "0100000102030405060708090a0b2fa0af97e870a877d0cfc5edc73ad52c02";

/// Version 2 in table `store`, of schema 2 on.
const VERSION_OF_2: &str = "01000102030405060708090a0b0c769a96e2888ad7e13f9023d28a124400fe";

fn bytes(hexadecimal: &str) -> Vec<u8> {
    let digits = hexadecimal.as_bytes().chunks(2);
    digits.map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
}

fn write_schema_1(database: &Database) {
    write_tables(database, &TABLES_OF_1);
}

fn write_tables(database: &Database, names: &[&str]) {
    transact(database, |transaction| {
        for name in names {
            drop(transaction.open_table(Definition::new(name))?);
        }
        drop(transaction.open_table(Definition::new("counter"))?.insert(&b"job"[..], bytes(COUNTER_OF_1).as_slice())?);
        Ok(())
    })
    .unwrap();
}

/// As the releases before erasure epochs and the counter of starts wrote it.
fn store_of_schema_2(state: &Path) -> PathBuf {
    let path = store_of_schema_1(state);
    let database = database::open_existing(&path).unwrap();
    transact(&database, |transaction| {
        drop(transaction.open_table(Definition::new("store"))?.insert(&b"schema"[..], bytes(VERSION_OF_2).as_slice())?);
        Ok(())
    })
    .unwrap();
    path
}

fn store_of_schema_1(state: &Path) -> PathBuf {
    let path = state.join(FILE);
    write_schema_1(&Builder::new().create(&path).unwrap());
    path
}

fn counter(store: &Store) -> u64 {
    let slot = Slot::counter();
    index().envelope().open_value(&slot, &store.get(&slot).unwrap().unwrap()).unwrap()
}

fn version_of(path: &Path) -> u16 {
    version(&database::open_existing(path).unwrap(), path, index().envelope()).unwrap().unwrap()
}

fn set_version(path: &Path, number: u16) {
    let slot = Slot::schema();
    let sealed = index().envelope().seal_value(&slot, &number).unwrap();
    let database = database::open_existing(path).unwrap();
    let set = transact(&database, |transaction| {
        drop(transaction.open_table(definition(slot.table()))?.insert(slot.key(), sealed.as_stored())?);
        Ok(())
    });
    set.unwrap();
}

#[test]
fn steps_lead_from_the_first_schema_to_the_present_one() {
    let from: Vec<u16> = STEPS.iter().map(|step| step.from).collect();
    assert_eq!(from, (1..SCHEMA).collect::<Vec<_>>());
}

#[test]
fn a_new_store_is_of_the_present_schema_and_keeps_no_copy() {
    let state = tempfile::tempdir().unwrap();
    drop(OpenStore::open(state.path(), 0, &index()).unwrap());
    assert_eq!(version_of(&state.path().join(FILE)), SCHEMA);
    assert!(copy::kept(&state.path().join(FILE)).unwrap().is_empty());
}

#[test]
fn a_store_of_the_first_schema_is_lifted_keeps_its_records_and_a_copy_of_what_it_was() {
    let state = tempfile::tempdir().unwrap();
    let path = store_of_schema_1(state.path());
    let store = OpenStore::open(state.path(), 0, &index()).unwrap().start().unwrap();
    assert_eq!(counter(&store), 42);
    drop(store);
    assert_eq!(version_of(&path), SCHEMA);
    let copy = kept_copy(&path, 1);
    assert_eq!(copy::kept(&path).unwrap(), [copy.as_path()]);
    assert_eq!(fs::metadata(&copy).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(version_of(&copy), 1);
    // The way back, and forth again.
    fs::rename(&copy, &path).unwrap();
    let store = OpenStore::open(state.path(), 0, &index()).unwrap().start().unwrap();
    assert_eq!(counter(&store), 42);
}

#[test]
fn a_store_of_before_there_were_erasure_epochs_is_lifted_and_every_table_can_be_read() {
    let state = tempfile::tempdir().unwrap();
    let path = store_of_schema_2(state.path());
    assert_eq!(version_of(&path), 2);
    let store = OpenStore::open(state.path(), 0, &index()).unwrap().start().unwrap();
    assert_eq!(counter(&store), 42);
    for slot in [Slot::erasure(call(1)), Slot::epoch(), Slot::rollback()] {
        assert!(store.get(&slot).unwrap().is_none());
    }
    drop(store);
    assert_eq!((version_of(&path), version_of(&kept_copy(&path, 2))), (SCHEMA, 2));
}

#[test]
fn a_store_of_a_newer_schema_is_refused_untouched_and_the_operator_told_what_to_do() {
    let state = tempfile::tempdir().unwrap();
    let path = store_of_schema_1(state.path());
    drop(OpenStore::open(state.path(), 0, &index()).unwrap());
    set_version(&path, SCHEMA + 1);
    let refused = OpenStore::open(state.path(), 0, &index()).err().unwrap();
    assert!(matches!(refused, OpenStoreError::Schema(MigrateError::Newer { found, .. }) if found == SCHEMA + 1), "{refused}");
    assert!(refused.to_string().ends_with("install the newer one again, or restore a backup of before the update"), "{refused}");
    fs::write(kept_copy(&path, SCHEMA), b"").unwrap();
    let refused = OpenStore::open(state.path(), 0, &index()).err().unwrap();
    assert!(refused.to_string().contains("by renaming"), "{refused}");
    assert_eq!(version_of(&path), SCHEMA + 1);
}

#[test]
fn a_version_of_other_keys_and_one_that_was_taken_away_are_refused() {
    let state = tempfile::tempdir().unwrap();
    drop(OpenStore::open(state.path(), 0, &index()).unwrap());
    let other = crate::base::secret::Secret::try_fill(|key| {
        key.fill(9);
        Ok::<(), ()>(())
    });
    let other = IndexKeys::derive(&other.unwrap()).unwrap();
    let refused = OpenStore::open(state.path(), 0, &other).err().unwrap();
    assert!(matches!(refused, OpenStoreError::Schema(MigrateError::Sealed { .. })), "{refused}");
    let database = database::open_existing(&state.path().join(FILE)).unwrap();
    let slot = Slot::schema();
    let taken = transact(&database, |transaction| Ok(transaction.open_table(definition(slot.table()))?.remove(slot.key())?.is_some()));
    assert!(taken.unwrap());
    drop(database);
    let refused = OpenStore::open(state.path(), 0, &index()).err().unwrap();
    assert!(matches!(refused, OpenStoreError::Schema(MigrateError::Sealed { .. })), "{refused}");
}

#[test]
fn a_database_of_something_else_is_refused() {
    let state = tempfile::tempdir().unwrap();
    let database = Builder::new().create(state.path().join(FILE)).unwrap();
    transact(&database, |transaction| {
        drop(transaction.open_table(Definition::new("bookmarks"))?);
        Ok(())
    })
    .unwrap();
    drop(database);
    let refused = OpenStore::open(state.path(), 0, &index()).err().unwrap();
    assert!(matches!(refused, OpenStoreError::Schema(MigrateError::Foreign { .. })), "{refused}");
}

#[test]
fn without_room_for_a_copy_nothing_is_changed() {
    let disk = SmallDisk::mount(16);
    let path = store_of_schema_1(disk.path());
    fs::write(disk.path().join("filler"), vec![0_u8; 16 << 20]).unwrap_err();
    let refused = OpenStore::open(disk.path(), 0, &index()).err().unwrap();
    let told = crate::base::told::told(&refused);
    fs::remove_file(disk.path().join("filler")).unwrap();
    let OpenStoreError::Schema(MigrateError::Copy { source, .. }) = &refused else { panic!("{told}") };
    assert!(matches!(**source, CopyError::Full { .. }), "{told}");
    assert!(told.contains("nothing was changed"), "{told}");
    assert!(fs::read_dir(disk.path()).unwrap().all(|entry| !entry.unwrap().file_name().to_string_lossy().ends_with(".part")));
    assert_eq!(version_of(&path), 1);
    drop(OpenStore::open(disk.path(), 0, &index()).unwrap());
    assert_eq!(version_of(&path), SCHEMA);
}

#[test]
fn what_a_crash_left_of_a_copy_is_gone_after_the_next_start() {
    let state = tempfile::tempdir().unwrap();
    store_of_schema_1(state.path());
    for part in ["store.schema-1.redb.part", "store.redb.part"] {
        fs::write(state.path().join(part), b"the keys of calls").unwrap();
    }
    drop(OpenStore::open(state.path(), 0, &index()).unwrap());
    let mut names: Vec<_> = fs::read_dir(state.path()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    assert_eq!(names, ["ballast", "store.redb", "store.schema-1.redb"]);
}

#[test]
fn an_erasure_leaves_no_copy_of_the_store_that_holds_the_calls_key() {
    let state = tempfile::tempdir().unwrap();
    let path = store_of_schema_1(state.path());
    let store = OpenStore::open(state.path(), 0, &index()).unwrap().start().unwrap();
    let segments = SegmentDirectory::open(state.path()).unwrap();
    assert!(kept_copy(&path, 1).exists());
    let _ = erasure::erase(&store, &segments, call(1), Batch::new(), []).unwrap();
    assert!(!kept_copy(&path, 1).exists());
}

#[test]
fn nothing_is_erased_while_a_copy_with_the_calls_key_is_left() {
    let state = tempfile::tempdir().unwrap();
    let path = store_of_schema_1(state.path());
    let store = OpenStore::open(state.path(), 0, &index()).unwrap().start().unwrap();
    let segments = SegmentDirectory::open(state.path()).unwrap();
    fs::remove_file(kept_copy(&path, 1)).unwrap();
    // What cannot be removed like a file.
    fs::create_dir(kept_copy(&path, 1)).unwrap();
    let before = store.commits();
    assert!(matches!(erasure::erase(&store, &segments, call(1), Batch::new(), []), Err(erasure::EraseError::Copy(_))));
    assert_eq!(store.commits(), before);
    fs::remove_dir(kept_copy(&path, 1)).unwrap();
    let _ = erasure::erase(&store, &segments, call(1), Batch::new(), []).unwrap();
    assert_eq!(store.commits(), before + 1);
}

#[test]
fn a_fault_at_any_operation_of_an_update_changes_nothing_without_a_whole_copy_and_the_next_start_goes_on() {
    let (path, index) = (Path::new(FILE), index());
    let made = FaultyDisk::sound();
    // Each table costs the copy some operations; these are enough for a store of schema 1.
    write_tables(&made.open().unwrap(), &["header", "counter"]);
    let old = FaultyDirectory::with(path, &made);
    let before = content(&old.open(path).unwrap());
    let version_in = |disk: &FaultyDirectory, name: &Path| version(&disk.open(name).unwrap(), name, index.envelope()).unwrap().unwrap();
    at_any_fault(
        &old,
        |disk| {
            let database = disk.open(path)?;
            let mut keep = |from| copy::write_on(disk, &database, &kept_copy(path, from), &mut |_| ()).map(drop);
            lift(&database, path, index.envelope(), STEPS, &mut keep)?;
            assert_eq!(version(&database, path, index.envelope())?, Some(SCHEMA));
            Ok(())
        },
        |disk, case| {
            let listed = disk.listed();
            let copies: Vec<_> = listed.iter().filter(|name| *name != FILE && !copy::is_unfinished(name)).map(PathBuf::from).collect();
            for copy in &copies {
                assert_eq!(*copy, kept_copy(path, version_in(disk, copy)), "{case}");
            }
            let first = kept_copy(path, 1);
            assert!(version_in(disk, path) == 1 || copies.contains(&first), "{case}: {listed:?}");
            assert!(!copies.contains(&first) || content(&disk.open(&first).unwrap()) == before, "{case}");
        },
    );
}

/// Doubles what is there, so that a step that is taken twice is noticed.
fn double(transaction: &WriteTransaction, index: &Envelope) -> Result<(), StepError> {
    let slot = Slot::counter();
    let mut table = transaction.open_table(definition(slot.table())).map_err(redb::Error::from)?;
    let stored = table.get(slot.key()).map_err(redb::Error::from)?.map(|value| SealedRecord::from_stored(value.value())).unwrap();
    let value: u64 = index.open_value(&slot, &stored)?;
    let sealed = index.seal_value(&slot, &(value * 2))?;
    drop(table.insert(slot.key(), sealed.as_stored()).map_err(redb::Error::from)?);
    Ok(())
}

const LATER_STEPS: [Step; 4] = [
    Step { from: 1, change: |_, _| Ok(()) },
    Step { from: 2, change: double },
    Step { from: 3, change: double },
    Step { from: 4, change: double },
];

#[test]
fn a_crash_or_a_fault_at_any_operation_of_a_migration_takes_no_step_twice_and_leaves_none_out() {
    let path = Path::new("faulty disk");
    let index = index();
    let lift_on = |disk: &FaultyDisk| {
        let database = disk.open().map_err(drop)?;
        lift(&database, path, index.envelope(), &LATER_STEPS, &mut |_| Ok(())).map_err(drop)
    };
    let old = FaultyDisk::sound();
    write_schema_1(&old.open().unwrap());
    let sound = old.copy_failing(u64::MAX, Fault::Error);
    lift_on(&sound).unwrap();
    for fault in [Fault::PowerCut, Fault::Error, Fault::SyncHalf, Fault::SyncLost, Fault::Full] {
        for at in 0..sound.operations() {
            let disk = old.copy_failing(at, fault);
            let _ = lift_on(&disk);
            let disk = disk.after_power_cut();
            lift_on(&disk).unwrap_or_else(|()| panic!("{fault:?} at {at}"));
            let database = disk.open().unwrap();
            assert_eq!(version(&database, path, index.envelope()).unwrap(), Some(5), "{fault:?} at {at}");
            let counter: u64 =
                index.envelope().open_value(&Slot::counter(), &stored(&database, &Slot::counter()).unwrap().unwrap()).unwrap();
            assert_eq!(counter, 42 * 8, "{fault:?} at {at}");
        }
    }
}
