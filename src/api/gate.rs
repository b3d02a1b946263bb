//! The way from a verified peer to a permit: table, rate, audit. No handler runs without it.
//! Trusts: `connection` puts the peer of the TLS session into the request; without one nothing is allowed.
//! Touches: the rate buckets, the audit sink.
//! Next: the handler, with its permit.

use std::sync::Arc;

use axum::RequestPartsExt;
use axum::extract::{FromRequestParts, RawPathParams};
use http::request::Parts;

use super::audited::{self, Verdict};
use super::desk::Desk;
use super::frame::Trace;
use super::problem::{Kind, Problem};
use super::state::Api;
use crate::authz::action::Acting;
use crate::authz::permit::{Permit, Refusal};
use crate::base::ids::CallId;
use crate::identity::peer::PeerIdentity;

impl<A: Acting, D: Desk> FromRequestParts<Api<D>> for Permit<A> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, api: &Api<D>) -> Result<Self, Problem> {
        let missing = || Problem::new(Kind::Internal, "The connection has no peer.");
        let peer = parts.extensions.get::<Arc<PeerIdentity>>().cloned().ok_or_else(missing)?;
        let trace = parts.extensions.get::<Arc<Trace>>().cloned().ok_or_else(missing)?;
        let call = parts.extract::<RawPathParams>().await.ok().as_ref().and_then(named_call);
        let record = |verdict| audited::decided(trace.id(), &peer, A::ACTION, call, verdict);
        trace.set_action(A::ACTION);

        let permit = Self::decide(&peer, api.clock().now()).inspect_err(|refusal| {
            record(match refusal {
                Refusal::NotAllowed => Verdict::RefusedRole,
                Refusal::Expired => Verdict::RefusedExpired,
            });
        })?;
        let allowance = api.rate(&peer, A::ACTION.class());
        trace.set_allowance(allowance);
        if let Some(wait) = allowance.wait {
            record(Verdict::RefusedRate);
            return Err(Problem::retry(Kind::RateLimited, format!("At most {} of these a minute.", allowance.per_minute), wait));
        }
        record(Verdict::Allowed);
        Ok(permit)
    }
}

/// The call in the path, when it is one.
fn named_call(params: &RawPathParams) -> Option<CallId> {
    params.iter().find(|(name, _)| *name == "id").and_then(|(_, value)| value.parse().ok())
}
