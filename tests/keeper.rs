//! The real key keeper on a real (software) TPM, over a real channel.

#![allow(
    clippy::as_conversions,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test says what it expects, loudly"
)]
#![cfg(test)]

#[path = "support/box_with_keys.rs"]
mod box_with_keys;
#[path = "support/faulty_tpm.rs"]
mod faulty_tpm;
#[path = "../src/keeper/mod.rs"]
#[allow(dead_code, reason = "a part of the program `salama-keeper`")]
mod keeper;
#[path = "support/key_console.rs"]
#[allow(dead_code, reason = "each test program uses its own part")]
mod key_console;
#[path = "epoch/moves.rs"]
mod moves;
#[path = "epoch/places.rs"]
mod places;
#[path = "support/swtpm.rs"]
mod swtpm;

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::process::Command;

use box_with_keys::{Bench, KEEPER, holds};
use faulty_tpm::FaultyTpm;
use keeper::keyslots::{Keyslots, Kind, TpmSlot};
use keeper::slots;
use keeper::tpm::policy::Policy;
use keeper::tpm::{Address, Tpm};
use nix::unistd::geteuid;
use salama::base::ids::CallId;
use salama::base::secret::Secret;
use salama::ipc::channel::Channel;
use salama::ipc::keeper::{Counter, KeeperDenial, KeeperReply, KeeperRequest, Leave, UnwrapPurpose, WrappedDek};
use salama::keys::{Keeper, KeeperError};
use salama::{base, ipc, sandbox};
use swtpm::Swtpm;

const CALL: CallId = CallId::from_bytes([1; 16]);
const OTHER_CALL: CallId = CallId::from_bytes([2; 16]);

fn denied<T>(result: Result<T, KeeperError>) -> KeeperDenial {
    match result {
        Err(KeeperError::Denied(denial)) => denial,
        Err(error) => panic!("not a denial: {error}"),
        Ok(_) => panic!("it was allowed"),
    }
}

/// Refused until at most a minute has passed.
fn limited<T>(result: Result<T, KeeperError>) {
    let denial = denied(result);
    assert!(matches!(denial, KeeperDenial::RateLimited { seconds: 1..=61 }), "{denial:?}");
}

fn server_certificate_verify() -> Vec<u8> {
    [&[b' '; 64][..], b"TLS 1.3, server CertificateVerify\0", &[7; 32]].concat()
}

