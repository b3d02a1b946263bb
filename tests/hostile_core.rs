//! A core that was taken over, played against the real key keeper on a real (software) TPM: how far it gets, and what stays written.

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
#[allow(dead_code, reason = "other tests use more of it")]
mod box_with_keys;
#[path = "support/swtpm.rs"]
mod swtpm;

use std::collections::BTreeSet;
use std::io::Write as _;
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::process::{Command, Stdio};
use std::time::{SystemTime, UNIX_EPOCH};

use box_with_keys::{Bench, Process, holds};
use nix::sys::signal::{Signal, kill};
use nix::sys::socket::{MsgFlags, send};
use nix::unistd::Pid;
use rcgen::{CertificateParams, KeyPair};
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair};
use salama::base::clock::Timestamp;
use salama::base::hex::hex;
use salama::base::ids::CallId;
use salama::ipc::burst::{BurstGrant, COUNT_MAX, GrantFault, LIFETIME_MAX, SignedGrant};
use salama::ipc::channel::Channel;
use salama::ipc::keeper::{
    EpochRequest, ErasedClass, ErasureClaim, KeeperCounters, KeeperDenial, KeeperReply, KeeperRequest, Standing, UnwrapPurpose, WrappedDek,
};
use salama::ipc::key_log::{LogFault, Report, Verifier};
use salama::keys::console::Console;

/// Small, so that a test reaches them.
const LIMITS: &str =
    "[read]\nper_minute = 20\nper_hour = 30\nceiling_per_hour = 60\n[job]\nper_minute = 15\nper_hour = 30\nceiling_per_hour = 60\n";
const READ: UnwrapPurpose = UnwrapPurpose::Read;
const JOB: UnwrapPurpose = UnwrapPurpose::Job;

/// What a core has: its end of the channel, and the keys of the calls as the store has them.
struct Core {
    channel: Channel,
    standing: Standing,
    server_leaf: Vec<u8>,
    process: Process,
    calls: Vec<(CallId, WrappedDek)>,
}

impl Core {
    /// At a keeper that has just started.
    fn of(bench: &Bench) -> Self {
        let (channel, process) = bench.start("serve", &bench.tpm.tcti(), &[]);
        let Some(KeeperReply::Ready { standing, server_chain, .. }) = channel.recv().unwrap() else { panic!("no greeting") };
        Self { channel, standing, server_leaf: server_chain[0].clone(), process, calls: Vec::new() }
    }

    fn ask(&self, request: &KeeperRequest) -> KeeperReply {
        self.channel.send(request).unwrap();
        self.channel.recv().unwrap().expect("the keeper lives")
    }

    fn makes_calls(&mut self, count: u8) {
        for number in 0..count {
            let call = CallId::from_bytes([number; 16]);
            let KeeperReply::NewDek { wrapped, .. } = self.ask(&KeeperRequest::NewDek { call }) else { panic!("no key") };
            self.calls.push((call, wrapped));
        }
    }

    /// Tries to open each call; the opened keys, and the first refusal.
    fn opens_all(&self, purpose: UnwrapPurpose) -> (Vec<Vec<u8>>, Option<KeeperDenial>) {
        let (mut opened, mut refused) = (Vec::new(), None);
        for (call, wrapped) in &self.calls {
            match self.ask(&KeeperRequest::UnwrapDek { call: *call, wrapped: wrapped.clone(), purpose }) {
                KeeperReply::Dek(dek) => opened.push(dek.0.expose().to_vec()),
                KeeperReply::Denied(denial) => refused = refused.or(Some(denial)),
                _ => panic!("neither opened nor refused"),
            }
        }
        (opened, refused)
    }

    fn relays(&self, grant: SignedGrant) -> Result<(), KeeperDenial> {
        match self.ask(&KeeperRequest::Burst(grant)) {
            KeeperReply::BurstTaken => Ok(()),
            KeeperReply::Denied(denial) => Err(denial),
            _ => panic!("neither taken nor refused"),
        }
    }

