//! Calls and their way: accepted, queued, run, sealed, read, erased. Never parses audio.
//! Trusts: a `Permit` has been given before anything here is called.
//! Touches: `record` (store and segments), `supervisor` (children), `keys` (data-encryption keys), `audit`.
//! Next: `api` calls [`calls::Calls`].

pub mod border;
pub mod calls;
mod conversation;
mod counting;
mod desk;
mod epoch;
mod erasures;
mod events;
mod header;
mod hearing;
pub mod hindrance;
mod intake;
mod moves;
mod queue;
mod reading;
mod runner;
mod settings;
pub mod spec;
mod state;
pub mod tally;
#[cfg(test)]
mod tests;
mod text;
pub mod upload;
