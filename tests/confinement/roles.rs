//! What this executable does when it is started again: confine itself by a shipped policy and act.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Duration;

use salama::ipc::CHANNEL_FD;
use salama::ipc::channel::Channel;
use salama::sandbox::policy::{self, Allowed, Denial, Denied, Policy, When, child, core, forkserver};
use salama::sandbox::process::{Confined, Confinement, Grant, Unprivileged, harden};
use salama::sandbox::self_check;
use salama::supervisor::forkserver::HUGE_PAGES;
use salama::supervisor::program::{self, Started};
use salama::sys::attempt::Attempt;
use salama::sys::descriptors::take_inherited;
use salama::sys::pidfd::{Ended, PidFd};
use salama::sys::process::{SingleThreaded, exit_now, start_with_descriptor};

use crate::{exercises, files, keeper, preparation, toy};

/// The account that confined processes run as.
pub const NOBODY: &str = "65534";

pub const POLICIES: [&Policy; 8] = [
    &core::POLICY,
    &policy::keeper::POLICY,
    &policy::keeper::DEVICE,
    &policy::keeper::SOFTWARE,
    &policy::keeper::KEYS_DEVICE,
    &policy::keeper::KEYS_SOFTWARE,
    &forkserver::POLICY,
    &child::POLICY,
];

pub fn policy_named(name: &str) -> &'static Policy {
    POLICIES.into_iter().find(|policy| policy.name == name).expect("a policy has this name")
}

pub fn denied(policy: &'static Policy) -> Vec<Denied> {
    policy.denied.iter().copied().flatten().copied().collect()
}

/// Starts a role; its words come over the channel or as its exit.
pub fn start(role: &str, arguments: &[&str]) -> Started {
    let me = std::env::current_exe().unwrap();
    let started = program::spawn_with(&me, ["--role", role].iter().chain(arguments), &[HUGE_PAGES]).unwrap();
    started.channel.set_receive_timeout(Some(Duration::from_secs(60))).unwrap();
    started
}

/// As [`start`], with standard error in a file.
pub fn start_writing(role: &str, stderr: File) -> Started {
    let (ours, theirs) = Channel::pair().unwrap();
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--role", role]).env_clear().envs([HUGE_PAGES]).stderr(stderr);
    let pid = start_with_descriptor(command, theirs.into_fd(), CHANNEL_FD).unwrap().id();
    let process = PidFd::open(nix::unistd::Pid::from_raw(i32::try_from(pid).unwrap())).unwrap();
    ours.set_receive_timeout(Some(Duration::from_secs(60))).unwrap();
    Started { channel: ours, pid, process }
}

/// Starts a role that says nothing, and waits for its end.
pub fn ending(role: &str, arguments: &[&str]) -> Ended {
    start(role, arguments).process.wait().unwrap()
}

pub fn play(arguments: &[String]) -> ExitCode {
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments.as_slice() {
        ["act", policy, act] => act_confined(policy, act),
        ["mutate", policy] => mutate(policy),
        ["wait", policy] => wait(policy),
        ["files", directory] => files::reach(Path::new(directory)),
        ["core", directory] => exercises::core(Path::new(directory)),
        ["keeper"] => exercises::keeper(),
        ["keeper-of-keys", policy, directory] => keeper::serve(policy, Path::new(directory)),
        ["fork-server"] => toy::fork_server(),
        ["prepare", how] => preparation::prepare(how),
        other => panic!("no such role: {other:?}"),
    }
}

pub fn unprivileged() -> Unprivileged {
    harden(&[CHANNEL_FD]).unwrap().drop_privileges(Some(NOBODY)).unwrap()
}

pub fn confined(policy_name: &str, grants: &[Grant]) -> (Confined, Channel) {
    let unprivileged = unprivileged();
    let channel = Channel::from_fd(take_inherited(CHANNEL_FD).unwrap());
    (unprivileged.confine(policy_named(policy_name), grants).unwrap(), channel)
}

/// Confined without the self-check, does one act: dies of it, or exits with its error number.
fn act_confined(policy_name: &str, act: &str) -> ! {
    let _unprivileged = unprivileged();
    let policy = policy_named(policy_name);
    let act = denied(policy).into_iter().find(|denied| format!("{:?}", denied.act) == act).unwrap().act;
    let attempt = Attempt::new(act);
    Confinement::prepare(policy, &[]).unwrap().apply().unwrap();
    exit_now(match attempt.perform() {
        Ok(()) => 0,
        Err(errno) => u8::try_from(errno as i32).unwrap(),
    })
}

/// For each denied act: the shipped policy passes the self-check for it, and the policy loosened by that act fails it.
/// Says over the channel which acts did not.
fn mutate(policy_name: &str) -> ExitCode {
    let _unprivileged = unprivileged();
    let channel = Channel::from_fd(take_inherited(CHANNEL_FD).unwrap());
    let policy = policy_named(policy_name);
    let single = SingleThreaded::prove().unwrap();
    let passes =
        |policy: &'static Policy, grants: &[Grant]| self_check::run(&single, &Confinement::prepare(policy, grants).unwrap()).is_ok();
    let mut wrong: Vec<String> = Vec::new();
    for denied in denied(policy) {
        let one: &'static [&'static [Denied]] = Vec::leak(vec![&*Vec::leak(vec![denied])]);
        let shipped = leak(Policy { name: policy.name, allowed: policy.allowed, refused: policy.refused, denied: one });
        if !passes(shipped, &[]) {
            wrong.push(format!("{:?} is not denied as shipped", denied.act));
        }
        if passes(loosened(policy, denied, one), &loosened_grants(denied)) {
            wrong.push(format!("{:?} is still denied after its rule was loosened", denied.act));
        }
    }
    channel.send(&wrong).unwrap();
    ExitCode::SUCCESS
}

fn leak<T>(value: T) -> &'static T {
    Box::leak(Box::new(value))
}

/// The policy, with the act's call let in.
fn loosened(policy: &'static Policy, denied: Denied, checks: &'static [&'static [Denied]]) -> &'static Policy {
    let call = denied.act.call();
    let line: &'static [Allowed] = Vec::leak(vec![Allowed { call, when: When::Always, reason: "mutation" }]);
    let allowed = Vec::leak(policy.allowed.iter().copied().chain([line]).collect::<Vec<_>>());
    let refused = Vec::leak(
        policy
            .refused
            .iter()
            .filter(|refused| refused.call != call)
            .map(|refused| policy::Refused { call: refused.call, errno: refused.errno, reason: refused.reason })
            .collect::<Vec<_>>(),
    );
    leak(Policy { name: policy.name, allowed, refused, denied: checks })
}

/// Opening files is denied by landlock too; a mutation must open both doors.
fn loosened_grants(denied: Denied) -> Vec<Grant> {
    match denied.by {
        Denial::Death => Vec::new(),
        Denial::Errno(_) | Denial::Landlock => vec![Grant::ReadWrite(PathBuf::from("/")), Grant::Connect(1)],
    }
}

/// Confined in full; says how, and waits to be looked at.
fn wait(policy_name: &str) -> ! {
    let (confined, channel) = confined(policy_name, &[]);
    let report = confined.report();
    channel.send(&(report.acts_denied, report.self_check, report.landlock.enforced_abi)).unwrap();
    let _ = channel.recv::<()>();
    exit_now(0)
}
