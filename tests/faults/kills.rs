//! `kill -9` at any moment: what was acknowledged is there, opens, and finishes; what was not is there whole or not at all.
//!
//! Five hundred lives of the real daemon and the real keeper on one software TPM and one store. In each, clients upload, erase and
//! watch until the daemon is killed at a moment that the seed chose: while it starts, between two pieces of a body, after the last
//! byte, at the answer, within a job, within an erasure. `SALAMA_SEED` repeats a run's choices; the kernel's scheduling stays its own.
//!
//! A choice is not yet a moment: the daemon may be quicker than the killer. So it is counted what a kill met ([`Met`]), as clients saw
//! it, and each kind must have been met. A connection that breaks before the daemon was killed is a failure of its own.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::os::unix::process::ExitStatusExt as _;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::chance::{Chance, asked};
use crate::office::Office;
use crate::runner::Test;
use crate::stand_in::{SLOW, digest_of};
use crate::wire::{Caller, Wire};

pub const TESTS: &[Test] = &[("no_kill_loses_what_was_acknowledged", no_kill_loses_what_was_acknowledged)];

/// At least; `SALAMA_KILLS` asks for more.
const KILLS: u32 = 500;
/// After so many the daemon may work everything off, and is checked: fewer than a call's attempts, which each of them may cost one.
const CHECK_EVERY: u32 = 8;
/// Longest that a moment may keep a life waiting.
const LIFE: Duration = Duration::from_secs(60);
/// Calls that are opened for reading in one life of the daemon: the keeper allows 600 a minute, at once after its start.
const READS: usize = 500;
/// Latest moment of a kill behind an upload's last byte or an erasure's request: per mille of the time that the answer took before.
const LATEST: u64 = 3000;
/// Of so many kills one at least must have met each kind of moment.
const RAREST: u32 = 100;
/// Clients of a life.
const CLIENTS: usize = 2;
/// One call may meet many kills while it runs; a test of the limit of attempts is elsewhere.
const SETTINGS: &str = "[jobs]\nattempts = 10\nconcurrent = 2\nthreads = 1\n[limits]\nuploads_per_minute = 6000\nreads_per_minute = 60000\nchanges_per_minute = 6000\n";

/// When a life ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Moment {
    /// So many microseconds after it was started.
    Starting(u64),
    /// So many after it was ready.
    Serving(u64),
    /// When so many per mille of a body were sent.
    InBody(u64),
    /// So many per mille of the time that an answer takes after the last byte of a body.
    AfterBody(u64),
    /// When a call was acknowledged.
    Acknowledged,
    /// So many microseconds after a call was seen to run.
    InJob(u64),
    /// So many per mille of the time that an erasure takes after it was asked for.
    Erasing(u64),
}

impl Moment {
    fn choose(chance: &mut Chance, start: Duration) -> Self {
        let start = u64::try_from(start.as_micros()).unwrap();
        match chance.below(100) {
            0..10 => Self::Starting(chance.below(start)),
            10..25 => Self::Serving(chance.below(60_000)),
            25..45 => Self::InBody(chance.below(1000)),
            45..60 => Self::AfterBody(chance.below(LATEST)),
            60..65 => Self::Acknowledged,
            65..90 => Self::InJob(chance.below(30_000)),
            _ => Self::Erasing(chance.below(LATEST)),
        }
    }
}

/// What a kill met, as far as a client can know.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Met {
    /// The daemon had not said that it is ready.
    Start,
    /// It was ready, and clients did whatever they did.
    Service,
    /// A part of a body was sent.
    Body,
    /// All of a body was sent, and no answer to it ever came.
    NoAnswer,
    /// The answer to an upload was on its way or just read.
    Answer,
    /// Between the moment when a call was seen running and 30 ms later; whether it still ran is told by [`Ledger::begun_again`].
    Job,
    /// An erasure was asked for, and no answer to it ever came.
    Erasure,
    /// The answer to an erasure was on its way or just read.
    Erased,
}

