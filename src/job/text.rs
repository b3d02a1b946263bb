//! Redaction of one text in a child of its own; nothing is stored.
//! Trusts: nothing that the child answers beyond its bounds.
//! Touches: one child.
//! Next: `api` answers with it.

use std::time::{Duration, Instant};

use super::border::{Allowance, ChildFault};
use super::calls::CallsError;
use super::conversation::verdict;
use super::desk::{Desk, DeskError};
use super::runner::Stoppable;
use super::spec::RedactedText;
use crate::audit::{self, Event};
use crate::base::ids::CallId;
use crate::ipc::worker::{CallFailure, ChildEvent, TEXT_CHARS_MAX, Task};

/// A text may grow by its placeholders, not without bound.
const GROWTH: usize = 8;

impl Desk {
    /// `spawn > ready > text > redacted`
    pub(super) fn redact(&self, text: String) -> Result<RedactedText, DeskError> {
        let settings = &self.settings;
        let allowance = Allowance { memory: settings.child_memory, cpu_seconds: settings.child_cpu_seconds };
        let id = CallId::random()?;
        let child = self.children.spawn(allowance).map_err(|_| DeskError::Refused(CallsError::Busy))?;
        // A text is no call; an id that no call has lets a stop of the daemon find its child all the same.
        let _stoppable = Stoppable::register(self, id, &*child);
        let bytes = text.len();
        let answer = ask(text, bytes, settings.text_time, &|task| child.send(task), &|wait| child.recv(wait));
        self.end(child);
        let redacted = answer.map_err(|fault| DeskError::Refused(CallsError::Worker(fault)))?;
        let count = redacted.redacted.iter().map(|count| u64::from(count.count)).sum();
        audit::record(&Event::TextRedacted { redacted: count });
        Ok(redacted)
    }
}

fn ask(
    text: String,
    bytes: usize,
    limit: Duration,
    send: &dyn Fn(&Task) -> Result<(), ChildFault>,
    recv: &dyn Fn(Duration) -> Result<ChildEvent, ChildFault>,
) -> Result<RedactedText, CallFailure> {
    let started = Instant::now();
    let next = || {
        let left = limit.checked_sub(started.elapsed()).ok_or(CallFailure::TimedOut)?;
        recv(left).map_err(verdict)
    };
    let ChildEvent::Ready = next()? else { return Err(CallFailure::WorkerMisbehaved) };
    let mut task = Task::Redact { text };
    let sent = send(&task);
    if let Task::Redact { text } = &mut task {
        zeroize::Zeroize::zeroize(text);
    }
    sent.map_err(verdict)?;
    loop {
        match next()? {
            ChildEvent::Progress { .. } => {}
            ChildEvent::Failed(CallFailure::ModelFailed) => return Err(CallFailure::ModelFailed),
            ChildEvent::Redacted { text, counts, language } if text.len() <= bytes * GROWTH + TEXT_CHARS_MAX && counts.len() <= 64 => {
                return Ok(RedactedText { text, redacted: counts, language });
            }
            _ => return Err(CallFailure::WorkerMisbehaved),
        }
    }
}
