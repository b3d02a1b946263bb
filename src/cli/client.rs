//! One request, one connection: HTTP/1.1 over mutual TLS 1.3.
//! Trusts: the appliance as far as its certificate goes; replies are capped.
//! Touches: the network.
//! Next: the commands.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::Stream;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header};
use http_body::Frame;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt as _, Empty, Full, Limited, StreamBody};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls_pki_types::ServerName;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::failure::{Failure, Refusal};
use super::profile::Settings;
use super::tls::{self, Signer};

/// Until TCP and TLS stand.
const CONNECT_LIMIT: Duration = Duration::from_secs(15);
/// Until the head of a reply comes, once the request is sent.
const REPLY_LIMIT: Duration = Duration::from_secs(120);
/// Largest reply that is read into memory, bytes.
const REPLY_MAX: usize = 256 * 1024 * 1024;

/// A request's body.
pub(super) type Body = BoxBody<Bytes, io::Error>;

/// Speaks to one appliance.
pub(super) struct Client {
    settings: Settings,
    name: ServerName<'static>,
    connector: TlsConnector,
}

impl Client {
    pub(super) fn new(settings: Settings) -> Result<Self, Failure> {
        let name = ServerName::try_from(settings.host.clone())
            .map_err(|_| Failure::Configuration(format!("`{}` is neither a host name nor an address", settings.host)))?;
        let connector = TlsConnector::from(Arc::new(tls::config(&settings)?));
        Ok(Self { settings, name, connector })
    }

    /// Signs with the key of the identity.
    pub(super) fn signer(&self) -> Result<Signer, Failure> {
        Signer::read(&self.settings)
    }

    /// Sends a request and returns a reply of success.
    ///
    /// A refusal that comes while the body is still being sent is returned all the same.
    pub(super) async fn send(&self, request: Request<Body>) -> Result<Response<Incoming>, Failure> {
        self.send_within(request, REPLY_LIMIT).await
    }

    /// As [`Self::send`], with another time limit for the head of the reply.
    pub(super) async fn send_within(&self, request: Request<Body>, limit: Duration) -> Result<Response<Incoming>, Failure> {
        let response = self.exchange(request, limit).await?;
        if response.status().is_success() { Ok(response) } else { Err(Failure::Refused(self.refusal(response).await?)) }
    }

    /// As [`Self::send`], for who can make something of a refusal too.
    pub(super) async fn ask(&self, request: Request<Body>) -> Result<Response<Incoming>, Failure> {
        self.exchange(request, REPLY_LIMIT).await
    }

    async fn exchange(&self, mut request: Request<Body>, limit: Duration) -> Result<Response<Incoming>, Failure> {
        let server = self.settings.server();
        let host = HeaderValue::from_str(&server).map_err(|_| Failure::Configuration(format!("`{server}` is no host name")))?;
        request.headers_mut().insert(header::HOST, host);
        request.headers_mut().insert(header::USER_AGENT, HeaderValue::from_static(concat!("salama/", env!("CARGO_PKG_VERSION"))));
        let mut sender = self.connect(&server).await?;
        let sent = tokio::time::timeout(limit, sender.send_request(request)).await;
        let timed_out = |_| Failure::Broken { server: server.clone(), cause: "no reply came in time".to_owned() };
        sent.map_err(timed_out)?.map_err(|error| tls::explain(&server, &error, false))
    }

    async fn connect(&self, server: &str) -> Result<http1::SendRequest<Body>, Failure> {
        let connecting = async {
            let stream = TcpStream::connect((self.settings.host.as_str(), self.settings.port)).await?;
            stream.set_nodelay(true)?;
            self.connector.connect(self.name.clone(), stream).await
        };
        let timed_out = |_| Failure::Unreachable { server: server.to_owned(), cause: "it did not answer in time".to_owned() };
        let stream = tokio::time::timeout(CONNECT_LIMIT, connecting).await.map_err(timed_out)?;
        let stream = stream.map_err(|error| tls::explain(server, &error, true))?;
        let handshake = http1::handshake(TokioIo::new(stream)).await;
        let (sender, connection) = handshake.map_err(|error| tls::explain(server, &error, true))?;
        // Its errors come out of `send_request` as well.
        tokio::spawn(async move { _ = connection.await });
        Ok(sender)
    }

