//! The way of one call, from the queue to its end.
//! Trusts: the store for what is durable; the child for nothing.
//! Touches: the keeper, the sealed recording, one child, the store.
//! Next: readers find the redacted transcript.

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use super::border::{Allowance, KeyError, SpawnRefused, WorkerChild};
use super::conversation::{self, Order, TimeLimits, Unheard};
use super::desk::{Desk, DeskError, record_fault};
use super::events::Progress;
use super::header::{Header, StoredClear, StoredEntities, StoredMetadata, StoredTranscript};
use super::hearing::Collected;
use super::hindrance::Hindrance;
use super::queue::Queue;
use super::spec::{CallMetadata, CallState};
use super::state::Change;
use crate::audit::{self, Event};
use crate::base::ids::CallId;
use crate::ipc::keeper::UnwrapPurpose;
use crate::ipc::worker::{AudioInfo, CallFailure, ChildExit, Stage, Summary};
use crate::record::envelope::{Envelope, SealedRecord};
use crate::record::schema::{Slot, Table};
use crate::record::segments::{SegmentError, SegmentReader};
use crate::record::store::StoreError;

/// The keeper says how long its limit lasts, which is up to an hour; somebody may lift it sooner.
const KEY_LIMIT_PAUSE_MAX: Duration = Duration::from_secs(60);
/// Writes that are tried again when the store failed.
const STORE_CHANCES: u32 = 3;

/// One runner thread: call after call, until the daemon stops.
pub(super) fn run(desk: &Arc<Desk>) {
    while let Some((job, call)) = desk.queue.take() {
        match run_call(desk, call) {
            Ok(()) => desk.queue.remove(job),
            Err(stopped) => settle(desk, job, call, stopped),
        }
    }
}

/// `queued > checked > decoded > speech > transcribed > redacted > sealed > done`
fn run_call(desk: &Desk, call: CallId) -> Result<(), Stopped> {
    let checked = Checked::open(desk, call)?;
    let started = checked.start()?;
    let heard = started.listen()?;
    let sealed = heard.seal()?;
    sealed.done()
}

/// Why a call's way ended early.
enum Stopped {
    /// It was cancelled or erased meanwhile.
    Superseded,
    /// There will be no transcript.
    Verdict(CallFailure, Option<ChildExit>),
    /// It is to be tried again as soon as may be: what stopped it ends by itself. `counted` says whether the attempt counts.
    Again { reason: &'static str, counted: bool },
    /// The keeper's limit is reached. No attempt counts: it was not the call's fault, nor a fault at all.
    Limited { wait: Duration },
    /// Something outside the call, that may last. `counted` as above.
    Hindered { by: Hindrance, counted: bool },
    /// The store failed.
    Fault(DeskError),
}

impl From<DeskError> for Stopped {
    fn from(error: DeskError) -> Self {
        match error {
            DeskError::NotFound | DeskError::Impossible(_) => Self::Superseded,
            DeskError::Key(KeyError::RateLimited { wait }) => Self::Limited { wait },
            DeskError::Key(KeyError::Unavailable | KeyError::Refused(_)) => Self::Hindered { by: Hindrance::Keeper, counted: false },
            error => Self::Fault(error),
        }
    }
}

/// A queued call whose key opens and whose recording is genuine at both ends.
struct Checked<'a> {
    desk: &'a Desk,
    header: Header,
    envelope: Envelope,
    recording: SegmentReader,
    metadata: CallMetadata,
}

/// A running call: counted, with a child that can be stopped.
struct Started<'a> {
    checked: Checked<'a>,
    child: Box<dyn WorkerChild>,
    _stoppable: Stoppable<'a>,
}

/// A call whose child has said all it had to say.
struct HeardOut<'a> {
    desk: &'a Desk,
    call: CallId,
    envelope: Envelope,
    summary: Summary,
    collected: Collected,
}

/// A call whose results only wait to be stored.
struct Sealed<'a> {
    desk: &'a Desk,
    call: CallId,
    summary: Summary,
    audio: Option<AudioInfo>,
    redacted: u64,
    records: [(Slot, SealedRecord); 3],
}

