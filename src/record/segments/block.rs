//! Memory in which chunks are gathered, sealed where they lie, and handed to the disk as they are: each byte is copied once.
//! Trusts: nothing.
//! Touches: its own memory, which it wipes on drop.
//! Next: [`super::writer`] numbers the chunks; [`super::file`] writes.

use ring::aead::Aad;
use ring::error::Unspecified;

use super::{CHUNK, SealError, SegmentError, Stream, TAG};
use crate::base::secret::{Wiped, leaving_no_trace};

/// What the disk takes straight from memory begins and ends at multiples of this, in memory and in the file: the largest logical
/// block of disks.
pub const ALIGN: usize = 4096;
/// Chunks in a block: enough for the disk to be as fast as it can, little enough for every upload to have some.
pub const CHUNKS: usize = 8;
/// A chunk in the file.
pub const SEALED: usize = CHUNK + TAG;

/// Up to [`CHUNKS`] chunks, and before them the bytes of the file since the last multiple of [`ALIGN`].
pub struct Block {
    memory: Wiped,
    /// Where the aligned part of the memory begins.
    start: usize,
    /// Bytes before the first chunk.
    lead: usize,
    /// Plain bytes in the chunks. Each chunk has room for its tag behind it.
    plain: usize,
}

impl Block {
    /// An empty block.
    pub fn new() -> Self {
        let memory = Wiped::new(vec![0; 2 * ALIGN + CHUNKS * SEALED]);
        // Memory that cannot be aligned is written in the ordinary way.
        let start = memory.as_ptr().align_offset(ALIGN).min(ALIGN);
        Self { memory, start, lead: 0, plain: 0 }
    }

    /// Forgets what was in it and leaves `lead` bytes, fewer than [`ALIGN`], for the end of the block before.
    pub fn begin(mut self, lead: usize) -> Self {
        (self.lead, self.plain) = (lead, 0);
        self
    }

    /// Copies bytes in; gives how many there was room for.
    pub fn take(&mut self, bytes: &[u8]) -> usize {
        let mut left = bytes;
        while !left.is_empty() && !self.is_full() {
            let at = self.start + self.lead + self.plain / CHUNK * SEALED + self.plain % CHUNK;
            let (now, later) = left.split_at(left.len().min(CHUNK - self.plain % CHUNK));
            let Some(room) = self.memory.get_mut(at..at + now.len()) else { break };
            room.copy_from_slice(now);
            self.plain += now.len();
            left = later;
        }
        bytes.len() - left.len()
    }

    /// No byte more can be taken.
    pub const fn is_full(&self) -> bool {
        self.plain == CHUNKS * CHUNK
    }

    /// Plain bytes.
    pub const fn plain(&self) -> usize {
        self.plain
    }

    /// Chunks, begun ones included; at least one, since an empty recording has one.
    fn chunks(&self) -> usize {
        self.plain.div_ceil(CHUNK).max(1)
    }

    /// Seals the chunks in place, numbered from `first`; with `ends`, the last one as the recording's last.
    pub fn seal(&mut self, stream: &Stream, first: u32, ends: bool) -> Result<(), SegmentError> {
        let count = self.chunks();
        u32::try_from(count).ok().and_then(|count| first.checked_add(count)).ok_or(SegmentError::TooLong)?;
        let mut left = self.plain;
        let chunks = self.memory.split_at_mut(self.start + self.lead).1.chunks_mut(SEALED).take(count);
        // One key schedule for all of them, and one wipe of the stack that it was on.
        let sealed = leaving_no_trace(|| {
            let (cipher, aad) = (stream.cipher()?, stream.aad());
            for (number, chunk) in (first..).zip(chunks) {
                let (plain, rest) = chunk.split_at_mut(left.min(CHUNK));
                left -= plain.len();
                let nonce = stream.nonce(number, ends && left == 0);
                let tag = cipher.seal_in_place_separate_tag(nonce, Aad::from(aad.as_ref()), plain)?;
                rest.get_mut(..TAG).ok_or(Unspecified)?.copy_from_slice(tag.as_ref());
            }
            Ok::<(), Unspecified>(())
        });
        sealed.map_err(|_| SegmentError::Seal(SealError::Crypto))
    }

    /// Puts the end of the block before in front; it has as many bytes as there is room for.
    pub fn lead(&mut self, end: &[u8]) -> Result<(), SegmentError> {
        let room = self.memory.get_mut(self.start..self.start + self.lead).filter(|room| room.len() == end.len());
        room.ok_or(SegmentError::Gap)?.copy_from_slice(end);
        Ok(())
    }

    /// All of it once it is sealed, and the end that does not fill an aligned part.
    pub fn sealed(&self) -> (&[u8], &[u8]) {
        let len = self.lead + self.plain + self.chunks() * TAG;
        let all = self.memory.get(self.start..self.start + len).unwrap_or_default();
        all.split_at(all.len() / ALIGN * ALIGN)
    }
}
