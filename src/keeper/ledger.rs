//! What outlives a start: how often keys were used within the last hour, and which number and which lines the signed chain before had.
//! Trusts: what the box's own key authenticates; the kernel's time since the machine was started, which nobody sets.
//! Touches: one file of the key directory, opened before confinement and then written in place.
//! Next: `quota` begins with what was used; `journal` begins its chain with the number.
//!
//! ```text
//! file = half A | half B, each 8 KiB: length u32 BE | container (MACed) | rest without meaning
//! ```
//! Each page goes into the half that the page before is not in, so a crash leaves one that is whole. In place, because a disk that
//! somebody has filled must neither give uses away nor keep a box from starting.

use std::fs::{self, File, TryLockError};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::ipc::keeper::StartId;
use crate::ipc::key_log::Series;

use super::container::{self, ContainerError, MacKey, Sort};
use super::directory::DirectoryError;
use super::replace::OpenDirectory;
use super::window::Past;

/// Of the daemon's keeper.
pub const USES: &str = "uses";
/// Of the console's.
pub const ISSUED: &str = "issued";

const SORT: Sort = Sort::new(b"salama uses    \n", 1);
const HALF: usize = 8 * 1024;
/// Where the second half begins.
const SECOND_HALF: u64 = 8 * 1024;
const LENGTH: usize = size_of::<u32>();
/// A keeper that is just ending holds it a moment longer.
const LOCK_PATIENCE: Duration = Duration::from_secs(10);
const LOCK_PAUSE: Duration = Duration::from_millis(20);

/// What was used of one kind.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Used {
    /// Its number in this file, never another's.
    pub kind: u8,
    /// Without grants.
    pub hour: Past,
    /// With them.
    pub all: Past,
}

/// A start's number, and what is known of the chain before: its name, and lines that it had at least.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Number {
    /// From 1.
    pub start: u64,
    /// None before the first.
    pub before: Option<(StartId, u64)>,
}

/// What the file says of the time before this start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Before {
    /// This was used, up to so long after the machine was started; without a time, before that.
    Used(Option<Duration>, Vec<Used>),
    /// There was something, but nobody can read it: the hour counts as full.
    Lost,
}

/// What one half of the file says.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Page {
    generation: u64,
    boot: String,
    /// Since the machine was started, milliseconds.
    at: u64,
    start: u64,
    chain: StartId,
    lines: u64,
    used: Vec<Used>,
}

/// Since when this machine runs. Read before confinement, after which there is no `/proc`.
#[derive(Clone, Debug)]
pub struct Machine {
    boot: String,
    /// What lies between the machine's start and the zero of the keeper's steady clock.
    ahead: Duration,
}

impl Machine {
    /// As it is at `steady` of the keeper's clock.
    ///
    /// # Errors
    /// [`LedgerError::Time`].
    pub fn look(steady: Duration) -> Result<Self, LedgerError> {
        let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").map_err(LedgerError::Time)?.trim().to_owned();
        Ok(Self { boot, ahead: since_boot()?.saturating_sub(steady) })
    }
}

/// The file of one series, held by nobody else; not yet read, which takes a key.
pub struct Alone {
    file: File,
    /// Whose.
    pub series: Series,
}

impl Alone {
    /// Opens it, makes it where there is none, and holds it. A keeper that is just ending is waited for.
    ///
    /// # Errors
    /// [`LedgerError::InUse`] while another keeper has it.
    pub fn take(directory: &OpenDirectory, series: Series) -> Result<Self, LedgerError> {
        let file = directory.open_for_writing(match series {
            Series::Daemon => USES,
            Series::Console => ISSUED,
        })?;
        lock(&file)?;
        Ok(Self { file, series })
    }
}

/// The file.
pub struct Ledger {
    file: File,
    mac: MacKey,
    machine: Machine,
    page: Page,
}