impl Met {
    /// Those that a run must have met.
    const ALL: [Self; 8] = [Self::Start, Self::Service, Self::Body, Self::NoAnswer, Self::Answer, Self::Job, Self::Erasure, Self::Erased];
}

/// What the clients know.
#[derive(Default)]
struct Ledger {
    /// Calls that were acknowledged and not asked to be erased: id, digest of the recording.
    acknowledged: BTreeMap<String, String>,
    /// Of these, whose transcript was read and right.
    read: BTreeSet<String>,
    /// Whole bodies without an answer: digests. The call may be there or not.
    unanswered: BTreeSet<String>,
    /// Erasures without an answer: the call is there whole, or not at all.
    doubtful: BTreeMap<String, String>,
    /// Erasures that were acknowledged.
    erased: BTreeSet<String>,
    /// Bodies that were cut: digests of what would have been.
    cut: BTreeSet<String>,
    /// Tries of calls beyond their first: each is a job that a kill broke off.
    begun_again: u64,
    /// From the last byte of a body to its answer.
    answer: Pace,
    /// From the request of an erasure to its answer.
    erasure: Pace,
}

/// How long something takes on this machine: a moment within it is chosen as a share of it, so that a fast disk is met as often as a slow one.
#[derive(Clone, Copy, Default)]
struct Pace(Duration);

impl Pace {
    /// The newest weighs as much as all before it.
    fn took(&mut self, time: Duration) {
        self.0 = if self.0.is_zero() { time } else { (self.0 + time) / 2 };
    }

    fn micros(self, per_mille: u64) -> u64 {
        u64::try_from(self.0.as_micros()).unwrap() * per_mille / 1000
    }
}

/// A running daemon and its killer.
struct Life<'a> {
    address: &'a str,
    pid: Pid,
    moment: Moment,
    ledger: &'a Mutex<Ledger>,
    recorder: &'a Caller,
    supervisor: &'a Caller,
    /// What the kill met, once there was one.
    met: Mutex<Option<Met>>,
    /// Connections that broke although nobody had killed the daemon.
    broken: Mutex<Vec<io::Error>>,
    /// When it must have been killed.
    until: Instant,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn pause(micros: u64) {
    std::thread::sleep(Duration::from_micros(micros));
}

