//! Recordings on their way in: as they should be, and in every way they should not.
//! Trusts: the fixture.
//! Touches: loopback sockets.
//! Next: [`super::calls`].

use http::{Request, request};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use crate::config::Config;
use crate::connection::fixture::Appliance;

const ASHA: &str = "counsellor/asha";
const METADATA: &str = r#"{"consent":{"basis":"caller","purposes":["transcription"]},"language":"sw"}"#;
const FORM: &str = "multipart/form-data; boundary=XyZ";

fn part(name: &str, content: &str) -> String {
    format!("--XyZ\r\nContent-Disposition: form-data; name=\"{name}\"; filename=\"../../x.wav\"\r\n\r\n{content}\r\n")
}

fn form(parts: &[(&str, &str)]) -> String {
    let parts: String = parts.iter().map(|(name, content)| part(name, content)).collect();
    format!("{parts}--XyZ--\r\n")
}

fn post(content_type: &str) -> request::Builder {
    Request::post("/api/v1/calls").header("content-type", content_type)
}

#[tokio::test]
async fn a_form_is_accepted() {
    let appliance = Appliance::start().await;
    let reply = appliance.connect(ASHA).await.send(post(FORM), form(&[("metadata", METADATA), ("audio", "RIFF1234")])).await;
    assert_eq!(reply.status, 202);
    let view = reply.json();
    assert_eq!(reply.header("location"), format!("/api/v1/calls/{}", view["id"].as_str().unwrap()));
    assert_eq!((&view["owner"], &view["audio_bytes"]), (&ASHA.into(), &8.into()));
    assert_eq!(appliance.desk.lock().calls[0].1.language.as_deref(), Some("sw"));
}

#[tokio::test]
async fn a_plain_body_with_its_metadata_in_the_header_is_accepted() {
    let appliance = Appliance::start().await;
    let mut client = appliance.connect("recorder/pbx").await;
    for media in ["audio/wav", "audio/x-anything; rate=8000", "application/octet-stream"] {
        let reply = client.send(post(media).header("salama-metadata", METADATA), vec![7; 300_000]).await;
        assert_eq!((reply.status.as_u16(), &reply.json()["audio_bytes"]), (202, &300_000.into()), "{media}");
    }
}

#[tokio::test]
async fn the_same_upload_again_gives_the_same_call_and_another_with_its_key_is_a_conflict() {
    let appliance = Appliance::start().await;
    let mut client = appliance.connect(ASHA).await;
    let send = |metadata| post("audio/wav").header("idempotency-key", "k-1").header("salama-metadata", metadata);
    let first = client.send(send(METADATA), "RIFF").await;
    let again = client.send(send(METADATA), "RIFF").await;
    assert_eq!((first.status.as_u16(), again.status.as_u16()), (202, 200));
    assert_eq!((first.json()["id"].clone(), again.header("idempotency-replayed")), (again.json()["id"].clone(), "true"));
    let other = METADATA.replace("sw", "en");
    let conflict = client.send(send(&other), "RIFF").await;
    assert_eq!(conflict.problem(), (409, "idempotency-conflict".to_owned()));
    let mixed_up = client.send(send(METADATA), "RIFX").await;
    assert_eq!(mixed_up.problem(), (409, "idempotency-conflict".to_owned()));
    assert_eq!(appliance.desk.lock().calls.len(), 1);
}

#[tokio::test]
async fn an_idempotency_key_is_short_visible_and_single() {
    let appliance = Appliance::start().await;
    let mut client = appliance.connect(ASHA).await;
    let base = || post("audio/wav").header("salama-metadata", METADATA);
    let long = "k".repeat(129);
    for request in [
        base().header("idempotency-key", ""),
        base().header("idempotency-key", "a b"),
        base().header("idempotency-key", long),
        base().header("idempotency-key", "a").header("idempotency-key", "b"),
    ] {
        assert_eq!(client.send(request, "RIFF").await.problem(), (400, "bad-request".to_owned()));
    }
    assert_eq!(client.send(base().header("idempotency-key", "k".repeat(128)), "RIFF").await.status, 202);
}

#[tokio::test]
async fn forms_with_the_wrong_parts_are_refused() {
    let appliance = Appliance::start().await;
    let mut client = appliance.connect(ASHA).await;
    let twice = form(&[("metadata", METADATA), ("metadata", METADATA), ("audio", "RIFF")]);
    let trailing = form(&[("metadata", METADATA), ("audio", "RIFF"), ("audio", "RIFF")]);
    for (body, why) in [
        (form(&[]), "no parts"),
        (form(&[("audio", "RIFF"), ("metadata", METADATA)]), "out of order"),
        (form(&[("audio", "RIFF")]), "no metadata"),
        (form(&[("metadata", METADATA)]), "no audio"),
        (form(&[("path", "/etc"), ("audio", "RIFF")]), "unknown part first"),
        (form(&[("metadata", METADATA), ("path", "/etc")]), "unknown part second"),
        (twice, "doubled metadata"),
        (trailing, "a part after the audio"),
        (part("metadata", METADATA), "no closing boundary"),
        ("RIFF".to_owned(), "no form at all"),
        (String::new(), "nothing"),
    ] {
        assert_eq!(client.send(post(FORM), body).await.problem(), (400, "malformed-multipart".to_owned()), "{why}");
    }
    assert_eq!(client.send(post("multipart/form-data"), "").await.problem(), (400, "malformed-multipart".to_owned()));
    assert!(appliance.desk.lock().calls.is_empty());
}

