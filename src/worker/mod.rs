//! What runs inside the sandbox: a recording in, a redacted transcript out.
//! Trusts: nothing in the recording; models have been verified before the fork.
//! Touches: its channel and its own memory. No network, no files, no keys.
//! Next: `supervisor` receives what a child sends.

pub mod decode;
//! What a child does with one call: decode > speech > transcript > redact.
//! Trusts: nothing of the call; the verified models.
//! Touches: its inherited channel only. No network, files, keys or async runtime.
//! Next: `bin/salama-worker` starts it.

pub mod speech;
