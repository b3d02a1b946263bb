//! Erasure that outlives copies of the disk: the whole box, on one machine with one TPM.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::thread;

use serde_json::Value;

use super::rollback::{accept, add_code, kept as rolled_back, kill_all, refused};
use crate::support::appliance::{Appliance, Settings, program};
use crate::support::audio;
use crate::support::client::Client;
use crate::support::gate::Done;
use crate::support::keys::OpenedCopy;

/// Byte for byte, with owners and modes.
fn copy(from: &Path, to: &Path) {
    let copied = Command::new("cp").arg("--archive").arg(from).arg(to).status().unwrap();
    assert!(copied.success());
}

fn exchange(one: &Path, other: &Path) {
    let aside = one.with_extension("aside");
    fs::rename(one, &aside).unwrap();
    fs::rename(other, one).unwrap();
    fs::rename(&aside, other).unwrap();
}

/// The status of what needs the call's key in any state of the call.
fn export_status(client: &Client, call: &str) -> u16 {
    client.get(&format!("/api/v1/calls/{call}/export?format=json")).status
}

fn verified_by_openssl(appliance: &Appliance, certificate: &Value) -> bool {
    let file = |name: &str| appliance.path(name);
    let hexadecimal = certificate["signature"].as_str().unwrap();
    let bytes: Vec<u8> = (0..hexadecimal.len()).step_by(2).map(|at| u8::from_str_radix(&hexadecimal[at..at + 2], 16).unwrap()).collect();
    fs::write(file("signature"), bytes).unwrap();
    fs::write(file("statement"), certificate["statement"].as_str().unwrap()).unwrap();
    let openssl = Command::new("openssl")
        .args(["dgst", "-sha256", "-verify"])
        .arg(appliance.keys().join("erasure.pem"))
        .arg("-signature")
        .args([file("signature"), file("statement")])
        .output()
        .unwrap_or_else(|error| panic!("openssl cannot be run ({error}): apt-get install openssl"));
    openssl.status.success()
}

#[test]
fn a_copy_of_the_whole_box_from_before_an_erasure_opens_no_call_on_the_same_machine() {
    let mut appliance = Appliance::provision(&Settings::default());
    let code = add_code(&appliance);
    appliance.run();
    let (counsellor, supervisor) = (appliance.client("counsellor", "way"), appliance.client("supervisor", "way"));
    let [kept, erased] = [(); 2].map(|()| counsellor.accepted_call(&audio::librivox()));
    appliance.stop();
    let (state, keys) = (appliance.path("image-state"), appliance.path("image-keys"));
    copy(&appliance.state(), &state);
    copy(&appliance.keys(), &keys);
    let opens = |appliance: &Appliance, call: &str| OpenedCopy::of(appliance).opens(call);
    assert!(opens(&appliance, &kept) && opens(&appliance, &erased));

    appliance.run();
    let supervisor = supervisor.at(&appliance.base());
    assert_eq!(supervisor.delete(&format!("/api/v1/calls/{erased}")).status, 204);
    let pending = supervisor.get(&format!("/api/v1/calls/{erased}/erasure")).json();
    let done = supervisor.request("POST", &format!("/api/v1/calls/{erased}/erasure"), &[]);
    assert_eq!(done.status, 200, "{}", done.text());
    let certificate = done.json()["certificate"].clone();
    assert!(pending["certificate"].is_null() || pending["certificate"] == certificate);
    let statement: Value = serde_json::from_str(certificate["statement"].as_str().unwrap()).unwrap();
    assert_eq!((&statement["call"], &statement["epoch"], &statement["epoch_now"]), (&erased.clone().into(), &1.into(), &2.into()));
    assert!(statement["classes"].as_array().unwrap().contains(&"recording".into()), "{statement}");
    assert!(statement["not_covered"][0].as_str().unwrap().contains("recovery code"), "{statement}");
    assert!(verified_by_openssl(&appliance, &certificate));
    let auditor = appliance.client("auditor", "way");
    assert_eq!(auditor.get(&format!("/api/v1/calls/{erased}/erasure")).json()["certificate"], certificate);
    for other in [&auditor, &counsellor.at(&appliance.base())] {
        assert_eq!(other.request("POST", &format!("/api/v1/calls/{erased}/erasure"), &[]).status, 403);
    }
    assert_eq!(counsellor.at(&appliance.base()).get(&format!("/api/v1/calls/{erased}/erasure")).status, 403);
    assert_eq!(export_status(&supervisor.at(&appliance.base()), &kept), 200);
    assert_eq!(export_status(&supervisor.at(&appliance.base()), &erased), 404);
    appliance.stop();

    // Last week's image of the disk, on the same machine with the same TPM.
    exchange(&appliance.state(), &state);
    exchange(&appliance.keys(), &keys);
    // Told at once; a paper changes nothing, and nothing is copied, told or counted for it.
    for with_leave in [false, true] {
        if with_leave {
            let accepted = accept(&appliance, &format!("{code}\n"));
            assert!(accepted.status.success(), "{accepted:?}");
        }
        let said = refused(&mut appliance);
        assert!(said.contains("calls were erased after this state directory was copied"), "{said}");
    }
    assert!(!appliance.log().contains("store_taken_with_leave"), "{}", appliance.log());
    assert!(rolled_back(&appliance).is_empty());
    for call in [&kept, &erased] {
        assert!(!opens(&appliance, call), "{call}");
    }

    exchange(&appliance.state(), &state);
    exchange(&appliance.keys(), &keys);
    // Nothing was counted: the newest needs no leave.
    appliance.run();
    assert_eq!(export_status(&supervisor.at(&appliance.base()), &kept), 200);
}

