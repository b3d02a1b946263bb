//! The store as a whole: groups, crashes, full disks, erasure.
//! Trusts: nothing.
//! Touches: temporary directories, a small tmpfs, processes of its own that it kills.
//! Next: nobody.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Arc, Barrier};

use super::envelope::{Envelope, SealedRecord};
use super::index::IndexKeys;
use super::schema::{Slot, Table};
use super::segments::{SegmentDirectory, SegmentError};
use super::small_disk::SmallDisk;
use super::store::{Batch, OpenStore, OpenStoreError, Outcome, Store, StoreError};
use super::{erasure, space};
use crate::base::ids::CallId;
use crate::base::secret::Secret;

fn open(state: &Path) -> Store {
    OpenStore::open(state, 1 << 16, &index()).unwrap().start().unwrap()
}

pub(super) fn index() -> IndexKeys {
    IndexKeys::derive(&Secret::try_fill(|_| Ok::<(), ()>(())).unwrap()).unwrap()
}

pub(super) fn sealed(slot: &Slot, value: u64) -> SealedRecord {
    index().envelope().seal_value(slot, &value).unwrap()
}

pub(super) fn call(number: u64) -> CallId {
    let mut id = [0; 16];
    id[..8].copy_from_slice(&number.to_be_bytes());
    CallId::from_bytes(id)
}

#[test]
fn what_was_committed_is_there_after_reopening() {
    let state = tempfile::tempdir().unwrap();
    let slot = Slot::queue(1);
    let store = open(state.path());
    assert_eq!(store.commit(Batch::new().put(slot.clone(), sealed(&slot, 42))).unwrap(), Outcome::Committed);
    drop(store);
    let read = open(state.path()).get(&slot).unwrap().unwrap();
    assert_eq!(index().envelope().open_value::<u64>(&slot, &read).unwrap(), 42);
}

#[test]
fn many_writers_share_commits() {
    let state = tempfile::tempdir().unwrap();
    let store = open(state.path());
    let start = Arc::new(Barrier::new(32));
    let writers: Vec<_> = (0..32)
        .map(|number| {
            let (store, start) = (store.clone(), Arc::clone(&start));
            std::thread::spawn(move || {
                start.wait();
                for job in 0..8 {
                    let slot = Slot::queue(number * 100 + job);
                    let _ = store.commit(Batch::new().put(slot.clone(), sealed(&slot, job))).unwrap();
                }
            })
        })
        .collect();
    writers.into_iter().for_each(|writer| writer.join().unwrap());
    let stored = store.view(|snapshot| snapshot.all(Table::Queue)).unwrap().len();
    assert_eq!(stored, 256);
    assert!(store.commits() < 128, "{} commits for 256 batches", store.commits());
}

#[test]
fn a_batch_whose_requirement_fails_stores_nothing_and_harms_no_other() {
    let state = tempfile::tempdir().unwrap();
    let store = open(state.path());
    let (taken, free) = (Slot::queue(1), Slot::queue(2));
    let value = sealed(&taken, 1);
    assert_eq!(store.commit(Batch::new().put(taken.clone(), value.clone())).unwrap(), Outcome::Committed);
    let refused = Batch::new().require_absent(taken.clone()).put(free.clone(), sealed(&free, 2));
    assert_eq!(store.commit(refused).unwrap(), Outcome::Conflict);
    assert!(store.get(&free).unwrap().is_none());
    let swap = |read: &SealedRecord| Batch::new().require_unchanged(taken.clone(), read.clone()).put(taken.clone(), sealed(&taken, 3));
    assert_eq!(store.commit(swap(&value)).unwrap(), Outcome::Committed);
    assert_eq!(store.commit(swap(&value)).unwrap(), Outcome::Conflict);
}

#[test]
fn a_second_daemon_on_the_same_directory_is_refused() {
    let state = tempfile::tempdir().unwrap();
    let _first = open(state.path());
    assert!(matches!(OpenStore::open(state.path(), 0, &index()), Err(OpenStoreError::InUse { .. })));
}

