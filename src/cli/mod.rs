//! The commands of `salama`, one file a noun.
//! Trusts: the person at the terminal as far as the operating system does; of the appliance, what its certificate proves.
//! Touches: what each command says; the appliance only by its public API.
//! Next: `src/bin/salama.rs` runs [`run::main`].

pub mod args;
mod audit;
mod call;
mod client;
mod failure;
mod follow;
mod measure;
mod output;
mod profile;
pub mod run;
mod sse;
mod status;
mod text;
mod tls;
mod transcript;
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
