//! A compaction keeps everything, gives room back, and may be cut off anywhere.
//! Trusts: nothing.
//! Touches: temporary directories, a small tmpfs, processes of its own that it kills.
//! Next: nobody.

use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::PermissionsExt as _;
use std::process::{Command, Stdio};

use super::*;
use crate::record::envelope::SealedRecord;
use crate::record::schema::{Slot, Table};
use crate::record::segments::SegmentDirectory;
use crate::record::small_disk::SmallDisk;
use crate::record::store::{Batch, OpenStore, Outcome, Store};
use crate::record::tests::{call, index};

fn open(state: &Path) -> Store {
    OpenStore::open(state, 0, &index()).unwrap().start().unwrap()
}

/// Fills a store and erases nine of ten.
fn with_holes(state: &Path, records: u64) {
    let store = open(state);
    let seal = |slot: &Slot| index().envelope().seal(slot, &[7; 2000]).unwrap();
    let filled = (0..records).map(|number| Slot::of_call(Table::Header, call(number)));
    let batch = filled.fold(Batch::new(), |batch, slot| batch.put(slot.clone(), seal(&slot)));
    assert_eq!(store.commit(batch).unwrap(), Outcome::Committed);
    let erased = (0..records).filter(|number| number % 10 != 0).map(|number| Slot::of_call(Table::Header, call(number)));
    assert_eq!(store.commit(erased.fold(Batch::new(), Batch::delete)).unwrap(), Outcome::Committed);
}

fn everything(state: &Path) -> Vec<(Slot, SealedRecord)> {
    let store = open(state);
    Table::ALL.into_iter().flat_map(|table| store.view(|snapshot| snapshot.all(table)).unwrap()).collect()
}

#[test]
fn a_compaction_keeps_every_record_and_gives_the_room_of_the_erased_back() {
    let state = tempfile::tempdir().unwrap();
    with_holes(state.path(), 5000);
    let before = everything(state.path());
    let mut last = None;
    let report = compact(state.path(), &mut |at| last = Some(at)).unwrap();
    assert!(everything(state.path()) == before);
    assert_eq!(report.records, before.len() as u64);
    assert!(report.after * 4 < report.before, "{report:?}");
    assert_eq!(last, Some(Progress { stage: Stage::Comparing, done: report.records, of: report.records }));
    let mode = fs::metadata(state.path().join(database::FILE)).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[test]
fn an_empty_file_in_the_stores_place_is_no_store_and_the_recordings_stay() {
    let state = tempfile::tempdir().unwrap();
    let segments = SegmentDirectory::open(state.path()).unwrap();
    segments.create(call(1), index().envelope()).unwrap().finish().unwrap();
    fs::write(state.path().join(database::FILE), b"").unwrap();
    let refused = compact(state.path(), &mut |_| ()).unwrap_err();
    assert!(matches!(&refused, CompactError::Open(error) if error.is_damage()), "{refused:?}");
    assert_eq!(on_disk(&state.path().join(database::FILE)).unwrap(), 0);
    assert!(matches!(OpenStore::open(state.path(), 0, &index()), Err(OpenStoreError::Missing { .. })));
    // Neither is a database without a table.
    let (away, empty) = (segments.remove(call(1)), SegmentDirectory::open(state.path()).unwrap());
    away.unwrap();
    drop(database::open(&state.path().join(database::FILE)).unwrap());
    empty.create(call(1), index().envelope()).unwrap().finish().unwrap();
    assert!(matches!(OpenStore::open(state.path(), 0, &index()), Err(OpenStoreError::Missing { .. })));
}

#[test]
fn a_store_in_use_is_not_compacted() {
    let state = tempfile::tempdir().unwrap();
    let _open = open(state.path());
    assert!(database::is_in_use(state.path()).unwrap());
    assert!(matches!(compact(state.path(), &mut |_| ()), Err(CompactError::Open(OpenStoreError::InUse { .. }))));
}

#[test]
fn nobody_is_told_of_use_where_there_is_none() {
    let state = tempfile::tempdir().unwrap();
    assert!(!database::is_in_use(state.path()).unwrap());
    drop(open(state.path()));
    assert!(!database::is_in_use(state.path()).unwrap());
}

#[test]
fn without_room_for_the_copy_the_store_stays_as_it_is() {
    let disk = SmallDisk::mount(32);
    with_holes(disk.path(), 2000);
    let before = everything(disk.path());
    fs::write(disk.path().join("filler"), vec![0_u8; 32 << 20]).unwrap_err();
    let error = compact(disk.path(), &mut |_| ()).unwrap_err();
    assert!(matches!(error, CompactError::Copy(CopyError::Full { .. })), "{error:?}");
    assert!(!disk.path().join("store.redb.part").exists());
    fs::remove_file(disk.path().join("filler")).unwrap();
    assert!(everything(disk.path()) == before);
    // Or it fills up in the middle, up to the last page.
    let mut succeeded = false;
    for free in (0..24).map(|step| step * (64 << 10)) {
        disk.fill(free);
        let done = compact(disk.path(), &mut |_| ());
        disk.relieve();
        let full = matches!(&done, Err(CompactError::Copy(CopyError::Full { .. }) | CompactError::Open(OpenStoreError::Full { .. })));
        assert!(full || done.is_ok(), "{free}: {done:?}");
        assert!(!disk.path().join("store.redb.part").exists(), "{free}");
        assert!(everything(disk.path()) == before, "{free}");
        succeeded |= done.is_ok();
    }
    assert!(succeeded);
}

const COMPACT_UNTIL_KILLED: &str = "SALAMA_TEST_COMPACT_UNTIL_KILLED";

/// Not a rule but the process of the next test: with the variable set it compacts for ever and says at what it is.
#[test]
fn process_that_compacts_until_it_is_killed() {
    let Some(state) = std::env::var_os(COMPACT_UNTIL_KILLED) else { return };
    loop {
        compact(Path::new(&state), &mut |_| say_step()).unwrap();
        say_step();
    }
}

fn say_step() {
    nix::unistd::write(io::stdout(), b"\nstep\n").unwrap();
}

#[test]
fn a_kill_at_any_step_of_a_compaction_leaves_one_good_store() {
    let state = tempfile::tempdir().unwrap();
    with_holes(state.path(), 3000);
    let before = everything(state.path());
    for steps in 0..14 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "record::compact::tests::process_that_compacts_until_it_is_killed", "--nocapture"])
            .env(COMPACT_UNTIL_KILLED, state.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
        assert_eq!(lines.filter(|line| line == "step").take(steps).count(), steps);
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(everything(state.path()) == before, "after {steps} steps");
        assert!(!state.path().join("store.redb.part").exists());
    }
}