impl Ledger {
    /// Reads it.
    ///
    /// # Errors
    /// [`LedgerError`].
    pub fn open(Alone { file, .. }: Alone, mac: MacKey, machine: Machine) -> Result<(Self, Before), LedgerError> {
        let bytes = file_bytes(&file).map_err(LedgerError::File)?;
        let newest = newest(&bytes, &mac);
        let before = match &newest {
            Some(page) => Before::Used((page.boot == machine.boot).then(|| Duration::from_millis(page.at)), page.used.clone()),
            None if bytes.is_empty() => Before::Used(None, Vec::new()),
            None => Before::Lost,
        };
        let page = newest.unwrap_or_default();
        Ok((Self { file, mac, machine, page }, before))
    }

    /// Counts this start, durably. What was used stays as it was.
    ///
    /// # Errors
    /// [`LedgerError`]; then there is no number.
    pub fn begin(&mut self, chain: StartId) -> Result<Number, LedgerError> {
        let before = (self.page.start > 0).then_some((self.page.chain, self.page.lines));
        let start = self.page.start.saturating_add(1);
        let page = Page { generation: self.page.generation.saturating_add(1), start, chain, lines: 0, ..self.page.clone() };
        self.write(page)?;
        Ok(Number { start, before })
    }

    /// What lies between the machine's start and the zero of the keeper's steady clock.
    pub const fn ahead(&self) -> Duration {
        self.machine.ahead
    }

    /// Puts down what was used and how many lines the chain has.
    ///
    /// # Errors
    /// [`LedgerError`]; then nothing may be used.
    pub fn save(&mut self, lines: u64, used: Vec<Used>, steady: Duration) -> Result<(), LedgerError> {
        let at = u64::try_from(self.machine.ahead.saturating_add(steady).as_millis()).unwrap_or(u64::MAX);
        let Page { generation, start, chain, .. } = self.page;
        self.write(Page { generation: generation.saturating_add(1), boot: self.machine.boot.clone(), at, start, chain, lines, used })
    }

    fn write(&mut self, page: Page) -> Result<(), LedgerError> {
        let container = container::write(SORT, &page, &self.mac)?;
        let length = u32::try_from(container.len()).ok().filter(|_| container.len() <= HALF - LENGTH).ok_or(LedgerError::TooLong)?;
        let mut half = length.to_be_bytes().to_vec();
        half.extend(container);
        // Always as long, so that the file never grows after its first two pages.
        half.resize(HALF, 0);
        let at = if page.generation.is_multiple_of(2) { 0 } else { SECOND_HALF };
        self.file.write_all_at(&half, at).and_then(|()| self.file.sync_all()).map_err(LedgerError::File)?;
        self.page = page;
        Ok(())
    }
}

/// The newest page of a file that is whole and the box's own.
pub fn newest(file: &[u8], mac: &MacKey) -> Option<Page> {
    pages(file, mac).max_by_key(|page| page.generation)
}

/// Those that are whole and the box's own.
fn pages<'a>(bytes: &'a [u8], mac: &'a MacKey) -> impl Iterator<Item = Page> + 'a {
    bytes.chunks(HALF).filter_map(|half| {
        let (length, rest) = half.split_first_chunk::<LENGTH>()?;
        let container = rest.get(..usize::try_from(u32::from_be_bytes(*length)).ok()?)?;
        container::read::<Page>(SORT, container).ok()?.authenticate(mac).ok()
    })
}

fn file_bytes(file: &File) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; 2 * HALF];
    let mut read = 0;
    while let Some(room) = bytes.get_mut(read..).filter(|room| !room.is_empty()) {
        match file.read_at(room, u64::try_from(read).unwrap_or(u64::MAX))? {
            0 => break,
            more => read += more,
        }
    }
    bytes.truncate(read);
    Ok(bytes)
}

fn lock(file: &File) -> Result<(), LedgerError> {
    let until = Instant::now() + LOCK_PATIENCE;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(()),
            Err(TryLockError::WouldBlock) if Instant::now() < until => std::thread::sleep(LOCK_PAUSE),
            Err(TryLockError::WouldBlock) => return Err(LedgerError::InUse),
            Err(TryLockError::Error(source)) => return Err(LedgerError::File(source)),
        }
    }
}

