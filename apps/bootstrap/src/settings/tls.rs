//! With which certificate the listener speaks TLS.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::crypto::ring;
use rustls::pki_types::pem::{self, PemObject as _};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::ParsedCertificate;
use rustls::{RootCertStore, ServerConfig};

use super::Reader;

/// What clients may choose between, the preferred first.
const PROTOCOLS: [&[u8]; 2] = [b"h2", b"http/1.1"];

/// The files of a certificate and its key, and what they held at the start. `Debug` shows the paths alone.
#[derive(Clone)]
pub struct TlsSettings {
    /// The certificate, and those between it and its root.
    pub certificate: PathBuf,
    /// Its private key.
    pub key: PathBuf,
    /// Both, ready to serve.
    pub identity: Arc<ServerConfig>,
}

impl fmt::Debug for TlsSettings {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("TlsSettings")
            .field("certificate", &self.certificate)
            .field("key", &self.key)
            .finish_non_exhaustive()
    }
}

/// The same files.
impl PartialEq for TlsSettings {
    fn eq(&self, other: &Self) -> bool {
        (&self.certificate, &self.key) == (&other.certificate, &other.key)
    }
}

impl Eq for TlsSettings {}

impl TlsSettings {
    /// Declares and reads them; `None` where the listener speaks no TLS.
    pub(super) fn read(reader: &mut Reader) -> Option<Self> {
        const CERTIFICATE: &str = "TLS_CERTIFICATE_FILE";
        const KEY: &str = "TLS_KEY_FILE";
        let certificate = reader.optional_secret(
            CERTIFICATE,
            "",
            "path",
            "the certificate to speak TLS with, PEM, followed by those between it and its root; read again on SIGHUP. None: no TLS",
            |path| read_chain(Path::new(path)).map(|chain| (PathBuf::from(path), chain)),
        );
        let key = reader.optional_secret(
            KEY,
            "",
            "path",
            "the private key of that certificate, PEM; read again on SIGHUP",
            |path| read_key(Path::new(path)).map(|key| (PathBuf::from(path), key)),
        );
        for (name, other) in [(CERTIFICATE, KEY), (KEY, CERTIFICATE)] {
            if reader.is_set(other) && !reader.is_set(name) {
                reader.mistake(name, format!("must be set when {other} is"));
            }
        }
        let ((certificate, chain), (key, private)) = (certificate?, key?);
        match identity(chain, private) {
            Ok(identity) => Some(Self {
                certificate,
                key,
                identity,
            }),
            Err(reason) => {
                reader.mistake(KEY, reason);
                None
            }
        }
    }

    /// Reads both files again.
    ///
    /// # Errors
    /// What is wrong with which of them.
    pub(crate) fn read_again(&self) -> Result<Arc<ServerConfig>, String> {
        let chain =
            read_chain(&self.certificate).map_err(|reason| format!("the certificate {reason}"))?;
        let key = read_key(&self.key).map_err(|reason| format!("the key {reason}"))?;
        identity(chain, key).map_err(|reason| format!("the key {reason}"))
    }
}

fn read_chain(file: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let chain = CertificateDer::pem_file_iter(file)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(told)?;
    let first = chain
        .first()
        .ok_or_else(|| "holds no certificate in PEM".to_owned())?;
    ParsedCertificate::try_from(first)
        .map_err(|error| format!("holds no certificate that can be used: {error}"))?;
    Ok(chain)
}

/// Checks that a file holds certificates to trust.
pub(super) fn check_authorities(file: &Path) -> Result<(), String> {
    let mut roots = RootCertStore::empty();
    for certificate in read_chain(file)? {
        roots
            .add(certificate)
            .map_err(|error| format!("holds a certificate that cannot be used: {error}"))?;
    }
    Ok(())
}

/// Checks that a file holds a certificate and those between it and its root.
pub(super) fn check_chain(file: &Path) -> Result<(), String> {
    read_chain(file).map(drop)
}

/// Checks that a file holds a private key.
pub(super) fn check_key(file: &Path) -> Result<(), String> {
    read_key(file).map(drop)
}

/// Declares a file that holds certificates to trust, and reads it.
pub(super) fn read_authorities(
    reader: &mut Reader,
    name: &'static str,
    meaning: &'static str,
) -> Option<PathBuf> {
    read_file(reader, name, meaning, check_authorities)
}

/// Declares a file, and reads it.
pub(super) fn read_file(
    reader: &mut Reader,
    name: &'static str,
    meaning: &'static str,
    check: impl Fn(&Path) -> Result<(), String>,
) -> Option<PathBuf> {
    reader.optional_secret(name, "", "path", meaning, |path| {
        let path = PathBuf::from(path);
        check(&path).map(|()| path)
    })
}

fn read_key(file: &Path) -> Result<PrivateKeyDer<'static>, String> {
    PrivateKeyDer::from_pem_file(file).map_err(|error| match error {
        pem::Error::NoItemsFound => "holds no private key in PEM".to_owned(),
        other => told(other),
    })
}

fn told(error: pem::Error) -> String {
    match error {
        pem::Error::Io(error) => format!("cannot be read: {error}"),
        // The text of the others may show a line of the file.
        _ => "is not in PEM".to_owned(),
    }
}

/// Checks that the key belongs to the certificate.
fn identity(
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
) -> Result<Arc<ServerConfig>, String> {
    let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .map_err(|error| format!("does not fit the certificate: {error}"))?;
    config.alpn_protocols = PROTOCOLS.map(<[u8]>::to_vec).to_vec();
    Ok(Arc::new(config))
}
