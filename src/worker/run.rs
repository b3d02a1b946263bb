//! Inside the sandbox: inherited channel > confined > one call in > one result out > exit.
//! Trusts: nothing of the recording. The process is confined before this module is entered.
//! Touches: its channel, its own memory and threads.
//! Next: [`super::transcribe`] for a recording, `text` for a text.

use std::sync::Arc;

use super::forkserver::Work;
use super::models::Models;
use super::text;
use super::transcribe::transcribe;
use crate::base::exit::Exit;
use crate::ipc::channel::{Channel, ChannelError};
use crate::ipc::worker::{CallFailure, ChildEvent, Task};

/// The work of children: one call.
#[derive(Debug)]
pub enum Call {}

impl Work for Call {
    type Models = Models;

    fn serve(models: &Models, channel: Channel) -> u8 {
        let exit = match serve(models, &Arc::new(channel)) {
            Ok(()) => Exit::Ok,
            Err(_) => Exit::Failed,
        };
        exit.code()
    }
}

fn serve(models: &Models, channel: &Arc<Channel>) -> Result<(), ChannelError> {
    let Some(task) = channel.recv::<Task>()? else { return Ok(()) };
    let outcome = match task {
        Task::Transcribe { audio_bytes, language, threads, max_audio_seconds, samples } => {
            transcribe(models, channel, audio_bytes, samples, language, threads, max_audio_seconds).map(ChildEvent::Done)
        }
        Task::Redact { text } => redact(models, &text),
        Task::Audio { .. } => return Err(ChannelError::Malformed),
    };
    channel.send(&outcome.unwrap_or_else(ChildEvent::Failed))
}

fn redact(models: &Models, clear: &str) -> Result<ChildEvent, CallFailure> {
    let redacted = models.text.redact_text(clear).map_err(|_| CallFailure::ModelFailed)?;
    let counts = text::count(redacted.entities.iter());
    Ok(ChildEvent::Redacted { text: redacted.text, counts, language: models.text.language(clear) })
}