fn openssl(args: &[&str], directory: &Path) -> String {
    let ran = Command::new("openssl").args(args).current_dir(directory).output();
    let output = ran.unwrap_or_else(|error| panic!("openssl cannot be run ({error}): apt-get install openssl"));
    assert!(output.status.success(), "openssl {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("text")
}

fn write_pem(path: &Path, certificate: &[u8]) {
    fs::write(path, pem::encode(&pem::Pem::new("CERTIFICATE", certificate))).expect("a file");
}

#[test]
fn a_calls_key_comes_back_for_its_call_also_after_a_restart() {
    let bench = Bench::provisioned();
    let (keeper, first, process) = bench.serve(&[]);
    let (dek, wrapped) = keeper.new_dek(CALL).unwrap();
    assert_eq!(keeper.unwrap_dek(CALL, &wrapped, UnwrapPurpose::Job).unwrap().expose(), dek.expose());
    drop((keeper, process));

    let (keeper, second, _process) = bench.serve(&[]);
    assert_eq!(keeper.unwrap_dek(CALL, &wrapped, UnwrapPurpose::Read).unwrap().expose(), dek.expose());
    assert_eq!(first.index_key.expose(), second.index_key.expose());
    let counters = keeper.counters().unwrap();
    assert_eq!((counters.new_deks, counters.unwraps_job, counters.unwraps_read, counters.denied), (0, 0, 1, 0));
}

#[test]
fn a_wrapped_key_of_another_call_or_with_a_bit_flipped_does_not_open() {
    let bench = Bench::provisioned();
    let (keeper, _, _process) = bench.serve(&[]);
    let (_, wrapped) = keeper.new_dek(CALL).unwrap();
    assert_eq!(denied(keeper.unwrap_dek(OTHER_CALL, &wrapped, UnwrapPurpose::Job)), KeeperDenial::WrongKey);
    for byte in 0..wrapped.0.len() {
        let mut flipped = wrapped.clone();
        flipped.0[byte] ^= 1;
        assert_eq!(denied(keeper.unwrap_dek(CALL, &flipped, UnwrapPurpose::Job)), KeeperDenial::WrongKey, "byte {byte}");
    }
    assert_eq!(denied(keeper.unwrap_dek(CALL, &WrappedDek(Vec::new()), UnwrapPurpose::Job)), KeeperDenial::WrongKey);
    assert!(keeper.unwrap_dek(CALL, &wrapped, UnwrapPurpose::Job).is_ok());
}

#[test]
fn a_key_of_another_box_does_not_open() {
    let (one, other) = (Bench::provisioned(), Bench::provisioned());
    let (keeper, _, _process) = one.serve(&[]);
    let (_, wrapped) = keeper.new_dek(CALL).unwrap();
    let (keeper, _, _process) = other.serve(&[]);
    assert_eq!(denied(keeper.unwrap_dek(CALL, &wrapped, UnwrapPurpose::Job)), KeeperDenial::WrongKey);
}

#[test]
fn the_tls_key_signs_handshakes_and_nothing_else() {
    let bench = Bench::provisioned();
    let (keeper, greeting, _process) = bench.serve(&[]);
    let signature = keeper.sign_tls(&server_certificate_verify()).unwrap();
    let place = tempfile::tempdir().unwrap();
    write_pem(&place.path().join("leaf.pem"), &greeting.server_chain[0]);
    fs::write(place.path().join("signature"), signature).unwrap();
    fs::write(place.path().join("content"), server_certificate_verify()).unwrap();
    let key = openssl(&["x509", "-in", "leaf.pem", "-noout", "-pubkey"], place.path());
    fs::write(place.path().join("key.pem"), key).unwrap();
    let said = openssl(&["dgst", "-sha256", "-verify", "key.pem", "-signature", "signature", "content"], place.path());
    assert_eq!(said.trim(), "Verified OK");

    let mut client = server_certificate_verify();
    client[64 + 9..64 + 15].copy_from_slice(b"client");
    for content in [client, server_certificate_verify()[1..].to_vec(), vec![7; 32], Vec::new()] {
        assert_eq!(denied(keeper.sign_tls(&content)), KeeperDenial::NotSignable);
    }
}

#[test]
fn the_daemons_keeper_issues_no_certificate() {
    let bench = Bench::provisioned();
    let (channel, _process) = bench.start("serve", &bench.tpm.tcti(), &[]);
    assert!(matches!(channel.recv().unwrap(), Some(KeeperReply::Ready { .. })));
    let request =
        KeeperRequest::IssueCertificate { csr_der: Vec::new(), role: "admin".to_owned(), name: "mallory".to_owned(), valid_days: 1 };
    channel.send(&request).unwrap();
    assert!(matches!(channel.recv().unwrap(), Some(KeeperReply::Denied(KeeperDenial::ConsoleOnly))));
}

#[test]
fn the_consoles_keeper_opens_no_call_and_signs_no_handshake() {
    let bench = Bench::provisioned();
    let (daemon, greeting, _process) = bench.serve(&[]);
    let (_, wrapped) = daemon.new_dek(CALL).unwrap();
    let (channel, _process) = bench.start("console", &bench.tpm.tcti(), &[]);
    let Some(KeeperReply::Ready { index_key, .. }) = channel.recv().unwrap() else { panic!("no greeting") };
    assert_ne!(index_key.0.expose(), greeting.index_key.expose());
    let refused = [
        (KeeperRequest::NewDek { call: CALL }, KeeperDenial::WrongKey),
        (KeeperRequest::UnwrapDek { call: CALL, wrapped, purpose: UnwrapPurpose::Read }, KeeperDenial::WrongKey),
        (KeeperRequest::SignTls { content: server_certificate_verify() }, KeeperDenial::NotSignable),
    ];
    for (request, expected) in refused {
        channel.send(&request).unwrap();
        assert!(matches!(channel.recv().unwrap(), Some(KeeperReply::Denied(denial)) if denial == expected));
    }
}

#[test]
fn each_kind_of_use_stops_at_its_limit() {
    let bench = Bench::provisioned();
    bench.set_limits("[new]\nper_minute = 2\n[read]\nper_minute = 1\n[handshake]\nper_minute = 1\n");
    let (keeper, _, _process) = bench.serve(&[]);
    let (_, wrapped) = keeper.new_dek(CALL).unwrap();
    keeper.new_dek(CALL).unwrap();
    limited(keeper.new_dek(CALL));
    keeper.unwrap_dek(CALL, &wrapped, UnwrapPurpose::Read).unwrap();
    limited(keeper.unwrap_dek(CALL, &wrapped, UnwrapPurpose::Read));
    keeper.unwrap_dek(CALL, &wrapped, UnwrapPurpose::Job).unwrap();
    keeper.sign_tls(&server_certificate_verify()).unwrap();
    limited(keeper.sign_tls(&server_certificate_verify()));
    assert_eq!(keeper.counters().unwrap().denied, 3);
}

#[test]
fn each_use_is_logged_with_its_call_and_without_its_key() {
    let bench = Bench::provisioned();
    let (keeper, _, mut process) = bench.serve(&[]);
    let (dek, wrapped) = keeper.new_dek(CALL).unwrap();
    keeper.unwrap_dek(CALL, &wrapped, UnwrapPurpose::Read).unwrap();
    denied(keeper.unwrap_dek(OTHER_CALL, &wrapped, UnwrapPurpose::Read));
    drop(keeper);
    assert!(process.0.wait().unwrap().success());
    let log = bench.log();
    let lines: Vec<serde_json::Value> = log.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let events: Vec<_> = lines.iter().map(|line| line["event"].as_str().unwrap()).collect();
    assert_eq!(events, ["chain_begun", "keeper_confined", "key_use", "key_use", "key_use", "chain_ended"]);
    let facts: Vec<_> = lines[2..5].iter().map(|line| (line["kind"].as_str(), line["call"].as_str(), line["outcome"].as_str())).collect();
    let (call, other) = (CALL.to_string(), OTHER_CALL.to_string());
    let expected = [
        (Some("new_dek"), Some(call.as_str()), Some("done")),
        (Some("unwrap_read"), Some(call.as_str()), Some("done")),
        (Some("unwrap_read"), Some(other.as_str()), Some("denied")),
    ];
    assert_eq!(facts, expected);
    assert!(!holds(log.as_bytes(), dek.expose()));
}

#[test]
fn the_greeting_says_how_many_wrong_tries_the_tpm_has_counted() {
    let bench = Bench::provisioned();
    let wrong = "tpm2_createprimary -Q -C o -p right -c primary && tpm2_create -Q -C primary -P wrong -u public -r private";
    bench.tpm.tool("sh", &["-c", &format!("{{ {wrong}; }} 2>/dev/null; tpm2_flushcontext -t")]);
    let (_, greeting, _process) = bench.serve(&[]);
    let lockout = greeting.standing.lockout.expect("the TPM tells");
    assert_eq!((lockout.failed, lockout.locked), (1, false));
    assert!(lockout.tries > 1 && lockout.at.unix_millis() > 0);
}

#[test]
fn limits_that_cannot_be_stop_the_start_and_are_named() {
    let bench = Bench::provisioned();
    bench.set_limits("[read]\nper_minute = 100000\n");
    let (reason, code) = bench.refusal(&bench.tpm.tcti());
    assert!(reason.contains("read.per_minute must be a whole number from 1 to 600"), "{reason}");
    assert_eq!(code, 78);
}

#[test]
fn an_absent_tpm_is_named() {
    let bench = Bench::provisioned();
    let (reason, code) = bench.refusal("swtpm:host=127.0.0.1,port=1");
    assert!(reason.contains("no TPM answers"), "{reason}");
    assert_eq!(code, 74);
    let (reason, _) = bench.refusal("no such thing");
    assert!(reason.contains("address is not understood"), "{reason}");
}

#[test]
fn another_tpm_and_a_cleared_one_are_refused_before_any_secret_moves() {
    let bench = Bench::provisioned();
    let other = Swtpm::start();
    let (reason, code) = bench.refusal(&other.tcti());
    assert!(reason.contains("not the one that the keys were sealed by"), "{reason}");
    assert_eq!(code, 74);

    bench.tpm.tool("tpm2_clear", &["-c", "platform"]);
    let (reason, _) = bench.refusal(&bench.tpm.tcti());
    assert!(reason.contains("or it has been cleared"), "{reason}");
}

#[test]
fn a_tpm_whose_owner_has_a_password_is_named() {
    let bench = Bench::provisioned();
    bench.tpm.tool("tpm2_changeauth", &["-c", "owner", "secret"]);
    let (reason, _) = bench.refusal(&bench.tpm.tcti());
    assert!(reason.contains("owner hierarchy has a password"), "{reason}");
    assert!(reason.contains("tpm-owner-auth"), "{reason}");
}

#[test]
fn the_owner_s_password_opens_the_keys_and_is_not_on_the_bus() {
    let bench = Bench::provisioned_on(Swtpm::start_with_log(20));
    bench.tpm.tool("tpm2_changeauth", &["-c", "owner", "open-sesame"]);
    let set_by_the_tool = bench.tpm.log().len();
    let file = bench.base().join("owner-auth");
    fs::write(&file, "open-sesame\n").unwrap();

    let (keeper, _, _process) = bench.serve(&["--owner-auth", file.to_str().unwrap()]);

    assert!(keeper.new_dek(CALL).is_ok());
    assert!(!holds(&bench.tpm.log().as_bytes()[set_by_the_tool..], b"open-sesame"));
}

#[test]
fn keys_are_made_on_a_tpm_whose_owner_has_a_password() {
    let bench = Bench::empty_on(Swtpm::start());
    bench.tpm.tool("tpm2_changeauth", &["-c", "owner", "open-sesame"]);
    let file = bench.base().join("owner-auth");
    fs::write(&file, "open-sesame").unwrap();

    let output = bench.provision_with(&bench.tpm.tcti(), &["--owner-auth", file.to_str().unwrap()]);

    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    bench.serve(&["--owner-auth", file.to_str().unwrap()]);
}

#[test]
fn a_wrong_or_missing_owner_s_password_is_named() {
    let bench = Bench::provisioned();
    bench.tpm.tool("tpm2_changeauth", &["-c", "owner", "open-sesame"]);
    let file = bench.base().join("owner-auth");
    let refusal = || bench.refusal_with(&bench.tpm.tcti(), &["--owner-auth", file.to_str().unwrap()]);

    let (missing, _) = refusal();
    fs::write(&file, "guess").unwrap();
    let (wrong, code) = refusal();

    assert!(missing.contains("owner-auth cannot be read"), "{missing}");
    assert!(wrong.contains("refuses the owner password"), "{wrong}");
    assert_eq!(code, 74);
}

#[test]
fn a_tpm_full_of_anothers_objects_is_busy() {
    let bench = Bench::provisioned();
    for at in 0..3 {
        bench.tpm.tool("tpm2_createprimary", &["-Q", "-c", &format!("object-{at}")]);
    }
    let (reason, _) = bench.refusal(&bench.tpm.tcti());
    assert!(reason.contains("the TPM is busy (making the storage root key failed)"), "{reason}");
}

/// Every command of a start fails in turn: broken, or the memory of the TPM written too often just now.
#[test]
fn a_tpm_that_fails_at_any_command_of_a_start_is_named_and_the_next_start_succeeds() {
    const FAILURE: u32 = 0x101;
    const NV_RATE: u32 = 0x920;
    for code in [FAILURE, NV_RATE] {
        let bench = Bench::provisioned();
        let faulty = FaultyTpm::before(&bench.tpm, code);
        let mut refused = 0;
        for pass in 0.. {
            faulty.refuse(pass);
            let (channel, mut process) = bench.start("serve", &faulty.tcti(), &[]);
            let end = Keeper::connect(channel);
            if let Err(KeeperError::Refused { reason, .. }) = &end {
                assert!(reason.contains("TPM"), "command {pass}: {reason}");
                assert_eq!(process.0.wait().unwrap().code(), Some(74), "command {pass}: {reason}");
                refused += 1;
            } else {
                // What is put down afterwards may fail, and the lockout's state be unknown: the calls are served all the same.
                assert!(end.is_ok(), "command {pass}: {:?}", end.err());
            }
            drop((end, process));
            if !faulty.has_refused() {
                break;
            }
            faulty.refuse(usize::MAX);
            // What a resource manager does when a program ends.
            for what in ["-t", "-l", "-s"] {
                bench.tpm.tool("tpm2_flushcontext", &[what]);
            }
            drop(bench.serve(&[]));
        }
        assert!(refused > 15, "{refused}");
    }
}

#[test]
fn a_slot_that_is_cut_damaged_or_of_another_version_is_refused_by_name() {
    let bench = Bench::provisioned();
    let slot = bench.keys().join("keyslots");
    let whole = fs::read(&slot).unwrap();
    let wrapped = first_slot(&bench).wrapped;
    let root_key = whole.windows(wrapped.len()).position(|window| window == wrapped).unwrap();
    let refusal_of = |bytes: &[u8]| {
        fs::write(&slot, bytes).unwrap();
        bench.refusal(&bench.tpm.tcti()).0
    };
    assert!(refusal_of(&whole[..whole.len() - 1]).contains("damaged or cut short"));
    assert!(refusal_of(&[]).contains("damaged or cut short"));
    let mut flipped = whole.clone();
    flipped[60] ^= 4;
    assert!(refusal_of(&flipped).contains("damaged or cut short"));
    let mut older = whole.clone();
    older[17] = 0;
    assert!(refusal_of(&with_checksum_repaired(older)).contains("has version 0, this program reads version 2"));
    // Whoever repairs the checksum is caught by the TPM, by the cipher, or by the authentication that only the root key can make.
    for (at, said) in [(root_key + 40, "the root key in the file does not open with it"), (whole.len() - 65, "was not written by this box")]
    {
        let mut forged = whole.clone();
        forged[at] ^= 1;
        let reason = refusal_of(&with_checksum_repaired(forged));
        assert!(reason.contains(said), "{reason}");
    }
    fs::remove_file(&slot).unwrap();
    assert!(bench.refusal(&bench.tpm.tcti()).0.contains("keyslots is missing"));
}

fn address(tpm: &Swtpm) -> Address<'static> {
    Address { tcti: tpm.tcti().leak(), owner: None }
}

