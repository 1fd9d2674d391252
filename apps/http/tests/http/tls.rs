//! The API over TLS.

use std::sync::Arc;
use std::time::Duration;

use hyper_util::rt::{TokioExecutor, TokioIo};
use rcgen::{CertifiedKey, generate_simple_self_signed};
use task_processor_http::{HttpConfig, Tls};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore, ServerConfig, crypto::ring};

use crate::server::Server;

const GET: &str = "GET /health/live HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n";

/// A certificate for `localhost` that is its own root, as the server and as its clients need it.
fn identity() -> (Arc<ServerConfig>, CertificateDer<'static>) {
    let CertifiedKey { cert, signing_key } =
        generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
    let key = signing_key.serialize_der().try_into().expect("a key");
    let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(vec![cert.der().clone()], key)
        .expect("they belong together");
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    (Arc::new(config), cert.der().clone())
}

async fn connect(
    server: &Server,
    root: &CertificateDer<'static>,
    protocol: &[u8],
) -> std::io::Result<TlsStream<TcpStream>> {
    let mut roots = RootCertStore::empty();
    roots.add(root.clone()).expect("a root");
    let mut config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![protocol.to_vec()];
    let stream = TcpStream::connect(server.address).await?;
    let name = ServerName::try_from("localhost").expect("a name");
    TlsConnector::from(Arc::new(config))
        .connect(name, stream)
        .await
}

async fn answer(stream: &mut TlsStream<TcpStream>) -> String {
    stream.write_all(GET.as_bytes()).await.expect("it reads");
    let mut answer = String::new();
    stream
        .read_to_string(&mut answer)
        .await
        .expect("it answers");
    answer
}

#[tokio::test]
async fn http_1_and_http_2_are_spoken_over_tls_as_the_client_wishes() {
    let (identity, root) = identity();
    let config = HttpConfig {
        tls: Some(Tls::with(identity)),
        ..HttpConfig::default()
    };
    let server = Server::start_with(config, |_| {}).await;
    let mut stream = connect(&server, &root, b"http/1.1").await.expect("TLS");
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"http/1.1"[..]));
    let text = answer(&mut stream).await;
    assert!(text.starts_with("HTTP/1.1 200 OK\r\n"), "{text}");
    assert!(
        text.contains("\r\nstrict-transport-security: max-age=2592000\r\n"),
        "{text}"
    );
    let stream = connect(&server, &root, b"h2").await.expect("TLS");
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
            .await
            .expect("HTTP/2 is spoken");
    let connection = tokio::spawn(connection);
    let request = hyper::Request::get("https://localhost/health/live")
        .body(String::new())
        .expect("a request");
    let response = sender.send_request(request).await.expect("an answer");
    assert_eq!(response.status(), 200);
    connection.abort();
}

#[tokio::test]
async fn who_does_not_agree_on_tls_is_cut_and_counted() {
    let (ours, root) = identity();
    let config = HttpConfig {
        tls: Some(Tls::with(ours)),
        header_timeout: Duration::from_millis(200),
        ..HttpConfig::default()
    };
    let server = Server::start_with(config, |_| {}).await;
    let mut silent = server.connect().await;
    let mut plain = server.connect().await;
    plain.send(GET).await;
    plain.receive_rest().await;
    let (_, stranger) = identity();
    let refused = connect(&server, &stranger, b"http/1.1").await;
    assert!(refused.is_err(), "the certificate is not trusted");
    assert!(silent.is_closed().await);
    // Half a handshake, and of TLS nothing more.
    let mut half = server.connect().await;
    half.send(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03")
        .await;
    assert!(half.is_closed().await);
    let mut stream = connect(&server, &root, b"http/1.1").await.expect("TLS");
    let request = GET.replace("/health/live", "/metrics").replace(
        "connection: close\r\n",
        "connection: close\r\naccept: text/plain\r\n",
    );
    stream
        .write_all(request.as_bytes())
        .await
        .expect("it reads");
    let mut meters = String::new();
    stream
        .read_to_string(&mut meters)
        .await
        .expect("it answers");
    let line = "task_processor_http_connections_cut_total{reason=\"handshake\"} 4\n";
    assert!(meters.contains(line), "{meters}");
}

#[tokio::test]
async fn a_new_certificate_serves_new_connections_and_the_old_ones_go_on() {
    let ((first, first_root), (second, second_root)) = (identity(), identity());
    let sender = watch::Sender::new(first);
    let config = HttpConfig {
        tls: Some(Tls::following(sender.subscribe())),
        ..HttpConfig::default()
    };
    let server = Server::start_with(config, |_| {}).await;
    let mut old = connect(&server, &first_root, b"http/1.1")
        .await
        .expect("TLS");
    sender.send_replace(second);
    assert!(connect(&server, &first_root, b"http/1.1").await.is_err());
    let mut new = connect(&server, &second_root, b"http/1.1")
        .await
        .expect("TLS");
    for stream in [&mut old, &mut new] {
        assert!(answer(stream).await.starts_with("HTTP/1.1 200 OK\r\n"));
    }
}