impl Life<'_> {
    /// Once in a life.
    fn kill(&self, meets: Met) {
        let mut met = locked(&self.met);
        if met.is_none() {
            *met = Some(meets);
            // The daemon was not waited for yet: the number is its own.
            kill(self.pid, Signal::SIGKILL).unwrap();
        }
    }

    /// What came after the kill says what it met.
    fn met(&self, before: Met, seen: Met) {
        let mut met = locked(&self.met);
        if *met == Some(before) {
            *met = Some(seen);
        }
    }

    /// A connection broke: because of the kill, or it is a failure, which ends the life.
    fn broke(&self, error: io::Error) {
        if locked(&self.met).is_none() {
            locked(&self.broken).push(error);
            self.kill(Met::Service);
        }
    }

    fn must_still_wait(&self) {
        assert!(Instant::now() < self.until, "{:?} did not come about within {LIFE:?}", self.moment);
    }

    fn ledger(&self) -> MutexGuard<'_, Ledger> {
        locked(self.ledger)
    }

    /// Uploads and erases until the connection breaks. The first client brings the moment about.
    fn client(&self, mut chance: Chance, first: bool) -> io::Result<()> {
        let mut wire = self.recorder.dial(self.address)?;
        loop {
            self.must_still_wait();
            let id = self.upload(&mut wire, &mut chance, first)?;
            match self.moment {
                Moment::Acknowledged if first => self.kill(Met::Answer),
                Moment::InJob(micros) if first => {
                    let state = self.begun(&mut wire, &id)?;
                    pause(micros);
                    self.kill(if state == "running" { Met::Job } else { Met::Service });
                }
                Moment::Erasing(_) if first => self.erase(&id, true)?,
                _ if chance.below(4) == 0 => self.erase(&id, false)?,
                _ => {}
            }
        }
    }

    /// The first state of a call behind the queue.
    fn begun(&self, wire: &mut Wire, id: &str) -> io::Result<Value> {
        loop {
            self.must_still_wait();
            let state = wire.get(&format!("/api/v1/calls/{id}"))?.json()["state"].take();
            if state != "queued" {
                return Ok(state);
            }
        }
    }

    fn upload(&self, wire: &mut Wire, chance: &mut Chance, first: bool) -> io::Result<String> {
        let recording = recording(chance, self.moment, first);
        let (length, digest) = (recording.len(), digest_of(&recording));
        let pace = {
            let mut ledger = self.ledger();
            ledger.cut.insert(digest.clone());
            ledger.answer
        };
        let mut sent_all = Instant::now();
        let reply = wire.post(&recording, |sent| {
            if let (Moment::InBody(share), true) = (self.moment, first)
                && sent * 1000 >= length * usize::try_from(share).unwrap()
            {
                self.kill(if sent < length { Met::Body } else { Met::NoAnswer });
            }
            if sent == length {
                let mut ledger = self.ledger();
                ledger.cut.remove(&digest);
                ledger.unanswered.insert(digest.clone());
                drop(ledger);
                sent_all = Instant::now();
                if let (Moment::AfterBody(share), true) = (self.moment, first) {
                    pause(pace.micros(share));
                    self.kill(Met::NoAnswer);
                }
            }
        })?;
        if first {
            self.met(Met::NoAnswer, Met::Answer);
        }
        assert_eq!(reply.status, 202, "{reply:?}");
        let id = reply.json()["id"].as_str().unwrap().to_owned();
        let mut ledger = self.ledger();
        ledger.unanswered.remove(&digest);
        ledger.acknowledged.insert(id.clone(), digest);
        ledger.answer.took(sent_all.elapsed());
        Ok(id)
    }

    fn erase(&self, id: &str, to_the_end: bool) -> io::Result<()> {
        let mut wire = self.supervisor.dial(self.address)?;
        let digest = self.ledger().acknowledged.remove(id).unwrap();
        self.ledger().doubtful.insert(id.to_owned(), digest);
        let (pace, asked) = (self.ledger().erasure, Instant::now());
        let reply = std::thread::scope(|scope| {
            if let (Moment::Erasing(share), true) = (self.moment, to_the_end) {
                scope.spawn(move || {
                    pause(pace.micros(share));
                    self.kill(Met::Erasure);
                });
            }
            wire.without_body("DELETE", &format!("/api/v1/calls/{id}"))
        })?;
        if to_the_end {
            self.met(Met::Erasure, Met::Erased);
        }
        assert_eq!(reply.status, 204, "{reply:?}");
        let mut ledger = self.ledger();
        ledger.doubtful.remove(id);
        ledger.erased.insert(id.to_owned());
        ledger.erasure.took(asked.elapsed());
        Ok(())
    }
}

/// Up to half a megabyte that was never there before; some take the child a while.
fn recording(chance: &mut Chance, moment: Moment, first: bool) -> Vec<u8> {
    let size = if first && matches!(moment, Moment::InBody(_)) { 16 + chance.below(4) } else { chance.below(16) };
    let length = (1_u64 << size) + chance.below(1000);
    let slow = if first && matches!(moment, Moment::InJob(_)) { 20 } else { chance.below(4) * chance.below(5) };
    let mut recording = format!("{SLOW}{slow}\n{:016x}", chance.next()).into_bytes();
    let filler = chance.next().to_le_bytes();
    recording.extend(filler.iter().cycle().take(usize::try_from(length).unwrap()));
    recording
}

