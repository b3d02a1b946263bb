//! A server with a fake desk behind real TLS on loopback, and clients with certificates made on the spot.
//! Trusts: its tests.
//! Touches: loopback sockets.
//! Next: the tests of `connection` and `api`.

use std::net::SocketAddr;
use std::process::{Command, Output};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, request};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose, SanType,
};
use rustls::crypto::ring::default_provider;
use rustls::crypto::ring::sign::any_supported_type;
use rustls::{ClientConfig, RootCertStore, version};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::serve::Server;
use super::tls::server_config;
use crate::api::fake_desk::{FakeBursts, FakeDesk};
use crate::api::router;
use crate::api::state::{Api, ApiParts};
use crate::api::vitals::{Reading, Vitals};
use crate::base::clock::SystemClock;
use crate::config::Config;

/// A certificate authority.
pub(crate) struct Authority(CertifiedIssuer<'static, KeyPair>);

/// A client's certificate and key.
pub(crate) struct ClientKey {
    pub(crate) chain: Vec<CertificateDer<'static>>,
    pub(crate) key: KeyPair,
    pub(crate) pem: String,
}

impl Authority {
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::new(vec![]).unwrap();
        // OpenSSL takes a certificate whose issuer has its subject's name for self-signed.
        params.distinguished_name.push(DnType::CommonName, "Test authority");
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    pub(crate) fn pem(&self) -> String {
        self.0.as_ref().pem()
    }

    pub(crate) fn certificate(&self) -> CertificateDer<'static> {
        self.0.as_ref().der().clone()
    }

    fn server(&self) -> ClientKey {
        let mut params = CertificateParams::new(vec!["localhost".to_owned(), "127.0.0.1".to_owned()]).unwrap();
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        self.sign(params)
    }

    /// A client with this SAN URI, valid until `not_after` (a year) when given.
    pub(crate) fn client(&self, uri: &str, not_after: Option<i32>) -> ClientKey {
        let mut params = CertificateParams::new(vec![]).unwrap();
        params.subject_alt_names.push(SanType::URI(uri.try_into().unwrap()));
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        if let Some(year) = not_after {
            params.not_after = rcgen::date_time_ymd(year, 1, 1);
        }
        self.sign(params)
    }

    fn sign(&self, params: CertificateParams) -> ClientKey {
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.0).unwrap();
        ClientKey { chain: vec![certificate.der().clone()], pem: certificate.pem(), key }
    }
}

/// A key as the server takes one.
pub(crate) fn signing_key(key: &ClientKey) -> Arc<dyn rustls::sign::SigningKey> {
    any_supported_type(&key.private()).unwrap()
}

impl ClientKey {
    fn private(&self) -> PrivateKeyDer<'static> {
        PrivateKeyDer::from(PrivatePkcs8KeyDer::from(self.key.serialize_der()))
    }
}

/// Vitals that a test sets.
#[derive(Default)]
pub(crate) struct FakeVitals(pub(crate) std::sync::Mutex<Reading>);

impl Vitals for FakeVitals {
    fn read(&self) -> Reading {
        self.0.lock().unwrap().clone()
    }
}

/// A running server.
pub(crate) struct Appliance {
    pub(crate) authority: Authority,
    pub(crate) address: SocketAddr,
    pub(crate) desk: FakeDesk,
    pub(crate) vitals: Arc<FakeVitals>,
    pub(crate) bursts: Arc<FakeBursts>,
    tls: Arc<rustls::ServerConfig>,
    stop: watch::Sender<bool>,
    server: JoinHandle<std::io::Result<()>>,
}

impl Appliance {
    pub(crate) async fn start() -> Self {
        Self::start_with("").await
    }

    /// With these settings.
    pub(crate) async fn start_with(settings: &str) -> Self {
        let mut config = Config::parse(settings).unwrap();
        config.listen.address = SocketAddr::from(([127, 0, 0, 1], 0));
        Self::start_config(config).await
    }

    /// With settings that no file may have, such as very short times.
    pub(crate) async fn start_config(config: Config) -> Self {
        let authority = Authority::new();
        let server = authority.server();
        let key = any_supported_type(&server.private()).unwrap();
        let tls = server_config(server.chain, key, authority.0.der().clone()).unwrap();
        let (stop, stopped) = watch::channel(false);
        let (desk, vitals, bursts) = (FakeDesk::default(), Arc::new(FakeVitals::default()), Arc::new(FakeBursts::default()));
        let parts = ApiParts {
            desk: desk.clone(),
            vitals: vitals.clone(),
            bursts: bursts.clone(),
            clock: Arc::new(SystemClock),
            models: vec![],
            draining: stopped.clone(),
        };
        let api = Api::new(parts, &config.listen, &config.limits, &config.jobs);
        let listener = super::listener::open(config.listen.address).unwrap();
        let address = listener.local_addr().unwrap();
        let server = tokio::spawn(Server::new(tls.clone(), router(api), &config.listen, &config.limits).run(listener, stopped));
        Self { authority, address, desk, vitals, bursts, tls, stop, server }
    }

    /// How the server does TLS.
    pub(crate) fn tls_config(&self) -> &rustls::ServerConfig {
        &self.tls
    }

    /// Tells the server to stop.
    pub(crate) fn stop(&self) {
        self.stop.send(true).unwrap();
    }

    /// Waits until the server has ended.
    pub(crate) async fn ended(self) {
        self.server.await.unwrap().unwrap();
    }

