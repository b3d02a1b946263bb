//! What a connection may and may not do, over real TLS on loopback.
//! Trusts: the fixture.
//! Touches: loopback sockets.
//! Next: [`super::routes`].

use std::time::Duration;

use http::Request;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

use crate::api::fake_desk::CallState;
use crate::base::ids::CallId;
use crate::config::Config;
use crate::connection::fixture::{Appliance, Authority, Client, signing_key};
use crate::connection::tls::server_config;

const COUNSELLOR: &str = "salama://box/counsellor/asha";
const TINY: Duration = Duration::from_millis(60);

/// What the peer of a refused handshake sees: in TLS 1.3 the refusal comes with the first read.
async fn first_read(stream: std::io::Result<TlsStream<TcpStream>>) -> String {
    match stream {
        Ok(mut stream) => match stream.read(&mut [0; 16]).await {
            Ok(read) => format!("{read} bytes"),
            Err(error) => error.to_string(),
        },
        Err(error) => error.to_string(),
    }
}

/// Reads until the server ends the connection.
async fn rest(stream: &mut (impl AsyncReadExt + Unpin)) -> Vec<u8> {
    let mut all = Vec::new();
    // How a connection ends (FIN, RST, without close_notify) is not the point here.
    _ = tokio::time::timeout(Duration::from_secs(20), stream.read_to_end(&mut all)).await.expect("the server ends the connection");
    all
}

fn tiny() -> Config {
    let mut config = Config::parse("").unwrap();
    config.listen.address = ([127, 0, 0, 1], 0).into();
    config
}

#[tokio::test]
async fn a_peer_without_certificate_is_refused() {
    let appliance = Appliance::start().await;
    assert!(first_read(appliance.tls(None, &[]).await).await.contains("CertificateRequired"));
}

#[tokio::test]
async fn a_certificate_of_another_authority_is_refused() {
    let appliance = Appliance::start().await;
    let stranger = Authority::new().client(COUNSELLOR, None);
    let seen = first_read(appliance.tls(Some(&stranger), &[]).await).await;
    assert!(seen.contains("UnknownCA") || seen.contains("DecryptError"), "{seen}");
}

#[tokio::test]
async fn an_expired_certificate_is_refused() {
    let appliance = Appliance::start().await;
    let expired = appliance.authority.client(COUNSELLOR, Some(2020));
    let seen = first_read(appliance.tls(Some(&expired), &[]).await).await;
    assert!(seen.contains("CertificateExpired"), "{seen}");
}

