//! The direction of the house: which module may name which. The list is the table in `src/lib.rs`.

#![allow(
    clippy::as_conversions,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test says what it expects, loudly"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// Longest file of the house, lines; past it a noun wants out.
const FILE_LINES_MAX: usize = 600;

fn source() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

fn rust_files(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(rust_files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files
}

/// The table of `src/lib.rs`: rows `//! | module | may name |` between the two markers.
fn allowed_arrows() -> BTreeMap<String, BTreeSet<String>> {
    let lib = fs::read_to_string(source().join("lib.rs")).unwrap();
    lib.lines()
        .filter_map(|line| line.strip_prefix("//! | `"))
        .filter_map(|row| row.split_once("` |"))
        .map(|(module, names)| {
            let named = names.split('`').skip(1).step_by(2).map(str::to_owned).collect();
            (module.to_owned(), named)
        })
        .collect()
}

/// Modules that a text names as `crate::x` or inside `use crate::{x, y}`.
fn named_modules(text: &str) -> BTreeSet<String> {
    let mut named = BTreeSet::new();
    for line in text.lines().map(str::trim_start).filter(|line| !line.starts_with("//")) {
        for rest in line.split("crate::").skip(1) {
            let group = rest.strip_prefix('{').map_or(rest, |group| group.split('}').next().unwrap_or(group));
            let parts: Vec<&str> = if rest.starts_with('{') { group.split(',').collect() } else { vec![group] };
            named.extend(parts.iter().map(|part| first_word(part)).filter(|word| !word.is_empty()));
        }
    }
    named
}

fn first_word(path: &str) -> String {
    path.trim().chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '_').collect()
}

#[test]
fn modules_name_only_what_the_table_in_lib_rs_allows() {
    let allowed = allowed_arrows();
    assert!(allowed.len() > 15, "the table of arrows in src/lib.rs was not found");
    let mut wrong = Vec::new();
    for (module, may) in &allowed {
        for file in rust_files(&source().join(module)) {
            for named in named_modules(&fs::read_to_string(&file).unwrap()) {
                if named != *module && !may.contains(&named) {
                    wrong.push(format!("{}: names crate::{named}, which `{module}` may not", file.display()));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_module_is_in_the_table_and_the_table_has_no_cycle() {
    let allowed = allowed_arrows();
    let lib = fs::read_to_string(source().join("lib.rs")).unwrap();
    let mut modules: BTreeSet<String> =
        lib.lines().filter_map(|line| line.strip_prefix("pub mod ")?.strip_suffix(';')).map(str::to_owned).collect();
    // Of one program each, so that no other can carry their code.
    modules.extend(["cli", "keeper", "model", "worker"].map(str::to_owned));
    assert_eq!(modules, allowed.keys().cloned().collect());

    let mut left = allowed;
    while !left.is_empty() {
        let done: BTreeSet<String> =
            left.iter().filter(|(_, may)| !may.iter().any(|name| left.contains_key(name))).map(|(name, _)| name.clone()).collect();
        assert!(!done.is_empty(), "these modules name each other in a circle: {:?}", left.keys());
        left.retain(|name, _| !done.contains(name));
    }
}

#[test]
fn unsafe_stands_only_in_sys() {
    let sys = source().join("sys");
    for file in rust_files(&source()).iter().filter(|file| !file.starts_with(&sys)) {
        let text = fs::read_to_string(file).unwrap();
        let found = text.lines().find(|line| {
            !line.trim_start().starts_with("//")
                && (line.contains("unsafe {") || line.contains("unsafe fn") || line.contains("unsafe impl"))
        });
        assert_eq!(found, None, "{}", file.display());
    }
}

#[test]
fn every_unsafe_site_has_its_safety_note() {
    for file in rust_files(&source().join("sys")) {
        let text = fs::read_to_string(&file).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        for (number, line) in lines.iter().enumerate().filter(|(_, line)| line.contains("unsafe {") && !line.trim_start().starts_with("//"))
        {
            let above = lines[number.saturating_sub(6)..=number].iter().any(|line| line.contains("// SAFETY:"));
            assert!(above, "{}:{}: {line}", file.display(), number + 1);
        }
    }
}

#[test]
fn every_file_says_what_it_does_trusts_touches_and_leads_to() {
    for file in rust_files(&source()).into_iter().chain(rust_files(&source().with_file_name("fuzz"))) {
        let text = fs::read_to_string(&file).unwrap();
        let header: Vec<&str> = text.lines().take_while(|line| line.starts_with("//!")).collect();
        if file.ends_with("lib.rs") {
            continue;
        }
        for word in ["//! Trusts:", "//! Touches:", "//! Next:"] {
            assert!(header.iter().any(|line| line.starts_with(word)), "{} has no line `{word}` in its header", file.display());
        }
    }
}

#[test]
fn no_file_outgrows_the_house() {
    for file in rust_files(&source()) {
        let lines = fs::read_to_string(&file).unwrap().lines().count();
        assert!(lines <= FILE_LINES_MAX, "{} has {lines} lines; look for the noun that wants out", file.display());
    }
}

/// `file.rs::name` in backticks, as SECURITY.md and the documents name a test.
fn named_tests(text: &str) -> BTreeSet<(&str, &str)> {
    let quoted = text.split('`').skip(1).step_by(2);
    quoted.filter_map(|word| word.split_once("::")).filter(|(file, _)| file.ends_with(".rs")).collect()
}

/// A function that a test harness runs: one with an attribute that says so, in a list of [`runner`] or in a table of targets.
fn is_test(text: &str, name: &str) -> bool {
    let lines: Vec<&str> = text.lines().map(str::trim).collect();
    lines.iter().enumerate().any(|(number, line)| {
        let declared = line.split_once("fn ").is_some_and(|(_, rest)| {
            rest.strip_prefix(name)
                .is_some_and(|rest| rest.starts_with(['(', ' ']) && (rest.starts_with('(') || rest.starts_with(" runs ")))
        });
        let attributes = lines[..number].iter().rev().take_while(|above| above.starts_with("#[") || above.starts_with("//"));
        declared
            && (line.contains(" runs ")
                || attributes.clone().any(|above| above.contains("test"))
                || text.contains(&format!("(\"{name}\", {name})"))
                || text.contains(&format!("\"{name}\",\n        {name},"))
                || text.contains("proptest! {"))
    })
}

#[test]
fn every_test_that_a_document_names_is_there() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut documents: Vec<PathBuf> = ["SECURITY.md", "README.md", "fuzz/README.md"].map(|name| root.join(name)).into();
    for folder in ["docs", "docs/adr"] {
        documents.extend(
            fs::read_dir(root.join(folder))
                .unwrap()
                .map(|entry| entry.unwrap().path())
                .filter(|path| path.extension().is_some_and(|ending| ending == "md")),
        );
    }
    let (mut named, mut wrong) = (0, Vec::new());
    for document in documents {
        let text = fs::read_to_string(&document).unwrap();
        for (file, name) in named_tests(&text) {
            named += 1;
            let path = if ["tests/", "fuzz/", "benches/"].iter().any(|folder| file.starts_with(folder)) {
                root.join(file)
            } else {
                source().join(file)
            };
            if !fs::read_to_string(path).is_ok_and(|text| is_test(&text, name)) {
                wrong.push(format!("{}: {file}::{name}", document.display()));
            }
        }
    }
    assert!(named > 150, "only {named} names were found");
    assert!(wrong.is_empty(), "no such test:\n{}", wrong.join("\n"));
}
