//! What landlock lets the core reach in the file system.

use std::fs;
use std::io;
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::path::Path;
use std::process::ExitCode;

use salama::sandbox::process::Grant;
use tempfile::TempDir;

use crate::roles::{confined, start};
use crate::runner::Test;

pub const TESTS: &[Test] = &[("the_core_reaches_only_what_was_granted", the_core_reaches_only_what_was_granted)];

/// A directory that the confined account may enter, with `state` its own, `config` to read, and things that it must not reach
/// although their permissions would let it.
pub fn playground() -> TempDir {
    let directory = TempDir::new().unwrap();
    let path = directory.path();
    for name in ["state", "config", "outside"] {
        fs::create_dir(path.join(name)).unwrap();
        chown(path.join(name), Some(65534), Some(65534)).unwrap();
    }
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
    for name in ["config/settings", "outside/secret", "state/kept"] {
        fs::write(path.join(name), "text").unwrap();
        fs::set_permissions(path.join(name), fs::Permissions::from_mode(0o666)).unwrap();
    }
    symlink(path.join("outside/secret"), path.join("state/door")).unwrap();
    directory
}

pub fn grants(directory: &Path) -> Vec<Grant> {
    vec![Grant::ReadWrite(directory.join("state")), Grant::ReadOnly(directory.join("config"))]
}

type Outcomes = Vec<(String, i32)>;

/// The role: tries each access, and says how it went.
pub fn reach(directory: &Path) -> ExitCode {
    let (_confined, channel) = confined("core", &grants(directory));
    let mut outcomes: Outcomes = Vec::new();
    let mut note = |what: &str, result: io::Result<()>| {
        outcomes.push((what.to_owned(), result.map_or_else(|error| error.raw_os_error().unwrap_or(-1), |()| 0)));
    };
    let at = |name: &str| directory.join(name);
    note("read config", fs::read(at("config/settings")).map(drop));
    note("list config", fs::read_dir(at("config")).map(drop));
    note("make in state", fs::write(at("state/new"), "x"));
    note("append in state", fs::OpenOptions::new().append(true).open(at("state/kept")).map(drop));
    note("make directory in state", fs::create_dir(at("state/call")));
    note("move within state", fs::rename(at("state/new"), at("state/call/new")));
    note("delete in state", fs::remove_file(at("state/call/new")));
    note("delete directory in state", fs::remove_dir(at("state/call")));
    note("write config", fs::write(at("config/settings"), "x"));
    note("make in config", fs::write(at("config/new"), "x"));
    note("delete config", fs::remove_file(at("config/settings")));
    note("read outside", fs::read(at("outside/secret")).map(drop));
    note("write outside", fs::OpenOptions::new().write(true).open(at("outside/secret")).map(drop));
    note("make outside", fs::write(at("outside/new"), "x"));
    note("list outside", fs::read_dir(at("outside")).map(drop));
    note("delete outside", fs::remove_file(at("outside/secret")));
    note("read through a link in state", fs::read(at("state/door")).map(drop));
    note("move out of state", fs::rename(at("state/kept"), at("outside/kept")));
    note("read own environment", fs::read("/proc/self/environ").map(drop));
    note("list the root", fs::read_dir("/").map(drop));
    note("open a device", fs::read("/dev/null").map(drop));
    channel.send(&outcomes).unwrap();
    ExitCode::SUCCESS
}

fn the_core_reaches_only_what_was_granted() {
    let directory = playground();
    let role = start("files", &[directory.path().to_str().unwrap()]);
    let outcomes: Outcomes = role.channel.recv().unwrap().expect("the role answers");
    assert_eq!(outcomes.len(), 21);
    for (index, (what, errno)) in outcomes.iter().enumerate() {
        let expected: &[i32] = match what.as_str() {
            _ if index < 8 => &[0],
            // Landlock answers EXDEV when moving would widen what may be done with the file.
            "move out of state" => &[libc::EACCES, libc::EXDEV],
            _ => &[libc::EACCES],
        };
        assert!(expected.contains(errno), "{what}: {errno}");
    }
    assert_eq!(fs::read_to_string(directory.path().join("outside/secret")).unwrap(), "text");
}
