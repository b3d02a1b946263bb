//! The real daemon with its keeper and worker, on a software TPM, in a folder of its own.

use std::fs::{self, File, Permissions};
use std::io::Write as _;
use std::os::fd::AsFd as _;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, poll};
use nix::unistd::Pid;
use salama::sys::pidfd::PidFd;
use tempfile::TempDir;

use super::client::Client;
use super::gate::Gate;
use super::swtpm::Swtpm;
use super::wiretap::Wiretap;

/// Longest that a start may take: models are read, hashed and warmed up.
const START_LIMIT: Duration = Duration::from_secs(120);

/// Longest that its end may take, ms: requests may go on for as long as the drain limit says.
const END_LIMIT: u16 = 60_000;

/// What a test may want different from the defaults.
#[derive(Default)]
pub struct Settings {
    /// More lines for the settings file, section headers included.
    pub more: String,
    /// More lines for its section `[listen]`.
    pub listen: &'static str,
    /// The speech model; `whisper-tiny-en` unless a test needs the other.
    pub asr: Option<&'static str>,
    /// More environment for the daemon.
    pub environment: Vec<(String, String)>,
    /// Words before the daemon's command line, for example to enter a namespace.
    pub launcher: Vec<String>,
    /// Where the state directory is made; in the appliance's folder unless a test needs it elsewhere.
    pub state: Option<PathBuf>,
    /// Whether all bytes between keeper and TPM are written down.
    pub wiretap: bool,
    /// Whether commands to the TPM can be held back.
    pub gate: bool,
    /// A folder with `salamad` and the programs that it finds beside itself; those that cargo built unless a test needs others.
    pub programs: Option<PathBuf>,
}

/// A provisioned appliance; stopped and removed when dropped.
pub struct Appliance {
    root: TempDir,
    pub swtpm: Swtpm,
    pub wiretap: Option<Wiretap>,
    pub gate: Option<Gate>,
    state: PathBuf,
    notify: UnixDatagram,
    daemon: Option<Child>,
    address: String,
    environment: Vec<(String, String)>,
    launcher: Vec<String>,
    salamad: PathBuf,
}

/// One of our programs, as cargo built it for this test.
pub fn program(name: &str) -> PathBuf {
    let salama = Path::new(env!("CARGO_BIN_EXE_salama"));
    salama.with_file_name(name)
}

/// Where the models are; `make models` builds them.
pub fn models() -> PathBuf {
    let folder =
        std::env::var_os("SALAMA_MODELS").map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("firmware-models"), PathBuf::from);
    assert!(folder.join("whisper-tiny-en/encoder.onnx").is_file(), "the models are missing: run `make models`");
    folder
}

impl Appliance {
    /// Provisions keys on a new software TPM and starts the daemon.
    pub fn start() -> Self {
        Self::start_with(&Settings::default())
    }

    pub fn start_with(settings: &Settings) -> Self {
        let mut appliance = Self::provision(settings);
        appliance.run();
        appliance
    }

    /// Provisions, but starts nothing yet.
    pub fn provision(settings: &Settings) -> Self {
        let root = TempDir::new().unwrap();
        // The processes' users must be able to pass through, not to look.
        fs::set_permissions(root.path(), Permissions::from_mode(0o711)).unwrap();
        let swtpm = Swtpm::start();
        let notify = UnixDatagram::bind(root.path().join("notify")).unwrap();
        fs::set_permissions(root.path().join("notify"), Permissions::from_mode(0o777)).unwrap();
        notify.set_read_timeout(Some(START_LIMIT)).unwrap();
        let appliance = Self {
            state: settings.state.clone().unwrap_or_else(|| root.path().join("state")),
            root,
            wiretap: settings.wiretap.then(|| Wiretap::before(&swtpm)),
            gate: settings.gate.then(|| Gate::before(&swtpm)),
            swtpm,
            notify,
            daemon: None,
            address: String::new(),
            environment: settings.environment.clone(),
            launcher: settings.launcher.clone(),
            salamad: settings.programs.as_ref().map_or_else(|| program("salamad"), |folder| folder.join("salamad")),
        };
        appliance.configure(settings);
        let init = appliance.salama_init();
        assert!(init.status.success(), "salama init: {}", String::from_utf8_lossy(&init.stderr));
        appliance
    }

    fn salama_init(&self) -> std::process::Output {
        Command::new(program("salama"))
            .args(["init", "--name", "testbox", "--server-name", "salama.test", "--server-name", "127.0.0.1", "--owner", "salama-keeper"])
            .args(["--tpm", &self.tpm(), "--keys"])
            .arg(self.keys())
            .arg("--ca")
            .arg(self.path("ca.pem"))
            .output()
            .unwrap()
    }