    fn counters(&self) -> KeeperCounters {
        let KeeperReply::Counters(counters) = self.ask(&KeeperRequest::Counters) else { panic!("no counters") };
        counters
    }

    /// Hangs up, and waits until the keeper has written its last line.
    fn ends(mut self) -> Standing {
        drop(self.channel);
        assert!(self.process.0.wait().unwrap().success());
        self.standing
    }
}

/// A person or machine with a certificate of a box.
struct Client {
    key: EcdsaKeyPair,
    certificate: Vec<u8>,
}

impl Client {
    fn enrolled(bench: &Bench, role: &str) -> Self {
        let pair = KeyPair::generate().unwrap();
        let request = CertificateParams::default().serialize_request(&pair).unwrap();
        let (channel, _process) = bench.start("console", &bench.tpm.tcti(), &[]);
        let chain = Console::connect(channel).unwrap().issue(request.der(), role, "juma", 30).unwrap();
        let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &pair.serialize_der(), &SystemRandom::new()).unwrap();
        Self { key, certificate: chain[0].to_vec() }
    }

    fn signs(&self, grant: &BurstGrant) -> SignedGrant {
        let text = grant.to_string();
        let signature = self.key.sign(&SystemRandom::new(), text.as_bytes()).unwrap().as_ref().to_vec();
        SignedGrant { text, signature, certificate: self.certificate.clone() }
    }
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

/// What `salama burst` would write.
fn grant(standing: &Standing, count: u32, nonce: u8) -> BurstGrant {
    let (from, until) = (now() - 60, now() + 600);
    BurstGrant { box_name: standing.box_name.clone(), start: standing.start, purpose: READ, count, from, until, nonce: [nonce; 16] }
}

fn verify(log: &str, standing: &Standing) -> Result<Report, LogFault> {
    let mut verifier = Verifier::new(standing.log_key, false);
    for (number, line) in (1..).zip(log.lines()) {
        verifier.line(number, line.as_bytes())?;
    }
    verifier.finish()
}

/// Values of one member of the lines with this event.
fn of_event(log: &str, event: &str, member: &str) -> Vec<String> {
    let lines = log.lines().map(|line| line.trim_start_matches("<3>")).map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    lines.filter(|line| line["event"] == event).map(|line| line[member].as_str().unwrap_or_default().to_owned()).collect()
}

#[test]
fn a_core_that_opens_everything_stops_at_the_limits_and_every_call_it_got_is_named() {
    let bench = Bench::provisioned();
    bench.set_limits(LIMITS);
    let mut core = Core::of(&bench);
    core.makes_calls(100);
    let (read, refused) = core.opens_all(READ);
    assert_eq!(read.len(), 20);
    assert!(matches!(refused, Some(KeeperDenial::RateLimited { seconds: 1..=61 })), "{refused:?}");
    // Nor under the other name, nor by trying on.
    assert_eq!(core.opens_all(JOB).0.len(), 15);
    for _ in 0..20 {
        assert_eq!((core.opens_all(READ).0.len(), core.opens_all(JOB).0.len()), (0, 0));
    }
    let counters = core.counters();
    assert_eq!((counters.unwraps_read, counters.unwraps_job, counters.limited, counters.incidents), (20, 15, 165 + 4000, 3));
    // It slows; it corrupts nothing: other uses go on, and what was refused is as it was.
    assert!(matches!(core.ask(&KeeperRequest::NewDek { call: CallId::from_bytes([200; 16]) }), KeeperReply::NewDek { .. }));
    let standing = core.ends();

    let log = bench.log();
    let report = verify(&log, &standing).unwrap();
    assert_eq!((report.chains, report.incidents, report.without_end, report.others), (1, 3, 0, 0));
    assert_eq!(of_event(&log, "incident", "kind"), ["unwrap_read", "unwrap_read", "unwrap_job"]);
    assert_eq!(of_event(&log, "incident", "reason"), ["half_of_the_hour", "limit_of_the_minute", "limit_of_the_minute"]);
    let uses = log.lines().filter(|line| line.contains("\"outcome\":\"done\"") && line.contains("unwrap_"));
    assert_eq!(uses.count(), 35);
    assert!(read.iter().all(|dek| !holds(log.as_bytes(), dek)));
}

