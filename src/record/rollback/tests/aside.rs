//! Recordings of calls that a store does not know: put aside with leave, back with the store that knows them, gone with an erasure.
//! Trusts: nothing.
//! Touches: temporary directories.
//! Next: nobody.

use std::os::unix::fs::PermissionsExt as _;

use super::*;
use crate::record::segments::SegmentError;
use crate::record::store::OpenStore;

/// A state directory after `older` had call 1, and `newest` calls 1 to 4; the box has counted to 2.
struct Office {
    state: tempfile::TempDir,
    older: Vec<u8>,
    newest: Vec<u8>,
}

impl Office {
    fn new() -> Self {
        let state = tempfile::tempdir().unwrap();
        let path = state.path().join(FILE);
        stored(state.path(), first_at(0), &[1]);
        let older = fs::read(&path).unwrap();
        stored(state.path(), at(1), &[2, 3, 4]);
        let newest = fs::read(&path).unwrap();
        Self { state, older, newest }
    }

    /// As [`Self::new`], and the older store was taken with leave, which put the recordings of calls 2 to 4 aside at count 2.
    fn after_leave() -> Self {
        let office = Self::new();
        office.put_back(&office.older);
        assert!(matches!(started(office.state.path(), leave_at(2)), Ok(TakenUp::WithLeave { .. })));
        assert_eq!((office.audio(), office.aside(2)), (numbers(&[1]), Some(numbers(&[2, 3, 4]))));
        office
    }

    /// Somebody puts a database alone in the place of the store.
    fn put_back(&self, database: &[u8]) {
        fs::write(self.state.path().join(FILE), database).unwrap();
    }

    fn audio(&self) -> Vec<String> {
        names(&self.state.path().join("audio")).unwrap()
    }

    fn aside(&self, count: u64) -> Option<Vec<String>> {
        names(&self.aside_directory(count))
    }

    fn aside_directory(&self, count: u64) -> PathBuf {
        self.state.path().join(format!("audio.rollback-{count}"))
    }

    fn store(&self) -> (Store, SegmentDirectory) {
        let store = OpenStore::open(self.state.path(), 0, &index()).unwrap().start().unwrap();
        (store, SegmentDirectory::open(self.state.path()).unwrap())
    }
}

/// A start, and these calls with their recordings.
fn stored(state: &Path, counter: Counter, calls: &[u64]) {
    started(state, counter).unwrap();
    let store = OpenStore::open(state, 0, &index()).unwrap().start().unwrap();
    for number in calls {
        let slot = Slot::of_call(Table::Header, call(*number));
        assert_eq!(store.commit(Batch::new().put(slot.clone(), sealed(&slot, 1))).unwrap(), Outcome::Committed);
        recorded(&SegmentDirectory::open(state).unwrap(), *number);
    }
}

fn recorded(segments: &SegmentDirectory, number: u64) {
    let mut writer = segments.create(call(number), index().envelope()).unwrap();
    writer.push(b"recording").unwrap();
    writer.finish().unwrap();
}

fn names(directory: &Path) -> Option<Vec<String>> {
    let entries = fs::read_dir(directory).ok()?;
    let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    Some(names)
}

fn numbers(calls: &[u64]) -> Vec<String> {
    let mut names: Vec<_> = calls.iter().map(|number| format!("{}.seg", call(*number))).collect();
    names.sort();
    names
}

#[test]
fn recordings_that_came_since_are_put_aside_when_an_older_store_is_taken() {
    let office = Office::after_leave();
    let (store, segments) = office.store();
    assert_eq!(erasure::sweep(&store, &segments).unwrap(), 0, "nothing is left to sweep");
    assert_ne!(fs::read(office.state.path().join(FILE)).unwrap(), office.newest);
    // With the first erasure they go, as the copy does.
    assert_eq!(erasure::erase(&store, &segments, call(1), Batch::new(), []).unwrap(), Outcome::Committed);
    assert_eq!(office.aside(2), None);
}