/// In seconds and hundredths, as proc(5) says.
fn since_boot() -> Result<Duration, LedgerError> {
    let text = fs::read_to_string(Path::new("/proc/uptime")).map_err(LedgerError::Time)?;
    let seconds = text.split_whitespace().next().and_then(|first| first.parse::<f64>().ok());
    seconds
        .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
        .ok_or_else(|| LedgerError::Time(io::ErrorKind::InvalidData.into()))
}

/// Why what was used cannot be read or put down.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    /// The directory.
    #[error(transparent)]
    Directory(#[from] DirectoryError),
    /// Two at once.
    #[error("another key keeper uses the keys of this directory; it must end first")]
    InUse,
    /// The file.
    #[error("the file of the key directory that says how often keys were used cannot be read or written")]
    File(#[source] io::Error),
    /// Its frame.
    #[error("what was used of the keys cannot be put down")]
    Container(#[from] ContainerError),
    /// More than fits, which the number of kinds excludes.
    #[error("what was used of the keys does not fit into its file")]
    TooLong,
    /// `/proc`.
    #[error("it cannot be seen in /proc since when this machine runs")]
    Time(#[source] io::Error),
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use crate::base::secret::Secret;

    /// In this directory.
    pub fn open(base: &Path) -> (Ledger, Before) {
        let mac = MacKey::new(&Secret::try_fill(|_| Ok::<(), ()>(())).unwrap());
        let alone = Alone::take(&OpenDirectory::open(base).unwrap(), Series::Daemon).unwrap();
        Ledger::open(alone, mac, Machine::look(Duration::ZERO).unwrap()).unwrap()
    }

    fn used(count: u32) -> Vec<Used> {
        vec![Used { kind: 1, hour: Past(vec![(0, count)]), all: Past(vec![(0, count)]) }]
    }

    fn read(before: Before) -> Vec<Used> {
        let Before::Used(at, used) = before else { panic!("lost") };
        let since = since_boot().unwrap().saturating_sub(at.unwrap());
        assert!(since < Duration::from_secs(60), "{since:?}");
        used
    }

    #[test]
    fn each_start_has_the_next_number_and_knows_the_chain_before() {
        let base = tempfile::tempdir().unwrap();
        let (mut ledger, before) = open(base.path());
        assert_eq!(before, Before::Used(None, Vec::new()));
        assert_eq!(ledger.begin([1; 16]).unwrap(), Number { start: 1, before: None });
        ledger.save(7, used(3), Duration::ZERO).unwrap();
        drop(ledger);
        let (mut ledger, before) = open(base.path());
        assert_eq!(read(before), used(3));
        assert_eq!(ledger.begin([2; 16]).unwrap(), Number { start: 2, before: Some(([1; 16], 7)) });
        drop(ledger);
        assert_eq!(read(open(base.path()).1), used(3), "a start takes nothing from it");
    }

    #[test]
    fn a_page_that_a_crash_cut_leaves_the_one_before_and_no_page_at_all_is_a_full_hour() {
        let base = tempfile::tempdir().unwrap();
        let (mut ledger, _) = open(base.path());
        for count in 1..=4 {
            ledger.save(0, used(count), Duration::ZERO).unwrap();
        }
        drop(ledger);
        let whole = fs::read(base.path().join(USES)).unwrap();
        assert_eq!(whole.len(), 2 * HALF);
        let cut = |half: usize| {
            let mut bytes = whole.clone();
            bytes[half * HALF + 60] ^= 1;
            fs::write(base.path().join(USES), bytes).unwrap();
            open(base.path()).1
        };
        let both = [read(cut(0)), read(cut(1))];
        assert!(both.contains(&used(3)) && both.contains(&used(4)), "{both:?}");
        fs::write(base.path().join(USES), vec![0; 2 * HALF]).unwrap();
        assert_eq!(open(base.path()).1, Before::Lost);
    }

    #[test]
    fn it_is_one_keepers_at_a_time() {
        let base = tempfile::tempdir().unwrap();
        let (ledger, _) = open(base.path());
        let other = File::open(base.path().join(USES)).unwrap();
        assert!(matches!(other.try_lock(), Err(TryLockError::WouldBlock)));
        drop(ledger);
        // A process that another test is just starting has it too, until it is another program: waited for, as a keeper does.
        assert!(lock(&other).is_ok());
    }
}
