//! The few options of the standard test harness that cargo, nextest and people use; tests run one after the other.

use std::panic::catch_unwind;
use std::process::ExitCode;
use std::time::Instant;

/// A test: its name, which is the rule that it proves, and its body.
pub type Test = (&'static str, fn());

pub fn run(arguments: &[String], groups: &[&[Test]]) -> ExitCode {
    let has = |option: &str| arguments.iter().any(|argument| argument == option);
    let filters: Vec<&String> = arguments.iter().filter(|argument| !argument.starts_with('-') && *argument != "terse").collect();
    let chosen: Vec<&Test> = groups
        .iter()
        .copied()
        .flatten()
        .filter(|(name, _)| {
            filters.is_empty() || filters.iter().any(|filter| if has("--exact") { name == filter } else { name.contains(filter.as_str()) })
        })
        .collect();
    if has("--list") {
        if !has("--ignored") {
            chosen.iter().for_each(|(name, _)| println!("{name}: test"));
        }
        return ExitCode::SUCCESS;
    }
    println!("\nrunning {} tests", chosen.len());
    let mut failed = Vec::new();
    for (name, body) in &chosen {
        let started = Instant::now();
        let passed = catch_unwind(body).is_ok();
        println!("test {name} ... {} ({} ms)", if passed { "ok" } else { "FAILED" }, started.elapsed().as_millis());
        if !passed {
            failed.push(*name);
        }
    }
    println!(
        "\ntest result: {}. {} passed; {} failed\n",
        if failed.is_empty() { "ok" } else { "FAILED" },
        chosen.len() - failed.len(),
        failed.len()
    );
    if failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
