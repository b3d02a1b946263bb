//! A recording that is refused while it still comes in: the reply arrives whole, and the connection goes on.
//! Trusts: the fixture; curl, which has dropped such replies.
//! Touches: loopback sockets.
//! Next: [`super::uploads`].

use http::Request;

use crate::connection::fixture::{Appliance, Client, ClientKey};

const METADATA: &str = r#"{"consent":{"basis":"caller","purposes":["transcription"]}}"#;
/// Larger than the window of a stream and the buffers of a socket: some of it is always on its way when the reply comes.
const LARGE: usize = 6_000_000;

/// Posts a large recording and gives back curl's exit code, the status and the kind of problem that it read.
async fn posted(appliance: &Appliance, key: &ClientKey, arguments: &[&str]) -> (Option<i32>, String) {
    let folder = tempfile::tempdir().unwrap();
    let recording = folder.path().join("recording");
    std::fs::write(&recording, vec![7; LARGE]).unwrap();
    let body = format!("@{}", recording.display());
    let all = [&["--write-out", " %{http_code}", "--header", "content-type: audio/wav", "--data-binary", &body], arguments].concat();
    let output = appliance.curl(key, "/api/v1/calls", &all).await;
    let said = String::from_utf8(output.stdout).unwrap();
    let kind = said.split("urn:salama:problem:").nth(1).and_then(|rest| rest.split('"').next()).unwrap_or_default();
    let status = said.rsplit(' ').next().unwrap_or_default();
    (output.status.code(), format!("{status} {kind} {}", String::from_utf8_lossy(&output.stderr)).trim().to_owned())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn curl_reads_every_early_refusal_over_both_protocols() {
    let settings = "[limits]\nuploads_per_minute = 1000";
    let (roomy, narrow) =
        (Appliance::start_with(settings).await, Appliance::start_with(&format!("{settings}\n[jobs]\nmax_audio = \"1 MB\"")).await);
    let key = |appliance: &Appliance, who: &str| appliance.authority.client(&format!("salama://box/{who}"), None);
    let metadata = format!("salama-metadata: {METADATA}");
    for version in ["--http1.1", "--http2"] {
        // Without its length, a body is chunked (HTTP/1.1) or simply ends (HTTP/2).
        let unannounced = if version == "--http2" { "content-length:" } else { "transfer-encoding: chunked" };
        for _ in 0..4 {
            let role = posted(&roomy, &key(&roomy, "monitor/prometheus"), &[version]).await;
            let policy = posted(&roomy, &key(&roomy, "counsellor/asha"), &[version, "--header", "salama-metadata: {}"]).await;
            let announced = posted(&narrow, &key(&narrow, "counsellor/asha"), &[version, "--header", &metadata]).await;
            let counted =
                posted(&narrow, &key(&narrow, "counsellor/asha"), &[version, "--header", &metadata, "--header", unannounced]).await;
            assert_eq!(role, (Some(0), "403 not-allowed".to_owned()), "{version}");
            assert_eq!(policy, (Some(0), "422 consent-required".to_owned()), "{version}");
            assert_eq!(announced, (Some(0), "413 too-large".to_owned()), "{version}");
            assert_eq!(counted, (Some(0), "413 too-large".to_owned()), "{version}");
        }
    }
}

#[tokio::test]
async fn after_an_early_refusal_the_connection_serves_the_next_request() {
    let appliance = Appliance::start().await;
    let key = appliance.authority.client("salama://box/counsellor/asha", None);
    for protocol in [b"http/1.1".as_slice(), b"h2"] {
        let mut client = Client::over(appliance.tls(Some(&key), &[protocol]).await.unwrap()).await;
        let post = Request::post("https://localhost/api/v1/calls").header("content-type", "audio/wav");
        let refused = client.send(post, vec![0; LARGE]).await;
        assert_eq!(refused.problem(), (422, "consent-required".to_owned()));
        assert_eq!(client.send(Request::get("https://localhost/health"), "").await.status, 200);
    }
}
