//! The counter's protocol: cut off at every point, and against every copy of before.
//! Trusts: nothing.
//! Touches: memory, temporary directories.
//! Next: nobody.

mod aside;

use std::cell::Cell;
use std::convert::Infallible;
use std::fs;
use std::io;

use super::*;
use crate::base::clock::Timestamp;
use crate::ipc::keeper::KeeperDenial;
use crate::record::copy::tests::{at_any_fault, content};
use crate::record::database::FILE;
use crate::record::epoch::StoredEpoch;
use crate::record::erasure;
use crate::record::faulty_directory::FaultyDirectory;
use crate::record::faulty_disk::{Fault, FaultyDisk};
use crate::record::segments::SegmentDirectory;
use crate::record::store::{Batch, Outcome};
use crate::record::tests::{call, index, sealed};

/// A box as far as this protocol goes: the TPM's counter, and what the store says.
#[derive(Clone, Copy, Debug)]
struct World {
    counter: u64,
    says: Option<Says>,
    /// The store has calls, and is served from.
    served: bool,
}

/// The counter was made, and counted once, by who set the box up.
const NEW: World = World { counter: 41, says: None, served: false };

/// How often the keyslots were changed.
const KEYS: u64 = 4;

const fn counted(at: u64) -> Counted {
    Counted { at, keys: KEYS }
}

/// Points at which a start or a move can be cut off; at the last it is not.
const POINTS: usize = 4;

impl World {
    /// A start that is cut off after so many of its three steps.
    fn started(self, steps: usize) -> Result<Self, Refused> {
        match judge(self.says, !self.served, self.counter, KEYS) {
            // The leave of the set-up.
            Err(Refused::Absent { counted }) if counted == NEW.counter => {}
            judged => judged?,
        }
        let mut world = self;
        if steps > 0 {
            world.says = Some(Says::before(self.counter, KEYS));
        }
        if steps > 1 {
            world.counter += 1;
        }
        if steps > 2 {
            world.says = Some(Says::after(counted(world.counter)));
            world.served = true;
        }
        Ok(world)
    }

    /// A move of the epoch, the same.
    fn moved(self, steps: usize) -> Self {
        let (mut world, Some(says)) = (self, self.says) else { return self };
        if steps > 0 {
            world.says = Some(Says::before(says.confirmed, KEYS));
        }
        if let Some(from) = world.says.and_then(Says::to_count).filter(|_| steps > 1) {
            // Asked again, the keeper does not count again.
            world.counter = from + 1;
        }
        if steps > 2 {
            world.says = Some(Says::after(counted(world.counter)));
        }
        world
    }

    /// What happens next: a start, or a move while it is served.
    fn goes_on(self, (moves, steps): (bool, usize)) -> Result<Self, Refused> {
        if moves && self.served { Ok(self.moved(steps)) } else { self.started(steps) }
    }
}

type Happening = (bool, usize);

/// Every way in which so many starts and moves can be cut off.
fn histories(length: u32) -> impl Iterator<Item = Vec<Happening>> {
    let each = 2 * POINTS;
    let happening = move |number: usize| (number % 2 == 1, number / 2 % POINTS);
    (0..each.pow(length)).map(move |number| (0..length).map(|at| happening(number / each.pow(at) % each)).collect())
}

#[test]
fn a_cut_at_any_points_of_any_starts_and_moves_is_never_taken_for_an_older_store() {
    for history in histories(5) {
        let mut world = NEW;
        for happening in &history {
            world = world.goes_on(*happening).unwrap_or_else(|refused| panic!("{history:?}: {refused:?} in {world:?}"));
        }
        world.started(3).unwrap_or_else(|refused| panic!("{history:?}: {refused:?} in {world:?}"));
    }
}

#[test]
fn a_copy_of_before_the_newest_count_is_refused_ever_after() {
    for history in histories(4) {
        let mut world = NEW.started(3).unwrap();
        let mut copies = vec![world];
        for happening in history {
            world = world.goes_on(happening).unwrap();
            copies.push(world);
        }
        let next = [world.started(3).unwrap(), world.moved(3)];
        let after_next = next.iter().flat_map(|next| [next.started(3).unwrap(), next.moved(3)]);
        let refused = |copy: World, later: World| matches!(World { counter: later.counter, ..copy }.started(3), Err(Refused::Older { .. }));
        for later in after_next {
            assert!(copies.iter().all(|copy| refused(*copy, later)), "{copies:?} before {later:?}");
        }
        // What says already that it will be counted is as new as what the count is for.
        let counted = |copy: &&World| copy.says.is_some_and(|says| says.to_count().is_none());
        for later in next.into_iter().filter(|next| next.counter > world.counter) {
            assert!(copies.iter().filter(counted).all(|copy| refused(*copy, later)), "{copies:?} before {later:?}");
        }
    }
}

