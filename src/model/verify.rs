//! Reads a model's directory once and hands out only bytes whose digests stand in the manifest.
//! Trusts: the manifest, which whoever installed the directory vouches for.
//! Touches: the directory, through one descriptor; links are not followed.
//! Next: `worker` takes the files from [`VerifiedModel`].

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use nix::fcntl::{OFlag, openat};
use nix::sys::stat::Mode;
use ring::digest::{Context, SHA256};

use crate::base::hex::hex;

use super::load::LoadError;
use super::manifest::{Manifest, ManifestError};

/// The file that describes a directory.
pub const MANIFEST: &str = "manifest.toml";
/// Largest manifest that is read, in bytes.
pub const MAX_MANIFEST_BYTES: u64 = 256 * 1024;
/// Largest model file that is read, in bytes: room for a large Whisper encoder.
pub const MAX_FILE_BYTES: u64 = 4 * 1024 * 1024 * 1024;
/// Bytes that are read at a time.
const PIECE: u64 = 256 * 1024;

/// A model whose every byte was hashed as it was read. Only [`verify`] makes one.
pub struct VerifiedModel {
    manifest: Manifest,
    manifest_sha256: String,
    files: BTreeMap<String, Vec<u8>>,
}

impl VerifiedModel {
    /// What the model says of itself.
    pub const fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// SHA-256 of `manifest.toml` as read, 64 hexadecimal digits: names this version of the model for good.
    pub fn manifest_sha256(&self) -> &str {
        &self.manifest_sha256
    }

    /// The bytes of a file.
    ///
    /// # Errors
    /// [`LoadError::NoFile`] when the manifest does not list it or it was taken.
    pub fn file(&self, name: &str) -> Result<&[u8], LoadError> {
        self.files.get(name).map(Vec::as_slice).ok_or_else(|| LoadError::NoFile { name: name.to_owned() })
    }

    /// The bytes of a file, for good: what was taken is not kept in memory twice.
    ///
    /// # Errors
    /// [`LoadError::NoFile`] when the manifest does not list it or it was taken before.
    pub fn take(&mut self, name: &str) -> Result<Vec<u8>, LoadError> {
        self.files.remove(name).ok_or_else(|| LoadError::NoFile { name: name.to_owned() })
    }
}

