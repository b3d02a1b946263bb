//! The worker's stand-in: the real fork server, confined as shipped, whose children hear no speech but do what the recording says.
//! Trusts: nothing.
//! Touches: as the worker: its channel, its children.
//! Next: the core, which must take none of it amiss.
//!
//! A recording that begins with `fault: NAME` tells the child how to misbehave, `slow: MILLISECONDS` to take its time. Of any other
//! the child reads every byte through its channel and gives their SHA-256 as the transcript, so that a reader of the API sees whether
//! what was uploaded is what was opened.

use std::fmt::Write as _;
use std::os::fd::AsFd as _;
use std::process::ExitCode;
use std::thread;
use std::time::Duration;

use ring::digest::{Context, SHA256};
use salama::ipc::CHANNEL_FD;
use salama::ipc::channel::Channel;
use salama::ipc::transcript::{Utterance, Word};
use salama::ipc::worker::{AUDIO_CHUNK_MAX, AudioInfo, CallFailure, ChildEvent, LoadedModel, Stage, Summary, Task};
use salama::sandbox::policy;
use salama::sandbox::process::harden;
use salama::sys::attempt::{Act, Attempt};
use salama::sys::descriptors::{open_null, take_inherited};
use salama::sys::limits::AddressSpace;
use salama::sys::socket;

use crate::forkserver::{ForkServer, Work};

/// What salamad starts.
pub const NAME: &str = "salama-worker";
/// Begins a recording that says what the child does wrong.
pub const FAULT: &str = "fault: ";
/// Begins a recording that takes so many milliseconds.
pub const SLOW: &str = "slow: ";

/// The transcript of `recording`.
pub fn digest_of(recording: &[u8]) -> String {
    let mut digest = Context::new(&SHA256);
    digest.update(recording);
    written(digest)
}

fn written(digest: Context) -> String {
    digest.finish().as_ref().iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").unwrap();
        text
    })
}

/// As `src/bin/salama-worker.rs`, without models.
pub fn fork_server(mut arguments: impl Iterator<Item = String>) -> ExitCode {
    let user = arguments.find(|word| word == "--user").and_then(|_| arguments.next());
    let hardened = harden(&[CHANNEL_FD]).unwrap();
    let control = Channel::from_fd(take_inherited(CHANNEL_FD).unwrap());
    let (address_space, null) = (AddressSpace::open().unwrap(), open_null().unwrap());
    let unprivileged = hardened.drop_privileges(user.as_deref()).unwrap();
    let offspring = unprivileged.confine(&policy::forkserver::POLICY, &[]).unwrap().prepare_offspring(&policy::child::POLICY).unwrap();
    let loaded = vec![LoadedModel { name: "stand-in".into(), version: "1".into(), manifest_sha256: "00".into() }];
    ForkServer::<Child>::new(control, offspring, address_space, null, ()).run(loaded).unwrap();
    ExitCode::SUCCESS
}

#[derive(Debug)]
struct Child;

impl Work for Child {
    type Models = ();

    fn serve((): &(), channel: Channel) -> u8 {
        let Ok(Some(Task::Transcribe { audio_bytes, .. })) = channel.recv() else { return 2 };
        call(&channel, audio_bytes).map_or(3, |()| 0)
    }
}

/// None when the core has hung up.
fn call(channel: &Channel, audio_bytes: u64) -> Option<()> {
    let first = piece(channel, 0)?;
    let line = first.split(|byte| *byte == b'\n').next().and_then(|line| std::str::from_utf8(line).ok()).unwrap_or_default();
    if let Some(fault) = line.strip_prefix(FAULT) {
        return misbehave(channel, fault);
    }
    let pause = line.strip_prefix(SLOW).and_then(|pause| pause.parse().ok()).map(Duration::from_millis);
    let mut digest = Context::new(&SHA256);
    digest.update(&first);
    let mut offset = u64::try_from(first.len()).unwrap();
    say(channel, &audio())?;
    say(channel, &progress(Stage::Decode))?;
    pause.into_iter().for_each(thread::sleep);
    while offset < audio_bytes {
        let next = piece(channel, offset)?;
        digest.update(&next);
        offset += u64::try_from(next.len()).unwrap();
    }
    say(channel, &uttered(&written(digest), 0))?;
    say(channel, &done(1))
}

fn say(channel: &Channel, event: &ChildEvent) -> Option<()> {
    channel.send(event).ok()
}

fn piece(channel: &Channel, offset: u64) -> Option<Vec<u8>> {
    say(channel, &ChildEvent::Need { offset, len: AUDIO_CHUNK_MAX })?;
    match channel.recv() {
        Ok(Some(Task::Audio { bytes, .. })) => Some(bytes),
        _ => None,
    }
}

fn audio() -> ChildEvent {
    ChildEvent::Audio(AudioInfo { format: "stand-in".into(), sample_rate: 8000, channels: 1 })
}

fn progress(stage: Stage) -> ChildEvent {
    ChildEvent::Progress { stage, per_mille: 1, audio_ms: 1 }
}

fn uttered(text: &str, start_ms: u32) -> ChildEvent {
    let word = |word: &str| Word { start_ms, end_ms: start_ms + 10, text: word.into(), confidence: 1.0 };
    let words = text.split(' ').map(word).collect();
    let clear = Utterance { channel: 0, start_ms, end_ms: start_ms + 10, language: "en".into(), confidence: 1.0, words };
    ChildEvent::Utterance { redacted: clear.clone(), clear, entities: Vec::new() }
}

