//! Every decision on a request or connection, put into the audit's words in one place.
//! Trusts: nothing.
//! Touches: the audit sink.
//! Next: [`crate::audit::record`].

use std::net::SocketAddr;

use super::gate::Connected;
use crate::audit::event::{AuthFailure, Ruling, Who};
use crate::audit::{self, Event};
use crate::authz::action::Action;
use crate::base::ids::CallId;

/// A request was allowed or refused.
pub(super) fn decided(connected: &Connected, action: Action, call: Option<CallId>, ruling: Ruling) {
    let peer = connected.peer();
    let who = Who { role: peer.role().word().to_owned(), name: peer.name().to_owned() };
    audit::record(&Event::Decided { who: Some(who), peer: connected.source(), action: action.word(), call, ruling });
}

/// A connection ended before it could ask for anything.
pub fn turned_away(source: SocketAddr, failure: AuthFailure) {
    audit::record(&Event::AuthFailed { peer: source, failure });
}
