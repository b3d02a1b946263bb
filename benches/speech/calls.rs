//! Recordings on the way of a call: the child's own code over its own channel, the rest of the appliance played by a thread.
//! Trusts: its arguments.
//! Touches: recordings, reading; standard streams.
//! Next: `bench.py` reads the answers.

use std::io::{BufRead as _, Write as _, stdin, stdout};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use clap::Args;
use serde_json::json;

use super::wer;
use crate::ipc::channel::Channel;
use crate::ipc::worker::{ChildEvent, Stage, Summary, Task};
use crate::worker::models::Models;
use crate::worker::transcribe::transcribe;

#[derive(Args, Debug)]
pub struct Arguments {
    /// Directory of the models.
    #[arg(long, default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/firmware-models"))]
    models: PathBuf,
    /// Name of the recogniser.
    #[arg(long, visible_alias = "model", default_value = "whisper-base")]
    asr: String,
    /// Threads that transcribe.
    #[arg(long, default_value_t = 1)]
    threads: u8,
    /// Language, as the uploader would say it; listened for when empty.
    #[arg(long, default_value = "en")]
    language: String,
    /// Rounds over the files.
    #[arg(long, default_value_t = 1)]
    rounds: usize,
    /// Reads names of recordings from standard input and answers each with a line of JSON.
    #[arg(long)]
    serve: bool,
    /// Adds the recordings of this directory; a text beside each (`NAME.txt`) is what was said.
    #[arg(long)]
    clips: Option<PathBuf>,
    /// Recordings.
    files: Vec<PathBuf>,
}

/// What one recording took.
struct Heard {
    wall: Duration,
    cpu: Duration,
    summary: Summary,
    text: String,
}

/// Hears all recordings.
pub fn run(arguments: &Arguments) {
    let asr = if arguments.asr.starts_with("whisper-") { arguments.asr.clone() } else { format!("whisper-{}", arguments.asr) };
    let began = Instant::now();
    let models = Models::load(&arguments.models, &asr).unwrap_or_else(|error| panic!("{error}; run `make models`"));
    eprintln!("{asr} loaded in {} ms", began.elapsed().as_millis());
    if arguments.serve {
        serve(&models, arguments);
    } else {
        list(&models, arguments);
    }
}

fn serve(models: &Models, arguments: &Arguments) {
    for file in stdin().lock().lines() {
        let heard = hear(models, arguments, Path::new(&file.expect("a path")));
        let stages: serde_json::Map<_, _> =
            heard.summary.stages.iter().map(|time| (format!("{:?}", time.stage).to_lowercase(), json!(time.millis))).collect();
        let answer = json!({
            "wall_ms": millis(heard.wall), "cpu_ms": millis(heard.cpu), "redact_ms": redaction(&heard.summary), "text": heard.text,
            "audio_ms": heard.summary.audio_ms, "speech_ms": heard.summary.speech_ms, "stages": stages,
        });
        println!("{answer}");
        stdout().flush().unwrap();
    }
}

/// A table for people.
fn list(models: &Models, arguments: &Arguments) {
    let mut files = arguments.files.clone();
    if let Some(clips) = &arguments.clips {
        let entries = std::fs::read_dir(clips).expect("the directory of clips");
        files.extend(entries.map(|entry| entry.unwrap().path()).filter(|path| path.extension().is_some_and(|end| end == "wav")));
    }
    files.sort();
    for _ in 0..arguments.rounds {
        let (mut audio, mut wall, mut cpu, mut errors, mut words) = (0.0, 0.0, 0.0, 0, 0);
        for file in &files {
            let heard = hear(models, arguments, file);
            let redact = redaction(&heard.summary) as f64;
            let (of_wall, of_cpu) = (millis(heard.wall) - redact, millis(heard.cpu) - redact);
            let said = std::fs::read_to_string(file.with_extension("txt")).unwrap_or_default();
            let (wrong, count) = wer::score(&said, &heard.text);
            let seconds = heard.summary.audio_ms as f64 / 1000.0;
            let name = file.file_stem().unwrap_or_default().display();
            println!(
                "{name:32} {seconds:6.1} s  wall {of_wall:7.0} ms  cpu {of_cpu:7.0} ms  redact {redact:4.0} ms  errors {wrong}/{count}"
            );
            for stage in &heard.summary.stages {
                print!(" {:?} {}", stage.stage, stage.millis);
            }
            println!("\n  {}", heard.text);
            (audio, wall, cpu) = (audio + seconds, wall + of_wall / 1000.0, cpu + of_cpu / 1000.0);
            (errors, words) = (errors + wrong, words + count);
        }
        println!(
            "all {audio:.1} s  wall {wall:.2} s RTF {:.4}  cpu {cpu:.2} s RTF {:.4}  WER {:.1} % ({errors}/{words})",
            wall / audio,
            cpu / audio,
            errors as f64 * 100.0 / words.max(1) as f64
        );
    }
}

fn hear(models: &Models, arguments: &Arguments, file: &Path) -> Heard {
    let recording = std::fs::read(file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    let (child, appliance) = Channel::pair().expect("a channel");
    let (child, bytes) = (Arc::new(child), recording.len() as u64);
    let language = Some(arguments.language.clone()).filter(|language| !language.is_empty());
    let (cpu, began) = (cpu_time(), Instant::now());
    let listener = thread::spawn(move || attend(&appliance, &recording));
    let summary = transcribe(models, &child, bytes, None, language, arguments.threads, 24 * 3600);
    let (wall, cpu) = (began.elapsed(), cpu_time().saturating_sub(cpu));
    drop(child);
    let text = listener.join().expect("no panic");
    Heard { wall, cpu, summary: summary.unwrap_or_else(|error| panic!("{}: {error}", file.display())), text }
}

/// Gives the child the recording piece by piece; the clear text that comes back.
fn attend(channel: &Channel, recording: &[u8]) -> String {
    let mut text = Vec::new();
    while let Ok(Some(event)) = channel.recv::<ChildEvent>() {
        match event {
            ChildEvent::Need { offset, len } => {
                let from = (offset as usize).min(recording.len());
                let to = (from + len as usize).min(recording.len());
                channel.send(&Task::Audio { offset, bytes: recording[from..to].to_vec() }).expect("the child listens");
            }
            ChildEvent::Utterance { clear, .. } => text.push(clear.text()),
            _ => {}
        }
    }
    text.join(" ")
}

fn redaction(summary: &Summary) -> u64 {
    summary.stages.iter().filter(|time| time.stage == Stage::Redact).map(|time| time.millis).sum()
}

/// Processor time of all threads so far.
pub fn cpu_time() -> Duration {
    use nix::sys::resource::{UsageWho, getrusage};
    let usage = getrusage(UsageWho::RUSAGE_SELF).expect("always there");
    let spent = |time: nix::sys::time::TimeVal| Duration::from_secs(time.tv_sec() as u64) + Duration::from_micros(time.tv_usec() as u64);
    spent(usage.user_time()) + spent(usage.system_time())
}

pub fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}
