//! A provisioned key directory on a software TPM, and real keepers started on it.
//! Trusts: `swtpm`.
//! Touches: temporary directories, processes of the test's own.
//! Next: `tests/keeper.rs`.

use std::ffi::OsString;
use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use nix::unistd::geteuid;
use salama::ipc::CHANNEL_FD;
use salama::ipc::channel::Channel;
use salama::keys::{Keeper, KeeperError, KeeperGreeting};
use salama::sys::process::start_with_descriptor;
use tempfile::TempDir;

use super::swtpm::Swtpm;

/// The program under test.
pub const KEEPER: &str = env!("CARGO_BIN_EXE_salama-keeper");

/// A TPM and a directory beside it.
pub struct Bench {
    /// The TPM.
    pub tpm: Swtpm,
    base: TempDir,
}

/// A keeper's process; killed when dropped.
pub struct Process(pub Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Bench {
    /// With keys.
    pub fn provisioned() -> Self {
        Self::provisioned_on(Swtpm::start())
    }

    /// With keys, on this TPM.
    pub fn provisioned_on(tpm: Swtpm) -> Self {
        let bench = Self::empty_on(tpm);
        let output = bench.provision(&bench.tpm.tcti());
        assert!(output.status.success(), "provision: {}", String::from_utf8_lossy(&output.stderr));
        bench
    }

    /// Without keys.
    pub fn empty_on(tpm: Swtpm) -> Self {
        let base = tempfile::tempdir().expect("a temporary directory");
        // Keepers that have dropped root must be able to reach the key directory itself.
        fs::set_permissions(base.path(), fs::Permissions::from_mode(0o755)).expect("its own directory");
        Self { tpm, base }
    }

    /// The directory that holds the key directory and nothing else.
    pub fn base(&self) -> &Path {
        self.base.path()
    }

    /// The key directory.
    pub fn keys(&self) -> PathBuf {
        self.base.path().join("keys")
    }

    /// Runs `salama-keeper provision`.
    pub fn provision(&self, tcti: &str) -> Output {
        self.provision_with(tcti, &[])
    }

    /// As [`Self::provision`], with more arguments.
    pub fn provision_with(&self, tcti: &str, more: &[&str]) -> Output {
        self.provisioning(tcti, more).output().expect("the keeper's program")
    }

    /// As [`Self::provision`]; `hears` the program's process id.
    #[allow(dead_code, reason = "each test program uses its own part")]
    pub fn provision_hearing(&self, tcti: &str, hears: impl FnOnce(u32)) -> Output {
        let mut command = self.provisioning(tcti, &[]);
        let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the keeper's program");
        hears(child.id());
        child.wait_with_output().expect("its own child")
    }

    fn provisioning(&self, tcti: &str, more: &[&str]) -> Command {
        let mut command = Command::new(KEEPER);
        command.arg("provision").arg("--directory").arg(self.keys()).args(["--tpm", tcti, "--name", "nairobi-1"]).args(more);
        command.args(["--server-name", "salama.example", "--server-name", "127.0.0.1"]);
        if geteuid().is_root() {
            command.args(["--owner", "nobody"]);
        }
        command
    }

    /// What the keepers wrote on standard error.
    pub fn log(&self) -> String {
        fs::read_to_string(self.base.path().join("log")).expect("a keeper was started")
    }

    /// Starts a keeper; its standard error is appended to the log.
    pub fn start(&self, mode: &str, tcti: &str, more: &[&str]) -> (Channel, Process) {
        self.start_by(&[], mode, tcti, more)
    }

    /// As [`Self::start`], with words before the keeper's command line.
    pub fn start_by(&self, launcher: &[OsString], mode: &str, tcti: &str, more: &[&str]) -> (Channel, Process) {
        let log = File::options().create(true).append(true).open(self.base.path().join("log")).expect("its own directory");
        let words = [launcher, &[OsString::from(KEEPER)]].concat();
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]).arg(mode).arg("--directory").arg(self.keys()).args(["--tpm", tcti]).args(more);
        if geteuid().is_root() {
            command.args(["--user", "nobody"]);
        }
        command.env("TSS2_LOG", "all+NONE").stdin(Stdio::null()).stderr(log);
        let (ours, theirs) = Channel::pair().expect("a socket pair");
        let child = start_with_descriptor(command, theirs.into_fd(), CHANNEL_FD).expect("the keeper's program");
        (ours, Process(child))
    }

    /// A daemon's keeper that answers.
    pub fn serve(&self, more: &[&str]) -> (Keeper, KeeperGreeting, Process) {
        let (channel, process) = self.start("serve", &self.tpm.tcti(), more);
        let (keeper, greeting) = Keeper::connect(channel).unwrap_or_else(|error| panic!("the keeper starts: {error}"));
        (keeper, greeting, process)
    }

    /// Sets the keeper's limits, for its next start.
    pub fn set_limits(&self, text: &str) {
        fs::write(self.keys().join("limits.toml"), text).expect("its own directory");
    }

    /// The words with which a daemon's keeper refuses to start, and its exit code.
    pub fn refusal(&self, tcti: &str) -> (String, i32) {
        self.refusal_with(tcti, &[])
    }

    /// As [`Self::refusal`], with more arguments.
    pub fn refusal_with(&self, tcti: &str, more: &[&str]) -> (String, i32) {
        let (channel, mut process) = self.start("serve", tcti, more);
        match Keeper::connect(channel) {
            Err(KeeperError::Refused { reason, .. }) => (reason, process.0.wait().expect("its own child").code().expect("an exit code")),
            Err(error) => panic!("the keeper did not say why: {error}"),
            Ok(_) => panic!("the keeper started"),
        }
    }

    /// Every byte in the key directory.
    pub fn all_bytes(&self) -> Vec<u8> {
        let files = fs::read_dir(self.keys()).expect("a key directory");
        files.flat_map(|file| fs::read(file.expect("an entry").path()).expect("a file")).collect()
    }
}

/// Whether `bytes` holds `secret`, raw or in hexadecimal of either case.
pub fn holds(bytes: &[u8], secret: &[u8]) -> bool {
    let lower: String = secret.iter().map(|byte| format!("{byte:02x}")).collect();
    let text = String::from_utf8_lossy(bytes).to_ascii_lowercase();
    let digits: String = text.chars().filter(|letter| !letter.is_ascii_whitespace()).collect();
    bytes.windows(secret.len()).any(|window| window == secret) || digits.contains(&lower)
}