fn first_slot(bench: &Bench) -> TpmSlot {
    let file = fs::read(bench.keys().join("keyslots")).unwrap();
    match Keyslots::read(&file).unwrap().before_authentication().slots[0].kind.clone() {
        Kind::Tpm(slot) => slot,
        other => panic!("not of the TPM: {other:?}"),
    }
}

fn with_checksum_repaired(mut file: Vec<u8>) -> Vec<u8> {
    file.truncate(file.len() - 32);
    let sum = ring::digest::digest(&ring::digest::SHA256, &file);
    file.extend(sum.as_ref());
    file
}

#[test]
fn a_keyring_of_another_box_is_refused() {
    let (one, other) = (Bench::provisioned(), Bench::provisioned());
    fs::copy(other.keys().join("keyring"), one.keys().join("keyring")).unwrap();
    let (reason, _) = one.refusal(&one.tpm.tcti());
    assert!(reason.contains("was not written by this box"), "{reason}");
}

#[test]
fn a_key_directory_that_others_may_open_is_refused() {
    use std::os::unix::fs::PermissionsExt as _;
    let bench = Bench::provisioned();
    fs::set_permissions(bench.keys(), fs::Permissions::from_mode(0o755)).unwrap();
    assert!(bench.refusal(&bench.tpm.tcti()).0.contains("others may open the key directory"));
}

