//! Copies on a disk that fails at every operation in turn: what was copied is whole, what has a copy's name is a copy, and the next try succeeds.
//! Trusts: nothing.
//! Touches: memory.
//! Next: [`super::super::migration`] and [`super::super::rollback`] have tests of the copies that they keep.

use std::error::Error;

use super::*;
use crate::base::told::told;
use crate::record::database::{FILE, definition};
use crate::record::faulty_directory::FaultyDirectory;
use crate::record::faulty_disk::{Fault, FaultyDisk, Operation};
use crate::record::schema::{Slot, Table};
use crate::record::tests::call;

/// All records, by table.
pub(in crate::record) fn content(database: &Database) -> Vec<(String, Vec<Record>)> {
    let source = Source::of(database).unwrap();
    let records = |name: &String| source.records_of(name).unwrap().map(Result::unwrap).collect();
    source.tables.iter().map(|name| (name.clone(), records(name))).collect()
}

/// Lets `act` run on disks that fail at each of its operations in turn, and again once they do not: then it must succeed. `found` looks at
/// what is there after each.
pub(in crate::record) fn at_any_fault(
    old: &FaultyDirectory,
    act: impl Fn(&FaultyDirectory) -> Result<(), Box<dyn Error>>,
    found: impl Fn(&FaultyDirectory, &str),
) {
    let sound = old.copy_failing(u64::MAX, Fault::Error);
    act(&sound).unwrap();
    let operations = sound.operations();
    assert!(operations.len() > 30, "{operations:?}");
    let faults = |(at, operation): (u64, Operation)| operation.faults().iter().map(move |fault| (at, *fault));
    for (at, fault) in (0..).zip(operations).flat_map(faults) {
        let case = format!("{fault:?} at {at}");
        let disk = old.copy_failing(at, fault);
        if let Err(error) = act(&disk) {
            let words = told(&*error);
            assert!(["disk", "free them"].iter().any(|way| words.contains(way)), "{case}: {words}");
        }
        let mut left = vec![disk.after_power_cut()];
        if fault != Fault::PowerCut {
            disk.relieve();
            left.push(disk);
        }
        for disk in left {
            found(&disk, &case);
            act(&disk).unwrap_or_else(|error| panic!("{case}: {}", told(&*error)));
            found(&disk, &case);
        }
    }
}

/// A store that erased records have left room in.
fn with_holes() -> FaultyDisk {
    let disk = FaultyDisk::sound();
    let database = disk.open().unwrap();
    for (erases, step) in [(false, 1), (true, 3)] {
        let written = transact(&database, |transaction| {
            for table in [Table::Header, Table::Counter] {
                let mut opened = transaction.open_table(definition(table))?;
                for number in (0..40).step_by(step).filter(|_| table == Table::Header) {
                    let slot = Slot::of_call(table, call(number));
                    if erases {
                        drop(opened.remove(slot.key())?);
                    } else {
                        drop(opened.insert(slot.key(), [7_u8; 600].as_slice())?);
                    }
                }
            }
            Ok(())
        });
        written.unwrap();
    }
    drop(database);
    disk
}

#[test]
fn a_fault_at_any_operation_of_a_compaction_leaves_one_whole_store_and_the_next_one_succeeds() {
    let path = Path::new(FILE);
    let old = FaultyDirectory::with(path, &with_holes());
    let before = content(&old.open(path).unwrap());
    at_any_fault(
        &old,
        |disk| {
            let database = disk.open(path)?;
            write_on(disk, &database, path, &mut |_| ())?;
            assert_eq!(disk.listed(), [FILE]);
            Ok(())
        },
        |disk, case| {
            assert!(content(&disk.open(path).unwrap()) == before, "{case}");
            let strangers: Vec<_> = disk.listed().into_iter().filter(|name| name != FILE && !is_unfinished(name)).collect();
            assert!(strangers.is_empty(), "{case}: {strangers:?}");
        },
    );
}
