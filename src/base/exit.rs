//! Exit codes of all four programs, after `sysexits.h` where it has a word for the case.
//! Trusts: nothing.
//! Touches: nothing.
//! Next: the `main` functions return one.

use std::process::ExitCode;

/// Why a program ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// All done.
    Ok = 0,
    /// It failed for a reason that the message names.
    Failed = 1,
    /// The command line was wrong (`EX_USAGE`).
    Usage = 64,
    /// The input was wrong: not audio, not valid metadata, too long (`EX_DATAERR`).
    BadInput = 65,
    /// The named call, file or model does not exist (`EX_NOINPUT`).
    NotFound = 66,
    /// The appliance cannot be reached or is not ready; try again (`EX_UNAVAILABLE`).
    Unavailable = 69,
    /// A file could not be written, or a key not be opened (`EX_IOERR`).
    Io = 74,
    /// The caller may not do this (`EX_NOPERM`).
    Denied = 77,
    /// The configuration is wrong (`EX_CONFIG`).
    Config = 78,
}

impl Exit {
    /// The number.
    #[expect(clippy::as_conversions, reason = "the discriminants are this enum's codes")]
    pub const fn code(self) -> u8 {
        self as u8
    }

    /// What another program ended with; `Failed` for a number that none of ours uses.
    pub fn of_code(code: u8) -> Self {
        let all = [Self::Ok, Self::Usage, Self::BadInput, Self::NotFound, Self::Unavailable, Self::Io, Self::Denied, Self::Config];
        all.into_iter().find(|exit| exit.code() == code).unwrap_or(Self::Failed)
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}
