//! The keeper's command line.
//! Trusts: whoever starts it: the daemon, or the operator at the console.
//! Touches: nothing.
//! Next: `src/bin/salama-keeper.rs`.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

/// Holds Salama's keys. Started by `salamad` and by `salama`, not by hand.
#[derive(Debug, Parser)]
#[command(name = "salama-keeper", version)]
pub struct Arguments {
    /// What to do.
    #[command(subcommand)]
    pub mode: Mode,
}

/// The four things that the keeper is started for.
#[derive(Debug, Subcommand)]
pub enum Mode {
    /// Answer the daemon on descriptor 3.
    Serve(ServeArgs),
    /// Issue certificates for whoever is root or owns the key directory, on descriptor 3.
    Console(ServeArgs),
    /// List and change the keyslots for whoever is root or owns the key directory, on descriptor 3.
    Keys(KeysArgs),
    /// Make the keys of a new box.
    Provision(ProvisionArgs),
}

/// Where the keyslots are.
#[derive(Debug, Args)]
pub struct KeysArgs {
    /// The key directory.
    #[arg(long, value_name = "DIR")]
    pub directory: PathBuf,
    /// The TPM, as a TCTI name.
    #[arg(long, value_name = "TCTI")]
    pub tpm: String,
    /// A file with the password of the TPM's owner hierarchy.
    #[arg(long, value_name = "FILE")]
    pub owner_auth: Option<PathBuf>,
    /// A file with the PIN of the TPM's keyslot.
    #[arg(long, value_name = "FILE")]
    pub pin: Option<PathBuf>,
}

/// Where the keys are and as whom to serve them.
#[derive(Debug, Args)]
pub struct ServeArgs {
    /// The key directory.
    #[arg(long, value_name = "DIR")]
    pub directory: PathBuf,
    /// The TPM, as a TCTI name.
    #[arg(long, value_name = "TCTI")]
    pub tpm: String,
    /// A file with the password of the TPM's owner hierarchy; read before confinement.
    #[arg(long, value_name = "FILE")]
    pub owner_auth: Option<PathBuf>,
    /// A file with the PIN of the TPM's keyslot, when it has one; read before confinement.
    #[arg(long, value_name = "FILE")]
    pub pin: Option<PathBuf>,
    /// The user to become once the keys are open; needed when started by root.
    #[arg(long, value_name = "NAME")]
    pub user: Option<String>,
}

/// What the new box is.
#[derive(Debug, Args)]
pub struct ProvisionArgs {
    /// The key directory, missing or empty.
    #[arg(long, value_name = "DIR")]
    pub directory: PathBuf,
    /// The TPM, as a TCTI name.
    #[arg(long, value_name = "TCTI")]
    pub tpm: String,
    /// A file with the password of the TPM's owner hierarchy; read before confinement.
    #[arg(long, value_name = "FILE")]
    pub owner_auth: Option<PathBuf>,
    /// The box's name in its certificates.
    #[arg(long, value_name = "BOX")]
    pub name: String,
    /// A DNS name or address by which clients reach the server; may be given several times.
    #[arg(long = "server-name", value_name = "NAME", required = true)]
    pub server_names: Vec<String>,
    /// How long the server's certificate is valid, days.
    #[arg(long, value_name = "DAYS", default_value_t = 825, value_parser = clap::value_parser!(u16).range(1..=3650))]
    pub server_days: u16,
    /// The user that will own the key directory.
    #[arg(long, value_name = "USER")]
    pub owner: Option<String>,
}