#[test]
fn a_store_that_a_tpm_is_behind_or_that_never_counted_is_refused() {
    let counted = Some(Says::after(counted(9)));
    assert_eq!(judge(counted, false, 7, KEYS), Err(Refused::Behind { said: 9, counted: 7 }));
    assert_eq!(judge(counted, false, 8, KEYS), Err(Refused::Behind { said: 9, counted: 8 }));
    assert_eq!(judge(Some(Says::before(8, KEYS)), false, 8, KEYS), Ok(()));
    assert_eq!(judge(Some(Says::before(8, KEYS)), false, 9, KEYS), Ok(()));
    assert_eq!(judge(counted, false, 10, KEYS), Err(Refused::Older { said: 9, counted: 10 }));
    assert_eq!(judge(None, false, 3, KEYS), Err(Refused::Uncounted { counted: 3 }));
    assert_eq!(judge(None, true, 3, KEYS), Err(Refused::Absent { counted: 3 }));
    assert_eq!(judge(counted, false, 9, KEYS + 1), Ok(()));
    assert_eq!(judge(counted, false, 9, KEYS - 1), Err(Refused::OlderKeys { said: KEYS, found: KEYS - 1 }));
}

/// The TPM's counter.
struct Tpm(Cell<u64>);

impl Default for Tpm {
    fn default() -> Self {
        Self(Cell::new(NEW.counter))
    }
}

impl Tpm {
    fn said(&self) -> Counter {
        let value = self.0.get();
        let leave = if value == NEW.counter { Leave::First } else { Leave::None };
        Counter { value: Some(value), leave, ..at(value) }
    }

    fn count(&self, from: u64) -> Result<Counted, TakeUpError> {
        assert_eq!(from, self.0.get());
        self.0.set(from + 1);
        Ok(counted(from + 1))
    }
}

fn taken(database: &Database, index: &IndexKeys, tpm: &Tpm) -> Result<TakenUp, TakeUpError> {
    let mut keep = |_: &Database, _| panic!("nothing is to be kept");
    let told = |_: &TakenUp| panic!("nothing is to be told");
    take_up(database, "store".as_ref(), index.envelope(), tpm.said(), (&mut keep, told), |from| tpm.count(from))
}

fn disk_with(tables: &[Table], holds_a_call: bool) -> FaultyDisk {
    let made = FaultyDisk::sound();
    transact(&made.open().unwrap(), |transaction| {
        for table in tables {
            drop(transaction.open_table(definition(*table))?);
        }
        if holds_a_call {
            let slot = Slot::of_call(Table::Header, call(1));
            drop(transaction.open_table(definition(Table::Header))?.insert(slot.key(), sealed(&slot, 1).as_stored())?);
        }
        Ok(())
    })
    .unwrap();
    made
}

/// A disk with a store of one call, or none, that was taken up so many times.
fn disk_after(starts: usize, holds_a_call: bool, tpm: &Tpm) -> FaultyDisk {
    let made = disk_with(&Table::ALL, holds_a_call);
    let database = made.open().unwrap();
    if starts > 0 {
        let first = Says::after(counted(tpm.0.get()));
        write(&database, "store".as_ref(), index().envelope(), first).unwrap();
    }
    for start in 0..starts {
        taken(&database, &index(), tpm).unwrap_or_else(|error| panic!("{start}: {error}"));
    }
    drop(database);
    made
}

#[test]
fn without_power_at_any_operation_of_the_disk_the_next_start_is_served() {
    let index = index();
    // The first start of all, and a later one.
    for (starts, holds_a_call) in [(0, false), (3, true)] {
        let tpm = Tpm::default();
        let made = disk_after(starts, holds_a_call, &tpm);
        let sound = made.copy_failing(u64::MAX, Fault::Error);
        taken(&sound.open().unwrap(), &index, &Tpm(tpm.0.clone())).unwrap();
        let operations = sound.operations();
        assert!(operations > 6, "{operations}");
        for at in 0..=operations {
            let (disk, tpm) = (made.copy_failing(at, Fault::PowerCut), Tpm(tpm.0.clone()));
            // Cut off somewhere, or whole.
            let _ = disk.open().map(|database| taken(&database, &index, &tpm));
            let found = disk.after_power_cut();
            let next = taken(&found.open().unwrap(), &index, &tpm);
            assert!(matches!(next, Ok(TakenUp::Newest)), "{at}: {next:?} at {:?}", tpm.0.get());
        }
    }
}

