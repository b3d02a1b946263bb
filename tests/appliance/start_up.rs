//! Starting: refused when a part is missing or touched, ready only when confined.

use std::fs;
use std::io::Write as _;
use std::process::{Command, Stdio};

use crate::support::appliance::{Appliance, Settings, models, program};
use crate::support::client::Client;

/// Starts a daemon that must end by itself and returns what it said.
fn refused(appliance: &mut Appliance) -> String {
    appliance.spawn();
    assert!(!appliance.ended().success(), "it started:\n{}", appliance.log());
    appliance.log()
}

#[test]
fn a_tpm_that_is_gone_stops_the_start_with_the_step_and_the_way_out() {
    let mut appliance = Appliance::provision(&Settings::default());
    appliance.swtpm.stop();
    let said = refused(&mut appliance);
    assert!(said.contains("no TPM answers at the configured address: enable the TPM"), "{said}");
}

#[test]
fn another_tpm_does_not_open_the_keys() {
    let mut appliance = Appliance::provision(&Settings::default());
    let settings = appliance.path("salama.toml");
    let other = crate::support::swtpm::Swtpm::start();
    let text = fs::read_to_string(&settings).unwrap().replace(&appliance.swtpm.tcti(), &other.tcti());
    fs::write(&settings, text).unwrap();
    let said = refused(&mut appliance);
    assert!(said.contains("TPM"), "{said}");
}

/// Gives the first slot a PIN, as an operator does.
pub fn with_pin(appliance: &Appliance, pin: &str) {
    let mut reseal = Command::new(program("salama"))
        .args(["--json", "keys", "reseal", "--with-pin", "--tpm", &appliance.tpm(), "--keys"])
        .arg(appliance.keys())
        .arg("--lines")
        .arg(appliance.path("key-lines"))
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    write!(reseal.stdin.take().unwrap(), "{pin}\n{pin}\n").unwrap();
    assert!(reseal.wait().unwrap().success());
}

#[test]
fn a_daemon_whose_pin_is_missing_or_wrong_ends_so_that_it_is_not_started_again() {
    // RestartPreventExitStatus= of the unit; started again and again it would use up the TPM's tries.
    const CONFIG: Option<i32> = Some(78);
    let credentials = tempfile::tempdir().unwrap();
    let environment = vec![("CREDENTIALS_DIRECTORY".to_owned(), credentials.path().to_str().unwrap().to_owned())];
    let mut appliance = Appliance::provision(&Settings { environment, ..Settings::default() });
    with_pin(&appliance, "a long enough PIN");
    for (pin, words) in [(None, "wants a PIN"), (Some("not this one"), "the PIN is wrong")] {
        pin.iter().for_each(|pin| fs::write(credentials.path().join("tpm-pin"), pin).unwrap());
        appliance.spawn();
        assert_eq!(appliance.ended().code(), CONFIG, "{}", appliance.log());
        assert!(appliance.log().contains(words), "{}", appliance.log());
    }
    fs::write(credentials.path().join("tpm-pin"), "a long enough PIN").unwrap();
    appliance.run();
}

#[test]
fn a_model_with_one_changed_byte_stops_the_start_and_is_named() {
    let mut appliance = Appliance::provision(&Settings::default());
    let copy = appliance.path("models");
    let copied = Command::new("cp").arg("-rL").arg(models()).arg(&copy).status().unwrap();
    assert!(copied.success());
    let settings = appliance.path("salama.toml");
    let text = fs::read_to_string(&settings).unwrap().replace(models().to_str().unwrap(), copy.to_str().unwrap());
    fs::write(&settings, text).unwrap();
    let model = copy.join("silero-vad/silero_vad_16k_sequence.onnx");
    let mut bytes = fs::read(&model).unwrap();
    bytes[1000] ^= 1;
    fs::write(&model, bytes).unwrap();

    let said = refused(&mut appliance);

    assert!(said.contains("silero_vad_16k_sequence.onnx"), "{said}");
}

#[test]
fn a_setting_that_nothing_reads_stops_the_start_with_its_key_path() {
    let mut appliance = Appliance::provision(&Settings { more: "[listen.tls]\ninsecure = true\n".to_owned(), ..Settings::default() });
    let said = refused(&mut appliance);
    assert!(said.contains("listen.tls"), "{said}");
}

#[test]
fn every_process_is_confined_when_the_daemon_is_ready() {
    let appliance = Appliance::start();
    let core = appliance.pid();
    let [keeper] = Appliance::children_of(core, "salama-keeper")[..] else { panic!("no keeper") };
    let [worker] = Appliance::children_of(core, "salama-worker")[..] else { panic!("no worker") };

    for pid in [core, keeper, worker] {
        for task in fs::read_dir(format!("/proc/{pid}/task")).unwrap() {
            let status = fs::read_to_string(task.unwrap().path().join("status")).unwrap();
            for line in [
                "NoNewPrivs:\t1",
                "Seccomp:\t2",
                "CapEff:\t0000000000000000",
                "CapPrm:\t0000000000000000",
                "CapBnd:\t0000000000000000",
                "CapAmb:\t0000000000000000",
                "CapInh:\t0000000000000000",
            ] {
                assert!(status.contains(line), "{pid}: no {line} in\n{status}");
            }
            assert!(!status.contains("Uid:\t0"), "{status}");
        }
    }
}

#[test]
fn the_watchdog_is_fed_in_time() {
    let mut appliance =
        Appliance::provision(&Settings { environment: vec![("WATCHDOG_USEC".to_owned(), "2000000".to_owned())], ..Settings::default() });
    appliance.run();
    let fed = (0..5).any(|_| appliance.notification().contains("WATCHDOG=1"));
    assert!(fed);
}

#[test]
fn a_socket_that_systemd_hands_in_is_served() {
    let mut appliance = Appliance::provision(&Settings::default());
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let mut activated = Command::new("systemd-socket-activate")
        .args(["-E", &format!("NOTIFY_SOCKET={}", appliance.path("notify").display()), "-l", &format!("127.0.0.1:{port}")])
        .arg(program("salamad"))
        .arg("--config")
        .arg(appliance.path("salama.toml"))
        .stderr(fs::File::create(appliance.path("daemon.log")).unwrap())
        .spawn()
        .expect("systemd-socket-activate is missing: apt-get install systemd");
    let identity = appliance.identity("monitor", "socket");
    let client = Client::new(&format!("https://salama.test:{port}"), &appliance.path("ca.pem"), Some(&identity));

    let health = client.request("GET", "/health", &["--retry", "20", "--retry-connrefused", "--retry-delay", "1"]);

    let ready = (0..10).any(|_| appliance.notification().contains("READY=1"));
    activated.kill().unwrap();
    activated.wait().unwrap();
    assert_eq!(health.status, 200, "{} {}", health.error, appliance.log());
    assert!(ready);
}