#[test]
fn a_box_is_set_up_once() {
    let bench = Bench::provisioned();
    let before = bench.all_bytes();
    let again = bench.provision(&bench.tpm.tcti());
    assert_eq!(again.status.code(), Some(74));
    assert!(String::from_utf8_lossy(&again.stderr).contains("set up already and nothing was changed"));
    assert_eq!(bench.all_bytes(), before);
}

#[test]
fn a_failed_set_up_leaves_nothing() {
    let bench = Bench::empty_on(Swtpm::start());
    let output = bench.provision("swtpm:host=127.0.0.1,port=1");
    assert!(String::from_utf8_lossy(&output.stderr).contains("no TPM answers"));
    assert_eq!(fs::read_dir(bench.base()).unwrap().count(), 0);
}

#[test]
fn no_key_is_on_disk() {
    let bench = Bench::provisioned();
    let (keeper, greeting, _process) = bench.serve(&[]);
    let (dek, _) = keeper.new_dek(CALL).unwrap();
    let slot = first_slot(&bench);
    let root = slots::open_tpm(&slot, address(&bench.tpm), None).unwrap();
    let disk = bench.all_bytes();
    for secret in [root.expose(), dek.expose(), greeting.index_key.expose()] {
        assert!(!holds(&disk, secret));
    }
    // The control: what is there is found.
    assert!(holds(&disk, &slot.sealed.private));
    assert!(!holds(&disk, b"PRIVATE KEY"));
}

