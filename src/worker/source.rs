//! The recording as a seekable file that lives on the other side of the channel.
//! Trusts: nothing; an answer for another place ends the call.
//! Touches: the child's one channel.
//! Next: `decode` reads it.

use std::io::{self, Read, Seek, SeekFrom};
use std::sync::Arc;

use symphonia::core::io::MediaSource;

use crate::ipc::channel::Channel;
use crate::ipc::worker::{AUDIO_CHUNK_MAX, ChildEvent, Task};

/// Asks `salamad` for one sealed segment at a time and keeps only that one.
pub struct ChannelSource {
    channel: Arc<Channel>,
    len: u64,
    position: u64,
    chunk_start: u64,
    chunk: Vec<u8>,
}

impl ChannelSource {
    /// A recording of `len` bytes.
    pub const fn new(channel: Arc<Channel>, len: u64) -> Self {
        Self { channel, len, position: 0, chunk_start: 0, chunk: Vec::new() }
    }

    /// Bytes of the held segment from the current position on; empty when it has to be asked for.
    fn at_hand(&self) -> &[u8] {
        let skipped = self.position.checked_sub(self.chunk_start).and_then(|skipped| usize::try_from(skipped).ok());
        skipped.and_then(|skipped| self.chunk.get(skipped..)).unwrap_or_default()
    }

    fn fetch(&mut self) -> io::Result<()> {
        let offset = self.position - self.position % u64::from(AUDIO_CHUNK_MAX);
        self.channel.send(&ChildEvent::Need { offset, len: AUDIO_CHUNK_MAX }).map_err(io::Error::other)?;
        match self.channel.recv::<Task>().map_err(io::Error::other)? {
            Some(Task::Audio { offset: given, bytes }) if given == offset && !bytes.is_empty() => {
                self.chunk_start = offset;
                self.chunk = bytes;
                Ok(())
            }
            _ => Err(io::Error::from(io::ErrorKind::ConnectionAborted)),
        }
    }
}

impl Read for ChannelSource {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.position >= self.len || buffer.is_empty() {
            return Ok(0);
        }
        if self.at_hand().is_empty() {
            self.fetch()?;
        }
        let read = self.at_hand().read(buffer)?;
        self.position = self.position.saturating_add(u64::try_from(read).map_err(io::Error::other)?);
        Ok(read)
    }
}

impl Seek for ChannelSource {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let target = match to {
            SeekFrom::Start(offset) => Some(offset),
            SeekFrom::End(offset) => self.len.checked_add_signed(offset),
            SeekFrom::Current(offset) => self.position.checked_add_signed(offset),
        };
        self.position = target.ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
        Ok(self.position)
    }
}

impl MediaSource for ChannelSource {
    fn is_seekable(&self) -> bool {
        true
    }

    fn byte_len(&self) -> Option<u64> {
        Some(self.len)
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    /// Answers each request from `recording`, as `salamad` does.
    fn serve(channel: Channel, recording: Vec<u8>) {
        while let Ok(Some(ChildEvent::Need { offset, len })) = channel.recv::<ChildEvent>() {
            let from = usize::try_from(offset).unwrap().min(recording.len());
            let to = (from + usize::try_from(len).unwrap()).min(recording.len());
            channel.send(&Task::Audio { offset, bytes: recording[from..to].to_vec() }).unwrap();
        }
    }

    fn source_of(recording: Vec<u8>) -> ChannelSource {
        let (ours, theirs) = Channel::pair().unwrap();
        let len = u64::try_from(recording.len()).unwrap();
        thread::spawn(move || serve(theirs, recording));
        ChannelSource::new(Arc::new(ours), len)
    }

    #[test]
    fn the_whole_recording_is_read_across_segment_borders() {
        let recording: Vec<u8> = (0..200_000_u32).map(|i| i.to_le_bytes()[0] ^ i.to_le_bytes()[1]).collect();
        let mut read = Vec::new();
        source_of(recording.clone()).read_to_end(&mut read).unwrap();
        assert!(read == recording);
    }

    #[test]
    fn a_seek_reads_from_there_and_past_the_end_nothing() {
        let recording: Vec<u8> = (0..100_000_u32).map(|i| i.to_le_bytes()[1]).collect();
        let mut source = source_of(recording.clone());
        let mut four = [0; 4];
        source.seek(SeekFrom::End(-4)).unwrap();
        source.read_exact(&mut four).unwrap();
        assert_eq!(four, recording[99_996..]);
        source.seek(SeekFrom::Start(1_000_000)).unwrap();
        assert_eq!(source.read(&mut four).unwrap(), 0);
    }

    #[test]
    fn an_answer_for_another_place_ends_the_call() {
        let (ours, theirs) = Channel::pair().unwrap();
        theirs.send(&Task::Audio { offset: 65_536, bytes: vec![1] }).unwrap();
        let mut source = ChannelSource::new(Arc::new(ours), 10);
        assert!(source.read(&mut [0; 4]).is_err());
    }
}
