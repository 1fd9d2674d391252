//! SIGHUP has the files of keys and certificates read again, and nothing else.

use std::io::{Read, Write};
use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use bootstrap::testing::Sandbox;
use rustls::crypto::ring;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

use super::PATIENCE;
use super::process::Process;

/// Waits until something holds that a signal brings about.
fn until(what: &str, holds: impl Fn() -> bool) {
    let until = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < until, "{what} in time");
        thread::sleep(Duration::from_millis(10));
    }
}

/// Writes a new certificate for `localhost` and its key.
fn renew(certificate: &Path, key: &Path) -> CertificateDer<'static> {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("made");
    std::fs::write(certificate, made.cert.pem()).expect("a file");
    std::fs::write(key, made.signing_key.serialize_pem()).expect("a file");
    made.cert.der().clone()
}

/// The status of an answer over TLS to a client that trusts this root alone.
fn status(process: &Process, root: &CertificateDer<'static>) -> Option<u16> {
    let mut roots = RootCertStore::empty();
    roots.add(root.clone()).expect("a root");
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(roots)
        .with_no_client_auth();
    let name = ServerName::try_from("localhost").expect("a name");
    let connection = ClientConnection::new(Arc::new(config), name).expect("a client");
    let mut stream = StreamOwned::new(connection, process.connect().expect("it accepts"));
    let request = "GET /health/ready HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    stream.write_all(request.as_bytes()).ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    answer.split(' ').nth(1)?.parse().ok()
}

#[test]
fn a_certificate_is_exchanged_while_it_serves_and_a_wrong_one_is_not_taken() {
    let sandbox = Sandbox::new();
    let (certificate, key) = (
        sandbox.path().join("tls.pem"),
        sandbox.path().join("tls.key"),
    );
    let settings = [
        ("TLS_CERTIFICATE_FILE", certificate.to_str().expect("text")),
        ("TLS_KEY_FILE", key.to_str().expect("text")),
    ];
    let first = renew(&certificate, &key);
    let process = Process::start(&sandbox, &settings);
    assert_eq!(status(&process, &first), Some(200));
    let good_key = std::fs::read(&key).expect("it is there");
    std::fs::write(&key, "rubbish").expect("a file");
    process.signal("HUP");
    until("the mistake is told", || {
        process.log_so_far().contains("tls.certificate_wrong")
    });
    std::fs::write(&key, good_key).expect("a file");
    assert_eq!(status(&process, &first), Some(200));
    let second = renew(&certificate, &key);
    process.signal("HUP");
    until("the new certificate serves", || {
        status(&process, &second) == Some(200)
    });
    assert_eq!(status(&process, &first), None);
    process.signal("TERM");
    let (code, log) = process.wait();
    assert_eq!(code, Some(0), "{log}");
}

#[test]
fn keys_are_exchanged_while_it_serves_and_a_wrong_file_is_not_taken() {
    let sandbox = Sandbox::new();
    let file = sandbox.path().join("keys");
    let write = |secret: &str| {
        let entry = format!("ci:admin:{}\n", access::KeyHash::of(secret));
        std::fs::write(&file, entry).expect("a file");
    };
    write("first");
    let settings = [("API_KEYS_FILE", file.to_str().expect("text"))];
    let process = Process::start(&sandbox, &settings);
    assert_eq!(process.status_with_key("first"), 200);
    assert_eq!(process.status_with_key("second"), 401);
    std::fs::write(&file, "rubbish").expect("a file");
    process.signal("HUP");
    until("the mistake is told", || {
        process.log_so_far().contains("access.keys_wrong")
    });
    assert_eq!(process.status_with_key("first"), 200);
    write("second");
    process.signal("HUP");
    until("the new key is known", || {
        process.status_with_key("second") == 200
    });
    assert_eq!(process.status_with_key("first"), 401);
}

#[test]
fn without_files_there_is_nothing_to_read_again_and_it_serves_on() {
    let sandbox = Sandbox::new();
    let entry = format!("ci:admin:{}", access::KeyHash::of("first"));
    let process = Process::start(&sandbox, &[("API_KEYS", &entry)]);
    process.signal("HUP");
    until("the signal is told", || {
        process.log_so_far().contains("process.hangup")
    });
    assert_eq!(process.status_with_key("first"), 200);
    process.signal("TERM");
    let (code, log) = process.wait();
    assert_eq!(code, Some(0), "{log}");
}
