//! A bounded run of every fuzz target: its seeds and some thousand bent inputs, the same each time.
//! Trusts: the program `fuzz`, which `cargo test` builds with the tests.
//! Touches: `target/fuzz`, where findings are left.
//! Next: `fuzz/README.md` tells how to run one for hours, and what to do with a finding.

#![allow(clippy::panic, clippy::print_stdout, clippy::unwrap_used, reason = "a test says what it expects, loudly")]

use std::path::PathBuf;
use std::process::{Command, Output};

/// The program of all targets.
fn fuzz(arguments: &[&str]) -> Output {
    let own = std::env::current_exe().unwrap();
    let program: PathBuf = own.ancestors().nth(2).unwrap().join("examples/fuzz");
    let ran = Command::new(&program).args(arguments).output();
    ran.unwrap_or_else(|error| panic!("{} cannot be run ({error}): cargo build --example fuzz", program.display()))
}

fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

fn holds(target: &str) {
    let output = fuzz(&["smoke", target]);
    let told = text(&output);
    assert!(output.status.success(), "{target} ended with {}; its latest input is in target/fuzz/{target}\n{told}", output.status);
    print!("{told}");
}

macro_rules! targets {
    ($(fn $rule:ident runs $name:ident;)*) => {
        $(#[test]
        fn $rule() {
            holds(stringify!($name));
        })*

        /// In the order of `fuzz list`.
        const NAMES: &[&str] = &[$(stringify!($name)),*];
    };
}

targets! {
    fn any_frame_between_core_and_keeper_is_a_message_or_refused runs ipc_keeper;
    fn any_frame_between_core_and_worker_is_a_message_or_refused runs ipc_worker;
    fn any_words_of_a_child_are_judged runs child_words;
    fn any_form_gives_the_same_parts_however_it_is_cut runs multipart;
    fn any_metadata_is_refused_or_within_its_bounds runs metadata;
    fn any_certificate_names_nobody_or_one_known_role runs certificate;
    fn any_certificate_request_is_refused_or_certified_as_told runs certificate_request;
    fn any_bytes_are_recognised_or_not runs recognise;
    fn any_wav_header_announces_what_is_there_or_is_refused runs wav;
    fn any_au_header_announces_what_is_there_or_is_refused runs au;
    fn any_mp4_boxes_are_walked_in_bounded_steps runs mp4;
    fn any_webm_elements_are_walked_in_bounded_steps runs matroska;
    fn any_flac_blocks_are_walked_in_bounded_steps runs flac;
    fn any_ogg_pages_are_walked_in_bounded_steps runs ogg;
    fn any_bits_of_gsm_are_a_sound runs gsm;
    fn any_recording_ends_in_samples_or_a_reason runs decode;
    fn any_declared_samples_are_read_whole_or_refused runs samples;
    fn any_text_is_redacted_without_the_number_in_it runs redaction;
    fn any_manifest_names_plain_files_or_is_refused runs manifest;
    fn any_graph_is_loaded_or_refused runs graph;
    fn any_ct2_checkpoint_is_read_or_refused runs ct2;
    fn any_safetensors_checkpoint_is_read_or_refused runs safetensors;
    fn no_bent_record_opens runs envelope;
    fn no_bent_recording_is_read runs segments;
    fn any_stored_row_is_its_value_or_refused runs rows;
    fn no_bent_keyslot_counts runs keyslot;
    fn any_typed_code_is_refused_or_whole runs printed_code;
    fn no_bent_keyring_counts runs keyring;
    fn no_bent_wrapped_key_opens runs wrapped_key;
    fn no_bent_page_of_a_ledger_counts runs ledger;
    fn no_bent_leave_counts runs leave;
    fn any_note_of_a_set_up_is_whole_or_refused runs set_up_note;
    fn any_limits_are_within_their_borders_or_refused runs key_limits;
    fn any_settings_are_taken_or_refused_with_their_faults runs config;
}

#[test]
fn every_target_has_its_run() {
    assert_eq!(text(&fuzz(&["list"])).lines().collect::<Vec<_>>(), NAMES);
}

/// The input that a run left behind, if it still breaks the promise.
fn replayed(target: &str, told: &str) -> bool {
    let path = told.lines().find_map(|line| line.strip_prefix("replay: ")?.rsplit(' ').next()).unwrap_or_else(|| panic!("{told}"));
    !fuzz(&["replay", target, path]).status.success()
}

#[test]
fn a_planted_panic_is_found_and_its_input_kept() {
    let output = fuzz(&["smoke", "planted_panic"]);
    let told = text(&output);
    assert!(output.status.code() == Some(1) && told.contains("out of range"), "{told}");
    assert!(replayed("planted_panic", &told), "{told}");
}

#[test]
fn a_planted_hoard_of_memory_is_found_and_its_input_kept() {
    let output = fuzz(&["smoke", "planted_hoard"]);
    let told = text(&output);
    assert!(output.status.code() == Some(1) && told.contains("bytes of heap"), "{told}");
    assert!(replayed("planted_hoard", &told), "{told}");
}

#[test]
fn a_planted_overflow_of_the_stack_leaves_its_input() {
    let output = fuzz(&["smoke", "planted_overflow"]);
    assert!(output.status.code().is_none(), "{}", text(&output));
    let own = std::env::current_exe().unwrap();
    let left = own.ancestors().nth(3).unwrap().join("fuzz/planted_overflow/running-2026");
    assert!(!fuzz(&["replay", "planted_overflow", left.to_str().unwrap()]).status.success());
}
