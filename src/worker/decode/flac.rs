//! What symphonia would keep of a FLAC file besides its sound: whether that is in proportion.
//! Trusts: nothing; looks at a bounded number of blocks.
//! Touches: nothing but the recording.
//! Next: `open` has symphonia read it.

use super::source::{Recording, TAGS_MAX, add_to};
use crate::ipc::worker::CallFailure;

/// Most metadata blocks that are looked at.
const BLOCKS_MAX: u32 = 1024;

/// Checks the metadata blocks (RFC 9639 section 8) of a file that begins at `start` with `fLaC`.
pub(super) fn inspect(recording: &mut Recording, start: u64) -> Result<(), CallFailure> {
    let (mut at, mut kept) = (start.saturating_add(4), 0);
    for _ in 0..BLOCKS_MAX {
        let [kind, high, middle, low] = recording.exactly(at)?;
        let len = u64::from(u32::from_be_bytes([0, high, middle, low]));
        // Padding, and blocks of a later format, are skipped.
        if matches!(kind & 0x7f, 0 | 2..=6) {
            add_to(&mut kept, len, TAGS_MAX)?;
        }
        if kind & 0x80 != 0 {
            return Ok(());
        }
        at = at.saturating_add(4 + len);
    }
    Err(CallFailure::Damaged)
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::*;

    fn look(blocks: &[(u8, u32)]) -> Result<(), CallFailure> {
        let mut file = b"fLaC".to_vec();
        for (kind, len) in blocks {
            file.extend((u32::from(*kind) << 24 | len).to_be_bytes());
            file.resize(file.len() + usize::try_from(*len).unwrap(), 0);
        }
        inspect(&mut Recording::new(Box::new(Cursor::new(file))).unwrap(), 0)
    }

    const HALF: u32 = 512 * 1024;

    #[test]
    fn tags_and_pictures_out_of_proportion_are_damage() {
        assert_eq!(look(&[(0, 34), (4, HALF), (0x86, HALF - 34)]), Ok(()));
        assert_eq!(look(&[(0, 34), (4, HALF), (0x86, HALF)]), Err(CallFailure::Damaged));
    }

    #[test]
    fn padding_may_be_long() {
        assert_eq!(look(&[(0, 34), (1, 4 * HALF), (0x84, 9)]), Ok(()));
    }

    #[test]
    fn blocks_without_end_are_damage_and_a_cut_is_a_truncation() {
        assert_eq!(look(&[(4, 0); 2000]), Err(CallFailure::Damaged));
        assert_eq!(look(&[(0, 34), (4, 9)]), Err(CallFailure::Truncated));
    }
}
