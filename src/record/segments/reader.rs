//! A finished recording, read at any offset.
//! Trusts: the call's key, not the disk.
//! Touches: the file that it was opened with.
//! Next: `job` hands what was opened to the child that asked for it.

use std::fs::File;
use std::os::unix::fs::FileExt;

use zeroize::Zeroizing;

use super::{CHUNK, HEADER, KEY_BYTES, MAGIC, PREFIX, SegmentError, Stream, TAG, wide};
use crate::base::ids::CallId;
use crate::base::secret::{Secret, leaving_no_trace};

/// A finished recording.
pub struct SegmentReader {
    file: File,
    stream: Stream,
    last: u32,
    bytes: u64,
    open: Option<(u32, Zeroizing<Vec<u8>>)>,
}

impl SegmentReader {
    /// Checks both ends.
    pub(super) fn open(file: File, key: Secret<KEY_BYTES>, call: CallId) -> Result<Self, SegmentError> {
        let len = file.metadata().map_err(SegmentError::io("size"))?.len();
        let mut header = [0; HEADER];
        file.read_exact_at(&mut header, 0).map_err(SegmentError::read)?;
        let prefix: &[u8; PREFIX] = header.strip_prefix(MAGIC).and_then(|rest| rest.try_into().ok()).ok_or(SegmentError::Forged)?;
        let sealed = len.saturating_sub(wide(HEADER));
        let last = sealed.checked_sub(1).ok_or(SegmentError::Forged)? / wide(CHUNK + TAG);
        let tags = (last + 1) * wide(TAG);
        let mut reader = Self {
            file,
            stream: Stream { key, call, prefix: *prefix },
            last: u32::try_from(last).map_err(|_| SegmentError::Forged)?,
            bytes: sealed.checked_sub(tags).ok_or(SegmentError::Forged)?,
            open: None,
        };
        reader.chunk(reader.last)?;
        Ok(reader)
    }

    /// Its length, bytes.
    pub const fn bytes(&self) -> u64 {
        self.bytes
    }

    /// At most `len` bytes at `offset`: fewer at the end, none past it.
    ///
    /// # Errors
    /// `Forged` when a chunk was changed, moved or swapped; `Io` when the file system failed.
    pub fn read_at(&mut self, offset: u64, len: usize) -> Result<Vec<u8>, SegmentError> {
        let end = offset.saturating_add(wide(len)).min(self.bytes);
        let mut wanted = Vec::with_capacity(len.min(2 * CHUNK));
        let mut at = offset;
        while at < end {
            let number = u32::try_from(at / wide(CHUNK)).map_err(|_| SegmentError::Forged)?;
            let from = usize::try_from(at % wide(CHUNK)).map_err(|_| SegmentError::Forged)?;
            let rest = usize::try_from(end - at).unwrap_or(CHUNK);
            let chunk = self.chunk(number)?;
            let piece = chunk.get(from..chunk.len().min(from.saturating_add(rest))).ok_or(SegmentError::Forged)?;
            if piece.is_empty() {
                return Err(SegmentError::Forged);
            }
            wanted.extend_from_slice(piece);
            at += wide(piece.len());
        }
        Ok(wanted)
    }

    fn chunk(&mut self, number: u32) -> Result<&[u8], SegmentError> {
        let chunk = match self.open.take() {
            Some((open, chunk)) if open == number => chunk,
            _ => self.open_chunk(number)?,
        };
        Ok(&self.open.insert((number, chunk)).1)
    }

    fn open_chunk(&self, number: u32) -> Result<Zeroizing<Vec<u8>>, SegmentError> {
        let start = u64::from(number) * wide(CHUNK);
        let plain = usize::try_from(self.bytes.saturating_sub(start)).unwrap_or(CHUNK).min(CHUNK);
        let mut chunk = Zeroizing::new(vec![0; plain + TAG]);
        let position = wide(HEADER) + u64::from(number) * wide(CHUNK + TAG);
        self.file.read_exact_at(&mut chunk, position).map_err(SegmentError::read)?;
        let nonce = self.stream.nonce(number, number == self.last);
        let opened = leaving_no_trace(|| self.stream.cipher()?.open_in_place(nonce, self.stream.aad(), &mut chunk).map(drop));
        opened.map_err(|_| SegmentError::Forged)?;
        chunk.truncate(plain);
        Ok(chunk)
    }
}
