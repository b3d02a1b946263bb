//! What is around every request: an id, a slot among those served at once, safe headers, the problem document, the count.
//! Trusts: nothing of the request.
//! Touches: the metrics.
//! Next: the route's handler.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use axum::body::Body;
use axum::extract::{MatchedPath, Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http::header::{self, HeaderName};
use http::{HeaderMap, HeaderValue, StatusCode};
use ring::rand::{SecureRandom, SystemRandom};

use super::desk::Desk;
use super::held::Held;
use super::problem::{Kind, Problem};
use super::state::Api;
use crate::admission::rate::Allowance;
use crate::authz::action::Action;

/// Names the request in replies and audit entries.
pub const REQUEST_ID: HeaderName = HeaderName::from_static("salama-request-id");
/// Longest head of a request that is taken, bytes, metadata header included.
pub const HEAD_MAX: usize = 64 * 1024;
/// Most header fields of a request.
pub const HEADERS_MAX: usize = 64;
const RATE_LIMIT: HeaderName = HeaderName::from_static("ratelimit");
const RATE_LIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");

/// What is learnt of a request on its way in and shown on its way out.
#[derive(Debug)]
pub struct Trace {
    id: String,
    action: OnceLock<Action>,
    allowance: OnceLock<Allowance>,
}

impl Trace {
    fn new() -> Option<Self> {
        let mut bytes = [0; 8];
        SystemRandom::new().fill(&mut bytes).ok()?;
        Some(Self { id: format!("{:016x}", u64::from_be_bytes(bytes)), action: OnceLock::new(), allowance: OnceLock::new() })
    }

    /// 16 hexadecimal digits, ours: a client's own id is not taken over.
    pub fn id(&self) -> &str {
        &self.id
    }

    pub(super) fn set_action(&self, action: Action) {
        _ = self.action.set(action);
    }

    pub(super) fn set_allowance(&self, allowance: Allowance) {
        _ = self.allowance.set(allowance);
    }
}

/// The layer around all routes and fallbacks.
pub(super) async fn frame<D: Desk>(State(api): State<Api<D>>, mut request: Request, next: Next) -> Response {
    let Some(trace) = Trace::new().map(Arc::new) else {
        return StatusCode::INTERNAL_SERVER_ERROR.into_response();
    };
    let route = request.extensions().get::<MatchedPath>().map_or_else(|| "none".to_owned(), |path| path.as_str().to_owned());
    request.extensions_mut().insert(Arc::clone(&trace));

    let mut response = match api.slots().try_acquire_owned() {
        _ if is_too_large(&request) => {
            let detail = format!("A head has at most {HEAD_MAX} bytes and {HEADERS_MAX} fields; send larger metadata in a form.");
            Problem::new(Kind::HeadTooLarge, detail).into_response()
        }
        Ok(slot) => next.run(request).await.map(|body| Held::body(body, slot)),
        Err(_) => {
            let detail = "As many requests as allowed are being served; try again in a few seconds.";
            Problem::retry(Kind::Overloaded, detail, Duration::from_secs(5)).into_response()
        }
    };

    if let Some(problem) = response.extensions_mut().remove::<Problem>() {
        if problem.kind().status().is_server_error() {
            tracing::warn!(request = trace.id(), route, problem = problem.kind().word(), "a request failed");
        }
        write_problem(&mut response, &problem, trace.id());
    }
    set_headers(response.headers_mut(), &trace);
    let class = trace.action.get().map_or("none", |action| action.class().word());
    api.metrics().count_request(class, &route, response.status().as_u16());
    response
}

/// The server reads somewhat longer heads than are taken, so that the refusal is a document and not its own bare status.
fn is_too_large(request: &Request) -> bool {
    let fields = request.headers().iter().map(|(name, value)| name.as_str().len().saturating_add(value.len()).saturating_add(4));
    let path = request.uri().path_and_query().map_or(0, |path| path.as_str().len());
    request.headers().len() > HEADERS_MAX || fields.fold(path, usize::saturating_add) > HEAD_MAX
}

fn write_problem(response: &mut Response, problem: &Problem, id: &str) {
    let document = problem.document(format!("urn:salama:request:{id}"));
    let body = serde_json::to_vec(&document).unwrap_or_default();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
    headers.insert(header::CONTENT_LENGTH, HeaderValue::from(body.len()));
    if let Some(wait) = problem.retry_after() {
        headers.insert(header::RETRY_AFTER, HeaderValue::from(whole_seconds(wait)));
    }
    *response.body_mut() = Body::from(body);
}

fn set_headers(headers: &mut HeaderMap, trace: &Trace) {
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    if let Ok(id) = HeaderValue::from_str(trace.id()) {
        headers.insert(REQUEST_ID, id);
    }
    // draft-ietf-httpapi-ratelimit-headers: the policy by name, then what is left of it.
    if let (Some(allowance), Some(action)) = (trace.allowance.get(), trace.action.get()) {
        let class = action.class().word();
        let policy = format!("\"{class}\";q={};w=60", allowance.per_minute);
        let wait = allowance.wait.map(|wait| format!(";t={}", whole_seconds(wait))).unwrap_or_default();
        let left = format!("\"{class}\";r={}{wait}", allowance.remaining);
        for (name, value) in [(RATE_LIMIT_POLICY, policy), (RATE_LIMIT, left)] {
            if let Ok(value) = HeaderValue::from_str(&value) {
                headers.insert(name, value);
            }
        }
    }
}

/// Rounded up, so that whoever waits as told is not refused again.
fn whole_seconds(wait: Duration) -> u64 {
    wait.as_secs().saturating_add(u64::from(wait.subsec_nanos() > 0)).max(1)
}
