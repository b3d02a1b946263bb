//! What a TPM can refuse, by the step that failed and the way out.
//! Trusts: nothing.
//! Touches: nothing.
//! Next: `slots` and `manage` show it to the operator.

use tss_esapi::Error as TssError;
use tss_esapi::constants::response_code::Tss2ResponseCodeKind as Kind;

/// What was being done when the TPM refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Making the storage root key.
    StorageRoot,
    /// Opening an encrypted session.
    Session,
    /// Building the policy.
    Policy,
    /// Sealing the slot key.
    Seal,
    /// Loading the sealed slot key.
    Load,
    /// Opening the slot key.
    Unseal,
    /// Making a place in NV memory.
    NvDefine,
    /// Writing it.
    NvWrite,
    /// Reading it.
    NvRead,
    /// Counting up in it.
    NvCount,
    /// Giving it back.
    NvUndefine,
    /// Reading PCR values or properties.
    Properties,
    /// Setting the dictionary-attack parameters.
    Lockout,
}

impl Step {
    const fn words(self) -> &'static str {
        match self {
            Self::StorageRoot => "making the storage root key",
            Self::Session => "opening an encrypted session",
            Self::Policy => "satisfying the unseal policy",
            Self::Seal => "sealing the slot's key",
            Self::Load => "loading the slot's sealed key",
            Self::Unseal => "opening the slot's key",
            Self::NvDefine => "making a place in NV memory",
            Self::NvWrite => "writing NV memory",
            Self::NvRead => "reading NV memory",
            Self::NvCount => "counting up in NV memory",
            Self::NvUndefine => "giving NV memory back",
            Self::Properties => "reading the TPM's properties",
            Self::Lockout => "setting the dictionary-attack protection",
        }
    }
}

