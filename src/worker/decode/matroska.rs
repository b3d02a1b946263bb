//! What symphonia does not say of a WebM or Matroska file: whether it is whole, and whether anything in it is out of proportion.
//! Trusts: nothing; looks at a bounded number of elements and never past the one they are in.
//! Touches: nothing but the recording.
//! Next: `open` has symphonia read it.

use super::source::{Recording, TAGS_MAX, add_to};
use crate::ipc::worker::CallFailure;

/// Most elements that are looked at in one file: four hours of blocks of 10 ms in clusters without a length.
const ELEMENTS_MAX: u32 = 2_000_000;
/// Largest cluster: a minute, as long as a block's time can say, of 2 Mbit/s.
const CLUSTER_MAX: u64 = 16 * 1024 * 1024;
/// Largest block in a cluster without a length.
const BLOCK_MAX: u64 = 1024 * 1024;
/// Element ids (RFC 8794 section 11.3, RFC 9559 section 5.1).
const SEGMENT: u32 = 0x1853_8067;
const CLUSTER: u32 = 0x1f43_b675;
const VOID: u32 = 0xec;
/// What lies in the segment and never in a cluster: clusters, and the index at the beginning, information, tracks, cues, attachments,
/// chapters, tags.
const IN_SEGMENT: [u32; 8] = [CLUSTER, 0x114d_9b74, 0x1549_a966, 0x1654_ae6b, 0x1c53_bb6b, 0x1941_a469, 0x1043_a770, 0x1254_c367];

/// One element. Recorders that stream write no length for the segment and its clusters.
struct Element {
    id: u32,
    body: u64,
    end: Option<u64>,
}

/// Checks that the file, which begins at `start` with an EBML header, holds all that its lengths announce.
pub(super) fn inspect(recording: &mut Recording, start: u64) -> Result<(), CallFailure> {
    let whole = recording.len();
    let head = element(recording, start)?;
    let segment_at = head.end.filter(|end| end - start <= TAGS_MAX).ok_or(CallFailure::Damaged)?;
    let segment = element(recording, segment_at)?;
    if segment.id != SEGMENT {
        return Err(CallFailure::Damaged);
    }
    let end = segment.end.unwrap_or(whole);
    if end > whole {
        return Err(CallFailure::Truncated);
    }
    let (mut at, mut kept, mut streamed) = (segment.body, 0, false);
    for _ in 0..ELEMENTS_MAX {
        if at >= end {
            return Ok(());
        }
        let child = match element(recording, at) {
            // A recorder that streams may have been cut off anywhere.
            Err(CallFailure::Truncated) if streamed => return Ok(()),
            child => child?,
        };
        // A cluster without a length ends where something begins that lies beside it.
        streamed = if IN_SEGMENT.contains(&child.id) { child.id == CLUSTER && child.end.is_none() } else { streamed };
        let Some(child_end) = child.end else {
            if child.id != CLUSTER {
                return Err(CallFailure::Damaged);
            }
            at = child.body;
            continue;
        };
        let len = child_end - at;
        match child.id {
            VOID => {}
            _ if streamed => add_to(&mut 0, len, BLOCK_MAX)?,
            CLUSTER => add_to(&mut 0, len, CLUSTER_MAX)?,
            _ => add_to(&mut kept, len, TAGS_MAX)?,
        }
        if child_end > end {
            return if streamed { Ok(()) } else { Err(CallFailure::Truncated) };
        }
        at = child_end;
    }
    Err(CallFailure::Damaged)
}