#[tokio::test]
async fn a_genuine_certificate_with_an_unknown_role_gets_no_reply() {
    let appliance = Appliance::start().await;
    let root = appliance.authority.client("salama://box/root/asha", None);
    let mut stream = appliance.tls(Some(&root), &[]).await.unwrap();
    _ = stream.write_all(b"GET /health HTTP/1.1\r\nhost: localhost\r\n\r\n").await;
    assert_eq!(rest(&mut stream).await, b"");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn curl_is_served_over_tls_1_3_by_both_protocols() {
    let appliance = Appliance::start().await;
    let key = appliance.authority.client(COUNSELLOR, None);
    for version in ["--http1.1", "--http2"] {
        let output = appliance.curl(&key, "/health", &[version]).await;
        assert!(output.status.success(), "{output:?}");
        assert!(String::from_utf8(output.stdout).unwrap().contains("\"alive\""));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tls_1_2_is_refused() {
    let appliance = Appliance::start().await;
    let key = appliance.authority.client(COUNSELLOR, None);
    let output = appliance.curl(&key, "/health", &["--tls-max", "1.2"]).await;
    // 35: the handshake failed.
    assert_eq!(output.status.code(), Some(35), "{output:?}");
    assert!(String::from_utf8(output.stderr).unwrap().contains("version"));
}

#[tokio::test]
async fn http_2_is_served() {
    let appliance = Appliance::start().await;
    let key = appliance.authority.client(COUNSELLOR, None);
    let mut client = Client::over(appliance.tls(Some(&key), &[b"h2"]).await.unwrap()).await;
    assert!(matches!(client, Client::Two(_)));
    let reply = client.send(Request::get("https://localhost/api/v1/whoami"), "").await;
    assert_eq!((reply.status.as_u16(), &reply.json()["name"]), (200, &"asha".into()));
}

#[tokio::test]
async fn no_session_can_be_resumed() {
    let appliance = Appliance::start().await;
    let key = appliance.authority.client(COUNSELLOR, None);
    let mut stream = appliance.tls(Some(&key), &[b"http/1.1"]).await.unwrap();
    stream.write_all(b"GET /health HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").await.unwrap();
    rest(&mut stream).await;
    // The connection is over: a ticket would have come.
    assert_eq!(stream.get_ref().1.tls13_tickets_received(), 0);
    assert!(!appliance.tls_config().session_storage.can_cache());
}

#[test]
fn a_certificate_that_is_not_the_keys_own_is_refused_at_start() {
    let authority = Authority::new();
    let (one, other) = (authority.client(COUNSELLOR, None), authority.client(COUNSELLOR, None));
    assert!(server_config(one.chain.clone(), signing_key(&other), authority.certificate()).is_err());
    assert!(server_config(vec![], signing_key(&one), authority.certificate()).is_err());
    assert!(server_config(one.chain.clone(), signing_key(&one), one.chain[0].clone()).is_ok());
}

#[tokio::test]
async fn a_connection_above_the_cap_is_closed_before_tls() {
    let appliance = Appliance::start_with("[listen]\nmax_connections = 1").await;
    let mut first = appliance.connect("counsellor/asha").await;
    assert_eq!(first.get("/health").await.status, 200);
    let key = appliance.authority.client(COUNSELLOR, None);
    assert!(appliance.tls(Some(&key), &[]).await.is_err());
    assert_eq!(first.get("/health").await.status, 200);
}

#[tokio::test]
async fn one_source_gets_no_more_than_its_connections() {
    let appliance = Appliance::start_with("[listen]\nmax_connections_per_source = 1").await;
    let mut first = appliance.connect("counsellor/asha").await;
    assert_eq!(first.get("/health").await.status, 200);
    let key = appliance.authority.client(COUNSELLOR, None);
    assert!(appliance.tls(Some(&key), &[]).await.is_err());
}

#[tokio::test]
async fn a_peer_that_never_begins_tls_is_closed() {
    let mut config = tiny();
    config.limits.handshake_timeout = TINY;
    let appliance = Appliance::start_config(config).await;
    let mut stream = TcpStream::connect(appliance.address).await.unwrap();
    assert_eq!(rest(&mut stream).await, b"");
}

#[tokio::test]
async fn a_head_that_does_not_end_is_closed() {
    let mut config = tiny();
    config.limits.header_timeout = TINY;
    let appliance = Appliance::start_config(config).await;
    let key = appliance.authority.client(COUNSELLOR, None);
    let mut stream = appliance.tls(Some(&key), &[b"http/1.1"]).await.unwrap();
    stream.write_all(b"GET /health HTTP/1.1\r\nhost: loc").await.unwrap();
    assert_eq!(rest(&mut stream).await, b"");
}

#[tokio::test]
async fn a_head_that_is_too_long_is_refused() {
    let appliance = Appliance::start().await;
    let key = appliance.authority.client(COUNSELLOR, None);
    let mut stream = appliance.tls(Some(&key), &[b"http/1.1"]).await.unwrap();
    let head = format!("GET /health HTTP/1.1\r\nhost: localhost\r\nx: {}\r\n\r\n", "a".repeat(200_000));
    _ = stream.write_all(head.as_bytes()).await;
    let mut status = [0; 12];
    tokio::time::timeout(Duration::from_secs(20), stream.read_exact(&mut status)).await.expect("a reply comes").unwrap();
    assert_eq!(&status, b"HTTP/1.1 431");
}

/// Closing with unread bytes would send RST, which may destroy the reply on its way.
#[tokio::test]
async fn the_refusal_of_a_head_without_end_is_not_torn_down_under_what_is_still_sent() {
    let appliance = Appliance::start().await;
    let key = appliance.authority.client(COUNSELLOR, None);
    let head = format!("GET /health HTTP/1.1\r\nhost: localhost\r\nx: {}", "a".repeat(2_000_000));
    for _ in 0..10 {
        let mut stream = appliance.tls(Some(&key), &[b"http/1.1"]).await.unwrap();
        stream.write_all(head.as_bytes()).await.expect("all of it is taken");
        let mut reply = Vec::new();
        let ended = tokio::time::timeout(Duration::from_secs(20), stream.read_to_end(&mut reply)).await.expect("the reply ends");
        let reset = ended.as_ref().is_err_and(|error| error.kind() != std::io::ErrorKind::UnexpectedEof);
        assert!(!reset, "{ended:?}");
        assert!(reply.starts_with(b"HTTP/1.1 431"), "{}", String::from_utf8_lossy(&reply));
    }
}

#[tokio::test]
async fn a_head_that_is_somewhat_too_long_is_refused_with_a_document_over_both_protocols() {
    let appliance = Appliance::start().await;
    let key = appliance.authority.client(COUNSELLOR, None);
    for protocol in [b"http/1.1".as_slice(), b"h2"] {
        let mut client = Client::over(appliance.tls(Some(&key), &[protocol]).await.unwrap()).await;
        let long = Request::get("https://localhost/health").header("x", "a".repeat(66_000));
        let many = (0..70).fold(Request::get("https://localhost/health"), |request, number| request.header(format!("x-{number}"), "a"));
        for request in [long, many] {
            assert_eq!(client.send(request, "").await.problem(), (431, "head-too-large".to_owned()));
        }
        assert_eq!(client.send(Request::get("https://localhost/health"), "").await.status, 200);
    }
}

/// A frame of HTTP/2 (RFC 9113, 4.1) on stream 1, or on the connection for SETTINGS.
fn h2_frame(kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
    let length = u8::try_from(payload.len()).unwrap();
    [&[0, 0, length, kind, flags, 0, 0, 0, u8::from(kind != 4)], payload].concat()
}

const H2_PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

#[tokio::test]
async fn an_http_2_head_that_does_not_end_is_closed() {
    let mut config = tiny();
    (config.limits.idle_timeout, config.limits.drain_timeout) = (TINY, TINY);
    let appliance = Appliance::start_config(config).await;
    let key = appliance.authority.client(COUNSELLOR, None);
    let mut stream = appliance.tls(Some(&key), &[b"h2"]).await.unwrap();
    // HEADERS without END_HEADERS, and no CONTINUATION.
    stream.write_all(&[H2_PREFACE, &h2_frame(4, 0, &[]), &h2_frame(1, 0, &[0x82])].concat()).await.unwrap();
    rest(&mut stream).await;
}

#[tokio::test]
async fn an_http_2_body_that_falls_silent_is_refused() {
    let mut config = tiny();
    (config.limits.body_timeout, config.limits.idle_timeout, config.limits.drain_timeout) = (TINY, TINY, TINY);
    let appliance = Appliance::start_config(config).await;
    let key = appliance.authority.client(COUNSELLOR, None);
    let mut stream = appliance.tls(Some(&key), &[b"h2"]).await.unwrap();
    let literal = |name: &[u8], value: &[u8]| [name, &[u8::try_from(value.len()).unwrap()], value].concat();
    // HPACK (RFC 7541): POST, https, then :path, :authority and content-type as literals with indexed names.
    let head =
        [vec![0x83, 0x87], literal(&[4], b"/api/v1/text/redact"), literal(&[1], b"localhost"), literal(&[15, 16], b"application/json")];
    stream.write_all(&[H2_PREFACE, &h2_frame(4, 0, &[]), &h2_frame(1, 4, &head.concat())].concat()).await.unwrap();
    let reply = rest(&mut stream).await;
    let said = String::from_utf8_lossy(&reply);
    assert!(said.contains("urn:salama:problem:body-timeout"), "{said}");
}

#[tokio::test]
async fn an_http_2_connection_without_requests_is_closed() {
    let mut config = tiny();
    (config.limits.idle_timeout, config.limits.drain_timeout) = (TINY, TINY);
    let appliance = Appliance::start_config(config).await;
    let key = appliance.authority.client(COUNSELLOR, None);
    let mut silent = appliance.tls(Some(&key), &[b"h2"]).await.unwrap();
    rest(&mut silent).await;
}

#[tokio::test]
async fn a_stopping_server_finishes_what_it_has_begun_and_takes_nothing_new() {
    let appliance = Appliance::start().await;
    let (asked, mut was_asked) = tokio::sync::mpsc::unbounded_channel();
    let go_on = std::sync::Arc::new(tokio::sync::Notify::new());
    appliance.desk.lock().slow_text = Some((asked, go_on.clone()));
    let mut client = appliance.connect("counsellor/asha").await;
    let request = Request::post("/api/v1/text/redact").header("content-type", "application/json");
    let reply = tokio::spawn(async move { client.send(request, r#"{"text":"Amina called"}"#).await });
    was_asked.recv().await.unwrap();

    appliance.stop();
    let address = appliance.address;
    let ended = tokio::spawn(appliance.ended());
    while TcpStream::connect(address).await.is_ok() {
        tokio::task::yield_now().await;
    }
    assert!(!ended.is_finished());
    go_on.notify_one();
    assert_eq!(reply.await.unwrap().json()["text"], "[PERSON_1] called");
    ended.await.unwrap();
}

#[tokio::test]
async fn a_stopping_server_waits_no_longer_than_its_limit() {
    let mut config = tiny();
    config.limits.drain_timeout = TINY;
    let appliance = Appliance::start_config(config).await;
    let (asked, mut was_asked) = tokio::sync::mpsc::unbounded_channel();
    appliance.desk.lock().slow_text = Some((asked, std::sync::Arc::default()));
    let mut client = appliance.connect("counsellor/asha").await;
    let request = Request::post("/api/v1/text/redact").header("content-type", "application/json");
    let reply = tokio::spawn(async move { client.start(request, r#"{"text":"Amina"}"#).await.is_err() });
    was_asked.recv().await.unwrap();
    appliance.stop();
    appliance.ended().await;
    assert!(reply.await.unwrap());
}

#[tokio::test]
async fn live_streams_end_when_the_server_stops() {
    let appliance = Appliance::start().await;
    let id: CallId = appliance.desk.with_call(1, "counsellor/asha", CallState::Running);
    let mut client = appliance.connect("counsellor/asha").await;
    let response = client.start(Request::get(format!("/api/v1/calls/{id}/events")), "").await.unwrap();
    appliance.stop();
    let body = http_body_util::BodyExt::collect(response.into_body()).await.unwrap().to_bytes();
    assert!(body.starts_with(b"id: 1\nevent: state\n"), "{body:?}");
    appliance.ended().await;
}
