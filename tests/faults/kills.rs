//! `kill -9` at any moment: what was acknowledged is there, opens, and finishes; what was not is there whole or not at all.
//!
//! Five hundred lives of the real daemon and the real keeper on one software TPM and one store. In each, clients upload, erase and
//! watch until the daemon is killed at a moment that the seed chose: while it starts, between two pieces of a body, after the last
//! byte, at the answer, within a job, within an erasure. `SALAMA_SEED` repeats a run's choices; the kernel's scheduling stays its own.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::chance::{Chance, asked};
use crate::office::Office;
use crate::runner::Test;
use crate::stand_in::{SLOW, digest_of};
use crate::wire::{Caller, Wire};

pub const TESTS: &[Test] = &[("no_kill_loses_what_was_acknowledged", no_kill_loses_what_was_acknowledged)];

/// At least; `SALAMA_KILLS` asks for more.
const KILLS: u32 = 500;
/// After so many the daemon may work everything off, and is checked.
const CHECK_EVERY: u32 = 25;
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
    /// So many microseconds after the last byte of a body.
    AfterBody(u64),
    /// When a call was acknowledged.
    Acknowledged,
    /// So many microseconds after a call was seen to run.
    InJob(u64),
    /// So many microseconds after an erasure was asked for.
    Erasing(u64),
}

impl Moment {
    fn choose(chance: &mut Chance, start: Duration) -> Self {
        let start = u64::try_from(start.as_micros()).unwrap();
        match chance.below(100) {
            0..10 => Self::Starting(chance.below(start)),
            10..25 => Self::Serving(chance.below(60_000)),
            25..45 => Self::InBody(chance.below(1000)),
            45..60 => Self::AfterBody(chance.below(15_000)),
            60..65 => Self::Acknowledged,
            65..90 => Self::InJob(chance.below(30_000)),
            _ => Self::Erasing(chance.below(40_000)),
        }
    }

    const fn word(self) -> &'static str {
        match self {
            Self::Starting(_) => "while it started",
            Self::Serving(_) => "at any time",
            Self::InBody(_) => "within a body",
            Self::AfterBody(_) => "between the last byte and the answer",
            Self::Acknowledged => "at an answer",
            Self::InJob(_) => "within a job",
            Self::Erasing(_) => "within an erasure",
        }
    }
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
}

/// A running daemon and its killer.
struct Life<'a> {
    address: &'a str,
    pid: Pid,
    moment: Moment,
    ledger: &'a Mutex<Ledger>,
    recorder: &'a Caller,
    supervisor: &'a Caller,
}

fn pause(micros: u64) {
    std::thread::sleep(Duration::from_micros(micros));
}

