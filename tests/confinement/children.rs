//! The fork server and its children, seen from the supervisor: each way in which a child can end or misbehave.

use std::fs;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use salama::ipc::worker::{ChildEvent, ChildExit, Task};
use salama::sandbox::policy::{self, Denial};
use salama::supervisor::child::{Child, ChildError};
use salama::supervisor::conversation::Misbehaviour;
use salama::supervisor::forkserver::{ChildLimits, ForkServer, Lost, SpawnError, StartError, Supervisor, WorkerSettings};
use salama::supervisor::program::Started;
use salama::sys::pidfd::{Ended, PidFd};

use crate::roles::{denied, start, start_writing};
use crate::runner::Test;
use crate::toy::STARTED;

pub const TESTS: &[Test] = &[
    ("a_child_serves_with_the_shared_models_and_exits", a_child_serves_with_the_shared_models_and_exits),
    ("a_child_computes_with_threads", a_child_computes_with_threads),
    ("a_child_is_alone_with_its_channel", a_child_is_alone_with_its_channel),
    ("a_child_can_do_no_forbidden_act", a_child_can_do_no_forbidden_act),
    ("a_child_that_panics_or_aborts_fails_alone", a_child_that_panics_or_aborts_fails_alone),
    ("what_a_child_writes_or_panics_with_is_heard_by_nobody", what_a_child_writes_or_panics_with_is_heard_by_nobody),
    ("a_child_gets_no_more_memory_than_its_limit", a_child_gets_no_more_memory_than_its_limit),
    ("a_child_gets_no_more_processor_time_than_its_limit", a_child_gets_no_more_processor_time_than_its_limit),
    ("a_hanging_child_is_noticed_and_can_be_killed", a_hanging_child_is_noticed_and_can_be_killed),
    ("a_child_that_lingers_after_its_last_word_is_killed", a_child_that_lingers_after_its_last_word_is_killed),
    ("a_dropped_child_dies", a_dropped_child_dies),
    ("a_child_whose_channel_closes_ends", a_child_whose_channel_closes_ends),
    ("a_child_that_floods_is_stopped", a_child_that_floods_is_stopped),
    ("a_child_that_lies_is_stopped", a_child_that_lies_is_stopped),
    ("a_child_killed_from_outside_is_reported", a_child_killed_from_outside_is_reported),
    ("children_are_forked_within_milliseconds", children_are_forked_within_milliseconds),
    ("a_dead_fork_server_is_noticed_and_takes_its_children_along", a_dead_fork_server_is_noticed_and_takes_its_children_along),
    ("a_fork_server_ends_when_salamad_does", a_fork_server_ends_when_salamad_does),
    ("a_worker_that_ends_at_start_is_an_error", a_worker_that_ends_at_start_is_an_error),
    ("a_worker_that_is_not_installed_is_an_error_with_its_path", a_worker_that_is_not_installed_is_an_error_with_its_path),
    ("a_worker_started_by_hand_says_what_starts_it", a_worker_started_by_hand_says_what_starts_it),
];

const LIMITS: ChildLimits = ChildLimits { memory_bytes: 2 << 30, cpu_seconds: 20 };
const PATIENCE: Duration = Duration::from_secs(20);

struct Office {
    supervisor: Supervisor,
    pid: u32,
    lost: mpsc::Receiver<Lost>,
}

fn office() -> Office {
    office_of(start("fork-server", &[]))
}

fn office_of(started: Started) -> Office {
    let server = ForkServer::greet(started, PATIENCE).unwrap();
    assert_eq!(server.models()[0].name, "toy");
    let pid = server.pid();
    let (tell, lost) = mpsc::channel();
    let (supervisor, _) = server.run(move |how| tell.send(how).unwrap_or_default()).unwrap();
    Office { supervisor, pid, lost }
}

fn ready(supervisor: &Supervisor, limits: ChildLimits) -> Child {
    let child = supervisor.spawn(&limits).unwrap();
    assert!(matches!(child.recv(PATIENCE), Ok(ChildEvent::Ready)));
    child
}

