//! What symphonia does not say of a WebM or Matroska file: whether it is whole, and whether anything in it is out of proportion.
//! Trusts: nothing; looks at a bounded number of elements and never past the one they are in.
//! Touches: nothing but the recording.
//! Next: `open` has symphonia read it.

use super::source::Recording;
use crate::ipc::worker::CallFailure;

/// Most elements that are looked at in one file.
const ELEMENTS_MAX: u32 = 65_536;
/// Largest element that is held in memory as a whole: tracks, tags, an index.
const ELEMENT_MAX: u64 = 1024 * 1024;
/// Element ids (RFC 8794 section 11.3, RFC 9559 section 5.1).
const SEGMENT: u32 = 0x1853_8067;
const CLUSTER: u32 = 0x1f43_b675;
const VOID: u32 = 0xec;

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
    let segment_at = head.end.filter(|end| end - start <= ELEMENT_MAX).ok_or(CallFailure::Damaged)?;
    let segment = element(recording, segment_at)?;
    if segment.id != SEGMENT {
        return Err(CallFailure::Damaged);
    }
    let end = segment.end.unwrap_or(whole);
    if end > whole {
        return Err(CallFailure::Truncated);
    }
    let mut at = segment.body;
    for _ in 0..ELEMENTS_MAX {
        if at >= end {
            return Ok(());
        }
        let child = element(recording, at)?;
        // Clusters without a length end where the next one begins, which only their content tells.
        let Some(child_end) = child.end else { return if child.id == CLUSTER { Ok(()) } else { Err(CallFailure::Damaged) } };
        if child_end > end {
            return Err(CallFailure::Truncated);
        }
        if !matches!(child.id, CLUSTER | VOID) && child_end - at > ELEMENT_MAX {
            return Err(CallFailure::Damaged);
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
        return Err(if size_len > 8 { CallFailure::Damaged } else { CallFailure::Truncated });
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

    #[test]
    fn what_is_shorter_than_it_says_is_a_truncation() {
        let cluster = made(CLUSTER, 5, b"audio");
        assert_eq!(look(&made(SEGMENT, 17, &cluster)), Ok(()));
        assert_eq!(look(&made(SEGMENT, 18, &cluster)), Err(CallFailure::Truncated));
        assert_eq!(look(&made(SEGMENT, UNKNOWN, &made(CLUSTER, 6, b"audio"))), Err(CallFailure::Truncated));
        assert_eq!(look(&made(SEGMENT, UNKNOWN, &made(CLUSTER, UNKNOWN, b"audio"))), Ok(()));
    }

    #[test]
    fn tags_and_attachments_out_of_proportion_are_damage() {
        let tags = vec![0; usize::try_from(ELEMENT_MAX).unwrap()];
        assert_eq!(look(&made(SEGMENT, UNKNOWN, &made(0x1254_c367, ELEMENT_MAX, &tags))), Err(CallFailure::Damaged));
        assert_eq!(look(&made(SEGMENT, UNKNOWN, &made(VOID, ELEMENT_MAX, &tags))), Ok(()));
    }
}
