//! Accepting connections within limits.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::sleep;

/// After a failed accept (out of file descriptors, for example) an immediate retry would only spin.
const PAUSE_AFTER_FAILURE: Duration = Duration::from_millis(50);

/// Accepts TCP connections, so many at a time.
pub(crate) struct LimitedListener {
    listener: TcpListener,
    local: SocketAddr,
    places: Arc<Semaphore>,
}

/// A connection that was accepted.
pub(crate) struct Accepted {
    pub(crate) stream: TcpStream,
    pub(crate) peer: SocketAddr,
    /// To be kept as long as the connection is.
    pub(crate) place: OwnedSemaphorePermit,
}

impl LimitedListener {
    pub(crate) fn new(listener: TcpListener, connections: usize) -> io::Result<Self> {
        let local = listener.local_addr()?;
        Ok(Self {
            listener,
            local,
            places: Arc::new(Semaphore::new(connections.min(Semaphore::MAX_PERMITS))),
        })
    }

    pub(crate) const fn local(&self) -> SocketAddr {
        self.local
    }

    /// The next connection, once there is a place for it.
    ///
    /// # Errors
    /// None that a caller could cause: the places are never taken away.
    pub(crate) async fn accept(&self) -> io::Result<Accepted> {
        let place = Arc::clone(&self.places)
            .acquire_owned()
            .await
            .map_err(io::Error::other)?;
        loop {
            match self.listener.accept().await {
                Ok((stream, peer)) => {
                    // Without it small answers wait for the client's delayed acknowledgement. A socket that refuses is
                    // already gone, and the first read will say so.
                    let _ = stream.set_nodelay(true);
                    return Ok(Accepted {
                        stream,
                        peer,
                        place,
                    });
                }
                Err(error) => {
                    tracing::warn!(event = "http.accept_failed", %error, "a connection was not accepted");
                    sleep(PAUSE_AFTER_FAILURE).await;
                }
            }
        }
    }
}
