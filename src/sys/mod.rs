//! Every `unsafe` block and every raw libc call, as small safe functions.
//! Trusts: each site's SAFETY note.
//! Touches: the kernel.
//! Next: `ipc`, `sandbox` and `worker` call it.

#![expect(unsafe_code, reason = "this module is the one place for it")]

pub mod simd;
pub mod socket;
