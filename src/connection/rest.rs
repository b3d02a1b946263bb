//! What a handler leaves unread of a request's body is thrown away while the reply goes out, under a limit of bytes and time.
//! Trusts: nothing; the rest is never looked at.
//! Touches: the request's stream.
//! Next: nobody; past the limit the stream is reset (HTTP/2) or [`super::linger`] has the socket (HTTP/1.1).
//!
//! A server that stops reading in the middle ends an HTTP/2 stream by RST_STREAM, and clients such as curl then take the whole
//! reply for lost, although RFC 9113, 8.1, tells them not to. One that reads on lets them find the reply first.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, header};
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use tokio::runtime::Handle;

/// Longest time for which a rest is read.
const REST_TIME: Duration = Duration::from_secs(5);
/// Most bytes of a rest that are read.
const REST_BYTES: usize = 16 * 1024 * 1024;

/// A request's body.
pub(super) struct Rest {
    body: Option<Incoming>,
    /// The client sends its body: it did not ask first, or was told to go on.
    invited: bool,
}

impl Rest {
    pub(super) fn new(headers: &HeaderMap, body: Incoming) -> Self {
        Self { body: Some(body), invited: !headers.contains_key(header::EXPECT) }
    }
}

impl Body for Rest {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        self.invited = true;
        let Some(body) = &mut self.body else { return Poll::Ready(None) };
        let polled = Pin::new(body).poll_frame(cx);
        if matches!(polled, Poll::Ready(None | Some(Err(_)))) {
            self.body = None;
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(Incoming::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map_or(SizeHint::with_exact(0), Incoming::size_hint)
    }
}

impl Drop for Rest {
    fn drop(&mut self) {
        if let (true, Some(body), Ok(runtime)) = (self.invited && !self.is_end_stream(), self.body.take(), Handle::try_current()) {
            runtime.spawn(tokio::time::timeout(REST_TIME, discard(body)));
        }
    }
}

async fn discard(mut body: Incoming) {
    let mut left = REST_BYTES;
    while let Some(Ok(frame)) = body.frame().await {
        let Some(rest) = left.checked_sub(frame.data_ref().map_or(0, Bytes::len)) else { return };
        left = rest;
    }
}
