//! Recordings that are read back, and every way in which a disk may change them.
//! Trusts: nothing.
//! Touches: temporary directories.
//! Next: nobody.

use std::thread;

use proptest::prelude::*;

use super::block::CHUNKS;
use super::*;
use crate::record::small_disk::SmallDisk;

const CALL: CallId = CallId::from_bytes([1; 16]);
const OTHER: CallId = CallId::from_bytes([2; 16]);

fn envelope() -> Envelope {
    Envelope::of_call(Secret::try_fill(|_| Ok::<(), ()>(())).unwrap())
}

fn recording(len: usize) -> Vec<u8> {
    (0..len).map(|at| u8::try_from((at * 31 + at / 251) % 256).unwrap()).collect()
}

fn written(directory: &SegmentDirectory, call: CallId, content: &[u8]) {
    let mut writer = directory.create(call, &envelope()).unwrap();
    content.chunks(10_000).for_each(|piece| writer.push(piece).unwrap());
    assert_eq!(writer.finish().unwrap(), wide(content.len()));
}

fn sealed(directory: &SegmentDirectory, call: CallId) -> Vec<u8> {
    fs::read(directory.file(call, FINISHED)).unwrap()
}

fn replace(directory: &SegmentDirectory, call: CallId, bytes: &[u8]) {
    fs::write(directory.file(call, FINISHED), bytes).unwrap();
}

fn read_all(directory: &SegmentDirectory, call: CallId) -> Result<Vec<u8>, SegmentError> {
    let mut reader = directory.read(call, &envelope())?;
    let len = usize::try_from(reader.bytes()).unwrap();
    reader.read_at(0, len)
}

#[test]
fn a_recording_is_read_back_at_every_border_of_a_chunk() {
    let state = tempfile::tempdir().unwrap();
    let directory = SegmentDirectory::open(state.path()).unwrap();
    let block = CHUNKS * CHUNK;
    for len in [1, CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK, 3 * CHUNK - 7, block - 1, block, block + 1, 2 * block, 2 * block + CHUNK + 1] {
        let content = recording(len);
        written(&directory, CALL, &content);
        assert_eq!(read_all(&directory, CALL).unwrap(), content, "{len}");
        directory.remove(CALL).unwrap();
    }
}

/// All of the recording's pieces but its last, in order, and the writer.
fn pieces(directory: &SegmentDirectory, content: &[u8]) -> (SegmentWriter, Vec<Piece>) {
    let mut writer = directory.create(CALL, &envelope()).unwrap();
    let (mut left, mut pieces) = (content, Vec::new());
    loop {
        left = left.split_at(writer.take(left)).1;
        if left.is_empty() {
            return (writer, pieces);
        }
        pieces.push(writer.piece().unwrap());
    }
}

#[test]
fn pieces_that_are_written_beside_each_other_make_one_recording() {
    let state = tempfile::tempdir().unwrap();
    let directory = SegmentDirectory::open(state.path()).unwrap();
    let content = recording(5 * CHUNKS * CHUNK + 1000);
    let (writer, pieces) = pieces(&directory, &content);
    thread::scope(|scope| {
        let written: Vec<_> = pieces.into_iter().map(|piece| scope.spawn(|| piece.write())).collect();
        assert_eq!(written.into_iter().filter_map(|piece| piece.join().unwrap().ok()).count(), 5);
    });
    assert_eq!(writer.finish().unwrap(), wide(content.len()));
    assert!(read_all(&directory, CALL).unwrap() == content);
}

#[test]
fn a_recording_with_a_piece_that_was_not_written_cannot_be_finished() {
    let state = tempfile::tempdir().unwrap();
    let directory = SegmentDirectory::open(state.path()).unwrap();
    for lost in 0..3 {
        let (writer, mut pieces) = pieces(&directory, &recording(3 * CHUNKS * CHUNK + 1));
        drop(pieces.remove(lost));
        let written: Vec<bool> = pieces.into_iter().map(|piece| piece.write().is_ok()).collect();
        // What comes after a gap does not know what stands before it in the file.
        assert_eq!(written, (0..2).map(|piece| piece < lost).collect::<Vec<_>>());
        assert!(matches!(writer.finish(), Err(SegmentError::Gap)));
        assert_eq!(fs::read_dir(state.path().join("audio")).unwrap().count(), 0);
    }
}

