//! What confined processes cannot do, and that the self-check would notice if they could.

use std::fs;
use std::time::Duration;

use salama::sandbox::policy::Denial;
use salama::sys::pidfd::Ended;

use crate::roles::{POLICIES, denied, ending, start};
use crate::runner::Test;

pub const TESTS: &[Test] = &[
    ("each_denied_act_is_denied_in_each_kind_of_process", each_denied_act_is_denied_in_each_kind_of_process),
    ("the_self_check_fails_when_any_rule_is_loosened", the_self_check_fails_when_any_rule_is_loosened),
    ("a_confined_process_has_no_privileges_left", a_confined_process_has_no_privileges_left),
];

fn each_denied_act_is_denied_in_each_kind_of_process() {
    for policy in POLICIES {
        for denied in denied(policy) {
            let ended = ending("act", &[policy.name, &format!("{:?}", denied.act)]);
            let expected = match denied.by {
                Denial::Death => Ended::Signal(libc::SIGSYS),
                Denial::Errno(errno) => Ended::Code(errno),
                Denial::Landlock => Ended::Code(libc::EACCES),
            };
            assert_eq!(ended, expected, "{}: {:?}", policy.name, denied.act);
        }
    }
}

fn the_self_check_fails_when_any_rule_is_loosened() {
    for policy in POLICIES {
        let mutants = start("mutate", &[policy.name]);
        let wrong: Vec<String> = mutants.channel.recv().unwrap().expect("the role answers");
        assert!(wrong.is_empty(), "{}: {wrong:?}", policy.name);
    }
    // A file that a loosened policy let come into being could not be removed again under it.
    let left = fs::read_dir("/tmp").unwrap().map(|entry| entry.unwrap());
    for entry in left.filter(|entry| entry.file_name().to_string_lossy().starts_with("salama-self-check-")) {
        let _ = fs::remove_file(entry.path());
    }
}

fn a_confined_process_has_no_privileges_left() {
    for policy in POLICIES {
        let process = start("wait", &[policy.name]);
        let (acts, took, abi): (usize, Duration, i32) = process.channel.recv().unwrap().expect("the role answers");
        println!("  {}: {acts} acts denied in {took:?}, landlock {abi}", policy.name);
        let status = fs::read_to_string(format!("/proc/{}/status", process.pid)).unwrap();
        let value = |key: &str| -> Vec<&str> {
            status.lines().find_map(|line| line.strip_prefix(key)).unwrap_or_else(|| panic!("no {key}")).split_whitespace().collect()
        };
        for set in ["CapInh:", "CapPrm:", "CapEff:", "CapBnd:", "CapAmb:"] {
            assert_eq!(value(set), ["0000000000000000"], "{}: {set}", policy.name);
        }
        assert_eq!(value("Uid:"), ["65534"; 4]);
        assert_eq!(value("Gid:"), ["65534"; 4]);
        assert!(value("Groups:").is_empty());
        assert_eq!(value("NoNewPrivs:"), ["1"]);
        assert_eq!(value("Seccomp:"), ["2"]);
        assert_eq!(value("Threads:"), ["1"]);
        assert_eq!(acts, denied(policy).len());
    }
}
