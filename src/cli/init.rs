//! `salama init`: makes the keys of a new box.
//! Trusts: the person at the console.
//! Touches: starts `salama-keeper provision`; writes the authority's certificate for clients.
//! Next: `salama enrol` issues the first client's certificate.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use clap::Args;
use serde::Serialize;

use super::programs;

/// Arguments of `salama init`.
#[derive(Clone, Debug, Args)]
pub struct InitArgs {
    /// Where the keys will be; missing or empty.
    #[arg(long, value_name = "DIR", default_value = "/var/lib/salama-keeper")]
    pub keys: PathBuf,
    /// The TPM, as a TCTI name.
    #[arg(long, value_name = "TCTI", default_value = "device:/dev/tpmrm0")]
    pub tpm: String,
    /// A file with the password of the TPM's owner hierarchy, when it has one.
    #[arg(long, value_name = "FILE")]
    pub owner_auth: Option<PathBuf>,
    /// The box's name in its certificates: a-z, 0-9, dot, hyphen.
    #[arg(long, value_name = "BOX")]
    pub name: String,
    /// A DNS name or address by which clients reach the box; may be given several times.
    #[arg(long = "server-name", value_name = "NAME", required = true)]
    pub server_names: Vec<String>,
    /// How long the server's certificate is valid, days.
    #[arg(long, value_name = "DAYS", default_value_t = 825)]
    pub server_days: u16,
    /// The user that the key keeper runs as; it will own the keys.
    #[arg(long, value_name = "USER")]
    pub owner: Option<String>,
    /// Where to write the certificate of the box's authority, which clients need.
    #[arg(long, value_name = "FILE", default_value = "ca.pem")]
    pub ca: PathBuf,
}

/// What `salama init` did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct InitReport {
    /// The key directory.
    pub keys: PathBuf,
    /// The authority's certificate.
    pub ca: PathBuf,
}

/// Makes the keys. Nothing is ever overwritten.
///
/// # Errors
/// [`InitError`].
pub fn init(args: &InitArgs) -> Result<InitReport, InitError> {
    init_with(&programs::keeper().map_err(InitError::Start)?, args)
}

/// As [`init`], with the keeper's program named.
///
/// # Errors
/// [`InitError`].
pub fn init_with(keeper: &Path, args: &InitArgs) -> Result<InitReport, InitError> {
    if args.ca.exists() {
        return Err(InitError::CaExists(args.ca.clone()));
    }
    provision(keeper, args)?;
    let written = fs::read(args.keys.join("ca.pem")).and_then(|pem| programs::write_new(&args.ca, &pem, 0o644));
    written.map_err(|source| InitError::WriteCa { path: args.ca.clone(), kept: args.keys.join("ca.pem"), source })?;
    Ok(InitReport { keys: args.keys.clone(), ca: args.ca.clone() })
}

fn provision(keeper: &Path, args: &InitArgs) -> Result<(), InitError> {
    let mut command = Command::new(keeper);
    command.arg("provision").arg("--directory").arg(&args.keys).args(["--tpm", &args.tpm, "--name", &args.name]);
    for name in &args.server_names {
        command.args(["--server-name", name]);
    }
    command.args(["--server-days", &args.server_days.to_string()]);
    if let Some(file) = &args.owner_auth {
        command.arg("--owner-auth").arg(file);
    }
    if let Some(owner) = &args.owner {
        command.args(["--owner", owner]);
    }
    command.env_clear().env("TSS2_LOG", "all+NONE");
    let ended = command.stdin(Stdio::null()).output().map_err(InitError::Start)?;
    if ended.status.success() {
        Ok(())
    } else {
        Err(InitError::Provision { said: String::from_utf8_lossy(&ended.stderr).trim().to_owned() })
    }
}

/// Why the box was not set up.
#[derive(Debug, thiserror::Error)]
pub enum InitError {
    /// The certificate's file exists.
    #[error("{} exists already; name another file with --ca", .0.display())]
    CaExists(PathBuf),
    /// The keeper's program did not start.
    #[error("salama-keeper could not be started; it belongs beside this program")]
    Start(#[source] io::Error),
    /// The keeper refused; these are its words.
    #[error("{said}")]
    Provision {
        /// The keeper's words for the operator.
        said: String,
    },
    /// The keys exist, the copy of the certificate does not.
    #[error("the keys are made, but {} could not be written; copy {} by hand", .path.display(), .kept.display())]
    WriteCa {
        /// The copy.
        path: PathBuf,
        /// The original.
        kept: PathBuf,
        /// What the kernel says.
        #[source]
        source: io::Error,
    },
}
