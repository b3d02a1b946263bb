//! Is the store whole? Pages, seals, calls with their recordings, files; with the keys, or without them as far as that goes.
//! Trusts: the keys that it is handed, not the disk.
//! Touches: the database and recordings, which it only reads; redb itself repairs what a crash left.
//! Next: `lifecycle::maintenance` runs it while no daemon does.

mod files;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use redb::{Database, ReadTransaction, ReadableDatabase, ReadableTableMetadata};

use super::copy;
use super::database::{self, OpenStoreError, definition, guarded};
use super::envelope::{Envelope, KEY_BYTES, OpenError, SealedRecord};
use super::index::IndexKeys;
use super::migration;
use super::schema::{Custody, Slot, Table};
use super::segments::{AsideError, SegmentDirectory, SegmentError};
use crate::base::ids::CallId;
use crate::base::secret::Secret;
use crate::base::told::told;
use crate::ipc::keeper::WrappedDek;
use crate::ipc::maintenance::{CheckReport, FAULTS_TOLD_MAX, Progress, RecordFault, Stage, StoreFault, shown};

/// What is said of pages whose damage redb has no words for.
const NOWHERE: &str = "its pages lead nowhere";
/// Records between two words about the progress.
const TELL_EVERY: u64 = 500;

/// Why a call's key was not opened.
#[derive(Debug, thiserror::Error)]
pub enum UnwrapError {
    /// It is damaged or another call's.
    #[error("the call's wrapped key does not open")]
    Wrong,
    /// No more are opened now.
    #[error("the key keeper opens no more calls now")]
    Enough,
    /// There is nobody to ask any more.
    #[error("the key keeper does not answer")]
    Gone,
}

/// What opens the store's records.
pub struct Keys<'a> {
    /// What needs no call's key.
    pub index: &'a IndexKeys,
    /// A call's key.
    pub unwrap: &'a dyn Fn(CallId, &WrappedDek) -> Result<Secret<KEY_BYTES>, UnwrapError>,
    /// Only whether it would open.
    pub verify: &'a dyn Fn(CallId, &WrappedDek) -> Result<(), UnwrapError>,
    /// Calls that are opened, spread over all of them; of the others the key is verified.
    pub open_most: u64,
    /// Which of them: another number, other calls.
    pub turn: u64,
}

