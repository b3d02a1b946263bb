//! Questions of the key keeper, answered by a person at the terminal or by lines of standard input.
//! Trusts: nothing; the keeper checks each answer.
//! Touches: the terminal: a PIN is not shown while it is typed.
//! Next: the answer goes to the keeper and is wiped here.

use std::io::{self, IsTerminal as _};
use std::os::fd::AsFd as _;

use nix::sys::termios::{LocalFlags, SetArg, Termios, tcgetattr, tcsetattr};
use nix::unistd::read;

use super::failure::Failure;
use super::keys::KeysError;
use super::output::{Output, clean, warn};
use crate::base::secret::SecretText;
use crate::ipc::keyslots::Wanted;

/// Longest answer, bytes.
const ANSWER_MAX: usize = 1024;

/// Asks once.
pub fn ask(output: Output, wanted: Wanted, problem: Option<&str>) -> Result<SecretText, Failure> {
    if let Some(problem) = problem {
        warn(&clean(problem));
    }
    if !output.json {
        warn(&question(wanted));
    }
    let hidden = matches!(wanted, Wanted::Pin { .. } | Wanted::NewPin | Wanted::NewPinAgain);
    let _silence = if hidden && io::stdin().is_terminal() { Some(Silence::begin()?) } else { None };
    line()
}

fn question(wanted: Wanted) -> String {
    match wanted {
        Wanted::Pin { slot } => format!("PIN of slot {slot}:"),
        Wanted::NewPin => "new PIN (6 characters or more; a sentence is better):".to_owned(),
        Wanted::NewPinAgain => "the same once more:".to_owned(),
        Wanted::Code { slot } => format!("recovery code of slot {slot}, 8 groups:"),
        Wanted::Share { slot, have, need } => format!("share {} of the {need} that slot {slot} needs, 9 groups:", have.saturating_add(1)),
        Wanted::Again { .. } => "type it again, from the paper; only then it counts:".to_owned(),
    }
}

/// One line of standard input, byte by byte: a buffer would keep what comes after it, and not be wiped.
fn line() -> Result<SecretText, Failure> {
    let failed = |errno: nix::Error| Failure::Read { path: "standard input".into(), cause: errno.into() };
    let mut text = zeroize::Zeroizing::new(Vec::with_capacity(ANSWER_MAX));
    let mut byte = [0];
    loop {
        match read(io::stdin().as_fd(), &mut byte).map_err(failed)? {
            0 if text.is_empty() => return Err(KeysError::NoAnswer.into()),
            0 => break,
            _ if byte == *b"\n" => break,
            _ if text.len() >= ANSWER_MAX => return Err(Failure::Usage(format!("an answer has at most {ANSWER_MAX} bytes"))),
            _ => text.extend(byte),
        }
    }
    let text = std::str::from_utf8(&text).map_err(|_| Failure::Usage("an answer is text in UTF-8".to_owned()))?;
    Ok(SecretText::new(text.strip_suffix('\r').unwrap_or(text).to_owned()))
}

/// The terminal shows nothing of what is typed until this is dropped.
struct Silence(Termios);

impl Silence {
    fn begin() -> Result<Self, Failure> {
        let failed = |errno: nix::Error| Failure::Read { path: "the terminal without showing what is typed".into(), cause: errno.into() };
        let before = tcgetattr(io::stdin()).map_err(failed)?;
        let mut silent = before.clone();
        silent.local_flags.remove(LocalFlags::ECHO);
        silent.local_flags.insert(LocalFlags::ECHONL);
        tcsetattr(io::stdin(), SetArg::TCSAFLUSH, &silent).map_err(failed)?;
        Ok(Self(before))
    }
}

impl Drop for Silence {
    fn drop(&mut self) {
        let _ = tcsetattr(io::stdin(), SetArg::TCSAFLUSH, &self.0);
    }
}
