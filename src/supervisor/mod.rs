//! Starts the keeper and the fork server, hands one call at a time to a child, judges how children behave and end.
//! Trusts: nothing that a child says; the fork server only to fork, watch and kill.
//! Touches: two programs beside this one, channels.
//! Next: `job` gives each call to a [`child::Child`]; `lifecycle` ends the daemon when the fork server is lost.

pub mod child;
pub mod conversation;
pub mod forkserver;
pub mod lines;
pub mod program;