#[test]
fn a_core_that_ends_the_daemon_or_has_it_killed_gets_the_hours_worth_once() {
    let bench = Bench::provisioned();
    bench.set_limits(LIMITS);
    let mut first = Core::of(&bench);
    first.makes_calls(100);
    let calls = std::mem::take(&mut first.calls);
    first.ends();
    let opens = |core: &Core| core.opens_all(READ).0.len();
    let core = Core { calls: calls.clone(), ..Core::of(&bench) };
    assert_eq!(opens(&core), 20);
    core.ends();
    // Killed in the middle of what it has put down beforehand: that counts as used.
    let mut core = Core { calls: calls[..7].to_vec(), ..Core::of(&bench) };
    assert_eq!(opens(&core), 7);
    core.process.0.kill().unwrap();
    core.process.0.wait().unwrap();
    let core = Core { calls: calls.clone(), ..Core::of(&bench) };
    assert_eq!(opens(&core), 2);
    core.ends();
    for _ in 0..3 {
        let core = Core { calls: calls.clone(), ..Core::of(&bench) };
        assert_eq!(opens(&core), 0);
        core.ends();
    }
    // Nor is it forgotten when the file is damaged: the hour counts as full then, but for a little, and that is an incident.
    let uses = bench.keys().join("uses");
    std::fs::write(&uses, vec![7; std::fs::metadata(&uses).unwrap().len().try_into().unwrap()]).unwrap();
    let core = Core { calls, ..Core::of(&bench) };
    assert_eq!(opens(&core), 2);
    core.ends();
    assert!(of_event(&bench.log(), "incident", "reason").contains(&"uses_before_lost".to_owned()));
}

#[test]
fn a_start_that_was_taken_out_of_the_lines_or_put_in_again_is_found() {
    let bench = Bench::provisioned();
    let mut starts: Vec<String> = Vec::new();
    let mut key = [0; 32];
    for _ in 0..3 {
        let mut core = Core::of(&bench);
        core.makes_calls(1);
        core.opens_all(READ);
        key = core.ends().log_key;
        starts.push(bench.log()[starts.concat().len()..].to_owned());
    }
    let (exit, said) = salama_verify(&starts.concat(), &key);
    assert_eq!(exit, Some(0), "{said}");
    let [one, two, three] = [0, 1, 2].map(|start: usize| starts[start].clone());
    for (what, log, words) in [
        ("taken out", [one.clone(), three.clone()].concat(), "the starts 2 to 2 of the keeper are missing"),
        (
            "put in again",
            [one.clone(), two.clone(), one.clone(), three.clone()].concat(),
            "begins start 1 of the keeper where start 3 belongs",
        ),
        ("moved", [two, one, three].concat(), "begins start 1 of the keeper where start 3 belongs"),
    ] {
        let (exit, said) = salama_verify(&log, &key);
        assert_eq!(exit, Some(65), "{what}: {said}");
        assert!(said.contains(words), "{what}: {said}");
    }
}

