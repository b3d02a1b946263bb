//! From an empty directory to a TLS handshake: `salama init`, `salama enrol`, the keeper's TLS key. `openssl` is the witness.

#![allow(
    clippy::as_conversions,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test says what it expects, loudly"
)]
#![cfg(test)]

#[path = "../src/cli"]
#[allow(dead_code, reason = "a part of the program `salama`")]
mod cli {
    pub mod enrol;
    pub mod init;
    mod programs;
}
#[path = "support/swtpm.rs"]
mod swtpm;

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::Arc;

use clap::Parser;
use cli::enrol::{EnrolArgs, EnrolError, EnrolReport, enrol_with};
use cli::init::{InitArgs, InitError, InitReport, init_with};
use nix::unistd::geteuid;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::server::WebPkiClientVerifier;
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{RootCertStore, ServerConfig, ServerConnection, Stream};
use salama::ipc::keeper::KeeperDenial;
use salama::ipc::key_log::{LogFault, Verifier};
use salama::keys::{Keeper, KeeperError, tls};
use salama::{identity, ipc, keys, supervisor, sys};
use swtpm::Swtpm;
use tempfile::TempDir;

const KEEPER: &str = env!("CARGO_BIN_EXE_salama-keeper");

#[derive(Parser)]
struct Init {
    #[command(flatten)]
    args: InitArgs,
}

#[derive(Parser)]
struct Enrol {
    #[command(flatten)]
    args: EnrolArgs,
}

/// An operator's machine.
struct Machine {
    tpm: Swtpm,
    place: TempDir,
}

impl Machine {
    fn new() -> Self {
        let place = tempfile::tempdir().expect("a temporary directory");
        Self { tpm: Swtpm::start(), place }
    }

    fn set_up() -> Self {
        let machine = Self::new();
        machine.init(&["--server-name", "localhost", "--server-name", "127.0.0.1"]).expect("init");
        machine
    }

    fn path(&self, name: &str) -> PathBuf {
        self.place.path().join(name)
    }

    fn init(&self, more: &[&str]) -> Result<InitReport, InitError> {
        let owner: &[&str] = if geteuid().is_root() { &["--owner", "nobody"] } else { &[] };
        let (keys, ca) = (self.path("keys"), self.path("ca.pem"));
        let line = ["init", "--name", "nairobi-1", "--keys", text(&keys), "--ca", text(&ca), "--tpm", &self.tpm.tcti()];
        init_with(Path::new(KEEPER), &Init::parse_from(line.iter().chain(owner).chain(more)).args)
    }

    fn enrol(&self, name: &str, role: &str, more: &[&str]) -> Result<EnrolReport, EnrolError> {
        let (keys, out) = (self.path("keys"), self.path(&format!("{name}.pem")));
        let lines = self.path("lines");
        let line = ["enrol", name, "--role", role, "--keys", text(&keys), "--out", text(&out), "--tpm", &self.tpm.tcti()];
        let mut args = Enrol::parse_from(line.iter().chain(more)).args;
        args.lines.get_or_insert(lines);
        enrol_with(Path::new(KEEPER), &args)
    }

    fn openssl(&self, line: &str) -> Output {
        let ran = Command::new("openssl").args(line.split_whitespace()).current_dir(self.place.path()).stdin(Stdio::null()).output();
        ran.unwrap_or_else(|error| panic!("openssl cannot be run ({error}): apt-get install openssl"))
    }