#[test]
fn no_key_is_on_the_tpms_bus() {
    let tpm = Swtpm::start_with_log(20);
    let secret: Secret<32> = Secret::try_fill(|to| ring::rand::SecureRandom::fill(&ring::rand::SystemRandom::new(), to)).unwrap();
    let mut connection = Tpm::connect(address(&tpm), None).unwrap();
    let sealed = connection.seal(&Policy::default(), None, &secret).unwrap();
    assert_eq!(connection.unseal(&Policy::default(), None, &sealed).unwrap().expose(), secret.expose());
    drop(connection);
    let log = tpm.log();
    assert!(holds(log.as_bytes(), &sealed.public), "the log shows what crosses the bus in clear");
    assert!(!holds(log.as_bytes(), secret.expose()));

    // The control: a plain session shows its secret.
    fs::write(tpm.directory().join("plain"), "a secret that crosses in clear!!").unwrap();
    tpm.tool("tpm2_createprimary", &["-Q", "-c", "primary"]);
    tpm.tool("tpm2_create", &["-Q", "-C", "primary", "-i", "plain", "-u", "public", "-r", "private"]);
    assert!(holds(tpm.log().as_bytes(), b"a secret that crosses in clear!!"));
}

#[test]
fn a_killed_keeper_is_an_error_at_once_and_stays_one() {
    let bench = Bench::provisioned();
    let (keeper, _, mut process) = bench.serve(&[]);
    process.0.kill().unwrap();
    process.0.wait().unwrap();
    assert!(matches!(keeper.new_dek(CALL), Err(KeeperError::Gone(_))));
    assert!(keeper.is_lost());
    assert!(matches!(keeper.counters(), Err(KeeperError::Gone(_))));
}

