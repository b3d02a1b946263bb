//! The limits of the key keeper, as people meet them: refused, told when to come back, lifted for a while by a supervisor.

use std::process::{Command, Output};

use crate::support::appliance::{Appliance, Settings, program};
use crate::support::audio;

fn salama(appliance: &Appliance, role: &str, words: &[&str]) -> Output {
    let port = appliance.address().rsplit_once(':').unwrap().1;
    Command::new(program("salama"))
        .args(["--json", "--server", &format!("https://127.0.0.1:{port}"), "--ca"])
        .arg(appliance.path("ca.pem"))
        .arg("--identity")
        .arg(appliance.identity(role, "burst"))
        .args(words)
        .output()
        .unwrap()
}

fn words(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

#[test]
fn a_reader_at_the_limit_is_told_when_to_come_back_and_a_supervisors_grant_lifts_it_for_a_while() {
    let mut appliance = Appliance::provision(&Settings::default());
    std::fs::write(appliance.keys().join("limits.toml"), "[read]\nper_minute = 1\nper_hour = 1\n").unwrap();
    appliance.run();
    let client = appliance.client("counsellor", "burst");
    let (id, _) = client.transcribed(&audio::librivox());
    let read = || client.get(&format!("/api/v1/calls/{id}/transcript?format=json"));

    let refused = read();
    refused.assert_problem(429, "key-limit");
    let wait: u64 = refused.header("retry-after").unwrap().parse().unwrap();
    assert!((1..=3660).contains(&wait), "{wait}");

    for role in ["counsellor", "admin", "auditor"] {
        let denied = salama(&appliance, role, &["burst", "--count", "1", "--for", "10m"]);
        assert_eq!(denied.status.code(), Some(77), "{role}: {}", words(&denied));
    }
    assert_eq!(read().status, 429);
    let granted = salama(&appliance, "supervisor", &["burst", "--count", "1", "--for", "10m"]);
    assert!(granted.status.success(), "{}", words(&granted));
    assert_eq!((read().status, read().status), (200, 429));

    let status = salama(&appliance, "supervisor", &["status"]);
    let document: serde_json::Value = serde_json::from_slice(&status.stdout).unwrap_or_else(|_| panic!("{}", words(&status)));
    let keys = &document["keys"];
    assert_eq!(keys["limited"].as_u64(), Some(3), "{document}");
    assert!(keys["incidents"].as_u64().is_some_and(|incidents| incidents > 0), "{document}");
    assert_eq!((keys["lockout"]["failed"].as_u64(), keys["lockout"]["locked"].as_bool()), (Some(0), Some(false)), "{document}");
    assert!(keys["lockout"]["at"].as_str().is_some_and(|at| at.starts_with("20")), "{document}");
    let log = appliance.log();
    assert!(log.contains("\"by\":\"supervisor/burst\""), "the keeper says who");
    assert!(log.contains("key_limit") && log.contains("key_burst"), "the core says so too");

    // The stream of the whole service, as a stranger checks it.
    assert!(appliance.stop().success());
    let file = appliance.path("exported");
    std::fs::write(&file, appliance.log()).unwrap();
    let verified = Command::new(program("salama"))
        .args(["audit", "verify", "--key", keys["log_key"].as_str().unwrap()])
        .stdin(std::fs::File::open(&file).unwrap())
        .output()
        .unwrap();
    assert!(verified.status.success(), "{}", words(&verified));
}