    async fn refusal(&self, response: Response<Incoming>) -> Result<Refusal, Failure> {
        let (parts, body) = response.into_parts();
        let retry_after = parts.headers.get(header::RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
        let body = self.collect(body).await.unwrap_or_default();
        Ok(Refusal::read(parts.status.as_u16(), retry_after, &body))
    }

    /// The whole body of a reply.
    pub(super) async fn collect(&self, body: Incoming) -> Result<Bytes, Failure> {
        let collected = Limited::new(body, REPLY_MAX).collect().await;
        collected.map(http_body_util::Collected::to_bytes).map_err(|error| tls::explain(&self.settings.server(), error.as_ref(), false))
    }

    /// A piece of the body of a reply.
    pub(super) async fn piece(&self, body: &mut Incoming) -> Result<Option<Bytes>, Failure> {
        loop {
            match body.frame().await {
                None => return Ok(None),
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        return Ok(Some(data));
                    }
                }
                Some(Err(error)) => return Err(tls::explain(&self.settings.server(), &error, false)),
            }
        }
    }

    /// A document of any kind.
    pub(super) async fn document(&self, path: &str) -> Result<Bytes, Failure> {
        let response = self.send(request(Method::GET, path, empty())?).await?;
        self.collect(response.into_body()).await
    }

    /// A JSON document.
    pub(super) async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, Failure> {
        understand(&self.document(path).await?)
    }

    /// Posts JSON, or nothing, and reads JSON.
    pub(super) async fn post<T: DeserializeOwned, B: Serialize>(&self, path: &str, body: Option<&B>) -> Result<T, Failure> {
        let json = body.map(serde_json::to_vec).transpose().map_err(|error| Failure::Usage(error.to_string()))?;
        let mut request = request(Method::POST, path, json.map_or_else(empty, |json| full(json.into())))?;
        request.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        let response = self.send(request).await?;
        understand(&self.collect(response.into_body()).await?)
    }

    /// Deletes.
    pub(super) async fn delete(&self, path: &str) -> Result<(), Failure> {
        self.send(request(Method::DELETE, path, empty())?).await.map(|_| ())
    }

    /// Opens a stream of events; `None` when there will be none.
    pub(super) async fn events(&self, path: &str, after: Option<&str>) -> Result<Option<Incoming>, Failure> {
        let mut request = request(Method::GET, path, empty())?;
        request.headers_mut().insert(header::ACCEPT, HeaderValue::from_static("text/event-stream"));
        if let Some(after) = after.and_then(|after| HeaderValue::from_str(after).ok()) {
            request.headers_mut().insert("last-event-id", after);
        }
        let response = self.send(request).await?;
        Ok((response.status() != StatusCode::NO_CONTENT).then(|| response.into_body()))
    }
}

/// A request; the connection adds the host.
pub(super) fn request(method: Method, path: &str, body: Body) -> Result<Request<Body>, Failure> {
    let built = Request::builder().method(method).uri(path).body(body);
    built.map_err(|_| Failure::Usage(format!("`{path}` cannot be asked for")))
}

/// JSON of a reply.
pub(super) fn understand<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Failure> {
    serde_json::from_slice(bytes).map_err(|error| Failure::Reply(error.to_string()))
}

/// No body.
pub(super) fn empty() -> Body {
    Empty::new().map_err(|never| match never {}).boxed()
}

/// These bytes.
pub(super) fn full(bytes: Bytes) -> Body {
    Full::new(bytes).map_err(|never| match never {}).boxed()
}

/// Pieces as they come.
pub(super) fn streamed(pieces: impl Stream<Item = io::Result<Bytes>> + Send + Sync + 'static) -> Body {
    use futures_util::TryStreamExt as _;
    StreamBody::new(pieces.map_ok(Frame::data)).boxed()
}

/// Sets a header, whose value a user may have written.
pub(super) fn set_header(headers: &mut HeaderMap, name: &'static str, value: &str) -> Result<(), Failure> {
    let value = HeaderValue::from_str(value).map_err(|_| Failure::Usage(format!("`{}` cannot stand in a header", value.escape_debug())))?;
    headers.insert(name, value);
    Ok(())
}
