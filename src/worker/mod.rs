//! What a child does with one call: decode > speech > transcript > redact.
//! Trusts: nothing of the call; the verified models.
//! Touches: its inherited channel only. No network, files, keys or async runtime.
//! Next: `bin/salama-worker` starts it.

pub mod speech;