#[test]
fn a_recording_with_a_piece_that_the_disk_refused_cannot_be_finished_though_there_is_room_again() {
    let disk = SmallDisk::mount(8);
    let directory = SegmentDirectory::open(disk.path()).unwrap();
    let (writer, mut pieces) = pieces(&directory, &recording(2 * CHUNKS * CHUNK + 1));
    disk.fill(wide(CHUNK));
    assert!(matches!(pieces.remove(0).write(), Err(SegmentError::Full(_))));
    disk.relieve();
    assert!(pieces.remove(0).write().is_ok(), "it knows what stands before it");
    assert!(matches!(writer.finish(), Err(SegmentError::Gap)));
    assert_eq!(fs::read_dir(disk.path().join("audio")).unwrap().count(), 0);
}

#[test]
fn a_recording_whose_piece_is_under_way_cannot_be_finished() {
    let state = tempfile::tempdir().unwrap();
    let directory = SegmentDirectory::open(state.path()).unwrap();
    let (writer, pieces) = pieces(&directory, &recording(CHUNKS * CHUNK + 1));
    assert!(matches!(writer.finish(), Err(SegmentError::Gap)));
    drop(pieces);
    assert_eq!(fs::read_dir(state.path().join("audio")).unwrap().count(), 0);
}

#[test]
fn a_file_system_that_must_be_written_through_its_cache_is() {
    let disk = SmallDisk::without_direct_writes();
    let directory = SegmentDirectory::open(disk.path()).unwrap();
    let content = recording(40 * CHUNKS * CHUNK + 1000);
    written(&directory, CALL, &content);
    assert!(read_all(&directory, CALL).unwrap() == content);
}

#[test]
fn a_disk_that_asks_for_more_than_our_alignment_is_written_through_the_cache() {
    let state = tempfile::tempdir().unwrap();
    let directory = SegmentDirectory::open(state.path()).unwrap();
    let file = PartialFile::create(&directory, CALL).unwrap();
    // Less than our own, which is as bad to the kernel.
    file.write(&[b'a'; 5000], 3).unwrap();
    file.keep(&[b'b'; 4096], b"end", 8192, SegmentDirectory::sync).unwrap();
    let expected = [&[0; 3][..], &[b'a'; 5000], &[0; 8192 - 5003], &[b'b'; 4096], b"end"].concat();
    assert!(sealed(&directory, CALL) == expected);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]
    #[test]
    fn any_stretch_is_read_as_it_was_written(offset in 0_usize..200_000, len in 0_usize..100_000) {
        let state = tempfile::tempdir().unwrap();
        let directory = SegmentDirectory::open(state.path()).unwrap();
        let content = recording(150_000);
        written(&directory, CALL, &content);
        let got = directory.read(CALL, &envelope()).unwrap().read_at(wide(offset), len).unwrap();
        let from = offset.min(content.len());
        prop_assert_eq!(got, &content[from..content.len().min(from + len)]);
    }

    #[test]
    fn a_changed_bit_anywhere_is_noticed(position: prop::sample::Index, bit in 0_u8..8) {
        let state = tempfile::tempdir().unwrap();
        let directory = SegmentDirectory::open(state.path()).unwrap();
        written(&directory, CALL, &recording(150_000));
        let mut bytes = sealed(&directory, CALL);
        let at = position.index(bytes.len());
        bytes[at] ^= 1 << bit;
        replace(&directory, CALL, &bytes);
        prop_assert!(read_all(&directory, CALL).is_err());
    }

    #[test]
    fn a_truncated_recording_is_noticed_when_it_is_opened(keep: prop::sample::Index) {
        let state = tempfile::tempdir().unwrap();
        let directory = SegmentDirectory::open(state.path()).unwrap();
        written(&directory, CALL, &recording(150_000));
        let bytes = sealed(&directory, CALL);
        replace(&directory, CALL, &bytes[..keep.index(bytes.len())]);
        prop_assert!(directory.read(CALL, &envelope()).is_err());
    }
}

#[test]
fn a_recording_cut_at_a_chunks_border_is_noticed() {
    let state = tempfile::tempdir().unwrap();
    let directory = SegmentDirectory::open(state.path()).unwrap();
    written(&directory, CALL, &recording(3 * CHUNK));
    let bytes = sealed(&directory, CALL);
    replace(&directory, CALL, &bytes[..HEADER + 2 * (CHUNK + TAG)]);
    assert!(matches!(directory.read(CALL, &envelope()), Err(SegmentError::Forged)));
}

