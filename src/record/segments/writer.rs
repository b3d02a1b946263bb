//! A recording on its way in: gathered in blocks, which are sealed and written as pieces of work of their own, one beside another.
//! Trusts: nobody: a recording with a piece that was not written cannot be finished.
//! Touches: the recording's file.
//! Next: `job` runs the pieces away from the connections' threads; [`super::reader`] reads what was finished.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use super::block::{ALIGN, Block, CHUNKS, SEALED};
use super::file::PartialFile;
use super::{HEADER, SegmentDirectory, SegmentError, Stream, wide};

/// A recording on its way in. Dropping it, and the pieces that are not written yet, removes it.
pub struct SegmentWriter {
    recording: Arc<Recording>,
    block: Block,
    /// Number of the block's first chunk.
    first: u32,
    /// What stands before that in the file and is not written yet: from the piece before, once it is sealed.
    lead: Receiver<Vec<u8>>,
    spare: Option<Spare>,
    bytes: u64,
}

/// What the pieces share.
struct Recording {
    stream: Stream,
    file: PartialFile,
    /// Chunks in pieces that were written.
    written: AtomicU32,
}

/// A full block: work for a thread that may block.
pub struct Piece {
    recording: Arc<Recording>,
    block: Block,
    first: u32,
    lead: Receiver<Vec<u8>>,
    rest: SyncSender<Vec<u8>>,
}

/// A block that was written: memory for the next but one.
pub struct Spare(Block);

/// Where a block that begins with chunk `first` begins: the file's last multiple of [`ALIGN`], and the bytes between.
fn place(first: u32) -> (u64, usize) {
    let at = wide(HEADER) + u64::from(first) * wide(SEALED);
    let lead = at % wide(ALIGN);
    (at - lead, usize::try_from(lead).unwrap_or(0))
}

impl SegmentWriter {
    pub(super) fn new(stream: Stream, file: PartialFile) -> Self {
        let (rest, lead) = sync_channel(1);
        // The first block has the header in front; there is room for one message.
        let _ = rest.send(stream.header());
        let recording = Arc::new(Recording { stream, file, written: AtomicU32::new(0) });
        Self { recording, block: Block::new().begin(place(0).1), first: 0, lead, spare: None, bytes: 0 }
    }

    /// Takes bytes into memory and gives how many: fewer than all of them when [`Self::piece`] is to be called first. The last
    /// block waits in memory, since only the end of the recording tells that a chunk is last.
    pub fn take(&mut self, bytes: &[u8]) -> usize {
        let taken = self.block.take(bytes);
        self.bytes += wide(taken);
        taken
    }

    /// The block that is full, as work: pieces may be written beside each other, but each waits until the one before is sealed, so
    /// they must be begun in order.
    ///
    /// # Errors
    /// `TooLong`; `Gap` when the block is not full.
    pub fn piece(&mut self) -> Result<Piece, SegmentError> {
        if !self.block.is_full() {
            return Err(SegmentError::Gap);
        }
        let first = self.first;
        self.first = u32::try_from(CHUNKS).ok().and_then(|count| first.checked_add(count)).ok_or(SegmentError::TooLong)?;
        let (rest, lead) = sync_channel(1);
        let next = self.spare.take().map_or_else(Block::new, |spare| spare.0).begin(place(self.first).1);
        let (block, lead) = (std::mem::replace(&mut self.block, next), std::mem::replace(&mut self.lead, lead));
        Ok(Piece { recording: Arc::clone(&self.recording), block, first, lead, rest })
    }

    /// Keeps the memory of a written piece for the next one.
    pub fn reuse(&mut self, spare: Spare) {
        self.spare = Some(spare);
    }

    /// Takes all bytes and writes their pieces on this thread, one after the other.
    ///
    /// # Errors
    /// `Full`, `Io`, `Seal`, `TooLong`.
    pub fn push(&mut self, mut bytes: &[u8]) -> Result<(), SegmentError> {
        loop {
            bytes = bytes.split_at(self.take(bytes)).1;
            if bytes.is_empty() {
                return Ok(());
            }
            let spare = self.piece()?.write()?;
            self.reuse(spare);
        }
    }

    /// Plain bytes so far.
    pub const fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Plain bytes that are in no piece.
    pub fn gathered(&self) -> u64 {
        wide(self.block.plain())
    }

    /// Seals the end and makes the recording durable under its final name. Returns its plain length, bytes.
    ///
    /// # Errors
    /// As [`Piece::write`]; `Gap` when a piece was not written. Nothing is left behind then.
    pub fn finish(self) -> Result<u64, SegmentError> {
        self.finish_with(SegmentDirectory::sync)
    }

    pub(super) fn finish_with(self, sync: impl FnOnce(&SegmentDirectory) -> Result<(), SegmentError>) -> Result<u64, SegmentError> {
        let Self { recording, mut block, first, lead, bytes, .. } = self;
        let recording = Arc::into_inner(recording).ok_or(SegmentError::Gap)?;
        if recording.written.into_inner() != first {
            return Err(SegmentError::Gap);
        }
        block.seal(&recording.stream, first, true)?;
        block.lead(&lead.recv().map_err(|_| SegmentError::Gap)?)?;
        let (whole, rest) = block.sealed();
        recording.file.keep(whole, rest, place(first).0, sync)?;
        Ok(bytes)
    }
}

impl Piece {
    /// Plain bytes in it.
    pub fn bytes(&self) -> u64 {
        wide(self.block.plain())
    }

    /// Seals the piece and writes it. Blocks.
    ///
    /// # Errors
    /// `Full`, `Io`, `Seal`, `TooLong`; `Gap` when a piece before this one failed.
    pub fn write(self) -> Result<Spare, SegmentError> {
        let Self { recording, mut block, first, lead, rest } = self;
        block.seal(&recording.stream, first, false)?;
        block.lead(&lead.recv().map_err(|_| SegmentError::Gap)?)?;
        let (whole, end) = block.sealed();
        // The next piece goes on while this one is written; nobody takes it when the upload was given up.
        let _ = rest.send(end.to_vec());
        recording.file.write(whole, place(first).0)?;
        recording.written.fetch_add(u32::try_from(CHUNKS).unwrap_or(u32::MAX), Ordering::Relaxed);
        Ok(Spare(block))
    }
}