#[test]
fn a_store_that_is_gone_is_not_made_anew_over_its_recordings() {
    let state = tempfile::tempdir().unwrap();
    drop(open(state.path()));
    let segments = SegmentDirectory::open(state.path()).unwrap();
    let envelope = Envelope::of_call(Secret::try_fill(|_| Ok::<(), ()>(())).unwrap());
    let mut writer = segments.create(call(1), &envelope).unwrap();
    writer.push(b"recording").unwrap();
    writer.finish().unwrap();
    let store = state.path().join("store.redb");

    std::fs::remove_file(&store).unwrap();
    let gone = OpenStore::open(state.path(), 0, &index()).err().unwrap();
    std::fs::write(&store, b"").unwrap();
    let empty = OpenStore::open(state.path(), 0, &index()).err().unwrap();

    assert!(matches!(gone, OpenStoreError::Missing { .. }) && matches!(empty, OpenStoreError::Missing { .. }), "{gone}, {empty}");
    assert!(gone.to_string().contains("restore the store from a backup, or move that directory away"), "{gone}");
    assert!(segments.read(call(1), &envelope).is_ok());
    std::fs::rename(state.path().join("audio"), state.path().join("moved")).unwrap();
    assert!(OpenStore::open(state.path(), 0, &index()).is_ok());
}

#[test]
fn a_start_that_was_cut_off_while_it_made_the_store_makes_it_at_the_next() {
    let state = tempfile::tempdir().unwrap();
    // As redb leaves a database that it was making, all but the first bytes that name it.
    std::fs::write(state.path().join("store.redb.part"), vec![0; 1 << 20]).unwrap();
    let store = open(state.path());
    let slot = Slot::queue(1);
    assert_eq!(store.commit(Batch::new().put(slot.clone(), sealed(&slot, 1))).unwrap(), Outcome::Committed);
    assert!(!state.path().join("store.redb.part").exists());
}

#[test]
fn uploads_that_were_cut_off_do_not_keep_a_new_store_from_being_made() {
    let state = tempfile::tempdir().unwrap();
    SegmentDirectory::open(state.path()).unwrap();
    std::fs::write(state.path().join("audio/00000000000000000000000000000000.part"), b"half").unwrap();
    assert!(OpenStore::open(state.path(), 0, &index()).is_ok());
}

#[test]
fn a_store_whose_writer_is_gone_is_not_open() {
    let state = tempfile::tempdir().unwrap();
    assert!(open(state.path()).is_open());
    let store = OpenStore::open(state.path(), 0, &index()).unwrap().start_with(|_, _| ()).unwrap();
    let started = std::time::Instant::now();
    while store.is_open() && started.elapsed().as_secs() < 30 {
        std::thread::yield_now();
    }
    assert!(!store.is_open());
    assert!(matches!(store.commit(Batch::new()), Err(StoreError::Closed)));
}

#[test]
fn a_value_that_was_moved_inside_the_store_does_not_open() {
    let state = tempfile::tempdir().unwrap();
    let store = open(state.path());
    let (from, to) = (Slot::queue(1), Slot::queue(2));
    let _ = store.commit(Batch::new().put(to.clone(), sealed(&from, 1))).unwrap();
    let read = store.get(&to).unwrap().unwrap();
    assert!(index().envelope().open_value::<u64>(&to, &read).is_err());
}

#[test]
fn newest_pages_stay_inside_their_prefix() {
    let state = tempfile::tempdir().unwrap();
    let store = open(state.path());
    let (mine, other) = (index().owner("a"), index().owner("b"));
    let entry = |batch: Batch, slot: Slot| batch.put(slot.clone(), sealed(&slot, 0));
    let batch = (1..=5).map(|job| Slot::by_owner(&mine, job)).chain((1..=5).map(|job| Slot::by_owner(&other, job)));
    let _ = store.commit(batch.fold(Batch::new(), entry)).unwrap();
    let page = store.view(|snapshot| snapshot.newest(Table::ByOwner, mine.as_bytes(), 5, 3)).unwrap();
    let jobs: Vec<u64> = page.iter().map(|(slot, _)| slot.job().unwrap()).collect();
    assert_eq!(jobs, [4, 3, 2]);
    assert!(page.iter().all(|(slot, _)| slot.key().starts_with(mine.as_bytes())));
}

