//! The steps before confinement, and what keeps a process from being confined at all.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::process::ExitCode;
use std::thread;

use nix::sys::resource::Resource;
use nix::unistd::{Gid, Uid, setgroups, setresgid, setresuid};
use salama::ipc::CHANNEL_FD;
use salama::ipc::channel::Channel;
use salama::sandbox::landlock::LandlockError;
use salama::sandbox::policy;
use salama::sandbox::privilege::PrivilegeError;
use salama::sandbox::process::{ConfineError, Unprivileged, harden};
use salama::sys::descriptors::take_inherited;
use salama::sys::limits::set_limit;
use seccompiler::{BpfProgram, SeccompAction, SeccompFilter};

use crate::roles::{NOBODY, start, unprivileged};
use crate::runner::Test;

pub const TESTS: &[Test] = &[
    ("nothing_serves_as_root", nothing_serves_as_root),
    ("the_account_root_is_refused_by_any_name", the_account_root_is_refused_by_any_name),
    ("an_unknown_account_is_refused_by_name", an_unknown_account_is_refused_by_name),
    ("an_ordinary_account_stays_what_it_is", an_ordinary_account_stays_what_it_is),
    ("an_ordinary_account_cannot_become_another", an_ordinary_account_cannot_become_another),
    ("memory_that_may_not_be_locked_is_an_error", memory_that_may_not_be_locked_is_an_error),
    ("threads_before_confinement_are_an_error", threads_before_confinement_are_an_error),
    ("a_kernel_whose_landlock_is_hidden_is_an_error", a_kernel_whose_landlock_is_hidden_is_an_error),
    ("a_hardened_process_keeps_nothing_open_and_leaves_no_dump", a_hardened_process_keeps_nothing_open_and_leaves_no_dump),
];

fn nothing_serves_as_root() {
    says("root", "Root");
}

fn the_account_root_is_refused_by_any_name() {
    says("root-by-number", "Root");
}

fn an_unknown_account_is_refused_by_name() {
    says("unknown", "UnknownUser");
}

fn an_ordinary_account_stays_what_it_is() {
    says("ordinary", "65534");
}

fn an_ordinary_account_cannot_become_another() {
    says("ordinary-other", "NotRoot");
}

fn memory_that_may_not_be_locked_is_an_error() {
    says("memory-limit", "Lock");
}

fn threads_before_confinement_are_an_error() {
    says("threads", "Threads");
}

fn a_kernel_whose_landlock_is_hidden_is_an_error() {
    says("no-landlock", "Absent");
}

fn says(how: &str, expected: &str) {
    let role = start("prepare", &[how]);
    let said: String = role.channel.recv().unwrap().expect("the role answers");
    assert_eq!(said, expected);
}

/// The role: prepares in one way, and says how it went.
pub fn prepare(how: &str) -> ExitCode {
    let dropped = |user| tell(harden(&[CHANNEL_FD]).unwrap().drop_privileges(user));
    let said = match how {
        "root" => dropped(None),
        "root-by-number" => dropped(Some("0")),
        "unknown" => dropped(Some("salama-nobody-has-this-name")),
        "ordinary" => {
            become_nobody();
            dropped(None)
        }
        "ordinary-other" => {
            become_nobody();
            dropped(Some("1"))
        }
        "memory-limit" => {
            become_nobody();
            set_limit(Resource::RLIMIT_MEMLOCK, 4096, 4096).unwrap();
            harden(&[CHANNEL_FD]).unwrap().lock_memory().map_or_else(|error| format!("{error:?}"), |_| "locked".into())
        }
        "threads" => {
            let _thread = thread::spawn(thread::park);
            confine(unprivileged())
        }
        "no-landlock" => {
            let unprivileged = unprivileged();
            hide_landlock();
            confine(unprivileged)
        }
        "hardened" => return hardened(),
        other => panic!("no such preparation: {other}"),
    };
    let name = said.split(|letter: char| !letter.is_alphanumeric()).next().unwrap_or_default();
    Channel::from_fd(take_inherited(CHANNEL_FD).unwrap()).send(&name).unwrap();
    ExitCode::SUCCESS
}

