//! The other end of `salama-keeper keys`: answers its questions as a test says.
//! Trusts: nothing.
//! Touches: processes of the test's own.
//! Next: `tests/keyslots.rs`.

use std::ffi::OsString;
use std::fs::File;
use std::os::unix::process::ExitStatusExt as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use salama::base::secret::SecretText;
use salama::ipc::CHANNEL_FD;
use salama::ipc::channel::Channel;
use salama::ipc::keyslots::{ConsoleWord, KeeperWord, KeysReport, Task, Wanted};
use salama::sys::process::start_with_descriptor;

use super::box_with_keys::{Bench, KEEPER};

/// How a conversation ended.
#[derive(Debug)]
pub enum End {
    Done(KeysReport),
    Refused {
        reason: String,
        exit: u8,
    },
    /// The keeper was killed.
    Killed,
}

impl End {
    pub fn done(self) -> KeysReport {
        match self {
            Self::Done(report) => report,
            other => panic!("{other:?}"),
        }
    }

    pub fn refused(self) -> (String, u8) {
        match self {
            Self::Refused { reason, exit } => (reason, exit),
            other => panic!("{other:?}"),
        }
    }
}

/// One operator: what was shown to him and what he answers.
#[derive(Default)]
pub struct Operator {
    /// Sheets, in the order in which they were shown.
    pub sheets: Vec<String>,
    /// Problems that were told with a question.
    pub problems: Vec<String>,
    /// Answers to everything but "type it again", first to last.
    pub answers: Vec<String>,
    /// Words before the keeper's command line.
    pub launcher: Vec<OsString>,
    /// More arguments of the keeper.
    pub arguments: Vec<String>,
    /// The TPM's address, when it is not the bench's.
    pub tcti: Option<String>,
    /// What is typed instead of what is on the paper, first to last; what is on it, where this is empty.
    pub mistypes: Vec<String>,
    /// Where the signed lines go; nowhere when absent.
    pub lines: Option<PathBuf>,
    /// Hears the keeper's process id with each question.
    pub asked: Option<Box<dyn FnMut(u32)>>,
    /// Hears the keeper's process id before it is asked anything.
    pub started: Option<Box<dyn FnOnce(u32)>>,
}

impl Operator {
    pub fn who_answers(answers: &[&str]) -> Self {
        Self { answers: answers.iter().map(|answer| (*answer).to_owned()).collect(), ..Self::default() }
    }

    fn stderr(&self) -> Stdio {
        let open = |file| File::options().append(true).create(true).open(file).expect("the file of the lines");
        self.lines.as_ref().map_or_else(Stdio::null, |file| open(file).into())
    }

    fn answer(&mut self, wanted: Wanted) -> String {
        if matches!(wanted, Wanted::Again { .. }) {
            let mistyped = if self.mistypes.is_empty() { String::new() } else { self.mistypes.remove(0) };
            if mistyped.is_empty() { self.sheets.last().expect("a sheet").clone() } else { mistyped }
        } else if self.answers.is_empty() {
            panic!("nobody expected {wanted:?}; told: {:?}", self.problems)
        } else {
            self.answers.remove(0)
        }
    }

    /// One task from its first word to its end.
    pub fn asks(&mut self, bench: &Bench, task: Task) -> End {
        let mut words = self.launcher.clone();
        words.extend([KEEPER.into(), "keys".into(), "--directory".into(), bench.keys().into(), "--tpm".into()]);
        words.push(self.tcti.clone().unwrap_or_else(|| bench.tpm.tcti()).into());
        words.extend(self.arguments.iter().map(OsString::from));
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]).env("TSS2_LOG", "all+NONE").stdin(Stdio::null()).stderr(self.stderr());
        let (ours, theirs) = Channel::pair().expect("a socket pair");
        let mut child = start_with_descriptor(command, theirs.into_fd(), CHANNEL_FD).expect("the program");
        if let Some(started) = self.started.take() {
            started(child.id());
        }
        let end = self.converse(&ours, task, child.id());
        drop(ours);
        let status = child.wait().expect("its own child");
        match end {
            Some(end) => end,
            None => {
                assert!(status.signal().is_some() || status.code() == Some(137), "it broke off: {status}");
                End::Killed
            }
        }
    }

    fn converse(&mut self, channel: &Channel, task: Task, process: u32) -> Option<End> {
        channel.send(&ConsoleWord::Task(task)).ok()?;
        loop {
            let word = match channel.recv::<KeeperWord>().ok()?? {
                KeeperWord::Ask { wanted, problem } => {
                    self.asked.iter_mut().for_each(|hears| hears(process));
                    self.problems.extend(problem);
                    ConsoleWord::Answer(SecretText::new(self.answer(wanted)))
                }
                KeeperWord::Show(sheet) => {
                    self.sheets.push(sheet.text.expose().to_owned());
                    ConsoleWord::Shown
                }
                KeeperWord::Done(report) => return Some(End::Done(*report)),
                KeeperWord::Refused { reason, exit } => return Some(End::Refused { reason, exit }),
            };
            channel.send(&word).ok()?;
        }
    }
}
