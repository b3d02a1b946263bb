//! A disk of a test's own that fails where it is told to: full, faulty, cut short, or without power.
//! Trusts: nothing.
//! Touches: memory.
//! Next: [`super::faults`] runs the store on it.
//!
//! Reads see what was written. A power cut leaves what was synced, and of the rest what chance leaves: sectors, in no order.

use std::collections::BTreeSet;
use std::fmt;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};

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

/// Clones are the same disk.
#[derive(Clone)]
pub(in crate::record) struct FaultyDisk(Arc<Mutex<Platter>>);

#[derive(Clone, Default)]
struct Platter {
    seen: Vec<u8>,
    durable: Vec<u8>,
    pending: Vec<Change>,
    allocated: BTreeSet<usize>,
    operations: u64,
    fault: Option<(u64, Fault)>,
    full: bool,
    dark: bool,
    chance: u64,
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
        Self(Arc::new(Mutex::new(Platter { fault: Some((at, fault)), chance: at.wrapping_mul(0x9e37_79b9) | 1, ..Platter::default() })))
    }

    pub(in crate::record) fn sound() -> Self {
        Self::failing(u64::MAX, Fault::Error)
    }

    /// This disk as it is, but it fails at operation `at` from now.
    pub(in crate::record) fn copy_failing(&self, at: u64, fault: Fault) -> Self {
        let platter = self.platter().clone();
        let chance = at.wrapping_mul(0x9e37_79b9) | 1;
        Self(Arc::new(Mutex::new(Platter { fault: Some((at, fault)), chance, operations: 0, ..platter })))
    }

    /// Writes, changes of length and syncs so far.
    pub(in crate::record) fn operations(&self) -> u64 {
        self.platter().operations
    }

    /// There is room again.
    pub(in crate::record) fn relieve(&self) {
        let mut platter = self.platter();
        (platter.full, platter.fault) = (false, None);
    }

    /// The disk as it is found when the power is back.
    pub(in crate::record) fn after_power_cut(&self) -> Self {
        let mut platter = self.platter().clone();
        let pending = std::mem::take(&mut platter.pending);
        platter.settle_by_chance(pending);
        let seen = platter.durable.clone();
        let allocated = (0..seen.len().div_ceil(PAGE)).collect();
        Self(Arc::new(Mutex::new(Platter { durable: seen.clone(), seen, allocated, ..Platter::default() })))
    }

    pub(in crate::record) fn open(&self) -> Result<Database, OpenStoreError> {
        let opened = database::builder().create_with_backend(self.clone());
        opened.map_err(|error| OpenStoreError::of("faulty disk".as_ref(), error.into()))
    }

    fn platter(&self) -> std::sync::MutexGuard<'_, Platter> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Platter {
    /// Counts an operation and tells what goes wrong with it.
    fn strike(&mut self) -> io::Result<Option<Fault>> {
        if self.dark {
            return Err(failed());
        }
        let now = self.operations;
        self.operations += 1;
        let fault = self.fault.filter(|(at, _)| *at == now).map(|(_, fault)| fault);
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

    fn write(&mut self, at: usize, data: &[u8]) -> io::Result<()> {
        let pages = at / PAGE..(at + data.len()).div_ceil(PAGE);
        if self.full && pages.clone().any(|page| !self.allocated.contains(&page)) {
            return Err(full());
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

    fn settle_by_chance(&mut self, pending: Vec<Change>) {
        for change in pending {
            match (self.next() % 3, change) {
                (0, _) => {}
                (_, Change::Length(length)) => self.durable.resize(length, 0),
                (kind, Change::Write(at, data)) => {
                    let end = self.durable.len().max(at + data.len());
                    self.durable.resize(end, 0);
                    for (number, sector) in data.chunks(SECTOR).enumerate() {
                        if kind == 1 || self.next().is_multiple_of(2) {
                            let at = at + number * SECTOR;
                            self.durable[at..at + sector.len()].copy_from_slice(sector);
                        }
                    }
                }
            }
        }
    }

    /// Xorshift: the same faults in every run.
    fn next(&mut self) -> u64 {
        self.chance ^= self.chance << 13;
        self.chance ^= self.chance >> 7;
        self.chance ^= self.chance << 17;
        self.chance >> 11
    }
}

fn failed() -> io::Error {
    io::Error::from_raw_os_error(libc::EIO)
}

fn full() -> io::Error {
    io::Error::from_raw_os_error(libc::ENOSPC)
}

impl StorageBackend for FaultyDisk {
    fn len(&self) -> io::Result<u64> {
        let platter = self.platter();
        if platter.dark { Err(failed()) } else { Ok(platter.seen.len() as u64) }
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let platter = self.platter();
        let at = usize::try_from(offset).unwrap();
        match platter.seen.get(at..at + out.len()) {
            Some(bytes) if !platter.dark => out.copy_from_slice(bytes),
            _ => return Err(failed()),
        }
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut platter = self.platter();
        let len = usize::try_from(len).unwrap();
        match platter.strike()? {
            None | Some(Fault::Full) if platter.full && len > platter.seen.len() => return Err(full()),
            None | Some(Fault::Full) => {}
            Some(_) => return Err(failed()),
        }
        platter.seen.resize(len, 0);
        platter.pending.push(Change::Length(len));
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut platter = self.platter();
        match platter.strike()? {
            None | Some(Fault::Full) => {
                platter.settle();
                return Ok(());
            }
            // The length is the file's own, and stays to be written.
            Some(Fault::SyncLost) => platter.pending.retain(|change| matches!(change, Change::Length(_))),
            Some(Fault::SyncHalf) => {
                let lengths = platter.pending.iter().filter(|change| matches!(change, Change::Length(_))).cloned().collect();
                let pending = std::mem::replace(&mut platter.pending, lengths);
                platter.settle_by_chance(pending);
            }
            Some(_) => {}
        }
        Err(failed())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut platter = self.platter();
        let at = usize::try_from(offset).unwrap();
        match platter.strike()? {
            None | Some(Fault::Full) => platter.write(at, data),
            Some(Fault::Short) => platter.write(at, &data[..data.len() / 2]).and(Err(full())),
            Some(_) => Err(failed()),
        }
    }
}
