//! The worker: a fork server that holds the models, and one child a call that runs them on a stranger's audio.
//! Trusts: its own models, verified; nothing that comes over a channel.
//! Touches: inherited channels only. No network, no files, no keys.
//! Next: `salama-worker` starts it; `supervisor` in `salamad` asks it.

pub mod forkserver;
pub mod models;
pub mod run;
