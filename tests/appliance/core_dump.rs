//! A crash leaves no picture of a process's memory: not as a file, and not with a program that the kernel's core pattern names.

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant, SystemTime};

use tempfile::TempDir;

use crate::crash::until_at;
use crate::support::appliance::Appliance;
use crate::support::needles::Needles;
use crate::support::plants;
use crate::support::process::signal;
use crate::support::scan::CLOCK_STEP;

/// A program that takes a core dump ignores `RLIMIT_CORE` (core(5)): what keeps it away is that the process cannot be dumped, which the
/// kernel shows by giving its folder in /proc to root (proc(5)).
fn leaves_no_dump(pid: u32) -> Result<(), String> {
    let limits = fs::read_to_string(format!("/proc/{pid}/limits")).unwrap();
    let limit =
        limits.lines().find_map(|line| line.strip_prefix("Max core file size")).unwrap().split_whitespace().take(2).collect::<Vec<_>>();
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let user: u32 = status.lines().find_map(|line| line.strip_prefix("Uid:")).unwrap().split_whitespace().next().unwrap().parse().unwrap();
    let owner = fs::metadata(format!("/proc/{pid}/environ")).unwrap().uid();
    if limit == ["0", "0"] && user != 0 && owner == 0 {
        return Ok(());
    }
    Err(format!("{pid}: core file limit {limit:?}, user {user}, owner {owner}"))
}

/// Core files that were written since `began` where the kernel would put them.
fn core_files(began: SystemTime, folders: &[&Path]) -> Vec<PathBuf> {
    let pattern = fs::read_to_string("/proc/sys/kernel/core_pattern").unwrap();
    let named = Path::new(pattern.trim()).parent().filter(|folder| folder.is_absolute()).map(Path::to_owned);
    let folders = folders.iter().map(|folder| (*folder).to_owned()).chain(named).chain([PathBuf::from("/")]);
    let entries = folders.flat_map(|folder| fs::read_dir(folder).unwrap()).map(|entry| entry.unwrap().path());
    let new = |path: &PathBuf| fs::metadata(path).is_ok_and(|about| about.is_file() && about.modified().unwrap() + CLOCK_STEP >= began);
    entries.filter(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("core"))).filter(new).collect()
}

fn until_gone(pid: u32) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while Path::new(&format!("/proc/{pid}/exe")).exists() {
        assert!(Instant::now() < deadline, "{pid} does not end");
        std::thread::yield_now();
    }
}

#[test]
fn no_process_can_be_dumped_and_none_that_crashes_is() {
    let began = SystemTime::now();
    let folder = TempDir::new().unwrap();
    let long = plants::spoken(folder.path(), "The crocodile and the rhinoceros were hiding.", 8);
    let mut appliance = Appliance::start();
    let client = appliance.client("counsellor", "dump");
    let call = client.accepted_call(&long.file);
    until_at(&client, &call, "speech");
    let [worker] = Appliance::children_of(appliance.pid(), "salama-worker")[..] else { panic!("no fork server") };
    let [keeper] = Appliance::children_of(appliance.pid(), "salama-keeper")[..] else { panic!("no keeper") };
    let [child] = Appliance::children_of(worker, "salama")[..] else { panic!("no child") };
    let states = [child, worker, keeper, appliance.pid()].map(leaves_no_dump);

    // The child while it holds a recording, then the others while they hold what they hold.
    // Not SEGV: the first of those that no fault explains is taken by the language's own handler.
    signal(child, "ABRT");
    assert_eq!(client.finished(&call)["failure"], "worker_died");
    signal(keeper, "ABRT");
    let ended = appliance.ended();
    until_gone(worker);
    appliance.run();
    signal(appliance.pid(), "ABRT");
    let crashed = appliance.ended();

    assert_eq!(states, [Ok(()), Ok(()), Ok(()), Ok(())]);
    assert_eq!((ended.core_dumped(), crashed.signal(), crashed.core_dumped()), (false, Some(6), false));
    let folders = [Path::new("."), &appliance.state(), &appliance.path("")];
    assert_eq!(core_files(began, &folders), Vec::<PathBuf>::new());
    for folder in folders {
        assert_eq!(fs::metadata(folder).map(|about| about.is_dir()).ok(), Some(true));
    }
}

/// A process as any other, with a word in its memory.
fn ordinary(folder: &Path, word: &str) -> Child {
    use std::io::Write as _;
    fs::set_permissions(folder, Permissions::from_mode(0o777)).unwrap();
    let script = "ulimit -c unlimited; read word; echo ready; read end";
    let mut command = Command::new("setpriv");
    command.args(["--reuid=salama", "--regid=salama", "--clear-groups", "sh", "-c", script]).current_dir(folder);
    let mut process = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("setpriv is missing: apt-get install util-linux");
    writeln!(process.stdin.as_mut().unwrap(), "{word}").unwrap();
    let mut ready = [0; 6];
    std::io::Read::read_exact(process.stdout.as_mut().unwrap(), &mut ready).unwrap();
    process
}

#[test]
fn the_same_look_at_an_ordinary_process_finds_that_it_is_dumped() {
    let began = SystemTime::now();
    let folder = TempDir::new().unwrap();
    let name = plants::name();
    let mut needles = Needles::default();
    needles.word(&name);
    let mut process = ordinary(folder.path(), &name);

    let state = leaves_no_dump(process.id());
    signal(process.id(), "SEGV");
    let ended = process.wait().unwrap();

    assert!(state.is_err(), "{state:?}");
    assert!(ended.core_dumped(), "{ended:?}");
    let pattern = fs::read_to_string("/proc/sys/kernel/core_pattern").unwrap();
    // With a program as the pattern the dump is wherever that program puts it.
    let found = core_files(began, &[folder.path()]).iter().any(|file| needles.search().file(file).contains(&name));
    assert!(found || pattern.starts_with('|'), "{pattern}");
}