#[test]
fn no_grant_that_a_core_can_make_bend_or_keep_counts() {
    let (bench, other_box) = (Bench::provisioned(), Bench::provisioned());
    bench.set_limits(LIMITS);
    let supervisor = Client::enrolled(&bench, "supervisor");
    let stranger = Client::enrolled(&other_box, "supervisor");
    let others = ["auditor", "admin", "counsellor"].map(|role| Client::enrolled(&bench, role));
    let kept = Core::of(&bench).ends();

    let core = Core::of(&bench);
    let good = grant(&core.standing, 10, 1);
    let signed = supervisor.signs(&good);
    let bent = BurstGrant { count: 2000, ..good.clone() }.to_string();
    let bad = [
        ("changed", SignedGrant { text: bent, ..signed.clone() }, GrantFault::Signature),
        ("unsigned", SignedGrant { signature: Vec::new(), ..signed.clone() }, GrantFault::Signature),
        ("not a grant", SignedGrant { text: "count 500".to_owned(), ..signed.clone() }, GrantFault::Malformed),
        ("of another box's supervisor", stranger.signs(&good), GrantFault::Certificate),
        ("with the server's certificate", SignedGrant { certificate: core.server_leaf.clone(), ..signed.clone() }, GrantFault::Certificate),
        ("without certificate", SignedGrant { certificate: Vec::new(), ..signed.clone() }, GrantFault::Certificate),
        ("of an auditor", others[0].signs(&good), GrantFault::Role),
        ("of an administrator", others[1].signs(&good), GrantFault::Role),
        ("of a counsellor", others[2].signs(&good), GrantFault::Role),
        ("kept from a start before", supervisor.signs(&grant(&kept, 10, 1)), GrantFault::OtherStart),
        ("for another box", supervisor.signs(&BurstGrant { box_name: "mombasa-1".to_owned(), ..good.clone() }), GrantFault::OtherBox),
        ("too large", supervisor.signs(&BurstGrant { count: COUNT_MAX + 1, ..good.clone() }), GrantFault::Count),
        ("too long", supervisor.signs(&BurstGrant { until: good.from + LIFETIME_MAX + 1, ..good.clone() }), GrantFault::Lifetime),
        ("expired", supervisor.signs(&BurstGrant { until: now() - 1, ..good.clone() }), GrantFault::Expired),
        ("of a clock that goes fast", supervisor.signs(&BurstGrant { from: now() + 300, ..good.clone() }), GrantFault::NotYet),
    ];
    for (what, grant, fault) in &bad {
        assert_eq!(core.relays(grant.clone()), Err(KeeperDenial::Grant(*fault)), "{what}");
    }
    core.relays(signed.clone()).unwrap();
    assert_eq!(core.relays(signed), Err(KeeperDenial::Grant(GrantFault::Used)), "a second time");
    assert_eq!(core.relays(supervisor.signs(&good)), Err(KeeperDenial::Grant(GrantFault::Used)), "with another signature");
    assert_eq!(core.counters().incidents, 17);

    let mut core = core;
    core.makes_calls(100);
    assert_eq!((core.opens_all(READ).0.len(), core.opens_all(JOB).0.len()), (20 + 10, 15));
    let standing = core.ends();
    let log = bench.log();
    assert_eq!(verify(&log, &standing).unwrap().incidents, 17 + 3);
    assert_eq!(of_event(&log, "grant", "by"), ["supervisor/juma"]);
}

#[test]
fn no_number_of_grants_lifts_the_ceiling_and_a_flood_of_them_is_cut_off() {
    let bench = Bench::provisioned();
    bench.set_limits(LIMITS);
    let supervisor = Client::enrolled(&bench, "supervisor");
    let mut core = Core::of(&bench);
    core.makes_calls(200);
    for nonce in 0..8 {
        core.relays(supervisor.signs(&grant(&core.standing, COUNT_MAX, nonce))).unwrap();
    }
    let one_too_many = supervisor.signs(&grant(&core.standing, 1, 8));
    assert_eq!(core.relays(one_too_many.clone()), Err(KeeperDenial::Grant(GrantFault::TooMany)));
    assert_eq!(core.relays(one_too_many), Err(KeeperDenial::Grant(GrantFault::TooMany)), "who is told to wait may come again");
    assert_eq!(of_event(&bench.log(), "grant", "by").len(), 8, "what does not count is not written down as granted");
    let (opened, refused) = core.opens_all(READ);
    assert_eq!(opened.len(), 60);
    assert!(matches!(refused, Some(KeeperDenial::RateLimited { .. })), "{refused:?}");
    let flood = |nonce: u8| core.relays(supervisor.signs(&grant(&core.standing, 0, nonce)));
    let cut_off = (9..200).map(flood).find(|answer| *answer != Err(KeeperDenial::Grant(GrantFault::Count)));
    assert!(matches!(cut_off, Some(Err(KeeperDenial::RateLimited { seconds: 1..=61 }))), "{cut_off:?}");
    let standing = core.ends();
    let log = bench.log();
    verify(&log, &standing).unwrap();
    assert!(of_event(&log, "incident", "reason").contains(&"ceiling".to_owned()), "{log}");
}