/// Why there is no report.
#[derive(Debug, thiserror::Error)]
pub enum CheckError {
    /// There is none.
    #[error("there is no store in {path}")]
    Absent {
        /// Where.
        path: PathBuf,
    },
    /// It could not be opened, for a reason that is no damage.
    #[error(transparent)]
    Open(#[from] OpenStoreError),
    /// The keeper ended in the middle.
    #[error("the key keeper ended in the middle of the check; see the journal for the reason and start again")]
    Keeper,
    /// Where recordings may have been put aside.
    #[error(transparent)]
    Aside(#[from] AsideError),
    /// A directory cannot be read.
    #[error("{path} cannot be read; check its owner and the disk")]
    Read {
        /// Which.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

/// Looks at everything in a state directory.
///
/// # Errors
/// [`CheckError`]; damage is no error but in the report.
pub fn check(state: &Path, keys: Result<Keys<'_>, String>, tell: &mut dyn FnMut(Progress)) -> Result<CheckReport, CheckError> {
    let path = state.join(database::FILE);
    let bytes = match fs::metadata(&path) {
        Ok(found) if found.len() > 0 => found.len(),
        Ok(_) => return Err(CheckError::Absent { path: state.to_owned() }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(CheckError::Absent { path: state.to_owned() }),
        Err(source) => return Err(CheckError::Read { path, source }),
    };
    let (keys, without_keys) = match keys {
        Ok(keys) => (Some(keys), None),
        Err(why) => (None, Some(why)),
    };
    let copies = copy::kept(&path).map_err(|source| CheckError::Read { path: state.to_owned(), source })?;
    let report = CheckReport {
        store: shown(&path),
        bytes,
        schema: None,
        without_keys,
        calls: 0,
        records: 0,
        opened: 0,
        keys_only: 0,
        recordings: 0,
        copies: copies.iter().map(|copy| shown(copy)).collect(),
        faults: Vec::new(),
        more_faults: 0,
    };
    let mut check = Check { path, state, keys, report, copies, counted: false, tell };
    if let Some(database) = check.pages()? {
        let looked = check.content(&database);
        check.close(database);
        looked?;
    }
    Ok(check.report)
}

struct Check<'a, 't> {
    path: PathBuf,
    state: &'a Path,
    keys: Option<Keys<'a>>,
    report: CheckReport,
    copies: Vec<PathBuf>,
    /// The number of the last job is there.
    counted: bool,
    tell: &'t mut dyn FnMut(Progress),
}

/// What is there of a call, outside its own key.
#[derive(Default)]
struct Known {
    header: bool,
    wrapped: Option<SealedRecord>,
    /// Records under its own key.
    own: Vec<Table>,
}

type Calls = BTreeMap<CallId, Known>;

impl Check<'_, '_> {
    fn fault(&mut self, fault: StoreFault) {
        if self.report.faults.len() < FAULTS_TOLD_MAX {
            self.report.faults.push(fault);
        } else {
            self.report.more_faults += 1;
        }
    }

    fn at(&mut self, stage: Stage, done: u64, of: u64) {
        (self.tell)(Progress { stage, done, of });
    }

    /// The database's own checksums over all of its pages. What they condemn is read all the same, as far as that goes, to say what is lost.
    fn pages(&mut self) -> Result<Option<Database>, CheckError> {
        self.at(Stage::Pages, 0, 0);
        let Some(mut database) = self.open()? else { return Ok(None) };
        match catch_unwind(AssertUnwindSafe(|| database.check_integrity())) {
            Ok(Ok(true)) => return Ok(Some(database)),
            Ok(Ok(false)) => {
                self.fault(StoreFault::PagesRepaired);
                return Ok(Some(database));
            }
            Ok(Err(error)) => self.fault(StoreFault::Pages { why: told(&error) }),
            Err(_) => self.fault(StoreFault::Pages { why: NOWHERE.to_owned() }),
        }
        self.close(database);
        self.open()
    }

    /// redb commits once more when it closes a database that it opened after a crash, and panics where that leads to damaged pages.
    fn close(&mut self, database: Database) {
        if catch_unwind(AssertUnwindSafe(move || drop(database))).is_err() {
            self.fault(StoreFault::Pages { why: NOWHERE.to_owned() });
        }
    }

    fn content(&mut self, database: &Database) -> Result<(), CheckError> {
        let transaction = guarded(|| Ok(database.begin_read()?)).map_err(|error| OpenStoreError::of(&self.path, error))?;
        self.schema(database);
        let calls = self.records(&transaction);
        self.calls(&transaction, &calls)?;
        self.files(&calls)
    }

    /// None, and a fault, when there is nothing in the file that could be read.
    fn open(&mut self) -> Result<Option<Database>, CheckError> {
        // redb takes pages for its own that a checksum has not covered yet; damage in them may end in a panic of its.
        let why = match catch_unwind(AssertUnwindSafe(|| database::open_existing(&self.path))) {
            Ok(Ok(database)) => return Ok(Some(database)),
            Ok(Err(error)) if error.is_damage() => told(&error),
            Ok(Err(error)) => return Err(error.into()),
            Err(_) => NOWHERE.to_owned(),
        };
        self.fault(StoreFault::Pages { why });
        Ok(None)
    }

    fn schema(&mut self, database: &Database) {
        let Some(keys) = &self.keys else {
            if let Ok(Some(false)) = migration::is_marked(database, &self.path) {
                self.report.schema = Some(1);
            }
            return;
        };
        match migration::version(database, &self.path, keys.index.envelope()) {
            Ok(Some(version)) => self.report.schema = Some(version),
            Ok(None) | Err(_) => self.fault(StoreFault::Schema),
        }
    }

    /// Every record outside the calls' own keys, and which calls there are.
    fn records(&mut self, transaction: &ReadTransaction) -> Calls {
        let mut calls = Calls::new();
        let mut named = BTreeSet::new();
        let lengths = Table::ALL.iter().filter_map(|table| guarded(|| Ok(transaction.open_table(definition(*table))?.len()?)).ok());
        let (mut done, of) = (0, lengths.sum());
        for table in Table::ALL {
            let whole = catch_unwind(AssertUnwindSafe(|| -> Result<(), redb::Error> {
                for entry in transaction.open_table(definition(table))?.range::<&[u8]>(..)? {
                    let (key, value) = entry?;
                    let slot = Slot::found(table, key.value());
                    self.record(slot, SealedRecord::from_stored(value.value()), &mut calls, &mut named);
                    done += 1;
                    if done % TELL_EVERY == 0 {
                        self.at(Stage::Records, done, of);
                    }
                }
                Ok(())
            }));
            let absent = matches!(whole, Ok(Err(redb::Error::TableDoesNotExist(_))));
            let lacks = absent && migration::may_lack(table, self.report.schema);
            if !lacks && !matches!(whole, Ok(Ok(()))) {
                self.fault(StoreFault::Table { table: table.name().to_owned() });
            }
        }
        self.at(Stage::Records, done, of);
        self.report.records = done;
        self.report.calls = calls.values().map(|known| u64::from(known.header)).sum();
        self.unnamed(&calls, &named);
        for (table, call) in named {
            if !calls.get(&call).is_some_and(|known| known.header) {
                self.fault(StoreFault::NoCall { table: table.name().to_owned(), call });
            }
        }
        calls
    }

    /// Calls that the tables do not lead to, where those could be read.
    fn unnamed(&mut self, calls: &Calls, named: &BTreeSet<(Table, CallId)>) {
        if self.keys.is_none() {
            return;
        }
        for table in [Table::ByJob, Table::ByOwner] {
            let told = |fault: &StoreFault| matches!(fault, StoreFault::Record { table: bad, .. } | StoreFault::Table { table: bad } if bad == table.name());
            if self.report.faults.iter().any(told) || self.report.more_faults > 0 {
                continue;
            }
            for (call, _) in calls.iter().filter(|(call, known)| known.header && !named.contains(&(table, **call))) {
                self.fault(StoreFault::Unnamed { table: table.name().to_owned(), call: *call });
            }
        }
        if self.report.calls > 0 && !self.counted {
            self.fault(StoreFault::CounterMissing);
        }
    }

    fn record(&mut self, slot: Slot, sealed: SealedRecord, calls: &mut Calls, named: &mut BTreeSet<(Table, CallId)>) {
        let table = slot.table();
        self.counted |= slot == Slot::counter();
        if !slot.is_well_formed() {
            return self.bad(&slot, RecordFault::Key);
        }
        // An erased call has nothing but its certificate.
        if let Some(call) = slot.call().filter(|_| table != Table::Erasure) {
            let known = calls.entry(call).or_default();
            match table {
                Table::Header => known.header = true,
                Table::WrappedDek => known.wrapped = Some(sealed.clone()),
                table => known.own.push(table),
            }
        }
        if !sealed.has_form_of(&slot) {
            return self.bad(&slot, RecordFault::Seal);
        }
        let Some(keys) = self.keys.as_ref().filter(|_| table.custody() == Custody::Index) else { return };
        let opened = match table {
            Table::Queue | Table::ByJob | Table::ByOwner => keys.index.envelope().open_value(&slot, &sealed).map(|call| {
                named.insert((table, call));
            }),
            _ => keys.index.envelope().open(&slot, &sealed).map(drop),
        };
        self.opened(&slot, opened);
    }

    fn opened(&mut self, slot: &Slot, opened: Result<(), OpenError>) {
        match opened {
            Ok(()) => self.report.opened += 1,
            Err(OpenError::Version { .. }) => self.bad(slot, RecordFault::Version),
            Err(OpenError::Decode(_)) => self.bad(slot, RecordFault::Content),
            Err(OpenError::Forged(_) | OpenError::WrongCustody(_)) => self.bad(slot, RecordFault::Seal),
        }
    }

    fn bad(&mut self, slot: &Slot, why: RecordFault) {
        self.fault(StoreFault::Record { table: slot.table().name().to_owned(), call: slot.call(), why });
    }

    /// Each call: its key, what lies under it, its recording.
    fn calls(&mut self, transaction: &ReadTransaction, calls: &Calls) -> Result<(), CheckError> {
        let segments = SegmentDirectory::as_it_is(self.state);
        let of = u64::try_from(calls.len()).unwrap_or(u64::MAX);
        for (done, (call, known)) in (0..).zip(calls) {
            if done % TELL_EVERY == 0 || self.keys.is_some() && done % 10 == 0 {
                self.at(Stage::Calls, done, of);
            }
            if !known.header {
                let tables = known.own.iter().copied().chain(known.wrapped.iter().map(|_| Table::WrappedDek));
                tables.collect::<Vec<_>>().into_iter().for_each(|table| {
                    self.fault(StoreFault::NoCall { table: table.name().to_owned(), call: *call });
                });
                continue;
            }
            let in_turn = self.keys.as_ref().is_some_and(|keys| {
                let step = of.div_ceil(keys.open_most.max(1)).max(1);
                (done + keys.turn) % step == 0
            });
            let envelope = self.open_key(*call, known, in_turn)?;
            for table in &known.own {
                let Some(envelope) = &envelope else { break };
                let slot = Slot::of_call(*table, *call);
                let sealed = guarded(|| {
                    let records = transaction.open_table(definition(*table))?;
                    Ok(records.get(slot.key())?.map(|value| SealedRecord::from_stored(value.value())))
                });
                match sealed {
                    Ok(Some(sealed)) => self.opened(&slot, envelope.open(&slot, &sealed).map(drop)),
                    Ok(None) | Err(_) => self.bad(&slot, RecordFault::Seal),
                }
            }
            self.recording(&segments, *call, envelope.as_ref())?;
        }
        self.at(Stage::Calls, of, of);
        Ok(())
    }

    fn open_key(&mut self, call: CallId, known: &Known, in_turn: bool) -> Result<Option<Envelope>, CheckError> {
        let Some(sealed) = &known.wrapped else {
            self.fault(StoreFault::KeyMissing { call });
            return Ok(None);
        };
        let Some(keys) = &self.keys else { return Ok(None) };
        let slot = Slot::of_call(Table::WrappedDek, call);
        // One that does not open is a fault of its record already.
        let Ok(wrapped) = keys.index.envelope().open_value::<WrappedDek>(&slot, sealed) else { return Ok(None) };
        let unwrapped = if in_turn { (keys.unwrap)(call, &wrapped) } else { Err(UnwrapError::Enough) };
        let verified = match unwrapped {
            Ok(dek) => return Ok(Some(Envelope::of_call(dek))),
            Err(UnwrapError::Enough) => (keys.verify)(call, &wrapped),
            Err(error) => Err(error),
        };
        match verified {
            Ok(()) => {
                self.report.keys_only += 1;
                Ok(None)
            }
            Err(UnwrapError::Wrong) => {
                self.fault(StoreFault::KeyRefused { call });
                Ok(None)
            }
            Err(UnwrapError::Gone | UnwrapError::Enough) => Err(CheckError::Keeper),
        }
    }

    fn recording(&mut self, segments: &SegmentDirectory, call: CallId, envelope: Option<&Envelope>) -> Result<(), CheckError> {
        let mut ends = ends(segments, call, envelope);
        if is_absent(&ends) {
            // One that was put aside comes back with the next start; of several the first that can be read is told of.
            let aside = SegmentDirectory::aside_with(self.state, call)?;
            for place in aside {
                if ends.is_err() {
                    ends = self::ends(&place, call, envelope);
                }
            }
        }
        match ends {
            Ok(()) if envelope.is_some() => self.report.recordings += 1,
            Ok(()) => {}
            absent if is_absent(&absent) => self.fault(StoreFault::RecordingMissing { call }),
            Err(_) => self.fault(StoreFault::RecordingDamaged { call }),
        }
        Ok(())
    }
}

/// Whether a recording opens at both ends, or without its key has the form of one.
fn ends(segments: &SegmentDirectory, call: CallId, envelope: Option<&Envelope>) -> Result<(), SegmentError> {
    match envelope {
        Some(envelope) => segments.read(call, envelope).and_then(|mut recording| recording.read_at(0, 1).map(drop)),
        None => segments.has_form(call),
    }
}

fn is_absent(ends: &Result<(), SegmentError>) -> bool {
    matches!(ends, Err(SegmentError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound)
}