pub(super) const WRITE_UNTIL_KILLED: &str = "SALAMA_TEST_WRITE_UNTIL_KILLED";

/// Not a rule but the process of the next test: with the variable set it commits for ever and says what was acknowledged.
#[test]
fn process_that_writes_until_it_is_killed() {
    let Some(state) = std::env::var_os(WRITE_UNTIL_KILLED) else { return };
    let store = open(Path::new(&state));
    let first = store.view(|snapshot| snapshot.newest(Table::Queue, &[], u64::MAX, 1)).unwrap();
    let first = first.first().and_then(|(slot, _)| slot.job()).map_or(0, |job| job + 1);
    let next = Arc::new(std::sync::atomic::AtomicU64::new(first));
    let writers: Vec<_> = (0..4)
        .map(|_| {
            let (store, next) = (store.clone(), Arc::clone(&next));
            std::thread::spawn(move || {
                loop {
                    let job = next.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
                    let slot = Slot::queue(job);
                    let _ = store.commit(Batch::new().put(slot.clone(), sealed(&slot, job))).unwrap();
                    let line = format!("\nacknowledged {job}\n");
                    nix::unistd::write(std::io::stdout(), line.as_bytes()).unwrap();
                }
            })
        })
        .collect();
    writers.into_iter().for_each(|writer| writer.join().unwrap());
}

#[test]
fn a_kill_in_the_middle_of_commits_loses_nothing_acknowledged() {
    let state = tempfile::tempdir().unwrap();
    for round in 0..3 {
        let mut writer = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "record::tests::process_that_writes_until_it_is_killed", "--nocapture"])
            .env(WRITE_UNTIL_KILLED, state.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let lines = BufReader::new(writer.stdout.take().unwrap()).lines().map_while(Result::ok);
        let mut acknowledged = lines.filter_map(|line| line.strip_prefix("acknowledged ").and_then(|job| job.parse::<u64>().ok()));
        let mut jobs: Vec<u64> = acknowledged.by_ref().take(60 + 17 * round).collect();
        writer.kill().unwrap();
        jobs.extend(acknowledged);
        writer.wait().unwrap();
        let store = open(state.path());
        assert!(jobs.len() >= 60);
        for job in jobs {
            let slot = Slot::queue(job);
            let read = store.get(&slot).unwrap().unwrap_or_else(|| panic!("job {job} was acknowledged and is lost"));
            assert_eq!(index().envelope().open_value::<u64>(&slot, &read).unwrap(), job);
        }
    }
}

/// Stores values of `bytes` until the disk is full. Returns how many fitted, and the error.
fn fill(store: &Store, first: u64, bytes: usize) -> (u64, StoreError) {
    let large = vec![0_u8; bytes];
    for number in first.. {
        let slot = Slot::of_call(Table::Header, call(number));
        let value = index().envelope().seal(&slot, &large).unwrap();
        if let Err(error) = store.commit(Batch::new().put(slot, value)) {
            return (number, error);
        }
    }
    unreachable!("the disk is finite")
}

/// Deletes every second of many small records, which rewrites nearly all pages of their table: the room that takes is not there.
fn wide_deletion() -> Batch {
    (0..SMALL).step_by(2).fold(Batch::new(), |batch, job| batch.delete(Slot::queue(job)))
}

const SMALL: u64 = 6_000;

