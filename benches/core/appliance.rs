//! A whole appliance on a software TPM, for what is measured from outside.
//! Trusts: its arguments.
//! Touches: a folder of its own.
//! Next: `benches/bench.py` sends it requests and reads its processes' memory.

use std::io::{BufRead as _, stdin};
use std::time::Instant;

use clap::Args;
use serde_json::json;

use super::support::appliance::{Appliance, Settings};

#[derive(Args, Debug)]
pub struct Arguments {
    /// Name of the recogniser.
    #[arg(long, default_value = "whisper-base")]
    asr: String,
    /// More lines for the settings file.
    #[arg(long, default_value = "")]
    more: String,
}

/// Answers `restart` on standard input with the time to READY; ends with its standard input.
pub fn run(arguments: &Arguments) {
    let settings = Settings { asr: Some(arguments.asr.clone().leak()), more: arguments.more.clone(), ..Settings::default() };
    let mut appliance = Appliance::provision(&settings);
    let began = Instant::now();
    appliance.run();
    let ready = began.elapsed();
    let identity = appliance.identity("counsellor", "bench");
    let answer = json!({
        "address": appliance.address(), "ca": appliance.path("ca.pem"), "identity": identity, "pid": appliance.pid(),
        "state": appliance.state(), "swtpm": appliance.swtpm.pid(), "ready_ms": ready.as_secs_f64() * 1000.0,
    });
    println!("{answer}");
    for _ in stdin().lock().lines().map_while(Result::ok).filter(|line| line == "restart") {
        assert!(appliance.stop().success(), "{}", appliance.log());
        let began = Instant::now();
        appliance.run();
        let ready = began.elapsed().as_secs_f64() * 1000.0;
        println!("{}", json!({ "address": appliance.address(), "pid": appliance.pid(), "ready_ms": ready }));
    }
}
