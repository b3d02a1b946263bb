//! A TLS connection that a test drives byte by byte.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::Duration;

use rustls::crypto::ring::default_provider;
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned, version};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use super::client::Client;

/// Longest wait for one read.
const READ_LIMIT: Duration = Duration::from_secs(120);

/// A connection over which nothing has been said but the handshake's beginning.
pub struct Raw(StreamOwned<ClientConnection, TcpStream>);

impl Raw {
    /// Connects as `client`; HTTP/1.1.
    pub fn connect(client: &Client) -> Self {
        let (_, _, port) = client.parts();
        let socket = TcpStream::connect(("127.0.0.1", port)).unwrap();
        socket.set_read_timeout(Some(READ_LIMIT)).unwrap();
        Self(StreamOwned::new(connection(client), socket))
    }

    /// Ends the handshake.
    pub fn shaken(client: &Client) -> Self {
        let mut raw = Self::connect(client);
        let Self(StreamOwned { conn, sock }) = &mut raw;
        while conn.is_handshaking() {
            conn.complete_io(sock).unwrap();
        }
        raw
    }

    /// Sends `bytes`; a server that has closed meanwhile is no error here.
    pub fn send(&mut self, bytes: &[u8]) {
        let _ = self.0.write_all(bytes).and_then(|()| self.0.flush());
    }

    /// Reads until the server ends the connection.
    pub fn rest(mut self) -> String {
        let mut all = Vec::new();
        let mut piece = [0; 4096];
        while let Ok(read @ 1..) = self.0.read(&mut piece) {
            all.extend_from_slice(&piece[..read]);
        }
        String::from_utf8_lossy(&all).into_owned()
    }
}

/// The first bytes of a handshake of `client`.
pub fn hello(client: &Client) -> Vec<u8> {
    let mut hello = Vec::new();
    connection(client).write_tls(&mut hello).unwrap();
    hello
}

fn connection(client: &Client) -> ClientConnection {
    let (ca, identity, _) = client.parts();
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(ca).unwrap()).unwrap();
    let chain = CertificateDer::pem_file_iter(identity).unwrap().collect::<Result<_, _>>().unwrap();
    let mut config = ClientConfig::builder_with_provider(Arc::new(default_provider()))
        .with_protocol_versions(&[&version::TLS13])
        .unwrap()
        .with_root_certificates(roots)
        .with_client_auth_cert(chain, PrivateKeyDer::from_pem_file(identity).unwrap())
        .unwrap();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    ClientConnection::new(Arc::new(config), "salama.test".try_into().unwrap()).unwrap()
}
