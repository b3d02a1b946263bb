//! The one thread that writes: everything that waits becomes one durable commit.
//! Trusts: the batches, which hold sealed records only.
//! Touches: the database, the ballast.
//! Next: each submitter gets its answer when its batch is durable, and not before.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender};
use std::time::{Duration, Instant};

use redb::{ReadableTable, WriteTransaction};

use super::batch::{Batch, Outcome, Requirement};
use super::database::definition;
use super::landed;
use super::schema::{Slot, Table};
use super::store::{Shared, StoreError};

/// Batches in one commit.
const GROUP_MAX: usize = 64;

/// Longest time after its answers that a commit waits for those who were just answered, see [`Gathering`]: a third of what a commit takes.
const GATHER_MAX: Duration = Duration::from_micros(500);

/// How often a store that is closed is tried to be opened.
const REOPEN_PAUSE: Duration = Duration::from_secs(1);

/// A batch and where its answer goes.
pub(in crate::record) struct Submission {
    pub(in crate::record) batch: Batch,
    pub(in crate::record) reply: SyncSender<Result<Outcome, StoreError>>,
}

/// Serves until the last [`super::store::Store`] is dropped.
pub(in crate::record) fn run(shared: &Shared, submitted: &Receiver<Submission>) {
    let mut waiting = Vec::new();
    let mut gathering = Gathering::none();
    loop {
        if waiting.is_empty() {
            match submitted.recv_timeout(REOPEN_PAUSE) {
                Ok(first) => waiting.push(first),
                // Nobody may write any more to a store that is closed: it opens again by itself once it can.
                Err(RecvTimeoutError::Timeout) => {
                    if !shared.is_open() {
                        shared.reopen();
                    }
                    continue;
                }
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
        gathering.fill(&mut waiting, submitted);
        let settled = settle(shared, std::mem::take(&mut waiting));
        // Before anybody has an answer: who comes later may be one who has, and nobody must be counted twice.
        waiting.extend(submitted.try_iter().take(GROUP_MAX));
        let expected = settled.len() + waiting.len();
        settled.into_iter().for_each(answer);
        gathering = Gathering { expected, until: Instant::now() + GATHER_MAX };
    }
}

/// Who is expected to take part in the next commit, and until when it waits for them.
///
/// Submitters that write one batch after the other come again within microseconds of their answers. A commit that began at once would
/// take only those who came during the one before: two halves would take turns for ever, each paying for commits of its own. So it waits
/// for as many as the last one answered and found waiting (PostgreSQL's `commit_delay` with `commit_siblings`); one submitter alone is
/// all that is expected, and waits for nobody.
struct Gathering {
    expected: usize,
    until: Instant,
}

impl Gathering {
    fn none() -> Self {
        Self { expected: 0, until: Instant::now() }
    }

    /// Takes all that has been submitted, and until the time is over what comes, up to the number that is expected.
    fn fill(&self, group: &mut Vec<Submission>, submitted: &Receiver<Submission>) {
        group.extend(submitted.try_iter().take(GROUP_MAX.saturating_sub(group.len())));
        while group.len() < self.expected.min(GROUP_MAX) {
            match submitted.recv_timeout(self.until.saturating_duration_since(Instant::now())) {
                Ok(next) => group.push(next),
                Err(_) => return,
            }
        }
    }
}

/// What a submitter is told, and the way to it.
type Settled = (Submission, Result<Outcome, StoreError>);

/// `commit > on a full disk: give up the ballast for erasures`; the answers are still to be given.
fn settle(shared: &Shared, group: Vec<Submission>) -> Vec<Settled> {
    let error = match commit_or_reopen(shared, &group) {
        Ok(outcomes) => return group.into_iter().zip(outcomes.into_iter().map(Ok)).collect(),
        Err(error) => error,
    };
    let (erasures, refused): (Vec<_>, Vec<_>) =
        group.into_iter().partition(|submission| submission.batch.frees && matches!(error, StoreError::Full));
    let mut settled = refuse(refused, &error);
    if erasures.is_empty() {
        return settled;
    }
    shared.release_ballast();
    match commit_or_reopen(shared, &erasures) {
        Ok(outcomes) => settled.extend(erasures.into_iter().zip(outcomes.into_iter().map(Ok))),
        Err(error) => settled.extend(refuse(erasures, &error)),
    }
    settled
}

// A submitter that has gone away does not need the answer; its batch is durable all the same.
fn answer((submission, told): Settled) {
    let _ = submission.reply.send(told);
}

fn refuse(group: Vec<Submission>, error: &StoreError) -> Vec<Settled> {
    group.into_iter().map(|submission| (submission, Err(error.clone()))).collect()
}

/// After a failure the store is opened again, and shows whether the commit is durable all the same.
fn commit_or_reopen(shared: &Shared, group: &[Submission]) -> Result<Vec<Outcome>, StoreError> {
    #[cfg(test)]
    if trouble(shared, group) {
        return Err(StoreError::Closed);
    }
    let mut outcomes = Vec::new();
    let committed = shared.transact(|transaction| {
        let mut tables = Tables { transaction, open: BTreeMap::new() };
        for submission in group {
            outcomes.push(tables.apply(&submission.batch)?);
        }
        Ok(())
    });
    let Err(error) = committed else { return Ok(outcomes) };
    shared.reopen();
    if landed::whole(shared, group, &outcomes) { Ok(outcomes) } else { Err(error) }
}

/// Whether a test wants the answer to this group to be lost.
#[cfg(test)]
fn trouble(shared: &Shared, group: &[Submission]) -> bool {
    let lock = || shared.trouble.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let writes = |slot: &Slot| group.iter().flat_map(|submission| &submission.batch.changes).any(|(written, _)| written == slot);
    let Some((_, stored)) = lock().loses_answer.take_if(|(slot, _)| writes(slot)) else { return false };
    if stored {
        let _ = commit_or_reopen(shared, group);
    }
    lock().shut = true;
    shared.reopen();
    true
}

/// The tables of a transaction, each opened once for all batches: opening and closing one costs as much as a record.
struct Tables<'t> {
    transaction: &'t WriteTransaction,
    open: BTreeMap<Table, redb::Table<'t, &'static [u8], &'static [u8]>>,
}

impl<'t> Tables<'t> {
    fn get(&mut self, table: Table) -> Result<&mut redb::Table<'t, &'static [u8], &'static [u8]>, redb::Error> {
        Ok(match self.open.entry(table) {
            Entry::Occupied(open) => open.into_mut(),
            Entry::Vacant(absent) => absent.insert(self.transaction.open_table(definition(table))?),
        })
    }

    fn apply(&mut self, batch: &Batch) -> Result<Outcome, redb::Error> {
        for requirement in &batch.requirements {
            if !self.holds(requirement)? {
                return Ok(Outcome::Conflict);
            }
        }
        for (slot, old, new) in &batch.exchanges {
            let table = self.get(slot.table())?;
            let same = table.get(slot.key())?.is_some_and(|stored| stored.value() == old.as_stored());
            if same {
                table.insert(slot.key(), new.as_stored())?;
            }
        }
        for (slot, value) in &batch.changes {
            let table = self.get(slot.table())?;
            match value {
                Some(value) => drop(table.insert(slot.key(), value.as_stored())?),
                None => drop(table.remove(slot.key())?),
            }
        }
        Ok(Outcome::Committed)
    }

    fn holds(&mut self, requirement: &Requirement) -> Result<bool, redb::Error> {
        let mut stored = |slot: &Slot| -> Result<Option<Vec<u8>>, redb::Error> {
            let value = self.get(slot.table())?.get(slot.key())?;
            Ok(value.map(|value| value.value().to_vec()))
        };
        Ok(match requirement {
            Requirement::Absent(slot) => stored(slot)?.is_none(),
            Requirement::Unchanged(slot, read) => stored(slot)?.as_deref() == Some(read.as_stored()),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Sender, channel, sync_channel};
    use std::thread;

    use super::*;

    /// So far ahead that a test that waited for it would not end.
    const FAR: Duration = Duration::from_secs(3600);

    fn submission() -> Submission {
        Submission { batch: Batch::new(), reply: sync_channel(1).0 }
    }

    /// The size of the group that one submission and what `others` submit make.
    fn gathered(expected: usize, patience: Duration, others: impl FnOnce(Sender<Submission>)) -> usize {
        let (submit, submitted) = channel();
        others(submit);
        let mut group = vec![submission()];
        Gathering { expected, until: Instant::now() + patience }.fill(&mut group, &submitted);
        group.len()
    }

    #[test]
    fn a_submitter_alone_waits_for_nobody() {
        let (submit, submitted) = channel();
        let mut group = vec![submission()];
        Gathering { expected: 1, until: Instant::now() + FAR }.fill(&mut group, &submitted);
        drop(submit);
        assert_eq!(group.len(), 1);
    }

    #[test]
    fn a_commit_waits_for_as_many_as_the_last_one_answered_and_found() {
        let come_later = |submit: Sender<Submission>| drop(thread::spawn(move || (0..3).try_for_each(|_| submit.send(submission()))));
        assert_eq!(gathered(4, FAR, come_later), 4);
    }

    #[test]
    fn a_commit_waits_no_longer_than_its_time_for_those_who_do_not_come() {
        let (kept, submitted) = channel();
        let mut group = vec![submission()];
        Gathering { expected: 4, until: Instant::now() + GATHER_MAX }.fill(&mut group, &submitted);
        drop(kept);
        assert_eq!(group.len(), 1);
    }

    #[test]
    fn what_is_there_is_taken_without_waiting_up_to_the_most_that_a_commit_holds() {
        let all_there = |submit: Sender<Submission>| (0..100).for_each(|_| submit.send(submission()).unwrap());
        assert_eq!(gathered(0, Duration::ZERO, all_there), GROUP_MAX);
        assert_eq!(gathered(1000, FAR, all_there), GROUP_MAX);
    }
}