impl<'a> Checked<'a> {
    fn open(desk: &'a Desk, call: CallId) -> Result<Self, Stopped> {
        let (mut header, _) = desk.stored_header(call)?;
        // The queue gives each call to one runner: nobody works on this one, and the end of its last try could not be stored.
        if header.state == CallState::Running && header.attempts < desk.settings.attempts {
            header = desk.change(call, Change::Interrupt { counted: true }, &|_| (), &[])?;
        }
        if header.state.is_final() {
            return Err(Stopped::Superseded);
        }
        if header.attempts >= desk.settings.attempts {
            return Err(Stopped::Verdict(CallFailure::TriedTooOften, None));
        }
        let envelope = desk.open_key(call, UnwrapPurpose::Job).or_else(|error| unreadable(call, error))?;
        let recording = desk.segments.read(call, &envelope).map_err(DeskError::from).or_else(|error| unreadable(call, error))?;
        if recording.bytes() != header.audio_bytes {
            return unreadable(call, DeskError::Segment(SegmentError::Forged));
        }
        let metadata = metadata(desk, call, &envelope).or_else(|error| unreadable(call, error))?;
        Ok(Self { desk, header, envelope, recording, metadata })
    }

    /// The attempt is durable before the child exists, so that a call that ends the daemon is not tried for ever.
    fn start(self) -> Result<Started<'a>, Stopped> {
        let (desk, call) = (self.desk, self.header.call);
        let header = desk.change(call, Change::Start, &|_| (), &[])?;
        let allowance = Allowance { memory: desk.settings.child_memory, cpu_seconds: desk.settings.child_cpu_seconds };
        let child = desk.children.spawn(allowance).map_err(|SpawnRefused| Stopped::Hindered { by: Hindrance::Workers, counted: false })?;
        let stoppable = Stoppable::register(desk, call, &*child);
        // Whoever cancelled or erased the call before the child could be stopped has changed the header.
        if desk.stored_header(call)?.0.state != CallState::Running {
            desk.end(child);
            return Err(Stopped::Superseded);
        }
        audit::record(&Event::CallStarted { call, attempt: header.attempts });
        Ok(Started { checked: self, child, _stoppable: stoppable })
    }
}

/// Lets other threads stop the child of a call or of a text.
pub(super) struct Stoppable<'a> {
    desk: &'a Desk,
    call: CallId,
}

impl<'a> Stoppable<'a> {
    pub(super) fn register(desk: &'a Desk, call: CallId, child: &dyn WorkerChild) -> Self {
        desk.running.lock().unwrap_or_else(PoisonError::into_inner).insert(call, child.killer());
        // A stop sets the mark first and then stops whom it finds, so one of the two sees the other.
        if desk.queue.is_stopping() {
            child.killer().kill();
        }
        Self { desk, call }
    }
}

impl Drop for Stoppable<'_> {
    fn drop(&mut self) {
        self.desk.running.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.call);
    }
}

impl<'a> Started<'a> {
    /// Feeds the child and hears it to its end.
    fn listen(self) -> Result<HeardOut<'a>, Stopped> {
        let Self { checked: Checked { desk, header, envelope, mut recording, metadata }, child, _stoppable } = self;
        let call = header.call;
        let settings = &desk.settings;
        let CallMetadata { language, samples, .. } = metadata;
        let order = Order { language, samples, threads: settings.threads, max_audio_seconds: settings.max_audio_seconds };
        let limits = TimeLimits {
            base: settings.time_base,
            per_audio: settings.time_per_audio,
            most: settings.time_limit,
            silence: settings.silence,
        };
        let mut tell = |progress| desk.hub.progress(call, progress);
        let heard = conversation::transcribe(&*child, &mut recording, order, limits, &mut tell);
        let exit = desk.end(child);
        match heard {
            Ok((summary, collected)) => Ok(HeardOut { desk, call, envelope, summary, collected }),
            Err(Unheard::Verdict(CallFailure::WorkerDied)) if desk.queue.is_stopping() => {
                Err(Stopped::Again { reason: "the daemon stops", counted: false })
            }
            Err(Unheard::Verdict(CallFailure::WorkerDied)) if desk.children.lost() => {
                Err(Stopped::Again { reason: "the fork server is gone", counted: true })
            }
            Err(Unheard::Verdict(failure)) => Err(Stopped::Verdict(failure, exit)),
            Err(Unheard::Recording(error)) => unreadable(call, error.into()),
        }
    }
}

