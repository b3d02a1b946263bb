//! The proof that a peer may do one thing. A handler that takes one cannot run without the decision.
//! Trusts: the table in [`super::policy`].
//! Touches: nothing; the time is handed in.
//! Next: the handler in `api`, which asks it whose calls it covers.

use std::marker::PhantomData;
use std::sync::Arc;

use super::action::Acting;
use super::policy::{Grant, grant};
use crate::base::clock::Timestamp;
use crate::identity::peer::PeerIdentity;

/// Whose calls a permit covers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// Those that the peer uploaded.
    Own,
    /// All.
    All,
}

/// Leave for one peer to do `A` once. Neither `Clone` nor to be made elsewhere.
#[derive(Debug)]
pub struct Permit<A> {
    peer: Arc<PeerIdentity>,
    reach: Reach,
    action: PhantomData<A>,
}

/// Why there is no permit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The table says so.
    #[error("this role may not do that")]
    NotAllowed,
    /// The certificate has expired since the handshake.
    #[error("the certificate has expired; ask for a new one")]
    Expired,
}

impl<A: Acting> Permit<A> {
    /// Decides by the table, for one request at `now`.
    ///
    /// # Errors
    /// [`Refusal`] when the table or the certificate's dates say no.
    pub fn decide(peer: &Arc<PeerIdentity>, now: Timestamp) -> Result<Self, Refusal> {
        if now > peer.valid_until() {
            return Err(Refusal::Expired);
        }
        let reach = match grant(peer.role(), A::ACTION) {
            Grant::Deny => return Err(Refusal::NotAllowed),
            Grant::Own => Reach::Own,
            Grant::All => Reach::All,
        };
        Ok(Self { peer: Arc::clone(peer), reach, action: PhantomData })
    }
}

impl<A> Permit<A> {
    /// Who has it.
    pub fn peer(&self) -> &PeerIdentity {
        &self.peer
    }

    /// Whose calls it covers.
    pub const fn reach(&self) -> Reach {
        self.reach
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::authz::action::{Action, CreateCall, DeleteCall, ViewCall};
    use crate::identity::peer::Role;
    use crate::identity::peer::test_peers::peer;

    const NOW: Timestamp = Timestamp::from_unix_millis(1_000);

    #[test]
    fn a_permit_covers_what_the_table_grants() {
        let own = Permit::<ViewCall>::decide(&peer(Role::Counsellor, "asha"), NOW).unwrap();
        let all = Permit::<ViewCall>::decide(&peer(Role::Supervisor, "juma"), NOW).unwrap();
        assert_eq!((own.reach(), all.reach()), (Reach::Own, Reach::All));
        assert_eq!(own.peer().owner(), "counsellor/asha");
    }

    #[test]
    fn there_is_no_permit_for_what_the_table_denies() {
        assert_eq!(Permit::<CreateCall>::decide(&peer(Role::Admin, "root"), NOW).unwrap_err(), Refusal::NotAllowed);
        assert_eq!(Permit::<DeleteCall>::decide(&peer(Role::Recorder, "pbx"), NOW).unwrap_err(), Refusal::NotAllowed);
    }

    #[test]
    fn a_certificate_that_expired_during_the_connection_gives_no_permit() {
        let later = Timestamp::from_unix_millis(u64::MAX);
        let forever = peer(Role::Counsellor, "asha");
        assert!(Permit::<ViewCall>::decide(&forever, later).is_ok());
        let expired = crate::identity::peer::test_peers::peer_until(Role::Counsellor, "asha", Timestamp::from_unix_millis(999));
        assert_eq!(Permit::<ViewCall>::decide(&expired, NOW).unwrap_err(), Refusal::Expired);
    }

    #[test]
    fn actions_have_words_of_their_own() {
        let words: std::collections::BTreeSet<_> = Action::ALL.iter().map(|action| action.word()).collect();
        assert_eq!(words.len(), Action::ALL.len());
    }
}
