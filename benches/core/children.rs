//! The fork server as the daemon starts it, and how soon a child of it is ready.
//! Trusts: its arguments.
//! Touches: the models, through the fork server.
//! Next: `benches/bench.py` compares a fork with fork, exec and load.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use clap::Args;
use salama::supervisor::forkserver::{ChildLimits, ForkServer, WorkerSettings};
use serde_json::json;

use super::support::appliance::{models, program};

#[derive(Args, Debug)]
pub struct Arguments {
    /// Name of the recogniser.
    #[arg(long, default_value = "whisper-base")]
    asr: String,
    /// Children, one after the other.
    #[arg(long, default_value_t = 50)]
    children: usize,
    /// Account of the fork server when this is root.
    #[arg(long, default_value = "salama-worker")]
    user: String,
}

pub fn run(arguments: &Arguments) {
    let user = nix::unistd::geteuid().is_root().then(|| arguments.user.clone());
    let program: PathBuf = program("salama-worker");
    let settings = WorkerSettings { program, models: models(), asr: arguments.asr.clone(), user, start_limit: Duration::from_secs(120) };
    let began = Instant::now();
    let server = ForkServer::start(&settings).unwrap();
    let load = began.elapsed();
    let (supervisor, _) = server.run(|_| {}).unwrap();
    let limits = ChildLimits { memory_bytes: 2 << 30, cpu_seconds: 60 };
    let mut ready: Vec<f64> = Vec::new();
    for _ in 0..arguments.children {
        let asked = Instant::now();
        let child = supervisor.spawn(&limits).unwrap();
        child.recv(Duration::from_secs(10)).expect("Ready is its first word");
        ready.push(asked.elapsed().as_secs_f64() * 1000.0);
        child.kill();
        let _ = child.finish();
    }
    println!("{}", json!({ "load_ms": load.as_secs_f64() * 1000.0, "ready_ms": ready }));
}
