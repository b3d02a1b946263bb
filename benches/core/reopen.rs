//! A large store whose writer was killed in the middle of its commits: how long it takes to open, and whether it was repaired.
//! Trusts: its arguments.
//! Touches: the folder that it is given; a process of its own, which it kills.
//! Next: `benches/rows_store.py`.

use std::io::{BufRead as _, BufReader};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Instant;

use clap::Args;
use salama::base::ids::CallId;
use salama::record::schema::{Slot, Table};
use salama::record::store::{Batch, OpenStore, Outcome, Store};
use serde_json::json;

use super::store::index;

#[derive(Args, Debug)]
pub struct Arguments {
    /// An empty folder on the disk that is to be measured.
    folder: PathBuf,
    /// Bytes of records in the store.
    #[arg(long, default_value_t = 2_000_000_000)]
    bytes: u64,
    /// Kills, each followed by an opening.
    #[arg(long, default_value_t = 5)]
    kills: u32,
}

#[derive(Args, Debug)]
pub struct WriterArguments {
    folder: PathBuf,
    from: u64,
}

/// Plain bytes of a record.
const RECORD: usize = 16 << 10;
/// Records in one commit while the store is filled.
const BATCH: u64 = 500;

pub fn run(arguments: &Arguments) {
    let records = arguments.bytes / RECORD as u64;
    let store = open(&arguments.folder);
    for first in (0..records).step_by(BATCH as usize) {
        commit(&store, first..records.min(first + BATCH));
    }
    drop(store);
    let times: Vec<f64> = (0..arguments.kills).map(|kill| killed_and_opened(arguments, records + u64::from(kill) * 1_000_000)).collect();
    let file = std::fs::metadata(arguments.folder.join("store.redb")).unwrap().len();
    println!("{}", json!({ "open_ms": times, "file_bytes": file, "records": records }));
}

fn killed_and_opened(arguments: &Arguments, from: u64) -> f64 {
    let mut writer = Command::new(std::env::current_exe().unwrap())
        .arg("writer")
        .arg(&arguments.folder)
        .arg(from.to_string())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(writer.stdout.take().unwrap()).lines().map_while(Result::ok);
    assert_eq!(lines.take(100).count(), 100, "the writer ended before it was killed");
    writer.kill().unwrap();
    writer.wait().unwrap();
    let opening = Instant::now();
    let store = open(&arguments.folder);
    let ms = opening.elapsed().as_secs_f64() * 1000.0;
    assert!(store.get(&slot(from)).unwrap().is_some(), "acknowledged and lost");
    ms
}

/// Commits for ever, and says each.
pub fn write(arguments: &WriterArguments) {
    let store = open(&arguments.folder);
    for number in arguments.from.. {
        commit(&store, number..number + 1);
        println!("{number}");
    }
}

fn open(folder: &std::path::Path) -> Store {
    OpenStore::open(folder, 1 << 16, &index()).unwrap().start().unwrap()
}

fn commit(store: &Store, numbers: std::ops::Range<u64>) {
    let batch = numbers.fold(Batch::new(), |batch, number| {
        let sealed = index().envelope().seal(&slot(number), &[7; RECORD]).unwrap();
        batch.put(slot(number), sealed)
    });
    assert_eq!(store.commit(batch).unwrap(), Outcome::Committed);
}

fn slot(number: u64) -> Slot {
    let mut id = [0; 16];
    id[..8].copy_from_slice(&number.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes());
    Slot::of_call(Table::Header, CallId::from_bytes(id))
}
