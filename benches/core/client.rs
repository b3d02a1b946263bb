//! A client that costs little: HTTP/1.1 over mutual TLS 1.3, one upload or many reads on connections that are kept.
//! Trusts: its arguments.
//! Touches: loopback.
//! Next: `benches/bench.py` reads the answers.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use clap::Args;
use futures_util::stream;
use http::Request;
use http_body::Frame;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt as _, Empty, StreamBody};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use serde_json::json;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

type Body = BoxBody<Bytes, std::io::Error>;

/// Bytes of one piece of an upload.
const PIECE: usize = 64 * 1024;

#[derive(Args, Debug)]
pub struct Server {
    /// `127.0.0.1:PORT`.
    #[arg(long)]
    address: String,
    /// The authority, PEM.
    #[arg(long)]
    ca: PathBuf,
    /// Certificate and key, PEM.
    #[arg(long)]
    identity: PathBuf,
}

#[derive(Args, Debug)]
pub struct PutArguments {
    #[command(flatten)]
    server: Server,
    /// Bytes of the recording.
    #[arg(long, default_value_t = 500_000_000)]
    bytes: usize,
    /// Idempotency key: the daemon then also hashes the recording.
    #[arg(long)]
    key: Option<String>,
}

#[derive(Args, Debug)]
pub struct GetArguments {
    #[command(flatten)]
    server: Server,
    /// What is read.
    #[arg(long)]
    path: String,
    /// Connections at a time, one request after the other on each.
    #[arg(long, default_value_t = 1)]
    connections: usize,
    /// Requests over all connections.
    #[arg(long, default_value_t = 2000)]
    requests: usize,
}

/// Time from the request's first byte to the reply's last.
pub fn put(arguments: &PutArguments) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut sender = connect(&arguments.server).await;
        let piece = Bytes::from((0..PIECE).map(|at| (at * 31 % 251) as u8).collect::<Vec<u8>>());
        let left = arguments.bytes;
        let pieces = stream::unfold(left, move |left| {
            let piece = piece.slice(..left.min(PIECE));
            async move { (left > 0).then(|| (Ok(Frame::data(piece.clone())), left - piece.len())) }
        });
        let request = request("POST", "/api/v1/calls")
            .header("content-type", "audio/wav")
            .header("content-length", arguments.bytes)
            .header("salama-metadata", r#"{"consent":{"basis":"caller","purposes":["transcription"]}}"#);
        let request = arguments.key.iter().fold(request, |request, key| request.header("idempotency-key", key));
        let request = request.body(StreamBody::new(pieces).boxed()).unwrap();
        let began = Instant::now();
        let response = sender.send_request(request).await.unwrap();
        let status = response.status();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        let wall = began.elapsed();
        assert!(status.is_success(), "{status} {}", String::from_utf8_lossy(&body));
        let rate = arguments.bytes as f64 / 1e6 / wall.as_secs_f64();
        println!(
            "{}",
            json!({ "wall_ms": millis(wall), "mb_per_s": rate, "cpu_ms": super::cpu_ms(), "reply": String::from_utf8_lossy(&body) })
        );
    });
}

/// Requests a second and the times of single ones.
pub fn get(arguments: &GetArguments) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let each = arguments.requests / arguments.connections;
        let mut senders = Vec::new();
        for _ in 0..arguments.connections {
            senders.push(connect(&arguments.server).await);
        }
        let cpu = super::cpu_ms();
        let began = Instant::now();
        let mut tasks = tokio::task::JoinSet::new();
        for mut sender in senders {
            let path = arguments.path.clone();
            tasks.spawn(async move {
                let mut times = Vec::with_capacity(each);
                for _ in 0..each {
                    let asked = Instant::now();
                    let request = request("GET", &path).body(Empty::new().map_err(|never| match never {}).boxed()).unwrap();
                    let response = sender.send_request(request).await.unwrap();
                    let status = response.status();
                    let body = response.into_body().collect().await.unwrap().to_bytes();
                    assert!(status.is_success(), "{status} {}", String::from_utf8_lossy(&body));
                    times.push((asked.elapsed(), body.len()));
                }
                times
            });
        }
        let mut times: Vec<(Duration, usize)> = tasks.join_all().await.concat();
        let wall = began.elapsed();
        times.sort_unstable();
        let at = |share: f64| millis(times[((times.len() - 1) as f64 * share) as usize].0);
        let answer = json!({
            "requests_per_s": times.len() as f64 / wall.as_secs_f64(), "p50_ms": at(0.5), "p99_ms": at(0.99), "bytes": times[0].1,
            "cpu_ms": super::cpu_ms() - cpu,
        });
        println!("{answer}");
    });
}

fn request(method: &str, path: &str) -> http::request::Builder {
    Request::builder().method(method).uri(path).header("host", "salama.test")
}

async fn connect(server: &Server) -> http1::SendRequest<Body> {
    let stream = TcpStream::connect(&server.address).await.unwrap();
    stream.set_nodelay(true).unwrap();
    let name = ServerName::try_from("salama.test").unwrap();
    let stream = TlsConnector::from(Arc::new(tls(server))).connect(name, stream).await.unwrap();
    let (sender, connection) = http1::Builder::new().max_buf_size(4 * PIECE).handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    sender
}

fn tls(server: &Server) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(&server.ca).unwrap() {
        roots.add(certificate.unwrap()).unwrap();
    }
    let chain = CertificateDer::pem_file_iter(&server.identity).unwrap().map(Result::unwrap).collect();
    let key = PrivateKeyDer::from_pem_file(&server.identity).unwrap();
    let mut config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_root_certificates(roots)
        .with_client_auth_cert(chain, key)
        .unwrap();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    config
}

fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}
