//! A file system of a test's own in one file, so that what was deleted on it can be searched too. For root.

use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

/// Mounted until dropped.
pub struct Disk {
    folder: TempDir,
}

impl Disk {
    /// An empty ext4 of this size, reachable for all users.
    pub fn of_megabytes(size: u32) -> Self {
        let disk = Self { folder: TempDir::new().unwrap() };
        let (image, place) = (disk.image(), disk.path());
        std::fs::create_dir(&place).unwrap();
        run(Command::new("truncate").arg(format!("--size={size}M")).arg(&image), "coreutils");
        run(Command::new("mkfs.ext4").args(["-q", "-F", "-E", "root_owner=0:0"]).arg(&image), "e2fsprogs");
        run(Command::new("mount").args(["-o", "loop"]).arg(&image).arg(&place), "mount (as root, with loop devices)");
        run(Command::new("chmod").arg("711").arg(disk.folder.path()).arg(&place), "coreutils");
        disk
    }

    /// Where it is mounted.
    pub fn path(&self) -> PathBuf {
        self.folder.path().join("mounted")
    }

    /// Every block of it, as it lies on the medium once [`Self::flush`] has returned.
    pub fn image(&self) -> PathBuf {
        self.folder.path().join("image")
    }

    /// The folder that holds both.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Writes out what the kernel still holds back.
    pub fn flush(&self) {
        run(Command::new("sync").arg("--file-system").arg(self.path()), "coreutils");
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(self.path()).status();
    }
}

fn run(command: &mut Command, package: &str) {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?} ({error}): apt-get install {package}"));
    assert!(output.status.success(), "{command:?} needs {package}: {}", String::from_utf8_lossy(&output.stderr));
}
