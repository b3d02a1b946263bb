//! The streams of an HTTP/2 connection, which run on the connection's own task.
//! Trusts: hyper, which starts one for every request.
//! Touches: nothing.
//! Next: nobody; a stream ends by itself or with its connection.
//!
//! A stream queues the head of its reply and the body in one go, but a connection that runs beside it on another thread can
//! send the head alone. curl that reads a refusal's head ends its upload at once, short of the length it announced, and h2
//! answers that by PROTOCOL_ERROR in place of the body. On one task the two frames leave together.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::Poll;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use hyper::rt::Executor;
use tokio::sync::mpsc;

type Stream = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Where hyper hands over the streams that it starts.
#[derive(Clone)]
pub(super) struct Starts(mpsc::UnboundedSender<Stream>);

/// The streams of one connection.
pub(super) struct Streams {
    /// As many at most as the connection may have open.
    started: mpsc::UnboundedReceiver<Stream>,
    running: FuturesUnordered<Stream>,
}

impl<F: Future<Output = ()> + Send + 'static> Executor<F> for Starts {
    fn execute(&self, stream: F) {
        // Nobody is there to take it when the connection is over.
        _ = self.0.send(Box::pin(stream));
    }
}

impl Streams {
    pub(super) fn new() -> (Starts, Self) {
        let (starts, started) = mpsc::unbounded_channel();
        (Starts(starts), Self { started, running: FuturesUnordered::new() })
    }

    /// Runs the streams until `conversation`, which starts them, ends.
    pub(super) async fn beside<T>(&mut self, mut conversation: Pin<&mut impl Future<Output = T>>) -> T {
        poll_fn(|cx| {
            let over = conversation.as_mut().poll(cx);
            while let Poll::Ready(Some(stream)) = self.started.poll_recv(cx) {
                self.running.push(stream);
            }
            while let Poll::Ready(Some(())) = self.running.poll_next_unpin(cx) {}
            over
        })
        .await
    }
}
