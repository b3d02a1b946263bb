//! The settings file.
//! Trusts: nothing.
//! Touches: nothing.
//! Next: `lifecycle` hands each section on.

use salama::config::{Config, ConfigError};

use super::Target;

/// TOML.
pub const TARGET: Target = Target {
    name: "config",
    run,
    seeds,
    corpus: "",
    words: &[
        b"[listen]",
        b"[state]",
        b"[keeper]",
        b"[models]",
        b"[jobs]",
        b"[limits]",
        b"[process]",
        b"= \"",
        b"= -1",
        b"= 9223372036854775807",
        b"\"5 MiB\"",
        b"\"99999999999 GiB\"",
        b"\"10 s\"",
        b"\"0 s\"",
        b"[[",
        b"{ a = ",
        b"'''",
        b"nan",
        b"1979-05-27",
        b"root",
        b"../..",
        b"\n",
    ],
    memory: 4 << 20,
    longest: 16_384,
    smoke: 2500,
};

/// Promise: a text gives settings, a syntax error or at least one fault, each with a rule.
fn run(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Err(ConfigError::Faults(faults)) = Config::parse(text) {
        assert!(!faults.0.is_empty() && faults.0.iter().all(|fault| !fault.rule.is_empty()), "{faults}");
    }
}

fn seeds() -> Vec<Vec<u8>> {
    vec![include_bytes!("../../config/salama.toml").to_vec(), b"[jobs]\nqueue = 5\n".to_vec(), Vec::new()]
}
