//! What a set-up that is cut off leaves in the TPM: noted before it is made, destroyed by the next set-up.
//! Trusts: a note in a directory of the caller's own; in the TPM it touches only places with the mark that the note says.
//! Touches: the TPM's NV memory, the directories beside the key directory in which a set-up gathers its files.
//! Next: `provision` goes on.
//!
//! The note lies in the directory that becomes the key directory by its rename: as long as there is no box, there is a note beside it, and
//! once there is one, nothing that looks for notes finds it. It opens nothing: it says where the places are and what they are marked with,
//! which whoever lists the TPM's NV memory sees too.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use nix::unistd::{Uid, geteuid};
use serde::{Deserialize, Serialize};

use super::container::{self, ContainerError, MacKey, Sort};
use super::directory::{DirectoryError, FILE_MAX, NewDirectory, gathering_places};
use super::tpm::nv::Mark;
use super::tpm::{Address, StorageRoot, Tpm, TpmError};

/// The note's file.
pub const NOTE: &str = "unfinished";
const SORT: Sort = Sort::new(b"salama set-up  \n", 1);

/// What the set-up makes in the TPM.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Note {
    /// By which the TPM is recognised.
    pub storage_root: StorageRoot,
    /// What the places bear.
    pub mark: Mark,
    /// Their indices.
    pub places: Vec<u32>,
}

impl Note {
    /// The file.
    ///
    /// # Errors
    /// [`ContainerError::Body`].
    pub fn write(&self, mac: &MacKey) -> Result<Vec<u8>, ContainerError> {
        container::write(SORT, self, mac)
    }

    /// Reads what is whole. The key that would authenticate it went with the set-up: who may write where it lies is the caller alone.
    ///
    /// # Errors
    /// [`ContainerError`].
    pub fn read(file: &[u8]) -> Result<Self, ContainerError> {
        Ok(container::read::<Self>(SORT, file)?.before_authentication().clone())
    }

    /// Destroys what is there of it.
    ///
    /// # Errors
    /// [`TpmError`]; [`TpmError::OtherTpm`] where another TPM is.
    fn destroy(&self, address: Address<'_>) -> Result<(), TpmError> {
        let mut tpm = Tpm::connect(address, Some(&self.storage_root))?;
        self.places.iter().try_for_each(|place| tpm.destroy_half(*place, &self.mark))
    }
}

/// A set-up that is under way. Dropped before [`Self::finish`], it takes back what it made in the TPM.
pub struct Unfinished<'a> {
    address: Address<'a>,
    directory: &'a NewDirectory,
    note: Note,
    done: bool,
}

impl<'a> Unfinished<'a> {
    /// Puts the note down, durably.
    ///
    /// # Errors
    /// [`UnfinishedError`].
    pub fn begin(address: Address<'a>, directory: &'a NewDirectory, note: Note, mac: &MacKey) -> Result<Self, UnfinishedError> {
        directory.add(NOTE, &note.write(mac)?)?;
        directory.sync()?;
        Ok(Self { address, directory, note, done: false })
    }

    /// The box is there, in this directory: what it has in the TPM stays.
    pub fn finish(mut self, keys: &Path) {
        self.done = true;
        // One that stays says of the box's own places that they are its own, and nobody reads it there.
        let _ = fs::remove_file(keys.join(NOTE));
    }
}

impl Drop for Unfinished<'_> {
    fn drop(&mut self) {
        if !self.done && self.note.destroy(self.address).is_err() {
            self.directory.leave();
        }
    }
}

/// Destroys what set-ups of this key directory left that were cut off; `owner` is whom the box is to belong to, if another than the caller.
/// Those of a TPM that is not here stay noted.
///
/// # Errors
/// [`UnfinishedError`].
pub fn clear(keys: &Path, owner: Option<Uid>, address: Address<'_>) -> Result<(), UnfinishedError> {
    let failed = |source| DirectoryError::Read { path: keys.to_owned(), source };
    for place in gathering_places(keys).map_err(failed)? {
        // Held by a set-up that is alive; or gone, or somebody else's.
        let Ok(Some(_held)) = taken(&place, owner) else { continue };
        let cleared = match note_in(&place)? {
            Some(note) => note.destroy(address),
            // It is there, whole, before anything is made in the TPM.
            None => Ok(()),
        };
        match cleared {
            Ok(()) => fs::remove_dir_all(&place).map_err(|source| DirectoryError::Write { path: place.clone(), source })?,
            Err(TpmError::OtherTpm) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// The directory, held alone, when it is the caller's, or handed over already, and no living set-up's.
fn taken(place: &Path, owner: Option<Uid>) -> io::Result<Option<File>> {
    let directory = OpenOptions::new().read(true).custom_flags(libc::O_DIRECTORY | libc::O_NOFOLLOW).open(place)?;
    let found = Uid::from_raw(directory.metadata()?.uid());
    let own = found == geteuid() || Some(found) == owner;
    Ok((own && directory.try_lock().is_ok()).then_some(directory))
}

/// None only where there is none: what cannot be read may say of places that nobody would find again.
fn note_in(place: &Path) -> Result<Option<Note>, UnfinishedError> {
    let path = place.join(NOTE);
    let failed = |source| DirectoryError::Read { path: path.clone(), source };
    let file = match OpenOptions::new().read(true).custom_flags(libc::O_NOFOLLOW).open(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        opened => opened.map_err(failed)?,
    };
    let mut bytes = Vec::new();
    file.take(FILE_MAX).read_to_end(&mut bytes).map_err(failed)?;
    match Note::read(&bytes) {
        Ok(note) => Ok(Some(note)),
        // Cut short while it was written: nothing was made in the TPM by then.
        Err(ContainerError::Damaged) => Ok(None),
        Err(source) => Err(UnfinishedError::Unknown { path, source }),
    }
}

/// Why a set-up could not begin, or what another left could not be destroyed.
#[derive(Debug, thiserror::Error)]
pub enum UnfinishedError {
    /// The directory.
    #[error(transparent)]
    Directory(#[from] DirectoryError),
    /// The note.
    #[error("what the set-up makes in the TPM could not be noted")]
    Note(#[from] ContainerError),
    /// The note of a set-up that was cut off is none that this program reads.
    #[error("a set-up that was cut off left {}, which says what it made in the TPM, and it cannot be understood; where it is removed, those places stay taken until the TPM is cleared", .path.display())]
    Unknown {
        /// The note's file.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: ContainerError,
    },
    /// The TPM.
    #[error("what a set-up that was cut off left in the TPM could not be destroyed")]
    Tpm(#[from] TpmError),
}
