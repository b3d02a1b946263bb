//! One child and its recording: answers what it asks for, hears what it says, ends it when its time is over.
//! Trusts: nothing that the child says before [`Hearing`] has checked it.
//! Touches: the child's channel, the sealed recording.
//! Next: [`super::runner`] seals what was collected.

use std::time::{Duration, Instant};

use super::border::{ChildFault, WorkerChild};
use super::events::Progress;
use super::hearing::{Collected, Heard, Hearing};
use crate::ipc::worker::{CallFailure, Summary, Task};
use crate::record::segments::{SegmentError, SegmentReader};

/// How long a child that has said its last word may take to end.
const LAST_WORD_LIMIT: Duration = Duration::from_secs(2);

/// How long a child may take.
#[derive(Clone, Copy, Debug)]
pub(super) struct TimeLimits {
    /// For any call.
    pub base: Duration,
    /// On top, for each second of audio, seconds.
    pub per_audio: u32,
    /// For any call, however long.
    pub most: Duration,
    /// Without any word from the child.
    pub silence: Duration,
}

/// What the child is told.
pub(super) struct Order {
    pub language: Option<String>,
    pub threads: u8,
    pub max_audio_seconds: u32,
}

/// `ready > task > (need > audio)* > utterances > done > end of file`.
pub(super) fn transcribe(
    child: &dyn WorkerChild,
    recording: &mut SegmentReader,
    order: Order,
    limits: TimeLimits,
    tell: &mut dyn FnMut(Progress),
) -> Result<(Summary, Collected), Unheard> {
    let audio_bytes = recording.bytes();
    let Order { language, threads, max_audio_seconds } = order;
    let mut task = Some(Task::Transcribe { audio_bytes, language, threads, max_audio_seconds });
    let mut hearing = Hearing::of(audio_bytes, max_audio_seconds);
    let started = Instant::now();
    let mut heard_ms = 0;
    loop {
        let limit = (limits.base + Duration::from_millis(heard_ms) * limits.per_audio).min(limits.most);
        let left = limit.checked_sub(started.elapsed()).ok_or(CallFailure::TimedOut)?;
        let event = child.recv(left.min(limits.silence)).map_err(verdict)?;
        match hearing.hear(event).map_err(verdict)? {
            Heard::Ready => task.take().map_or(Err(ChildFault::Misbehaved), |task| child.send(&task)).map_err(verdict)?,
            Heard::Need { offset, len } => {
                let len = usize::try_from(len).unwrap_or_default();
                let bytes = recording.read_at(offset, len)?;
                let mut answer = Task::Audio { offset, bytes };
                let sent = child.send(&answer);
                wipe(&mut answer);
                sent.map_err(verdict)?;
            }
            Heard::Progress(stage, per_mille, audio_ms) => {
                heard_ms = heard_ms.max(audio_ms);
                let percent = u8::try_from(per_mille / 10).unwrap_or(100);
                let elapsed_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
                tell(Progress { stage, percent, audio_ms, elapsed_ms });
            }
            Heard::Noted => {}
            Heard::Complete(summary) => {
                nothing_follows(child)?;
                return Ok((summary, hearing.collected));
            }
            Heard::Failed(failure) => return Err(failure.into()),
        }
    }
}

/// The last word is the last: who says more was not done, and its result is not to be believed. One that only lingers is ended later.
fn nothing_follows(child: &dyn WorkerChild) -> Result<(), CallFailure> {
    match child.recv(LAST_WORD_LIMIT) {
        Err(ChildFault::Gone | ChildFault::Silent) => Ok(()),
        Ok(_) | Err(ChildFault::Misbehaved) => Err(CallFailure::WorkerMisbehaved),
    }
}

/// Why a conversation gave no transcript.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unheard {
    /// The verdict on the call.
    #[error("{0}")]
    Verdict(CallFailure),
    /// The recording could not be read on.
    #[error("the recording could not be read")]
    Recording(#[from] SegmentError),
}

impl From<CallFailure> for Unheard {
    fn from(failure: CallFailure) -> Self {
        Self::Verdict(failure)
    }
}

fn wipe(task: &mut Task) {
    if let Task::Audio { bytes, .. } = task {
        zeroize::Zeroize::zeroize(bytes);
    }
}

/// What a fault of the child means for its call.
pub(super) const fn verdict(fault: ChildFault) -> CallFailure {
    match fault {
        ChildFault::Gone => CallFailure::WorkerDied,
        ChildFault::Silent => CallFailure::TimedOut,
        ChildFault::Misbehaved => CallFailure::WorkerMisbehaved,
    }
}