/// The model directories below `directory`, in order of name. A directory without a manifest is no model; a hidden one is being built.
///
/// # Errors
/// When `directory` cannot be read.
pub fn directories(directory: &Path) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(directory)? {
        let path = entry?.path();
        let hidden = path.file_name().is_none_or(|name| name.as_encoded_bytes().starts_with(b"."));
        if !hidden && path.join(MANIFEST).is_file() {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

/// Reads the manifest and exactly the files that it lists.
///
/// # Errors
/// [`VerifyError`] names the file that is missing, surplus, no plain file, or of another size or digest.
pub fn verify(directory: &Path) -> Result<VerifiedModel, VerifyError> {
    let flags = OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let opened = OpenOptions::new().read(true).custom_flags(flags.bits()).open(directory);
    let handle = opened.map_err(|source| VerifyError::Directory { source })?;
    let (text, manifest_sha256) = read_file(&handle, MANIFEST, MAX_MANIFEST_BYTES)?;
    let manifest = Manifest::parse(&text)?;
    refuse_surplus(&handle, &manifest)?;
    let mut files = BTreeMap::new();
    for entry in &manifest.files {
        let (bytes, digest) = read_file(&handle, &entry.name, entry.bytes)?;
        let found = length(&bytes);
        if found != entry.bytes {
            return Err(VerifyError::Size { name: entry.name.clone(), expected: entry.bytes, found });
        }
        if digest != entry.sha256 {
            return Err(VerifyError::Digest { name: entry.name.clone() });
        }
        files.insert(entry.name.clone(), bytes);
    }
    Ok(VerifiedModel { manifest, manifest_sha256, files })
}

/// Why a model was refused.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    /// The directory cannot be opened.
    #[error("the model's directory cannot be opened: {source}; run `make models`, or check the path")]
    Directory {
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The manifest cannot be used.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// A listed file is not there.
    #[error("the model's file {name} is missing; install the model again")]
    Missing {
        /// The file.
        name: String,
    },
    /// A file that the manifest does not list.
    #[error("the model's directory holds {}, which its manifest does not list; remove it", name.display())]
    Surplus {
        /// The file.
        name: OsString,
    },
    /// A link, directory, pipe or device.
    #[error("the model's file {name} is not a plain file; install the model again")]
    NotAFile {
        /// The file.
        name: String,
    },
    /// More bytes than allowed.
    #[error("the model's file {name} is larger than the {limit} bytes it may have; install the model again")]
    TooLarge {
        /// The file.
        name: String,
        /// The limit.
        limit: u64,
    },
    /// Another size than the manifest says.
    #[error("the model's file {name} has {found} bytes instead of {expected}; install the model again")]
    Size {
        /// The file.
        name: String,
        /// As the manifest says.
        expected: u64,
        /// As read.
        found: u64,
    },
    /// Another digest than the manifest says.
    #[error("the model's file {name} is not the one its manifest describes; install the model again")]
    Digest {
        /// The file.
        name: String,
    },
    /// The file system failed.
    #[error("the model's file {name} cannot be read: {source}")]
    Read {
        /// The file.
        name: String,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

/// The bytes and their digest. One descriptor for each file: what is hashed is what was read, once.
fn read_file(directory: &File, name: &str, limit: u64) -> Result<(Vec<u8>, String), VerifyError> {
    let failed = |source| VerifyError::Read { name: name.to_owned(), source };
    // Without O_NONBLOCK a pipe in the directory would hold the start-up for ever.
    let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
    let mut file = match openat(directory, name, flags, Mode::empty()) {
        Ok(descriptor) => File::from(descriptor),
        Err(nix::Error::ENOENT) => return Err(VerifyError::Missing { name: name.to_owned() }),
        Err(nix::Error::ELOOP | nix::Error::ENXIO) => return Err(VerifyError::NotAFile { name: name.to_owned() }),
        Err(error) => return Err(failed(error.into())),
    };
    let metadata = file.metadata().map_err(failed)?;
    if !metadata.is_file() {
        return Err(VerifyError::NotAFile { name: name.to_owned() });
    }
    let mut bytes = Vec::with_capacity(usize::try_from(metadata.len().min(limit)).unwrap_or(0));
    let mut digest = Context::new(&SHA256);
    loop {
        let hashed = bytes.len();
        file.by_ref().take(PIECE).read_to_end(&mut bytes).map_err(failed)?;
        if length(&bytes) > limit {
            return Err(VerifyError::TooLarge { name: name.to_owned(), limit });
        }
        // While the piece is still in the processor's cache.
        match bytes.split_at(hashed).1 {
            [] => return Ok((bytes, hex(digest.finish().as_ref()))),
            piece => digest.update(piece),
        }
    }
}

fn refuse_surplus(directory: &File, manifest: &Manifest) -> Result<(), VerifyError> {
    let failed = |source| VerifyError::Directory { source };
    // By the descriptor, so that the list is of the directory that the files are read from.
    for entry in std::fs::read_dir(format!("/proc/self/fd/{}", directory.as_raw_fd())).map_err(failed)? {
        let name = entry.map_err(failed)?.file_name();
        if name != MANIFEST && !manifest.files.iter().any(|listed| name == listed.name.as_str()) {
            return Err(VerifyError::Surplus { name });
        }
    }
    Ok(())
}

/// SHA-256 as 64 lower-case hexadecimal digits.
pub fn sha256(bytes: &[u8]) -> String {
    hex(ring::digest::digest(&SHA256, bytes).as_ref())
}

fn length(bytes: &[u8]) -> u64 {
    u64::try_from(bytes.len()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
