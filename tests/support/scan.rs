//! Looks for words and keys in everything that a run has left behind.

use std::fs;
use std::path::{Path, PathBuf};

/// Every regular file below `folder`.
pub fn files_below(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let kind = fs::symlink_metadata(&path).unwrap();
        if kind.is_dir() {
            files.extend(files_below(&path));
        } else if kind.is_file() {
            files.push(path);
        }
    }
    files
}

/// Whether `needle` occurs in `bytes`.
pub fn contains(bytes: &[u8], needle: &[u8]) -> bool {
    !needle.is_empty() && bytes.windows(needle.len()).any(|window| window == needle)
}

/// Whether `needle` occurs in `bytes`, whatever the case of ASCII letters.
pub fn contains_any_case(bytes: &[u8], needle: &str) -> bool {
    bytes.windows(needle.len()).any(|window| window.eq_ignore_ascii_case(needle.as_bytes()))
}

/// The files below `folder` in which one of `words` occurs, with the word.
pub fn files_with(folder: &Path, words: &[&str]) -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    for file in files_below(folder) {
        let bytes = fs::read(&file).unwrap();
        found.extend(words.iter().filter(|word| contains_any_case(&bytes, word)).map(|word| (file.clone(), (*word).to_owned())));
    }
    found
}
