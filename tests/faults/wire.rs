//! A small HTTP/1.1 client over mutual TLS that can stop anywhere, and whose connection may break anywhere.
//! Trusts: the server to be ours; a broken connection is an answer, too.
//! Touches: one TCP connection.
//! Next: tests read status and body.

use std::fs;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use serde_json::Value;

use crate::support::client::CONSENT;

/// Longest silence of the server; nothing here takes that long.
const PATIENCE: Duration = Duration::from_secs(60);
/// Longest that a call's events may go on.
const STREAM: Duration = Duration::from_secs(180);

/// Who dials.
#[derive(Clone)]
pub struct Caller(Arc<ClientConfig>);

impl Caller {
    pub fn new(authority: &Path, identity: &Path) -> Self {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(&fs::read(authority).unwrap()).unwrap()).unwrap();
        let pem = fs::read(identity).unwrap();
        let chain = CertificateDer::pem_slice_iter(&pem).collect::<Result<_, _>>().unwrap();
        let config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_root_certificates(roots)
            .with_client_auth_cert(chain, PrivateKeyDer::from_pem_slice(&pem).unwrap())
            .unwrap();
        Self(Arc::new(config))
    }

    pub fn dial(&self, address: &str) -> io::Result<Wire> {
        let socket = TcpStream::connect(address)?;
        socket.set_nodelay(true)?;
        socket.set_read_timeout(Some(PATIENCE))?;
        let name = ServerName::try_from("salama.test").unwrap();
        let tls = ClientConnection::new(Arc::clone(&self.0), name).map_err(io::Error::other)?;
        Ok(Wire(BufReader::new(StreamOwned::new(tls, socket))))
    }
}

/// One connection, kept for request after request.
pub struct Wire(BufReader<StreamOwned<ClientConnection, TcpStream>>);

/// What came back, whole.
#[derive(Debug)]
pub struct Reply {
    pub status: u16,
    pub body: Vec<u8>,
}

impl Reply {
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|_| panic!("not JSON: {self:?}"))
    }
}

impl Wire {
    pub fn get(&mut self, path: &str) -> io::Result<Reply> {
        self.send(&format!("GET {path} HTTP/1.1\r\nhost: salama.test\r\n\r\n"))?;
        self.reply()
    }

    pub fn without_body(&mut self, method: &str, path: &str) -> io::Result<Reply> {
        self.send(&format!("{method} {path} HTTP/1.1\r\nhost: salama.test\r\ncontent-length: 0\r\n\r\n"))?;
        self.reply()
    }

    /// Posts a recording; `sent` is called with the bytes that have been sent, after each piece.
    pub fn post(&mut self, recording: &[u8], mut sent: impl FnMut(usize)) -> io::Result<Reply> {
        self.begin(recording.len(), &[])?;
        let mut total = 0;
        for piece in recording.chunks(16 * 1024) {
            self.0.get_mut().write_all(piece)?;
            self.0.get_mut().flush()?;
            total += piece.len();
            sent(total);
        }
        self.reply()
    }

    /// Begins to post a recording of this length.
    pub fn begin(&mut self, length: usize, first: &[u8]) -> io::Result<()> {
        self.send(&format!(
            "POST /api/v1/calls HTTP/1.1\r\nhost: salama.test\r\ncontent-type: application/octet-stream\r\nsalama-metadata: {CONSENT}\r\ncontent-length: {length}\r\n\r\n"
        ))?;
        self.0.get_mut().write_all(first)?;
        self.0.get_mut().flush()
    }

    /// Follows a call's events to their end and returns the call.
    pub fn finished(&mut self, id: &str) -> io::Result<Value> {
        self.get(&format!("/api/v1/calls/{id}/events"))?;
        Ok(self.get(&format!("/api/v1/calls/{id}"))?.json())
    }

    fn send(&mut self, head: &str) -> io::Result<()> {
        self.0.get_mut().write_all(head.as_bytes())?;
        self.0.get_mut().flush()
    }

    fn line(&mut self) -> io::Result<String> {
        let mut line = String::new();
        self.0.read_line(&mut line)?;
        if line.ends_with('\n') { Ok(line.trim_end().to_lowercase()) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
    }

    fn reply(&mut self) -> io::Result<Reply> {
        let status = self.line()?.split(' ').nth(1).and_then(|status| status.parse().ok()).ok_or(io::ErrorKind::InvalidData)?;
        let (mut length, mut chunked) = (0, false);
        loop {
            let line = self.line()?;
            match line.split_once(": ") {
                Some(("content-length", value)) => length = value.parse().map_err(io::Error::other)?,
                Some(("transfer-encoding", value)) => chunked = value == "chunked",
                _ if line.is_empty() => break,
                _ => {}
            }
        }
        let body = if chunked { self.chunks()? } else { self.bytes(length)? };
        Ok(Reply { status, body })
    }

    fn chunks(&mut self) -> io::Result<Vec<u8>> {
        let (mut body, began) = (Vec::new(), Instant::now());
        loop {
            if began.elapsed() > STREAM {
                return Err(io::Error::new(io::ErrorKind::TimedOut, format!("a reply goes on for more than {STREAM:?}")));
            }
            let size = usize::from_str_radix(&self.line()?, 16).map_err(io::Error::other)?;
            body.extend(self.bytes(size)?);
            self.line()?;
            if size == 0 {
                return Ok(body);
            }
        }
    }

    fn bytes(&mut self, length: usize) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; length];
        self.0.read_exact(&mut bytes)?;
        Ok(bytes)
    }
}

/// Asks again and again until there is an answer.
pub fn until<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(began.elapsed() < PATIENCE, "not within {PATIENCE:?}: {what}");
    }
}
