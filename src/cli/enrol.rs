//! `salama enrol`: a certificate for a person or machine.
//! Trusts: the person at the console. The private key is made here and leaves only into the file; the keeper sees the public half.
//! Touches: starts `salama-keeper console`; writes one new file.
//! Next: the file goes to the client; `salama call …` uses it.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use clap::Args;
use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};
use rcgen::{CertificateParams, KeyPair};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, CertificateSigningRequestDer};
use serde::Serialize;
use zeroize::Zeroizing;

use crate::identity::peer::Role;
use crate::ipc::CHANNEL_FD;
use crate::ipc::channel::Channel;
use crate::keys::KeeperError;
use crate::keys::console::Console;
use crate::supervisor::lines;
use crate::sys::process::start_with_descriptor;

use super::programs;

/// The roles with what each is for, as `--help` shows them.
fn roles() -> impl TypedValueParser<Value = Role> {
    let values = Role::ALL.map(|role| {
        let help = match role {
            Role::Recorder => "A telephone exchange or call recorder",
            Role::Counsellor => "A counsellor",
            Role::CaseWorker => "A case worker",
            Role::Supervisor => "A supervisor",
            Role::Admin => "An administrator",
            Role::ModelSteward => "A model steward",
            Role::Auditor => "An auditor",
            Role::Monitor => "A monitoring system",
        };
        PossibleValue::new(role.word()).help(help)
    });
    PossibleValuesParser::new(values).try_map(|word| Role::from_word(&word).ok_or("no such role"))
}

/// Arguments of `salama enrol`.
#[derive(Clone, Debug, Args)]
pub struct EnrolArgs {
    /// The name of the person or machine: 1 to 64 of a-z, 0-9, dot, underscore, hyphen.
    #[arg(value_name = "NAME", value_parser = parse_name)]
    pub name: String,
    /// What it may do.
    #[arg(long, value_parser = roles())]
    pub role: Role,
    /// How long the certificate is valid, days.
    #[arg(long, value_name = "DAYS", default_value_t = 90, value_parser = clap::value_parser!(u16).range(1..=825))]
    pub days: u16,
    /// A certificate request (PKCS#10, PEM) whose key to certify, instead of making a key here.
    #[arg(long, value_name = "FILE")]
    pub csr: Option<PathBuf>,
    /// Where to write the certificate chain and, unless --csr is given, the private key; NAME.pem when absent.
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
    /// The key directory.
    #[arg(long, value_name = "DIR", default_value = "/var/lib/salama-keeper")]
    pub keys: PathBuf,
    /// The TPM, as a TCTI name.
    #[arg(long, value_name = "TCTI", default_value = "device:/dev/tpmrm0")]
    pub tpm: String,
    /// A file with the password of the TPM's owner hierarchy, when it has one.
    #[arg(long, value_name = "FILE")]
    pub owner_auth: Option<PathBuf>,
    /// A file with the PIN of the TPM's slot, when it has one.
    #[arg(long, value_name = "FILE")]
    pub pin: Option<PathBuf>,
    /// A file to which the key keeper's signed lines are appended, where there is no journal.
    #[arg(long, value_name = "FILE")]
    pub lines: Option<PathBuf>,
    /// The user that the console's key keeper becomes once the keys are open; when run by root and not given, the owner of the key
    /// directory.
    #[arg(long, value_name = "USER")]
    pub user: Option<String>,
}

/// Names are file names and parts of a URI: nothing that is special in either.
fn parse_name(text: &str) -> Result<String, EnrolError> {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let begins = text.bytes().next().is_some_and(plain);
    let holds = text.len() <= 64 && text.bytes().all(|byte| plain(byte) || matches!(byte, b'.' | b'_' | b'-'));
    if begins && holds { Ok(text.to_owned()) } else { Err(EnrolError::Name) }
}

/// What `salama enrol` did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct EnrolReport {
    /// The file written.
    pub file: PathBuf,
    /// The identity in the certificate, as `role/name`.
    pub identity: String,
    /// Whether the file holds a private key.
    pub with_key: bool,
}

/// Issues a certificate.
///
/// # Errors
/// [`EnrolError`]; then no file was written.
pub fn enrol(args: &EnrolArgs) -> Result<EnrolReport, EnrolError> {
    enrol_with(&programs::keeper().map_err(EnrolError::Start)?, args)
}

/// As [`enrol`], with the keeper's program named.
///
/// # Errors
/// [`EnrolError`]; then no file was written.
pub fn enrol_with(keeper: &Path, args: &EnrolArgs) -> Result<EnrolReport, EnrolError> {
    let file = args.out.clone().unwrap_or_else(|| PathBuf::from(format!("{}.pem", args.name)));
    if file.exists() {
        return Err(EnrolError::Exists(file));
    }
    let request = match &args.csr {
        Some(path) => read_request(path)?,
        None => make_request()?,
    };
    let chain = issue(keeper, args, &request.csr)?;
    let text = pem_file(&chain, request.key_pem.as_deref());
    programs::write_new(&file, text.as_bytes(), 0o600).map_err(|source| EnrolError::Write { path: file.clone(), source })?;
    Ok(EnrolReport { file, identity: format!("{}/{}", args.role.word(), args.name), with_key: request.key_pem.is_some() })
}