    fn configure(&self, settings: &Settings) {
        fs::create_dir(self.state()).unwrap();
        let chown = Command::new("chown").arg("salama:salama").arg(self.state()).status().unwrap();
        assert!(chown.success(), "the user `salama` is missing: run `make setup` as root");
        fs::set_permissions(self.state(), Permissions::from_mode(0o700)).unwrap();
        let text = format!(
            "[listen]\naddress = \"127.0.0.1:0\"\n{}\n[state]\ndirectory = \"{}\"\nballast = \"16 MiB\"\nreserve = \"64 MiB\"\n[keeper]\ndirectory = \"{}\"\ntpm = \"{}\"\n[models]\ndirectory = \"{}\"\nasr = \"{}\"\n{}",
            settings.listen,
            self.state().display(),
            self.keys().display(),
            self.tpm(),
            models().display(),
            settings.asr.unwrap_or("whisper-tiny-en"),
            settings.more,
        );
        fs::write(self.path("salama.toml"), text).unwrap();
    }

    /// The next start has these words before the daemon's command line.
    pub fn launch_by(&mut self, launcher: Vec<String>) {
        self.launcher = launcher;
    }

    /// Starts the daemon and waits for READY.
    pub fn run(&mut self) {
        self.spawn();
        self.until_ready();
    }

    /// Starts the daemon without waiting.
    pub fn spawn(&mut self) {
        let log = File::options().create(true).append(true).open(self.path("daemon.log")).unwrap();
        let mut words: Vec<PathBuf> = self.launcher.iter().map(PathBuf::from).collect();
        words.push(self.salamad.clone());
        self.forget_notifications();
        let daemon = Command::new(&words[0])
            .args(&words[1..])
            .arg("--config")
            .arg(self.path("salama.toml"))
            .env("NOTIFY_SOCKET", self.path("notify"))
            .envs(self.environment.iter().cloned())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        end_with_this_test(&[daemon.id(), self.swtpm.pid()]);
        self.daemon = Some(daemon);
    }

    /// A daemon that was killed may have said something that nobody has read.
    fn forget_notifications(&self) {
        self.has_been_ready();
    }

    /// Reads what the daemon has said by now, and whether READY was among it.
    pub fn has_been_ready(&self) -> bool {
        let (mut buffer, mut ready) = ([0; 4096], false);
        self.notify.set_nonblocking(true).unwrap();
        while let Ok(length) = self.notify.recv(&mut buffer) {
            ready |= String::from_utf8_lossy(&buffer[..length]).lines().any(|line| line == "READY=1");
        }
        self.notify.set_nonblocking(false).unwrap();
        ready
    }

    /// Waits until a daemon that was [`Self::spawn`]ed is ready.
    pub fn until_ready(&mut self) {
        self.address = self.wait_ready();
    }

    /// Reads notifications until READY; the address comes as STATUS.
    fn wait_ready(&mut self) -> String {
        let mut address = None;
        loop {
            let message = self.notification();
            for line in message.lines() {
                if let Some(listening) = line.strip_prefix("STATUS=listening on ") {
                    address = Some(listening.to_owned());
                }
            }
            if message.lines().any(|line| line == "READY=1") {
                return address.expect("the daemon did not say where it listens");
            }
        }
    }

    /// The next datagram to the notify socket. A daemon that ends instead fails the test with its log.
    pub fn notification(&mut self) -> String {
        let mut buffer = [0; 4096];
        let step = Duration::from_millis(200);
        self.notify.set_read_timeout(Some(step)).unwrap();
        for _ in 0..START_LIMIT.as_millis() / step.as_millis() {
            if let Ok(length) = self.notify.recv(&mut buffer) {
                return String::from_utf8_lossy(&buffer[..length]).into_owned();
            }
            if let Some(daemon) = &mut self.daemon
                && let Some(status) = daemon.try_wait().unwrap()
            {
                panic!("salamad ended with {status}:\n{}", self.log());
            }
        }
        panic!("salamad said nothing within {START_LIMIT:?}:\n{}", self.log());
    }

    /// Stops the daemon as systemd does and returns how it ended.
    pub fn stop(&mut self) -> ExitStatus {
        self.signal("TERM");
        self.ended()
    }

    /// Ends the daemon in the middle of whatever it does.
    pub fn kill(&mut self) {
        self.signal("KILL");
        self.ended();
    }

