//! The keeper as the API's grants see it.
//! Trusts: the keeper's answers.
//! Touches: the channel to the keeper.
//! Next: `api::bursts`.

use std::time::Duration;

use crate::api::bursts::{BurstRefusal, KeyBursts};
use crate::audit::{self, event::Event};
use crate::base::told::told;
use crate::ipc::burst::SignedGrant;
use crate::ipc::keeper::{KeeperDenial, StartId};
use crate::keys::{Keeper, KeeperError};

/// Relays to this start of the keeper.
pub struct Relay {
    /// The handle.
    pub keeper: Keeper,
    /// Its start.
    pub start: StartId,
}

impl KeyBursts for Relay {
    fn start(&self) -> StartId {
        self.start
    }

    fn burst(&self, grant: SignedGrant) -> Result<(), BurstRefusal> {
        self.keeper.burst(grant).map_err(|error| match error {
            KeeperError::Denied(KeeperDenial::Grant(fault)) => BurstRefusal::Fault(fault),
            KeeperError::Denied(KeeperDenial::RateLimited { seconds }) => BurstRefusal::Limited(Duration::from_secs(seconds.into())),
            error => {
                audit::record(&Event::Fault { call: None, step: "relay grant", cause: told(&error) });
                BurstRefusal::Failed
            }
        })
    }
}