    fn openssl_says(&self, line: &str) -> String {
        let output = self.openssl(line);
        assert!(output.status.success(), "openssl {line}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("text")
    }
}

fn text(path: &Path) -> &str {
    path.to_str().expect("a path in UTF-8")
}

#[test]
fn an_enrolled_certificate_says_who_and_nothing_more() {
    let machine = Machine::set_up();
    let report = machine.enrol("amina", "counsellor", &[]).unwrap();
    assert_eq!((report.identity.as_str(), report.with_key), ("counsellor/amina", true));
    assert_eq!(fs::metadata(&report.file).unwrap().permissions().mode() & 0o777, 0o600);

    machine.openssl_says("verify -x509_strict -purpose sslclient -CAfile ca.pem amina.pem");
    assert!(!machine.openssl("verify -x509_strict -purpose sslserver -CAfile ca.pem amina.pem").status.success());
    let shown = machine.openssl_says("x509 -in amina.pem -noout -text -certopt no_sigdump,no_pubkey");
    for part in [
        "X509v3 Subject Alternative Name: \n                URI:salama://nairobi-1/counsellor/amina\n",
        "X509v3 Extended Key Usage: \n                TLS Web Client Authentication\n",
        "X509v3 Key Usage: critical\n                Digital Signature\n",
        "X509v3 Basic Constraints: critical\n                CA:FALSE\n",
        "ecdsa-with-SHA256",
        "CN = amina, OU = counsellor, O = nairobi-1",
    ] {
        assert!(shown.contains(part), "no {part:?} in\n{shown}");
    }
    let key = machine.openssl_says("pkey -in amina.pem -pubout");
    assert_eq!(key, machine.openssl_says("x509 -in amina.pem -noout -pubkey"));
}

#[test]
fn each_certificate_has_a_signed_line_and_without_one_there_is_none() {
    let machine = Machine::set_up();
    for name in ["amina", "juma"] {
        machine.enrol(name, "supervisor", &[]).unwrap();
    }
    let lines = fs::read_to_string(machine.path("lines")).unwrap();
    let (_, key) = lines.split_once("\"key\":\"").unwrap();
    let mut verifier = Verifier::new(salama::base::hex::unhex(&key[..64]).unwrap(), false);
    for (number, line) in (1..).zip(lines.lines()) {
        verifier.line(number, line.as_bytes()).unwrap();
    }
    let report = verifier.finish().unwrap();
    assert_eq!((report.chains, report.lines, report.others), (2, 8, 0), "{lines}");
    assert_eq!(lines.matches("\"kind\":\"issue_certificate\",\"outcome\":\"done\"").count(), 2, "{lines}");

    for full in ["/dev/full", "/nowhere/lines"] {
        let refused = machine.enrol("third", "supervisor", &["--lines", full]);
        assert!(
            matches!(refused, Err(EnrolError::Lines(_) | EnrolError::Keeper(KeeperError::Denied(KeeperDenial::Internal)))),
            "{full}: {refused:?}"
        );
        assert!(!machine.path("third.pem").exists(), "{full}");
    }
    // What is issued past the lines leaves a gap in the numbers of the starts.
    machine.enrol("fourth", "supervisor", &[]).unwrap();
    let lines = fs::read_to_string(machine.path("lines")).unwrap();
    let mut verifier = Verifier::new(salama::base::hex::unhex(&key[..64]).unwrap(), false);
    let faults: Vec<LogFault> =
        (1..).zip(lines.lines()).filter_map(|(number, line)| verifier.line(number, line.as_bytes()).err()).collect();
    assert_eq!(faults, [LogFault::StartsMissing { line: 9, first: 3, last: 3 }]);
}

#[test]
fn the_authority_may_sign_leaves_only_for_ten_years() {
    let machine = Machine::set_up();
    machine.openssl_says("verify -x509_strict -check_ss_sig -CAfile ca.pem ca.pem");
    let shown = machine.openssl_says("x509 -in ca.pem -noout -text");
    assert!(shown.contains("X509v3 Basic Constraints: critical\n                CA:TRUE, pathlen:0\n"), "{shown}");
    assert!(shown.contains("X509v3 Key Usage: critical\n                Certificate Sign, CRL Sign\n"), "{shown}");
    machine.openssl_says("x509 -in ca.pem -noout -checkend 315000000");
    assert!(!machine.openssl("x509 -in ca.pem -noout -checkend 316000000").status.success());
}

#[test]
fn two_certificates_never_share_a_serial_number() {
    let machine = Machine::set_up();
    machine.enrol("one", "monitor", &[]).unwrap();
    machine.enrol("two", "monitor", &[]).unwrap();
    let serial = |name| machine.openssl_says(&format!("x509 -in {name}.pem -noout -serial"));
    assert_ne!(serial("one"), serial("two"));
    assert_eq!(serial("one").trim().len(), "serial=".len() + 32);
}

#[test]
fn a_clients_own_request_is_certified_without_its_wishes() {
    let machine = Machine::set_up();
    let wishes = "-subj /CN=root -addext subjectAltName=URI:salama://nairobi-1/admin/root -addext basicConstraints=CA:TRUE";
    machine.openssl_says(&format!("req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -noenc -keyout own.key -out own.csr {wishes}"));
    let report = machine.enrol("pbx", "recorder", &["--csr", text(&machine.path("own.csr"))]).unwrap();
    assert!(!report.with_key);
    assert!(!fs::read_to_string(report.file).unwrap().contains("PRIVATE KEY"));
    let shown = machine.openssl_says("x509 -in pbx.pem -noout -text");
    assert!(shown.contains("URI:salama://nairobi-1/recorder/pbx\n") && shown.contains("CA:FALSE") && !shown.contains("root"), "{shown}");
    assert_eq!(machine.openssl_says("pkey -in own.key -pubout"), machine.openssl_says("x509 -in pbx.pem -noout -pubkey"));
}

#[test]
fn a_request_that_is_not_p256_or_not_signed_by_its_key_is_refused() {
    let machine = Machine::set_up();
    machine.openssl_says("req -new -newkey ec -pkeyopt ec_paramgen_curve:P-384 -sha256 -noenc -keyout k -out p384.csr -subj /CN=x");
    machine.openssl_says("req -new -newkey rsa:2048 -noenc -keyout k -out rsa.csr -subj /CN=x");
    machine.openssl_says("req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -noenc -keyout k -out good.csr -subj /CN=x -outform DER");
    let mut tampered = fs::read(machine.path("good.csr")).unwrap();
    let subject = tampered.windows(3).position(|bytes| bytes == [0x0c, 1, b'x']).unwrap();
    tampered[subject + 2] = b'y';
    let mut trailing = fs::read(machine.path("good.csr")).unwrap();
    trailing.push(0);
    for (name, der) in [("tampered.csr", tampered), ("trailing.csr", trailing), ("noise.csr", vec![7; 200])] {
        fs::write(machine.path(name), pem::encode(&pem::Pem::new("CERTIFICATE REQUEST", der))).unwrap();
    }
    for name in ["p384.csr", "rsa.csr", "tampered.csr", "trailing.csr", "noise.csr"] {
        let refused = machine.enrol("x", "monitor", &["--csr", text(&machine.path(name))]);
        assert!(matches!(refused, Err(EnrolError::Keeper(KeeperError::Denied(KeeperDenial::BadRequest)))), "{name}: {refused:?}");
        assert!(!machine.path("x.pem").exists(), "{name}");
    }
    fs::write(machine.path("empty.csr"), "").unwrap();
    assert!(matches!(machine.enrol("x", "monitor", &["--csr", text(&machine.path("empty.csr"))]), Err(EnrolError::NoRequest(_))));
}

#[test]
fn an_existing_file_is_never_overwritten() {
    let machine = Machine::set_up();
    fs::write(machine.path("amina.pem"), "precious").unwrap();
    assert!(matches!(machine.enrol("amina", "counsellor", &[]), Err(EnrolError::Exists(_))));
    assert!(matches!(machine.init(&["--server-name", "localhost"]), Err(InitError::CaExists(_))));
    fs::remove_file(machine.path("ca.pem")).unwrap();
    let said = machine.init(&["--server-name", "localhost"]).unwrap_err().to_string();
    assert!(said.contains("set up already and nothing was changed"), "{said}");
}

#[test]
fn names_that_no_certificate_can_carry_are_refused_before_anything_is_made() {
    let machine = Machine::new();
    for name in ["*.example.org", "two words", ""] {
        let said = machine.init(&["--server-name", name]).unwrap_err().to_string();
        assert!(said.contains("DNS name without wildcard or an IP address"), "{name:?}: {said}");
    }
    assert_eq!(fs::read_dir(machine.place.path()).unwrap().count(), 0);
}

#[test]
fn the_keeper_signs_a_real_handshake_that_openssl_verifies() {
    let machine = Machine::set_up();
    machine.enrol("amina", "counsellor", &[]).unwrap();
    let (config, _process) = server_config(&machine);
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    let server = std::thread::spawn(move || {
        let (mut socket, _) = listener.accept().unwrap();
        let mut tls = ServerConnection::new(config).unwrap();
        let mut stream = Stream::new(&mut tls, &mut socket);
        let mut line = [0; 5];
        stream.read_exact(&mut line).unwrap();
        stream.write_all(&line).unwrap();
        stream.flush().unwrap();
        tls.send_close_notify();
        let _ = tls.write_tls(&mut socket);
        let peer: Vec<CertificateDer<'static>> = tls.peer_certificates().unwrap().to_vec();
        peer
    });
    let line = "-tls1_3 -verify_return_error -verify_hostname localhost -CAfile ca.pem -cert amina.pem -key amina.pem -ign_eof";
    let mut client = Command::new("openssl")
        .args(["s_client", "-connect", &format!("127.0.0.1:{port}")])
        .args(line.split_whitespace())
        .current_dir(machine.place.path())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    client.stdin.as_mut().unwrap().write_all(b"hello").unwrap();
    let peer = server.join().unwrap();
    let output = client.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(said.contains("Verify return code: 0 (ok)") && said.contains("Peer signature type: ECDSA") && said.contains("hello"), "{said}");
    assert_eq!(peer[0], CertificateDer::from_pem_file(machine.path("amina.pem")).unwrap());
}

fn server_config(machine: &Machine) -> (Arc<ServerConfig>, std::process::Child) {
    let (ours, theirs) = ipc::channel::Channel::pair().unwrap();
    let mut command = Command::new(KEEPER);
    command.arg("serve").arg("--directory").arg(machine.path("keys")).args(["--tpm", &machine.tpm.tcti()]);
    let child = sys::process::start_with_descriptor(command, theirs.into_fd(), ipc::CHANNEL_FD).unwrap();
    let (keeper, greeting) = Keeper::connect(ours).unwrap();
    let mut clients = RootCertStore::empty();
    clients.add(greeting.client_ca).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(clients), provider.clone()).build().unwrap();
    let config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(Arc::new(SingleCertAndKey::from(CertifiedKey::new(greeting.server_chain, tls::signing_key(keeper)))));
    (Arc::new(config), child)
}
