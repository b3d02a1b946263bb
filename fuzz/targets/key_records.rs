//! The small files beside the keyslots: `keeper::{ledger, rollback, unfinished, limits}`.
//! Trusts: nothing of the disk.
//! Touches: a temporary directory, once.
//! Next: the keeper's start goes by what was read.

use std::fs;
use std::sync::OnceLock;
use std::time::Duration;

use salama::ipc::keeper::Leave;
use salama::ipc::key_log::Series;

use super::key_files::{SUM, file_of, seeds_of, with_checksum};
use super::{Target, edited, scripts, secret};
use crate::keeper::container::MacKey;
use crate::keeper::ledger::{self, Alone, Ledger, Machine, Page, USES};
use crate::keeper::limits::{Limit, Limits};
use crate::keeper::replace::OpenDirectory;
use crate::keeper::rollback;
use crate::keeper::tpm::StorageRoot;
use crate::keeper::unfinished::Note;

/// What outlives a start (`uses`, `issued`). First byte 0: the file. 1: the body of its first half, with length and checksum. Else: a script
/// that bends one half of a genuine file and repairs its checksum.
pub const LEDGER: Target = Target { name: "ledger", run: ledger, seeds: ledger_seeds, memory: 512 << 10, longest: 16_384, ..BASE };
/// The leave to take an older store. First byte 0: the file. 1: the same, with a checksum that is right. Else: a script.
pub const LEAVE: Target = Target { name: "leave", run: leave, seeds: leave_seeds, ..BASE };
/// As [`LEAVE`], the note of a set-up.
pub const NOTE: Target = Target { name: "set_up_note", run: note, seeds: note_seeds, ..BASE };
/// `limits.toml`.
pub const LIMITS: Target = Target {
    name: "key_limits",
    run: limits,
    seeds: limits_seeds,
    words: &[
        b"[new]",
        b"[job]",
        b"[start]",
        b"[erasure]",
        b"per_minute = ",
        b"per_hour = ",
        b"ceiling_per_hour = ",
        b"4294967296",
        b"-1",
        b"\n",
    ],
    memory: 1 << 20,
    ..BASE
};

const BASE: Target = Target {
    name: "",
    run: leave,
    seeds: Vec::new,
    corpus: "",
    words: &[b"salama uses    \n", b"salama rollback\n", b"salama set-up  \n", b"\x00\x01", b"\xff\xff\xff\xff\x0f"],
    memory: 256 << 10,
    longest: 2048,
    smoke: 8000,
};

const HALF: usize = 8 * 1024;

fn mac() -> MacKey {
    MacKey::new(&secret(7))
}

/// A file of two pages, and what they say, older first.
fn genuine_ledger() -> &'static (Vec<u8>, [Page; 2]) {
    static FILE: OnceLock<(Vec<u8>, [Page; 2])> = OnceLock::new();
    FILE.get_or_init(|| {
        let place = tempfile::tempdir().unwrap();
        let machine = Machine::look(Duration::ZERO).unwrap();
        let alone = Alone::take(&OpenDirectory::open(place.path()).unwrap(), Series::Daemon).unwrap();
        let (mut file, _) = Ledger::open(alone, mac(), machine).unwrap();
        let read = || fs::read(place.path().join(USES)).unwrap();
        file.begin([1; 16]).unwrap();
        let first = ledger::newest(&read(), &mac()).unwrap();
        file.save(9, Vec::new(), Duration::ZERO).unwrap();
        (read(), [first, ledger::newest(&read(), &mac()).unwrap()])
    })
}

/// A half with this container.
fn half(container: &[u8]) -> Vec<u8> {
    let mut half = u32::try_from(container.len()).unwrap().to_be_bytes().to_vec();
    half.extend(container);
    half.resize(HALF.max(half.len()), 0);
    half
}

fn container_in(half: &[u8]) -> &[u8] {
    let (length, rest) = half.split_first_chunk().unwrap();
    &rest[..usize::try_from(u32::from_be_bytes(*length)).unwrap()]
}

