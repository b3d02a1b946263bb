//! Of the worker, what reads a stranger's bytes.
//! Trusts: nothing.
//! Touches: memory.
//! Next: the targets `decode` and `redaction`.

#[path = "../src/worker/decode/mod.rs"]
pub mod decode;
#[path = "../src/worker/layers.rs"]
pub mod layers;
#[path = "../src/worker/text/mod.rs"]
pub mod text;
