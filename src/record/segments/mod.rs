//! Recordings in sealed chunks: written as they arrive, read at any offset, never in clear on disk.
//! Trusts: the call's key. The disk may truncate, reorder, swap or change what it likes: all of it is noticed.
//! Touches: `STATE/audio`.
//! Next: `job` writes them from uploads and reads them for the child.
//!
//! STREAM (Hoang, Reyhanitabar, Rogaway, Vizár 2015) with AES-256-GCM: nonce = prefix 7 || chunk number u32 BE || last flag u8.
//! File: magic 9, prefix 7, then chunks of 64 KiB + 16; only the last may be shorter. Associated data: magic, call id, prefix.

mod aside;
mod block;
mod file;
mod look;
mod reader;
mod writer;

#[cfg(test)]
mod tests;

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::rand::{SecureRandom, SystemRandom};

pub use aside::AsideError;
pub(in crate::record) use aside::{KnownCalls, Moved};
pub use reader::SegmentReader;
pub use writer::{Piece, SegmentWriter, Spare};

use self::file::PartialFile;
use crate::base::ids::CallId;
use crate::base::secret::Secret;

use super::envelope::{Envelope, KEY_BYTES, SealError};

/// Plain bytes of a chunk.
pub const CHUNK: usize = 64 * 1024;
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
    /// A piece before this one was not written, and says why itself.
    #[error("an earlier piece of the recording was not written")]
    Gap,
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
        let file = PartialFile::create(self, call)?;
        Ok(SegmentWriter::new(Stream { key, call, prefix }, file))
    }

    /// Opens a finished recording and checks both its ends.
    ///
    /// # Errors
    /// `Forged` when it was truncated, extended or is another call's; `Io` when it is absent.
    pub fn read(&self, call: CallId, envelope: &Envelope) -> Result<SegmentReader, SegmentError> {
        let key = envelope.sub_key("audio").map_err(SegmentError::Seal)?;
        let file = File::open(self.file(call, FINISHED)).map_err(SegmentError::io("open"))?;
        SegmentReader::open(file, key, call)
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

    fn header(&self) -> Vec<u8> {
        [MAGIC.as_slice(), &self.prefix].concat()
    }
}

fn wide(len: usize) -> u64 {
    u64::try_from(len).unwrap_or(u64::MAX)
}
