//! The counter's protocol: cut off at every point, and against every copy of before.
//! Trusts: nothing.
//! Touches: memory, temporary directories.
//! Next: nobody.

use std::cell::Cell;
use std::convert::Infallible;
use std::fs;
use std::io;

use super::*;
use crate::record::database::FILE;
use crate::record::erasure;
use crate::record::faulty_disk::{Fault, FaultyDisk};
use crate::record::segments::SegmentDirectory;
use crate::record::store::{Batch, Outcome};
use crate::record::tests::{call, index, sealed};

const NOW: Timestamp = Timestamp::from_unix_millis(1_700_000_000_123);

/// A box as far as this protocol goes: the TPM's counter, and what the store says.
#[derive(Clone, Copy, Debug)]
struct World {
    counter: Option<u64>,
    says: Option<Says>,
    calls: bool,
}

/// Points at which a start can be cut off; at the last it is not.
const POINTS: usize = 4;

impl World {
    /// A start that is cut off after so many of its three steps. The store has calls once it was served from.
    fn started(self, steps: usize) -> Result<Self, Refused> {
        judge(self.says, !self.calls, self.counter)?;
        let mut world = self;
        if steps > 0 {
            world.says = Some(Says::before(self.counter));
        }
        if steps > 1 {
            // A counter that is new begins anywhere.
            world.counter = Some(self.counter.map_or(41, |now| now + 1));
        }
        if steps > 2 {
            world.says = world.counter.map(Says::after);
            world.calls = true;
        }
        Ok(world)
    }
}

/// Every way in which `starts` starts can be cut off.
fn histories(starts: u32) -> impl Iterator<Item = Vec<usize>> {
    (0..POINTS.pow(starts)).map(move |number| (0..starts).map(|start| number / POINTS.pow(start) % POINTS).collect())
}

#[test]
fn a_cut_at_any_points_of_any_starts_is_never_taken_for_an_older_store() {
    for (calls, steps) in [false, true].into_iter().flat_map(|calls| histories(5).map(move |steps| (calls, steps))) {
        let mut world = World { counter: None, says: None, calls };
        for step in &steps {
            world = world.started(*step).unwrap_or_else(|refused| panic!("{steps:?} on calls {calls}: {refused:?} in {world:?}"));
        }
        world.started(3).unwrap_or_else(|refused| panic!("{steps:?} on calls {calls}: {refused:?} in {world:?}"));
    }
}

#[test]
fn a_copy_of_before_the_newest_start_is_refused_ever_after() {
    for steps in histories(4) {
        let mut world = World { counter: None, says: None, calls: true }.started(3).unwrap();
        let mut copies = vec![(world, 3)];
        for step in steps {
            world = world.started(step).unwrap();
            copies.push((world, step));
        }
        let next = world.started(3).unwrap();
        let after_next = next.started(3).unwrap();
        for (copy, step) in copies {
            let refused = |later: World| matches!(World { counter: later.counter, ..copy }.started(3), Err(Refused::Older { .. }));
            assert!(refused(after_next), "{copy:?} before {after_next:?}");
            // Nobody was served in a start that was cut off: a copy of one holds what the start after it began with.
            assert!(step < 3 || refused(next), "{copy:?} before {next:?}");
        }
    }
}

#[test]
fn a_store_that_a_tpm_is_behind_or_that_never_counted_is_refused() {
    let counted = Some(Says::Counted { expected: 9, confirmed: 9 });
    assert_eq!(judge(counted, false, None), Err(Refused::Behind { said: 9, counted: None }));
    assert_eq!(judge(counted, false, Some(7)), Err(Refused::Behind { said: 9, counted: Some(7) }));
    assert_eq!(judge(counted, false, Some(8)), Ok(()));
    assert_eq!(judge(counted, false, Some(10)), Err(Refused::Older { said: 9, counted: 10 }));
    assert_eq!(judge(None, false, Some(3)), Err(Refused::Uncounted { counted: 3 }));
    assert_eq!(judge(None, true, Some(3)), Ok(()));
}

