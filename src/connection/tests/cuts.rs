//! Posts whose peer goes away at any byte.
//! Trusts: the fixture.
//! Touches: loopback sockets.
//! Next: [`super::uploads`].

use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::sync::mpsc::unbounded_channel;

use crate::connection::fixture::Appliance;

const METADATA: &str = r#"{"consent":{"basis":"caller","purposes":["transcription"]}}"#;

/// A whole post, and where its recording begins.
fn post() -> (Vec<u8>, usize) {
    let part = |name: &str| format!("--XyZ\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n");
    let before = format!("{}{METADATA}\r\n{}", part("metadata"), part("audio"));
    let body = format!("{before}RIFF-and-so-on\r\n--XyZ--\r\n");
    let head = format!(
        "POST /api/v1/calls HTTP/1.1\r\nhost: localhost\r\ncontent-type: multipart/form-data; boundary=XyZ\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    let audio = head.len() + before.len();
    ((head + &body).into_bytes(), audio)
}

#[tokio::test]
async fn a_post_that_is_cut_at_any_byte_is_forgotten() {
    let appliance = Appliance::start_with("[limits]\nuploads_per_minute = 6000").await;
    let (sender, mut forgotten) = unbounded_channel();
    appliance.desk.lock().forgotten = Some(sender);
    let desk = appliance.desk.clone();
    let key = appliance.authority.client("salama://box/counsellor/asha", None);
    let (post, audio) = post();

    for cut in 0..post.len() {
        let mut stream = appliance.tls(Some(&key), &[b"http/1.1"]).await.unwrap();
        stream.write_all(&post[..cut]).await.unwrap();
        stream.flush().await.unwrap();
        drop(stream);
        if cut >= audio {
            forgotten.recv().await.unwrap();
        }
    }

    let mut client = appliance.connect("counsellor/asha").await;
    assert_eq!(client.get("/api/v1/calls").await.json()["calls"], serde_json::json!([]));
    appliance.stop();
    appliance.ended().await;
    assert!(desk.lock().calls.is_empty() && forgotten.try_recv().is_err(), "only a recording that has begun is forgotten");
}

#[tokio::test]
async fn a_handshake_that_is_cut_at_any_byte_harms_nobody() {
    let appliance = Appliance::start().await;
    let hello = appliance.hello();
    for cut in 0..hello.len() {
        let mut stream = TcpStream::connect(appliance.address).await.unwrap();
        // A connection above the cap is closed at once.
        _ = stream.write_all(&hello[..cut]).await;
        drop(stream);
        tokio::task::yield_now().await;
    }
    let mut client = appliance.connect("counsellor/asha").await;
    assert_eq!(client.get("/health").await.status, 200);
}