fn busy(supervisor: &Supervisor, what: &str) -> Child {
    let child = ready(supervisor, LIMITS);
    child.send(&Task::Redact { text: what.into() }).unwrap();
    child
}

fn answer(child: &Child) -> String {
    match child.recv(PATIENCE) {
        Ok(ChildEvent::Redacted { text, .. }) => text,
        other => panic!("{other:?}"),
    }
}

fn a_child_serves_with_the_shared_models_and_exits() {
    let office = office();
    let child = busy(&office.supervisor, "model");
    assert_eq!(answer(&child), "42");
    assert!(matches!(child.recv(PATIENCE), Err(ChildError::Ended)));
    assert_eq!(child.finish(), ChildExit::Code(0));
    assert_eq!(busy(&office.supervisor, "exit 9").finish(), ChildExit::Code(9));
}

fn a_child_computes_with_threads() {
    let office = office();
    let child = busy(&office.supervisor, "threads");
    assert_eq!(answer(&child), (4 * (1_000_000 + (30_u64 << 20))).to_string());
    assert_eq!(child.finish(), ChildExit::Code(0));
}

fn a_child_is_alone_with_its_channel() {
    let office = office();
    let neighbour = ready(&office.supervisor, LIMITS);
    let child = ready(&office.supervisor, LIMITS);
    let process = |file: &str| format!("/proc/{}/{file}", child.pid().unwrap());
    assert_eq!(fs::read_dir(process("fd")).unwrap().count(), 2, "its channel and standard error");
    let status = fs::read_to_string(process("status")).unwrap();
    for line in ["Seccomp:\t2", "NoNewPrivs:\t1", "CapEff:\t0000000000000000", "Uid:\t65534\t65534\t65534\t65534", "Threads:\t1"] {
        assert!(status.lines().any(|have| have == line), "{line}");
    }
    let filters = status.lines().find_map(|line| line.strip_prefix("Seccomp_filters:\t")).unwrap();
    assert_eq!(filters, "6", "those of the fork server and its own");
    let limits = fs::read_to_string(process("limits")).unwrap();
    for (limit, soft) in
        [("Max file size", "0"), ("Max core file size", "0"), ("Max open files", "16"), ("Max processes", "512"), ("Max cpu time", "20")]
    {
        let line = limits.lines().find_map(|line| line.strip_prefix(limit)).unwrap();
        assert_eq!(line.split_whitespace().next(), Some(soft), "{limit}");
    }
    drop(neighbour);
}

fn a_child_can_do_no_forbidden_act() {
    let office = office();
    for denied in denied(&policy::child::POLICY) {
        let ended = busy(&office.supervisor, &format!("act {:?}", denied.act)).finish();
        let expected = match denied.by {
            Denial::Death => ChildExit::Signal(libc::SIGSYS),
            Denial::Errno(errno) => ChildExit::Code(errno),
            Denial::Landlock => ChildExit::Code(libc::EACCES),
        };
        assert_eq!(ended, expected, "{:?}", denied.act);
    }
}

fn a_child_that_panics_or_aborts_fails_alone() {
    let office = office();
    let neighbour = busy(&office.supervisor, "hang");
    assert_eq!(busy(&office.supervisor, "panic").finish(), ChildExit::Code(101));
    // abort() raises its signal by a call that is not allowed; either way the child is dead.
    assert!(matches!(busy(&office.supervisor, "abort").finish(), ChildExit::Signal(_)));
    assert!(matches!(neighbour.recv(Duration::from_millis(1)), Err(ChildError::TimedOut)), "the neighbour still hangs");
    assert_eq!(answer(&busy(&office.supervisor, "model")), "42");
}