#[test]
fn without_power_at_any_operation_of_a_start_with_leave_the_next_one_is_served_and_it_was_told() {
    const GIVEN_AT: u64 = 99;
    let index = index();
    let made = disk_after(0, true, &Tpm::default());
    let with_leave = |database: &Database, tpm: &Tpm, told: &Cell<bool>, lost: bool| {
        let counter = if tpm.0.get() == GIVEN_AT { leave_at(GIVEN_AT) } else { tpm.said() };
        let mut keep = |_: &Database, _| Ok(PathBuf::from("kept"));
        let count = |from| {
            let counted = tpm.count(from)?;
            if lost { Err(TakeUpError::Count(Arc::new(io::Error::other("its answer is lost")))) } else { Ok(counted) }
        };
        take_up(database, "store".as_ref(), index.envelope(), counter, (&mut keep, |_: &TakenUp| told.set(true)), count)
    };
    let sound = made.copy_failing(u64::MAX, Fault::Error);
    with_leave(&sound.open().unwrap(), &Tpm(Cell::new(GIVEN_AT)), &Cell::default(), false).unwrap();
    for (at, lost) in (0..=sound.operations()).flat_map(|at| [(at, false), (at, true)]) {
        let (disk, tpm, told) = (made.copy_failing(at, Fault::PowerCut), Tpm(Cell::new(GIVEN_AT)), Cell::new(false));
        let _ = disk.open().map(|database| with_leave(&database, &tpm, &told, lost));
        let found = disk.after_power_cut();
        let next = with_leave(&found.open().unwrap(), &tpm, &told, false);
        assert!(next.is_ok() && told.get(), "{at}: {next:?} at {:?}", tpm.0.get());
    }
}

#[test]
fn a_fault_at_any_operation_of_a_start_with_leave_changes_nothing_without_a_whole_copy_and_the_next_one_is_served() {
    const GIVEN_AT: u64 = 99;
    let (path, index) = (Path::new(FILE), index());
    let old = FaultyDirectory::with(path, &disk_with(&[Table::Header, Table::WrappedDek, Table::Counter, Table::Store], true));
    let before = content(&old.open(path).unwrap());
    let kept = kept_copy(path, GIVEN_AT);
    let says = |database: &Database| read(database, path, index.envelope()).unwrap();
    at_any_fault(
        &old,
        |disk| {
            let database = disk.open(path)?;
            // As far as the TPM can be by what the store says.
            let counter = says_confirmed(&database, path, &index)?.filter(|at| *at > GIVEN_AT).map_or(leave_at(GIVEN_AT), at);
            let mut keep = |database: &Database, counted| {
                let copy = kept_copy(path, counted);
                let failed = |source| TakeUpError::Copy { path: path.to_owned(), source: Box::new(source) };
                copy::write_on(disk, database, &copy, &mut |_| ()).map_err(failed)?;
                Ok(copy)
            };
            take_up(&database, path, index.envelope(), counter, (&mut keep, |_: &TakenUp| ()), |from| Ok(counted(from + 1)))?;
            Ok(())
        },
        |disk, case| {
            let listed = disk.listed();
            let said = says(&disk.open(path).unwrap());
            assert!(said.is_none() || listed.contains(&kept.to_str().unwrap().to_owned()), "{case}: {listed:?}");
            for copy in listed.iter().filter(|name| *name != FILE && !copy::is_unfinished(name)).map(Path::new) {
                assert!(copy == kept && content(&disk.open(copy).unwrap()) == before, "{case}: {listed:?}");
            }
        },
    );
}

fn says_confirmed(database: &Database, path: &Path, index: &IndexKeys) -> Result<Option<u64>, TakeUpError> {
    Ok(read(database, path, index.envelope())?.map(|says| says.confirmed))
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
        let mut keep = |_: &Database, _| panic!();
        let cut = take_up(&database, "store".as_ref(), index.envelope(), tpm.said(), (&mut keep, |_: &TakenUp| panic!()), count);
        assert!(matches!(cut, Err(TakeUpError::Count(_))), "{cut:?}");
    }
    assert_eq!(taken(&database, &index, &tpm).unwrap(), TakenUp::Newest);
}

