//! How the machine is: what health and metrics show of the other modules.
//! Trusts: whoever `lifecycle` wires in.
//! Touches: nothing.
//! Next: [`super::health`], [`super::metrics`].

use serde::Serialize;
use utoipa::ToSchema;

use crate::ipc::keeper::{KeeperCounters, Standing};
use crate::ipc::worker::ChildExit;
use crate::job::spec::CallState;
use crate::job::tally::Distribution;

/// Reads the machine's state. May block for a moment; it is called on a thread for that.
pub trait Vitals: Send + Sync + 'static {
    /// The state now.
    fn read(&self) -> Reading;
}

/// A part that must work for calls to be accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Part {
    /// The store of calls.
    Store,
    /// The key keeper.
    Keeper,
    /// The fork server of the workers.
    Workers,
    /// Free space on the disk.
    Disk,
}

/// What is wrong with a part.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Trouble {
    /// It does not answer, or is gone.
    Down,
    /// There is too little free space; no new call is accepted.
    Low,
    /// It reads, but cannot write.
    ReadOnly,
    /// It fails for calls that wait to be tried again; the journal says which and why.
    Failing,
}

/// The state of the machine at one moment.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Reading {
    /// Parts in trouble; none when all is well.
    pub troubles: Vec<(Part, Trouble)>,
    /// Calls by state.
    pub calls: Vec<(CallState, u64)>,
    /// Calls that wait.
    pub queue: u64,
    /// Free space for the store, bytes.
    pub disk_free: u64,
    /// Uses of keys, when the keeper answers.
    pub keeper: Option<KeeperCounters>,
    /// What the keeper said of itself at its start.
    pub standing: Option<Standing>,
    /// How children ended, since the start.
    pub exits: Vec<(ChildExit, u64)>,
    /// Wall time of a finished call divided by its length, since the start.
    pub real_time_factor: Distribution,
}