    /// Waits for the daemon's end.
    pub fn ended(&mut self) -> ExitStatus {
        let mut daemon = self.daemon.take().expect("the daemon does not run");
        let watched = PidFd::open(Pid::from_raw(i32::try_from(daemon.id()).unwrap())).unwrap();
        let in_time = poll(&mut [PollFd::new(watched.as_fd(), PollFlags::POLLIN)], END_LIMIT).unwrap() == 1;
        assert!(in_time, "salamad did not end within {END_LIMIT} ms:\n{}", self.log());
        daemon.wait().unwrap()
    }

    fn signal(&self, signal: &str) {
        let sent = Command::new("kill").arg(format!("-{signal}")).arg(self.pid().to_string()).status().unwrap();
        assert!(sent.success());
    }

    pub fn pid(&self) -> u32 {
        self.daemon.as_ref().expect("the daemon does not run").id()
    }

    /// Process ids of the children of `pid` whose command name is `name`.
    pub fn children_of(pid: u32, name: &str) -> Vec<u32> {
        let mut found = Vec::new();
        for entry in fs::read_dir("/proc").unwrap().filter_map(Result::ok) {
            let Ok(child) = entry.file_name().to_string_lossy().parse::<u32>() else { continue };
            let Ok(stat) = fs::read_to_string(entry.path().join("stat")) else { continue };
            let Some((before, after)) = stat.rsplit_once(')') else { continue };
            let parent = after.split_whitespace().nth(1).and_then(|parent| parent.parse::<u32>().ok());
            let named = before.split_once('(').is_some_and(|(_, command)| name.starts_with(command) || command.starts_with(name));
            if parent == Some(pid) && named {
                found.push(child);
            }
        }
        found
    }

    /// Makes a certificate of this role and name, once.
    pub fn identity(&self, role: &str, name: &str) -> PathBuf {
        // A TPM without a resource manager, as this one, serves one program at a time.
        static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
        let _turn = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
        let file = self.path(&format!("{role}-{name}.pem"));
        if !file.is_file() {
            let enrol = Command::new(program("salama"))
                .args(["enrol", name, "--role", role, "--tpm", &self.tpm(), "--keys"])
                .arg(self.keys())
                .arg("--out")
                .arg(&file)
                .arg("--lines")
                .arg(self.path("daemon.log"))
                .output()
                .unwrap();
            assert!(enrol.status.success(), "salama enrol: {}", String::from_utf8_lossy(&enrol.stderr));
        }
        file
    }

    /// A client of this role and name.
    pub fn client(&self, role: &str, name: &str) -> Client {
        Client::new(&self.base(), &self.path("ca.pem"), Some(&self.identity(role, name)))
    }

    /// A client without a certificate.
    pub fn stranger(&self) -> Client {
        Client::new(&self.base(), &self.path("ca.pem"), None)
    }

    /// `https://host:port` of the running daemon.
    pub fn base(&self) -> String {
        let port = self.address.rsplit_once(':').unwrap().1;
        format!("https://salama.test:{port}")
    }

    /// `127.0.0.1:port` of the running daemon.
    pub fn address(&self) -> &str {
        &self.address
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    pub fn state(&self) -> PathBuf {
        self.state.clone()
    }

    /// Where our programs find the TPM.
    pub fn tpm(&self) -> String {
        let listened = self.wiretap.as_ref().map_or_else(|| self.swtpm.tcti(), Wiretap::tcti);
        self.gate.as_ref().map_or(listened, Gate::tcti)
    }

    pub fn keys(&self) -> PathBuf {
        self.path("keys")
    }

    /// What the daemon wrote to standard error.
    pub fn log(&self) -> String {
        fs::read_to_string(self.path("daemon.log")).unwrap_or_default()
    }
}

/// Ends the processes when the test program ends, however that happens: the shared appliance is never dropped.
fn end_with_this_test(processes: &[u32]) {
    static WAITING: OnceLock<Mutex<ChildStdin>> = OnceLock::new();
    let waiting = WAITING.get_or_init(|| {
        // By then a number may be another process's.
        let script = "pids=; while read -r pid; do pids=\"$pids $pid\"; done
            for pid in $pids; do grep -qE '^(salamad|swtpm)$' /proc/$pid/comm && kill $pid; done 2>/dev/null";
        #[expect(clippy::zombie_processes, reason = "it ends after this process")]
        let mut waiting = Command::new("sh").args(["-c", script]).stdin(Stdio::piped()).spawn().unwrap();
        Mutex::new(waiting.stdin.take().unwrap())
    });
    let mut waiting = waiting.lock().unwrap_or_else(PoisonError::into_inner);
    processes.iter().for_each(|process| writeln!(waiting, "{process}").unwrap());
}

impl Drop for Appliance {
    fn drop(&mut self) {
        if let Some(mut daemon) = self.daemon.take() {
            let _ = daemon.kill();
            let _ = daemon.wait();
        }
    }
}
