//! Recordings in sealed chunks: written as they arrive, read at any offset, never in clear on disk.
//! Trusts: the call's key. The disk may truncate, reorder, swap or change what it likes: all of it is noticed.
//! Touches: `STATE/audio`.
//! Next: `job` writes them from uploads and reads them for the child.
//!
//! STREAM (Hoang, Reyhanitabar, Rogaway, Vizár 2015) with AES-256-GCM: nonce = prefix 7 || chunk number u32 BE || last flag u8.
//! File: magic 9, prefix 7, then chunks of 64 KiB + 16; only the last may be shorter. Associated data: magic, call id, prefix.

mod look;

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::thread::{self, JoinHandle};

use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::rand::{SecureRandom, SystemRandom};
use zeroize::Zeroizing;

use crate::base::ids::CallId;
use crate::base::secret::{Secret, leaving_no_trace};

use super::envelope::{Envelope, KEY_BYTES, SealError};

/// Plain bytes of a chunk.
pub const CHUNK: usize = 64 * 1024;
/// Sealed chunks after which the disk begins to write: 16 MiB. Else it would only begin at the end, when somebody waits for it.
const CHUNKS_AHEAD: u32 = 256;
const TAG: usize = 16;
const MAGIC: &[u8; 9] = b"SALSEGv1\n";
const PREFIX: usize = 7;
const HEADER: usize = MAGIC.len() + PREFIX;
const FINISHED: &str = "seg";
const PARTIAL: &str = "part";

/// Where recordings lie.
#[derive(Clone, Debug)]
pub struct SegmentDirectory {
    path: PathBuf,
}

/// Why a recording could not be written, read or removed.
#[derive(Debug, thiserror::Error)]
pub enum SegmentError {
    /// No space left.
    #[error("the disk is full")]
    Full(#[source] io::Error),
    /// The file system failed.
    #[error("the recording's file failed ({step})")]
    Io {
        /// Which step.
        step: &'static str,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The file is no recording of this call, or was truncated, changed or swapped.
    #[error("the sealed recording does not open: it was damaged or belongs to another call")]
    Forged,
    /// The generator or cipher failed.
    #[error("a recording could not be sealed")]
    Seal(#[source] SealError),
    /// More chunks than nonces.
    #[error("the recording is longer than one key may seal")]
    TooLong,
}

impl SegmentError {
    /// Whether the file system failed to give a recording that may be whole: reading it later may succeed. One that is gone does not
    /// come back.
    pub fn may_pass(&self) -> bool {
        matches!(self, Self::Io { source, .. } if source.kind() != io::ErrorKind::NotFound)
    }

    /// A file that ends too early is no recording; every other failure is the file system's.
    fn read(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::UnexpectedEof => Self::Forged,
            _ => Self::io("read")(error),
        }
    }

    fn io(step: &'static str) -> impl Fn(io::Error) -> Self {
        move |source| match source.raw_os_error() {
            Some(libc::ENOSPC | libc::EDQUOT) => Self::Full(source),
            _ => Self::Io { step, source },
        }
    }
}

impl SegmentDirectory {
    /// The directory `audio` below the state directory, made when absent.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn open(state: &Path) -> Result<Self, SegmentError> {
        let path = Self::below(state);
        match fs::create_dir(&path) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(SegmentError::io("make directory")(error)),
            _ => {}
        }
        Ok(Self { path })
    }

    /// Where the recordings of a state directory lie.
    pub(in crate::record) fn below(state: &Path) -> PathBuf {
        state.join("audio")
    }

