//! The key directory: whom it belongs to, how it comes to be whole or not at all, how it is read.
//! Trusts: the file system to rename atomically.
//! Touches: the key directory and, while it is made, one directory beside it.
//! Next: `provision` writes it, the keeper's start-up reads it.

use std::cell::Cell;
use std::ffi::OsString;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use nix::unistd::{Gid, Uid, User, chown, geteuid};
use ring::rand::{SecureRandom as _, SystemRandom};

use crate::base::hex::hex;

/// The ways to the root key.
pub const KEYSLOTS: &str = "keyslots";
/// Certificates and wrapped private keys.
pub const KEYRING: &str = "keyring";
/// The authority's certificate in PEM, for clients; not read by the keeper.
pub const CA_PEM: &str = "ca.pem";

/// How often keys may be used, where the defaults do not do.
pub const LIMITS: &str = "limits.toml";

/// Longest file that is read, bytes; real ones have about 3 KiB.
pub const FILE_MAX: u64 = 64 * 1024;

/// The files that the keeper needs, as stored.
pub struct KeyFiles {
    /// Of [`KEYSLOTS`].
    pub slots: Vec<u8>,
    /// Of [`KEYRING`].
    pub keyring: Vec<u8>,
    /// Of [`LIMITS`]; empty where there is none.
    pub limits: Vec<u8>,
}

/// Reads the directory, once its owner and mode are right.
///
/// # Errors
/// [`DirectoryError`].
pub fn read(directory: &Path) -> Result<KeyFiles, DirectoryError> {
    check_private(directory)?;
    let limits = match read_file(&directory.join(LIMITS)) {
        Err(DirectoryError::Missing(_)) => Vec::new(),
        read => read?,
    };
    Ok(KeyFiles { slots: read_file(&directory.join(KEYSLOTS))?, keyring: read_file(&directory.join(KEYRING))?, limits })
}

/// Whether the caller may act for the operator: root, or the directory's owner.
///
/// # Errors
/// [`DirectoryError::NotOperator`] for anybody else.
pub fn check_operator(directory: &Path) -> Result<(), DirectoryError> {
    let caller = geteuid();
    if caller.is_root() || caller == owner(directory)? { Ok(()) } else { Err(DirectoryError::NotOperator) }
}

/// Number of the user that owns the directory.
///
/// # Errors
/// [`DirectoryError::Absent`].
pub fn owner(directory: &Path) -> Result<Uid, DirectoryError> {
    Ok(Uid::from_raw(stat(directory)?.uid()))
}

/// Whether nobody else may look into it.
///
/// # Errors
/// [`DirectoryError::Absent`], [`DirectoryError::Open`].
pub fn check_private(directory: &Path) -> Result<(), DirectoryError> {
    let found = stat(directory)?;
    if !found.is_dir() {
        return Err(DirectoryError::Absent(directory.to_owned()));
    }
    if found.mode() & 0o077 != 0 {
        return Err(DirectoryError::Open(directory.to_owned()));
    }
    Ok(())
}

fn stat(directory: &Path) -> Result<fs::Metadata, DirectoryError> {
    fs::symlink_metadata(directory).map_err(|source| match source.kind() {
        io::ErrorKind::NotFound => DirectoryError::Absent(directory.to_owned()),
        _ => DirectoryError::Read { path: directory.to_owned(), source },
    })
}

fn read_file(path: &Path) -> Result<Vec<u8>, DirectoryError> {
    let failed = |source| DirectoryError::Read { path: path.to_owned(), source };
    let file = OpenOptions::new().read(true).custom_flags(libc::O_NOFOLLOW).open(path).map_err(|source| match source.kind() {
        io::ErrorKind::NotFound => DirectoryError::Missing(path.to_owned()),
        _ => failed(source),
    })?;
    let mut bytes = Vec::new();
    file.take(FILE_MAX).read_to_end(&mut bytes).map_err(failed)?;
    Ok(bytes)
}

/// A key directory that does not exist yet: its files are gathered beside it and appear with one rename.
/// Dropped before [`Self::commit`], it leaves nothing, unless it was told to.
pub struct NewDirectory {
    target: PathBuf,
    partial: PathBuf,
    owner: Option<(Uid, Gid)>,
    /// Held alone while this process lives.
    held: File,
    left: Cell<bool>,
}

