//! The long run: two hundred calls through the real worker while things break, and then an account of what is left.
//! `make soak` starts it; it is no test of `make test`.
//!
//! Uploads are cut, calls cancelled and erased, children killed; through the first half the daemon is killed now and then. The second
//! half is one life of the daemon, so that its memory and descriptors at the end can be held against those at its start.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::chance::Chance;
use crate::office::resident;
use crate::support::appliance::{Appliance, Settings};
use crate::support::{audio, scan};
use crate::wire::{Caller, Wire};

const CALLS: usize = 200;
/// The daemon is killed after so many calls of the first half.
const KILL_EVERY: usize = 20;
/// Calls that are not awaited yet.
const OUTSTANDING: usize = 5;
const LIMIT: Duration = Duration::from_secs(14 * 60);
/// What a process may grow by over a hundred calls, KiB: allocators keep what they had.
const GROWTH: [(&str, u64); 3] = [("salamad", 24 * 1024), ("salama-keeper", 4 * 1024), ("salama-worker", 24 * 1024)];
const SETTINGS: &str = "[jobs]\nattempts = 10\nconcurrent = 2\nthreads = 1\n[limits]\nuploads_per_minute = 6000\nreads_per_minute = 60000\nchanges_per_minute = 6000\n";

/// What was asked for a call after it was acknowledged.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Wish {
    Keep,
    Cancel,
    Erase,
}

struct Soak {
    appliance: Appliance,
    counsellor: Caller,
    supervisor: Caller,
    clips: Vec<Vec<u8>>,
    chance: Chance,
    outstanding: VecDeque<(String, Wish)>,
    /// Events, for the summary.
    seen: BTreeMap<&'static str, u64>,
    /// What must not have happened.
    wrong: Vec<String>,
    kept: BTreeSet<String>,
}