fn what_a_child_writes_or_panics_with_is_heard_by_nobody() {
    let stderr = tempfile::NamedTempFile::new().unwrap();
    let office = office_of(start_writing("fork-server", stderr.reopen().unwrap()));
    assert_eq!(busy(&office.supervisor, "panic planted").finish(), ChildExit::Code(101));
    assert_eq!(fs::read_to_string(stderr.path()).unwrap(), format!("{STARTED}\n"));
}

fn a_child_gets_no_more_memory_than_its_limit() {
    let office = office();
    let limits = ChildLimits { memory_bytes: 256 << 20, ..LIMITS };
    for (bytes, expected) in [(200_u64 << 20, "given"), (300 << 20, "refused")] {
        let child = ready(&office.supervisor, limits);
        child.send(&Task::Redact { text: format!("allocate {bytes}") }).unwrap();
        assert_eq!(answer(&child), expected, "{bytes}");
    }
}

fn a_child_gets_no_more_processor_time_than_its_limit() {
    let office = office();
    let child = ready(&office.supervisor, ChildLimits { cpu_seconds: 1, ..LIMITS });
    child.send(&Task::Redact { text: "spin".into() }).unwrap();
    assert!(matches!(child.recv(PATIENCE), Err(ChildError::Ended)));
    assert_eq!(child.finish(), ChildExit::Signal(libc::SIGXCPU));
}

fn a_hanging_child_is_noticed_and_can_be_killed() {
    let office = office();
    let child = busy(&office.supervisor, "hang");
    assert!(matches!(child.recv(Duration::from_millis(20)), Err(ChildError::TimedOut)));
    let killer = child.killer();
    std::thread::spawn(move || killer.kill()).join().unwrap();
    assert!(matches!(child.recv(PATIENCE), Err(ChildError::Ended)));
    assert_eq!(child.finish(), ChildExit::Signal(libc::SIGKILL));
}

fn a_child_that_lingers_after_its_last_word_is_killed() {
    let office = office();
    let child = busy(&office.supervisor, "linger");
    assert_eq!(answer(&child), "");
    assert_eq!(child.finish(), ChildExit::Signal(libc::SIGKILL));
}

fn pidfd(child: &Child) -> PidFd {
    PidFd::open(nix::unistd::Pid::from_raw(i32::try_from(child.pid().unwrap()).unwrap())).unwrap()
}

/// Waits for the end of a process that is not our child.
fn gone(process: &PidFd) -> bool {
    use std::os::fd::AsFd;
    let mut watched = [nix::poll::PollFd::new(process.as_fd(), nix::poll::PollFlags::POLLIN)];
    nix::poll::poll(&mut watched, 10_000_u16).unwrap() == 1
}

fn a_dropped_child_dies() {
    let office = office();
    let child = busy(&office.supervisor, "spin");
    let process = pidfd(&child);
    drop(child);
    assert!(gone(&process));
}

fn a_child_whose_channel_closes_ends() {
    let office = office();
    // Ready was not even read: the child waits for a task that never comes.
    let child = office.supervisor.spawn(&LIMITS).unwrap();
    let process = pidfd(&child);
    drop(child);
    assert!(gone(&process));
}

fn transcribing(supervisor: &Supervisor, what: &str) -> Child {
    let child = ready(supervisor, LIMITS);
    let task = Task::Transcribe { audio_bytes: 100, language: Some(what.into()), threads: 1, max_audio_seconds: 10, samples: None };
    child.send(&task).unwrap();
    child
}

fn a_child_that_floods_is_stopped() {
    let office = office();
    let child = transcribing(&office.supervisor, "flood");
    let stopped = std::iter::repeat_with(|| child.recv(PATIENCE)).find(Result::is_err);
    assert!(matches!(stopped, Some(Err(ChildError::Misbehaved(Misbehaviour::Flood)))), "{stopped:?}");
    assert_eq!(child.finish(), ChildExit::Signal(libc::SIGKILL));
}

