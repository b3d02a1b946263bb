//! One request's story: admitted source > TLS > peer identity > permit > handler > sealed > audited > answered.
//! Trusts: nothing before TLS; the certificate's holder after it, as far as its permit goes.
//! Touches: the listening socket and its connections.
//! Next: `api::gate` gives the permit, the handler asks the desk, which seals; the reply comes back through here.

use std::net::{SocketAddr, TcpListener};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use http::{Request, Response};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use rustls::ServerConfig;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tower::ServiceExt;

use super::idle::Requests;
use super::linger::Lingering;
use super::rest::Rest;
use super::streams::{Starts, Streams};
use super::tls::H2;
use crate::admission::source::{Place, Places};
use crate::api::Connected;
use crate::api::audited::turned_away;
use crate::api::frame::{HEAD_MAX, HEADERS_MAX};
use crate::api::held::Held;
use crate::audit::event::AuthFailure;
use crate::config::{Limits, Listen};
use crate::identity::peer::PeerIdentity;

/// Twice what is taken: what lies between is refused with a document, what is longer with hyper's own bare 431.
const HEAD_READ_MAX: usize = 2 * HEAD_MAX;
const HEADERS_READ_MAX: usize = 2 * HEADERS_MAX;
const H2_STREAMS_MAX: u32 = 32;
const H2_STREAM_WINDOW: u32 = 256 * 1024;
const H2_PING: Duration = Duration::from_secs(20);
/// When the kernel has no descriptor or memory for a connection, trying at once would spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The server, ready to accept.
pub struct Server {
    tls: TlsAcceptor,
    router: Router,
    limits: Limits,
    places: Places,
}

impl Server {
    /// `router` as [`crate::api::router`] makes it.
    pub fn new(tls: Arc<ServerConfig>, router: Router, listen: &Listen, limits: &Limits) -> Self {
        let places = Places::new(listen.max_connections, listen.max_connections_per_source);
        Self { tls: TlsAcceptor::from(tls), router, limits: limits.clone(), places }
    }

    /// Accepts until `stop` becomes true, then lets requests finish for as long as the drain limit says.
    ///
    /// # Errors
    /// When the listening socket cannot be given to the runtime.
    pub async fn run(self, listener: TcpListener, mut stop: watch::Receiver<bool>) -> std::io::Result<()> {
        let listener = tokio::net::TcpListener::from_std(listener)?;
        let server = Arc::new(self);
        let mut connections = JoinSet::new();
        loop {
            tokio::select! {
                () = stopped(&mut stop) => break,
                Some(_) = connections.join_next(), if !connections.is_empty() => {}
                accepted = listener.accept() => match accepted {
                    Ok((stream, source)) => match server.places.take(source.ip()) {
                        Ok(place) => _ = connections.spawn(Arc::clone(&server).connection(stream, source, place, stop.clone())),
                        Err(_) => turned_away(source, AuthFailure::Connections),
                    },
                    Err(error) => {
                        tracing::warn!(%error, "a connection could not be accepted");
                        tokio::time::sleep(ACCEPT_PAUSE).await;
                    }
                },
            }
        }
        drop(listener);
        let drained = async { while connections.join_next().await.is_some() {} };
        if timeout(server.limits.drain_timeout, drained).await.is_err() {
            connections.shutdown().await;
        }
        Ok(())
    }

    /// Everything that happens on one connection.
    async fn connection(self: Arc<Self>, stream: TcpStream, source: SocketAddr, place: Place, stop: watch::Receiver<bool>) {
        let Some(stream) = self.handshake(Lingering::new(stream, place), source).await else { return };
        let Ok(peer) = PeerIdentity::of(stream.get_ref().1) else {
            return turned_away(source, AuthFailure::Identity);
        };
        let connected = Connected::new(peer, source);
        let requests = Requests::new();
        let service = service_fn(|request| answer(self.router.clone(), connected.clone(), requests.clone(), request));
        self.converse(stream, service, &requests, stop).await;
    }

    async fn handshake(&self, stream: Lingering, source: SocketAddr) -> Option<TlsStream<Lingering>> {
        stream.send_at_once();
        match timeout(self.limits.handshake_timeout, self.tls.accept(stream).into_fallible()).await {
            Ok(Ok(stream)) => Some(stream),
            Ok(Err((_, mut stream))) => {
                turned_away(source, AuthFailure::Handshake);
                _ = timeout(self.limits.handshake_timeout, stream.shutdown()).await;
                None
            }
            Err(_) => {
                turned_away(source, AuthFailure::HandshakeTimeout);
                None
            }
        }
    }

    /// HTTP until the peer leaves, is silent for too long, or the daemon stops.
    async fn converse<S, F>(&self, stream: TlsStream<Lingering>, service: S, requests: &Requests, mut stop: watch::Receiver<bool>)
    where
        S: hyper::service::Service<Request<Incoming>, Response = Response<Body>, Error = std::convert::Infallible, Future = F>,
        F: Future<Output = Result<Response<Body>, std::convert::Infallible>> + Send + 'static,
    {
        // The protocol was agreed on in the handshake; guessing it from the first bytes would wait for them for ever.
        let h2 = stream.get_ref().1.alpn_protocol() == Some(H2);
        let (starts, mut streams) = Streams::new();
        let http = http(&self.limits, h2, starts);
        let mut conversation = pin!(http.serve_connection(TokioIo::new(stream), service));
        tokio::select! {
            _ = streams.beside(conversation.as_mut()) => return,
            () = requests.idle_for(self.limits.idle_timeout) => {}
            () = stopped(&mut stop) => {}
        }
        conversation.as_mut().graceful_shutdown();
        _ = timeout(self.limits.drain_timeout, streams.beside(conversation)).await;
    }
}

/// The request goes to the router with its peer, the reply comes back; until it is sent the connection is not idle.
async fn answer(
    router: Router,
    connected: Connected,
    requests: Requests,
    request: Request<Incoming>,
) -> Result<Response<Body>, std::convert::Infallible> {
    let busy = requests.begin();
    let (head, body) = request.into_parts();
    let body = Body::new(Rest::new(&head.headers, body));
    let mut request = Request::from_parts(head, body);
    request.extensions_mut().insert(connected);
    let response = router.oneshot(request).await?;
    Ok(response.map(|body| Held::body(body, busy)))
}

fn http(limits: &Limits, h2: bool, starts: Starts) -> Builder<Starts> {
    let builder = Builder::new(starts);
    let mut builder = if h2 { builder.http2_only() } else { builder.http1_only() };
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.header_timeout)
        .max_headers(HEADERS_READ_MAX)
        .max_buf_size(HEAD_READ_MAX)
        .half_close(false);
    builder
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(H2_PING)
        .keep_alive_timeout(H2_PING)
        .max_concurrent_streams(H2_STREAMS_MAX)
        .max_header_list_size(u32::try_from(HEAD_READ_MAX).unwrap_or(u32::MAX))
        .initial_stream_window_size(H2_STREAM_WINDOW)
        .initial_connection_window_size(4 * H2_STREAM_WINDOW);
    builder
}

/// Ends when `stop` becomes true, or nobody can make it true any more.
async fn stopped(stop: &mut watch::Receiver<bool>) {
    _ = stop.wait_for(|stop| *stop).await;
}
