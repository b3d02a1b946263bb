//! Every decision on a request or connection, written down in one place.
//! Trusts: nothing.
//! Touches: the audit sink.
//! Next: the journal.

use std::net::IpAddr;

use crate::authz::action::Action;
use crate::base::ids::CallId;
use crate::identity::peer::PeerIdentity;

/// What was decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// A permit was given.
    Allowed,
    /// The table says no.
    RefusedRole,
    /// The certificate has expired during the connection.
    RefusedExpired,
    /// Too often.
    RefusedRate,
}

/// Why a connection came to nothing before it had a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turned {
    /// No place left in all.
    Full,
    /// No place left for this source.
    SourceFull,
    /// The handshake took too long.
    HandshakeTimeout,
    /// The handshake failed: no certificate, a certificate of another CA, an old version.
    Handshake,
    /// The certificate names nobody here.
    Identity,
}

/// A request was allowed or refused.
pub fn decided(request: &str, peer: &PeerIdentity, action: Action, call: Option<CallId>, verdict: Verdict) {
    let call = call.map(|call| call.to_string());
    tracing::info!(target: "audit", request, peer = peer.owner(), action = action.word(), call, verdict = ?verdict, "decided");
}

/// A connection was refused.
pub fn turned_away(source: IpAddr, why: Turned) {
    tracing::info!(target: "audit", %source, why = ?why, "turned away");
}