fn a_child_that_lies_is_stopped() {
    let office = office();
    let honest = transcribing(&office.supervisor, "need 90");
    assert!(matches!(honest.recv(PATIENCE), Ok(ChildEvent::Need { offset: 90, len: 10 })));
    for (what, rule) in [("need 101", Misbehaviour::Need), ("garbage", Misbehaviour::Frame), ("done", Misbehaviour::OutOfTurn)] {
        let child = transcribing(&office.supervisor, what);
        let heard = child.recv(PATIENCE);
        assert!(matches!(heard, Err(ChildError::Misbehaved(broken)) if broken == rule), "{what}: {heard:?}");
    }
}

fn a_child_killed_from_outside_is_reported() {
    let office = office();
    let child = busy(&office.supervisor, "hang");
    // Not one that shells make their background jobs ignore.
    pidfd(&child).signal(nix::sys::signal::Signal::SIGUSR1).unwrap();
    assert!(matches!(child.recv(PATIENCE), Err(ChildError::Ended)));
    assert_eq!(child.finish(), ChildExit::Signal(libc::SIGUSR1));
}

fn children_are_forked_within_milliseconds() {
    let office = office();
    let started = Instant::now();
    for _ in 0..20 {
        assert_eq!(busy(&office.supervisor, "exit 0").finish(), ChildExit::Code(0));
    }
    let each = started.elapsed() / 20;
    println!("  {each:?} from request to end of a child");
    assert!(each < Duration::from_millis(200), "{each:?}");
}

fn a_dead_fork_server_is_noticed_and_takes_its_children_along() {
    let office = office();
    let child = busy(&office.supervisor, "spin");
    let process = pidfd(&child);
    assert!(!office.supervisor.lost());
    let server = PidFd::open(nix::unistd::Pid::from_raw(i32::try_from(office.pid).unwrap())).unwrap();
    server.signal(nix::sys::signal::Signal::SIGKILL).unwrap();
    office.lost.recv_timeout(PATIENCE).unwrap();
    assert!(office.supervisor.lost());
    assert!(gone(&process));
    assert!(matches!(child.recv(PATIENCE), Err(ChildError::Ended)));
    assert_eq!(child.finish(), ChildExit::Signal(libc::SIGKILL));
    assert!(matches!(office.supervisor.spawn(&LIMITS), Err(SpawnError::Lost)));
}

fn a_fork_server_ends_when_salamad_does() {
    let started = start("fork-server", &[]);
    let greeting = started.channel.recv::<salama::ipc::worker::ForkEvent>().unwrap();
    assert!(matches!(greeting, Some(salama::ipc::worker::ForkEvent::Ready { .. })));
    drop(started.channel);
    assert_eq!(started.process.wait().unwrap(), Ended::Code(0));
}

fn a_worker_that_ends_at_start_is_an_error() {
    let failed = ForkServer::greet(start("act", &["child", "Execve"]), PATIENCE);
    assert!(matches!(failed, Err(StartError::Ended { ended: Some(_) })), "{failed:?}");
}

fn a_worker_that_is_not_installed_is_an_error_with_its_path() {
    let settings = WorkerSettings {
        program: "/nonexistent/salama-worker".into(),
        models: "/nonexistent".into(),
        asr: "whisper-base".into(),
        user: None,
        start_limit: PATIENCE,
    };
    let failed = ForkServer::start(&settings).unwrap_err();
    assert!(failed.to_string().contains("/nonexistent/salama-worker"), "{failed}");
    let ended = ForkServer::start(&WorkerSettings { program: "/bin/true".into(), ..settings }).unwrap_err();
    assert!(matches!(ended, StartError::Ended { ended: Some(Ended::Code(0)) }), "{ended:?}");
}

fn a_worker_started_by_hand_says_what_starts_it() {
    let worker = env!("CARGO_BIN_EXE_salama-worker");
    let by_hand = std::process::Command::new(worker).args(["--models", "/", "--asr", "x"]).output().unwrap();
    assert_eq!(by_hand.status.code(), Some(64));
    assert!(String::from_utf8_lossy(&by_hand.stderr).contains("salamad"));
}