#[test]
fn a_file_system_that_fails_is_no_forgery() {
    let state = tempfile::tempdir().unwrap();
    let directory = SegmentDirectory::open(state.path()).unwrap();
    // A directory opens as a file does and cannot be read.
    fs::create_dir(directory.file(CALL, FINISHED)).unwrap();
    let (failed, absent) = (directory.read(CALL, &envelope()).err().unwrap(), directory.read(OTHER, &envelope()).err().unwrap());
    assert!(matches!(failed, SegmentError::Io { .. }) && failed.may_pass(), "{failed}");
    assert!(matches!(absent, SegmentError::Io { .. }) && !absent.may_pass(), "{absent}");
    assert!(!SegmentError::Forged.may_pass());
}

#[test]
fn chunks_that_changed_places_are_noticed() {
    let state = tempfile::tempdir().unwrap();
    let directory = SegmentDirectory::open(state.path()).unwrap();
    written(&directory, CALL, &recording(3 * CHUNK));
    let bytes = sealed(&directory, CALL);
    let chunk = |number: usize| &bytes[HEADER + number * (CHUNK + TAG)..HEADER + (number + 1) * (CHUNK + TAG)];
    replace(&directory, CALL, &[&bytes[..HEADER], chunk(1), chunk(0), chunk(2)].concat());
    assert!(matches!(read_all(&directory, CALL), Err(SegmentError::Forged)));
}

#[test]
fn another_calls_recording_is_noticed() {
    let state = tempfile::tempdir().unwrap();
    let directory = SegmentDirectory::open(state.path()).unwrap();
    written(&directory, CALL, &recording(100));
    fs::rename(directory.file(CALL, FINISHED), directory.file(OTHER, FINISHED)).unwrap();
    assert!(matches!(directory.read(OTHER, &envelope()), Err(SegmentError::Forged)));
}

#[test]
fn an_appended_chunk_is_noticed() {
    let state = tempfile::tempdir().unwrap();
    let directory = SegmentDirectory::open(state.path()).unwrap();
    written(&directory, CALL, &recording(CHUNK));
    let bytes = sealed(&directory, CALL);
    replace(&directory, CALL, &[&bytes[..], &bytes[HEADER..]].concat());
    assert!(matches!(directory.read(CALL, &envelope()), Err(SegmentError::Forged)));
}

#[test]
fn an_upload_that_was_dropped_leaves_no_file() {
    let state = tempfile::tempdir().unwrap();
    let directory = SegmentDirectory::open(state.path()).unwrap();
    let mut writer = directory.create(CALL, &envelope()).unwrap();
    writer.push(&recording(200_000)).unwrap();
    drop(writer);
    assert_eq!(fs::read_dir(state.path().join("audio")).unwrap().count(), 0);
}

#[test]
fn a_recording_whose_name_is_not_durable_leaves_no_file() {
    let state = tempfile::tempdir().unwrap();
    let directory = SegmentDirectory::open(state.path()).unwrap();
    let mut writer = directory.create(CALL, &envelope()).unwrap();
    writer.push(&recording(200_000)).unwrap();
    let finished = writer.finish_with(|directory| {
        assert!(directory.file(CALL, FINISHED).exists());
        Err(SegmentError::io("sync directory")(io::Error::from_raw_os_error(libc::EIO)))
    });
    assert!(matches!(finished, Err(SegmentError::Io { step: "sync directory", .. })));
    assert_eq!(fs::read_dir(state.path().join("audio")).unwrap().count(), 0);
}

#[test]
fn the_plaintext_is_never_on_disk() {
    let state = tempfile::tempdir().unwrap();
    let directory = SegmentDirectory::open(state.path()).unwrap();
    let mut writer = directory.create(CALL, &envelope()).unwrap();
    writer.push(&vec![b'A'; 3 * CHUNKS * CHUNK]).unwrap();
    let half_way = fs::read(directory.file(CALL, PARTIAL)).unwrap();
    assert!(half_way.len() > CHUNKS * CHUNK);
    writer.finish().unwrap();
    for bytes in [half_way, sealed(&directory, CALL)] {
        assert!(!bytes.windows(16).any(|window| window == [b'A'; 16]));
    }
}

#[test]
fn a_sweep_keeps_known_recordings_and_nothing_else() {
    let state = tempfile::tempdir().unwrap();
    let directory = SegmentDirectory::open(state.path()).unwrap();
    written(&directory, CALL, &recording(10));
    written(&directory, OTHER, &recording(10));
    fs::write(directory.file(CALL, PARTIAL), b"cut off").unwrap();
    fs::write(state.path().join("audio/stray"), b"?").unwrap();
    assert_eq!(directory.sweep(|call| call == CALL).unwrap(), 3);
    assert!(read_all(&directory, CALL).is_ok());
    assert!(directory.read(OTHER, &envelope()).is_err());
}
