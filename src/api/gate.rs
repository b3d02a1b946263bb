//! The way from a verified peer to a permit: table, rate, audit. No handler runs without it.
//! Trusts: `connection` puts [`Connected`] into each request; without it nothing is allowed.
//! Touches: the rate buckets, the audit sink.
//! Next: the handler, with its permit.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::RequestPartsExt;
use axum::extract::{FromRequestParts, RawPathParams};
use http::request::Parts;

use super::audited;
use super::desk::Desk;
use super::frame::Trace;
use super::problem::{Kind, Problem};
use super::state::Api;
use crate::audit::event::Ruling;
use crate::authz::action::Acting;
use crate::authz::permit::{Permit, Refusal};
use crate::base::ids::CallId;
use crate::identity::peer::PeerIdentity;

/// Who sent a request, and from where: an extension of every request.
#[derive(Clone, Debug)]
pub struct Connected {
    peer: Arc<PeerIdentity>,
    source: SocketAddr,
}

impl Connected {
    /// Of one TLS session.
    pub const fn new(peer: Arc<PeerIdentity>, source: SocketAddr) -> Self {
        Self { peer, source }
    }

    /// Who.
    pub fn peer(&self) -> &PeerIdentity {
        &self.peer
    }

    /// From where.
    pub const fn source(&self) -> SocketAddr {
        self.source
    }
}

impl<A: Acting, D: Desk> FromRequestParts<Api<D>> for Permit<A> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, api: &Api<D>) -> Result<Self, Problem> {
        let missing = || Problem::new(Kind::Internal, "The request has no peer.");
        let connected = parts.extensions.get::<Connected>().cloned().ok_or_else(missing)?;
        let trace = parts.extensions.get::<Arc<Trace>>().cloned().ok_or_else(missing)?;
        let call = parts.extract::<RawPathParams>().await.ok().as_ref().and_then(named_call);
        let record = |ruling| audited::decided(&connected, A::ACTION, call, ruling);
        trace.set_action(A::ACTION);

        let permit = Self::decide(&connected.peer, api.clock().now()).inspect_err(|refusal| {
            record(Ruling::Refused(match refusal {
                Refusal::NotAllowed => "role",
                Refusal::Expired => "certificate_expired",
            }));
        })?;
        let allowance = api.rate(&connected.peer, A::ACTION.class());
        trace.set_allowance(allowance);
        if let Some(wait) = allowance.wait {
            record(Ruling::Refused("rate"));
            return Err(Problem::retry(Kind::RateLimited, format!("At most {} of these a minute.", allowance.per_minute), wait));
        }
        record(Ruling::Allowed);
        Ok(permit)
    }
}

/// The call in the path, when it is one.
fn named_call(params: &RawPathParams) -> Option<CallId> {
    params.iter().find(|(name, _)| *name == "id").and_then(|(_, value)| value.parse().ok())
}
