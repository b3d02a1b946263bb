//! Every `unsafe` block and every raw libc call, as small safe functions.
//! Trusts: each site's SAFETY note.
//! Touches: the kernel.
//! Next: `ipc`, `sandbox`, `supervisor` and `worker` call it.

#![expect(unsafe_code, reason = "this module is the one place for it")]

pub mod attempt;
pub mod descriptors;
pub mod heap;
pub mod limits;
pub mod pidfd;
pub mod process;
pub mod simd;
pub mod socket;
