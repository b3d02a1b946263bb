//! The file of a recording that is not whole yet. It is written past the page cache where the file system allows that.
//! Trusts: nothing.
//! Touches: `STATE/audio/ID.part`, which becomes `ID.seg`.
//! Next: [`super::writer`] says what and where.
//!
//! Through the page cache every byte is copied once more, and its pages are found, locked, marked and written back one by one: more
//! work than to receive, open and seal it (docs/adr/0016). Nobody reads a recording before it is whole, so nothing is lost.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};

use nix::fcntl::{FcntlArg, OFlag, fcntl};

use super::{FINISHED, PARTIAL, SegmentDirectory, SegmentError, wide};
use crate::base::ids::CallId;

/// Bytes through the page cache after which they are made durable. Else the disk would only begin at the end, when somebody waits.
const AHEAD: u64 = 16 << 20;

/// A recording's file until it has its name. Dropped before, it is removed.
pub struct PartialFile {
    directory: SegmentDirectory,
    call: CallId,
    /// Where the file is now.
    path: PathBuf,
    file: File,
    direct: AtomicBool,
    kept: bool,
}

impl PartialFile {
    /// A new, empty one.
    pub fn create(directory: &SegmentDirectory, call: CallId) -> Result<Self, SegmentError> {
        let path = directory.file(call, PARTIAL);
        let file = OpenOptions::new().write(true).create_new(true).open(&path).map_err(SegmentError::io("create"))?;
        let partial = Self { directory: directory.clone(), call, path, file, direct: AtomicBool::new(true), kept: false };
        if partial.past_the_cache(true).is_err() {
            partial.direct.store(false, Ordering::Relaxed);
        }
        Ok(partial)
    }

    /// Writes whole aligned parts at an aligned offset.
    pub fn write(&self, bytes: &[u8], offset: u64) -> Result<(), SegmentError> {
        let written = match self.file.write_all_at(bytes, offset) {
            // A file system or disk that asks for more than our alignment, or was cut short in the middle of a part.
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
                self.through_the_cache().and_then(|()| self.file.write_all_at(bytes, offset))
            }
            written => written,
        };
        written.map_err(SegmentError::io("write"))?;
        let ahead = offset / AHEAD != (offset + wide(bytes.len())) / AHEAD;
        if ahead && !self.direct.load(Ordering::Relaxed) {
            // Its failure must count: the kernel tells it once, and the last sync would not see it.
            self.file.sync_data().map_err(SegmentError::io("sync"))?;
        }
        Ok(())
    }

    /// Writes the last bytes, `whole` of aligned parts and `rest` behind them, and makes the file durable under its final name.
    pub fn keep(
        mut self,
        whole: &[u8],
        rest: &[u8],
        offset: u64,
        sync: impl FnOnce(&SegmentDirectory) -> Result<(), SegmentError>,
    ) -> Result<(), SegmentError> {
        self.write(whole, offset)?;
        let ended = self.through_the_cache().and_then(|()| self.file.write_all_at(rest, offset + wide(whole.len())));
        ended.map_err(SegmentError::io("write"))?;
        self.file.sync_all().map_err(SegmentError::io("sync"))?;
        let finished = self.directory.file(self.call, FINISHED);
        fs::rename(&self.path, &finished).map_err(SegmentError::io("rename"))?;
        // Until the new name is durable, a drop removes the file under it.
        self.path = finished;
        sync(&self.directory)?;
        self.kept = true;
        Ok(())
    }

    /// Again is no error: pieces that are written beside each other may both find out.
    fn through_the_cache(&self) -> io::Result<()> {
        self.direct.store(false, Ordering::Relaxed);
        self.past_the_cache(false)
    }

    /// By `fcntl` and not when it is opened: a file system that refuses has made the file by then.
    fn past_the_cache(&self, past: bool) -> io::Result<()> {
        let mut flags = OFlag::from_bits_retain(fcntl(&self.file, FcntlArg::F_GETFL)?);
        flags.set(OFlag::O_DIRECT, past);
        fcntl(&self.file, FcntlArg::F_SETFL(flags))?;
        Ok(())
    }
}

impl Drop for PartialFile {
    fn drop(&mut self) {
        if !self.kept {
            // What cannot be removed now is swept at the next start.
            let _ = fs::remove_file(&self.path);
        }
    }
}
