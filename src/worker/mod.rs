//! What runs inside the sandbox: a recording in, a redacted transcript out.
//! Trusts: nothing in the recording; models have been verified before the fork.
//! Touches: its channel and its own memory. No network, no files, no keys, no async runtime.
//! Next: `supervisor` receives what a child sends.

pub mod decode;
pub mod speech;
pub mod text;
