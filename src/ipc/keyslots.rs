//! What `salama keys` and `salama-keeper keys` say to each other at the console.
//! Trusts: both ends are the operator's; the keeper still checks every word.
//! Touches: nothing.
//! Next: `cli` (the face), `keeper::manage` (which does it).
//!
//! The console says one [`Task`]; then the keeper asks and shows until it says `Done` or `Refused`.

use serde::{Deserialize, Serialize};

use crate::base::secret::SecretText;

/// From the console.
#[derive(Serialize, Deserialize)]
pub enum ConsoleWord {
    /// What is to be done; the first word, said once.
    Task(Task),
    /// The answer to a question.
    Answer(SecretText),
    /// What was to be shown has been shown.
    Shown,
}

/// What can be done with keyslots.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Task {
    /// Say what there is. Needs no key.
    List,
    /// Open one slot, to see that it still opens.
    Verify {
        /// Which.
        slot: u32,
    },
    /// Make a new slot.
    Add {
        /// Which sort.
        new: NewSlot,
        /// The slot to open the root key by; the keeper's choice when absent.
        with: Option<u32>,
    },
    /// Remove a slot, once another one was opened.
    Remove {
        /// Which.
        slot: u32,
        /// As above.
        with: Option<u32>,
    },
    /// Give a slot a new secret: code, shares or PIN.
    Rotate {
        /// Which; all codes and shares when absent.
        slot: Option<u32>,
        /// As above.
        with: Option<u32>,
    },
    /// Seal a slot of the TPM anew, or make one in the place of one that opens no more.
    Reseal {
        /// Which; the only one of the TPM when absent.
        slot: Option<u32>,
        /// What is to change.
        conditions: Conditions,
        /// As above.
        with: Option<u32>,
    },
    /// Add an approval of a measured state to a slot with an authority.
    Approve {
        /// Which; the only one with an authority when absent.
        slot: Option<u32>,
        /// The approval.
        approval: ApprovalFile,
        /// As above.
        with: Option<u32>,
    },
    /// Say what an authority would have to sign. Needs no key.
    Policy {
        /// The PCRs, bit n for PCR n.
        pcrs: u32,
        /// Values that some will have; the others are read from the TPM.
        values: Vec<(u8, [u8; 32])>,
    },
    /// Let the next start take a store that is older than the box, once a code or shares were given.
    AcceptRollback {
        /// As above.
        with: Option<u32>,
    },
    /// Forgive wrong PINs, once a code or shares were given.
    Unlock {
        /// As above.
        with: Option<u32>,
    },
}

impl Task {
    /// Whether the root key is opened for it, which is said in signed lines. Without that key nothing could sign.
    pub const fn leaves_lines(&self) -> bool {
        !matches!(self, Self::List | Self::Policy { .. })
    }
}

/// Sorts of new slots.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum NewSlot {
    /// For this machine's TPM.
    Tpm(Conditions),
    /// A printed code.
    Recovery,
    /// Shares of one.
    Shares {
        /// How many are needed.
        threshold: u8,
        /// How many there are.
        count: u8,
    },
}

/// What a slot of the TPM asks for. What is absent stays as it is; a new slot does not ask for it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Conditions {
    /// PCRs as they are now, bit n for PCR n.
    pub pcrs: Option<u32>,
    /// A PIN.
    pub pin: Option<bool>,
    /// An authority, or none any more.
    pub authority: Option<Option<AuthorityFile>>,
    /// The TPM may be one that this box has never used.
    pub new_tpm: bool,
}

/// An authority with its first approval.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuthorityFile {
    /// Its key, ECDSA P-256: the point, x then y.
    pub point: Vec<u8>,
    /// What it approves of.
    pub approval: ApprovalFile,
}

/// What an authority has signed, and its signature: r then s.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApprovalFile {
    /// As [`KeysReport::policy`] said it.
    pub text: Vec<u8>,
    /// ECDSA over its SHA-256.
    pub signature: Vec<u8>,
}

/// From the keeper.
#[derive(Serialize, Deserialize)]
pub enum KeeperWord {
    /// Somebody must type something.
    Ask {
        /// What.
        wanted: Wanted,
        /// What was wrong with the last answer.
        problem: Option<String>,
    },
    /// Something is to be written down by people.
    Show(Sheet),
    /// It is done.
    Done(Box<KeysReport>),
    /// It was not done.
    Refused {
        /// Why, and the way out.
        reason: String,
        /// The exit code that says it.
        exit: u8,
    },
}

/// What somebody must type.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Wanted {
    /// The PIN of a slot.
    Pin {
        /// Its number.
        slot: u32,
    },
    /// A PIN for a new slot.
    NewPin,
    /// The same once more.
    NewPinAgain,
    /// The code of a slot.
    Code {
        /// Its number.
        slot: u32,
    },
    /// One more share of a slot.
    Share {
        /// Its number.
        slot: u32,
        /// How many were given.
        have: u8,
        /// How many are needed.
        need: u8,
    },
    /// What was shown, from the paper.
    Again {
        /// Of several sheets, which.
        number: u8,
    },
}

/// A secret to be written down, shown once.
#[derive(Serialize, Deserialize)]
pub struct Sheet {
    /// What it is.
    pub sort: SheetSort,
    /// The number that the slot will have.
    pub slot: u32,
    /// The groups, a space between two.
    pub text: SecretText,
}

/// What a sheet has on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SheetSort {
    /// A code.
    Code,
    /// A share.
    Share {
        /// Which.
        number: u8,
        /// How many are needed.
        threshold: u8,
        /// How many there are.
        count: u8,
    },
}

/// What was found or done.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeysReport {
    /// In one sentence.
    pub done: String,
    /// The slots after it.
    pub slots: Vec<SlotView>,
    /// One more with each change of the file.
    pub generation: u64,
    /// The state of the TPM's dictionary-attack protection, or why it is not known.
    pub lockout: Option<LockoutView>,
    /// Why the TPM's state is not known.
    pub tpm_trouble: Option<String>,
    /// What an authority would have to sign.
    pub policy: Option<Vec<u8>>,
}

/// One slot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SlotView {
    /// Its number.
    pub id: u32,
    /// tpm, recovery or shares.
    pub kind: String,
    /// What it asks for, in words.
    pub needs: String,
    /// When it was made, RFC 3339; unknown for the first slot of an old box.
    pub made: Option<String>,
    /// When it was last seen to open.
    pub opened: Option<String>,
}

/// The TPM's dictionary-attack protection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LockoutView {
    /// Wrong tries that are not forgiven yet.
    pub failed: u32,
    /// Tries until it locks.
    pub tries: u32,
    /// Seconds until one is forgiven.
    pub forgiven_after: u32,
    /// It takes no PIN now.
    pub locked: bool,
    /// Its parameters are guarded by a password that only this box knows.
    pub guarded: bool,
}