#[test]
fn recordings_that_were_put_aside_come_back_with_the_newest_store_and_an_erasure_of_another_call_leaves_them() {
    let office = Office::after_leave();
    // What comes meanwhile is the older store's alone.
    let (store, segments) = office.store();
    let slot = Slot::of_call(Table::Header, call(9));
    assert_eq!(store.commit(Batch::new().put(slot.clone(), sealed(&slot, 1))).unwrap(), Outcome::Committed);
    recorded(&segments, 9);
    drop(store);

    office.put_back(&office.newest);
    assert!(matches!(started(office.state.path(), at(3)), Err(TakeUpError::Older { .. })));
    assert_eq!(office.aside(2), Some(numbers(&[2, 3, 4])), "a store that is refused gets nothing back");
    assert!(matches!(started(office.state.path(), leave_at(3)), Ok(TakenUp::WithLeave { .. })));
    assert_eq!((office.audio(), office.aside(2), office.aside(3)), (numbers(&[1, 2, 3, 4]), None, Some(numbers(&[9]))));
    let (store, segments) = office.store();
    assert_eq!(erasure::sweep(&store, &segments).unwrap(), 0);
    for number in 1..=4 {
        let recording = segments.read(call(number), index().envelope()).unwrap().read_at(0, 100).unwrap();
        assert_eq!(*recording, *b"recording");
    }

    assert_eq!(erasure::erase(&store, &segments, call(1), Batch::new(), []).unwrap(), Outcome::Committed);
    assert_eq!((office.audio(), office.aside(3)), (numbers(&[2, 3, 4]), None));
    assert_eq!(erasure::erase(&store, &segments, call(2), Batch::new(), []).unwrap(), Outcome::Committed);
    assert_eq!(office.audio(), numbers(&[3, 4]));
}

#[test]
fn a_start_that_was_cut_off_while_recordings_came_back_is_made_up_by_the_next_with_leave_or_without() {
    // Each recording goes by itself: any of them may be back, and the directory may be left empty.
    for (back, leave) in (0..8).flat_map(|back| [(back, true), (back, false)]) {
        let office = Office::after_leave();
        office.put_back(&office.newest);
        for name in numbers(&[2, 3, 4]).iter().enumerate().filter(|(bit, _)| back >> bit & 1 == 1).map(|(_, name)| name) {
            fs::rename(office.aside_directory(2).join(name), office.state.path().join("audio").join(name)).unwrap();
        }
        // Without leave, where the TPM has not counted since.
        let counter = if leave { leave_at(3) } else { at(2) };
        started(office.state.path(), counter).unwrap();
        assert_eq!((office.audio(), office.aside(2)), (numbers(&[1, 2, 3, 4]), None), "{back:b} {leave}");
    }
}

#[test]
fn recordings_that_cannot_come_back_hinder_the_start_before_it_is_counted_and_the_next_one_goes_on() {
    let office = Office::after_leave();
    office.put_back(&office.newest);
    let (audio, away) = (office.state.path().join("audio"), office.state.path().join("away"));
    fs::rename(&audio, &away).unwrap();
    fs::write(&audio, b"no directory").unwrap();
    let store = OpenStore::open(office.state.path(), 0, &index()).unwrap();
    let hindered = store.take_up(&index(), at(2), |_| (), |_| -> Result<Counted, Infallible> { panic!("counted") }).unwrap_err();
    drop(store);
    assert!(matches!(hindered, TakeUpError::Back { .. }) && !hindered.is_refusal(), "{hindered}");
    assert!(hindered.to_string().contains("audio.rollback-COUNT"), "{hindered}");
    fs::remove_file(&audio).unwrap();
    fs::rename(&away, &audio).unwrap();
    assert_eq!(office.aside(2), Some(numbers(&[2, 3, 4])));
    // The TPM fails once they are back.
    let store = OpenStore::open(office.state.path(), 0, &index()).unwrap();
    let cut = store.take_up(&index(), at(2), |_| (), |_| Err::<Counted, _>(io::Error::other("no TPM"))).unwrap_err();
    drop(store);
    assert!(matches!(cut, TakeUpError::Count(_)), "{cut}");
    assert_eq!(started(office.state.path(), at(2)).unwrap(), TakenUp::Newest);
    assert_eq!((office.audio(), office.aside(2)), (numbers(&[1, 2, 3, 4]), None));
}

