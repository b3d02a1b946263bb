//! Runs one target: its seeds, then a bounded number of bent inputs, each in bounded time and memory.
//! Trusts: its own arguments.
//! Touches: the folder of findings beside the executable.
//! Next: a finding is replayed by `replay`, mended, and kept in `fuzz/corpus`.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use nix::sys::resource::{Resource, setrlimit};

use crate::HEAP;
use crate::mutate::{Dice, bent};
use crate::targets::Target;

/// Seed of a run that names none. Another one finds other things; a failure names the one that it had.
const SEED: u64 = 2026;
/// Longest time for one input. Only an endless loop takes so long, on any machine.
const HANG: Duration = Duration::from_secs(30);
/// Address space of the whole process: what asks for more is killed by its own allocator.
const ADDRESS_SPACE: u64 = 4 << 30;

/// The latest panic's message and place. A panic that a target catches itself is no finding.
static PANIC: Mutex<String> = Mutex::new(String::new());
/// Inputs begun.
static BEGUN: AtomicU64 = AtomicU64::new(0);

/// The seeds and `INPUTS` bent ones.
pub fn smoke(target: &Target, arguments: &[&str]) -> ExitCode {
    let number = |at: usize, default: u64| arguments.get(at).map_or(default, |text| text.parse().expect("a number"));
    let (seed, inputs) = (number(0, SEED), number(1, target.smoke.into()));
    setrlimit(Resource::RLIMIT_AS, ADDRESS_SPACE, ADDRESS_SPACE).expect("a limit on address space");
    remember_panics();
    let folder = findings().join(target.name);
    fs::create_dir_all(&folder).expect("a folder for findings");
    let current = folder.join(format!("running-{seed}"));
    watch_for_hangs(current.clone());
    let running = File::create(&current).expect("a file for the input");
    let (seeds, started) = (seeds(target), Instant::now());
    let mut dice = Dice::new(seed);
    let mut worst = 0;
    let bents = std::iter::repeat_with(|| bent(&mut dice, &seeds, target.words, target.longest)).take(inputs as usize);
    for (number, input) in seeds.iter().cloned().chain(bents).enumerate() {
        // A process that dies leaves the input here.
        running.write_all_at(&input, 0).and_then(|()| running.set_len(input.len() as u64)).expect("the input is written");
        match one(target, &input) {
            Ok(taken) => worst = worst.max(taken),
            Err(why) => {
                let kept = folder.join(format!("seed-{seed}-input-{number}"));
                fs::rename(&current, &kept).expect("the finding is kept");
                println!("{}: {why}", target.name);
                println!("the input ({} bytes, seed {seed}, number {number}) is in {}", input.len(), kept.display());
                println!("replay: cargo run --example fuzz -- replay {} {}", target.name, kept.display());
                return ExitCode::FAILURE;
            }
        }
    }
    fs::remove_file(&current).expect("the last input is removed");
    let millis = started.elapsed().as_millis();
    println!("{}: {} seeds, {inputs} bent inputs, {millis} ms, at most {} KiB of heap for one", target.name, seeds.len(), worst / 1024);
    ExitCode::SUCCESS
}

/// Files as they are.
pub fn replay(target: &Target, files: &[&str]) -> ExitCode {
    remember_panics();
    let mut code = ExitCode::SUCCESS;
    for file in files {
        let input = fs::read(file).unwrap_or_else(|error| panic!("{file}: {error}"));
        match one(target, &input) {
            Ok(taken) => println!("{file}: holds, {} KiB of heap", taken / 1024),
            Err(why) => {
                println!("{file}: {why}");
                code = ExitCode::FAILURE;
            }
        }
    }
    code
}

/// The seeds as files and the words as a dictionary, as libFuzzer takes them.
pub fn write_seeds(target: &Target, directory: &str) -> ExitCode {
    let directory = Path::new(directory);
    fs::create_dir_all(directory.join("seeds")).expect("a folder");
    for (number, seed) in seeds(target).iter().enumerate() {
        fs::write(directory.join(format!("seeds/{number:03}")), seed).expect("a seed");
    }
    let mut words = String::new();
    for word in target.words.iter().filter(|word| word.len() <= 64) {
        let escaped = word.iter().fold(String::new(), |text, byte| text + &format!("\\x{byte:02x}"));
        writeln!(words, "\"{escaped}\"").expect("text");
    }
    fs::write(directory.join("words"), words).expect("a dictionary");
    println!("{}", target.longest);
    ExitCode::SUCCESS
}

/// One input. How much heap it took at most, or why the promise does not hold.
pub fn one(target: &Target, input: &[u8]) -> Result<usize, String> {
    BEGUN.fetch_add(1, Ordering::Relaxed);
    let before = HEAP.current_usage();
    HEAP.reset_peak_usage();
    catch_unwind(AssertUnwindSafe(|| (target.run)(input))).map_err(|_| PANIC.lock().map(|text| text.clone()).unwrap_or_default())?;
    let taken = HEAP.peak_usage().saturating_sub(before);
    if taken > target.memory {
        return Err(format!("took {taken} bytes of heap, more than the {} it may take", target.memory));
    }
    Ok(taken)
}

/// The seeds of the code and those of `fuzz/corpus`, in one order.
fn seeds(target: &Target) -> Vec<Vec<u8>> {
    let mut seeds = (target.seeds)();
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target.corpus);
    if !target.corpus.is_empty() {
        let entries = fs::read_dir(&corpus).unwrap_or_else(|error| panic!("{}: {error}", corpus.display()));
        let mut files: Vec<PathBuf> = entries.map(|entry| entry.expect("an entry").path()).collect();
        files.sort();
        seeds.extend(files.iter().map(|file| fs::read(file).expect("a seed")));
    }
    assert!(!seeds.is_empty(), "{} has no seeds", target.name);
    seeds
}

/// `target/fuzz`, two folders up from the executable's own.
fn findings() -> PathBuf {
    let program = std::env::current_exe().expect("a path of the program");
    program.ancestors().nth(3).expect("a target folder").join("fuzz")
}

/// Panics are told once, where they are a finding.
pub fn remember_panics() {
    std::panic::set_hook(Box::new(|panic| {
        if let Ok(mut latest) = PANIC.lock() {
            *latest = panic.to_string();
        }
    }));
}

/// Ends the process when one input takes too long.
fn watch_for_hangs(current: PathBuf) {
    std::thread::spawn(move || {
        let mut seen = (BEGUN.load(Ordering::Relaxed), Instant::now());
        loop {
            std::thread::sleep(Duration::from_millis(500));
            let begun = BEGUN.load(Ordering::Relaxed);
            if begun != seen.0 {
                seen = (begun, Instant::now());
            } else if seen.1.elapsed() > HANG {
                println!("input number {begun} takes longer than {HANG:?}; it is in {}", current.display());
                std::process::exit(3);
            }
        }
    });
}