fn started(state: &Path, counter: Counter) -> Result<TakenUp, TakeUpError> {
    let store = OpenStore::open(state, 0, &index()).unwrap();
    let looked = store.is_newest(&index(), counter);
    let taken = store.take_up(&index(), counter, |_| (), |from| Ok::<_, Infallible>(counted(from + 1)));
    assert_eq!(looked.is_ok(), taken.is_ok(), "{looked:?} {taken:?}");
    taken
}

/// Counters without leave.
const fn at(value: u64) -> Counter {
    Counter { value: Some(value), leave: Leave::None, keys: KEYS, epochs: [None; 2] }
}

const fn leave_at(value: u64) -> Counter {
    Counter { leave: Leave::Accepted, ..at(value) }
}

const fn first_at(value: u64) -> Counter {
    Counter { leave: Leave::First, ..at(value) }
}

#[test]
fn an_older_store_is_refused_in_words_and_taken_with_leave_and_a_copy() {
    let state = tempfile::tempdir().unwrap();
    let path = state.path().join(FILE);
    assert_eq!(started(state.path(), first_at(0)).unwrap(), TakenUp::Newest);
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

    let with_leave = started(state.path(), leave_at(3)).unwrap();
    let copy = state.path().join("store.rollback-3.redb");
    assert_eq!(with_leave, TakenUp::WithLeave { said: Some(1), counted: 3, copy: copy.clone() });
    assert_eq!(started(state.path(), at(4)).unwrap(), TakenUp::Newest);

    // The copy is what it was: put in place, it is as old as before.
    fs::rename(&copy, &path).unwrap();
    assert!(matches!(started(state.path(), at(5)), Err(TakeUpError::Older { said: 1, counted: 5, .. })));
}

/// What the start says of an epoch, as the keeper will: nothing is copied, told or counted before.
#[test]
fn an_epoch_that_the_tpm_does_not_have_is_told_before_anything_is_done_whatever_leave_there_is() {
    let state = tempfile::tempdir().unwrap();
    assert_eq!(started(state.path(), first_at(0)).unwrap(), TakenUp::Newest);
    let store = OpenStore::open(state.path(), 0, &index()).unwrap().start().unwrap();
    let stored = StoredEpoch { number: 4, since: Timestamp::from_unix_millis(0) };
    let batch = Batch::new().put(Slot::epoch(), index().envelope().seal_value(&Slot::epoch(), &stored).unwrap());
    assert_eq!(store.commit(batch).unwrap(), Outcome::Committed);
    drop(store);
    let before = fs::read_dir(state.path()).unwrap().count();
    for (epochs, denial) in [([Some(5), None], KeeperDenial::OtherEpoch), ([Some(2), Some(3)], KeeperDenial::OlderKeys)] {
        for counter in [at(1), leave_at(1), leave_at(9), Counter { leave: Leave::Moved, ..at(9) }] {
            let store = OpenStore::open(state.path(), 0, &index()).unwrap();
            let counter = Counter { epochs, ..counter };
            let looked = store.is_newest(&index(), counter).unwrap_err();
            let nobody = |_: &TakenUp| panic!("told");
            let refused = store.take_up(&index(), counter, nobody, |_| -> Result<Counted, Infallible> { panic!("counted") }).unwrap_err();
            for refused in [looked, refused] {
                assert!(matches!(refused, TakeUpError::Epoch(found) if found == denial) && refused.is_refusal(), "{refused}");
            }
        }
    }
    assert_eq!(fs::read_dir(state.path()).unwrap().count(), before, "no copy");
    assert_eq!(started(state.path(), Counter { epochs: [Some(4), Some(5)], ..at(1) }).unwrap(), TakenUp::Newest);
}

#[test]
fn an_empty_state_directory_is_taken_at_the_first_start_and_later_only_with_the_operators_word() {
    let mounted = tempfile::tempdir().unwrap();
    assert_eq!(started(mounted.path(), first_at(7)).unwrap(), TakenUp::Newest);
    let state = tempfile::tempdir().unwrap();
    for counter in [at(8), Counter { leave: Leave::Moved, ..at(8) }] {
        let refused = started(state.path(), counter).unwrap_err();
        assert!(matches!(refused, TakeUpError::Absent { counted: 8, .. }) && refused.is_refusal(), "{refused}");
        assert!(refused.to_string().contains("Is the state directory mounted?"), "{refused}");
    }
    // It is there again.
    assert_eq!(started(mounted.path(), at(8)).unwrap(), TakenUp::Newest);
    // Between two epochs, too.
    for (counter, epochs) in [(leave_at(9), [Some(1), None]), (leave_at(9), [Some(1), Some(2)])] {
        let state = tempfile::tempdir().unwrap();
        let taken = started(state.path(), Counter { epochs, ..counter }).unwrap();
        assert!(matches!(taken, TakenUp::WithLeave { said: None, counted: 9, .. }), "{taken:?}");
    }
    for leave in [Leave::None, Leave::First, Leave::Moved] {
        let refused = started(state.path(), Counter { leave, epochs: [Some(1), Some(2)], ..at(9) }).unwrap_err();
        assert!(matches!(refused, TakeUpError::Epoch(KeeperDenial::EmptyStore)) && refused.is_refusal(), "{refused}");
    }
}

