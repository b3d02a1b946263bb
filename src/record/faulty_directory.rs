//! A directory on a disk that fails where it is told to: names come, change and go, and are durable only once they are synced.
//! Trusts: nothing.
//! Touches: memory.
//! Next: the tests of copies.
//!
//! A power cut leaves the names that were synced, and of the changes since as many as chance leaves, in their order, as journals do.
//! What is in the files is another matter: a name may be durable before what it names.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use redb::{Database, StorageBackend as _};

use super::faulty_disk::{Fault, FaultyDisk, Operation, Weather, failed, no_room};
use super::files::Files;
use super::store::OpenStoreError;

#[derive(Clone)]
pub(in crate::record) struct FaultyDirectory {
    names: Arc<Mutex<Names>>,
    weather: Arc<Mutex<Weather>>,
}

type Listing = BTreeMap<PathBuf, FaultyDisk>;

#[derive(Default)]
struct Names {
    seen: Listing,
    durable: Listing,
    pending: Vec<Change>,
}

#[derive(Clone)]
enum Change {
    Made(PathBuf, FaultyDisk),
    Renamed(PathBuf, PathBuf),
    Removed(PathBuf),
}

impl Change {
    fn apply(&self, names: &mut Listing) {
        match self {
            Self::Made(path, file) => drop(names.insert(path.clone(), file.clone())),
            Self::Removed(path) => drop(names.remove(path)),
            Self::Renamed(from, to) => {
                let file = names.remove(from).unwrap();
                names.insert(to.clone(), file);
            }
        }
    }
}

impl FaultyDirectory {
    /// One file, on a disk that is sound.
    pub(in crate::record) fn with(path: &Path, file: &FaultyDisk) -> Self {
        let weather = Arc::new(Mutex::new(Weather::failing(u64::MAX, Fault::Error)));
        Self::of([(path.to_owned(), file.copy_below(&weather))].into(), weather)
    }

    fn of(durable: Listing, weather: Arc<Mutex<Weather>>) -> Self {
        let names = Names { seen: durable.clone(), durable, pending: Vec::new() };
        Self { names: Arc::new(Mutex::new(names)), weather }
    }

    /// This directory as it is, but it fails at operation `at` from now. Nothing of it is pending.
    pub(in crate::record) fn copy_failing(&self, at: u64, fault: Fault) -> Self {
        let weather = Arc::new(Mutex::new(Weather::failing(at, fault)));
        let files = self.names().seen.iter().map(|(path, file)| (path.clone(), file.copy_below(&weather))).collect();
        Self::of(files, weather)
    }

    pub(in crate::record) fn operations(&self) -> Vec<Operation> {
        self.weather().operations().to_vec()
    }

    /// There is room again, and nothing fails any more.
    pub(in crate::record) fn relieve(&self) {
        self.weather().relieve();
    }

    /// As it is found when the power is back.
    pub(in crate::record) fn after_power_cut(&self) -> Self {
        let mut chance = self.weather().clone();
        let sound = Arc::new(Mutex::new(Weather::failing(u64::MAX, Fault::Error)));
        let names = self.names();
        let mut durable = names.durable.clone();
        let reached = usize::try_from(chance.next()).unwrap() % (names.pending.len() + 1);
        names.pending.iter().take(reached).for_each(|change| change.apply(&mut durable));
        let found = durable.into_iter().map(|(path, file)| (path, file.found(&mut chance, &sound))).collect();
        Self::of(found, sound)
    }

    /// What the files are called.
    pub(in crate::record) fn listed(&self) -> Vec<String> {
        self.names().seen.keys().map(|path| path.to_str().unwrap().to_owned()).collect()
    }

    /// Opens the file of this name, which must be there.
    pub(in crate::record) fn open(&self, path: &Path) -> Result<Database, OpenStoreError> {
        let file = self.names().seen[path].clone();
        file.open()
    }

    fn change(&self, change: Change) {
        let mut names = self.names();
        change.apply(&mut names.seen);
        names.pending.push(change);
    }

    /// One operation on names; whatever goes wrong with it, it is not done.
    fn strike(&self) -> io::Result<()> {
        match self.weather().strike(Operation::Name)? {
            None | Some(Fault::Full) => Ok(()),
            Some(_) => Err(failed()),
        }
    }

    fn names(&self) -> MutexGuard<'_, Names> {
        self.names.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn weather(&self) -> MutexGuard<'_, Weather> {
        self.weather.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Files for FaultyDirectory {
    type Opened = FaultyDisk;

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.strike()?;
        if self.names().seen.contains_key(path) {
            self.change(Change::Removed(path.to_owned()));
        }
        Ok(())
    }

    fn create(&self, path: &Path) -> io::Result<FaultyDisk> {
        self.strike()?;
        if self.weather().is_full() {
            return Err(no_room());
        }
        assert!(!self.names().seen.contains_key(path), "{} is there", path.display());
        let file = FaultyDisk::below(&self.weather);
        self.change(Change::Made(path.to_owned(), file.clone()));
        Ok(file)
    }

    fn sync(&self, path: &Path) -> io::Result<()> {
        let file = self.names().seen[path].clone();
        file.sync_data()
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.strike()?;
        self.change(Change::Renamed(from.to_owned(), to.to_owned()));
        Ok(())
    }

    fn sync_names(&self, _: &Path) -> io::Result<()> {
        self.strike()?;
        let mut names = self.names();
        names.durable = names.seen.clone();
        names.pending.clear();
        Ok(())
    }
}
