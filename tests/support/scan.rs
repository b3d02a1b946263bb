//! Looks for words and keys in everything that a run has left behind.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use nix::unistd::User;

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

/// Whether `needle` occurs in `bytes`, whatever the case of ASCII letters.
pub fn contains_any_case(bytes: &[u8], needle: &str) -> bool {
    bytes.windows(needle.len()).any(|window| window.eq_ignore_ascii_case(needle.as_bytes()))
}

/// By so much a file's time may be before the clock's: the kernel takes it from its last tick.
pub const CLOCK_STEP: Duration = Duration::from_millis(50);

/// Files of the daemon's users that were written since `began` where programs leave temporary files. What vanishes meanwhile is not theirs
/// to leave.
pub fn files_of_ours_since(began: SystemTime) -> Vec<PathBuf> {
    let users =
        ["salama", "salama-keeper", "salama-worker"].map(|name| User::from_name(name).unwrap().expect("run `make setup`").uid.as_raw());
    let mut files = Vec::new();
    let mut folders: Vec<PathBuf> = ["/tmp", "/var/tmp", "/dev/shm", "/run"].map(PathBuf::from).into();
    while let Some(folder) = folders.pop() {
        for path in fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path()) {
            let Ok(about) = fs::symlink_metadata(&path) else { continue };
            let ours = users.contains(&about.uid()) && about.modified().is_ok_and(|modified| modified + CLOCK_STEP >= began);
            match about.file_type() {
                kind if kind.is_dir() => folders.push(path),
                kind if kind.is_file() && ours => files.push(path),
                _ => {}
            }
        }
    }
    files
}
