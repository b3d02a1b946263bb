//! The TPM's own protection against guessing PINs: its state, and its parameters under a password that only this box knows.
//! Trusts: nothing; what it reads is shown, not acted upon, but for "is the lockout hierarchy's password set".
//! Touches: the TPM.
//! Next: `manage` provisions it before the first PIN, and shows it.

use serde::{Deserialize, Serialize};
use tss_esapi::Context;
use tss_esapi::constants::{PropertyTag, SessionType};
use tss_esapi::handles::{AuthHandle, ObjectHandle};
use tss_esapi::structures::Auth;

use super::error::{Step, TpmError};
use super::{Tpm, raw};
use crate::base::secret::Secret;

/// Wrong PINs until the TPM locks. swtpm's own value is 3, which locks the box after three typos.
pub const TRIES: u32 = 10;
/// One wrong PIN is forgiven after so many seconds.
pub const FORGIVEN_AFTER: u32 = 600;
/// After a wrong password of the lockout hierarchy itself, seconds.
const RECOVERY: u32 = 86_400;

/// `TPMA_PERMANENT` (TCG "TPM 2.0 Library", part 2, 8.6).
const LOCKOUT_AUTH_SET: u32 = 1 << 2;
const IN_LOCKOUT: u32 = 1 << 9;

/// As the TPM tells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lockout {
    /// Wrong tries that are not forgiven yet.
    pub failed: u32,
    /// Tries until it locks.
    pub tries: u32,
    /// Seconds until one is forgiven.
    pub forgiven_after: u32,
    /// It takes no PIN now.
    pub locked: bool,
    /// The lockout hierarchy has a password.
    pub guarded: bool,
}

impl Tpm<'_> {
    /// How many wrong PINs there were.
    ///
    /// # Errors
    /// [`TpmError`].
    pub fn lockout(&mut self) -> Result<Lockout, TpmError> {
        state(&mut self.context)
    }

    /// Sets the password of the lockout hierarchy when it has none: without one, a thief of the machine starts a system of his own and
    /// sets the counter of wrong tries back as often as he likes. `password` is derived from the root key.
    ///
    /// # Errors
    /// [`TpmError::ForeignLockout`] when it has one that is not `ours`; trying ours on it would lock the hierarchy for a day.
    pub fn guard_lockout(&mut self, password: &Secret<32>, ours: bool) -> Result<(), TpmError> {
        if !self.lockout()?.guarded {
            let set = |tpm: &mut Self| {
                let auth = Auth::try_from(password.expose().as_slice())?;
                tpm.context.tr_set_auth(ObjectHandle::from(AuthHandle::Lockout), Auth::default())?;
                tpm.in_session(SessionType::Hmac, |tpm, session| {
                    tpm.execute_with_session(Some(session), |tpm| tpm.hierarchy_change_auth(AuthHandle::Lockout, auth))
                })
            };
            set(self).map_err(TpmError::at(Step::Lockout))
        } else if ours {
            Ok(())
        } else {
            Err(TpmError::ForeignLockout)
        }
    }
}

fn state(tpm: &mut Context) -> Result<Lockout, TpmError> {
    let mut read = |tag| {
        let value = tpm.execute_without_session(|tpm| tpm.get_tpm_property(tag)).map_err(TpmError::at(Step::Properties))?;
        Ok::<u32, TpmError>(value.unwrap_or(0))
    };
    let permanent = read(PropertyTag::Permanent)?;
    Ok(Lockout {
        failed: read(PropertyTag::LockoutCounter)?,
        tries: read(PropertyTag::MaxAuthFail)?,
        forgiven_after: read(PropertyTag::LockoutInterval)?,
        locked: permanent & IN_LOCKOUT != 0,
        guarded: permanent & LOCKOUT_AUTH_SET != 0,
    })
}

/// Ten tries, one forgiven in ten minutes.
///
/// # Errors
/// [`TpmError`].
pub fn set_parameters(tcti: &str, password: &Secret<32>) -> Result<(), TpmError> {
    let parameters = raw::Parameters { tries: TRIES, forgiven_after: FORGIVEN_AFTER, recovery: RECOVERY };
    raw::set_lockout_parameters(tcti, password.expose(), parameters).map_err(TpmError::LockoutHierarchy)
}

/// Forgives all wrong tries.
///
/// # Errors
/// [`TpmError`].
pub fn reset(tcti: &str, password: &Secret<32>) -> Result<(), TpmError> {
    raw::reset_lockout(tcti, password.expose()).map_err(TpmError::LockoutHierarchy)
}