/// Id and length of the element at `at`.
fn element(recording: &mut Recording, at: u64) -> Result<Element, CallFailure> {
    let (bytes, filled) = recording.peek::<12>(at)?;
    let [first, ..] = bytes;
    // Both are as long as their leading zero bits say; the id keeps its marker, the length does not.
    let id_len = usize::try_from(first.leading_zeros()).unwrap_or(8) + 1;
    let id = bytes.get(..id_len).filter(|_| id_len <= 4).ok_or(CallFailure::Damaged)?;
    let id = id.iter().fold(0, |id, byte| id << 8 | u32::from(*byte));
    let marker = bytes.get(id_len).copied().unwrap_or(0);
    let size_len = usize::try_from(marker.leading_zeros()).unwrap_or(8) + 1;
    if filled < id_len + size_len {
        return Err(if size_len > 8 && filled > id_len { CallFailure::Damaged } else { CallFailure::Truncated });
    }
    let size = bytes.get(id_len..id_len + size_len).filter(|_| size_len <= 8).ok_or(CallFailure::Damaged)?;
    let unknown = (1_u64 << (7 * size_len)) - 1;
    let size = size.iter().fold(0, |size, byte| size << 8 | u64::from(*byte)) & unknown;
    let body = at.saturating_add(u64::try_from(id_len + size_len).unwrap_or(u64::MAX));
    Ok(Element { id, body, end: (size != unknown).then(|| body.saturating_add(size)) })
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::*;

    /// An element whose length takes eight bytes.
    fn made(id: u32, length: u64, body: &[u8]) -> Vec<u8> {
        let id: Vec<u8> = id.to_be_bytes().into_iter().skip_while(|byte| *byte == 0).collect();
        [id, (length | 1 << 56).to_be_bytes().to_vec(), body.to_vec()].concat()
    }

    fn look(segment: &[u8]) -> Result<(), CallFailure> {
        let file = [made(0x1a45_dfa3, 4, b"head").as_slice(), segment].concat();
        inspect(&mut Recording::new(Box::new(Cursor::new(file))).unwrap(), 0)
    }

    const UNKNOWN: u64 = (1 << 56) - 1;
    const TAGS: u32 = 0x1254_c367;

    #[test]
    fn what_is_shorter_than_it_says_is_a_truncation() {
        let cluster = made(CLUSTER, 5, b"audio");
        assert_eq!(look(&made(SEGMENT, 17, &cluster)), Ok(()));
        assert_eq!(look(&made(SEGMENT, 18, &cluster)), Err(CallFailure::Truncated));
        assert_eq!(look(&made(SEGMENT, UNKNOWN, &made(CLUSTER, 6, b"audio"))), Err(CallFailure::Truncated));
        assert_eq!(look(&made(SEGMENT, UNKNOWN, &made(CLUSTER, UNKNOWN, b"audio"))), Ok(()));
    }

    #[test]
    fn a_cluster_without_a_length_ends_where_something_else_begins() {
        let streamed = |parts: &[Vec<u8>]| look(&made(SEGMENT, UNKNOWN, &[&[made(CLUSTER, UNKNOWN, b"")], parts].concat().concat()));
        let block = |length: u64| made(0xa3, length, &vec![0; usize::try_from(length).unwrap()]);
        let tags = made(TAGS, TAGS_MAX, &vec![0; usize::try_from(TAGS_MAX).unwrap()]);
        assert_eq!(streamed(&[block(9), made(CLUSTER, UNKNOWN, b""), block(9)]), Ok(()));
        assert_eq!(streamed(&[block(9), block(BLOCK_MAX)]), Err(CallFailure::Damaged));
        assert_eq!(streamed(&[block(9), tags]), Err(CallFailure::Damaged));
        // The recorder was cut off in a block, and in an element's head.
        assert_eq!(streamed(&[block(9), made(0xa3, 99, b"short")]), Ok(()));
        assert_eq!(streamed(&[block(9), vec![0xa3]]), Ok(()));
        assert_eq!(streamed(&[block(9), made(CLUSTER, 99, b"short")]), Err(CallFailure::Truncated));
    }

    #[test]
    fn a_cluster_out_of_proportion_is_damage() {
        let cluster = made(CLUSTER, CLUSTER_MAX, &vec![0; usize::try_from(CLUSTER_MAX).unwrap()]);
        assert_eq!(look(&made(SEGMENT, UNKNOWN, &cluster)), Err(CallFailure::Damaged));
    }

    #[test]
    fn tags_and_attachments_out_of_proportion_are_damage() {
        let half = TAGS_MAX / 2;
        let tags = |id, length: u64| made(id, length, &vec![0; usize::try_from(length).unwrap()]);
        let segment = |parts: &[Vec<u8>]| look(&made(SEGMENT, UNKNOWN, &parts.concat()));
        assert_eq!(segment(&[tags(TAGS, TAGS_MAX)]), Err(CallFailure::Damaged));
        assert_eq!(segment(&[tags(TAGS, half - 12), tags(TAGS, half - 12)]), Ok(()));
        assert_eq!(segment(&[tags(TAGS, half - 12), tags(TAGS, half - 11)]), Err(CallFailure::Damaged));
        assert_eq!(segment(&[tags(VOID, 3 * TAGS_MAX)]), Ok(()));
    }
}