/// Why the TPM did not do it.
#[derive(Debug, thiserror::Error)]
pub enum TpmError {
    /// The address is no TCTI name.
    #[error("the TPM's address is not understood; write it as device:/dev/tpmrm0 (tests: swtpm:host=127.0.0.1,port=2321)")]
    Address(#[source] TssError),
    /// Nobody answers there.
    #[error(
        "no TPM answers at the configured address: enable the TPM in the machine's firmware, check that the device exists, that this \
         user may open it (group tss) and that no other program holds it"
    )]
    Absent(#[source] TssError),
    /// Its storage root is not the recorded one.
    #[error(
        "this TPM is not the one that the keys were sealed by, or it has been cleared: put the keys back into the machine they were made \
         on, or open them with a recovery code or with shares and make a slot for this TPM (salama keys reseal)"
    )]
    OtherTpm,
    /// It has no room or no time.
    #[error("the TPM is busy ({} failed): stop other programs that use it, or restart the machine, then try again", .step.words())]
    Busy {
        /// What was being done.
        step: Step,
        /// What the TPM said.
        #[source]
        source: TssError,
    },
    /// It wants a password for its owner hierarchy.
    #[error(
        "the TPM's owner hierarchy has a password: give it to salamad as the systemd credential tpm-owner-auth (LoadCredential=) and to \
         salama init, enrol and keys with --owner-auth FILE, or remove it (tpm2_changeauth -c owner -p PASSWORD)"
    )]
    OwnerPassword(#[source] TssError),
    /// It does not take the password given.
    #[error("the TPM refuses the owner password given: correct the file of the credential tpm-owner-auth or of --owner-auth")]
    WrongOwnerPassword(#[source] TssError),
    /// The PIN is wrong.
    #[error("the PIN is wrong: the TPM has counted it, and after too many it takes none for a while")]
    WrongPin(#[source] TssError),
    /// Too many wrong PINs.
    #[error(
        "the TPM is locked after too many wrong PINs, and takes the right one neither: wait until it forgives one (`salama keys list` \
         says how long), or open with a recovery code (salama keys unlock)"
    )]
    LockedOut(#[source] TssError),
    /// The PCRs are not those of sealing.
    #[error(
        "what this machine has started (PCR {pcrs}) is not what the slot was sealed to: firmware, boot loader or kernel have changed. If you \
         changed them, open with a recovery code or shares and seal again (salama keys reseal); if not, find out who did"
    )]
    Measured {
        /// For example `7+11`.
        pcrs: String,
    },
    /// The PCRs are none that the authority has approved.
    #[error(
        "what this machine has started (PCR {pcrs}) is in none of the states that the slot's authority has approved: if you changed it, open \
         with a recovery code or shares and add an approval (salama keys policy, salama keys approve); if not, find out who did"
    )]
    NotApproved {
        /// For example `7+11`.
        pcrs: String,
    },
    /// No SHA-256 bank.
    #[error("the TPM keeps no SHA-256 values of PCRs: switch its SHA-256 bank on in the firmware")]
    NoBank,
    /// A place in NV memory is gone.
    #[error(
        "the half of this slot in the TPM's NV memory is gone: the slot was removed or sealed anew later than this file was written, or the TPM was \
         cleared. Put the newest key directory back, or open with a recovery code or shares (salama keys reseal)"
    )]
    HalfGone,
    /// The counter does not take our password.
    #[error(
        "the TPM's counter of starts belongs to another box that was set up on this TPM: put that box's key directory back, or make a new counter \
         with a recovery code or shares (salama recover --accept-rollback)"
    )]
    ForeignCounter,
    /// The counter is gone.
    #[error(
        "the TPM's counter of starts is gone: the TPM was cleared, or its owner removed it. Find out who did; then `salama recover \
         --accept-rollback` makes a new one with a recovery code or shares"
    )]
    CounterGone,
    /// The places of the erasure epoch are gone.
    #[error(
        "the erasure epoch is not in this TPM's NV memory: the box was moved here, or somebody removed it. Codes and shares carry the epoch: \
         make the slot of this TPM anew with one of them (salama keys reseal --with SLOT, where SLOT is the paper's number)"
    )]
    EpochGone,
    /// What was written is not what is read.
    #[error(
        "the TPM did not keep what was written into its NV memory: it may be worn out. Replace the machine, and reseal with a recovery code"
    )]
    NotWritten,
    /// NV memory is full.
    #[error("the TPM's NV memory is full: remove indices that nobody needs (tpm2_getcap handles-nv-index, tpm2_nvundefine)")]
    NvFull,
    /// Its lockout hierarchy has somebody else's password.
    #[error(
        "the TPM's lockout hierarchy has a password that Salama did not set, so that the tries of a PIN cannot be limited: clear the TPM \
         in the firmware and set the box up again, or remove that password (tpm2_changeauth -c lockout -p PASSWORD)"
    )]
    ForeignLockout,
    /// A command of the lockout hierarchy.
    #[error(
        "the TPM refused to set its dictionary-attack protection: after a wrong password of its lockout hierarchy it does so for a day; \
         try again tomorrow, or clear the TPM in the firmware and make the slot anew"
    )]
    LockoutHierarchy(#[source] super::raw::RawError),
    /// It refused.
    #[error("the TPM refused ({} failed): the sealed key or the TPM's state has changed", .step.words())]
    Refused {
        /// What was being done.
        step: Step,
        /// What the TPM said.
        #[source]
        source: TssError,
    },
    /// The connection that was kept could not be taken up again.
    #[error("the connection to the TPM was lost while serving: restart the daemon (systemctl restart salama)")]
    Lost,
    /// The sealed secret has not the length of a key.
    #[error("what the TPM opened is no key of Salama: the slot belongs to another program")]
    WrongLength,
    /// An approval or the authority's key is malformed.
    #[error("the authority's key or an approval of a measured state is malformed: make the approval anew (salama keys policy)")]
    Approval,
}

impl TpmError {
    pub(super) fn at(step: Step) -> impl Fn(TssError) -> Self {
        move |source| match kind(source) {
            Some(
                Kind::Retry
                | Kind::ObjectMemory
                | Kind::SessionMemory
                | Kind::Memory
                | Kind::SessionHandles
                | Kind::ObjectHandles
                | Kind::Yielded
                | Kind::Testing
                | Kind::NvRate
                | Kind::NvUnavailable,
            ) => Self::Busy { step, source },
            Some(Kind::Lockout) => Self::LockedOut(source),
            Some(Kind::NvSpace) => Self::NvFull,
            _ if step == Step::StorageRoot && is_wrong_password(source) => Self::OwnerPassword(source),
            _ => Self::Refused { step, source },
        }
    }
}

pub(super) fn kind(error: TssError) -> Option<Kind> {
    match error {
        TssError::Tss2Error(code) => code.kind(),
        TssError::WrapperError(_) => None,
    }
}

pub(super) fn is_wrong_password(error: TssError) -> bool {
    matches!(kind(error), Some(Kind::AuthFail | Kind::BadAuth))
}
