//! The commands of `salama`, one file a noun.
//! Trusts: the person at the terminal as far as the operating system does; of the appliance, what its certificate proves.
//! Touches: what each command says; the appliance by its public API, and at its console the key keeper.
//! Next: `src/bin/salama.rs` runs [`run::main`].

mod approval;
pub mod args;
mod ask;
mod audit;
pub mod burst;
mod call;
mod client;
pub mod enrol;
mod failure;
mod follow;
pub mod init;
pub mod key_log;
mod keys;
mod local;
mod measure;
pub mod model;
mod output;
mod profile;
mod programs;
pub mod run;
mod sheet;
mod sse;
mod status;
mod store;
#[cfg(test)]
mod tests;
mod text;
mod tls;
mod transcript;