#[test]
fn a_full_disk_refuses_writes_keeps_everything_and_still_lets_erasures_through() {
    let disk = SmallDisk::mount(64);
    let state = disk.path();
    let segments = SegmentDirectory::open(state).unwrap();
    let store = OpenStore::open(state, 16 << 20, &index()).unwrap().start().unwrap();
    let small = |job| index().envelope().seal(&Slot::queue(job), &[0; 1000]).unwrap();
    let records = (0..SMALL).fold(Batch::new(), |batch, job| batch.put(Slot::queue(job), small(job)));
    assert_eq!(store.commit(records).unwrap(), Outcome::Committed);
    let (stored, error) = fill(&store, 0, 200_000);
    assert!(matches!(error, StoreError::Full), "{error}");
    assert!(stored > 10 && store.has_ballast());
    std::fs::write(state.join("filler"), vec![0_u8; 64 << 20]).unwrap_err();
    assert!(!space::Space::new(state, 1 << 20).admits(0));
    let (stored, _) = fill(&store, stored, 3_000);
    // Nothing is lost, readers go on.
    for number in 0..stored {
        assert!(store.get(&Slot::of_call(Table::Header, call(number))).unwrap().is_some(), "{number}");
    }
    // A deletion that is no erasure is refused, without harm; the same as an erasure gets the ballast.
    let plain = store.commit(wide_deletion());
    assert!(matches!(plain, Err(StoreError::Full)), "{plain:?}");
    assert!(store.get(&Slot::queue(0)).unwrap().is_some() && store.has_ballast());
    assert_eq!(store.commit(wide_deletion().freeing()).unwrap(), Outcome::Committed);
    assert!(store.get(&Slot::queue(0)).unwrap().is_none() && !store.has_ballast());
    assert_eq!(erasure::erase(&store, &segments, call(0), Batch::new(), []).unwrap(), Outcome::Committed);
    drop(store);
    let store = open(state);
    assert!(store.get(&Slot::queue(1)).unwrap().is_some() && store.get(&Slot::queue(0)).unwrap().is_none());
}

#[test]
fn the_ballast_is_taken_back_when_there_is_room_again() {
    let disk = SmallDisk::mount(24);
    let state = disk.path();
    std::fs::write(state.join("filler"), vec![0_u8; 23 << 20]).unwrap();
    let store = OpenStore::open(state, 4 << 20, &index()).map(|open| open.start().unwrap());
    let store = store.unwrap();
    assert!(!store.has_ballast());
    std::fs::remove_file(state.join("filler")).unwrap();
    assert!(store.restore_ballast());
}

#[test]
fn a_recording_that_meets_a_full_disk_at_any_page_is_refused_and_leaves_no_file() {
    const PAGE: u64 = 4096;
    let disk = SmallDisk::mount(2);
    let segments = SegmentDirectory::open(disk.path()).unwrap();
    let envelope = Envelope::of_call(Secret::try_fill(|_| Ok::<(), ()>(())).unwrap());
    let recording = [7; 300_000];
    let write = |number| {
        let mut writer = segments.create(call(number), &envelope)?;
        recording.chunks(30_000).try_for_each(|piece| writer.push(piece))?;
        writer.finish()
    };
    let pages = 300_000_u64.div_ceil(PAGE);
    for free in 0..pages + 4 {
        disk.fill(free * PAGE);
        let written = write(free);
        let expected = if free < pages { 0 } else { 1 };
        assert!(written.is_ok() == (expected == 1) && !matches!(&written, Err(error) if !matches!(error, SegmentError::Full(_))), "{free}");
        assert_eq!(std::fs::read_dir(disk.path().join("audio")).unwrap().count(), expected, "{free}");
        segments.remove(call(free)).unwrap();
        disk.relieve();
    }
    assert!(write(1000).is_ok());
}

#[test]
fn an_erasure_that_a_crash_cut_short_is_finished_by_the_sweep() {
    let state = tempfile::tempdir().unwrap();
    let (store, segments) = (open(state.path()), SegmentDirectory::open(state.path()).unwrap());
    let envelope = Envelope::of_call(Secret::try_fill(|_| Ok::<(), ()>(())).unwrap());
    for number in [1, 2] {
        let mut writer = segments.create(call(number), &envelope).unwrap();
        writer.push(b"recording").unwrap();
        writer.finish().unwrap();
        let slot = Slot::of_call(Table::Header, call(number));
        let _ = store.commit(Batch::new().put(slot.clone(), sealed(&slot, number))).unwrap();
    }
    // The commit of an erasure, and then the crash before the file goes.
    let _ = store.commit(Batch::new().delete(Slot::of_call(Table::Header, call(1)))).unwrap();
    assert_eq!(erasure::sweep(&store, &segments).unwrap(), 1);
    assert!(segments.read(call(2), &envelope).is_ok());
    assert!(segments.read(call(1), &envelope).is_err());
}
