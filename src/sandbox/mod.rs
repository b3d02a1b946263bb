//! From a process that may do anything to one that may do its work and nothing else.
//! Trusts: the kernel's landlock and seccomp, both tried out before they are relied on.
//! Touches: this process: descriptors, identity, capabilities, limits, landlock, seccomp. There is no way back.
//! Next: the start-up stories hold a [`process::Confined`] and go on to serve.

pub mod landlock;
pub mod policy;
pub mod privilege;
pub mod process;
pub mod seccomp;
pub mod self_check;
