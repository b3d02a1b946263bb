//! `tpm.slot`, version 1: what boxes have that were set up before there were several keyslots.
//! Trusts: as `keyslots`.
//! Touches: nothing.
//! Next: `slots` opens it as a slot like others; the first change writes it as `keyslots`.

use serde::{Deserialize, Serialize};

use super::{Keyslots, Kind, RootKey, TpmSlot};
use crate::keeper::container::{self, ContainerError, MacKey, Unauthenticated};
use crate::keeper::tpm::StorageRoot;
use crate::keeper::tpm::policy::Policy;
use crate::keeper::tpm::seal::Sealed;

/// The body of such a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TpmSlotFile {
    /// TPM name of the storage root.
    pub storage_root: Vec<u8>,
    /// `TPMT_PUBLIC`.
    pub public: Vec<u8>,
    /// The content of `TPM2B_PRIVATE`.
    pub private: Vec<u8>,
}

/// Not yet authenticated.
pub struct Old(Unauthenticated<TpmSlotFile>);

/// Reads such a file.
///
/// # Errors
/// [`ContainerError`].
pub fn read(file: &[u8]) -> Result<Old, ContainerError> {
    container::read(container::TPM_SLOT, file).map(Old)
}

impl Old {
    /// As the one slot of a file of today, which was never written.
    pub fn before_authentication(&self) -> Keyslots {
        let TpmSlotFile { storage_root, public, private } = self.0.before_authentication().clone();
        let slot = TpmSlot {
            storage_root: StorageRoot { name: storage_root, handle: 0 },
            policy: Policy::default(),
            pin: None,
            sealed: Sealed { public, private },
            root: RootKey::Sealed,
        };
        Keyslots { generation: 0, ..Keyslots::with(Kind::Tpm(slot), 0) }
    }

    /// As [`Unauthenticated::authenticate`].
    ///
    /// # Errors
    /// [`ContainerError::Forged`].
    pub fn authenticate(self, mac: &MacKey) -> Result<Keyslots, ContainerError> {
        let keyslots = self.before_authentication();
        self.0.authenticate(mac).map(|_| keyslots)
    }
}