/// Resident KiB and open descriptors of each process.
type Sizes = Vec<(&'static str, u64, usize)>;

pub fn run() -> ExitCode {
    let began = Instant::now();
    let mut soak = Soak::new();
    let mut start = Sizes::new();
    for number in 0..CALLS {
        if number < CALLS / 2 && number % KILL_EVERY == KILL_EVERY - 1 {
            soak.kill_daemon();
        }
        if number == CALLS / 2 {
            soak.settle(0);
            soak.restart();
        }
        soak.call();
        if number == CALLS / 2 + OUTSTANDING {
            soak.settle(0);
            start = soak.sizes();
        }
        if began.elapsed() > LIMIT {
            soak.wrong.push(format!("only {number} calls in {LIMIT:?}"));
            break;
        }
    }
    soak.settle(0);
    soak.account(&start, began.elapsed())
}

impl Soak {
    fn new() -> Self {
        let chance = Chance::seeded();
        let settings = Settings { more: SETTINGS.to_owned(), ..Settings::default() };
        let appliance = Appliance::start_with(&settings);
        let caller = |role| Caller::new(&appliance.path("ca.pem"), &appliance.identity(role, "soak"));
        let (counsellor, supervisor) = (caller("counsellor"), caller("supervisor"));
        let clips = clips(&appliance).iter().map(|clip| std::fs::read(clip).unwrap()).collect();
        let (outstanding, seen, wrong, kept) = (VecDeque::new(), BTreeMap::new(), Vec::new(), BTreeSet::new());
        Self { appliance, counsellor, supervisor, clips, chance, outstanding, seen, wrong, kept }
    }

    fn note(&mut self, what: &'static str) {
        *self.seen.entry(what).or_default() += 1;
    }

    fn must(&mut self, holds: bool, else_say: impl FnOnce() -> String) {
        if !holds {
            self.wrong.push(else_say());
        }
    }

    fn counsellor(&self) -> Wire {
        self.counsellor.dial(self.appliance.address()).unwrap()
    }

    /// One acknowledged call, with what goes wrong around it.
    fn call(&mut self) {
        let clip = usize::try_from(self.chance.below(u64::try_from(self.clips.len()).unwrap())).unwrap();
        if self.chance.below(8) == 0 {
            self.cut(clip);
        }
        let reply = self.counsellor().post(&self.clips[clip], |_| ()).unwrap();
        assert_eq!(reply.status, 202, "{reply:?}");
        self.note("calls acknowledged");
        let id = reply.json()["id"].as_str().unwrap().to_owned();
        let wish = match self.chance.below(16) {
            0 => Wish::Cancel,
            1 => Wish::Erase,
            _ => Wish::Keep,
        };
        self.outstanding.push_back((id.clone(), wish));
        if self.chance.below(6) == 0 {
            self.kill_child();
        }
        match wish {
            Wish::Keep => {}
            Wish::Cancel => {
                let reply = self.counsellor().without_body("POST", &format!("/api/v1/calls/{id}/cancel")).unwrap();
                self.must(reply.status == 200, || format!("cancel: {reply:?}"));
            }
            Wish::Erase => {
                let erased = self.supervisor.dial(self.appliance.address()).unwrap().without_body("DELETE", &format!("/api/v1/calls/{id}"));
                self.must(erased.as_ref().is_ok_and(|reply| reply.status == 204), || format!("erase: {erased:?}"));
            }
        }
        self.settle(OUTSTANDING);
    }

    /// An upload whose client goes away in the middle.
    fn cut(&mut self, clip: usize) {
        let mut wire = self.counsellor();
        wire.begin(self.clips[clip].len(), &self.clips[clip][..self.clips[clip].len() / 2]).unwrap();
        self.note("uploads cut");
    }

    fn kill_child(&mut self) {
        let [worker] = Appliance::children_of(self.appliance.pid(), "salama-worker")[..] else { return };
        if let Some(child) = Appliance::children_of(worker, "salama-worker").first() {
            // It may have ended by itself meanwhile.
            let killed = kill(Pid::from_raw(i32::try_from(*child).unwrap()), Signal::SIGKILL).is_ok();
            if killed {
                self.note("children killed");
            }
        }
    }

    fn kill_daemon(&mut self) {
        self.appliance.kill();
        self.appliance.run();
        self.note("daemons killed");
    }

    fn restart(&mut self) {
        let ended = self.appliance.stop();
        self.must(ended.success(), || format!("the daemon ended with {ended}"));
        self.appliance.run();
    }

    /// Waits for the oldest calls until no more than `rest` are outstanding, and judges each.
    fn settle(&mut self, rest: usize) {
        while self.outstanding.len() > rest {
            let (id, wish) = self.outstanding.pop_front().unwrap();
            let mut wire = self.counsellor();
            if wish == Wish::Erase {
                let status = wire.get(&format!("/api/v1/calls/{id}")).unwrap().status;
                self.must(status == 404, || format!("the erased call {id}: {status}"));
                self.note("calls erased");
                continue;
            }
            let call = wire.finished(&id).unwrap();
            self.kept.insert(id.clone());
            self.judge(&mut wire, &id, wish, &call);
        }
    }

    fn judge(&mut self, wire: &mut Wire, id: &str, wish: Wish, call: &Value) {
        match (call["state"].as_str().unwrap_or("lost"), call["failure"].as_str()) {
            ("done", None) => {
                let transcript = wire.get(&format!("/api/v1/calls/{id}/transcript?format=json")).unwrap();
                let heard = transcript.status == 200 && transcript.json()["utterances"].as_array().is_some_and(|all| !all.is_empty());
                self.must(heard, || format!("the transcript of {id}: {}", transcript.status));
                self.note("calls done");
            }
            ("failed", Some("worker_died")) => self.note("calls that died with their child"),
            ("cancelled", None) if wish == Wish::Cancel => self.note("calls cancelled"),
            _ => self.wrong.push(format!("an acknowledged call ended otherwise: {call}")),
        }
    }

    fn sizes(&self) -> Sizes {
        GROWTH
            .iter()
            .map(|(name, _)| {
                let pid = if *name == "salamad" { self.appliance.pid() } else { Appliance::children_of(self.appliance.pid(), name)[0] };
                (*name, resident(pid), std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count())
            })
            .collect()
    }

    /// What is left, and whether it may be.
    fn account(mut self, start: &Sizes, took: Duration) -> ExitCode {
        let died = self.seen.get("calls that died with their child").copied().unwrap_or(0);
        let killed = self.seen.get("children killed").copied().unwrap_or(0);
        self.must(died <= killed, || format!("{died} calls died with their child, but only {killed} children were killed"));
        let files: BTreeSet<String> = names(&self.appliance.state().join("audio"));
        let kept = self.kept.iter().map(|id| format!("{id}.seg")).collect();
        self.must(files == kept, || "the sealed recordings are not those of the calls".to_owned());
        // Connections that the last clients closed are gone a moment later.
        let settled = Instant::now() + Duration::from_secs(10);
        let mut end = self.sizes();
        while end.iter().zip(start).any(|(now, then)| now.2 > then.2) && Instant::now() < settled {
            std::thread::yield_now();
            end = self.sizes();
        }
        println!("\n  soak: {took:.0?}, {} of at most {LIMIT:?}", if self.wrong.is_empty() { "well within" } else { "FAILED within" });
        for (what, number) in &self.seen {
            println!("  {number:>5} {what}");
        }
        println!("  process          RSS start    RSS end     descriptors start, end");
        for (((name, before, open_before), (_, after, open_after)), (_, growth)) in start.iter().zip(&end).zip(GROWTH) {
            println!("  {name:<14} {before:>8} KiB {after:>8} KiB   {open_before:>4} {open_after:>4}");
            let within = *after <= before + growth && open_after <= open_before;
            self.must(within, || {
                format!("{name} grew: {before} to {after} KiB (bound {growth}), {open_before} to {open_after} descriptors")
            });
        }
        let worker = Appliance::children_of(self.appliance.pid(), "salama-worker")[0];
        let children = Appliance::children_of(worker, "salama-worker");
        self.must(children.is_empty(), || format!("children are left: {children:?}"));
        let size = |file: &PathBuf| std::fs::metadata(file).unwrap().len();
        let sealed: u64 = scan::files_below(&self.appliance.state().join("audio")).iter().map(size).sum();
        println!("  store {} KiB, sealed recordings {} KiB", size(&self.appliance.state().join("store.redb")) / 1024, sealed / 1024);
        let ended = self.appliance.stop();
        self.must(ended.success(), || format!("the daemon ended with {ended}"));
        for wrong in &self.wrong {
            println!("  FAILED: {wrong}");
        }
        println!("  failures: {}", self.wrong.len());
        if self.wrong.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }
}

fn names(folder: &Path) -> BTreeSet<String> {
    std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

/// A few seconds of speech in the formats that calls come in.
fn clips(appliance: &Appliance) -> Vec<PathBuf> {
    let formats: [(&str, &[&str]); 5] = [
        ("wav", &["-t", "3", "-ar", "8000"]),
        ("flac", &["-t", "4"]),
        ("mp3", &["-t", "3", "-b:a", "32k"]),
        ("m4a", &["-t", "2"]),
        ("ogg", &["-t", "3", "-c:a", "libvorbis"]),
    ];
    let made = formats.map(|(ending, options)| {
        let clip = appliance.path(&format!("clip.{ending}"));
        audio::converted(&audio::librivox(), &clip, options);
        clip
    });
    made.into()
}
