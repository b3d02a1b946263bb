//! What the keeper beside the daemon keeps of the world: its key directory, and its TPM as a device or by two TCP ports.

use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _, fchown};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use nix::fcntl::{AT_FDCWD, OFlag, openat, renameat};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::stat::Mode;
use nix::unistd::{UnlinkatFlags, unlinkat};
use salama::ipc::CHANNEL_FD;
use salama::ipc::channel::Channel;
use salama::sandbox::process::{Grant, harden};
use salama::sys::descriptors::take_inherited;

use crate::files::playground;
use crate::roles::{NOBODY, policy_named, start};
use crate::runner::Test;

pub const TESTS: &[Test] = &[
    ("a_keeper_of_a_device_reaches_its_keys_and_what_was_open", a_keeper_of_a_device_reaches_its_keys_and_what_was_open),
    (
        "the_operators_keeper_reaches_its_keys_and_its_tpm_and_nothing_besides",
        the_operators_keeper_reaches_its_keys_and_its_tpm_and_nothing_besides,
    ),
    ("a_keeper_of_a_software_tpm_reaches_its_two_ports_besides", a_keeper_of_a_software_tpm_reaches_its_two_ports_besides),
];

type Outcomes = Vec<(String, i32)>;

fn code(result: io::Result<()>) -> i32 {
    result.map_or_else(|error| error.raw_os_error().unwrap_or(-1), |()| 0)
}

/// The role: confined as the keeper, with `state` for its key directory; tries what it may and may not, and says how it went.
pub fn serve(policy: &str, directory: &Path) -> ExitCode {
    let listeners: Vec<TcpListener> = (0..3).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
    let ports: Vec<u16> = listeners.iter().map(|listener| listener.local_addr().unwrap().port()).collect();
    let keys = Arc::new(File::options().read(true).custom_flags(libc::O_DIRECTORY).open(directory.join("state")).unwrap());
    let (device, tpm) = UnixStream::pair().unwrap();
    let (mut device, mut tpm) = (File::from(OwnedFd::from(device)), File::from(OwnedFd::from(tpm)));
    let hardened = harden(&(3..64).collect::<Vec<_>>()).unwrap();
    // The operator's stays root, for the files of another account.
    let desk = policy.starts_with("keeper-keys");
    let unprivileged = if desk { hardened.keep_files() } else { hardened.drop_privileges(Some(NOBODY)) }.unwrap();
    let channel = Channel::from_fd(take_inherited(CHANNEL_FD).unwrap());
    let grants = [Grant::ReadWriteOpen(Arc::clone(&keys)), Grant::Connect(ports[0]), Grant::Connect(ports[1])];
    let software = policy.ends_with("-software");
    let confined = unprivileged.confine(policy_named(policy), if software { &grants } else { &grants[..1] }).unwrap();

    let mut outcomes: Outcomes = Vec::new();
    let mut note = |what: &str, result: io::Result<()>| outcomes.push((what.to_owned(), code(result)));
    note("replace a key file", replace(&keys));
    note("speak to the device", converse(&mut device, &mut tpm));
    let outside = |name: &str| directory.join(name);
    note("read outside", fs::read(outside("outside/secret")).map(drop));
    note("write outside", File::options().write(true).open(outside("outside/secret")).map(drop));
    note("make outside", File::create(outside("outside/new")).map(drop));
    note("delete outside", Ok(()).and_then(|()| Ok(unlinkat(AT_FDCWD, &outside("outside/secret"), UnlinkatFlags::NoRemoveDir)?)));
    note("read through a link in the directory", fs::read(outside("state/door")).map(drop));
    note("move out", Ok(()).and_then(|()| Ok(renameat(&*keys, "kept", AT_FDCWD, &outside("outside/kept"))?)));
    note("read own environment", fs::read("/proc/self/environ").map(drop));
    note("open a device", fs::read("/dev/null").map(drop));
    if software {
        for port in ports {
            note("connect", TcpStream::connect(("127.0.0.1", port)).map(drop));
        }
    }
    channel.send(&outcomes).unwrap();
    drop(confined);
    ExitCode::SUCCESS
}

/// As `keeper::replace` does it.
fn replace(keys: &Arc<File>) -> io::Result<()> {
    keys.try_lock().map_err(io::Error::from)?;
    unlinkat(&**keys, ".keyslots.partial", UnlinkatFlags::NoRemoveDir)
        .or_else(|errno| if errno == nix::Error::ENOENT { Ok(()) } else { Err(errno) })?;
    let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_CLOEXEC;
    let mut file = File::from(openat(&**keys, ".keyslots.partial", flags, Mode::S_IRUSR | Mode::S_IWUSR)?);
    file.write_all(b"slots")?;
    if nix::unistd::geteuid().is_root() {
        fchown(&file, Some(65534), Some(65534))?;
    }
    file.sync_all()?;
    renameat(&**keys, ".keyslots.partial", &**keys, "keyslots")?;
    keys.sync_all()?;
    file.write_all_at(b"slots", 0)?;
    let mut read = Vec::new();
    File::from(openat(&**keys, "keyslots", OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty())?).take(100).read_to_end(&mut read)?;
    assert_eq!(read, b"slots");
    keys.unlock()
}

/// As libtss2's `tcti-device` does it.
fn converse(device: &mut File, tpm: &mut File) -> io::Result<()> {
    device.write_all(&[1; 12])?;
    tpm.write_all(&[2; 10])?;
    let mut waiting = [PollFd::new(device.as_fd(), PollFlags::POLLIN)];
    assert_eq!(poll(&mut waiting, PollTimeout::NONE)?, 1);
    let mut response = [0; 4096];
    assert_eq!(device.read(&mut response)?, 10);
    Ok(())
}

fn reached(policy: &str) -> Vec<i32> {
    let directory = playground();
    let role = start("keeper-of-keys", &[policy, directory.path().to_str().unwrap()]);
    let outcomes: Outcomes = role.channel.recv().unwrap().expect("the role answers");
    for (index, (what, errno)) in outcomes.iter().take(10).enumerate() {
        let expected: &[i32] = match what.as_str() {
            _ if index < 2 => &[0],
            "move out" => &[libc::EACCES, libc::EXDEV],
            _ => &[libc::EACCES],
        };
        assert!(expected.contains(errno), "{policy}: {what}: {errno}");
    }
    assert_eq!(fs::read_to_string(directory.path().join("outside/secret")).unwrap(), "text");
    outcomes.iter().skip(10).map(|(_, errno)| *errno).collect()
}

fn a_keeper_of_a_device_reaches_its_keys_and_what_was_open() {
    assert_eq!(reached("keeper-device"), Vec::<i32>::new());
}

/// As root, whom no permission of a file stops.
fn the_operators_keeper_reaches_its_keys_and_its_tpm_and_nothing_besides() {
    assert_eq!(reached("keeper-keys-device"), Vec::<i32>::new());
    assert_eq!(reached("keeper-keys-software"), [0, 0, libc::EACCES]);
}

fn a_keeper_of_a_software_tpm_reaches_its_two_ports_besides() {
    assert_eq!(reached("keeper-software"), [0, 0, libc::EACCES]);
}