/// The TPM's counter.
#[derive(Default)]
struct Tpm(Cell<Option<u64>>);

impl Tpm {
    fn said(&self) -> Counter {
        Counter { value: self.0.get(), leave: false }
    }

    fn count(&self, from: Option<u64>) -> Result<u64, TakeUpError> {
        assert_eq!(from, self.0.get());
        let next = from.map_or(41, |from| from + 1);
        self.0.set(Some(next));
        Ok(next)
    }
}

fn taken(database: &Database, index: &IndexKeys, tpm: &Tpm) -> Result<TakenUp, TakeUpError> {
    let mut keep = |_: &Database| panic!("nothing is to be kept");
    take_up(database, "store".as_ref(), index.envelope(), tpm.said(), &mut keep, |from| tpm.count(from))
}

#[test]
fn without_power_at_any_operation_of_the_disk_the_next_start_is_served() {
    let index = index();
    let made = FaultyDisk::sound();
    let tpm = Tpm::default();
    let database = made.open().unwrap();
    transact(&database, |transaction| {
        for table in Table::ALL {
            drop(transaction.open_table(definition(table))?);
        }
        let (slot, value) = (Slot::of_call(Table::Header, call(1)), 1);
        drop(transaction.open_table(definition(Table::Header))?.insert(slot.key(), sealed(&slot, value).as_stored())?);
        Ok(())
    })
    .unwrap();
    for start in 0..3 {
        taken(&database, &index, &tpm).unwrap_or_else(|error| panic!("{start}: {error}"));
    }
    drop(database);
    let sound = made.copy_failing(u64::MAX, Fault::Error);
    taken(&sound.open().unwrap(), &index, &Tpm(Cell::new(tpm.0.get()))).unwrap();
    let operations = sound.operations();
    assert!(operations > 6, "{operations}");
    for at in 0..=operations {
        let (disk, tpm) = (made.copy_failing(at, Fault::PowerCut), Tpm(Cell::new(tpm.0.get())));
        // Cut off somewhere, or whole.
        let _ = disk.open().map(|database| taken(&database, &index, &tpm));
        let found = disk.after_power_cut();
        let next = taken(&found.open().unwrap(), &index, &tpm);
        assert!(matches!(next, Ok(TakenUp::Newest)), "{at}: {next:?} at {:?}", tpm.0.get());
    }
}

#[test]
fn a_tpm_that_fails_before_or_after_it_counted_costs_one_start() {
    let disk = FaultyDisk::sound();
    let (database, index, tpm) = (disk.open().unwrap(), index(), Tpm::default());
    for table in Table::ALL {
        transact(&database, |transaction| Ok(transaction.open_table(definition(table)).map(drop)?)).unwrap();
    }
    let failed = || TakeUpError::Count(Arc::new(io::Error::other("no TPM")));
    for counts in [false, true, false, true] {
        let count = |from| {
            if counts {
                tpm.count(from)?;
            }
            Err(failed())
        };
        let cut = take_up(&database, "store".as_ref(), index.envelope(), tpm.said(), &mut |_| panic!(), count);
        assert!(matches!(cut, Err(TakeUpError::Count(_))), "{cut:?}");
    }
    assert_eq!(taken(&database, &index, &tpm).unwrap(), TakenUp::Newest);
}

fn started(state: &Path, counter: Counter) -> Result<TakenUp, TakeUpError> {
    let store = OpenStore::open(state, 0, &index()).unwrap();
    store.take_up(&index(), counter, NOW, |from| Ok::<_, Infallible>(from.map_or(1, |from| from + 1)))
}

/// Counters without leave.
fn at(value: u64) -> Counter {
    Counter { value: Some(value), leave: false }
}

