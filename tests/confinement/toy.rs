//! The real fork server with toy work: what its children do is written in the task's text.

use std::collections::HashMap;
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Instant;

use salama::ipc::CHANNEL_FD;
use salama::ipc::channel::Channel;
use salama::ipc::worker::{ChildEvent, LoadedModel, Stage, Task};
use salama::sandbox::policy;
use salama::sys::attempt::Attempt;
use salama::sys::descriptors::{open_null, take_inherited};
use salama::sys::limits::AddressSpace;

use crate::forkserver::{ForkServer, Work};
use crate::roles::{denied, unprivileged};

/// What the fork server says on standard error, and all that is ever there.
pub const STARTED: &str = "  fork server: started";

/// The role.
pub fn fork_server() -> ExitCode {
    let unprivileged = unprivileged();
    let address_space = AddressSpace::open().unwrap();
    let null = open_null().unwrap();
    eprintln!("{STARTED}");
    let control = Channel::from_fd(take_inherited(CHANNEL_FD).unwrap());
    let offspring = unprivileged.confine(&policy::forkserver::POLICY, &[]).unwrap().prepare_offspring(&policy::child::POLICY).unwrap();
    let loaded = vec![LoadedModel { name: "toy".into(), version: "1".into(), manifest_sha256: "00".into() }];
    ForkServer::<Toy>::new(control, offspring, address_space, null, vec![42; 64 << 20]).run(loaded).unwrap();
    ExitCode::SUCCESS
}

#[derive(Debug)]
struct Toy;

impl Work for Toy {
    type Models = Vec<u8>;

    fn serve(models: &Vec<u8>, channel: Channel) -> u8 {
        let Ok(Some(task)) = channel.recv::<Task>() else { return 2 };
        let what = match task {
            Task::Redact { text } => text,
            Task::Transcribe { language, .. } => language.unwrap_or_default(),
            Task::Audio { .. } => return 3,
        };
        match what.split_once(' ').unwrap_or((&what, "")) {
            ("model", _) => answer(&channel, &models[0].to_string()),
            ("threads", _) => answer(&channel, &threads().to_string()),
            ("exit", code) => code.parse().unwrap(),
            ("panic", word) => {
                eprintln!("{word}");
                panic!("as asked: {word}")
            }
            ("abort", _) => std::process::abort(),
            ("allocate", bytes) => answer(&channel, if allocate(bytes.parse().unwrap()) { "given" } else { "refused" }),
            ("spin", _) => spin(),
            ("hang", _) => channel.recv::<Task>().map_or(4, |_| 0),
            ("linger", _) => {
                channel.send(&ChildEvent::Redacted { text: String::new(), counts: Vec::new(), language: None }).unwrap();
                loop {
                    thread::park();
                }
            }
            ("act", name) => act(name),
            ("flood", _) => loop {
                if channel.send(&ChildEvent::Progress { stage: Stage::Decode, per_mille: 0, audio_ms: 0 }).is_err() {
                    return 5;
                }
            },
            ("need", offset) => ask(&channel, offset.parse().unwrap()),
            ("garbage", _) => send_then_wait(&channel, &[0xff_u8; 32]),
            ("done", _) => answer(&channel, ""),
            other => panic!("no such work: {other:?}"),
        }
    }
}

fn answer(channel: &Channel, text: &str) -> u8 {
    channel.send(&ChildEvent::Redacted { text: text.into(), counts: Vec::new(), language: None }).map_or(6, |()| 0)
}

fn ask(channel: &Channel, offset: u64) -> u8 {
    send_then_wait(channel, &ChildEvent::Need { offset, len: 10 })
}

fn send_then_wait(channel: &Channel, message: &impl serde::Serialize) -> u8 {
    channel.send(message).unwrap();
    channel.recv::<Task>().map_or(7, |_| 0)
}

/// What a model's runtime does: threads, memory of all sizes, time, hash maps.
fn threads() -> u64 {
    let sum = AtomicU64::new(0);
    assert!(!std::path::Path::new("/etc/passwd").exists(), "to a child there are no files");
    assert!(thread::available_parallelism().is_ok());
    thread::scope(|scope| {
        for number in 0..4_u64 {
            let sum = &sum;
            thread::Builder::new()
                .name(format!("toy-{number}"))
                .spawn_scoped(scope, move || {
                    let started = Instant::now();
                    let map: HashMap<u64, Vec<u8>> = (0..100).map(|key| (key, vec![1; 10_000])).collect();
                    let mut large = vec![1_u8; 20 << 20];
                    large.resize(30 << 20, 1);
                    thread::sleep(std::time::Duration::from_millis(1));
                    let total = map.values().map(Vec::len).sum::<usize>() + large.len();
                    assert!(started.elapsed().as_millis() >= 1);
                    sum.fetch_add(u64::try_from(total).unwrap(), Ordering::SeqCst);
                })
                .unwrap();
        }
    });
    sum.into_inner()
}

fn allocate(bytes: usize) -> bool {
    let mut memory: Vec<u8> = Vec::new();
    memory.try_reserve_exact(bytes).is_ok()
}

fn spin() -> u8 {
    let mut number = 1_u64;
    loop {
        number = std::hint::black_box(number.wrapping_mul(3));
    }
}

fn act(name: &str) -> u8 {
    let act = denied(&policy::child::POLICY).into_iter().find(|denied| format!("{:?}", denied.act) == name).unwrap().act;
    match Attempt::against(act, 1).perform() {
        Ok(()) => 0,
        Err(errno) => u8::try_from(errno as i32).unwrap(),
    }
}
