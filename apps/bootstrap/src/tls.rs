//! A certificate that may change while the program runs.

use std::io;
use std::sync::Arc;

use rustls::ServerConfig;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tracing::{error, info};

use crate::settings::TlsSettings;

/// The certificate that new connections are served with from now on; `None` where no TLS is spoken. SIGHUP has the files read
/// again; files that cannot be read, or do not belong together, change nothing and are told in the log.
///
/// # Errors
/// When the process cannot listen to signals.
pub fn follow(
    settings: Option<&TlsSettings>,
) -> io::Result<Option<watch::Receiver<Arc<ServerConfig>>>> {
    let Some(settings) = settings.cloned() else {
        return Ok(None);
    };
    let sender = watch::Sender::new(settings.identity.clone());
    let identity = sender.subscribe();
    let mut hangup = signal(SignalKind::hangup())?;
    tokio::spawn(async move {
        while hangup.recv().await.is_some() {
            match settings.read_again() {
                Ok(identity) => {
                    info!(
                        event = "tls.certificate_read",
                        "the certificate was read again"
                    );
                    sender.send_replace(identity);
                }
                Err(reason) => error!(
                    event = "tls.certificate_wrong",
                    reason,
                    "TLS_CERTIFICATE_FILE or TLS_KEY_FILE is wrong; the certificate stays as it was"
                ),
            }
        }
    });
    Ok(Some(identity))
}
