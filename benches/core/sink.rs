//! What an upload can be at most: the daemon's own TLS and HTTP settings in front of a handler that drops the body.
//! Trusts: its arguments.
//! Touches: loopback, a folder for its certificates.
//! Next: `put` sends the same bytes here and to the daemon.

use std::io::{Read as _, stdin};
use std::path::PathBuf;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::routing::post;
use clap::Args;
use http_body_util::BodyExt as _;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use hyper_util::service::TowerToHyperService;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose};
use rustls::crypto::ring::sign::any_supported_type;
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use salama::connection::tls::server_config;
use serde_json::json;
use tokio_rustls::TlsAcceptor;

#[derive(Args, Debug)]
pub struct Arguments {
    /// A folder for `ca.pem`, `client.pem`, `server.pem`.
    folder: PathBuf,
    /// Only makes the certificates, for another server.
    #[arg(long)]
    certificates_only: bool,
}

pub fn run(arguments: &Arguments) {
    let issued = issue(&arguments.folder);
    if arguments.certificates_only {
        return;
    }
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        println!("{}", json!({ "address": listener.local_addr().unwrap().to_string(), "pid": std::process::id() }));
        let acceptor = TlsAcceptor::from(server_config(vec![issued.chain], issued.key, issued.authority).unwrap());
        tokio::spawn(serve(listener, acceptor));
        tokio::task::spawn_blocking(|| stdin().read_to_end(&mut Vec::new())).await.unwrap().unwrap();
    });
    runtime.shutdown_background();
}

async fn serve(listener: tokio::net::TcpListener, acceptor: TlsAcceptor) {
    let router = Router::new().route("/api/v1/calls", post(drop_body));
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        let (acceptor, router) = (acceptor.clone(), router.clone());
        tokio::spawn(async move {
            stream.set_nodelay(true).unwrap();
            let stream = acceptor.accept(stream).await.unwrap();
            let mut http = Builder::new(TokioExecutor::new()).http1_only();
            http.http1().max_buf_size(64 * 1024);
            // A client that has its answer may leave as it likes.
            let _ = http.serve_connection(TokioIo::new(stream), TowerToHyperService::new(router)).await;
        });
    }
}

async fn drop_body(mut body: Body) -> String {
    let mut bytes = 0;
    while let Some(frame) = body.frame().await {
        bytes += frame.unwrap().into_data().map_or(0, |data| data.len());
    }
    bytes.to_string()
}

struct Issued {
    chain: rustls_pki_types::CertificateDer<'static>,
    key: Arc<dyn rustls::sign::SigningKey>,
    authority: rustls_pki_types::CertificateDer<'static>,
}

fn issue(folder: &std::path::Path) -> Issued {
    let mut params = CertificateParams::new(vec![]).unwrap();
    params.distinguished_name.push(DnType::CommonName, "Benchmark authority");
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    std::fs::write(folder.join("ca.pem"), authority.as_ref().pem()).unwrap();
    let sign = |names: &[&str], usage, file: &str| {
        let mut params = CertificateParams::new(names.iter().map(ToString::to_string).collect::<Vec<_>>()).unwrap();
        params.distinguished_name.push(DnType::CommonName, file);
        params.extended_key_usages = vec![usage];
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &authority).unwrap();
        std::fs::write(folder.join(file), certificate.pem() + &key.serialize_pem()).unwrap();
        (certificate.der().clone(), PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der())))
    };
    sign(&[], ExtendedKeyUsagePurpose::ClientAuth, "client.pem");
    let (chain, key) = sign(&["salama.test", "127.0.0.1"], ExtendedKeyUsagePurpose::ServerAuth, "server.pem");
    Issued { chain, key: any_supported_type(&key).unwrap(), authority: authority.as_ref().der().clone() }
}
