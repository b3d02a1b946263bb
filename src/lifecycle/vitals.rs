//! How the machine is, gathered from the parts for health and metrics.
//! Trusts: the parts' own words.
//! Touches: free space of the state directory, the keeper's counters.
//! Next: `api::health`, `api::metrics`.

use crate::api::vitals::{Part, Reading, Trouble, Vitals};
use crate::config::Config;
use crate::ipc::keeper::Standing;
use crate::job::calls::Calls;
use crate::job::hindrance::Hindrance;
use crate::keys::Keeper;
use crate::record::space::Space;

/// The appliance as its own monitor sees it.
pub struct Machine {
    calls: Calls,
    keeper: Keeper,
    standing: Standing,
    space: Space,
}

impl Machine {
    /// Of these parts.
    pub fn new(calls: Calls, keeper: Keeper, standing: Standing, config: &Config) -> Self {
        Self { calls, keeper, standing, space: Space::new(&config.state.directory, config.state.reserve) }
    }
}

impl Vitals for Machine {
    fn read(&self) -> Reading {
        let health = self.calls.health();
        let counts = self.calls.counts();
        let keeper = self.keeper.counters().ok();
        let faults = [
            (!health.store, Part::Store, Trouble::Down),
            (!health.ballast, Part::Disk, Trouble::Low),
            (!health.space, Part::Disk, Trouble::Low),
            (!(health.workers && health.runners), Part::Workers, Trouble::Down),
            (keeper.is_none(), Part::Keeper, Trouble::Down),
            (health.hindrances.contains(&Hindrance::Recording), Part::Disk, Trouble::Failing),
            (health.hindrances.contains(&Hindrance::Workers), Part::Workers, Trouble::Failing),
            (health.hindrances.contains(&Hindrance::Keeper), Part::Keeper, Trouble::Failing),
            (health.hindrances.contains(&Hindrance::Store), Part::Store, Trouble::Failing),
        ];
        let mut troubles: Vec<(Part, Trouble)> =
            faults.into_iter().filter(|(is, ..)| *is).map(|(_, part, trouble)| (part, trouble)).collect();
        troubles.dedup();
        Reading {
            troubles,
            queue: u64::try_from(health.waiting).unwrap_or(u64::MAX),
            disk_free: self.space.free().unwrap_or(0),
            calls: counts.calls,
            exits: counts.exits,
            real_time_factor: counts.real_time_factor,
            keeper,
            standing: Some(self.standing.clone()),
        }
    }
}