    /// A connection of `role/name`.
    pub(crate) async fn connect(&self, who: &str) -> Client {
        let key = self.authority.client(&format!("salama://box/{who}"), None);
        Client::over(self.tls(Some(&key), &[b"http/1.1"]).await.unwrap()).await
    }

    /// TLS 1.3 with this certificate.
    pub(crate) async fn tls(&self, key: Option<&ClientKey>, alpn: &[&[u8]]) -> std::io::Result<TlsStream<TcpStream>> {
        let config = self.client_config(key, alpn);
        let stream = TcpStream::connect(self.address).await?;
        TlsConnector::from(Arc::new(config)).connect(ServerName::try_from("localhost").unwrap(), stream).await
    }

    /// The first bytes of a handshake.
    pub(crate) fn hello(&self) -> Vec<u8> {
        let config = Arc::new(self.client_config(None, &[]));
        let mut hello = Vec::new();
        let mut connection = rustls::ClientConnection::new(config, ServerName::try_from("localhost").unwrap()).unwrap();
        connection.write_tls(&mut hello).unwrap();
        hello
    }

    fn client_config(&self, key: Option<&ClientKey>, alpn: &[&[u8]]) -> ClientConfig {
        let mut roots = RootCertStore::empty();
        roots.add(self.authority.0.der().clone()).unwrap();
        let builder = ClientConfig::builder_with_provider(Arc::new(default_provider()))
            .with_protocol_versions(&[&version::TLS13])
            .unwrap()
            .with_root_certificates(roots);
        let mut config = match key {
            Some(key) => builder.with_client_auth_cert(key.chain.clone(), key.private()).unwrap(),
            None => builder.with_no_client_auth(),
        };
        config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
        config
    }
}

impl Appliance {
    /// Runs curl as a second witness beside our own client.
    pub(crate) async fn curl(&self, key: &ClientKey, path: &str, arguments: &[&str]) -> Output {
        let directory = tempfile::tempdir().unwrap();
        let file = |name: &str, text: &str| {
            let path = directory.path().join(name);
            std::fs::write(&path, text).unwrap();
            path
        };
        let (ca, certificate, private) =
            (file("ca.pem", &self.authority.pem()), file("cert.pem", &key.pem), file("key.pem", &key.key.serialize_pem()));
        let mut command = Command::new("curl");
        command.arg("--silent").arg("--show-error").args(arguments);
        command.arg("--resolve").arg(format!("localhost:{}:127.0.0.1", self.address.port()));
        command.arg("--cacert").arg(ca).arg("--cert").arg(certificate).arg("--key").arg(private);
        command.arg(format!("https://localhost:{}{path}", self.address.port()));
        let run = move || {
            let _kept = directory;
            command.output().expect("curl is missing; run: apt-get install curl")
        };
        tokio::task::spawn_blocking(run).await.unwrap()
    }
}

/// One HTTP connection.
pub(crate) enum Client {
    One(http1::SendRequest<Full<Bytes>>),
    Two(http2::SendRequest<Full<Bytes>>),
}

/// A reply that was read whole.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: StatusCode,
    pub(crate) headers: http::HeaderMap,
    pub(crate) body: Bytes,
}

impl Client {
    /// Over this TLS session, in the protocol that it agreed on.
    pub(crate) async fn over(stream: TlsStream<TcpStream>) -> Self {
        let h2 = stream.get_ref().1.alpn_protocol() == Some(b"h2".as_slice());
        if h2 {
            let (sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
            tokio::spawn(connection);
            Self::Two(sender)
        } else {
            let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.unwrap();
            tokio::spawn(connection);
            Self::One(sender)
        }
    }

    pub(crate) async fn start(
        &mut self,
        request: request::Builder,
        body: impl Into<Bytes>,
    ) -> hyper::Result<Response<hyper::body::Incoming>> {
        let request: Request<Full<Bytes>> = request.header("host", "localhost").body(Full::new(body.into())).unwrap();
        match self {
            Self::One(sender) => {
                sender.ready().await?;
                sender.send_request(request).await
            }
            Self::Two(sender) => sender.send_request(request).await,
        }
    }

    pub(crate) async fn send(&mut self, request: request::Builder, body: impl Into<Bytes>) -> Reply {
        let response = self.start(request, body).await.unwrap();
        let (head, body) = response.into_parts();
        let body = tokio::time::timeout(Duration::from_secs(20), body.collect()).await.expect("the reply ends").unwrap().to_bytes();
        Reply { status: head.status, headers: head.headers, body }
    }

    pub(crate) async fn get(&mut self, path: &str) -> Reply {
        self.send(Request::get(path), "").await
    }

    pub(crate) async fn method(&mut self, method: Method, path: &str) -> Reply {
        self.send(Request::builder().method(method).uri(path), "").await
    }
}

impl Reply {
    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {:?}", self.body))
    }

    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    /// Status and the last word of the problem's type, after checking that it is a proper problem document.
    pub(crate) fn problem(&self) -> (u16, String) {
        assert_eq!(self.header("content-type"), "application/problem+json", "{self:?}");
        let json = self.json();
        assert_eq!(json["status"], self.status.as_u16());
        assert!(json["title"].is_string() && json["detail"].is_string());
        assert_eq!(json["instance"], format!("urn:salama:request:{}", self.header("salama-request-id")));
        let kind = json["type"].as_str().unwrap().strip_prefix("urn:salama:problem:").unwrap();
        (self.status.as_u16(), kind.to_owned())
    }
}
