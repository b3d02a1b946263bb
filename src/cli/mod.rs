//! The commands of `salama`, one file a noun.
//! Trusts: the operator's arguments, which clap has parsed.
//! Touches: what each command says of itself.
//! Next: `src/bin/salama.rs` prints what they return.

pub mod model;