impl Life<'_> {
    fn kill(&self) {
        // The daemon was not waited for yet: the number is its own.
        kill(self.pid, Signal::SIGKILL).unwrap();
    }

    fn ledger(&self) -> std::sync::MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Uploads and erases until the connection breaks. The first client brings the moment about.
    fn client(&self, mut chance: Chance, first: bool) -> io::Result<()> {
        let mut wire = self.recorder.dial(self.address)?;
        loop {
            let id = self.upload(&mut wire, &mut chance, first)?;
            match self.moment {
                Moment::Acknowledged if first => self.kill(),
                Moment::InJob(micros) if first => {
                    while wire.get(&format!("/api/v1/calls/{id}"))?.json()["state"] == "queued" {}
                    pause(micros);
                    self.kill();
                }
                Moment::Erasing(_) if first => self.erase(&id, true)?,
                _ if chance.below(4) == 0 => self.erase(&id, false)?,
                _ => {}
            }
        }
    }

    fn upload(&self, wire: &mut Wire, chance: &mut Chance, first: bool) -> io::Result<String> {
        let recording = recording(chance, self.moment, first);
        let (length, digest) = (recording.len(), digest_of(&recording));
        self.ledger().cut.insert(digest.clone());
        let reply = wire.post(&recording, |sent| {
            if let (Moment::InBody(share), true) = (self.moment, first)
                && sent * 1000 >= length * usize::try_from(share).unwrap()
            {
                self.kill();
            }
            if sent == length {
                let mut ledger = self.ledger();
                ledger.cut.remove(&digest);
                ledger.unanswered.insert(digest.clone());
                drop(ledger);
                if let (Moment::AfterBody(micros), true) = (self.moment, first) {
                    pause(micros);
                    self.kill();
                }
            }
        })?;
        assert_eq!(reply.status, 202, "{reply:?}");
        let id = reply.json()["id"].as_str().unwrap().to_owned();
        let mut ledger = self.ledger();
        ledger.unanswered.remove(&digest);
        ledger.acknowledged.insert(id.clone(), digest);
        Ok(id)
    }

    fn erase(&self, id: &str, to_the_end: bool) -> io::Result<()> {
        let mut wire = self.supervisor.dial(self.address)?;
        let digest = self.ledger().acknowledged.remove(id).unwrap();
        self.ledger().doubtful.insert(id.to_owned(), digest);
        let reply = std::thread::scope(|scope| {
            if let (Moment::Erasing(micros), true) = (self.moment, to_the_end) {
                scope.spawn(move || {
                    pause(micros);
                    self.kill();
                });
            }
            wire.without_body("DELETE", &format!("/api/v1/calls/{id}"))
        })?;
        assert_eq!(reply.status, 204, "{reply:?}");
        let mut ledger = self.ledger();
        ledger.doubtful.remove(id);
        ledger.erased.insert(id.to_owned());
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

/// Lives once and is killed.
fn live(office: &mut Office, callers: &[Caller; 2], ledger: &Mutex<Ledger>, moment: Moment, chance: &mut Chance) {
    office.appliance.spawn();
    let pid = Pid::from_raw(i32::try_from(office.appliance.pid()).unwrap());
    if let Moment::Starting(micros) = moment {
        pause(micros);
        kill(pid, Signal::SIGKILL).unwrap();
    } else {
        office.appliance.until_ready();
        let [recorder, supervisor] = callers;
        let life = Life { address: office.appliance.address(), pid, moment, ledger, recorder, supervisor };
        std::thread::scope(|scope| {
            for number in 0..CLIENTS {
                let (life, chance) = (&life, Chance(chance.next()));
                scope.spawn(move || {
                    // Its connection breaks when the daemon dies; whatever else goes wrong is a panic.
                    let _broken = life.client(chance, number == 0);
                    if number == 0 {
                        life.kill();
                    }
                });
            }
            if let Moment::Serving(micros) = moment {
                pause(micros);
                life.kill();
            }
        });
    }
    office.appliance.ended();
    office.until_all_are_gone();
}

/// Everything is worked off; then each call is one that a client knows, whole and readable, and nothing else is left.
fn check(office: &mut Office, caller: &Caller, ledger: &Mutex<Ledger>) {
    office.appliance.run();
    let mut wire = caller.dial(office.appliance.address()).unwrap();
    let mut ledger = ledger.lock().unwrap();
    let listed = listed(&mut wire);
    let Ledger { acknowledged, read, unanswered, doubtful, erased, cut } = &mut *ledger;
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
        let transcript = wire.get(&format!("/api/v1/calls/{id}/transcript?format=json")).unwrap();
        assert_eq!(transcript.status, 200, "{transcript:?}");
        let opened = transcript.json()["utterances"][0]["words"][0]["text"].as_str().unwrap().to_owned();
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
    office.set("[keeper]", "unwraps_per_minute = 600");
    let appliance = &office.appliance;
    let callers = ["recorder", "supervisor"].map(|role| Caller::new(&appliance.path("ca.pem"), &appliance.identity(role, "kill")));
    let ledger = Mutex::new(Ledger::default());
    let started = Instant::now();
    office.appliance.run();
    let start = started.elapsed();
    assert!(office.appliance.stop().success());

    let mut moments: BTreeMap<&str, u32> = BTreeMap::new();
    for number in 1..=kills {
        let moment = Moment::choose(&mut chance, start);
        *moments.entry(moment.word()).or_default() += 1;
        live(&mut office, &callers, &ledger, moment, &mut chance);
        if number % CHECK_EVERY == 0 {
            check(&mut office, &callers[1], &ledger);
        }
    }

    let ledger = ledger.into_inner().unwrap();
    println!("  {kills} kills in {:?} (start to ready: {start:?}): {moments:?}", began.elapsed());
    println!("  {} calls kept and read back, {} erased, {} uploads cut", ledger.acknowledged.len(), ledger.erased.len(), ledger.cut.len());
    assert_eq!(moments.values().sum::<u32>(), kills);
    let enough = |number: usize, share: u32| number >= usize::try_from(kills / share).unwrap();
    assert!(enough(ledger.acknowledged.len(), 2) && enough(ledger.erased.len(), 50) && enough(ledger.cut.len(), 50));
}