#[test]
fn a_core_that_breaks_the_protocol_ends_its_keeper() {
    let bench = Bench::provisioned();
    let (channel, mut process) = bench.start("serve", &bench.tpm.tcti(), &[]);
    assert!(matches!(channel.recv().unwrap(), Some(KeeperReply::Ready { .. })));
    channel.send(&"no request".to_owned()).unwrap();
    assert_eq!(channel.recv::<KeeperReply>().ok().flatten().map(drop), None);
    assert_eq!(process.0.wait().unwrap().code(), Some(1));
}

#[test]
fn a_keeper_without_a_channel_says_who_starts_it() {
    let bench = Bench::provisioned();
    let output = Command::new(KEEPER).arg("serve").arg("--directory").arg(bench.keys()).args(["--tpm", "x"]).output().unwrap();
    assert_eq!(output.status.code(), Some(64));
    assert!(String::from_utf8_lossy(&output.stderr).contains("started by salamad"));
}

fn open_files(process: &box_with_keys::Process) -> Vec<std::ffi::OsString> {
    let mut open: Vec<_> = fs::read_dir(format!("/proc/{}/fd", process.0.id())).unwrap().map(|fd| fd.unwrap().file_name()).collect();
    open.sort();
    open
}

#[test]
fn a_console_may_use_the_tpm_and_change_the_keys_while_the_daemons_keeper_holds_both() {
    let bench = Bench::provisioned();
    let (keeper, _, _process) = bench.serve(&[]);
    let (channel, _console) = bench.start("console", &bench.tpm.tcti(), &[]);
    let (_console_keeper, _) = Keeper::connect(channel).unwrap();
    let exclusive = keeper::replace::Exclusive::take(&bench.keys()).unwrap();
    drop(exclusive);
    // Nothing of the two that serve is loaded in the TPM.
    let loaded = bench.tpm.tool("tpm2_getcap", &["handles-transient"]);
    assert_eq!(String::from_utf8_lossy(&loaded.stdout).trim(), "");
    keeper.new_dek(CALL).unwrap();
}

