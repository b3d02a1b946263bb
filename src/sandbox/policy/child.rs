//! A child of the fork server: one call's audio in, one transcript out. It is taken for taken over.
//! Trusts: nothing.
//! Touches: its channel, its memory, its threads; its standard error is /dev/null, so that it can put no word into the journal.
//! Next: [`super::forkserver`] must allow all of this too, because filters stack.

use super::shared::{ALL_DENY, CHANNEL, COMPUTE, NO_FILES, NO_FILES_DENY, NO_TCP_DENY, STDERR, THREADS};
use super::{Denied, Policy, dies};
use crate::sys::attempt::Act;

/// No file, socket, program or process; threads only because a long call uses all processors.
pub const POLICY: Policy = Policy {
    name: "child",
    allowed: &[COMPUTE, THREADS, CHANNEL, STDERR],
    refused: NO_FILES,
    denied: &[ALL_DENY, NO_TCP_DENY, NO_FILES_DENY, NO_OFFSPRING],
};

const NO_OFFSPRING: &[Denied] = &[dies(Act::Fork)];
