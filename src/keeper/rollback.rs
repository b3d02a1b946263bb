//! The counter that tells an older copy of the store, and the leave to take another store than the newest all the same.
//! Trusts: the TPM's counter; a leave that the box's own key authenticates.
//! Touches: the TPM, the key directory.
//! Next: the core compares the counter with what its store says (`record::rollback`).
//!
//! The counter is made by who sets the box up and by who has its paper, never here: a daemon that finds none must not begin to count.
//!
//! Leave is given by whoever sets the box up, for its first start; by a reseal with paper into another TPM, for the store that there is; and
//! by `recover --accept-rollback`, which alone is a word on what became of the other stores. A leave is for one state of the counter. The start that uses it counts on, so it is good for that start alone, and an old leave that is
//! put back is good for none.

use serde::{Deserialize, Serialize};

use crate::base::secret::Secret;
use crate::ipc::keeper::{Counter, KeeperDenial, Leave};

use super::container::{self, ContainerError, MacKey};
use super::hierarchy::{DeriveError, KEY_BYTES, Purpose, Root};
use super::replace::OpenDirectory;
use super::slots::{SlotError, file_mac};
use super::tpm::{RestingTpm, Tpm, TpmError};

/// The file with the leave.
pub const LEAVE: &str = "rollback";

/// A leave as it is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Given {
    /// What the counter was then.
    at: u64,
    /// For which store.
    leave: Leave,
}

/// What the daemon's keeper keeps of it.
pub struct Rollback {
    password: Secret<KEY_BYTES>,
    /// At the start.
    counter: Counter,
    /// Where it is now; nothing when a try to count failed, and nobody knows whether it has counted.
    now: Option<u64>,
    /// From where it was counted up last, or was to be.
    from: Option<u64>,
}

impl Rollback {
    /// Looks how far the counter is; the keyslots were changed `keys` times.
    ///
    /// # Errors
    /// The TPM's.
    pub fn begin(tpm: &mut Tpm<'_>, root: &Root, directory: &OpenDirectory, keys: u64) -> Result<Self, SlotError> {
        let password = password(root)?;
        let value = match tpm.counter(&password) {
            Err(TpmError::CounterGone) => None,
            found => Some(found?),
        };
        let given = given(directory, &file_mac(root)?).filter(|given| value == Some(given.at));
        let leave = given.map_or(Leave::None, |given| given.leave);
        let counter = Counter { value, leave, keys, epochs: [None; 2] };
        Ok(Self { password, counter, now: value, from: None })
    }

    /// What the core is told, but for the epochs.
    pub const fn counter(&self) -> Counter {
        self.counter
    }

    /// Counts one, from where the core believes the counter to be. Asked again for the same, it does not count again: what the store says
    /// would be left behind.
    ///
    /// # Errors
    /// Why not. After `Internal` it may have counted; asked again, it finds out.
    pub fn count(&mut self, tpm: &mut RestingTpm, from: u64) -> Result<u64, KeeperDenial> {
        let failed = |_: TpmError| KeeperDenial::Internal;
        if self.counter.value.is_some() && self.now.is_none() {
            self.now = Some(tpm.with(|tpm| tpm.counter(&self.password)).map_err(failed)?);
        }
        match self.now {
            Some(now) if self.from == Some(from) && from.checked_add(1) == Some(now) => return Ok(now),
            Some(now) if now == from => {}
            _ => return Err(KeeperDenial::CounterElsewhere),
        }
        (self.now, self.from) = (None, Some(from));
        let counted = tpm.with(|tpm| tpm.count(&self.password)).map_err(failed)?;
        self.now = Some(counted);
        Ok(counted)
    }
}

/// What the counter asks for.
///
/// # Errors
/// As [`Root::derive`].
pub fn password(root: &Root) -> Result<Secret<KEY_BYTES>, DeriveError> {
    root.derive(Purpose::TpmRollback)
}

/// The file of a leave.
///
/// # Errors
/// [`ContainerError::Body`].
pub fn leave_file(mac: &MacKey, at: u64, leave: Leave) -> Result<Vec<u8>, ContainerError> {
    container::write(container::ROLLBACK, &Given { at, leave }, mac)
}

/// The leave that was given last. What cannot be read or is not the box's own is none.
fn given(directory: &OpenDirectory, mac: &MacKey) -> Option<Given> {
    read(&directory.read(LEAVE).ok()?, mac)
}

/// The leave in a file that is whole and the box's own.
pub fn read(file: &[u8], mac: &MacKey) -> Option<Given> {
    container::read::<Given>(container::ROLLBACK, file).ok()?.authenticate(mac).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keeper::replace::Exclusive;

    fn root(fill: u8) -> Root {
        let key = Secret::try_fill(|key| {
            key.fill(fill);
            Ok::<(), ()>(())
        });
        Root::new(&key.unwrap())
    }

    #[test]
    fn a_leave_is_the_boxs_own_and_whole_or_none() {
        let base = tempfile::tempdir().unwrap();
        let directory = OpenDirectory::open(base.path()).unwrap();
        let mac = file_mac(&root(1)).unwrap();
        let leave = |mac: &MacKey| given(&directory, mac).map(|given| (given.at, given.leave));
        assert_eq!(leave(&mac), None);
        let file = leave_file(&mac, 7, Leave::Accepted).unwrap();
        Exclusive::take(base.path()).unwrap().replace(LEAVE, &file).unwrap();
        assert_eq!(leave(&mac), Some((7, Leave::Accepted)));
        assert_eq!(leave(&file_mac(&root(2)).unwrap()), None);
        for at in 0..file.len() {
            let mut other = file.clone();
            other[at] ^= 1;
            Exclusive::take(base.path()).unwrap().replace(LEAVE, &other).unwrap();
            assert_eq!(leave(&mac), None, "{at}");
        }
    }
}