fn done(utterances: u32) -> ChildEvent {
    let (counts, stages) = (Vec::new(), Vec::new());
    ChildEvent::Done(Summary { audio_ms: 1000, speech_ms: 1000, utterances, counts, language: None, stages, wall_ms: 1 })
}

/// Does something wrong and, where that is not its end, waits for it.
fn misbehave(channel: &Channel, fault: &str) -> Option<()> {
    match fault {
        "panic" => panic!("as asked"),
        "abort" => std::process::abort(),
        "overflow" => drop(overflow(&[0; 4096])),
        "leave" => return None,
        "fork" => drop(Attempt::against(Act::Fork, 1).perform()),
        "memory" => eat(),
        "spin" => spin(),
        "hang" => {}
        "chatter" => loop {
            say(channel, &progress(Stage::Decode))?;
            thread::sleep(Duration::from_millis(10));
        },
        "linger" => say_all(channel, [audio(), done(0)])?,
        _ => flood(channel, fault)?,
    }
    wait(channel)
}

fn flood(channel: &Channel, fault: &str) -> Option<()> {
    match fault {
        "progress" => loop {
            say(channel, &progress(Stage::Decode))?;
        },
        "needs" => loop {
            say(channel, &ChildEvent::Need { offset: 0, len: 1 })?;
        },
        "grind" => loop {
            piece(channel, 0)?;
        },
        "text" => {
            say(channel, &audio())?;
            loop {
                say(channel, &uttered(&["x".repeat(1000).as_str(); 50].join(" "), 0))?;
            }
        }
        _ => lie(channel, fault),
    }
}

fn lie(channel: &Channel, fault: &str) -> Option<()> {
    let frame = |event: &ChildEvent| postcard::to_stdvec(event).unwrap();
    match fault {
        "nothing" => raw(channel, &[0xff]),
        "unknown" => raw(channel, &[99, 0, 0]),
        "short" => raw(channel, &frame(&uttered("word", 0))[..20]),
        "long" => raw(channel, &[frame(&progress(Stage::Decode)), vec![0; 9]].concat()),
        "huge" => raw(channel, &vec![0; 180 * 1024]),
        "count" => raw(channel, &with_count(frame(&said_nothing()))),
        "length" => raw(channel, &[3, 0xff, 0xff, 0xff, 0xff, 0x0f, b'w', b'a', b'v']),
        "descriptor" => channel.send_with_fd(&progress(Stage::Decode), channel.as_fd()).ok(),
        _ => disorder(channel, fault),
    }
}

/// An utterance without words; its count of words is the byte that [`with_count`] changes.
fn said_nothing() -> ChildEvent {
    let clear = Utterance { channel: 0, start_ms: 1, end_ms: 2, language: "en".into(), confidence: 1.0, words: Vec::new() };
    ChildEvent::Utterance { redacted: clear.clone(), clear, entities: Vec::new() }
}

/// Says 2^63 words where there are none: variant, channel, start, end, two letters with their length, four bytes of confidence.
fn with_count(mut frame: Vec<u8>) -> Vec<u8> {
    assert_eq!(frame[11], 0);
    frame.splice(11..12, [[0x80; 9].as_slice(), &[1]].concat());
    frame
}

fn disorder(channel: &Channel, fault: &str) -> Option<()> {
    match fault {
        "result first" => say(channel, &done(0)),
        "words before the recording" => say(channel, &uttered("word", 0)),
        "ready twice" => say(channel, &ChildEvent::Ready),
        "recording twice" => say_all(channel, [audio(), audio()]),
        "reads after words" => say_all(channel, [audio(), uttered("word", 0), ChildEvent::Need { offset: 0, len: 1 }]),
        "words backwards" => say_all(channel, [audio(), uttered("b", 9), uttered("a", 0)]),
        "result twice" => say_all(channel, [audio(), done(0), done(0)]),
        "words after the result" => say_all(channel, [audio(), done(0), uttered("word", 0)]),
        "more than it said" => say_all(channel, [audio(), uttered("word", 0), done(2)]),
        "a text's answer" => say(channel, &ChildEvent::Redacted { text: "x".into(), counts: Vec::new(), language: None }),
        "a verdict" => say(channel, &ChildEvent::Failed(CallFailure::TriedTooOften)),
        other => panic!("no such fault: {other:?}"),
    }
}

fn say_all<const N: usize>(channel: &Channel, events: [ChildEvent; N]) -> Option<()> {
    events.iter().try_for_each(|event| say(channel, event))
}

fn raw(channel: &Channel, packet: &[u8]) -> Option<()> {
    socket::send(channel.as_fd(), packet, None).ok()
}

/// The core hangs up on it, or kills it.
fn wait(channel: &Channel) -> Option<()> {
    while let Ok(Some(_)) = channel.recv::<Task>() {}
    loop {
        thread::park();
    }
}

#[expect(unconditional_recursion, reason = "until the stack is used up")]
fn overflow(below: &[u8; 4096]) -> u8 {
    let here = std::hint::black_box(*below);
    overflow(&here).wrapping_add(here[7])
}

fn eat() {
    let mut eaten = Vec::new();
    loop {
        eaten.push(std::hint::black_box(vec![1_u8; 1 << 20]));
    }
}

fn spin() {
    let mut number = 1_u64;
    loop {
        number = std::hint::black_box(number.wrapping_mul(3));
    }
}
