//! A reply's body that keeps something until it has been sent: a request's slot, a connection's mark of being busy.
//! Trusts: the server drops the body when it is sent or given up.
//! Touches: nothing.
//! Next: `frame` and `connection::serve` wrap replies in it.

use std::pin::Pin;
use std::task::{Context, Poll};

use axum::body::Body;
use bytes::Bytes;
use http_body::{Frame, SizeHint};

/// Frees what it keeps when it is dropped.
pub struct Held<K> {
    body: Body,
    _kept: K,
}

impl<K: Send + Unpin + 'static> Held<K> {
    /// `body`, which keeps `kept`.
    pub fn body(body: Body, kept: K) -> Body {
        Body::new(Self { body, _kept: kept })
    }
}

impl<K: Unpin> http_body::Body for Held<K> {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
