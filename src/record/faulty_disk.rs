//! A disk of a test's own that fails where it is told to: full, faulty, cut short, or without power.
//! Trusts: nothing.
//! Touches: memory.
//! Next: [`super::faults`] runs the store on it, [`super::faulty_directory`] has several files of it.
//!
//! Reads see what was written. A power cut leaves what was synced, and of the rest what chance leaves: sectors, in no order.

use std::collections::BTreeSet;
use std::fmt;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use redb::{Database, StorageBackend};

use super::database;
use super::store::OpenStoreError;

const PAGE: usize = 4096;
const SECTOR: usize = 512;

/// What goes wrong at one operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::record) enum Fault {
    /// From there on no page more than those that are there.
    Full,
    /// The operation does nothing and says so.
    Error,
    /// Half of a write, then the disk is full.
    Short,
    /// A sync that fails and whose pages the system takes for written, as Linux does: reads still see them.
    SyncLost,
    /// The same, but some sectors of them did reach the disk.
    SyncHalf,
    /// Nothing happens any more.
    PowerCut,
}

/// What an operation is on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::record) enum Operation {
    Write,
    Length,
    Sync,
    /// A name in a directory, or all of them.
    Name,
}

impl Operation {
    /// What can go wrong with it, each in a way of its own.
    pub(in crate::record) const fn faults(self) -> &'static [Fault] {
        match self {
            Self::Write => &[Fault::Full, Fault::Error, Fault::Short, Fault::PowerCut],
            Self::Sync => &[Fault::SyncLost, Fault::SyncHalf, Fault::PowerCut],
            Self::Length | Self::Name => &[Fault::Full, Fault::Error, Fault::PowerCut],
        }
    }
}

/// One file of a disk; alone, it is the disk. Clones are the same file.
#[derive(Clone)]
pub(in crate::record) struct FaultyDisk {
    file: Arc<Mutex<Platter>>,
    weather: Arc<Mutex<Weather>>,
}

/// What all files of a disk have in common.
#[derive(Clone)]
pub(in crate::record) struct Weather {
    operations: Vec<Operation>,
    fault: (u64, Fault),
    full: bool,
    dark: bool,
    chance: u64,
}

#[derive(Clone, Default)]
struct Platter {
    seen: Vec<u8>,
    durable: Vec<u8>,
    pending: Vec<Change>,
    allocated: BTreeSet<usize>,
}

#[derive(Clone)]
enum Change {
    Write(usize, Vec<u8>),
    Length(usize),
}

impl fmt::Debug for FaultyDisk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FaultyDisk")
    }
}

impl FaultyDisk {
    /// An empty disk that fails at operation `at` (counted from 0).
    pub(in crate::record) fn failing(at: u64, fault: Fault) -> Self {
        Self::below(&Arc::new(Mutex::new(Weather::failing(at, fault))))
    }

    pub(in crate::record) fn sound() -> Self {
        Self::failing(u64::MAX, Fault::Error)
    }

    /// An empty file of a disk.
    pub(in crate::record) fn below(weather: &Arc<Mutex<Weather>>) -> Self {
        Self { file: Arc::default(), weather: Arc::clone(weather) }
    }

    /// This disk as it is, but it fails at operation `at` from now.
    pub(in crate::record) fn copy_failing(&self, at: u64, fault: Fault) -> Self {
        self.copy_below(&Arc::new(Mutex::new(Weather::failing(at, fault))))
    }

    /// The same file on another disk.
    pub(in crate::record) fn copy_below(&self, weather: &Arc<Mutex<Weather>>) -> Self {
        Self { file: Arc::new(Mutex::new(self.platter().clone())), weather: Arc::clone(weather) }
    }

    /// Writes, changes of length and syncs so far.
    pub(in crate::record) fn operations(&self) -> u64 {
        self.weather().done()
    }

    /// There is room again.
    pub(in crate::record) fn relieve(&self) {
        self.weather().relieve();
    }

    /// The disk as it is found when the power is back.
    pub(in crate::record) fn after_power_cut(&self) -> Self {
        let mut chance = self.weather().clone();
        self.found(&mut chance, &Arc::new(Mutex::new(Weather::failing(u64::MAX, Fault::Error))))
    }

    /// The file as it is found, on a disk that is sound.
    pub(in crate::record) fn found(&self, chance: &mut Weather, sound: &Arc<Mutex<Weather>>) -> Self {
        let mut platter = self.platter().clone();
        let pending = std::mem::take(&mut platter.pending);
        platter.settle_by_chance(pending, chance);
        let seen = platter.durable.clone();
        let allocated = (0..seen.len().div_ceil(PAGE)).collect();
        let found = Platter { durable: seen.clone(), seen, allocated, ..Platter::default() };
        Self { file: Arc::new(Mutex::new(found)), weather: Arc::clone(sound) }
    }

    pub(in crate::record) fn open(&self) -> Result<Database, OpenStoreError> {
        let opened = database::builder().create_with_backend(self.clone());
        opened.map_err(|error| OpenStoreError::of("faulty disk".as_ref(), error.into()))
    }

