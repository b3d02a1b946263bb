//! Events as a real journal keeps them, and as standard error shows them.
//! Trusts: nothing.
//! Touches: a journald of its own in a mount namespace.
//! Next: nobody.

use std::process::{Command, Output};

use serde_json::Value;

use super::event::{AuthFailure, Reading, Ruling, Who};
use super::{Event, Sink, init, record};
use crate::base::ids::CallId;

const SINK: &str = "SALAMA_TEST_AUDIT_SINK";
const IDENTIFIER: &str = "salama-audit-test";
/// A private /run, and in it a journald when the first argument says so; then the program, then what the journal holds.
const SCRIPT: &str = r#"
set -eu
mount -t tmpfs tmpfs /run
mount -t tmpfs tmpfs /var/log
if [ "$1" = journal ]; then
  mkdir -p /run/systemd/journal
  /lib/systemd/systemd-journald 2>/dev/null &
  journald=$!
  tries=0
  until [ -S /run/systemd/journal/socket ] && [ -S /run/systemd/journal/io.systemd.journal ]; do
    tries=$((tries + 1))
    [ $tries -lt 600 ] || { echo "journald did not start" >&2; exit 1; }
    sleep 0.05
  done
fi
"$2" --exact audit::tests::process_that_records_events --nocapture >/dev/null
if [ "$1" = journal ]; then
  journalctl --sync
  journalctl -D /run/log/journal -t salama-audit-test -o json --no-pager
  kill $journald
fi
"#;

fn events() -> Vec<Event> {
    let call = CallId::from_bytes([0xab; 16]);
    let who = Who::from_owner("counsellor/amina");
    let peer = "192.0.2.7:4711".parse().unwrap();
    vec![
        Event::AuthFailed { peer, failure: AuthFailure::Handshake },
        Event::Decided { who: Some(who.clone()), peer, action: "call.read", call: Some(call), ruling: Ruling::Refused("role") },
        Event::CallAccepted { call, who, bytes: 4096 },
        Event::CallDone { call, audio_ms: 61_000, wall_ms: 9_000, redacted: 12 },
        Event::CallRead { call, what: Reading::Transcript },
    ]
}

/// Not a rule but the process of the next tests: with the variable set it records and ends.
#[test]
fn process_that_records_events() {
    let Ok(sink) = std::env::var(SINK) else { return };
    let expected = if sink == "journal" { Sink::Journal } else { Sink::Stderr };
    assert_eq!(init(IDENTIFIER).unwrap(), expected);
    events().iter().for_each(record);
}

fn run(sink: &str) -> Output {
    let output = Command::new("unshare")
        .args(["-m", "sh", "-c", SCRIPT, "sh", sink])
        .arg(std::env::current_exe().unwrap())
        .env(SINK, sink)
        .output()
        .expect("unshare runs: apt-get install util-linux");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "needs root and journald (apt-get install systemd): {said}");
    output
}

fn lines(bytes: &[u8]) -> Vec<Value> {
    bytes.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).map(|line| serde_json::from_slice(line).unwrap()).collect()
}

#[test]
fn a_real_journal_keeps_events_with_their_fields() {
    let entries = lines(&run("journal").stdout);
    let codes: Vec<&str> = entries.iter().filter_map(|entry| entry["SALAMA_EVENT"].as_str()).collect();
    assert_eq!(codes, ["auth_failed", "decided", "call_accepted", "call_done", "call_read"]);
    let refused = &entries[1];
    assert_eq!(refused["SALAMA_ROLE"], "counsellor");
    assert_eq!(refused["SALAMA_NAME"], "amina");
    assert_eq!(refused["SALAMA_CALL"], "ab".repeat(16));
    assert_eq!(refused["SALAMA_PEER"], "192.0.2.7:4711");
    assert_eq!(refused["SALAMA_ACTION"], "call.read");
    assert_eq!(refused["SALAMA_OUTCOME"], "refused");
    assert_eq!(refused["SALAMA_REASON"], "role");
    assert_eq!(refused["MESSAGE"], "counsellor/amina call.read: refused (role)");
    assert_eq!(refused["PRIORITY"], "4");
    assert_eq!(entries[3]["SALAMA_AUDIO_MS"], "61000");
    assert_eq!(entries[3]["SALAMA_COUNT"], "12");
    assert!(entries[3]["SALAMA_NAME"].is_null());
}

#[test]
fn without_a_journal_events_are_json_lines_on_standard_error() {
    let entries = lines(&run("stderr").stderr);
    assert_eq!(entries.len(), 5);
    assert_eq!(entries[1]["event"], "decided");
    assert_eq!(entries[1]["outcome"], "refused");
    assert_eq!(entries[2]["bytes"], 4096);
    assert_eq!(entries[4]["message"], format!("call {} opened for reading: transcript", "ab".repeat(16)));
}

#[test]
fn every_event_has_a_name_of_its_own() {
    let codes: std::collections::BTreeSet<&str> = events().iter().map(Event::code).collect();
    assert_eq!(codes.len(), events().len());
}