#[test]
fn an_older_store_is_refused_in_words_and_taken_with_leave_and_a_copy() {
    let state = tempfile::tempdir().unwrap();
    let path = state.path().join(FILE);
    assert_eq!(started(state.path(), Counter::default()).unwrap(), TakenUp::Newest);
    let older = fs::read(&path).unwrap();
    assert_eq!(started(state.path(), at(1)).unwrap(), TakenUp::Newest);
    assert_eq!(started(state.path(), at(2)).unwrap(), TakenUp::Newest);

    fs::write(&path, &older).unwrap();
    let refused = started(state.path(), at(3)).unwrap_err();
    assert!(refused.is_refusal());
    let words = refused.to_string();
    for word in [
        "is older than this box",
        "at count 1",
        "has counted to 3",
        "older copy of the state directory",
        "salama recover --accept-rollback",
    ] {
        assert!(words.contains(word), "{words}");
    }

    let with_leave = started(state.path(), Counter { value: Some(3), leave: true }).unwrap();
    let copy = state.path().join("store.rollback-20231114T221320123Z.redb");
    assert_eq!(with_leave, TakenUp::WithLeave { said: Some(1), counted: 3, copy: copy.clone() });
    assert_eq!(started(state.path(), at(4)).unwrap(), TakenUp::Newest);

    // The copy is what it was: put in place, it is as old as before.
    fs::rename(&copy, &path).unwrap();
    assert!(matches!(started(state.path(), at(5)), Err(TakeUpError::Older { said: 1, counted: 5, .. })));
}

#[test]
fn a_store_of_a_tpm_that_was_cleared_says_so_and_is_taken_with_leave() {
    let state = tempfile::tempdir().unwrap();
    // A new store on a box that has had others.
    assert_eq!(started(state.path(), at(500)).unwrap(), TakenUp::Newest);
    let words = started(state.path(), at(2)).unwrap_err().to_string();
    assert!(words.contains("at count 501, but the TPM has counted only to 2: it was cleared or replaced"), "{words}");
    let words = started(state.path(), Counter::default()).unwrap_err().to_string();
    assert!(words.contains("has not counted at all"), "{words}");
    let taken = started(state.path(), Counter { value: Some(2), leave: true }).unwrap();
    assert!(matches!(taken, TakenUp::WithLeave { said: Some(501), counted: 2, .. }), "{taken:?}");
    assert_eq!(started(state.path(), at(3)).unwrap(), TakenUp::Newest);
}

#[test]
fn the_numbers_cannot_be_written_by_who_has_not_the_index_key() {
    let state = tempfile::tempdir().unwrap();
    assert_eq!(started(state.path(), Counter::default()).unwrap(), TakenUp::Newest);
    let slot = Slot::rollback();
    let store = OpenStore::open(state.path(), 0, &index()).unwrap().start().unwrap();
    // The schema's record is sealed by the right key, for another place.
    let other = store.get(&Slot::schema()).unwrap().unwrap();
    assert_eq!(store.commit(Batch::new().put(slot, other)).unwrap(), Outcome::Committed);
    drop(store);
    let refused = started(state.path(), at(1)).unwrap_err();
    assert!(matches!(refused, TakeUpError::Sealed { .. }), "{refused}");
}

#[test]
fn the_copy_of_a_store_that_was_taken_with_leave_goes_with_the_first_erasure() {
    let state = tempfile::tempdir().unwrap();
    assert_eq!(started(state.path(), Counter::default()).unwrap(), TakenUp::Newest);
    let segments = SegmentDirectory::open(state.path()).unwrap();
    let Ok(TakenUp::WithLeave { copy, .. }) = started(state.path(), Counter { value: Some(9), leave: true }) else { panic!("not taken") };
    assert!(copy.exists());
    let store = OpenStore::open(state.path(), 0, &index()).unwrap().start().unwrap();
    assert_eq!(erasure::erase(&store, &segments, call(1), Batch::new(), []).unwrap(), Outcome::Committed);
    assert!(!copy.exists());
}
