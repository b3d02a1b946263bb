//! One call in a child: task > audio > speech > text > redacted text > done.
//! Trusts: nothing that comes over the channel.
//! Touches: its channel, its memory, its threads.
//! Next: the child exits; `supervisor` judges what it said.

use super::forkserver::Work;
use super::models::Models;
use crate::ipc::channel::Channel;
use crate::ipc::worker::{CallFailure, ChildEvent, Task};

/// The work of children: one call.
#[derive(Debug)]
pub enum Call {}

impl Work for Call {
    type Models = Models;

    fn serve(_models: &Models, channel: Channel) -> u8 {
        let answered = match channel.recv::<Task>() {
            Ok(Some(_)) => channel.send(&ChildEvent::Failed(CallFailure::ModelFailed)),
            Ok(None) => Ok(()),
            Err(error) => Err(error),
        };
        match answered {
            Ok(()) => 0,
            Err(_) => 1,
        }
    }
}
