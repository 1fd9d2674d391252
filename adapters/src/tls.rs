//! What the drivers' TLS failed of.

use std::error::Error;
use std::io;
use std::sync::Arc;

/// What one of the drivers wraps its errors in, hiding them from `downcast_ref`.
type Shared = Arc<dyn Error + Send + Sync>;

/// What TLS itself said, if that is what an error is about. It does not pass by itself: somebody has to change a certificate,
/// or which of the two ends speaks TLS.
pub(crate) fn failure<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a rustls::Error> {
    let mut cause = Some(error);
    while let Some(shown) = cause {
        let error = shown
            .downcast_ref::<Shared>()
            .map_or(shown, |shared| shared.as_ref() as &(dyn Error + 'static));
        // An I/O error does not count what it wraps among its causes.
        let wrapped = error
            .downcast_ref::<io::Error>()
            .and_then(io::Error::get_ref)
            .and_then(|wrapped| wrapped.downcast_ref());
        if let Some(said) = wrapped.or_else(|| error.downcast_ref()) {
            return Some(said);
        }
        cause = error.source();
    }
    None
}

/// Chooses the process's cryptography, unless somebody has: the drivers ask for it, and panic in a build with two to choose from
/// where none was chosen.
pub(crate) fn settle_provider() {
    // Another thread's choice is as good.
    drop(rustls::crypto::ring::default_provider().install_default());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_tls_said_is_found_inside_an_io_error() {
        let said = rustls::Error::NoCertificatesPresented;
        let wrapped = io::Error::new(io::ErrorKind::InvalidData, said.clone());
        assert_eq!(failure(&wrapped), Some(&said));
        let shared: Shared = Arc::new(wrapped);
        assert_eq!(failure(&shared), Some(&said));
        assert_eq!(failure(&said), Some(&said));
        assert_eq!(failure(&io::Error::other("gone")), None);
    }
}