    /// Whether the state directory holds any finished recording.
    pub(in crate::record) fn holds_recordings(state: &Path) -> io::Result<bool> {
        let entries = match fs::read_dir(Self::below(state)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            entries => entries?,
        };
        for entry in entries {
            if entry?.path().extension().is_some_and(|extension| extension == FINISHED) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Begins a recording. Dropping the writer removes it.
    ///
    /// # Errors
    /// `Full`, `Io`, `Seal`.
    pub fn create(&self, call: CallId, envelope: &Envelope) -> Result<SegmentWriter, SegmentError> {
        let key = envelope.sub_key("audio").map_err(SegmentError::Seal)?;
        let mut prefix = [0; PREFIX];
        SystemRandom::new().fill(&mut prefix).map_err(|_| SegmentError::Seal(SealError::Crypto))?;
        let partial = self.file(call, PARTIAL);
        let mut file = OpenOptions::new().write(true).create_new(true).open(&partial).map_err(SegmentError::io("create"))?;
        let stream = Stream { key, call, prefix };
        let written = file.write_all(MAGIC).and_then(|()| file.write_all(&prefix));
        let writer = SegmentWriter {
            directory: self.clone(),
            path: partial,
            file,
            stream,
            buffer: Zeroizing::new(Vec::with_capacity(CHUNK + TAG)),
            counter: 0,
            bytes: 0,
            syncing: None,
            kept: false,
        };
        written.map_err(SegmentError::io("write"))?;
        Ok(writer)
    }

    /// Opens a finished recording and checks both its ends.
    ///
    /// # Errors
    /// `Forged` when it was truncated, extended or is another call's; `Io` when it is absent.
    pub fn read(&self, call: CallId, envelope: &Envelope) -> Result<SegmentReader, SegmentError> {
        let key = envelope.sub_key("audio").map_err(SegmentError::Seal)?;
        let file = File::open(self.file(call, FINISHED)).map_err(SegmentError::io("open"))?;
        let len = file.metadata().map_err(SegmentError::io("size"))?.len();
        let mut header = [0; HEADER];
        file.read_exact_at(&mut header, 0).map_err(SegmentError::read)?;
        let prefix: &[u8; PREFIX] = header.strip_prefix(MAGIC).and_then(|rest| rest.try_into().ok()).ok_or(SegmentError::Forged)?;
        let sealed = len.saturating_sub(wide(HEADER));
        let last = sealed.checked_sub(1).ok_or(SegmentError::Forged)? / wide(CHUNK + TAG);
        let tags = (last + 1) * wide(TAG);
        let mut reader = SegmentReader {
            file,
            stream: Stream { key, call, prefix: *prefix },
            last: u32::try_from(last).map_err(|_| SegmentError::Forged)?,
            bytes: sealed.checked_sub(tags).ok_or(SegmentError::Forged)?,
            open: None,
        };
        reader.chunk(reader.last)?;
        Ok(reader)
    }

    /// Removes a recording for good; one that is gone is no error.
    ///
    /// # Errors
    /// `Io`.
    pub fn remove(&self, call: CallId) -> Result<(), SegmentError> {
        match fs::remove_file(self.file(call, FINISHED)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(SegmentError::io("remove")(error)),
            Ok(()) => self.sync(),
        }
    }

    /// Removes what is no recording that `keep` knows: uploads that were cut off, recordings whose call was erased.
    /// Returns how many files that were.
    ///
    /// # Errors
    /// `Io`.
    pub fn sweep(&self, keep: impl Fn(CallId) -> bool) -> Result<u64, SegmentError> {
        let mut removed = 0;
        for entry in fs::read_dir(&self.path).map_err(SegmentError::io("list"))? {
            let path = entry.map_err(SegmentError::io("list"))?.path();
            let call = path.file_stem().and_then(|stem| stem.to_str()).and_then(|stem| stem.parse().ok());
            let finished = path.extension().is_some_and(|extension| extension == FINISHED);
            if !call.is_some_and(|call| finished && keep(call)) {
                fs::remove_file(&path).map_err(SegmentError::io("remove"))?;
                removed += 1;
            }
        }
        self.sync()?;
        Ok(removed)
    }

    fn file(&self, call: CallId, extension: &str) -> PathBuf {
        self.path.join(format!("{call}.{extension}"))
    }

    fn sync(&self) -> Result<(), SegmentError> {
        File::open(&self.path).and_then(|directory| directory.sync_all()).map_err(SegmentError::io("sync directory"))
    }
}

struct Stream {
    key: Secret<KEY_BYTES>,
    call: CallId,
    prefix: [u8; PREFIX],
}

impl Stream {
    fn cipher(&self) -> Result<LessSafeKey, ring::error::Unspecified> {
        Ok(LessSafeKey::new(UnboundKey::new(&AES_256_GCM, self.key.expose())?))
    }

    fn nonce(&self, counter: u32, last: bool) -> Nonce {
        let mut nonce = [0; NONCE_LEN];
        let parts = self.prefix.iter().copied().chain(counter.to_be_bytes()).chain([u8::from(last)]);
        nonce.iter_mut().zip(parts).for_each(|(to, from)| *to = from);
        Nonce::assume_unique_for_key(nonce)
    }

    fn aad(&self) -> Aad<Vec<u8>> {
        Aad::from([MAGIC.as_slice(), self.call.as_bytes(), &self.prefix].concat())
    }
}

/// A recording on its way in.
pub struct SegmentWriter {
    directory: SegmentDirectory,
    /// Where the file is now.
    path: PathBuf,
    file: File,
    stream: Stream,
    buffer: Zeroizing<Vec<u8>>,
    counter: u32,
    bytes: u64,
    /// Makes what was written so far durable, beside the writing.
    syncing: Option<JoinHandle<io::Result<()>>>,
    kept: bool,
}

impl SegmentWriter {
    /// Seals and writes the next bytes; the last chunk waits in memory, since only the end of the recording tells that it is last.
    ///
    /// # Errors
    /// `Full`, `Io`, `Seal`, `TooLong`.
    pub fn push(&mut self, mut bytes: &[u8]) -> Result<(), SegmentError> {
        while !bytes.is_empty() {
            if self.buffer.len() == CHUNK {
                self.write_chunk(false)?;
            }
            let (now, later) = bytes.split_at(bytes.len().min(CHUNK - self.buffer.len()));
            self.buffer.extend_from_slice(now);
            self.bytes += wide(now.len());
            bytes = later;
        }
        Ok(())
    }

    /// Plain bytes so far.
    pub const fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Seals the end and makes the recording durable under its final name. Returns its plain length, bytes.
    ///
    /// # Errors
    /// As [`Self::push`]; nothing is left behind.
    pub fn finish(self) -> Result<u64, SegmentError> {
        self.finish_with(SegmentDirectory::sync)
    }

    fn finish_with(mut self, sync: impl FnOnce(&SegmentDirectory) -> Result<(), SegmentError>) -> Result<u64, SegmentError> {
        self.write_chunk(true)?;
        self.synced()?;
        self.file.sync_all().map_err(SegmentError::io("sync"))?;
        let finished = self.directory.file(self.stream.call, FINISHED);
        fs::rename(&self.path, &finished).map_err(SegmentError::io("rename"))?;
        // Until the new name is durable, a drop removes the file under it.
        self.path = finished;
        sync(&self.directory)?;
        self.kept = true;
        Ok(self.bytes)
    }

    fn write_chunk(&mut self, last: bool) -> Result<(), SegmentError> {
        let failed = |_| SegmentError::Seal(SealError::Crypto);
        let nonce = self.stream.nonce(self.counter, last);
        let Self { stream, buffer, .. } = self;
        leaving_no_trace(|| stream.cipher()?.seal_in_place_append_tag(nonce, stream.aad(), &mut **buffer)).map_err(failed)?;
        self.file.write_all(&self.buffer).map_err(SegmentError::io("write"))?;
        self.buffer.clear();
        self.counter = self.counter.checked_add(1).ok_or(SegmentError::TooLong)?;
        if self.counter.is_multiple_of(CHUNKS_AHEAD) && self.syncing.as_ref().is_none_or(JoinHandle::is_finished) {
            self.synced()?;
            self.syncing = self.file.try_clone().and_then(sync_beside).ok();
        }
        Ok(())
    }

    /// Waits for the sync beside the writing. Its failure must count: the kernel tells it once, and the last sync would not see it.
    fn synced(&mut self) -> Result<(), SegmentError> {
        let ended = self.syncing.take().map_or(Ok(Ok(())), JoinHandle::join);
        ended.unwrap_or_else(|_| Err(io::ErrorKind::Other.into())).map_err(SegmentError::io("sync"))
    }
}

fn sync_beside(file: File) -> io::Result<JoinHandle<io::Result<()>>> {
    thread::Builder::new().name("segment-sync".into()).spawn(move || file.sync_data())
}

impl Drop for SegmentWriter {
    fn drop(&mut self) {
        if !self.kept {
            // What cannot be removed now is swept at the next start.
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// A finished recording.
pub struct SegmentReader {
    file: File,
    stream: Stream,
    last: u32,
    bytes: u64,
    open: Option<(u32, Zeroizing<Vec<u8>>)>,
}

impl SegmentReader {
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

fn wide(len: usize) -> u64 {
    u64::try_from(len).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
