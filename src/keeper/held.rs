//! What the daemon's keeper keeps at hand while it is confined: the TPM and the key directory, both opened before.
//! Trusts: the TPM whose storage root was recognised at the start.
//! Touches: the TPM, the key directory.
//! Next: `serve` uses it for what must be written while calls are served.

use std::io;
use std::num::ParseIntError;
use std::path::Path;

use crate::sandbox::landlock::Grant;
use crate::sandbox::policy::{self, Policy};

use super::directory::{DirectoryError, KEYSLOTS};
use super::places::PlacesError;
use super::replace::OpenDirectory;
use super::tpm::{RestingTpm, keep_transport};

/// Open, and of no use to anybody else.
pub struct Held {
    /// The TPM, without the owner's password.
    pub tpm: RestingTpm,
    /// The key directory.
    pub directory: OpenDirectory,
    /// How often the keyslots were changed, when they were last read or written here.
    pub generation: u64,
}

impl Held {
    /// Writes beside the keyslots what is in them and removes it again, as a change does, so that a confinement that is too narrow, or a
    /// directory that this account may not write, shows at the start and not after the TPM was written.
    ///
    /// # Errors
    /// [`HeldError`].
    pub fn try_out(&self) -> Result<(), HeldError> {
        let tried = self.directory.exclusive().and_then(|exclusive| exclusive.try_out(KEYSLOTS, &self.directory.read(KEYSLOTS)?));
        tried.or_else(|error| if shows_nothing(&error) { Ok(()) } else { Err(error.into()) })
    }
}

/// Whether a trial that failed so says nothing against the confinement: a box of before has another file, somebody may be at the keys just
/// now, and on a full disk calls are still to be read and erased.
fn shows_nothing(error: &DirectoryError) -> bool {
    match error {
        DirectoryError::Missing(_) | DirectoryError::Locked(_) => true,
        DirectoryError::Write { source, .. } => matches!(source.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded),
        _ => false,
    }
}

/// What was kept cannot be used under the confinement.
#[derive(Debug, thiserror::Error)]
pub enum HeldError {
    /// The key directory.
    #[error(
        "the key directory cannot be written once the key keeper is confined: it must belong to the account that the keeper serves as, on a file system that is writable"
    )]
    Directory(#[from] DirectoryError),
    /// The TPM.
    #[error("the TPM cannot be used any more once the key keeper is confined")]
    Tpm(#[from] PlacesError),
}

/// How a keeper that holds this is confined: by the kind of TPM, because a device stays open and a software TPM is connected to anew for
/// each command.
///
/// # Errors
/// [`TctiError`] for a TPM that cannot be kept so.
pub fn confinement(tcti: &str, directory: &OpenDirectory) -> Result<(&'static Policy, Vec<Grant>), TctiError> {
    let keys = Grant::ReadWriteOpen(directory.descriptor());
    match Kind::of(tcti)? {
        Kind::Device(_) => Ok((&policy::keeper::DEVICE, vec![keys])),
        Kind::Software(ports) => Ok((&policy::keeper::SOFTWARE, [keys].into_iter().chain(ports.map(Grant::Connect)).collect())),
    }
}

/// As [`confinement`], for a keeper that the operator changes the keyslots with. It connects to the TPM as often as it needs to, because
/// TPMs hold few objects at a time: the device is granted, where there is one, and the library that speaks to it stays loaded.
///
/// # Errors
/// [`TctiError`].
pub fn confinement_of_the_desk(tcti: &str, directory: &OpenDirectory) -> Result<(&'static Policy, Vec<Grant>), TctiError> {
    let mut grants = vec![Grant::ReadWriteOpen(directory.descriptor())];
    match Kind::of(tcti)? {
        Kind::Device(path) => {
            keep_transport(c"libtss2-tcti-device.so.0");
            // Without a TPM there is still the paper.
            grants.extend(path.exists().then(|| Grant::ReadWrite(path.to_owned())));
            Ok((&policy::keeper::KEYS_DEVICE, grants))
        }
        Kind::Software(ports) => {
            keep_transport(c"libtss2-tcti-swtpm.so.0");
            grants.extend(ports.map(Grant::Connect));
            Ok((&policy::keeper::KEYS_SOFTWARE, grants))
        }
    }
}

/// How the TPM is reached.
enum Kind<'a> {
    /// By this file.
    Device(&'a Path),
    /// By these ports, for commands and for control.
    Software([u16; 2]),
}

impl<'a> Kind<'a> {
    fn of(tcti: &'a str) -> Result<Self, TctiError> {
        match tcti.split_once(':') {
            Some(("device", path)) => Ok(Self::Device(Path::new(path))),
            Some(("swtpm", settings)) => {
                let command = port(settings)?;
                Ok(Self::Software([command, command.checked_add(1).ok_or(TctiError::Kind)?]))
            }
            _ => Err(TctiError::Kind),
        }
    }
}

/// Of `host=127.0.0.1,port=2321`; the control port is the next one.
fn port(settings: &str) -> Result<u16, TctiError> {
    const STANDARD: u16 = 2321;
    let mut ports = settings.split(',').filter_map(|setting| setting.strip_prefix("port="));
    ports.next().map_or(Ok(STANDARD), |port| port.parse().map_err(TctiError::Port))
}

/// The TPM's address is not of a kind that the daemon serves with.
#[derive(Debug, thiserror::Error)]
pub enum TctiError {
    /// Neither a device nor swtpm.
    #[error(
        "the daemon serves with a TPM that is a device (device:/dev/tpmrm0), or for tests a software TPM (swtpm:host=127.0.0.1,port=2321), and with no other"
    )]
    Kind,
    /// The port is no number.
    #[error("the port in the software TPM's address is not understood; write it as swtpm:host=127.0.0.1,port=2321")]
    Port(#[source] ParseIntError),
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy_of(tcti: &str) -> Result<(&'static str, usize), TctiError> {
        let base = tempfile::tempdir().unwrap();
        let (policy, grants) = confinement(tcti, &OpenDirectory::open(base.path()).unwrap())?;
        Ok((policy.name, grants.len()))
    }

    #[test]
    fn a_full_disk_keeps_no_keeper_from_starting_and_one_that_cannot_be_written_does() {
        let failed = |errno| DirectoryError::Write { path: KEYSLOTS.into(), source: io::Error::from_raw_os_error(errno) };
        for errno in [libc::ENOSPC, libc::EDQUOT] {
            assert!(shows_nothing(&failed(errno)));
        }
        for errno in [libc::EACCES, libc::EROFS, libc::EPERM, libc::EIO] {
            assert!(!shows_nothing(&failed(errno)));
        }
        assert!(shows_nothing(&DirectoryError::Locked(KEYSLOTS.into())));
    }

    #[test]
    fn a_device_gets_no_socket_and_a_software_tpm_two_ports() {
        assert_eq!(policy_of("device:/dev/tpmrm0").unwrap(), ("keeper-device", 1));
        assert_eq!(policy_of("swtpm:host=127.0.0.1,port=4000").unwrap(), ("keeper-software", 3));
        assert_eq!(policy_of("swtpm:").unwrap(), ("keeper-software", 3));
    }

    #[test]
    fn a_tpm_that_cannot_be_kept_open_is_refused() {
        for tcti in ["mssim:host=127.0.0.1", "tabrmd:", "device", "swtpm:port=65535"] {
            assert!(matches!(policy_of(tcti), Err(TctiError::Kind)), "{tcti}");
        }
        assert!(matches!(policy_of("swtpm:port=x"), Err(TctiError::Port(_))));
    }
}
