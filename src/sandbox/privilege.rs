//! Giving up identity and privileges, and making sure that they are gone.
//! Trusts: the user database for the account's numbers.
//! Touches: user, groups and capabilities of this process.
//! Next: [`super::process`] calls it before landlock and seccomp.

use std::io;

use caps::errors::CapsError;
use caps::{CapSet, Capability};
use nix::errno::Errno;
use nix::unistd::{Gid, Uid, User, geteuid, getgroups, getresgid, getresuid, setgroups, setresgid, setresuid};

use nix::sys::prctl;

/// Numbers of the account that a process runs as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// User.
    pub uid: Uid,
    /// Group.
    pub gid: Gid,
}

/// Why privileges could not be given up.
#[derive(Debug, thiserror::Error)]
pub enum PrivilegeError {
    /// It would go on as root.
    #[error("this program does not serve as root: name an ordinary account for it, or start it as one")]
    Root,
    /// No such account.
    #[error("there is no account {name}; create it (adduser --system --group {name}) or name another")]
    UnknownUser {
        /// As it was asked for.
        name: String,
    },
    /// The user database failed.
    #[error("the account {name} could not be looked up")]
    Lookup {
        /// As it was asked for.
        name: String,
        /// Why.
        #[source]
        source: Errno,
    },
    /// Only root may become someone else.
    #[error("this program was started as user {uid} and cannot become {name}; start it as root or as {name}")]
    NotRoot {
        /// Who it is.
        uid: Uid,
        /// Who it was to become.
        name: String,
    },
    /// The kernel refused the change.
    #[error("the kernel refused to change user or groups")]
    Change(#[source] Errno),
    /// Root could be had back.
    #[error("root's identity could be taken back after it was given up")]
    Reversible,
    /// The kernel refused to empty a set of capabilities.
    #[error("the kernel refused to empty the {set:?} set of capabilities")]
    Capabilities {
        /// Which.
        set: CapSet,
        /// Why.
        #[source]
        source: CapsError,
    },
    /// A set of capabilities is not empty after all.
    #[error("the {set:?} set of capabilities is not empty after it was emptied")]
    Left {
        /// Which.
        set: CapSet,
    },
    /// `no_new_privs` could not be set.
    #[error("the kernel refused no_new_privs")]
    NoNewPrivs(#[source] Errno),
    /// The process could be dumped again.
    #[error("the process could not be kept undumpable")]
    Dumpable(#[source] io::Error),
}

/// Becomes `user` (a name or a number) when started as root, stays who it is otherwise; ends without any privilege.
///
/// # Errors
/// Whatever is left of root's power, or kept it from being given up.
pub fn drop_all(user: Option<&str>) -> Result<Identity, PrivilegeError> {
    let started_as_root = geteuid().is_root();
    prctl::set_no_new_privs().map_err(PrivilegeError::NoNewPrivs)?;
    let target = match user {
        Some(name) => Some(look_up(name)?),
        None => None,
    };
    match target {
        Some(identity) if identity.uid.is_root() || identity.gid.as_raw() == 0 => return Err(PrivilegeError::Root),
        Some(identity) if started_as_root => {
            // Needs CAP_SETPCAP, so it comes before the change of user.
            empty(CapSet::Bounding)?;
            become_user(identity)?;
        }
        Some(identity) if identity.uid != geteuid() => {
            return Err(PrivilegeError::NotRoot { uid: geteuid(), name: user.unwrap_or_default().to_owned() });
        }
        None if started_as_root => return Err(PrivilegeError::Root),
        Some(_) | None => {}
    }
    for set in [CapSet::Ambient, CapSet::Inheritable, CapSet::Effective, CapSet::Permitted] {
        empty(set)?;
    }
    verify(started_as_root)
}

/// What a program of the operator's keeps of root: to reach files of another account, and to give it those that it makes.
const FOR_FILES: [Capability; 2] = [Capability::CAP_CHOWN, Capability::CAP_DAC_OVERRIDE];

/// For a program that the operator runs at the console: stays who it is. Of root's power is left what reaches files, and landlock says which.
///
/// # Errors
/// Whatever else is left.
pub fn keep_files() -> Result<Identity, PrivilegeError> {
    prctl::set_no_new_privs().map_err(PrivilegeError::NoNewPrivs)?;
    let held = read(CapSet::Permitted)?;
    let kept = FOR_FILES.into_iter().filter(|capability| geteuid().is_root() && held.contains(capability)).collect();
    if geteuid().is_root() {
        empty(CapSet::Bounding)?;
    }
    for set in [CapSet::Ambient, CapSet::Inheritable] {
        empty(set)?;
    }
    for set in [CapSet::Effective, CapSet::Permitted] {
        caps::set(None, set, &kept).map_err(|source| PrivilegeError::Capabilities { set, source })?;
        if read(set)? != kept {
            return Err(PrivilegeError::Left { set });
        }
    }
    let (users, groups) = (getresuid().map_err(PrivilegeError::Change)?, getresgid().map_err(PrivilegeError::Change)?);
    Ok(Identity { uid: users.real, gid: groups.real })
}

fn look_up(name: &str) -> Result<Identity, PrivilegeError> {
    let found = |source| PrivilegeError::Lookup { name: name.to_owned(), source };
    if let Ok(number) = name.parse::<u32>() {
        let uid = Uid::from_raw(number);
        let group = User::from_uid(uid).map_err(found)?.map_or_else(|| Gid::from_raw(number), |user| user.gid);
        return Ok(Identity { uid, gid: group });
    }
    match User::from_name(name).map_err(found)? {
        Some(user) => Ok(Identity { uid: user.uid, gid: user.gid }),
        None => Err(PrivilegeError::UnknownUser { name: name.to_owned() }),
    }
}

fn become_user(identity: Identity) -> Result<(), PrivilegeError> {
    let Identity { uid, gid } = identity;
    setgroups(&[]).map_err(PrivilegeError::Change)?;
    setresgid(gid, gid, gid).map_err(PrivilegeError::Change)?;
    setresuid(uid, uid, uid).map_err(PrivilegeError::Change)?;
    // A change of user makes the process as dumpable as /proc/sys/fs/suid_dumpable says.
    prctl::set_dumpable(false).map_err(|errno| PrivilegeError::Dumpable(errno.into()))
}

fn empty(set: CapSet) -> Result<(), PrivilegeError> {
    caps::clear(None, set).map_err(|source| PrivilegeError::Capabilities { set, source })
}

/// Looks at the result with fresh eyes, and tries to undo it.
fn verify(started_as_root: bool) -> Result<Identity, PrivilegeError> {
    let root = Uid::from_raw(0);
    if setresuid(root, root, root).is_ok() || setresgid(Gid::from_raw(0), Gid::from_raw(0), Gid::from_raw(0)).is_ok() {
        return Err(PrivilegeError::Reversible);
    }
    let users = getresuid().map_err(PrivilegeError::Change)?;
    let groups = getresgid().map_err(PrivilegeError::Change)?;
    let supplementary = getgroups().map_err(PrivilegeError::Change)?;
    if [users.real, users.effective, users.saved].contains(&root) || (started_as_root && !supplementary.is_empty()) {
        return Err(PrivilegeError::Reversible);
    }
    let mut sets = vec![CapSet::Ambient, CapSet::Inheritable, CapSet::Effective, CapSet::Permitted];
    if started_as_root {
        sets.push(CapSet::Bounding);
    }
    for set in sets {
        if !read(set)?.is_empty() {
            return Err(PrivilegeError::Left { set });
        }
    }
    Ok(Identity { uid: users.real, gid: groups.real })
}

fn read(set: CapSet) -> Result<std::collections::HashSet<Capability>, PrivilegeError> {
    caps::read(None, set).map_err(|source| PrivilegeError::Capabilities { set, source })
}