struct Request {
    csr: CertificateSigningRequestDer<'static>,
    key_pem: Option<Zeroizing<String>>,
}

fn read_request(path: &Path) -> Result<Request, EnrolError> {
    let text = fs::read(path).map_err(|source| EnrolError::ReadRequest { path: path.to_owned(), source })?;
    let csr = CertificateSigningRequestDer::from_pem_slice(&text).map_err(|_| EnrolError::NoRequest(path.to_owned()))?;
    Ok(Request { csr, key_pem: None })
}

fn make_request() -> Result<Request, EnrolError> {
    let key = KeyPair::generate().map_err(EnrolError::MakeKey)?;
    let request = CertificateParams::default().serialize_request(&key).map_err(EnrolError::MakeKey)?;
    Ok(Request { csr: request.der().clone(), key_pem: Some(Zeroizing::new(key.serialize_pem())) })
}

fn issue(keeper: &Path, args: &EnrolArgs, csr: &[u8]) -> Result<Vec<CertificateDer<'static>>, EnrolError> {
    let lines = lines::of_the_console(args.lines.as_deref()).map_err(EnrolError::Lines)?;
    let (channel, mut started) = start_console(keeper, args, lines).map_err(EnrolError::Start)?;
    let chain = Console::connect(channel).and_then(|console| console.issue(csr, args.role.word(), &args.name, args.days));
    // The channel is closed by now, so the keeper ends by itself.
    started.wait().map_err(EnrolError::Start)?;
    Ok(chain?)
}

fn start_console(keeper: &Path, args: &EnrolArgs, lines: Stdio) -> io::Result<(Channel, Child)> {
    let (ours, theirs) = Channel::pair()?;
    let mut command = Command::new(keeper);
    command.arg("console").arg("--directory").arg(&args.keys).args(["--tpm", &args.tpm]);
    if let Some(file) = &args.owner_auth {
        command.arg("--owner-auth").arg(file);
    }
    if let Some(file) = &args.pin {
        command.arg("--pin").arg(file);
    }
    if let Some(user) = &args.user {
        command.args(["--user", user]);
    }
    // Its words come over the channel; what it says on standard error is what it signs.
    command.env_clear().env("TSS2_LOG", "all+NONE").stdin(Stdio::null()).stdout(Stdio::null()).stderr(lines);
    Ok((ours, start_with_descriptor(command, theirs.into_fd(), CHANNEL_FD)?))
}

fn pem_file(chain: &[CertificateDer<'_>], key: Option<&String>) -> Zeroizing<String> {
    let mut text = Zeroizing::new(String::new());
    for certificate in chain {
        text.push_str(&pem::encode(&pem::Pem::new("CERTIFICATE", certificate.as_ref())));
    }
    if let Some(key) = key {
        text.push_str(key);
    }
    text
}

/// Why no certificate was issued.
#[derive(Debug, thiserror::Error)]
pub enum EnrolError {
    /// The name.
    #[error("a name is 1 to 64 of a-z, 0-9, dot, underscore and hyphen, and begins with a letter or digit")]
    Name,
    /// The file exists.
    #[error("{} exists already; move it away or name another file with --out", .0.display())]
    Exists(PathBuf),
    /// The request's file.
    #[error("the certificate request {} cannot be read", .path.display())]
    ReadRequest {
        /// Which.
        path: PathBuf,
        /// What the kernel says.
        #[source]
        source: io::Error,
    },
    /// Not a request.
    #[error("{} holds no certificate request in PEM (BEGIN CERTIFICATE REQUEST)", .0.display())]
    NoRequest(PathBuf),
    /// No key.
    #[error("no key could be made")]
    MakeKey(#[source] rcgen::Error),
    /// No certificate is issued without a line.
    #[error(
        "the key keeper's signed line on this certificate has no place: the system's journal does not take it. Start journald, or name a file \
         with --lines and keep it with the journal"
    )]
    Lines(#[source] io::Error),
    /// The keeper's program did not start.
    #[error("salama-keeper could not be started; it belongs beside this program")]
    Start(#[source] io::Error),
    /// The keeper refused.
    #[error(transparent)]
    Keeper(#[from] KeeperError),
    /// The file.
    #[error("{} cannot be written", .path.display())]
    Write {
        /// Which.
        path: PathBuf,
        /// What the kernel says.
        #[source]
        source: io::Error,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_are_paths_or_hidden_files_are_refused() {
        for hostile in ["", ".", "..", "../x", "a/b", "-x", ".x", "Amina", "a b", "a\0", &"a".repeat(65)] {
            assert!(parse_name(hostile).is_err(), "{hostile:?}");
        }
        assert!(parse_name("amina.w_2-x").is_ok());
    }
}