impl<'a> HeardOut<'a> {
    /// Seals the redacted transcript, the clear one and the entities apart from each other.
    fn seal(self) -> Result<Sealed<'a>, Stopped> {
        let Self { desk, call, envelope, summary, collected } = self;
        let (audio_ms, elapsed_ms) = (summary.audio_ms, summary.wall_ms);
        desk.hub.progress(call, Progress { stage: Stage::Seal, percent: 99, audio_ms, elapsed_ms });
        let counts = collected.counts();
        let redacted = counts.iter().map(|count| u64::from(count.count)).sum();
        let Collected { audio, redacted: utterances, clear, entities } = collected;
        let transcript = StoredTranscript {
            utterances,
            redacted: counts,
            language: summary.language.clone(),
            audio_ms,
            speech_ms: summary.speech_ms,
            stages: summary.stages.clone(),
            wall_ms: summary.wall_ms,
            models: desk.children.models(),
        };
        let records = [
            sealed(&envelope, call, Table::Redacted, &transcript)?,
            sealed::<StoredClear>(&envelope, call, Table::Clear, &clear.0)?,
            sealed::<StoredEntities>(&envelope, call, Table::Entities, &entities)?,
        ];
        Ok(Sealed { desk, call, summary, audio, redacted, records })
    }
}

fn sealed<T: serde::Serialize>(envelope: &Envelope, call: CallId, table: Table, value: &T) -> Result<(Slot, SealedRecord), DeskError> {
    let slot = Slot::of_call(table, call);
    let record = envelope.seal_value(&slot, value)?;
    Ok((slot, record))
}

impl Sealed<'_> {
    /// Makes the end durable. A full disk delays it: the work is not thrown away for that.
    fn done(self) -> Result<(), Stopped> {
        let Self { desk, call, .. } = self;
        let Summary { audio_ms, wall_ms, .. } = self.summary;
        let update = |header: &mut Header| {
            header.audio_ms = Some(audio_ms);
            header.audio.clone_from(&self.audio);
        };
        durably(&desk.queue, desk.settings.pause, || desk.change(call, Change::Finish, &update, &self.records))?;
        desk.tally.done(audio_ms, wall_ms);
        audit::record(&Event::CallDone { call, audio_ms, wall_ms, redacted: self.redacted });
        Ok(())
    }
}

/// Writes until the disk has room for it: the end of a call that nobody learns of helps nobody. A store that fails otherwise is given
/// a few chances, since the work would be lost. A stop of the daemon ends the waiting.
pub(super) fn durably<T>(queue: &Queue, pause: Duration, write: impl Fn() -> Result<T, DeskError>) -> Result<T, DeskError> {
    let mut chances = STORE_CHANCES;
    loop {
        match write() {
            Err(DeskError::Store(StoreError::Full)) if !queue.is_stopping() => {
                audit::record(&Event::SpaceLow);
                queue.pause(pause);
            }
            Err(DeskError::Store(StoreError::Failed(_) | StoreError::Closed)) if chances > 0 && !queue.is_stopping() => {
                chances -= 1;
                queue.pause(pause);
            }
            written => return written,
        }
    }
}

fn metadata(desk: &Desk, call: CallId, envelope: &Envelope) -> Result<CallMetadata, DeskError> {
    let slot = Slot::of_call(Table::Metadata, call);
    let sealed = desk.store.get(&slot)?.ok_or(DeskError::NotFound)?;
    let stored: StoredMetadata = envelope.open_value(&slot, &sealed)?;
    Ok(stored.metadata()?)
}