fn tell(dropped: Result<Unprivileged, PrivilegeError>) -> String {
    match dropped {
        Ok(_) => nix::unistd::getuid().to_string(),
        Err(error) => format!("{error:?}"),
    }
}

fn confine(unprivileged: Unprivileged) -> String {
    match unprivileged.confine(&policy::keeper::POLICY, &[]) {
        Ok(_) => "confined".into(),
        Err(ConfineError::Landlock(LandlockError::Absent)) => "Absent".into(),
        Err(error) => format!("{error:?}"),
    }
}

fn become_nobody() {
    let id = NOBODY.parse().unwrap();
    setgroups(&[]).unwrap();
    setresgid(Gid::from_raw(id), Gid::from_raw(id), Gid::from_raw(id)).unwrap();
    setresuid(Uid::from_raw(id), Uid::from_raw(id), Uid::from_raw(id)).unwrap();
}

/// As a service manager does whose list of system calls is older than landlock.
fn hide_landlock() {
    let hidden: BTreeMap<_, _> = [(libc::SYS_landlock_create_ruleset, Vec::new())].into();
    let filter = SeccompFilter::new(
        hidden,
        SeccompAction::Allow,
        SeccompAction::Errno(u32::try_from(libc::EPERM).unwrap()),
        std::env::consts::ARCH.try_into().unwrap(),
    );
    seccompiler::apply_filter(&BpfProgram::try_from(filter.unwrap()).unwrap()).unwrap();
}

/// Opens strays, hardens, locks its memory and works in it, and waits to be looked at.
fn hardened() -> ExitCode {
    let strays: Vec<fs::File> = (0..5).map(|_| fs::File::open("/proc/self/status").unwrap()).collect();
    // `harden` closes them under their owners, which must not close the numbers again.
    std::mem::forget(strays);
    let hardened = harden(&[CHANNEL_FD]).unwrap();
    hardened.lock_memory().unwrap();
    let _unprivileged = hardened.drop_privileges(Some(NOBODY)).unwrap();
    let channel = Channel::from_fd(take_inherited(CHANNEL_FD).unwrap());
    let mut work: Vec<Vec<u8>> = (0..10).map(|_| vec![1; 300_000]).collect();
    work.iter_mut().for_each(|block| block.resize(310_000, 2));
    assert!(deep(400) > 0);
    channel.send(&"ready").unwrap();
    channel.recv::<()>().unwrap();
    ExitCode::SUCCESS
}

/// Half a kilobyte of stack a level, at least.
fn deep(levels: u32) -> u32 {
    let area = std::hint::black_box([1_u8; 512]);
    if levels == 0 { u32::from(area[0]) } else { deep(levels - 1) + u32::from(area[511]) }
}

fn a_hardened_process_keeps_nothing_open_and_leaves_no_dump() {
    let role = start("prepare", &["hardened"]);
    assert_eq!(role.channel.recv::<String>().unwrap().as_deref(), Some("ready"));
    let process = |file: &str| format!("/proc/{}/{file}", role.pid);
    let mut open: Vec<String> =
        fs::read_dir(process("fd")).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    open.sort();
    assert_eq!(open, ["0", "1", "2", "3"]);
    let status = fs::read_to_string(process("status")).unwrap();
    let locked = status.lines().find_map(|line| line.strip_prefix("VmLck:")).unwrap();
    let kilobytes: u64 = locked.trim().trim_end_matches(" kB").parse().unwrap();
    assert!(kilobytes > 4096, "{locked}");
    assert!(status.lines().any(|line| line == "Umask:\t0077"));
    let limits = fs::read_to_string(process("limits")).unwrap();
    let cores = limits.lines().find_map(|line| line.strip_prefix("Max core file size")).unwrap();
    assert_eq!(cores.split_whitespace().take(2).collect::<Vec<_>>(), ["0", "0"]);
    // The kernel gives the files of an undumpable process to root.
    assert!(status.contains("Uid:\t65534"));
    assert_eq!(fs::metadata(process("status")).unwrap().uid(), 0);
}
