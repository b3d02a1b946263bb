//! Where the key keepers' signed lines are, with a real journald.

use std::process::Command;

use serde_json::Value;

use crate::support::appliance::{Appliance, Settings, program};
use crate::support::journal::Journal;

#[test]
fn both_keepers_sign_into_the_journals_stream_of_their_own() {
    let journal = Journal::start();
    // As systemd sets it for a service whose standard error is the journal.
    let launcher = [journal.launcher(), vec!["env".to_owned(), "JOURNAL_STREAM=1:2".to_owned()]].concat();
    let mut appliance = Appliance::provision(&Settings { launcher, ..Settings::default() });
    let words = journal.launcher();
    let enrol = Command::new(&words[0])
        .args(&words[1..])
        .arg(program("salama"))
        .args(["enrol", "amina", "--role", "supervisor", "--tpm", &appliance.tpm(), "--keys"])
        .arg(appliance.keys())
        .arg("--out")
        .arg(appliance.path("amina.pem"))
        .output()
        .unwrap();
    assert!(enrol.status.success(), "{}", String::from_utf8_lossy(&enrol.stderr));
    appliance.run();
    assert!(appliance.stop().success());
    assert!(!appliance.log().contains("chain_begun"), "not where the daemon writes");

    let lines = journal.lines_until("salama-keeper", "chain_ended", 2);
    assert!(lines.contains("\"kind\":\"issue_certificate\",\"outcome\":\"done\""), "{lines}");
    assert!(lines.contains("\"of\":\"console\"") && lines.contains("\"of\":\"daemon\""), "{lines}");
    let first: Value = serde_json::from_str(lines.lines().next().unwrap()).unwrap();
    let file = appliance.path("exported");
    std::fs::write(&file, &lines).unwrap();
    let verified = Command::new(program("salama"))
        .args(["audit", "verify", "--key", first["key"].as_str().unwrap()])
        .stdin(std::fs::File::open(&file).unwrap())
        .output()
        .unwrap();
    assert!(verified.status.success(), "{}", String::from_utf8_lossy(&verified.stderr));
}