/// What was read and does not open never will; a disk that does not read may yet; everything else is for [`Stopped::from`].
fn unreadable<T>(call: CallId, error: DeskError) -> Result<T, Stopped> {
    match error {
        DeskError::Segment(cause) if cause.may_pass() => {
            record_fault("read recording", Some(call), &cause);
            Err(Stopped::Hindered { by: Hindrance::Recording, counted: false })
        }
        DeskError::Open(_) | DeskError::Segment(_) | DeskError::Metadata(_) | DeskError::Key(KeyError::WrongKey) => {
            record_fault("open recording", Some(call), &error);
            Err(Stopped::Verdict(CallFailure::Unreadable, None))
        }
        error => Err(error.into()),
    }
}

/// Writes down how a call's way ended early, and puts it back when it is not its end.
fn settle(desk: &Desk, job: u64, call: CallId, stopped: Stopped) {
    let set_back = matches!(stopped, Stopped::Hindered { .. } | Stopped::Fault(_));
    let written = match stopped {
        Stopped::Superseded => Ok(Settled::Ended),
        Stopped::Verdict(failure, exit) => fail(desk, call, failure, exit),
        Stopped::Again { reason, counted } => again(desk, job, call, reason, counted, desk.settings.pause),
        Stopped::Limited { wait } => limited(desk, job, call, wait),
        Stopped::Hindered { by, counted } => hindered(desk, job, call, by, counted),
        Stopped::Fault(error) => {
            record_fault("run call", Some(call), &error);
            hindered(desk, job, call, Hindrance::Store, true)
        }
    };
    match written {
        Ok(Settled::Waits) => {}
        Ok(Settled::Ended) | Err(DeskError::NotFound | DeskError::Impossible(_)) => desk.queue.remove(job),
        // The state on disk is that of a crash. Who takes the call again counts the attempt, as the next start would.
        Err(error) => {
            record_fault("end call", Some(call), &error);
            if !set_back {
                desk.queue.set_back(job);
            }
            desk.queue.push_later(job, call, Hindrance::Store, desk.settings.pause);
        }
    }
}

/// What became of a call whose way ended early.
enum Settled {
    Ended,
    Waits,
}

fn fail(desk: &Desk, call: CallId, failure: CallFailure, exit: Option<ChildExit>) -> Result<Settled, DeskError> {
    durably(&desk.queue, desk.settings.pause, || desk.fail(call, failure, exit.map(exit_number)))?;
    Ok(Settled::Ended)
}

/// The runner waits with its call for as long as the keeper said: no other call would get its key either.
fn limited(desk: &Desk, job: u64, call: CallId, wait: Duration) -> Result<Settled, DeskError> {
    audit::record(&Event::KeyLimit { step: "run call", call: Some(call), wait_s: wait.as_secs() });
    again(desk, job, call, "the key keeper's limit is reached", false, wait.min(KEY_LIMIT_PAUSE_MAX))
}

/// The runner waits with its call.
fn again(desk: &Desk, job: u64, call: CallId, reason: &'static str, counted: bool, pause: Duration) -> Result<Settled, DeskError> {
    interrupt(desk, call, reason, counted)?;
    desk.queue.pause(pause);
    desk.queue.push(job, call);
    Ok(Settled::Waits)
}

/// The call waits alone, longer each time; one that was set back too often fails, so that somebody learns of it.
fn hindered(desk: &Desk, job: u64, call: CallId, by: Hindrance, counted: bool) -> Result<Settled, DeskError> {
    if desk.queue.set_back(job) > desk.settings.setbacks {
        return fail(desk, call, by.failure(), None);
    }
    interrupt(desk, call, by.words(), counted)?;
    desk.queue.push_later(job, call, by, desk.settings.pause);
    Ok(Settled::Waits)
}

fn interrupt(desk: &Desk, call: CallId, reason: &'static str, counted: bool) -> Result<(), DeskError> {
    if desk.stored_header(call)?.0.state == CallState::Running {
        durably(&desk.queue, desk.settings.pause, || desk.change(call, Change::Interrupt { counted }, &|_| (), &[]))?;
    }
    audit::record(&Event::CallRequeued { call, reason });
    Ok(())
}

fn exit_number(exit: ChildExit) -> i64 {
    match exit {
        ChildExit::Code(code) => code.into(),
        ChildExit::Signal(signal) => i64::from(signal) + 128,
    }
}
