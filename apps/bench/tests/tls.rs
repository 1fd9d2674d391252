//! The program against a service that speaks TLS and answers in chunks.

use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Output};
use std::sync::Arc;

use rcgen::{CertifiedKey, generate_simple_self_signed};
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring;

const ANSWER: &[u8] =
    b"HTTP/1.1 201 Created\r\ntransfer-encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n";

/// A service, until it is dropped, and its certificate.
async fn service() -> (SocketAddr, String, JoinSet<()>) {
    let CertifiedKey { cert, signing_key } =
        generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
    let key = signing_key.serialize_der().try_into().expect("a key");
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(vec![cert.der().clone()], key)
        .expect("they belong together");
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let mut serving = JoinSet::new();
    serving.spawn(async move {
        let mut connections = JoinSet::new();
        loop {
            let (stream, _) = listener.accept().await.expect("a connection");
            let acceptor = acceptor.clone();
            connections.spawn(async move {
                // A client that does not trust the certificate goes away.
                let Ok(mut stream) = acceptor.accept(stream).await else {
                    return;
                };
                let mut request = [0; 4_096];
                while stream.read(&mut request).await.is_ok_and(|read| read > 0) {
                    if stream.write_all(ANSWER).await.is_err() || stream.flush().await.is_err() {
                        return;
                    }
                }
            });
        }
    });
    (address, cert.pem(), serving)
}

async fn run(address: SocketAddr, trusted: &Path) -> Output {
    let mut program = Command::new(env!("CARGO_BIN_EXE_task-processor-bench"));
    program
        .args(["--url", &format!("https://localhost:{}", address.port())])
        .args([
            "--connections",
            "2",
            "--warmup",
            "1ms",
            "--duration",
            "200ms",
        ])
        .args(["--quiet", "--json", "-"])
        .env("SSL_CERT_FILE", trusted);
    let ran = tokio::task::spawn_blocking(move || program.output()).await;
    ran.expect("no panic").expect("the program")
}

#[tokio::test]
async fn load_goes_over_tls_to_who_is_trusted_and_to_nobody_else() {
    let (address, certificate, _serving) = service().await;
    let (_, other, _) = service().await;
    let directory = std::env::temp_dir().join(format!("task-processor-bench-{}", address.port()));
    std::fs::create_dir_all(&directory).expect("a directory");
    let file = |name: &str, text: &str| {
        let path = directory.join(name);
        std::fs::write(&path, text).expect("a file");
        path
    };
    let ran = run(address, &file("trusted.pem", &certificate)).await;
    let told = String::from_utf8_lossy(&ran.stderr);
    assert!(ran.status.success(), "{told}");
    let document: Value = serde_json::from_slice(&ran.stdout).expect("JSON");
    let report = &document["report"];
    assert!(report["statuses"]["201"].as_u64() > Some(0), "{report}");
    let refused = run(address, &file("other.pem", &other)).await;
    let told = String::from_utf8_lossy(&refused.stderr);
    assert_eq!(refused.status.code(), Some(1), "{told}");
    assert!(told.contains("certificate"), "{told}");
    std::fs::remove_dir_all(&directory).expect("removed");
}
