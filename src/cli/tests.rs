//! The client against a server on loopback: real TLS, real HTTP, scripted answers.
//! Trusts: nothing.
//! Touches: temporary directories, the loopback interface.
//! Next: nobody.

use std::convert::Infallible;
use std::path::Path;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use rustls_pki_types::PrivateKeyDer;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use super::args::{Basis, SendArgs};
use super::call;
use super::client::Client;
use super::failure::Failure;
use super::follow::{End, follow};
use super::output::Output;
use super::profile::Settings;
use crate::base::exit::Exit;
use crate::base::ids::CallId;
use crate::job::spec::{CallState, CallView};

const QUIET: Output = Output { json: true };
const CALL: &str = "3f1c0c5d9a7b4e2f8d6a1b0c9e8f7a6d";

/// A certificate authority of a test.
struct Authority {
    pem: String,
    issuer: Issuer<'static, KeyPair>,
    root: rcgen::Certificate,
}

impl Authority {
    fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let root = params.self_signed(&key).unwrap();
        Self { pem: root.pem(), issuer: Issuer::new(params, key), root }
    }

    /// A certificate for `localhost`, good for both sides.
    fn leaf(&self) -> (rcgen::Certificate, KeyPair) {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        (params.signed_by(&key, &self.issuer).unwrap(), key)
    }

    fn settings(&self, directory: &Path, port: u16) -> Settings {
        let (certificate, key) = self.leaf();
        let (identity, authority) = (directory.join("me.pem"), directory.join("ca.pem"));
        std::fs::write(&identity, certificate.pem() + &key.serialize_pem()).unwrap();
        std::fs::write(&authority, &self.pem).unwrap();
        Settings { host: "localhost".to_owned(), port, identity, authority }
    }
}

/// What the server saw of a request.
struct Seen {
    method: Method,
    path: String,
    headers: HeaderMap,
    body: Bytes,
}

type Answers = Box<dyn FnMut(&Seen) -> Response<Full<Bytes>> + Send>;

/// Serves with a certificate of `authority` until the test ends; says on which port.
async fn serve(authority: &Authority, answers: impl FnMut(&Seen) -> Response<Full<Bytes>> + Send + 'static) -> u16 {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut roots = RootCertStore::empty();
    roots.add(authority.root.der().clone()).unwrap();
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider)).build().unwrap();
    let (certificate, key) = authority.leaf();
    let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    let config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_client_cert_verifier(verifier)
        .with_single_cert(vec![certificate.der().clone()], key)
        .unwrap();
    let (acceptor, listener) = (TlsAcceptor::from(Arc::new(config)), TcpListener::bind("127.0.0.1:0").await.unwrap());
    let port = listener.local_addr().unwrap().port();
    let answers: Arc<Mutex<Answers>> = Arc::new(Mutex::new(Box::new(answers)));
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (acceptor, answers) = (acceptor.clone(), Arc::clone(&answers));
            tokio::spawn(async move {
                let Ok(stream) = acceptor.accept(stream).await else { return };
                let service = service_fn(|request| answer(Arc::clone(&answers), request));
                _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
            });
        }
    });
    port
}

async fn answer(answers: Arc<Mutex<Answers>>, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let (parts, body) = request.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    let seen = Seen { method: parts.method, path: parts.uri.to_string(), headers: parts.headers, body };
    Ok((answers.lock().unwrap())(&seen))
}

fn reply(status: u16, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    Response::builder().status(status).body(Full::new(body.into())).unwrap()
}

fn view(state: &str) -> String {
    format!(
        r#"{{"id":"{CALL}","job":1,"owner":"counsellor/amina","state":"{state}","percent":0,"created_at":"2026-11-22T08:30:00.000Z",
            "updated_at":"2026-11-22T08:30:00.000Z","audio_bytes":7,"attempts":1}}"#
    )
}

fn find(haystack: &[u8], needle: &[u8]) -> usize {
    haystack.windows(needle.len()).position(|window| window == needle).unwrap()
}

