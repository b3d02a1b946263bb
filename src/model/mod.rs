//! Models as data: nothing of a model runs before its manifest and every byte of it have been verified.
//! Trusts: nothing but the manifest's digests, once the manifest itself is trusted by whoever installed it.
//! Touches: model directories, reading; `import` also writes one.
//! Next: `worker` runs what `verify` hands out.

pub mod golden;
pub mod import;
pub mod load;
pub mod manifest;
pub mod tensors;
pub mod verify;