impl NewDirectory {
    /// Begins `target`, which must be missing or empty. `owner` is the user that the keeper serves as; the caller when absent.
    ///
    /// # Errors
    /// [`DirectoryError::Exists`] when something is there already; nothing is ever overwritten.
    pub fn begin(target: &Path, owner: Option<&str>) -> Result<Self, DirectoryError> {
        let occupied = match fs::read_dir(target) {
            Ok(mut entries) => entries.next().is_some(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => false,
            Err(source) => return Err(DirectoryError::Read { path: target.to_owned(), source }),
        };
        if occupied {
            return Err(DirectoryError::Exists(target.to_owned()));
        }
        let owner = owner.map(find_user).transpose()?;
        let mut name = gathering_name(target).ok_or_else(|| DirectoryError::Absent(target.to_owned()))?;
        // Process ids come again, and one of a set-up that was cut off may still be there.
        let mut random = [0; 8];
        let drawn = SystemRandom::new().fill(&mut random).map_err(|_| io::Error::other("no random numbers"));
        drawn.map_err(|source| DirectoryError::Write { path: target.to_owned(), source })?;
        name.push(hex(&random));
        let partial = target.with_file_name(name);
        let parent = parent_of(target);
        fs::create_dir_all(parent).map_err(|source| DirectoryError::Write { path: parent.to_owned(), source })?;
        let begun = || {
            DirBuilder::new().mode(0o700).create(&partial)?;
            let held = OpenOptions::new().read(true).custom_flags(libc::O_DIRECTORY | libc::O_NOFOLLOW).open(&partial)?;
            held.try_lock()?;
            Ok(held)
        };
        let held = begun().map_err(|source| DirectoryError::Write { path: partial.clone(), source })?;
        Ok(Self { target: target.to_owned(), partial, owner, held, left: Cell::new(false) })
    }

    /// Makes what was added so far durable.
    ///
    /// # Errors
    /// [`DirectoryError::Write`].
    pub fn sync(&self) -> Result<(), DirectoryError> {
        let synced = self.held.sync_all().and_then(|()| File::open(parent_of(&self.target))?.sync_all());
        synced.map_err(|source| DirectoryError::Write { path: self.partial.clone(), source })
    }

    /// The user that it is handed over to at the end, if another than the caller.
    pub fn owner(&self) -> Option<Uid> {
        self.owner.map(|(user, _)| user)
    }

    /// Lets what was gathered stay, for the next set-up to look at.
    pub fn leave(&self) {
        self.left.set(true);
    }

    /// Adds a file.
    ///
    /// # Errors
    /// [`DirectoryError::Write`].
    pub fn add(&self, name: &str, bytes: &[u8]) -> Result<(), DirectoryError> {
        let path = self.partial.join(name);
        let write = || {
            let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path)?;
            file.write_all(bytes)?;
            file.sync_all()?;
            self.hand_over(&path)
        };
        write().map_err(|source| DirectoryError::Write { path: path.clone(), source })
    }

    /// Makes the directory appear, whole and durable. `appeared` is told when it is there, before it is durable.
    ///
    /// # Errors
    /// [`DirectoryError::Exists`] when someone else was faster.
    pub fn commit(&self, appeared: impl FnOnce()) -> Result<(), DirectoryError> {
        let failed = |source: io::Error| match source.kind() {
            io::ErrorKind::DirectoryNotEmpty | io::ErrorKind::AlreadyExists => DirectoryError::Exists(self.target.clone()),
            _ => DirectoryError::Write { path: self.target.clone(), source },
        };
        self.held.sync_all().map_err(failed)?;
        self.hand_over(&self.partial).map_err(failed)?;
        // rename(2) replaces an empty directory and refuses any other: two set-ups at once cannot overwrite each other.
        fs::rename(&self.partial, &self.target).map_err(failed)?;
        appeared();
        File::open(parent_of(&self.target)).and_then(|parent| parent.sync_all()).map_err(failed)
    }

    fn hand_over(&self, path: &Path) -> io::Result<()> {
        match self.owner {
            Some((user, group)) => Ok(chown(path, Some(user), Some(group))?),
            None => Ok(()),
        }
    }
}

impl Drop for NewDirectory {
    fn drop(&mut self) {
        if !self.left.get() {
            // After a commit the name is gone and this does nothing; what else could fail here leaves sealed files that were never used.
            let _ = fs::remove_dir_all(&self.partial);
        }
    }
}

/// How the names of directories begin in which the files of this one are gathered.
fn gathering_name(target: &Path) -> Option<OsString> {
    let mut name = OsString::from(".");
    name.push(target.file_name()?);
    name.push(".partial-");
    Some(name)
}

