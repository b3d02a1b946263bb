//! The one thread that writes: everything that waits becomes one durable commit.
//! Trusts: the batches, which hold sealed records only.
//! Touches: the database, the ballast.
//! Next: each submitter gets its answer when its batch is durable, and not before.

use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender};
use std::time::Duration;

use redb::{ReadableTable, WriteTransaction};

use super::database::definition;
use super::landed;
use super::schema::Slot;
use super::store::{Batch, Outcome, Requirement, Shared, StoreError};

/// Batches in one commit.
const GROUP_MAX: usize = 64;

/// How often a store that is closed is tried to be opened.
const REOPEN_PAUSE: Duration = Duration::from_secs(1);

/// A batch and where its answer goes.
pub(in crate::record) struct Submission {
    pub(in crate::record) batch: Batch,
    pub(in crate::record) reply: SyncSender<Result<Outcome, StoreError>>,
}

/// Serves until the last [`super::store::Store`] is dropped.
pub(in crate::record) fn run(shared: &Shared, submitted: &Receiver<Submission>) {
    loop {
        match submitted.recv_timeout(REOPEN_PAUSE) {
            Ok(first) => {
                let mut group = vec![first];
                group.extend(submitted.try_iter().take(GROUP_MAX - 1));
                settle(shared, group);
            }
            // Nobody may write any more to a store that is closed: it opens again by itself once it can.
            Err(RecvTimeoutError::Timeout) if !shared.is_open() => shared.reopen(),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
    }
}

/// `commit > on failure: reopen > on a full disk: give up the ballast for erasures > answer`
fn settle(shared: &Shared, group: Vec<Submission>) {
    let mut outcomes = Vec::new();
    let error = match commit(shared, &group, &mut outcomes) {
        Ok(()) => return answer(group, outcomes),
        Err(error) => error,
    };
    shared.reopen();
    if landed::whole(shared, &group, &outcomes) {
        return answer(group, outcomes);
    }
    let (erasures, refused): (Vec<_>, Vec<_>) =
        group.into_iter().partition(|submission| submission.batch.frees && matches!(error, StoreError::Full));
    refuse(refused, &error);
    if erasures.is_empty() {
        return;
    }
    shared.release_ballast();
    match commit(shared, &erasures, &mut outcomes) {
        Ok(()) => answer(erasures, outcomes),
        Err(error) => {
            shared.reopen();
            if landed::whole(shared, &erasures, &outcomes) {
                return answer(erasures, outcomes);
            }
            refuse(erasures, &error);
        }
    }
}

// A submitter that has gone away does not need the answer; its batch is durable all the same.
fn answer(group: Vec<Submission>, outcomes: Vec<Outcome>) {
    for (submission, outcome) in group.into_iter().zip(outcomes) {
        let _ = submission.reply.send(Ok(outcome));
    }
}

fn refuse(group: Vec<Submission>, error: &StoreError) {
    for submission in group {
        let _ = submission.reply.send(Err(error.clone()));
    }
}

/// `outcomes` is what the batches come to if the commit is durable; it is told also when that is not known.
fn commit(shared: &Shared, group: &[Submission], outcomes: &mut Vec<Outcome>) -> Result<(), StoreError> {
    outcomes.clear();
    shared.transact(|transaction| {
        for submission in group {
            outcomes.push(apply(transaction, &submission.batch)?);
        }
        Ok(())
    })
}

fn apply(transaction: &WriteTransaction, batch: &Batch) -> Result<Outcome, redb::Error> {
    for requirement in &batch.requirements {
        if !holds(transaction, requirement)? {
            return Ok(Outcome::Conflict);
        }
    }
    for (slot, value) in &batch.changes {
        let mut table = transaction.open_table(definition(slot.table()))?;
        match value {
            Some(value) => drop(table.insert(slot.key(), value.as_stored())?),
            None => drop(table.remove(slot.key())?),
        }
    }
    Ok(Outcome::Committed)
}

fn holds(transaction: &WriteTransaction, requirement: &Requirement) -> Result<bool, redb::Error> {
    let stored = |slot: &Slot| -> Result<Option<Vec<u8>>, redb::Error> {
        let table = transaction.open_table(definition(slot.table()))?;
        let value = table.get(slot.key())?;
        Ok(value.map(|value| value.value().to_vec()))
    };
    Ok(match requirement {
        Requirement::Absent(slot) => stored(slot)?.is_none(),
        Requirement::Unchanged(slot, read) => stored(slot)?.as_deref() == Some(read.as_stored()),
    })
}