/// Lives once and is killed; what the kill met.
fn live(office: &mut Office, callers: &[Caller; 2], ledger: &Mutex<Ledger>, moment: Moment, chance: &mut Chance) -> Met {
    office.appliance.spawn();
    let pid = Pid::from_raw(i32::try_from(office.appliance.pid()).unwrap());
    let met = if let Moment::Starting(micros) = moment {
        pause(micros);
        kill(pid, Signal::SIGKILL).unwrap();
        if office.appliance.has_been_ready() { Met::Service } else { Met::Start }
    } else {
        office.appliance.until_ready();
        let [recorder, supervisor] = callers;
        let (met, broken, until) = (Mutex::default(), Mutex::default(), Instant::now() + LIFE);
        let life = Life { address: office.appliance.address(), pid, moment, ledger, recorder, supervisor, met, broken, until };
        std::thread::scope(|scope| {
            for number in 0..CLIENTS {
                let (life, chance) = (&life, Chance(chance.next()));
                scope.spawn(move || {
                    let Err(error) = life.client(chance, number == 0) else { return };
                    life.broke(error);
                });
            }
            if let Moment::Serving(micros) = moment {
                pause(micros);
                life.kill(Met::Service);
            }
        });
        let broken = life.broken.into_inner().unwrap();
        assert!(broken.is_empty(), "{moment:?}: nobody had killed the daemon: {broken:?}\n{}", office.appliance.log());
        life.met.into_inner().unwrap().expect("the clients end when the daemon was killed")
    };
    assert_eq!(office.appliance.ended().signal(), Some(9), "{moment:?}: it did not end by the kill");
    office.until_all_are_gone();
    met
}

/// Everything is worked off; then each call is one that a client knows, whole and readable, and nothing else is left.
fn check(office: &mut Office, caller: &Caller, ledger: &Mutex<Ledger>) {
    office.appliance.run();
    let mut wire = caller.dial(office.appliance.address()).unwrap();
    let mut ledger = ledger.lock().unwrap();
    let listed = listed(&mut wire);
    let Ledger { acknowledged, read, unanswered, doubtful, erased, cut, begun_again, .. } = &mut *ledger;
    for id in acknowledged.keys() {
        assert!(listed.contains(id), "the acknowledged call {id} is lost");
    }
    for id in erased.iter() {
        assert!(!listed.contains(id), "the erased call {id} is back");
    }
    for id in &listed {
        if read.contains(id) {
            continue;
        }
        let call = wire.finished(id).unwrap();
        assert_eq!(call["state"], "done", "{call}");
        *begun_again += call["attempts"].as_u64().unwrap().saturating_sub(1);
        let opened = opened(&mut wire, id);
        assert!(!cut.contains(&opened), "a recording that was cut is there as a whole: {call}");
        if let Some(uploaded) = acknowledged.get(id).or(doubtful.get(id)) {
            assert_eq!(&opened, uploaded, "another recording than was uploaded: {call}");
        } else {
            assert!(unanswered.remove(&opened), "nobody uploaded this, or it is there twice: {call}");
            acknowledged.insert(id.clone(), opened);
        }
        read.insert(id.clone());
    }
    // What was in doubt is settled.
    for (id, digest) in std::mem::take(doubtful) {
        if listed.contains(&id) {
            acknowledged.insert(id, digest);
        } else {
            erased.insert(id);
        }
    }
    unanswered.clear();
    assert_eq!(files(office), listed.iter().map(|id| format!("{id}.seg")).collect(), "the sealed recordings are those of the calls");
    assert!(office.appliance.stop().success(), "{}", office.appliance.log());
}

