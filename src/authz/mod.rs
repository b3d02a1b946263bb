//! Who may do what: a closed list of actions, one total table, and the permit that proves a decision.
//! Trusts: the [`crate::identity::peer::PeerIdentity`] it is given.
//! Touches: nothing; pure.
//! Next: `api` handlers take a [`permit::Permit`] by value.

pub mod action;
pub mod permit;
pub mod policy;
