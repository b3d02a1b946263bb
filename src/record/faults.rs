//! The store on a disk that fails at every operation in turn, and a writer that is killed.
//! Trusts: nothing.
//! Touches: memory, a temporary directory, a process of its own that it kills.
//! Next: nobody.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use redb::{Builder, Durability};

use super::database::{self, Definition};
use super::faulty_disk::{Fault, FaultyDisk};
use super::index::IndexKeys;
use super::migration;
use super::schema::{Slot, Table};
use super::space::Ballast;
use super::store::{Batch, OpenStore, OpenStoreError, Outcome, Store, StoreError};
use super::tests::{call, index, sealed};

const FAULTS: [Fault; 6] = [Fault::Full, Fault::Error, Fault::Short, Fault::SyncLost, Fault::SyncHalf, Fault::PowerCut];
const COMMITS: u64 = 6;

/// What each commit writes: places that others wrote before, one of its own, one that another wrote and that goes.
fn changes(number: u64) -> Vec<(Slot, Option<u64>)> {
    let mut changes = vec![
        (Slot::of_call(Table::Header, call(number % 2)), Some(number)),
        (Slot::queue(number), Some(number)),
        (Slot::counter(), Some(number)),
    ];
    changes.extend(number.checked_sub(2).map(|earlier| (Slot::queue(earlier), None)));
    changes
}

fn batch(number: u64) -> Batch {
    changes(number).into_iter().fold(Batch::new(), |batch, (slot, value)| match value {
        Some(value) => batch.put(slot.clone(), sealed(&slot, value)),
        None => batch.delete(slot),
    })
}

type State = BTreeMap<Slot, u64>;

fn after(commits: &[u64]) -> State {
    let mut state = State::new();
    for (slot, value) in commits.iter().flat_map(|number| changes(*number)) {
        match value {
            Some(value) => state.insert(slot, value),
            None => state.remove(&slot),
        };
    }
    state
}

fn held(store: &Store, index: &IndexKeys) -> State {
    let tables = [Table::Header, Table::Queue, Table::Counter];
    let all = tables.iter().flat_map(|table| store.view(|snapshot| snapshot.all(*table)).unwrap());
    all.map(|(slot, sealed)| (slot.clone(), index.envelope().open_value(&slot, &sealed).unwrap())).collect()
}

fn open(disk: &FaultyDisk, beside: &Path, index: &IndexKeys) -> Result<Store, OpenStoreError> {
    let opened = disk.clone();
    let store = OpenStore::open_by(Box::new(move || opened.open()), Ballast::new(beside, 0))?;
    let path = beside.join(database::FILE);
    store.with(|database| Ok(migration::lift(database, &path, index.envelope(), migration::STEPS, &mut |_| Ok(()))?))?;
    store.start()
}

/// What was told of the commits.
#[derive(Default)]
struct Told {
    durable: Vec<u64>,
    /// It failed, and the store could not be opened again: nobody can know.
    unknown: Vec<u64>,
}

fn commit_all(store: &Store) -> Told {
    let mut told = Told::default();
    for number in 0..COMMITS {
        match store.commit(batch(number)) {
            Ok(outcome) => {
                assert_eq!(outcome, Outcome::Committed);
                told.durable.push(number);
            }
            Err(error) => {
                assert!(matches!(error, StoreError::Full | StoreError::Failed(_) | StoreError::Closed), "{error}");
                assert!(error.to_string().contains("disk"), "{error} does not say what to look at");
                if !store.is_open() && !matches!(error, StoreError::Closed) {
                    told.unknown.push(number);
                }
            }
        }
    }
    told
}

