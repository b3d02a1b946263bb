//! The daemon's command line.
//! Trusts: nothing.
//! Touches: nothing.
//! Next: `main.rs` loads the settings file it names.

use std::path::PathBuf;

use clap::{Parser, Subcommand};

use super::maintenance::StoreTask;

/// Salama's daemon: takes recordings over mutual TLS, gives redacted transcripts out.
#[derive(Clone, Debug, Parser)]
#[command(name = "salamad", version, after_help = "Run it with `systemctl start salama`, or from a shell as root or as the user `salama`.")]
pub struct Arguments {
    /// The settings file.
    #[arg(long, value_name = "FILE", default_value = "/etc/salama/salama.toml")]
    pub config: PathBuf,
    /// Check the settings file and exit.
    #[arg(long)]
    pub check: bool,
    /// Something else than to serve.
    #[command(subcommand)]
    pub task: Option<Task>,
}

/// What `salama` starts this program for.
#[derive(Clone, Debug, Subcommand)]
pub enum Task {
    /// Work on the store; started by `salama store`.
    #[command(subcommand, hide = true)]
    Store(StoreTask),
}