#[test]
fn a_core_that_breaks_the_protocol_is_written_down_and_ends_its_keeper() {
    let bench = Bench::provisioned();
    type Breach = Box<dyn Fn(&Channel)>;
    let raw = |bytes: &'static [u8]| move |channel: &Channel| assert!(send(channel.as_fd().as_raw_fd(), bytes, MsgFlags::empty()).is_ok());
    let breaches: [(&str, Breach); 4] = [
        ("an unknown message", Box::new(raw(&[0xff; 40]))),
        ("a message cut short", Box::new(raw(&[1, 7, 7]))),
        ("a reply", Box::new(|channel: &Channel| channel.send(&KeeperReply::BurstTaken).unwrap())),
        ("a descriptor", Box::new(|channel: &Channel| channel.send_with_fd(&KeeperRequest::Counters, std::io::stdin().as_fd()).unwrap())),
    ];
    let mut last = None;
    for (what, breach) in breaches {
        let mut core = Core::of(&bench);
        breach(&core.channel);
        assert!(core.channel.recv::<KeeperReply>().ok().flatten().is_none(), "{what}");
        assert_eq!(core.process.0.wait().unwrap().code(), Some(1), "{what}");
        last = Some(core.standing);
    }
    let log: String = bench.log().lines().filter(|line| line.contains("{\"chain\":")).map(|line| format!("{line}\n")).collect();
    let report = verify(&log, &last.unwrap()).unwrap();
    assert_eq!((report.chains, report.incidents, report.without_end), (4, 4, 0));
    assert_eq!(of_event(&log, "incident", "reason").into_iter().collect::<BTreeSet<_>>(), BTreeSet::from(["protocol".to_owned()]));
}

fn salama_verify(log: &str, key: &[u8; 32]) -> (Option<i32>, String) {
    let mut verify = Command::new(env!("CARGO_BIN_EXE_salama"))
        .args(["audit", "verify", "--key", &hex(key)])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // It may have found something, and read no further.
    let _ = verify.stdin.take().unwrap().write_all(log.as_bytes());
    let output = verify.wait_with_output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code(), text(&output.stdout) + &text(&output.stderr))
}

#[test]
fn a_stranger_with_the_public_key_finds_every_line_that_was_taken_out_changed_or_moved() {
    let bench = Bench::provisioned();
    let mut core = Core::of(&bench);
    core.makes_calls(4);
    core.opens_all(READ);
    let standing = core.ends();
    let log = bench.log();
    let key = standing.log_key;
    let lines: Vec<&str> = log.lines().collect();
    assert_eq!(lines.len(), 11);
    let (exit, said) = salama_verify(&log, &key);
    assert_eq!(exit, Some(0), "{said}");
    assert!(said.contains("signed lines") && said.contains("11"), "{said}");

    for at in 0..lines.len() - 1 {
        let without: String = lines.iter().enumerate().filter(|(line, _)| *line != at).map(|(_, line)| format!("{line}\n")).collect();
        assert!(verify(&without, &standing).is_err(), "without line {at}");
    }
    // What nobody can miss, until the next start says how many there were: the end of the newest one.
    assert_eq!(verify(&(lines[..10].join("\n") + "\n"), &standing).map(|report| report.lines), Ok(10));
    let without = log.replacen(&format!("{}\n", lines[5]), "", 1);
    let (exit, said) = salama_verify(&without, &key);
    assert_eq!(exit, Some(65), "{said}");
    assert!(said.contains("before line 6, the lines with the numbers 5 to 5 of its chain are missing"), "{said}");

    let changed = log.replacen(&CallId::from_bytes([2; 16]).to_string(), &CallId::from_bytes([3; 16]).to_string(), 1);
    let (exit, said) = salama_verify(&changed, &key);
    assert_eq!(exit, Some(65), "{said}");
    assert!(said.contains("line 5, which says that it is number 4, was changed"), "{said}");

    let forged = format!("{log}{}\n", lines[10].replacen("\"seq\":10", "\"seq\":11", 1));
    assert!(salama_verify(&forged, &key).1.contains("line 12"));
    let (exit, said) = salama_verify("nothing\n", &key);
    assert_eq!(exit, Some(65));
    assert!(said.contains("no signed line"), "{said}");
}