#[tokio::test]
async fn metadata_that_policy_does_not_accept_is_refused() {
    let appliance = Appliance::start().await;
    let mut client = appliance.connect(ASHA).await;
    let long = format!(r#"{{"consent":{{"basis":"caller","purposes":["transcription"]}},"reference":"{}"}}"#, "r".repeat(257));
    for (metadata, status, kind) in [
        ("", 400, "malformed-json"),
        ("{\"consent\":", 400, "malformed-json"),
        ("{}", 422, "consent-required"),
        (r#"{"language":"sw"}"#, 422, "consent-required"),
        (r#"{"consent":null}"#, 422, "consent-required"),
        (r#"{"consent":{"basis":"caller","purposes":["research"]}}"#, 422, "consent-required"),
        (r#"{"consent":{"basis":"none","purposes":["transcription"]}}"#, 422, "invalid-metadata"),
        (r#"{"consent":{"basis":"caller","purposes":["transcription"]},"call_id":"../x"}"#, 422, "invalid-metadata"),
        (r#"{"consent":{"basis":"caller","purposes":["transcription"]},"language":"sw","language":"en"}"#, 422, "invalid-metadata"),
        (r#"{"consent":{"basis":"caller","basis":"guardian","purposes":["transcription"]}}"#, 422, "invalid-metadata"),
        (r#"{"consent":{"basis":"caller","purposes":["transcription"]},"language":"swahili"}"#, 422, "invalid-metadata"),
        (r#"{"consent":{"basis":"caller","purposes":["transcription"]},"recorded_at":"yesterday"}"#, 422, "invalid-metadata"),
        (long.as_str(), 422, "invalid-metadata"),
    ] {
        let expected = (status, kind.to_owned());
        assert_eq!(client.send(post(FORM), form(&[("metadata", metadata), ("audio", "RIFF")])).await.problem(), expected, "{metadata}");
        assert_eq!(client.send(post("audio/wav").header("salama-metadata", metadata), "RIFF").await.problem(), expected, "{metadata}");
    }
    assert!(appliance.desk.lock().calls.is_empty());
}

#[tokio::test]
async fn a_plain_body_without_metadata_is_refused() {
    let appliance = Appliance::start().await;
    let mut client = appliance.connect(ASHA).await;
    assert_eq!(client.send(post("audio/wav"), "RIFF").await.problem(), (422, "consent-required".to_owned()));
    let latin = http::HeaderValue::from_bytes(b"{\"reference\":\"\xe9\"}").unwrap();
    assert_eq!(client.send(post("audio/wav").header("salama-metadata", latin), "RIFF").await.problem(), (400, "bad-request".to_owned()));
}

#[tokio::test]
async fn other_media_types_are_refused() {
    let appliance = Appliance::start().await;
    let mut client = appliance.connect(ASHA).await;
    let expected = (415, "unsupported-media-type".to_owned());
    for media in ["application/json", "text/plain", "video/mp4", "multipart/mixed; boundary=x"] {
        assert_eq!(client.send(post(media).header("salama-metadata", METADATA), "RIFF").await.problem(), expected, "{media}");
    }
    assert_eq!(client.send(Request::post("/api/v1/calls"), "RIFF").await.problem(), expected);
    let body = format!(
        "--XyZ\r\nContent-Disposition: form-data; name=metadata\r\nContent-Type: text/xml\r\n\r\n<a/>\r\n{}",
        form(&[("audio", "x")])
    );
    assert_eq!(client.send(post(FORM), body).await.problem(), expected);
}

#[tokio::test]
async fn an_empty_recording_is_refused() {
    let appliance = Appliance::start().await;
    let mut client = appliance.connect(ASHA).await;
    let expected = (422, "empty-recording".to_owned());
    assert_eq!(client.send(post(FORM), form(&[("metadata", METADATA), ("audio", "")])).await.problem(), expected);
    assert_eq!(client.send(post("audio/wav").header("salama-metadata", METADATA), "").await.problem(), expected);
}

#[tokio::test]
async fn a_recording_that_says_it_is_too_large_is_refused_before_it_is_read() {
    let appliance = Appliance::start_with("[jobs]\nmax_audio = \"1 MB\"").await;
    let (sender, mut forgotten) = unbounded_channel();
    appliance.desk.lock().forgotten = Some(sender);
    // The client sends all 3 MB whatever comes back, and must still be able to read the reply.
    let reply = appliance.connect(ASHA).await.send(post("audio/wav").header("salama-metadata", METADATA), vec![0; 3_000_000]).await;
    assert_eq!(reply.problem(), (413, "too-large".to_owned()));
    assert!(forgotten.try_recv().is_err(), "no upload was begun");
}

/// Sends the beginning of a request and gives the connection back.
async fn begin(appliance: &Appliance, head: &str, body: &[u8]) -> (impl AsyncReadExt + AsyncWriteExt + Unpin, UnboundedReceiver<u64>) {
    let (sender, forgotten) = unbounded_channel();
    appliance.desk.lock().forgotten = Some(sender);
    let key = appliance.authority.client(&format!("salama://box/{ASHA}"), None);
    let mut stream = appliance.tls(Some(&key), &[b"http/1.1"]).await.unwrap();
    let head = format!("POST /api/v1/calls HTTP/1.1\r\nhost: localhost\r\n{head}\r\n\r\n");
    stream.write_all(&[head.as_bytes(), body].concat()).await.unwrap();
    stream.flush().await.unwrap();
    (stream, forgotten)
}

async fn reply(stream: &mut (impl AsyncReadExt + Unpin)) -> String {
    let mut all = Vec::new();
    _ = stream.read_to_end(&mut all).await;
    String::from_utf8(all).unwrap()
}

#[tokio::test]
async fn a_chunked_recording_is_counted_and_cut_off_at_the_limit() {
    let appliance = Appliance::start_with("[jobs]\nmax_audio = \"1 MB\"").await;
    let head = format!("content-type: audio/wav\r\ntransfer-encoding: chunked\r\nsalama-metadata: {METADATA}");
    let chunk = [b"100000\r\n".as_slice(), &vec![0; 0x10_0000], b"\r\n"].concat();
    let (mut stream, mut forgotten) = begin(&appliance, &head, &chunk).await;
    assert!(reply(&mut stream).await.starts_with("HTTP/1.1 413"));
    assert!(forgotten.recv().await.unwrap() <= 1_000_000);
    assert!(appliance.desk.lock().calls.is_empty());
}

#[tokio::test]
async fn a_post_that_is_cut_half_way_is_forgotten() {
    let appliance = Appliance::start().await;
    let head = format!("content-type: audio/wav\r\ncontent-length: 1000\r\nsalama-metadata: {METADATA}");
    let (stream, mut forgotten) = begin(&appliance, &head, &[7; 400]).await;
    drop(stream);
    assert_eq!(forgotten.recv().await, Some(400));
    assert!(appliance.desk.lock().calls.is_empty());
}

#[tokio::test]
async fn a_form_that_is_cut_half_way_is_forgotten() {
    let appliance = Appliance::start().await;
    let body = format!("{}{}", part("metadata", METADATA), part("audio", "RIFF"));
    let head = format!("content-type: {FORM}\r\ncontent-length: {}\r\nconnection: close", body.len());
    let (mut stream, mut forgotten) = begin(&appliance, &head, body.as_bytes()).await;
    assert!(reply(&mut stream).await.contains("urn:salama:problem:malformed-multipart"));
    assert_eq!(forgotten.recv().await, Some(4));
}

#[tokio::test]
async fn a_post_that_falls_silent_is_refused_and_forgotten() {
    let mut config = Config::parse("").unwrap();
    config.listen.address = ([127, 0, 0, 1], 0).into();
    config.limits.body_timeout = std::time::Duration::from_millis(60);
    let appliance = Appliance::start_config(config).await;
    let head = format!("content-type: audio/wav\r\ncontent-length: 1000\r\nsalama-metadata: {METADATA}");
    let (mut stream, mut forgotten) = begin(&appliance, &head, &[7; 400]).await;
    assert!(reply(&mut stream).await.starts_with("HTTP/1.1 408"));
    assert_eq!(forgotten.recv().await, Some(400));
}

#[tokio::test]
async fn a_post_that_trickles_for_ever_is_refused() {
    let mut config = Config::parse("").unwrap();
    config.listen.address = ([127, 0, 0, 1], 0).into();
    config.limits.upload_timeout = std::time::Duration::from_millis(60);
    let appliance = Appliance::start_config(config).await;
    let head = format!("content-type: audio/wav\r\ncontent-length: 1000\r\nsalama-metadata: {METADATA}");
    let (mut stream, mut forgotten) = begin(&appliance, &head, &[7; 400]).await;
    assert!(reply(&mut stream).await.contains("urn:salama:problem:body-timeout"));
    assert_eq!(forgotten.recv().await, Some(400));
}

#[tokio::test]
async fn metadata_longer_than_its_limit_is_refused() {
    let appliance = Appliance::start().await;
    let long = format!(r#"{{"consent":{{"basis":"caller","purposes":["transcription"]}},"reference":"{}"}}"#, "r".repeat(66_000));
    let reply = appliance.connect(ASHA).await.send(post(FORM), form(&[("metadata", &long), ("audio", "RIFF")])).await;
    assert_eq!(reply.problem(), (413, "too-large".to_owned()));
}
