//! A directory that appears whole or not at all.
//! Trusts: that nobody else writes beside the target.
//! Touches: a hidden directory beside the target; removed again unless it was put in place.
//! Next: `import` fills it.

use std::fs::{self, File, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};

use crate::model::manifest::FileEntry;
use crate::model::verify::sha256;

/// Models are no secret, and the worker's own user reads them whatever the operator's umask is.
const DIRECTORY_MODE: u32 = 0o755;
const FILE_MODE: u32 = 0o644;

/// The hidden directory with what was written so far.
pub struct Staging {
    path: PathBuf,
    files: Vec<FileEntry>,
}

impl Staging {
    /// A new directory on the target's own file system.
    ///
    /// # Errors
    /// What the system says; a target without a name is refused too.
    pub fn beside(target: &Path) -> io::Result<Self> {
        let name = target.file_name().ok_or(io::ErrorKind::InvalidInput)?;
        let parent = target.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        fs::create_dir_all(parent)?;
        let path = parent.join(format!(".{}.importing-{}", name.display(), std::process::id()));
        fs::create_dir(&path)?;
        let staging = Self { path, files: Vec::new() };
        fs::set_permissions(&staging.path, Permissions::from_mode(DIRECTORY_MODE))?;
        Ok(staging)
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What was written, in order.
    pub fn files(&self) -> &[FileEntry] {
        &self.files
    }

    /// Writes one file and makes it durable.
    ///
    /// # Errors
    /// What the system says.
    pub fn write(&mut self, name: &str, bytes: &[u8]) -> io::Result<()> {
        let mut file = File::create_new(self.path.join(name))?;
        file.set_permissions(Permissions::from_mode(FILE_MODE))?;
        file.write_all(bytes)?;
        file.sync_all()?;
        let size = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        self.files.push(FileEntry { name: name.to_owned(), bytes: size, sha256: sha256(bytes) });
        Ok(())
    }

    /// Moves the directory to its place in one step; what was there before is removed.
    ///
    /// # Errors
    /// What the system says.
    pub fn put_in_place(self, target: &Path) -> io::Result<()> {
        File::open(&self.path)?.sync_all()?;
        // After an exchange the old directory lies in the staging place, where `drop` removes it.
        let flags = if target.exists() { RenameFlags::RENAME_EXCHANGE } else { RenameFlags::RENAME_NOREPLACE };
        renameat2(AT_FDCWD, &self.path, AT_FDCWD, target, flags)?;
        let parent = target.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        File::open(parent)?.sync_all()
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        // Gone already when it was renamed; what cannot be removed is hidden and harmless.
        let _ = fs::remove_dir_all(&self.path);
    }
}