#[test]
fn a_box_that_is_killed_once_the_store_has_committed_a_move_opens_all_but_what_was_erased() {
    const NV_WRITE: u32 = 0x137;
    let mut appliance = Appliance::provision(&Settings { gate: true, ..Settings::default() });
    appliance.run();
    let (counsellor, supervisor) = (appliance.client("counsellor", "way"), appliance.client("supervisor", "way"));
    let [kept, erased] = [(); 2].map(|()| counsellor.accepted_call(&audio::librivox()));
    assert_eq!(supervisor.delete(&format!("/api/v1/calls/{erased}")).status, 204);
    let erasure = format!("/api/v1/calls/{erased}/erasure");
    // The first write makes the next epoch, the second destroys the old one; between the two the store commits.
    for done in [Done::NotYet, Done::Already] {
        let held = appliance.gate.as_ref().map(|gate| gate.hold_after(1, NV_WRITE, done)).unwrap();
        let client = supervisor.at(&appliance.base());
        thread::scope(|scope| {
            // It gets no answer.
            scope.spawn(|| client.command(&erasure).args(["--request", "POST"]).output());
            held.wait();
            kill_all(&mut appliance);
        });
        drop(held);
        appliance.run();
        assert_eq!(export_status(&supervisor.at(&appliance.base()), &kept), 200, "{done:?}");
        assert_eq!(export_status(&supervisor.at(&appliance.base()), &erased), 404, "{done:?}");
        assert!(supervisor.at(&appliance.base()).get(&erasure).json()["certificate"].is_null(), "{done:?}");
    }
    assert!(appliance.log().contains("erasure epoch 2 counts"), "{}", appliance.log());
    let done = supervisor.at(&appliance.base()).request("POST", &erasure, &[]);
    assert_eq!(done.status, 200, "{}", done.text());
    assert!(done.json()["certificate"]["statement"].as_str().unwrap().contains("\"epoch\":1,"), "{}", done.text());
    assert_eq!(export_status(&supervisor.at(&appliance.base()), &kept), 200);
}

#[test]
fn a_client_erases_for_good_and_keeps_the_certificate() {
    let appliance = crate::shared();
    let client = appliance.client("counsellor", "epoch");
    let supervisor = appliance.identity("supervisor", "epoch");
    let call = client.accepted_call(&audio::librivox());
    let folder = tempfile::tempdir().unwrap();
    let salama = |words: &[&str]| {
        Command::new(program("salama"))
            .args(["--server", &format!("https://{}", appliance.address()), "--ca"])
            .arg(appliance.path("ca.pem"))
            .arg("--identity")
            .arg(&supervisor)
            .args(words)
            .current_dir(folder.path())
            .output()
            .unwrap()
    };
    let erased = salama(&["call", "delete", &call, "--yes", "--now", "--certificate", "erased.json"]);
    assert!(erased.status.success(), "{}", String::from_utf8_lossy(&erased.stderr));
    let told = String::from_utf8_lossy(&erased.stdout);
    assert!(told.contains("rotate --recovery"), "the limit is told where it counts: {told}");
    let statement = fs::read_to_string(folder.path().join("erased.json")).unwrap();
    assert!(statement.contains(&call), "{statement}");
    let openssl = Command::new("openssl")
        .args(["dgst", "-sha256", "-verify"])
        .arg(appliance.keys().join("erasure.pem"))
        .args(["-signature", "erased.json.sig", "erased.json"])
        .current_dir(folder.path())
        .status()
        .unwrap();
    assert!(openssl.success());
    let again = salama(&["--json", "call", "erasure", &call]);
    assert!(String::from_utf8_lossy(&again.stdout).contains("salama.erasure/1"), "{}", String::from_utf8_lossy(&again.stderr));
}
