//! What each built program carries, and what it must not: read from its symbols and needed libraries.

#![allow(
    clippy::as_conversions,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test says what it expects, loudly"
)]

use std::path::{Path, PathBuf};
use std::process::Command;

fn program(name: &str) -> PathBuf {
    Path::new(env!("CARGO_BIN_EXE_salama")).with_file_name(name)
}

fn output(tool: &str, arguments: &[&str], file: &Path) -> String {
    let ran =
        Command::new(tool).args(arguments).arg(file).output().unwrap_or_else(|_| panic!("{tool} is missing: apt-get install binutils"));
    assert!(ran.status.success(), "{tool}: {}", String::from_utf8_lossy(&ran.stderr));
    String::from_utf8_lossy(&ran.stdout).into_owned()
}

/// The demangled symbols of a program.
fn symbols(name: &str) -> String {
    output("nm", &["--demangle=rust"], &program(name))
}

fn needed(name: &str) -> Vec<String> {
    let dynamic = output("readelf", &["--dynamic"], &program(name));
    dynamic
        .lines()
        .filter(|line| line.contains("(NEEDED)"))
        .filter_map(|line| Some(line.split_once('[')?.1.trim_end_matches(']').to_owned()))
        .collect()
}

/// Crates whose code `name` carries, among `crates`. The linker gives one piece of drop glue the names of all types that it
/// fits, also of types that are not there: those names alone are no code of the crate.
fn carries(name: &str, crates: &[&str]) -> Vec<String> {
    let symbols = symbols(name);
    let code: Vec<&str> = symbols.lines().filter(|line| !line.contains("drop_in_place<")).collect();
    let found =
        |krate: &&&str| code.iter().any(|line| [format!(" {krate}::"), format!("<{krate}::")].iter().any(|path| line.contains(path)));
    crates.iter().filter(found).map(|krate| (*krate).to_owned()).collect()
}

const C_LIBRARY: &[&str] = &["libc.so.6", "libm.so.6", "libgcc_s.so.1", "ld-linux-x86-64.so.2"];

#[test]
fn the_worker_carries_no_tls_tpm_or_database_code() {
    assert_eq!(carries("salama-worker", &["rustls", "tokio_rustls", "tss_esapi", "redb", "hyper", "axum", "tokio", "rcgen"]), [""; 0]);
}

#[test]
fn the_core_carries_no_tpm_audio_or_model_code() {
    assert_eq!(
        carries(
            "salamad",
            &[
                "tss_esapi",
                "tss_esapi_sys",
                "symphonia_core",
                "symphonia_codec_aac",
                "tract_core",
                "tract_onnx",
                "rubato",
                "lingua",
                "rcgen"
            ]
        ),
        [""; 0]
    );
}

#[test]
fn the_keeper_carries_no_server_database_audio_or_model_code() {
    assert_eq!(carries("salama-keeper", &["hyper", "axum", "tokio", "redb", "symphonia_core", "tract_core", "rustls"]), [""; 0]);
}

#[test]
fn the_search_sees_the_code_that_is_there() {
    assert_eq!(carries("salama-worker", &["tract_core", "symphonia_core"]).len(), 2);
    assert_eq!(carries("salamad", &["rustls", "redb"]).len(), 2);
    assert_eq!(carries("salama-keeper", &["tss_esapi"]).len(), 1);
}

#[test]
fn only_the_keeper_links_the_tpm_library_and_the_core_no_c_library_but_libc() {
    for name in ["salamad", "salama-worker"] {
        let foreign: Vec<String> = needed(name).into_iter().filter(|library| !C_LIBRARY.contains(&library.as_str())).collect();
        assert_eq!(foreign, [""; 0], "{name}");
    }
    assert!(needed("salama-keeper").iter().any(|library| library.starts_with("libtss2-esys")));
    assert!(!needed("salama").iter().any(|library| library.starts_with("libtss2")));
}
