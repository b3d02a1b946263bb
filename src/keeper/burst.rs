//! A grant's way: limit of tries > judged > room for it > written down > counts.
//! Trusts: `grant`, which judges.
//! Touches: the journal.
//! Next: `serve` replies.

use std::io::Write;

use crate::base::clock::Clock;
use crate::ipc::burst::{GrantFault, SignedGrant};
use crate::ipc::keeper::{KeeperDenial, KeeperReply};

use super::journal::Incident;
use super::quota::Use;
use super::serve::Keeper;

impl<C: Clock, W: Write> Keeper<C, W> {
    /// Adds the uses that a grant allows. Each that is refused is an incident: people do not mistype signatures.
    pub(super) fn burst(&mut self, signed: &SignedGrant) -> Result<KeeperReply, KeeperDenial> {
        let now = self.quota.clock().now();
        let grants = self.grants.as_mut().ok_or(KeeperDenial::BadRequest)?;
        let refused = match grants.judge(signed, now) {
            // Before it is used up and written down as granted: who is told to wait may send it again.
            Ok(accepted) if !self.quota.has_room(accepted.purpose) => GrantFault::TooMany,
            Ok(accepted) => {
                // Used up first: whatever fails behind this, it does not count twice.
                grants.use_up(&accepted);
                self.journal.granted(&accepted, now).map_err(|_| KeeperDenial::Internal)?;
                self.quota.grant(accepted.purpose, accepted.count, accepted.lifetime);
                return Ok(KeeperReply::BurstTaken);
            }
            Err(fault) => fault,
        };
        self.quota.count_incident();
        self.journal.incident(Incident::Grant(refused), Some(Use::Grant), now).map_err(|_| KeeperDenial::Internal)?;
        Err(KeeperDenial::Grant(refused))
    }
}