/// Every call of the ledger once more, after all that came later: listed, done, and the very recording; and no other call.
fn read_all_again(office: &mut Office, caller: &Caller, acknowledged: &BTreeMap<String, String>) {
    let calls: Vec<(&String, &String)> = acknowledged.iter().collect();
    for part in calls.chunks(READS) {
        office.appliance.run();
        let mut wire = caller.dial(office.appliance.address()).unwrap();
        assert_eq!(listed(&mut wire), acknowledged.keys().cloned().collect(), "the calls that are there are those that were acknowledged");
        for (id, digest) in part {
            assert_eq!(&&opened(&mut wire, id), digest, "another recording than was uploaded: {id}");
        }
        assert!(office.appliance.stop().success(), "{}", office.appliance.log());
    }
}

/// The digest of a call's recording, which its child computed of what was opened.
fn opened(wire: &mut Wire, id: &str) -> String {
    let transcript = wire.get(&format!("/api/v1/calls/{id}/transcript?format=json")).unwrap();
    assert_eq!(transcript.status, 200, "{id}: {transcript:?}");
    transcript.json()["utterances"][0]["words"][0]["text"].as_str().unwrap().to_owned()
}

/// All calls.
fn listed(wire: &mut Wire) -> BTreeSet<String> {
    let (mut found, mut next) = (BTreeSet::new(), Some(String::new()));
    while let Some(cursor) = next {
        let page = wire.get(&format!("/api/v1/calls?limit=200{cursor}")).unwrap().json();
        found.extend(page["calls"].as_array().unwrap().iter().map(|call| call["id"].as_str().unwrap().to_owned()));
        next = page["next"].as_str().map(|cursor| format!("&cursor={cursor}"));
    }
    found
}

/// What lies beside the store.
fn files(office: &Office) -> BTreeSet<String> {
    let names = |folder| std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let state: BTreeSet<String> = names(office.appliance.state()).collect();
    assert_eq!(state, ["audio", "ballast", "store.redb"].map(String::from).into());
    names(office.appliance.state().join("audio")).collect()
}

fn no_kill_loses_what_was_acknowledged() {
    let kills = asked("SALAMA_KILLS").map_or(KILLS, |kills| u32::try_from(kills).unwrap());
    let (mut chance, began) = (Chance::seeded(), Instant::now());
    let mut office = Office::provision(SETTINGS);
    let appliance = &office.appliance;
    let callers = ["recorder", "supervisor"].map(|role| Caller::new(&appliance.path("ca.pem"), &appliance.identity(role, "kill")));
    let ledger = Mutex::new(Ledger::default());
    let started = Instant::now();
    office.appliance.run();
    let start = started.elapsed();
    assert!(office.appliance.stop().success());

    let mut met: BTreeMap<Met, u32> = BTreeMap::new();
    for number in 1..=kills {
        let moment = Moment::choose(&mut chance, start);
        *met.entry(live(&mut office, &callers, &ledger, moment, &mut chance)).or_default() += 1;
        if number % CHECK_EVERY == 0 || number == kills {
            check(&mut office, &callers[1], &ledger);
        }
    }

    let ledger = ledger.into_inner().unwrap();
    println!("  {kills} kills in {:?} (start to ready: {start:?}), by what they met: {met:?}", began.elapsed());
    println!("  {} jobs were broken off and begun again, {} uploads cut", ledger.begun_again, ledger.cut.len());
    println!("  an answer takes {:?}, an erasure {:?}", ledger.answer.0, ledger.erasure.0);
    read_all_again(&mut office, &callers[1], &ledger.acknowledged);
    println!("  {} calls read back at the end, {} erased; {:?} in all", ledger.acknowledged.len(), ledger.erased.len(), began.elapsed());
    for kind in Met::ALL {
        assert!(met.get(&kind).is_some_and(|times| *times >= kills / RAREST), "too few kills met {kind:?}: {met:?}");
    }
    let enough = |number: usize, share: u32| number >= usize::try_from(kills / share).unwrap();
    assert!(enough(ledger.acknowledged.len(), 2) && enough(ledger.erased.len(), 50) && enough(ledger.cut.len(), 50));
    assert!(ledger.begun_again >= u64::from(kills / 20), "too few kills met a job that ran: {}", ledger.begun_again);
}
