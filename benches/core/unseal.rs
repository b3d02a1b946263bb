//! Starts of the daemon's keeper on a software TPM: how long until it answers, and how much of that the TPM took.
//! Trusts: its arguments.
//! Touches: folders of its own, a software TPM.
//! Next: `benches/bench.py`.

use std::time::{Duration, Instant};

use clap::Args;
use salama::keys::Keeper;
use salama::supervisor::program;
use serde_json::json;

use super::support::appliance::{Appliance, Settings, program as built};

#[derive(Args, Debug)]
pub struct Arguments {
    /// How often.
    #[arg(long, default_value_t = 15)]
    starts: u32,
}

pub fn run(arguments: &Arguments) {
    let appliance = Appliance::provision(&Settings { wiretap: true, ..Settings::default() });
    let keys = appliance.keys();
    let tpm = appliance.tpm();
    let words = ["serve", "--directory", keys.to_str().unwrap(), "--tpm", &tpm, "--user", "salama-keeper"];
    let waited = || appliance.wiretap.as_ref().expect("it was asked for").waited();
    let (mut whole, mut own) = (Vec::new(), Vec::new());
    for _ in 0..arguments.starts {
        let (began, before) = (Instant::now(), waited());
        let (keeper, _) = Keeper::connect(program::spawn(&built("salama-keeper"), words).unwrap().channel).unwrap();
        let (took, of_the_tpm) = (began.elapsed(), waited() - before);
        whole.push(millis(took));
        own.push(millis(took.saturating_sub(of_the_tpm)));
        drop(keeper);
    }
    println!("{}", json!({ "ms": whole, "own_ms": own }));
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}
