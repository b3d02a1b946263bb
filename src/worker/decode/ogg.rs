//! What symphonia would keep of an OGG file besides its sound: whether that is in proportion.
//! Trusts: nothing; looks at a bounded number of pages.
//! Touches: nothing but the recording.
//! Next: `open` has symphonia read it, which notices pages that are damaged or missing.

use super::source::{Recording, TAGS_MAX, add_to};
use crate::ipc::worker::CallFailure;

/// Most pages that are looked at.
const PAGES_MAX: u32 = 4096;
/// A page's header without the lengths of its segments (RFC 3533 section 6).
const HEADER_LEN: usize = 27;

/// Checks the pages of headers, which come before all sound: their granule position is 0, or none while a packet goes on.
/// What is no page is left to the demuxer, which gives up on packets above 16 MiB.
pub(super) fn inspect(recording: &mut Recording, start: u64) -> Result<(), CallFailure> {
    let (mut at, mut kept) = (start, 0);
    for _ in 0..PAGES_MAX {
        let (header, filled) = recording.peek::<HEADER_LEN>(at)?;
        let [b'O', b'g', b'g', b'S', _, _, g0, g1, g2, g3, g4, g5, g6, g7, .., segments] = header else { return Ok(()) };
        if filled < HEADER_LEN || i64::from_le_bytes([g0, g1, g2, g3, g4, g5, g6, g7]) > 0 {
            return Ok(());
        }
        let lengths_at = at.saturating_add(27);
        let (lengths, _) = recording.peek::<255>(lengths_at)?;
        let body: u64 = lengths.iter().take(segments.into()).map(|len| u64::from(*len)).sum();
        add_to(&mut kept, body, TAGS_MAX)?;
        at = lengths_at.saturating_add(u64::from(segments)).saturating_add(body);
    }
    Err(CallFailure::Damaged)
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::*;

    fn page(granule: i64, segments: u8) -> Vec<u8> {
        let mut page = b"OggS\0\0".to_vec();
        page.extend(granule.to_le_bytes());
        page.extend([0; 12]);
        page.push(segments);
        page.extend(vec![255; segments.into()]);
        page.extend(vec![0; usize::from(segments) * 255]);
        page
    }

    fn look(pages: &[Vec<u8>]) -> Result<(), CallFailure> {
        inspect(&mut Recording::new(Box::new(Cursor::new(pages.concat()))).unwrap(), 0)
    }

    #[test]
    fn comments_out_of_proportion_are_damage() {
        let comments = |pages: usize| [vec![page(0, 1)], vec![page(-1, 255); pages], vec![page(960, 1)]].concat();
        assert_eq!(look(&comments(16)), Ok(()));
        assert_eq!(look(&comments(17)), Err(CallFailure::Damaged));
    }

    #[test]
    fn sound_may_be_long_and_pages_without_end_are_damage() {
        assert_eq!(look(&vec![page(960, 255); 40]), Ok(()));
        assert_eq!(look(&vec![page(0, 0); 5000]), Err(CallFailure::Damaged));
    }
}
