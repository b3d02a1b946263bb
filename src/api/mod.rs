//! The HTTP interface: one file a resource, every handler behind a permit, every error a problem document.
//! Trusts: `connection` puts [`Connected`] into each request.
//! Touches: the desk of calls, the machine's vitals, the audit sink.
//! Next: [`crate::job::calls`].

pub mod audited;
mod body;
pub mod bursts;
mod calls;
pub mod desk;
mod events;
mod export;
#[cfg(test)]
pub(crate) mod fake_desk;
pub mod frame;
mod gate;
mod health;
pub mod held;
mod metrics;
mod multipart;
mod openapi;
mod params;
pub mod problem;
mod render;
mod samples;
pub mod state;
mod text;
mod transcript;
mod upload;
pub mod vitals;
mod whoami;

use axum::Router;
use axum::middleware::from_fn_with_state;
use axum::routing::{MethodRouter, get, post};

use desk::Desk;
use problem::{Kind, Problem};
use state::Api;

pub use gate::Connected;
pub use upload::METADATA_HEADER;

/// Every route.
fn routes<D: Desk>() -> [(&'static str, MethodRouter<Api<D>>); 14] {
    [
        ("/api/v1/calls", post(calls::create).get(calls::list)),
        ("/api/v1/calls/{id}", get(calls::view).delete(calls::erase)),
        ("/api/v1/calls/{id}/erasure", get(calls::erasure).post(calls::erase_for_good)),
        ("/api/v1/calls/{id}/transcript", get(transcript::read)),
        ("/api/v1/calls/{id}/events", get(events::watch)),
        ("/api/v1/calls/{id}/cancel", post(calls::cancel)),
        ("/api/v1/calls/{id}/export", get(export::export)),
        ("/api/v1/key-bursts", get(bursts::terms).post(bursts::grant)),
        ("/api/v1/text/redact", post(text::redact)),
        ("/api/v1/whoami", get(whoami::whoami)),
        ("/api/v1/openapi.json", get(openapi::document)),
        ("/health", get(health::live)),
        ("/health/ready", get(health::ready)),
        ("/metrics", get(metrics::metrics)),
    ]
}

/// The router that `connection` serves. Requests must carry a [`Connected`] extension; without it nothing is allowed.
pub fn router<D: Desk>(api: Api<D>) -> Router {
    let mut router = Router::new();
    for (path, methods) in routes() {
        router = router.route(path, methods);
    }
    router
        .fallback(async || Problem::new(Kind::NoSuchPath, "GET /api/v1/openapi.json lists every path."))
        .method_not_allowed_fallback(async || Problem::new(Kind::MethodNotAllowed, "The `Allow` header lists the methods of this path."))
        .layer(from_fn_with_state(api.clone(), frame::frame::<D>))
        .with_state(api)
}