#[tokio::test]
async fn a_recording_is_sent_as_a_form_with_its_length_in_front() {
    let (directory, authority) = (tempfile::tempdir().unwrap(), Authority::new());
    let recording: Vec<u8> = (0..200_000_u32).flat_map(u32::to_le_bytes).collect();
    let file = directory.path().join("call.wav");
    std::fs::write(&file, &recording).unwrap();
    let port = serve(&authority, move |seen| {
        let body = &seen.body;
        let (metadata, audio) = (find(body, br#"name="metadata""#), find(body, br#"name="audio""#));
        let start = audio + find(&body[audio..], b"\r\n\r\n") + 4;
        let right = seen.method == Method::POST
            && seen.path == "/api/v1/calls"
            && seen.headers["content-length"].to_str().unwrap() == body.len().to_string()
            && seen.headers["idempotency-key"] == "once"
            && metadata < audio
            && find(body, br#""basis":"guardian""#) < audio
            && body[start..].starts_with(&recording);
        reply(if right { 202 } else { 400 }, view("queued"))
    })
    .await;
    let client = Client::new(authority.settings(directory.path(), port)).unwrap();
    let args = SendArgs {
        file,
        consent: Basis::Guardian,
        purpose: vec![super::args::Purpose::Transcription],
        consent_at: None,
        language: None,
        reference: None,
        recorded_at: None,
        channels: None,
        idempotency_key: Some("once".to_owned()),
        watch: false,
    };
    let metadata = call::metadata(&args).unwrap();
    let view: CallView = call::upload(&client, QUIET, &args.file, &metadata, "once").await.unwrap();
    assert_eq!((view.id.to_string().as_str(), view.state), (CALL, CallState::Queued));
}

#[tokio::test]
async fn a_broken_stream_of_events_is_resumed_where_it_broke() {
    let (directory, authority) = (tempfile::tempdir().unwrap(), Authority::new());
    let port = serve(&authority, |seen| {
        let progress = |id| {
            let data = r#"{"type":"progress","stage":"decode","percent":5,"audio_ms":1,"elapsed_ms":2}"#;
            format!("id: {id}\nevent: progress\ndata: {data}\n\n")
        };
        match (seen.path.ends_with("/events"), seen.headers.get("last-event-id").map(http::HeaderValue::as_bytes)) {
            (false, _) => reply(200, view("running")),
            (true, None) => reply(200, format!(": hello\n\n{}{}", progress(1), progress(2))),
            (true, Some(b"2")) => reply(200, "id: 3\ndata: {\"type\":\"state\",\"state\":\"done\"}\n\n"),
            (true, Some(_)) => reply(400, ""),
        }
    })
    .await;
    let client = Client::new(authority.settings(directory.path(), port)).unwrap();
    let mut numbers = Vec::new();
    let end = follow(&client, CALL.parse::<CallId>().unwrap(), |event| {
        numbers.push(event.number);
        Ok(())
    })
    .await
    .unwrap();
    assert_eq!((numbers, end), (vec![1, 2, 3], End { state: CallState::Done, failure: None }));
}

#[tokio::test]
async fn a_problem_document_becomes_words_and_an_exit_code() {
    let (directory, authority) = (tempfile::tempdir().unwrap(), Authority::new());
    let body = r#"{"type":"urn:salama:problem:rate-limited","title":"Too many requests","status":429,"detail":"Wait.","instance":"urn:x"}"#;
    let port = serve(&authority, move |_| {
        let mut response = reply(429, body);
        response.headers_mut().insert("retry-after", http::HeaderValue::from_static("7"));
        response
    })
    .await;
    let client = Client::new(authority.settings(directory.path(), port)).unwrap();
    let failure = client.get::<CallView>("/api/v1/calls/x").await.unwrap_err();
    assert_eq!((failure.exit(), failure.to_string().as_str()), (Exit::Unavailable, "Too many requests: Wait."));
    assert!(matches!(failure, Failure::Refused(refusal) if refusal.retry_after == Some(7) && refusal.instance.as_deref() == Some("urn:x")));
}

#[tokio::test]
async fn certificates_of_another_authority_are_a_denial_on_either_side() {
    let (directory, ours, other) = (tempfile::tempdir().unwrap(), Authority::new(), Authority::new());
    let port = serve(&ours, |_| reply(200, view("done"))).await;
    let stranger = Settings { authority: directory.path().join("ours.pem"), ..other.settings(directory.path(), port) };
    std::fs::write(&stranger.authority, &ours.pem).unwrap();
    let refused_by_them = Client::new(stranger).unwrap().get::<CallView>("/").await.unwrap_err();
    let refused_by_us = Client::new(other.settings(directory.path(), port)).unwrap().get::<CallView>("/").await.unwrap_err();
    assert_eq!(refused_by_them.exit(), Exit::Denied, "{refused_by_them}");
    assert_eq!(refused_by_us.exit(), Exit::Denied, "{refused_by_us}");
}

#[tokio::test]
async fn an_appliance_that_is_not_there_is_unavailable() {
    let (directory, authority) = (tempfile::tempdir().unwrap(), Authority::new());
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
    let client = Client::new(authority.settings(directory.path(), closed)).unwrap();
    assert_eq!(client.get::<CallView>("/").await.unwrap_err().exit(), Exit::Unavailable);
}
