//! A state directory from before is refused, taken with the code alone, and a start that is cut off is never mistaken for one.

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::fd::AsFd as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use nix::poll::{PollFd, PollFlags, poll};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use salama::sys::pidfd::PidFd;
use serde_json::Value;

use crate::support::appliance::{Appliance, Settings, program};
use crate::support::audio;
use crate::support::gate::{Done, Gate};

const NV_INCREMENT: u32 = 0x134;
/// A code as codes are, of no box.
const WHOLE: &str = "the code is whole";

fn salama(appliance: &Appliance, words: &[&str]) -> Command {
    let mut command = Command::new(program("salama"));
    command.args(words).args(["--json", "--tpm", &appliance.tpm(), "--keys"]).arg(appliance.keys());
    command.arg("--lines").arg(appliance.path("key-lines"));
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Makes a recovery code as an operator does: reads it, types it again.
pub fn add_code(appliance: &Appliance) -> String {
    let mut adding = salama(appliance, &["keys", "add", "recovery"]).spawn().unwrap();
    let mut sheet = String::new();
    BufReader::new(adding.stdout.as_mut().unwrap()).read_line(&mut sheet).unwrap();
    let code = serde_json::from_str::<Value>(&sheet).unwrap()["text"].as_str().unwrap().to_owned();
    writeln!(adding.stdin.take().unwrap(), "{code}").unwrap();
    let added = adding.wait_with_output().unwrap();
    assert!(added.status.success(), "{}", String::from_utf8_lossy(&added.stderr));
    code
}

/// Gives leave to take an older store.
pub fn accept(appliance: &Appliance, typed: &str) -> Output {
    let mut asking = salama(appliance, &["recover", "--accept-rollback"]).spawn().unwrap();
    // One that refuses at once reads nothing.
    let _ = asking.stdin.take().unwrap().write_all(typed.as_bytes());
    asking.wait_with_output().unwrap()
}

/// What the daemon says of a store that it does not take.
pub fn refused(appliance: &mut Appliance) -> String {
    let before = appliance.log().len();
    appliance.spawn();
    let ended = appliance.ended();
    let said = appliance.log()[before..].to_owned();
    assert_eq!(ended.code(), Some(78), "{said}");
    said
}

fn copy(from: &Path, to: &Path) {
    let _ = fs::remove_dir_all(to);
    assert!(Command::new("cp").arg("-a").arg(from).arg(to).status().unwrap().success());
}

pub fn kept(appliance: &Appliance) -> Vec<String> {
    let names = fs::read_dir(appliance.state()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.filter(|name| name.starts_with("store.rollback-")).collect()
}

#[test]
fn a_state_directory_from_before_is_refused_until_somebody_has_the_code() {
    let mut appliance = Appliance::provision(&Settings::default());
    let code = add_code(&appliance);
    appliance.run();
    assert!(appliance.stop().success());
    let older = appliance.path("older");
    copy(&appliance.state(), &older);
    appliance.run();
    assert!(appliance.stop().success());
    let newest = appliance.path("newest");
    copy(&appliance.state(), &newest);

    copy(&older, &appliance.state());
    let said = refused(&mut appliance);
    let number =
        |before: &str| said.split(before).nth(1).and_then(|rest| rest.split(|c: char| !c.is_ascii_digit()).next()?.parse::<u64>().ok());
    let (store, tpm) = (number("at count "), number("has counted to "));
    assert!(store.is_some() && tpm == store.map(|store| store + 1), "{said}");
    for words in ["store.redb is older than this box", "an older copy of the state directory", "salama recover --accept-rollback"] {
        assert!(said.contains(words), "{said}");
    }

    // The newest is taken as ever.
    copy(&newest, &appliance.state());
    appliance.run();
    assert!(appliance.stop().success());
    copy(&older, &appliance.state());

    // A wrong group, then a code of another box, then nothing.
    let mistyped = accept(&appliance, &format!("{}\n", code.replacen(&code[..1], if code.starts_with('0') { "1" } else { "0" }, 1)));
    assert_eq!(mistyped.status.code(), Some(65), "{mistyped:?}");
    assert!(String::from_utf8_lossy(&mistyped.stderr).contains("group 1"), "{mistyped:?}");
    let other = Appliance::provision(&Settings::default());
    let foreign = accept(&appliance, &format!("{}\n", add_code(&other)).repeat(3));
    assert_eq!(foreign.status.code(), Some(65), "{foreign:?}");
    assert!(String::from_utf8_lossy(&foreign.stderr).contains(WHOLE), "{foreign:?}");
    refused(&mut appliance);
    assert!(kept(&appliance).is_empty());

    let accepted = accept(&appliance, &format!("{code}\n"));
    assert!(accepted.status.success(), "{accepted:?}");
    appliance.run();
    assert!(appliance.stop().success());
    assert_eq!(kept(&appliance).len(), 1, "a copy of it is kept");
    // The leave was for one start.
    copy(&older, &appliance.state());
    refused(&mut appliance);
}

#[test]
fn a_start_without_the_state_directory_counts_nothing_and_the_next_one_with_it_is_served() {
    let mut appliance = Appliance::provision(&Settings::default());
    appliance.run();
    assert!(appliance.stop().success());
    let mounted = appliance.path("mounted");
    fs::rename(appliance.state(), &mounted).unwrap();
    // What is below where it is mounted.
    fs::create_dir(appliance.state()).unwrap();
    assert!(Command::new("chown").arg("salama:salama").arg(appliance.state()).status().unwrap().success());
    for _ in 0..2 {
        let said = refused(&mut appliance);
        assert!(said.contains("Is the state directory mounted?"), "{said}");
    }
    fs::remove_dir_all(appliance.state()).unwrap();
    fs::rename(&mounted, appliance.state()).unwrap();
    appliance.run();
    assert!(appliance.stop().success());
    assert!(!appliance.log().contains("store_taken_with_leave"), "{}", appliance.log());
}

/// A paper that was removed is good again with the file of before.
#[test]
fn keyslots_from_before_a_paper_was_removed_are_refused_until_somebody_has_another() {
    let mut appliance = Appliance::provision(&Settings::default());
    let (_lost, code) = (add_code(&appliance), add_code(&appliance));
    let file = appliance.keys().join("keyslots");
    let older = fs::read(&file).unwrap();
    let removed = salama(&appliance, &["keys", "remove", "2"]).output().unwrap();
    assert!(removed.status.success(), "{removed:?}");
    let newest = fs::read(&file).unwrap();
    appliance.run();
    assert!(appliance.stop().success());

    // Written into, so that it stays its account's.
    fs::write(&file, &older).unwrap();
    let said = refused(&mut appliance);
    assert!(said.contains("the key directory is older than") && said.contains("salama keys list"), "{said}");
    fs::write(&file, &newest).unwrap();
    appliance.run();
    assert!(appliance.stop().success());

    fs::write(&file, &older).unwrap();
    let accepted = accept(&appliance, &format!("{code}\n"));
    assert!(accepted.status.success(), "{accepted:?}");
    appliance.run();
    assert!(appliance.stop().success());
}

#[test]
fn a_box_that_was_started_too_often_is_served_and_counted_later() {
    let mut appliance = Appliance::provision(&Settings::default());
    fs::write(appliance.keys().join("limits.toml"), "[start]\nper_hour = 1\n").unwrap();
    for _ in 0..3 {
        appliance.run();
        assert!(appliance.stop().success());
    }
    fs::remove_file(appliance.keys().join("limits.toml")).unwrap();
    appliance.run();
    assert!(appliance.stop().success());
    assert_eq!(appliance.log().matches("count start failed").count(), 2, "{}", appliance.log());
}

#[test]
fn a_box_without_the_counter_starts_only_once_somebody_with_the_code_made_another() {
    let mut appliance = Appliance::provision(&Settings::default());
    let code = add_code(&appliance);
    appliance.run();
    assert!(appliance.stop().success());
    appliance.swtpm.tool("tpm2_nvundefine", &["-C", "o", "0x1815a90"]);
    // A store that says nothing of the counter, and one that never held a call, are no way round it.
    for _ in 0..2 {
        assert!(refused(&mut appliance).contains("the TPM has no counter"));
    }
    let aside = appliance.path("aside");
    fs::rename(appliance.state().join("store.redb"), &aside).unwrap();
    assert!(refused(&mut appliance).contains("the TPM has no counter"));
    fs::rename(&aside, appliance.state().join("store.redb")).unwrap();
    assert!(appliance.log().contains("store_refused"), "{}", appliance.log());

    assert!(accept(&appliance, &format!("{code}\n")).status.success());
    appliance.run();
    assert!(appliance.stop().success());
    assert!(appliance.log().contains("store_taken_with_leave"), "{}", appliance.log());
    appliance.run();
    assert!(appliance.stop().success());
    assert_eq!(kept(&appliance).len(), 1);
}

#[test]
fn a_copy_from_before_an_erasure_was_final_is_refused_within_the_same_life_of_the_daemon() {
    let mut appliance = Appliance::provision(&Settings::default());
    appliance.run();
    let (counsellor, supervisor) = (appliance.client("counsellor", "life"), appliance.client("supervisor", "life"));
    let call = counsellor.accepted_call(&audio::librivox());
    let older = appliance.path("older");
    copy(&appliance.state(), &older);
    assert_eq!(supervisor.delete(&format!("/api/v1/calls/{call}")).status, 204);
    let done = supervisor.request("POST", &format!("/api/v1/calls/{call}/erasure"), &[]);
    assert_eq!(done.status, 200, "{}", done.text());
    assert!(appliance.stop().success());
    let newest = appliance.path("newest");
    copy(&appliance.state(), &newest);

    copy(&older, &appliance.state());
    let said = refused(&mut appliance);
    assert!(said.contains("calls were erased after this state directory was copied"), "{said}");
    copy(&newest, &appliance.state());
    appliance.run();
    assert!(appliance.stop().success());
}

/// Names of recordings in the directories of the state directory whose names are wanted.
fn recordings(appliance: &Appliance, wanted: impl Fn(&str) -> bool) -> Vec<String> {
    let directories = fs::read_dir(appliance.state()).unwrap().map(|entry| entry.unwrap());
    let directories = directories.filter(|entry| entry.file_name().to_str().is_some_and(&wanted));
    let files = directories.flat_map(|directory| fs::read_dir(directory.path()).unwrap());
    let mut names: Vec<_> = files.map(|file| file.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// Nothing is lost by an older database in the store's place, while the newest is found before a call is erased.
#[test]
fn recordings_that_an_older_store_did_not_know_are_back_with_the_newest_and_their_calls_go_on() {
    let in_audio = |appliance: &Appliance| recordings(appliance, |name| name == "audio");
    let aside = |appliance: &Appliance| recordings(appliance, |name| name.starts_with("audio.rollback-"));
    let mut appliance = Appliance::provision(&Settings { gate: true, ..Settings::default() });
    let code = add_code(&appliance);
    appliance.run();
    let client = appliance.client("counsellor", "found");
    let first = client.accepted_call(&audio::librivox());
    assert!(appliance.stop().success());
    let (store, older, newest) = (appliance.state().join("store.redb"), appliance.path("older"), appliance.path("newest"));
    copy(&store, &older);
    appliance.run();
    // It waits for its transcript when the daemon stops.
    let second = client.at(&appliance.base()).accepted_call(&audio::librivox());
    assert!(appliance.stop().success());
    copy(&store, &newest);
    let both = in_audio(&appliance);
    assert_eq!(both.len(), 2, "{both:?}");

    copy(&older, &store);
    assert!(accept(&appliance, &format!("{code}\n")).status.success());
    appliance.run();
    assert_eq!(client.at(&appliance.base()).get(&format!("/api/v1/calls/{second}")).status, 404);
    assert!(appliance.stop().success());
    assert_eq!((in_audio(&appliance), aside(&appliance)), (vec![format!("{first}.seg")], vec![format!("{second}.seg")]));

    // The newest is found; its first start is killed before the TPM counts it.
    copy(&newest, &store);
    assert!(accept(&appliance, &format!("{code}\n")).status.success());
    let held = appliance.gate.as_ref().map(|gate| gate.hold(NV_INCREMENT, Done::NotYet)).unwrap();
    appliance.spawn();
    held.wait();
    kill_all(&mut appliance);
    drop(held);
    assert_eq!((in_audio(&appliance), aside(&appliance)), (both, Vec::new()), "all are back before the TPM counts");
    appliance.run();
    let client = client.at(&appliance.base());
    assert_eq!(client.finished(&second)["state"], "done");
    let supervisor = appliance.client("supervisor", "found");
    assert_eq!(supervisor.delete(&format!("/api/v1/calls/{first}")).status, 204);
    assert_eq!(client.get(&format!("/api/v1/calls/{second}/transcript")).status, 200);
    assert_eq!(in_audio(&appliance), [format!("{second}.seg")]);
}

/// Ends a process that is not this one's child, and waits for its end.
fn killed(pid: u32) {
    let pid = Pid::from_raw(i32::try_from(pid).unwrap());
    // It may have ended with the daemon.
    let Ok(watched) = PidFd::open(pid) else { return };
    let _ = kill(pid, Signal::SIGKILL);
    assert_eq!(poll(&mut [PollFd::new(watched.as_fd(), PollFlags::POLLIN)], 60_000_u16).unwrap(), 1, "{pid} did not end");
}

/// Ends the daemon and its programs in mid-work, as a power cut does.
pub fn kill_all(appliance: &mut Appliance) {
    let children = ["salama-keeper", "salama-worker"].map(|name| Appliance::children_of(appliance.pid(), name));
    appliance.kill();
    children.into_iter().flatten().for_each(killed);
    // What a resource manager does when a program ends.
    for what in ["-t", "-l", "-s"] {
        appliance.swtpm.tool("tpm2_flushcontext", &[what]);
    }
}

#[test]
fn a_start_that_is_killed_before_or_after_the_tpm_counts_is_no_rollback() {
    let mut appliance = Appliance::provision(&Settings { gate: true, ..Settings::default() });
    let mut kill_at = |done| {
        let held = appliance.gate.as_ref().map(|gate: &Gate| gate.hold(NV_INCREMENT, done)).unwrap();
        appliance.spawn();
        held.wait();
        kill_all(&mut appliance);
        drop(held);
    };
    // The first start, then any later one.
    for done in [Done::NotYet, Done::NotYet, Done::Already, Done::NotYet, Done::Already, Done::Already, Done::NotYet] {
        kill_at(done);
    }
    appliance.run();
    assert!(appliance.stop().success());
    assert!(!appliance.log().contains("--accept-rollback"), "{}", appliance.log());
}
