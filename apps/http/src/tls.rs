//! TLS on the listener.

use std::fmt;
use std::sync::Arc;

use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;

/// With which certificate TLS is spoken. Clones are one and the same.
#[derive(Clone)]
pub struct Tls {
    identity: watch::Receiver<Arc<ServerConfig>>,
}

impl Tls {
    /// With this one.
    #[must_use]
    pub fn with(identity: Arc<ServerConfig>) -> Self {
        Self::following(watch::Sender::new(identity).subscribe())
    }

    /// With the one that is there when a connection is accepted; it may change at any time.
    #[must_use]
    pub const fn following(identity: watch::Receiver<Arc<ServerConfig>>) -> Self {
        Self { identity }
    }

    pub(crate) fn acceptor(&self) -> TlsAcceptor {
        TlsAcceptor::from(Arc::clone(&self.identity.borrow()))
    }
}

/// Nothing of the certificate.
impl fmt::Debug for Tls {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Tls").finish_non_exhaustive()
    }
}
