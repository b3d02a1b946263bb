//! What can be told of recordings without a call's key.
//! Trusts: nothing.
//! Touches: `STATE/audio`, reading.
//! Next: [`crate::record::check`] reports it.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use super::{FINISHED, HEADER, MAGIC, PARTIAL, SegmentDirectory, SegmentError, TAG, wide};
use crate::base::ids::CallId;

impl SegmentDirectory {
    /// The directory as it is, which is not made when absent.
    pub(in crate::record) fn as_it_is(state: &Path) -> Self {
        Self { path: Self::below(state) }
    }

    /// The call whose recording has this file name, and whether it is a finished one.
    pub(in crate::record) fn call_of(name: &str) -> Option<(CallId, bool)> {
        let (stem, extension) = name.rsplit_once('.')?;
        let finished = match extension {
            FINISHED => true,
            PARTIAL => false,
            _ => return None,
        };
        Some((stem.parse().ok()?, finished))
    }

    /// Whether the recording of `call` begins as one and is long enough for one.
    ///
    /// # Errors
    /// `Forged`; `Io` when it is absent.
    pub(in crate::record) fn has_form(&self, call: CallId) -> Result<(), SegmentError> {
        let file = File::open(self.file(call, FINISHED)).map_err(SegmentError::io("open"))?;
        let mut header = [0; HEADER];
        file.read_exact_at(&mut header, 0).map_err(SegmentError::read)?;
        let len = file.metadata().map_err(SegmentError::io("size"))?.len();
        if header.starts_with(MAGIC) && len >= wide(HEADER + TAG) { Ok(()) } else { Err(SegmentError::Forged) }
    }
}