/// Directories in which the files of this one are gathered, or were by a set-up that was cut off.
///
/// # Errors
/// What the kernel says.
pub fn gathering_places(target: &Path) -> io::Result<Vec<PathBuf>> {
    let Some(prefix) = gathering_name(target) else { return Ok(Vec::new()) };
    let entries = fs::read_dir(parent_of(target))?.collect::<io::Result<Vec<_>>>()?;
    let begins = |name: OsString| name.as_encoded_bytes().starts_with(prefix.as_encoded_bytes());
    Ok(entries.into_iter().filter(|entry| begins(entry.file_name())).map(|entry| entry.path()).collect())
}

fn parent_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

fn find_user(name: &str) -> Result<(Uid, Gid), DirectoryError> {
    let found = match name.parse::<u32>() {
        Ok(uid) => User::from_uid(Uid::from_raw(uid)),
        Err(_) => User::from_name(name),
    };
    found.ok().flatten().map(|user| (user.uid, user.gid)).ok_or_else(|| DirectoryError::NoUser(name.to_owned()))
}

/// Why the key directory could not be made or read.
#[derive(Debug, thiserror::Error)]
pub enum DirectoryError {
    /// There is none.
    #[error("there is no key directory {}: set the box up with `salama init`", .0.display())]
    Absent(PathBuf),
    /// A file is missing in it.
    #[error("{} is missing: restore the key directory from a backup", .0.display())]
    Missing(PathBuf),
    /// Others may look into it.
    #[error("others may open the key directory {}: run `chmod 700` on it", .0.display())]
    Open(PathBuf),
    /// It exists already.
    #[error("{} is not empty: this box is set up already and nothing was changed", .0.display())]
    Exists(PathBuf),
    /// The caller is neither root nor the owner.
    #[error("only root or the owner of the key directory may use the keys")]
    NotOperator,
    /// The owner-to-be does not exist.
    #[error("there is no user {0} on this machine: create it first")]
    NoUser(String),
    /// Somebody else changes it.
    #[error("another program changes the keys in {} just now: wait for its end, then try again", .0.display())]
    Locked(PathBuf),
    /// Reading failed.
    #[error("{} cannot be read", .path.display())]
    Read {
        /// What.
        path: PathBuf,
        /// What the kernel says.
        #[source]
        source: io::Error,
    },
    /// Writing failed.
    #[error("{} cannot be written", .path.display())]
    Write {
        /// What.
        path: PathBuf,
        /// What the kernel says.
        #[source]
        source: io::Error,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_appears_whole_or_not_at_all() {
        let base = tempfile::tempdir().unwrap();
        let target = base.path().join("keys");
        let new = NewDirectory::begin(&target, None).unwrap();
        new.add(KEYSLOTS, b"slot").unwrap();
        assert!(!target.exists());
        drop(new);
        assert_eq!(fs::read_dir(base.path()).unwrap().count(), 0);

        let new = NewDirectory::begin(&target, None).unwrap();
        new.add(KEYSLOTS, b"slot").unwrap();
        new.add(KEYRING, b"ring").unwrap();
        new.commit(|| ()).unwrap();
        assert_eq!(read(&target).unwrap().keyring, b"ring");
        assert_eq!(fs::read_dir(base.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_directory_with_anything_in_it_is_never_overwritten() {
        let base = tempfile::tempdir().unwrap();
        let target = base.path().join("keys");
        let slow = NewDirectory::begin(&target, None).unwrap();
        fs::create_dir(&target).unwrap();
        fs::write(target.join("other"), "x").unwrap();
        assert!(matches!(NewDirectory::begin(&target, None), Err(DirectoryError::Exists(_))));
        assert!(matches!(slow.commit(|| ()), Err(DirectoryError::Exists(_))));
        assert_eq!(fs::read(target.join("other")).unwrap(), b"x");
    }

    #[test]
    fn a_directory_that_others_may_open_is_refused() {
        let base = tempfile::tempdir().unwrap();
        let target = base.path().join("keys");
        DirBuilder::new().mode(0o750).create(&target).unwrap();
        assert!(matches!(read(&target), Err(DirectoryError::Open(_))));
    }

    #[test]
    fn a_missing_file_is_named() {
        let base = tempfile::tempdir().unwrap();
        let target = base.path().join("keys");
        DirBuilder::new().mode(0o700).create(&target).unwrap();
        assert!(matches!(read(&target), Err(DirectoryError::Missing(path)) if path.ends_with(KEYSLOTS)));
    }
}
