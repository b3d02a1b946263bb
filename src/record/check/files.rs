//! Files that nobody knows.
//! Trusts: nothing.
//! Touches: the state directory, reading.
//! Next: [`super`] reports them.

use std::fs;
use std::path::{Path, PathBuf};

use super::{Calls, Check, CheckError};
use crate::ipc::maintenance::{StoreFault, shown};
use crate::record::copy;
use crate::record::segments::SegmentDirectory;

impl Check<'_, '_> {
    /// Files that nobody knows. Uploads that were cut off are known: the next start removes them.
    pub(super) fn files(&mut self, calls: &Calls) -> Result<(), CheckError> {
        let known = ["store.redb", "ballast", "audio", "lost+found"];
        let aside = SegmentDirectory::aside(self.state)?;
        for (name, file) in entries(self.state)? {
            let copied = self.copies.contains(&file) || aside.contains(&file) || copy::is_unfinished(&name);
            if !copied && !known.contains(&name.as_str()) {
                self.fault(StoreFault::Stray { file: shown(&file) });
            }
        }
        let audio = SegmentDirectory::below(self.state);
        if !audio.exists() {
            return Ok(());
        }
        for (name, file) in entries(&audio)? {
            match SegmentDirectory::call_of(&name) {
                Some((call, true)) if !calls.get(&call).is_some_and(|known| known.header) => {
                    self.fault(StoreFault::RecordingWithoutCall { call });
                }
                Some(_) => {}
                None => self.fault(StoreFault::Stray { file: shown(&file) }),
            }
        }
        Ok(())
    }
}

fn entries(directory: &Path) -> Result<Vec<(String, PathBuf)>, CheckError> {
    let failed = |source| CheckError::Read { path: directory.to_owned(), source };
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        found.push((entry.file_name().to_string_lossy().into_owned(), entry.path()));
    }
    found.sort();
    Ok(found)
}