    fn platter(&self) -> MutexGuard<'_, Platter> {
        self.file.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn weather(&self) -> MutexGuard<'_, Weather> {
        self.weather.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Weather {
    pub(in crate::record) fn failing(at: u64, fault: Fault) -> Self {
        Self { operations: Vec::new(), fault: (at, fault), full: false, dark: false, chance: at.wrapping_mul(0x9e37_79b9) | 1 }
    }

    /// Operations so far.
    pub(in crate::record) fn operations(&self) -> &[Operation] {
        &self.operations
    }

    fn done(&self) -> u64 {
        self.operations.len() as u64
    }

    pub(in crate::record) const fn is_full(&self) -> bool {
        self.full
    }

    pub(in crate::record) const fn relieve(&mut self) {
        self.full = false;
        self.fault.0 = u64::MAX;
    }

    /// Counts an operation and tells what goes wrong with it.
    pub(in crate::record) fn strike(&mut self, operation: Operation) -> io::Result<Option<Fault>> {
        if self.dark {
            return Err(failed());
        }
        let now = self.done();
        self.operations.push(operation);
        let fault = Some(self.fault).filter(|(at, _)| *at == now).map(|(_, fault)| fault);
        match fault {
            Some(Fault::PowerCut) => {
                self.dark = true;
                return Err(failed());
            }
            Some(Fault::Full) => self.full = true,
            _ => {}
        }
        Ok(fault)
    }

    /// Xorshift: the same faults in every run.
    pub(in crate::record) const fn next(&mut self) -> u64 {
        self.chance ^= self.chance << 13;
        self.chance ^= self.chance >> 7;
        self.chance ^= self.chance << 17;
        self.chance >> 11
    }
}

impl Platter {
    fn write(&mut self, at: usize, data: &[u8], full: bool) -> io::Result<()> {
        let pages = at / PAGE..(at + data.len()).div_ceil(PAGE);
        if full && pages.clone().any(|page| !self.allocated.contains(&page)) {
            return Err(no_room());
        }
        self.allocated.extend(pages);
        self.seen[at..at + data.len()].copy_from_slice(data);
        self.pending.push(Change::Write(at, data.to_vec()));
        Ok(())
    }

    fn settle(&mut self) {
        for change in std::mem::take(&mut self.pending) {
            match change {
                Change::Length(length) => self.durable.resize(length, 0),
                Change::Write(at, data) => {
                    let end = self.durable.len().max(at + data.len());
                    self.durable.resize(end, 0);
                    self.durable[at..at + data.len()].copy_from_slice(&data);
                }
            }
        }
    }

    fn settle_by_chance(&mut self, pending: Vec<Change>, chance: &mut Weather) {
        for change in pending {
            match (chance.next() % 3, change) {
                (0, _) => {}
                (_, Change::Length(length)) => self.durable.resize(length, 0),
                (kind, Change::Write(at, data)) => {
                    let end = self.durable.len().max(at + data.len());
                    self.durable.resize(end, 0);
                    for (number, sector) in data.chunks(SECTOR).enumerate() {
                        if kind == 1 || chance.next().is_multiple_of(2) {
                            let at = at + number * SECTOR;
                            self.durable[at..at + sector.len()].copy_from_slice(sector);
                        }
                    }
                }
            }
        }
    }
}

pub(in crate::record) fn failed() -> io::Error {
    io::Error::from_raw_os_error(libc::EIO)
}

pub(in crate::record) fn no_room() -> io::Error {
    io::Error::from_raw_os_error(libc::ENOSPC)
}

impl StorageBackend for FaultyDisk {
    fn len(&self) -> io::Result<u64> {
        if self.weather().dark { Err(failed()) } else { Ok(self.platter().seen.len() as u64) }
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let dark = self.weather().dark;
        let platter = self.platter();
        let at = usize::try_from(offset).unwrap();
        match platter.seen.get(at..at + out.len()) {
            Some(bytes) if !dark => out.copy_from_slice(bytes),
            _ => return Err(failed()),
        }
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let (mut weather, mut platter) = (self.weather(), self.platter());
        let len = usize::try_from(len).unwrap();
        match weather.strike(Operation::Length)? {
            None | Some(Fault::Full) if weather.full && len > platter.seen.len() => return Err(no_room()),
            None | Some(Fault::Full) => {}
            Some(_) => return Err(failed()),
        }
        platter.seen.resize(len, 0);
        platter.pending.push(Change::Length(len));
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        let (mut weather, mut platter) = (self.weather(), self.platter());
        match weather.strike(Operation::Sync)? {
            None | Some(Fault::Full) => {
                platter.settle();
                return Ok(());
            }
            // The length is the file's own, and stays to be written.
            Some(Fault::SyncLost) => platter.pending.retain(|change| matches!(change, Change::Length(_))),
            Some(Fault::SyncHalf) => {
                let lengths = platter.pending.iter().filter(|change| matches!(change, Change::Length(_))).cloned().collect();
                let pending = std::mem::replace(&mut platter.pending, lengths);
                platter.settle_by_chance(pending, &mut weather);
            }
            Some(_) => {}
        }
        Err(failed())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let (mut weather, mut platter) = (self.weather(), self.platter());
        let at = usize::try_from(offset).unwrap();
        match weather.strike(Operation::Write)? {
            None | Some(Fault::Full) => platter.write(at, data, weather.full),
            Some(Fault::Short) => platter.write(at, &data[..data.len() / 2], weather.full).and(Err(no_room())),
            Some(_) => Err(failed()),
        }
    }
}
