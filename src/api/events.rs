//! `GET /api/v1/calls/{id}/events`: what happens to a call, as server-sent events, with replay.
//! Trusts: the permit; events hold no content.
//! Touches: the desk.
//! Next: the stream ends after the final state, or when the daemon stops.

use std::convert::Infallible;
use std::time::Duration;

use axum::extract::State;
use axum::response::sse::{Event, KeepAlive};
use axum::response::{IntoResponse, Response, Sse};
use futures_util::{Stream, stream};
use http::{HeaderMap, HeaderName, StatusCode};
use tokio::sync::{mpsc, watch};

use super::desk::Desk;
use super::params::CallPath;
use super::problem::{Kind, Problem, ProblemDocument};
use super::state::{Api, scope};
use crate::authz::action::WatchCall;
use crate::authz::permit::Permit;
use crate::job::spec::{CallEvent, CallHappening};

const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");
/// A comment after this silence keeps proxies and clients from giving up.
const HEARTBEAT: Duration = Duration::from_secs(15);

/// The events of a call, first those that have been, then live ones. `event` is `state` or `progress`, `data` is `CallHappening`.
#[utoipa::path(
    get, path = "/api/v1/calls/{id}/events", tag = "calls",
    params(
        ("id" = String, Path, description = "The call"),
        ("Last-Event-ID" = Option<u64>, Header, description = "Replays only what came after this event"),
    ),
    responses(
        (status = 200, description = "The stream; it ends after the final state", body = CallHappening, content_type = "text/event-stream"),
        (status = 204, description = "The call has ended and nothing came after `Last-Event-ID`; do not reconnect"),
        (status = "default", description = "A problem", body = ProblemDocument, content_type = "application/problem+json"),
    ),
)]
pub(super) async fn watch<D: Desk>(
    permit: Permit<WatchCall>,
    State(api): State<Api<D>>,
    CallPath(id): CallPath,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let after = last_event(&headers)?;
    let scope = scope(&permit);
    let ended = api.desk().get(&scope, id).await?.state.is_final();
    let mut events = api.desk().watch(&scope, id, after).await?;
    let first = if ended { events.recv().await } else { None };
    if ended && first.is_none() {
        return Ok(StatusCode::NO_CONTENT.into_response());
    }
    let stream = live(first, events, api.draining());
    Ok(Sse::new(stream).keep_alive(KeepAlive::new().interval(HEARTBEAT)).into_response())
}

fn last_event(headers: &HeaderMap) -> Result<u64, Problem> {
    let Some(value) = headers.get(LAST_EVENT_ID) else { return Ok(0) };
    let number = value.to_str().ok().and_then(|text| text.parse().ok());
    number.ok_or_else(|| Problem::new(Kind::BadRequest, "Last-Event-ID must be the number of an event."))
}

fn live(
    first: Option<CallEvent>,
    events: mpsc::Receiver<CallEvent>,
    draining: watch::Receiver<bool>,
) -> impl Stream<Item = Result<Event, Infallible>> {
    stream::unfold((first, events, draining), |(first, mut events, mut draining)| async move {
        let event = match first {
            Some(event) => Some(event),
            None => tokio::select! {
                biased;
                event = events.recv() => event,
                _ = draining.wait_for(|draining| *draining) => None,
            },
        }?;
        Some((Ok(written(&event)), (None, events, draining)))
    })
}

fn written(event: &CallEvent) -> Event {
    let name = match event.what {
        CallHappening::State { .. } => "state",
        CallHappening::Progress { .. } => "progress",
    };
    let data = serde_json::to_string(&event.what).unwrap_or_default();
    Event::default().id(event.number.to_string()).event(name).data(data)
}
