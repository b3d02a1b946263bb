//! Calls and their way: accepted, queued, run, sealed, read, erased. Never parses audio.
//! Trusts: a `Permit` has been given before anything here is called.
//! Touches: `record` (store and segments), `supervisor` (children), `keys` (data-encryption keys), `audit`.
//! Next: `api` calls [`calls::Calls`].

pub mod calls;
pub mod spec;
