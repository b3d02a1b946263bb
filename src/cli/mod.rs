//! The commands of `salama`, one file a noun.
//! Trusts: the person at the terminal as far as the operating system does.
//! Touches: what each command says of itself.
//! Next: `src/bin/salama.rs` prints what they return.

pub mod enrol;
pub mod init;
pub mod model;
mod programs;