/// Promise: of a file, however bent, nothing counts but a page that this box wrote.
fn ledger(data: &[u8]) {
    let (genuine, pages) = genuine_ledger();
    let file = match data.split_first() {
        Some((0, file)) => file.to_vec(),
        Some((1, body)) => half(&with_checksum(body.to_vec())),
        Some((kind, script)) => {
            // One half is bent, the other stays.
            let at = usize::from(kind % 2) * HALF;
            let container = container_in(&genuine[at..at + HALF]);
            let bent = half(&with_checksum(edited(&container[..container.len() - SUM], script)));
            let other = &genuine[HALF - at..][..HALF];
            if at == 0 { [&bent[..], other].concat() } else { [other, &bent[..]].concat() }
        }
        None => Vec::new(),
    };
    let read = ledger::newest(&file, &mac());
    assert!(read.is_none_or(|page| pages.contains(&page)), "a page that this box did not write");
}

fn ledger_seeds() -> Vec<Vec<u8>> {
    let (file, _) = genuine_ledger();
    let container = container_in(&file[..HALF]);
    let halves = scripts().into_iter().flat_map(|script| [2, 3].map(|kind| [&[kind], script.as_slice()].concat()));
    halves
        .chain([[&[0], &file[..]].concat(), [&[1], &container[..container.len() - SUM]].concat(), vec![0, 0xff, 0xff, 0xff, 0xff]])
        .collect()
}

fn genuine_leave() -> Vec<u8> {
    rollback::leave_file(&mac(), 7, Leave::Accepted).unwrap()
}

/// Promise: leave is the very one that this box gave, or none.
fn leave(data: &[u8]) {
    let genuine = genuine_leave();
    let file = file_of(data, &genuine);
    assert_eq!(rollback::read(&file, &mac()).is_some(), file == genuine, "a leave that this box did not give, or not the one that it gave");
}

fn leave_seeds() -> Vec<Vec<u8>> {
    seeds_of(&genuine_leave())
}

fn genuine_note() -> Vec<u8> {
    let storage_root = StorageRoot { name: vec![1; 34], handle: 0x8100_0001 };
    Note { storage_root, mark: [2; 32], places: vec![0x0181_5a00, 0x0181_5a80, 0x0181_5a81] }.write(&mac()).unwrap()
}

/// Promise: a note is read whole or not at all. It is not authenticated: what is done by it is bounded by the mark.
fn note(data: &[u8]) {
    let genuine = genuine_note();
    let file = file_of(data, &genuine);
    let Ok(read) = Note::read(&file) else {
        assert!(file != genuine, "the note that this box wrote is not read");
        return;
    };
    let again = Note::read(&read.write(&mac()).unwrap()).unwrap();
    assert_eq!(again, read, "a note does not read back");
}

fn note_seeds() -> Vec<Vec<u8>> {
    seeds_of(&genuine_note())
}

/// Promise: a text is refused, or no limit is nothing, and none is above the one of a longer time.
fn limits(data: &[u8]) {
    let Ok(read) = Limits::read(data) else { return };
    let Limits { new, job, read, handshake, certificate, grant, start, erasure, certify, rewrap, settle, verify } = read;
    for limit in [new, job, read, handshake, certificate, grant, start, erasure, certify, rewrap, settle, verify] {
        let Limit { per_minute, per_hour, ceiling_per_hour } = limit;
        assert!(per_minute > 0 && per_minute <= per_hour && per_hour <= ceiling_per_hour, "{limit:?}");
    }
    for opening in [job, read] {
        assert!(opening.per_minute <= 600 && opening.per_hour <= 6000 && opening.ceiling_per_hour <= 12_000, "{opening:?}");
    }
    assert!(start.per_hour <= 600 && erasure.per_hour <= 600, "{start:?} {erasure:?}");
}

fn limits_seeds() -> Vec<Vec<u8>> {
    vec![include_bytes!("../../config/limits.toml").to_vec(), b"[read]\nper_minute = 5\n".to_vec(), Vec::new()]
}