/// One run: the fault, then a power cut, then everything that was told must hold.
fn run(made: &FaultyDisk, at: u64, fault: Fault, beside: &Path, index: &IndexKeys) {
    let disk = made.copy_failing(at, fault);
    let mut told = Told::default();
    match open(&disk, beside, index) {
        Err(error) => {
            let words = crate::base::told::told(&error);
            assert!(words.contains("disk"), "{words} does not say what to look at");
        }
        Ok(store) => {
            told = commit_all(&store);
            disk.relieve();
            if fault != Fault::PowerCut {
                // The first may find the store closed, and opens it.
                let again = [store.commit(batch(COMMITS)), store.commit(batch(COMMITS))];
                assert!(matches!(again, [_, Ok(Outcome::Committed)]), "{again:?} after {fault:?} at {at}");
                told.durable.push(COMMITS);
            }
            drop(store);
        }
    }
    let found = open(&disk.after_power_cut(), beside, index).unwrap_or_else(|error| panic!("{fault:?} at {at}: {error:?}"));
    let held = held(&found, index);
    let mut possible = vec![after(&told.durable)];
    for unknown in &told.unknown {
        let mut commits = [told.durable.as_slice(), &[*unknown]].concat();
        commits.sort_unstable();
        possible.push(after(&commits));
    }
    assert!(possible.contains(&held), "{fault:?} at {at}: durable {:?}, unknown {:?}, found {held:?}", told.durable, told.unknown);
    assert_eq!(found.commit(batch(COMMITS + 1)).unwrap(), Outcome::Committed);
}

#[test]
fn a_disk_that_fails_at_any_operation_costs_nothing_acknowledged_and_leaves_nothing_in_half() {
    let beside = tempfile::tempdir().unwrap();
    // A database is made under another name than it will have; here it has just got its name, and is empty.
    let made = FaultyDisk::sound();
    drop(made.open().unwrap());
    let sound = made.copy_failing(u64::MAX, Fault::Error);
    let told = commit_all(&open(&sound, beside.path(), &index()).unwrap());
    assert_eq!(told.durable.len() as u64, COMMITS);
    let operations = sound.operations();
    assert!(operations > 50, "{operations}");
    std::thread::scope(|scope| {
        for half in FAULTS.chunks(3) {
            let (beside, made) = (beside.path(), &made);
            scope.spawn(move || {
                let index = index();
                for fault in half {
                    (0..operations).for_each(|at| run(made, at, *fault, beside, &index));
                }
            });
        }
    });
}

/// How often redb says that it repairs the database in `path`.
fn repairs(path: &Path) -> u32 {
    let calls = Arc::new(AtomicU32::new(0));
    let counted = Arc::clone(&calls);
    let mut builder = Builder::new();
    builder.set_repair_callback(move |_| {
        counted.fetch_add(1, Ordering::SeqCst);
    });
    drop(builder.open(path).unwrap());
    calls.load(Ordering::SeqCst)
}

#[test]
fn a_killed_writers_store_opens_without_a_repair() {
    let state = tempfile::tempdir().unwrap();
    let mut writer = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "record::tests::process_that_writes_until_it_is_killed", "--nocapture"])
        .env(super::tests::WRITE_UNTIL_KILLED, state.path())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let lines = BufReader::new(writer.stdout.take().unwrap()).lines().map_while(Result::ok);
    assert_eq!(lines.filter(|line| line.starts_with("acknowledged ")).take(40).count(), 40);
    writer.kill().unwrap();
    writer.wait().unwrap();
    assert_eq!(repairs(&state.path().join(database::FILE)), 0);
}

#[test]
fn the_search_for_repairs_sees_one_where_quick_repair_is_not_set() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("plain.redb");
    let database = Builder::new().create(&path).unwrap();
    let mut transaction = database.begin_write().unwrap();
    transaction.set_durability(Durability::Immediate).unwrap();
    transaction.open_table(Definition::new("header")).unwrap().insert(&b"key"[..], &b"value"[..]).unwrap();
    transaction.commit().unwrap();
    // As a kill leaves it: the file of a database that is open.
    let killed = folder.path().join("killed.redb");
    std::fs::copy(&path, &killed).unwrap();
    assert!(repairs(&killed) > 0);
}
