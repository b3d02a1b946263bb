//! What runs in the sandbox on a stranger's bytes.
//! Trusts: nothing.
//! Touches: memory and processor; no network, files or keys.
//! Next: `worker::run` tells the story.

pub mod text;
