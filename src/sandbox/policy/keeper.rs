//! `salama-keeper`: answers requests on one channel; has read its key files and left the TPM before it is confined.
//! Trusts: nothing that comes over the channel.
//! Touches: its channel, its memory, standard error.
//! Next: the keeper's request loop.

use super::shared::{ALL_DENY, CHANNEL, COMPUTE, NO_FILES, NO_FILES_DENY, STDERR};
use super::{Denied, Policy, dies};
use crate::sys::attempt::Act;

/// The least of all: not even threads.
pub const POLICY: Policy =
    Policy { name: "keeper", allowed: &[COMPUTE, CHANNEL, STDERR], refused: NO_FILES, denied: &[ALL_DENY, NO_FILES_DENY, NO_OFFSPRING] };

const NO_OFFSPRING: &[Denied] = &[dies(Act::Fork)];