#[test]
fn a_stop_of_the_whole_service_lets_the_keeper_end_in_order() {
    let bench = Bench::provisioned();
    let mut core = Core::of(&bench);
    let keeper = Pid::from_raw(core.process.0.id().try_into().unwrap());
    for stop in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP] {
        kill(keeper, stop).unwrap();
    }
    // What is under way still gets its key.
    core.makes_calls(1);
    assert_eq!(core.opens_all(READ).0.len(), 1);
    let standing = core.ends();
    let report = verify(&bench.log(), &standing).unwrap();
    assert_eq!((report.chains, report.without_end), (1, 0));
}

#[test]
fn a_core_that_asks_about_epochs_all_day_fills_no_journal_wears_no_tpm_and_still_ends_its_move() {
    let bench = Bench::provisioned();
    let core = Core::of(&bench);
    let asks = |request: EpochRequest| match core.ask(&KeeperRequest::Epoch(request)) {
        KeeperReply::Epoch(_) => Ok(()),
        KeeperReply::Denied(denial) => Err(denial),
        _ => panic!("neither done nor refused"),
    };
    asks(EpochRequest::Settle { store: None }).unwrap();
    asks(EpochRequest::Begin).unwrap();
    let claim = |number: u8| ErasureClaim {
        call: CallId::from_bytes([number; 16]),
        erased: Timestamp::from_unix_millis(0),
        classes: vec![ErasedClass::Recording],
        epoch: 1,
    };
    for number in 0..250 {
        let _ = asks(EpochRequest::Settle { store: Some(1) });
        let _ = asks(EpochRequest::Begin);
        let _ = asks(EpochRequest::Committed { number: 77 });
        let _ = asks(EpochRequest::Certify(claim(number)));
        asks(EpochRequest::Rewrap(Vec::new())).unwrap();
        let _ = core.ask(&KeeperRequest::Count { from: 999 });
    }
    for limited in [EpochRequest::Begin, EpochRequest::Settle { store: Some(1) }] {
        assert!(matches!(asks(limited), Err(KeeperDenial::RateLimited { .. })));
    }
    asks(EpochRequest::Committed { number: 2 }).unwrap();
    assert!(matches!(asks(EpochRequest::Abort), Err(KeeperDenial::RateLimited { .. })), "nothing is begun");
    let standing = core.ends();
    let log = bench.log();
    let report = verify(&log, &standing).unwrap();
    // 1500 requests; what is refused and what is re-wrapped is summed up, what writes nothing has one limit.
    assert!(report.lines < 300, "{}", report.lines);
    assert_eq!(of_event(&log, "epoch", "what").iter().filter(|what| *what == "committed").count(), 1 + failures(&log));
}

/// Lines of a move's end that was none.
fn failures(log: &str) -> usize {
    log.lines().filter(|line| line.contains(r#""what":"committed""#) && line.contains(r#""failure":"#)).count()
}

#[test]
fn the_public_key_is_told_at_the_console_past_the_core() {
    let bench = Bench::provisioned();
    let standing = Core::of(&bench).ends();
    let told = Command::new(env!("CARGO_BIN_EXE_salama"))
        .args(["keys", "verify", "1", "--tpm", &bench.tpm.tcti(), "--keys"])
        .arg(bench.keys())
        .arg("--lines")
        .arg(bench.base().join("key-lines"))
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&told.stdout);
    assert!(said.contains(&hex(&standing.log_key)), "{said} {}", String::from_utf8_lossy(&told.stderr));
}
