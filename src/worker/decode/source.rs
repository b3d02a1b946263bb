//! The recording's bytes as the demuxers may see them: one range of it.
//! Trusts: nothing; every offset is checked against the length.
//! Touches: the channel behind the recording, through [`MediaSource`].
//! Next: `sniff`, `wav`, `au` and `mp4` read facts from [`Recording`]; symphonia reads [`Window`].

use std::io::{self, ErrorKind, Read, Seek, SeekFrom};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use symphonia::core::io::MediaSource;

use crate::ipc::worker::CallFailure;

/// Most bytes of tags, pictures and indexes in a recording that a demuxer would hold in memory.
pub(super) const TAGS_MAX: u64 = 1024 * 1024;

/// Adds to a sum that a recording in proportion keeps below `most`.
pub(super) fn add_to(sum: &mut u64, more: u64, most: u64) -> Result<(), CallFailure> {
    *sum = sum.saturating_add(more);
    if *sum > most { Err(CallFailure::Damaged) } else { Ok(()) }
}

/// A recording of known length, for looking at single places of it.
pub(super) struct Recording {
    inner: Box<dyn MediaSource>,
    len: u64,
}

impl Recording {
    pub(super) fn new(mut inner: Box<dyn MediaSource>) -> Result<Self, CallFailure> {
        let len = match inner.byte_len() {
            Some(len) => len,
            None => inner.seek(SeekFrom::End(0)).map_err(|_| CallFailure::Unreadable)?,
        };
        Ok(Self { inner, len })
    }

    /// Bytes.
    pub(super) const fn len(&self) -> u64 {
        self.len
    }

    /// Up to `N` bytes at `offset`; the rest of the array is zero. The second value says how many there are.
    pub(super) fn peek<const N: usize>(&mut self, offset: u64) -> Result<([u8; N], usize), CallFailure> {
        let mut bytes = [0; N];
        let filled = self.read_at(offset, &mut bytes)?;
        Ok((bytes, filled))
    }

    /// Exactly `N` bytes at `offset`.
    pub(super) fn exactly<const N: usize>(&mut self, offset: u64) -> Result<[u8; N], CallFailure> {
        match self.peek(offset)? {
            (bytes, filled) if filled == N => Ok(bytes),
            _ => Err(CallFailure::Truncated),
        }
    }

    /// Fills `buffer` from `offset` on; fewer bytes only at the end of the recording.
    pub(super) fn read_at(&mut self, offset: u64, buffer: &mut [u8]) -> Result<usize, CallFailure> {
        if offset >= self.len {
            return Ok(0);
        }
        self.inner.seek(SeekFrom::Start(offset)).map_err(|_| CallFailure::Unreadable)?;
        let mut filled = 0;
        while let Some(rest) = buffer.get_mut(filled..).filter(|rest| !rest.is_empty()) {
            match self.inner.read(rest) {
                Ok(0) => break,
                Ok(count) => filled += count,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return Err(CallFailure::Unreadable),
            }
        }
        Ok(filled)
    }

    /// What the demuxer reads: `len` bytes of the recording from `start` on.
    pub(super) fn window(self, start: u64, len: u64) -> (Window, Arc<Reading>) {
        let reading = Arc::new(Reading { position: AtomicU64::new(0), failed: AtomicBool::new(false) });
        let len = len.min(self.len.saturating_sub(start));
        (Window { inner: self.inner, start, len, position: 0, inner_at: None, reading: Arc::clone(&reading) }, reading)
    }
}

/// How far the reading of a [`Window`] is, seen from outside of the demuxer that owns it.
#[derive(Debug)]
pub(super) struct Reading {
    position: AtomicU64,
    failed: AtomicBool,
}

impl Reading {
    /// Offset in the recording up to which it has been read.
    pub(super) fn position(&self) -> u64 {
        self.position.load(Ordering::Relaxed)
    }

    /// The recording itself could not be read: not the recording's fault.
    pub(super) fn failed(&self) -> bool {
        self.failed.load(Ordering::Relaxed)
    }
}

/// A [`MediaSource`] of one range of the recording.
pub(super) struct Window {
    inner: Box<dyn MediaSource>,
    start: u64,
    len: u64,
    position: u64,
    inner_at: Option<u64>,
    reading: Arc<Reading>,
}

impl Window {
    fn read_inner(&mut self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let wanted = usize::try_from(self.len.saturating_sub(offset)).unwrap_or(usize::MAX).min(buffer.len());
        let Some(buffer) = buffer.get_mut(..wanted).filter(|buffer| !buffer.is_empty()) else { return Ok(0) };
        let at = self.start.saturating_add(offset);
        if self.inner_at != Some(at) {
            self.inner_at = None;
            self.inner.seek(SeekFrom::Start(at))?;
        }
        let count = loop {
            match self.inner.read(buffer) {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                other => break other?,
            }
        };
        let end = at.saturating_add(u64::try_from(count).unwrap_or(u64::MAX));
        self.inner_at = Some(end);
        self.reading.position.store(end, Ordering::Relaxed);
        Ok(count)
    }
}

impl Read for Window {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.read_inner(self.position, buffer).inspect_err(|_| self.reading.failed.store(true, Ordering::Relaxed))?;
        self.position = self.position.saturating_add(u64::try_from(count).unwrap_or(u64::MAX));
        Ok(count)
    }
}

impl Seek for Window {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let target = match to {
            SeekFrom::Start(at) => Some(at),
            SeekFrom::Current(by) => self.position.checked_add_signed(by),
            SeekFrom::End(by) => self.len.checked_add_signed(by),
        };
        self.position = target.ok_or_else(|| io::Error::from(ErrorKind::InvalidInput))?;
        Ok(self.position)
    }
}

impl MediaSource for Window {
    fn is_seekable(&self) -> bool {
        true
    }

    fn byte_len(&self) -> Option<u64> {
        Some(self.len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn window(start: u64, len: u64) -> Window {
        Recording::new(Box::new(io::Cursor::new(b"0123456789".to_vec()))).unwrap().window(start, len).0
    }

    #[test]
    fn a_window_shows_only_its_range() {
        let mut text = String::new();
        window(3, 4).read_to_string(&mut text).unwrap();
        assert_eq!(text, "3456");
    }

    #[test]
    fn seeking_counts_from_the_range() {
        let mut window = window(3, 4);
        let mut text = String::new();
        window.seek(SeekFrom::End(-2)).unwrap();
        window.read_to_string(&mut text).unwrap();
        assert_eq!(text, "56");
    }

    #[test]
    fn seeking_before_the_start_is_refused() {
        assert!(window(0, 10).seek(SeekFrom::Current(-1)).is_err());
    }

    #[test]
    fn a_range_never_reaches_past_the_recording() {
        assert_eq!(window(8, u64::MAX).byte_len(), Some(2));
    }
}
