//! Our side of the benchmarks of the daemon, its store and its children, and what drives them: one answer a line.
//! Trusts: its arguments; it is run by `benches/bench.py` and by hand.
//! Touches: loopback, a software TPM, folders of its own.
//! Next: `benches/bench.py` runs it in turn with a peer and compares.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::as_conversions,
    reason = "a measuring program: a failure should be loud"
)]

mod appliance;
mod children;
mod client;
mod epoch;
mod reopen;
mod sink;
mod store;
#[path = "../../tests/support/mod.rs"]
mod support;
mod unseal;

use clap::Parser;

#[derive(Debug, Parser)]
enum CommandLine {
    /// Sealed durable inserts from many writers, then random sealed reads.
    Store(store::Arguments),
    /// A large store whose writer was killed: how long it takes to open.
    Reopen(reopen::Arguments),
    /// Not for people: writes until it is killed.
    Writer(reopen::WriterArguments),
    /// A move of the erasure epoch over many calls.
    Epoch(epoch::Arguments),
    /// Starts of the keeper: how long until it answers, and how much of that is the TPM's.
    Unseal(unseal::Arguments),
    /// A server that drops what it is sent, behind the daemon's own TLS and HTTP settings.
    Sink(sink::Arguments),
    /// A whole appliance, until standard input is closed.
    Appliance(appliance::Arguments),
    /// Sends one recording of this many bytes.
    Put(client::PutArguments),
    /// Reads one path many times on connections that are kept.
    Get(client::GetArguments),
    /// The fork server and its children.
    Children(children::Arguments),
}

fn main() {
    match CommandLine::parse() {
        CommandLine::Store(arguments) => store::run(&arguments),
        CommandLine::Reopen(arguments) => reopen::run(&arguments),
        CommandLine::Writer(arguments) => reopen::write(&arguments),
        CommandLine::Epoch(arguments) => epoch::run(&arguments),
        CommandLine::Unseal(arguments) => unseal::run(&arguments),
        CommandLine::Sink(arguments) => sink::run(&arguments),
        CommandLine::Appliance(arguments) => appliance::run(&arguments),
        CommandLine::Put(arguments) => client::put(&arguments),
        CommandLine::Get(arguments) => client::get(&arguments),
        CommandLine::Children(arguments) => children::run(&arguments),
    }
}

/// Processor time of all threads of this process so far, milliseconds.
fn cpu_ms() -> f64 {
    use nix::sys::resource::{UsageWho, getrusage};
    let usage = getrusage(UsageWho::RUSAGE_SELF).expect("always there");
    let spent = |time: nix::sys::time::TimeVal| time.tv_sec() as f64 * 1000.0 + time.tv_usec() as f64 / 1000.0;
    spent(usage.user_time()) + spent(usage.system_time())
}
