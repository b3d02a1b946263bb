//! What runs inside the sandbox: a fork server that holds the models, and one child a call that runs them on a stranger's audio.
//! Trusts: its own models, verified; nothing that comes over a channel.
//! Touches: inherited channels only. No network, no files, no keys, no async runtime.
//! Next: `salama-worker` starts it; `supervisor` in `salamad` receives what a child sends.

mod beside;
pub mod decode;
pub mod forkserver;
pub mod golden;
pub mod layers;
pub mod models;
pub mod run;
pub mod source;
pub mod speech;
pub mod text;
pub mod transcribe;