#[test]
fn an_answering_keeper_is_confined_and_its_memory_locked() {
    assert!(geteuid().is_root(), "run the tests as root: they start keepers as several users");
    let bench = Bench::provisioned();
    let (keeper, _, process) = bench.serve(&[]);
    let status = fs::read_to_string(format!("/proc/{}/status", process.0.id())).unwrap();
    let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default().trim().to_owned();
    let nobody = nix::unistd::User::from_name("nobody").unwrap().unwrap().uid;
    assert_eq!(field("Uid:"), format!("{nobody}\t{nobody}\t{nobody}\t{nobody}"));
    assert_eq!((field("Groups:").as_str(), field("NoNewPrivs:").as_str(), field("Seccomp:").as_str()), ("", "1", "2"));
    for set in ["CapInh:", "CapPrm:", "CapEff:", "CapBnd:", "CapAmb:"] {
        assert_eq!(field(set), "0000000000000000", "{set}");
    }
    // The kernel gives the files of an undumpable process to root: nobody else reads its memory, its own account neither.
    assert_eq!(fs::metadata(format!("/proc/{}/mem", process.0.id())).unwrap().uid(), 0);
    assert_eq!(field("Threads:"), "1");
    let locked: u64 = field("VmLck:").trim_end_matches(" kB").parse().unwrap();
    assert!(locked > 4096, "locked: {locked} kB");
    assert_eq!(open_files(&process), ["0", "1", "2", "3", "4", "5"]);
    // Besides the standard streams and the channel: the key directory, what was used, and a TPM where it is a device.
    let link =
        |process: &box_with_keys::Process, descriptor: u32| fs::read_link(format!("/proc/{}/fd/{descriptor}", process.0.id())).unwrap();
    let keys = bench.keys().canonicalize().unwrap();
    assert_eq!((link(&process, 4), link(&process, 5)), (keys.clone(), keys.join("uses")));
    keeper.counters().unwrap();

    let (channel, console) = bench.start("console", &bench.tpm.tcti(), &[]);
    let (_console_keeper, _) = Keeper::connect(channel).unwrap();
    // The console's has counted its start, holds the file to be the only one, and may not write it any more.
    assert_eq!(
        (open_files(&console), link(&console, 5)),
        (["0", "1", "2", "3", "5"].map(std::ffi::OsString::from).to_vec(), keys.join("issued"))
    );
}

#[test]
fn the_largest_requests_fit_into_the_memory_that_was_reserved() {
    let bench = Bench::provisioned();
    bench.set_limits("[new]\nper_minute = 5000\n");
    let (keeper, _, _process) = bench.serve(&[]);
    for _ in 0..2000 {
        keeper.new_dek(CALL).unwrap();
    }
    for _ in 0..50 {
        assert_eq!(denied(keeper.sign_tls(&vec![b' '; 150 * 1024])), KeeperDenial::NotSignable);
        let huge = WrappedDek(vec![1; 150 * 1024]);
        assert_eq!(denied(keeper.unwrap_dek(CALL, &huge, UnwrapPurpose::Job)), KeeperDenial::WrongKey);
    }
    assert_eq!(keeper.counters().unwrap().new_deks, 2000);
}

#[test]
fn only_root_and_the_owner_get_a_console() {
    use std::os::unix::process::CommandExt as _;
    assert!(geteuid().is_root(), "run the tests as root: they start keepers as several users");
    let bench = Bench::provisioned();
    // A copy, because the build directory may lie where other users cannot reach it.
    let program = bench.base().join("salama-keeper");
    fs::copy(KEEPER, &program).unwrap();
    let (ours, theirs) = Channel::pair().unwrap();
    let mut command = Command::new(&program);
    command.arg("console").arg("--directory").arg(bench.keys()).args(["--tpm", &bench.tpm.tcti()]).uid(12345).gid(12345);
    let mut child = salama::sys::process::start_with_descriptor(command, theirs.into_fd(), 3).unwrap();
    let Some(KeeperReply::Refused { reason, .. }) = ours.recv().unwrap() else { panic!("it was allowed") };
    assert!(reason.contains("only root or the owner"), "{reason}");
    assert_eq!(child.wait().unwrap().code(), Some(77));
}

