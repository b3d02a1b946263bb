//! The commands of `salama`, one file a noun.
//! Trusts: the person at the terminal as far as the operating system does.
//! Touches: what each command says.
//! Next: `src/bin/salama.rs`.

pub mod enrol;
pub mod init;
mod programs;
//! Trusts: the operator's arguments, which clap has parsed.
//! Touches: what each command says of itself.
//! Next: `src/bin/salama.rs` prints what they return.

pub mod model;
