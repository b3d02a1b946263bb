//! A move of the erasure epoch: the real keeper on a software TPM, a real store, many calls.
//! Trusts: its arguments.
//! Touches: folders of its own.
//! Next: `benches/bench.py`.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::Args;
use salama::base::clock::SystemClock;
use salama::base::ids::CallId;
use salama::ipc::keeper::{KeeperDenial, WrappedDek};
use salama::job::border::{Allowance, Children, SpawnRefused, WorkerChild};
use salama::job::calls::{Arrival, Calls, CallsParts, JobSettings};
use salama::job::spec::{CallMetadata, Scope};
use salama::keys::{Keeper, KeeperError};
use salama::record::index::IndexKeys;
use salama::record::schema::{Slot, Table};
use salama::record::store::{Batch, OpenStore, Outcome, Store};
use salama::supervisor::program;
use serde_json::json;

use super::support::appliance::{Appliance, Settings, program as built};
use super::support::client::CONSENT;

#[derive(Args, Debug)]
pub struct Arguments {
    /// An empty folder on the disk that is to be measured.
    folder: PathBuf,
    /// Calls whose keys are wrapped anew.
    #[arg(long, default_value_t = 100_000)]
    calls: u64,
}

/// No call is worked on.
struct Nobody;

impl Children for Nobody {
    fn spawn(&self, _: Allowance) -> Result<Box<dyn WorkerChild>, SpawnRefused> {
        Err(SpawnRefused)
    }

    fn models(&self) -> Vec<String> {
        Vec::new()
    }

    fn lost(&self) -> bool {
        false
    }
}

pub fn run(arguments: &Arguments) {
    let appliance = Appliance::provision(&Settings::default());
    let keys = appliance.keys();
    // As many as may be set.
    std::fs::write(keys.join("limits.toml"), "[new]\nper_minute = 60000\n").unwrap();
    let tpm = appliance.tpm();
    let words = ["serve", "--directory", keys.to_str().unwrap(), "--tpm", &tpm, "--user", "salama-keeper"];
    let (keeper, greeting) = Keeper::connect(program::spawn(&built("salama-keeper"), words).unwrap().channel).unwrap();
    let index = IndexKeys::derive(&greeting.index_key).unwrap();
    let store = OpenStore::open(&arguments.folder, 1 << 16, &index).unwrap().start().unwrap();
    let calls = Calls::open(CallsParts {
        store: store.clone(),
        index: IndexKeys::derive(&greeting.index_key).unwrap(),
        keeper: Arc::new(keeper.clone()),
        supervisor: Arc::new(Nobody),
        settings: settings(arguments),
        clock: Arc::new(SystemClock),
    })
    .unwrap();
    fill(&store, &keeper, &index, arguments.calls);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let took = runtime.block_on(erase_one(&calls));
    let commits = store.commits();
    calls.stop();
    println!("{}", json!({ "ms": took.as_secs_f64() * 1000.0, "calls": arguments.calls, "commits": commits, "cpu_ms": super::cpu_ms() }));
}

fn fill(store: &Store, keeper: &Keeper, index: &IndexKeys, calls: u64) {
    for first in (0..calls).step_by(1000) {
        let batch = (first..calls.min(first + 1000)).fold(Batch::new(), |batch, _| {
            let call = CallId::random().unwrap();
            let wrapped = new_key(keeper, call);
            let slot = Slot::of_call(Table::WrappedDek, call);
            let sealed = index.envelope().seal_value(&slot, &wrapped).unwrap();
            batch.put(slot, sealed)
        });
        assert_eq!(store.commit(batch).unwrap(), Outcome::Committed);
    }
}

/// As fast as the keeper allows: to make them is not measured.
fn new_key(keeper: &Keeper, call: CallId) -> WrappedDek {
    loop {
        match keeper.new_dek(call) {
            Ok((_, wrapped)) => return wrapped,
            Err(KeeperError::Denied(KeeperDenial::RateLimited { seconds })) => std::thread::sleep(Duration::from_secs(seconds.into())),
            Err(error) => panic!("no key: {error}"),
        }
    }
}

/// From the request to the certificate.
async fn erase_one(calls: &Calls) -> Duration {
    let metadata: CallMetadata = serde_json::from_str(CONSENT).unwrap();
    let mut upload = calls.admit("counsellor/bench", metadata, None).await.unwrap();
    upload.push(bytes::Bytes::from_static(b"no audio")).await.unwrap();
    let Arrival::New(call) = upload.finish().await.unwrap() else { panic!("it is new") };
    calls.delete(&Scope::All, call.id).await.unwrap();
    let began = Instant::now();
    let erased = calls.erase_for_good(&Scope::All, call.id).await.unwrap();
    assert!(erased.certificate.is_some());
    began.elapsed()
}

fn settings(arguments: &Arguments) -> JobSettings {
    let long = Duration::from_secs(3600);
    JobSettings {
        state: arguments.folder.clone(),
        reserve: 1 << 20,
        concurrent: 1,
        threads: 1,
        queue: 10,
        attempts: 3,
        max_audio_bytes: 1 << 20,
        max_audio_seconds: 60,
        child_memory: 1 << 30,
        child_cpu_seconds: 60,
        time_base: long,
        time_per_audio: 10,
        time_limit: long,
        epoch_interval: long,
        silence: long,
        text_concurrent: 1,
        pause: long,
        setbacks: 1000,
        text_time: long,
    }
}