#[test]
fn a_store_of_a_tpm_that_was_cleared_says_so_and_is_taken_with_leave() {
    let state = tempfile::tempdir().unwrap();
    // A new store on a box that has had others.
    assert_eq!(started(state.path(), first_at(500)).unwrap(), TakenUp::Newest);
    let words = started(state.path(), at(2)).unwrap_err().to_string();
    assert!(words.contains("at count 501, but the TPM has counted only to 2: it was cleared or replaced"), "{words}");
    // Nothing tells how old it is.
    let none = started(state.path(), Counter::default()).unwrap_err();
    assert!(none.is_refusal() && none.to_string().contains("the TPM has no counter"), "{none}");
    let taken = started(state.path(), leave_at(2)).unwrap();
    assert!(matches!(taken, TakenUp::WithLeave { said: Some(501), counted: 2, .. }), "{taken:?}");
    assert_eq!(started(state.path(), at(3)).unwrap(), TakenUp::Newest);
}

#[test]
fn the_numbers_cannot_be_written_by_who_has_not_the_index_key() {
    let state = tempfile::tempdir().unwrap();
    assert_eq!(started(state.path(), first_at(0)).unwrap(), TakenUp::Newest);
    let slot = Slot::rollback();
    let store = OpenStore::open(state.path(), 0, &index()).unwrap().start().unwrap();
    // The schema's record is sealed by the right key, for another place.
    let other = store.get(&Slot::schema()).unwrap().unwrap();
    assert_eq!(store.commit(Batch::new().put(slot, other)).unwrap(), Outcome::Committed);
    drop(store);
    let refused = started(state.path(), at(1)).unwrap_err();
    assert!(matches!(refused, TakeUpError::Sealed { .. }) && refused.is_refusal(), "{refused}");
    // It is the operator's to say what becomes of it.
    assert!(matches!(started(state.path(), leave_at(1)), Ok(TakenUp::WithLeave { said: None, counted: 1, .. })));
    assert_eq!(started(state.path(), at(2)).unwrap(), TakenUp::Newest);
}

/// A known limit, which SECURITY.md states: the record is bound to its place, not to the records beside it.
#[test]
fn an_older_store_with_the_record_of_the_newest_in_it_is_taken_for_the_newest() {
    let state = tempfile::tempdir().unwrap();
    let path = state.path().join(FILE);
    assert_eq!(started(state.path(), first_at(0)).unwrap(), TakenUp::Newest);
    let older = fs::read(&path).unwrap();
    assert_eq!(started(state.path(), at(1)).unwrap(), TakenUp::Newest);
    let slot = Slot::rollback();
    let newest = OpenStore::open(state.path(), 0, &index()).unwrap().start().unwrap().get(&slot).unwrap().unwrap();

    fs::write(&path, &older).unwrap();
    let store = OpenStore::open(state.path(), 0, &index()).unwrap().start().unwrap();
    assert_eq!(store.commit(Batch::new().put(slot, newest)).unwrap(), Outcome::Committed);
    drop(store);
    assert_eq!(started(state.path(), at(2)).unwrap(), TakenUp::Newest);
}

#[test]
fn the_copy_of_a_store_that_was_taken_with_leave_goes_with_the_first_erasure() {
    let state = tempfile::tempdir().unwrap();
    assert_eq!(started(state.path(), first_at(0)).unwrap(), TakenUp::Newest);
    let segments = SegmentDirectory::open(state.path()).unwrap();
    let Ok(TakenUp::WithLeave { copy, .. }) = started(state.path(), leave_at(9)) else { panic!("not taken") };
    assert!(copy.exists());
    let store = OpenStore::open(state.path(), 0, &index()).unwrap().start().unwrap();
    assert_eq!(erasure::erase(&store, &segments, call(1), Batch::new(), []).unwrap(), Outcome::Committed);
    assert!(!copy.exists());
}
