//! An appliance whose worker is the stand-in.
//! Trusts: nothing.
//! Touches: a temporary folder with copies of the programs.
//! Next: the tests post recordings that say what the child is to do.

use std::fs::{self, Permissions};
use std::os::fd::AsFd as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use nix::poll::{PollFd, PollFlags, poll};
use nix::unistd::Pid;
use salama::sys::pidfd::PidFd;
use tempfile::TempDir;

use crate::stand_in;
use crate::support::appliance::{Appliance, Settings, program};

/// The programs, and the appliance that runs them.
pub struct Office {
    pub appliance: Appliance,
    programs: TempDir,
}

impl Office {
    /// Provisioned, not started. `more` are lines for the settings file.
    pub fn provision(more: &str) -> Self {
        let programs = TempDir::new().unwrap();
        fs::set_permissions(programs.path(), Permissions::from_mode(0o755)).unwrap();
        for name in ["salamad", "salama-keeper"] {
            copy(&program(name), &programs.path().join(name));
        }
        copy(&std::env::current_exe().unwrap(), &programs.path().join(stand_in::NAME));
        let settings = Settings { more: more.to_owned(), programs: Some(programs.path().to_owned()), ..Settings::default() };
        let appliance = Appliance::provision(&settings);
        // These clients read more in a minute than an office in an hour.
        let limits = ["job", "read"].map(|kind| format!("[{kind}]\nper_minute = 600\nper_hour = 6000\nceiling_per_hour = 6000\n"));
        fs::write(appliance.keys().join("limits.toml"), limits.concat() + "[start]\nper_hour = 600\n[erasure]\nper_hour = 600\n").unwrap();
        Self { appliance, programs }
    }

    pub fn start(more: &str) -> Self {
        let mut office = Self::provision(more);
        office.appliance.run();
        office
    }

    /// Waits until no process of the appliance is left, as systemd does before it starts a service again. Without it a keeper that is
    /// still starting would share the TPM with the next one, and a TPM without a resource manager has room for one.
    pub fn until_all_are_gone(&self) {
        for process in fs::read_dir("/proc").unwrap().filter_map(Result::ok) {
            let number = process.file_name().to_string_lossy().parse().map(Pid::from_raw);
            let (Ok(number), true) = (number, self.is_ours(&process.path())) else { continue };
            // One that has ended in between is gone, too.
            if let Ok(watched) = PidFd::open(number) {
                let mut watched = [PollFd::new(watched.as_fd(), PollFlags::POLLIN)];
                assert_eq!(poll(&mut watched, 20_000_u16).unwrap(), 1, "a process outlives its daemon");
            }
        }
    }

    fn is_ours(&self, process: &Path) -> bool {
        fs::read_link(process.join("exe")).is_ok_and(|program| program.starts_with(self.programs.path()))
    }

    /// The fork server's process id.
    pub fn worker(&self) -> u32 {
        let [worker] = Appliance::children_of(self.appliance.pid(), stand_in::NAME)[..] else { panic!("no fork server") };
        worker
    }

    /// Memory of the core that is really there, KiB.
    pub fn core_memory(&self) -> u64 {
        resident(self.appliance.pid())
    }
}

/// `VmRSS` of a process, KiB.
pub fn resident(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or("0");
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

/// A program finds the others beside itself, so a link will not do; a second name for the same file does, on the same file system.
fn copy(from: &Path, to: &Path) {
    if fs::hard_link(from, to).is_err() {
        fs::copy(from, to).unwrap();
    }
}