#[test]
fn a_recording_that_is_there_is_never_overwritten_and_an_erasure_takes_both() {
    let office = Office::after_leave();
    office.put_back(&office.newest);
    let name = &numbers(&[2])[0];
    fs::write(office.state.path().join("audio").join(name), b"another").unwrap();
    started(office.state.path(), leave_at(3)).unwrap();
    assert_eq!(fs::read(office.state.path().join("audio").join(name)).unwrap(), b"another");
    assert_eq!((office.audio(), office.aside(2)), (numbers(&[1, 2, 3, 4]), Some(numbers(&[2]))));
    let (store, segments) = office.store();
    assert_eq!(erasure::erase(&store, &segments, call(2), Batch::new(), []).unwrap(), Outcome::Committed);
    assert_eq!((office.audio(), office.aside(2)), (numbers(&[1, 3, 4]), None));
    assert!(matches!(segments.read(call(2), index().envelope()), Err(SegmentError::Io { .. })));
}

/// Twice an older store: what the newest knows comes back from wherever it lies.
#[test]
fn recordings_come_back_from_every_time_that_they_were_put_aside() {
    let office = Office::after_leave();
    let name = &numbers(&[3])[0];
    fs::rename(office.aside_directory(2).join(name), office.state.path().join("audio").join(name)).unwrap();
    started(office.state.path(), leave_at(5)).unwrap();
    assert_eq!((office.audio(), office.aside(2), office.aside(5)), (numbers(&[1]), Some(numbers(&[2, 4])), Some(numbers(&[3]))));
    office.put_back(&office.newest);
    started(office.state.path(), leave_at(6)).unwrap();
    assert_eq!((office.audio(), office.aside(2), office.aside(5)), (numbers(&[1, 2, 3, 4]), None, None));
    assert!(office.aside(6).is_none());
}

/// The call is erased, and its recording is back: the power went before the file did.
fn erased_but_for_its_recording(office: &Office, number: u64) {
    let (store, segments) = office.store();
    let kept = Slot::erasure(call(number));
    let batch = Batch::new().put(kept.clone(), sealed(&kept, 1));
    assert_eq!(erasure::erase(&store, &segments, call(number), batch, []).unwrap(), Outcome::Committed);
    recorded(&segments, number);
}

#[test]
fn a_recording_that_an_erasure_left_is_removed_and_not_put_aside() {
    let office = Office::new();
    erased_but_for_its_recording(&office, 2);
    // Another TPM.
    started(office.state.path(), leave_at(1)).unwrap();
    assert_eq!((office.audio(), office.aside(1)), (numbers(&[1, 3, 4]), None));
}

#[test]
fn a_recording_that_was_put_aside_is_removed_by_the_newest_store_when_that_erased_its_call() {
    let office = Office::new();
    erased_but_for_its_recording(&office, 2);
    let newest = fs::read(office.state.path().join(FILE)).unwrap();
    office.put_back(&office.older);
    started(office.state.path(), leave_at(2)).unwrap();
    assert_eq!(office.aside(2), Some(numbers(&[2, 3, 4])), "the older store does not know that it is erased");
    office.put_back(&newest);
    started(office.state.path(), leave_at(3)).unwrap();
    assert_eq!((office.audio(), office.aside(2), office.aside(3)), (numbers(&[1, 3, 4]), None, None));
}

/// Whoever can write the disk has no key.
#[test]
fn a_row_that_says_erased_and_does_not_open_removes_no_recording() {
    let office = Office::new();
    office.put_back(&office.older);
    let (store, _) = office.store();
    let forged = sealed(&Slot::erasure(call(3)), 1);
    assert_eq!(store.commit(Batch::new().put(Slot::erasure(call(2)), forged)).unwrap(), Outcome::Committed);
    drop(store);
    started(office.state.path(), leave_at(2)).unwrap();
    assert_eq!(office.aside(2), Some(numbers(&[2, 3, 4])));
}

