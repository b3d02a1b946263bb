//! A client that shares no code with the appliance: curl.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;
use tempfile::TempDir;

/// Longest that any one request of a test may take, seconds.
const REQUEST_SECONDS: &str = "120";

/// A certificate and its key in one PEM file, and the CA of the appliance.
#[derive(Clone)]
pub struct Client {
    base: String,
    ca: PathBuf,
    identity: Option<PathBuf>,
}

/// What came back.
#[derive(Debug)]
pub struct Reply {
    /// HTTP status; 0 when the connection or handshake failed.
    pub status: u16,
    /// Header lines as received, lower case.
    pub headers: String,
    /// The body.
    pub body: Vec<u8>,
    /// What curl says of a failed connection.
    pub error: String,
}

impl Reply {
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|_| panic!("not JSON: {} {}", self.status, self.text()))
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim)
    }

    /// Asserts a problem document (RFC 9457) of this status and type.
    pub fn assert_problem(&self, status: u16, kind: &str) {
        assert_eq!(self.status, status, "{} {}", self.text(), self.error);
        assert_eq!(self.header("content-type"), Some("application/problem+json"), "{}", self.headers);
        let problem = self.json();
        assert_eq!(problem["type"], format!("urn:salama:problem:{kind}"), "{problem}");
        assert_eq!(problem["status"], status);
        for field in ["title", "detail"] {
            assert!(problem[field].as_str().is_some_and(|text| text.len() > 5), "{problem}");
        }
    }
}

impl Client {
    pub fn new(base: &str, ca: &Path, identity: Option<&Path>) -> Self {
        Self { base: base.to_owned(), ca: ca.to_owned(), identity: identity.map(Path::to_owned) }
    }

    /// The same client at the address of a restarted daemon.
    pub fn at(&self, base: &str) -> Self {
        Self { base: base.to_owned(), ..self.clone() }
    }

    /// Where the certificate of the authority and the identity lie, and the port: for a connection without curl.
    pub fn parts(&self) -> (&Path, &Path, u16) {
        let port = self.base.rsplit_once(':').unwrap().1.parse().unwrap();
        (&self.ca, self.identity.as_deref().expect("a client with a certificate"), port)
    }

    /// The curl command for `path`, for tests that drive it themselves.
    pub fn command(&self, path: &str) -> Command {
        let mut curl = Command::new("curl");
        curl.args(["--silent", "--show-error", "--max-time", REQUEST_SECONDS, "--cacert"]).arg(&self.ca);
        if let Some(identity) = &self.identity {
            curl.arg("--cert").arg(identity);
        }
        curl.args(["--connect-to", "salama.test::127.0.0.1:"]).stdin(Stdio::null()).arg("--path-as-is").arg(format!("{}{path}", self.base));
        curl
    }

    /// Sends a request with further curl arguments.
    pub fn request(&self, method: &str, path: &str, arguments: &[&str]) -> Reply {
        let folder = TempDir::new().unwrap();
        let (headers, body) = (folder.path().join("headers"), folder.path().join("body"));
        let mut curl = self.command(path);
        curl.args(["--request", method])
            .args(arguments)
            .arg("--dump-header")
            .arg(&headers)
            .arg("--output")
            .arg(&body)
            .args(["--write-out", "%{http_code}"]);
        let output = curl.output().expect("curl is missing: apt-get install curl");
        let read = |path: &Path| std::fs::read(path).unwrap_or_default();
        Reply {
            status: String::from_utf8_lossy(&output.stdout).trim().parse().unwrap_or(0),
            headers: String::from_utf8_lossy(&read(&headers)).to_lowercase(),
            body: read(&body),
            error: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    pub fn get(&self, path: &str) -> Reply {
        self.request("GET", path, &[])
    }

    pub fn delete(&self, path: &str) -> Reply {
        self.request("DELETE", path, &[])
    }

    pub fn post_json(&self, path: &str, body: &Value) -> Reply {
        self.request("POST", path, &["--header", "Content-Type: application/json", "--data-binary", &body.to_string()])
    }

    /// Posts a recording as multipart, with metadata as given.
    pub fn post_call(&self, audio: &Path, metadata: &str, more: &[&str]) -> Reply {
        let metadata = format!("metadata={metadata};type=application/json");
        let audio = format!("audio=@{};type=application/octet-stream", audio.display());
        let mut arguments = vec!["--form", metadata.as_str(), "--form", audio.as_str()];
        arguments.extend(more);
        self.request("POST", "/api/v1/calls", &arguments)
    }

    /// Posts a recording that must be accepted and returns the call's id.
    pub fn accepted_call(&self, audio: &Path) -> String {
        let reply = self.post_call(audio, CONSENT, &[]);
        assert_eq!(reply.status, 202, "{} {}", reply.text(), reply.error);
        reply.json()["id"].as_str().unwrap().to_owned()
    }

    /// Follows the call's events to their end and returns the call.
    pub fn finished(&self, id: &str) -> Value {
        let events = self.get(&format!("/api/v1/calls/{id}/events"));
        assert_eq!(events.status, 200, "{}", events.text());
        self.get(&format!("/api/v1/calls/{id}")).json()
    }

    /// Posts a recording, waits for its end and returns the transcript.
    pub fn transcribed(&self, audio: &Path) -> (String, Value) {
        let id = self.accepted_call(audio);
        let call = self.finished(&id);
        assert_eq!(call["state"], "done", "{call}");
        let transcript = self.get(&format!("/api/v1/calls/{id}/transcript?format=json"));
        assert_eq!(transcript.status, 200, "{}", transcript.text());
        (id, transcript.json())
    }
}

/// The least metadata that policy accepts.
pub const CONSENT: &str = r#"{"consent":{"basis":"caller","purposes":["transcription"]}}"#;

/// All text of a transcript's utterances.
pub fn words(transcript: &Value) -> String {
    let utterances = transcript["utterances"].as_array().unwrap();
    let texts: Vec<String> = utterances
        .iter()
        .map(|utterance| {
            let words = utterance["words"].as_array().unwrap();
            words.iter().filter_map(|word| word["text"].as_str()).collect::<Vec<_>>().join(" ")
        })
        .collect();
    texts.join(" ")
}
