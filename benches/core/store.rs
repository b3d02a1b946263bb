//! The store as the daemon uses it: sealed values, one writer thread with group commit, readers on snapshots.
//! Trusts: its arguments.
//! Touches: the folder that it is given.
//! Next: `benches/peers/sqlcipher.c` does the same.

use std::path::PathBuf;
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::Instant;

use clap::Args;
use salama::base::ids::CallId;
use salama::base::secret::Secret;
use salama::record::envelope::Envelope;
use salama::record::index::IndexKeys;
use salama::record::schema::{Slot, Table};
use salama::record::store::{Batch, OpenStore, Outcome, Store};
use serde_json::json;

#[derive(Args, Debug)]
pub struct Arguments {
    /// An empty folder on the disk that is to be measured.
    folder: PathBuf,
    /// Records that are there before the clock starts.
    #[arg(long, default_value_t = 20_000)]
    filled: u64,
    /// Records that are inserted, over all writers.
    #[arg(long, default_value_t = 3000)]
    records: u64,
    /// Threads that insert, each waiting until its record is durable.
    #[arg(long, default_value_t = 16)]
    writers: u64,
    /// Random reads, over all readers.
    #[arg(long, default_value_t = 40_000)]
    reads: u64,
    /// Threads that read.
    #[arg(long, default_value_t = 2)]
    readers: u64,
    /// Plain bytes of a record.
    #[arg(long, default_value_t = 1024)]
    bytes: usize,
}

pub fn run(arguments: &Arguments) {
    let store = OpenStore::open(&arguments.folder, 1 << 16, &index()).unwrap().start().unwrap();
    fill(&store, arguments);
    let inserting = Instant::now();
    insert(&store, arguments);
    let inserting = inserting.elapsed().as_secs_f64();
    let reading = Instant::now();
    read(&store, arguments);
    let reading = reading.elapsed().as_secs_f64();
    let answer = json!({
        "inserts_per_s": arguments.records as f64 / inserting, "reads_per_s": arguments.reads as f64 / reading,
        "commits": store.commits(), "cpu_ms": super::cpu_ms(),
    });
    println!("{answer}");
}

fn fill(store: &Store, arguments: &Arguments) {
    for first in (0..arguments.filled).step_by(1000) {
        let batch = (first..arguments.filled.min(first + 1000)).fold(Batch::new(), |batch, number| {
            let slot = slot(number);
            let sealed = envelope(number).seal(&slot, &plain(number, arguments.bytes)).unwrap();
            batch.put(slot, sealed)
        });
        assert_eq!(store.commit(batch).unwrap(), Outcome::Committed);
    }
}

/// Each record under a key of its own call, as transcripts are.
fn insert(store: &Store, arguments: &Arguments) {
    let start = Arc::new(Barrier::new(arguments.writers as usize));
    thread::scope(|scope| {
        for writer in 0..arguments.writers {
            let start = Arc::clone(&start);
            scope.spawn(move || {
                start.wait();
                for number in (writer..arguments.records).step_by(arguments.writers as usize) {
                    let number = arguments.filled + number;
                    let slot = slot(number);
                    let sealed = envelope(number).seal(&slot, &plain(number, arguments.bytes)).unwrap();
                    assert_eq!(store.commit(Batch::new().put(slot, sealed)).unwrap(), Outcome::Committed);
                }
            });
        }
    });
}

fn read(store: &Store, arguments: &Arguments) {
    thread::scope(|scope| {
        for reader in 0..arguments.readers {
            scope.spawn(move || {
                let mut chance = 0x9e37_79b9_7f4a_7c15_u64 ^ (reader + 1);
                for _ in 0..arguments.reads / arguments.readers {
                    chance ^= chance << 13;
                    chance ^= chance >> 7;
                    chance ^= chance << 17;
                    let number = chance % (arguments.filled + arguments.records);
                    let slot = slot(number);
                    let sealed = store.get(&slot).unwrap().expect("it was inserted");
                    let opened = envelope(number).open(&slot, &sealed).unwrap();
                    assert_eq!(opened.len(), arguments.bytes);
                }
            });
        }
    });
}

/// Ids are random in the product; multiplying by an odd constant spreads them as evenly.
fn slot(number: u64) -> Slot {
    let mut id = [0; 16];
    id[..8].copy_from_slice(&number.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes());
    Slot::of_call(Table::Redacted, CallId::from_bytes(id))
}

fn envelope(number: u64) -> Envelope {
    let key = Secret::try_fill(|key: &mut [u8; 32]| {
        key[..8].copy_from_slice(&number.to_le_bytes());
        Ok::<(), ()>(())
    });
    Envelope::of_call(key.unwrap())
}

fn plain(number: u64, bytes: usize) -> Vec<u8> {
    (0..bytes as u64).map(|at| (number.wrapping_mul(31).wrapping_add(at * 7) & 0xff) as u8).collect()
}

pub fn index() -> IndexKeys {
    IndexKeys::derive(&Secret::try_fill(|_| Ok::<(), ()>(())).unwrap()).unwrap()
}