#[test]
fn the_tpms_counter_goes_up_by_one_and_never_back() {
    let bench = Bench::provisioned();
    let (keeper, greeting, process) = bench.serve(&[]);
    let Counter { value: Some(first), leave: Leave::First, .. } = greeting.counter else {
        panic!("it was counted when the box was set up")
    };
    assert_eq!(keeper.count(first).unwrap().at, first + 1);
    assert_eq!(keeper.count(first).unwrap().at, first + 1, "asked again, it does not count again");
    let attributes = String::from_utf8(bench.tpm.tool("tpm2_nvreadpublic", &["0x1815a90"]).stdout).unwrap();
    for word in ["nt=0x1", "authread", "authwrite", "no_da", "written"] {
        assert!(attributes.contains(word), "{attributes}");
    }
    assert!(!attributes.contains("ownerread") && !attributes.contains("ownerwrite"), "{attributes}");
    drop((keeper, process));

    let (keeper, greeting, process) = bench.serve(&[]);
    assert_eq!((greeting.counter.value, greeting.counter.leave), (Some(first + 1), Leave::None));
    assert_eq!(denied(keeper.count(first)), KeeperDenial::CounterElsewhere);
    assert_eq!(denied(keeper.count(first + 2)), KeeperDenial::CounterElsewhere);
    drop((keeper, process));
    // Who may make and remove indices cannot take it back, and no keeper makes another one.
    bench.tpm.tool("tpm2_nvundefine", &["-C", "o", "0x1815a90"]);
    for _ in 0..2 {
        let (keeper, greeting, _process) = bench.serve(&[]);
        assert_eq!((greeting.counter.value, greeting.counter.leave), (None, Leave::None));
        assert_eq!(denied(keeper.count(first + 1)), KeeperDenial::CounterElsewhere);
    }
}

#[test]
fn a_core_that_counts_all_the_time_is_slowed_down() {
    let bench = Bench::provisioned();
    let (keeper, greeting, _process) = bench.serve(&[]);
    let mut at = greeting.counter.value.unwrap();
    for _ in 0..4 {
        at = keeper.count(at).unwrap().at;
    }
    assert!(matches!(denied(keeper.count(at)), KeeperDenial::RateLimited { .. }));
}

#[test]
fn a_box_that_is_set_up_again_has_a_counter_of_its_own() {
    let bench = Bench::provisioned();
    let (keeper, greeting, process) = bench.serve(&[]);
    let first = keeper.count(greeting.counter.value.unwrap()).unwrap().at;
    drop((keeper, process));
    fs::rename(bench.keys(), bench.base().join("first")).unwrap();
    assert!(bench.provision(&bench.tpm.tcti()).status.success());
    let (keeper, greeting, process) = bench.serve(&[]);
    assert!(greeting.counter.value.is_some_and(|value| value > first));
    drop((keeper, process));
    fs::remove_dir_all(bench.keys()).unwrap();
    fs::rename(bench.base().join("first"), bench.keys()).unwrap();
    let (reason, exit) = bench.refusal(&bench.tpm.tcti());
    assert!(reason.contains("belongs to another box") && exit == 78, "{reason} ({exit})");
}

#[test]
fn a_set_up_that_fails_leaves_the_counter_of_the_box_that_is_there() {
    let bench = Bench::provisioned();
    let (keeper, greeting, process) = bench.serve(&[]);
    drop((keeper, process));
    fs::rename(bench.keys(), bench.base().join("first")).unwrap();
    let output = bench.provision_with(&bench.tpm.tcti(), &["--server-name", "no name at all"]);
    assert!(!output.status.success() && !bench.keys().exists(), "{output:?}");
    fs::rename(bench.base().join("first"), bench.keys()).unwrap();
    assert_eq!(bench.serve(&[]).1.counter, greeting.counter);
}
