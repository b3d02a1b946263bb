//! The life of the daemon once it is confined: parts wired, served, watched, drained.
//! Trusts: the parts that the start-up story hands over.
//! Touches: the runtime, signals, systemd's notify socket.
//! Next: `connection` accepts, `job` works.

pub mod arguments;
mod bursts;
pub mod daemon;
pub mod maintenance;
pub mod notify;
pub mod parts;
pub mod signals;
pub mod vitals;

use crate::audit::event::{ConfinementReport as Entry, Event};
use crate::sandbox::process::ConfinementReport;

/// The audit entry that says how this process is confined.
fn confinement(report: &ConfinementReport) -> Event {
    let lacks: Vec<String> = report.landlock.missing.iter().map(ToString::to_string).collect();
    let count = |many: usize| u32::try_from(many).unwrap_or(u32::MAX);
    Event::Confined(Entry {
        process: report.policy,
        landlock_abi: u32::try_from(report.landlock.enforced_abi).unwrap_or(0),
        landlock_lacks: lacks.join(", "),
        system_calls: count(report.system_calls),
        acts_denied: count(report.acts_denied),
    })
}