/// Does it as somebody who may read and write no more than everybody: nothing in a directory of [`shut`].
fn as_anybody<T: Send>(what: impl FnOnce() -> T + Send) -> T {
    let anybody = || {
        // Of this thread alone.
        nix::unistd::setfsuid(nix::unistd::Uid::from_raw(65_534));
        what()
    };
    std::thread::scope(|threads| threads.spawn(anybody).join().unwrap())
}

fn shut(directory: &Path, shut: bool) {
    fs::set_permissions(directory, fs::Permissions::from_mode(if shut { 0 } else { 0o755 })).unwrap();
}

#[test]
fn nothing_is_erased_while_a_directory_of_recordings_that_were_put_aside_cannot_be_removed() {
    let office = Office::after_leave();
    let (store, segments) = office.store();
    let aside = office.aside_directory(2);
    fs::remove_file(kept_copy(&office.state.path().join(FILE), 2)).unwrap();
    fs::set_permissions(office.state.path(), fs::Permissions::from_mode(0o755)).unwrap();
    shut(&aside, true);
    let before = store.commits();
    let left = as_anybody(|| erasure::erase(&store, &segments, call(1), Batch::new(), [])).unwrap_err();
    assert_eq!(store.commits(), before);
    let said = left.to_string();
    assert!(said.contains(&format!("{}, where recordings were put aside", aside.display())), "{said}");
    shut(&aside, false);
    assert_eq!(erasure::erase(&store, &segments, call(1), Batch::new(), []).unwrap(), Outcome::Committed);
    assert_eq!(office.aside(2), None);
}

#[test]
fn recordings_that_nobody_may_move_are_for_people_and_named() {
    let office = Office::after_leave();
    office.put_back(&office.newest);
    let aside = office.aside_directory(2);
    fs::set_permissions(office.state.path(), fs::Permissions::from_mode(0o755)).unwrap();
    shut(&aside, true);
    let store = OpenStore::open(office.state.path(), 0, &index()).unwrap();
    let hindered = as_anybody(|| store.take_up(&index(), at(2), |_| (), |_| -> Result<Counted, Infallible> { panic!("counted") }));
    let hindered = hindered.unwrap_err();
    assert!(matches!(hindered, TakeUpError::Back { .. }) && hindered.is_refusal(), "{hindered}");
    assert!(hindered.to_string().contains(&format!("{} cannot be listed", aside.display())), "{hindered}");
    shut(&aside, false);
}

/// Neither a file nor a directory of another name is ours, whatever its name begins with.
#[test]
fn only_directories_that_are_named_by_a_count_hold_recordings_that_were_put_aside() {
    let office = Office::after_leave();
    office.put_back(&office.newest);
    let others = ["audio.rollback-", "audio.rollback-02", "audio.rollback-+2", "audio.rollback-old", "audio.rollback-18446744073709551616"];
    for other in others {
        fs::create_dir(office.state.path().join(other)).unwrap();
        fs::write(office.state.path().join(other).join(&numbers(&[1])[0]), b"a person's").unwrap();
    }
    fs::write(office.aside_directory(3), b"a file").unwrap();
    started(office.state.path(), at(2)).unwrap();
    let (store, segments) = office.store();
    assert_eq!(erasure::erase(&store, &segments, call(1), Batch::new(), []).unwrap(), Outcome::Committed);
    for other in others {
        assert_eq!(names(&office.state.path().join(other)), Some(numbers(&[1])), "{other}");
    }
    drop(store);

    // One in the place of the directory that is to be made.
    office.put_back(&office.older);
    let store = OpenStore::open(office.state.path(), 0, &index()).unwrap();
    let hindered = store.take_up(&index(), leave_at(3), |_| (), |_| -> Result<Counted, Infallible> { panic!("counted") }).unwrap_err();
    assert!(matches!(hindered, TakeUpError::Aside { .. }) && !hindered.is_refusal(), "{hindered}");
    assert!(hindered.to_string().contains("audio.rollback-3"), "{hindered}");
}
