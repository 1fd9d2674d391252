//! Accepting connections within limits.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{sleep, timeout};

use crate::line::{Line, Member};

/// After a failed accept (out of file descriptors, for example) an immediate retry would only spin.
const PAUSE_AFTER_FAILURE: Duration = Duration::from_millis(50);

/// Places beyond the limit, for those who come when all others are taken.
const KEPT: usize = 64;

/// How long somebody may take to leave who was asked to, and nothing is asked of.
pub(crate) const LEAVING: Duration = Duration::from_millis(250);

/// Accepts TCP connections, so many at a time. When all places are taken, the connection that has been unused longest makes room for the
/// next; when all are in use, the next is answered once, on a place that is kept for that.
pub(crate) struct LimitedListener {
    listener: TcpListener,
    local: SocketAddr,
    places: Places,
}

/// A connection that was accepted.
pub(crate) struct Accepted {
    pub(crate) stream: TcpStream,
    pub(crate) peer: SocketAddr,
    pub(crate) place: Place,
}

/// The places for connections.
#[derive(Clone)]
pub(crate) struct Places {
    limit: Arc<Semaphore>,
    kept: Arc<Semaphore>,
    line: Arc<Line>,
    /// Of those on the kept places.
    kept_line: Arc<Line>,
}

/// A place, to be kept as long as the connection is.
pub(crate) struct Place {
    /// Whether it is one of those beyond the limit, where there is no more than one answer to be had.
    pub(crate) is_kept: bool,
    _permit: OwnedSemaphorePermit,
}

impl Place {
    const fn own(permit: OwnedSemaphorePermit) -> Self {
        Self {
            is_kept: false,
            _permit: permit,
        }
    }
}

impl Places {
    fn new(connections: usize) -> Self {
        Self {
            limit: Arc::new(Semaphore::new(connections.min(Semaphore::MAX_PERMITS))),
            kept: Arc::new(Semaphore::new(KEPT)),
            line: Arc::new(Line::new()),
            kept_line: Arc::new(Line::new()),
        }
    }

    /// A place for whoever comes next.
    async fn next(&self) -> io::Result<Place> {
        if let Some(place) = self.own() {
            return Ok(place);
        }
        if self.kept.available_permits() == 0 {
            // Who asks for nothing there goes too.
            self.kept_line.send_one_away();
        }
        let permit = Arc::clone(&self.kept).acquire_owned().await;
        Ok(Place {
            is_kept: true,
            // The places are never taken away.
            _permit: permit.map_err(io::Error::other)?,
        })
    }

    fn own(&self) -> Option<Place> {
        let permit = Arc::clone(&self.limit).try_acquire_owned();
        permit.map(Place::own).ok()
    }

    /// Has whoever has this place stand in line with those who have the like.
    pub(crate) fn join(&self, place: &Place) -> Member {
        if place.is_kept {
            self.kept_line.join()
        } else {
            self.line.join()
        }
    }

    /// A place within the limit for who came on a kept one, if somebody leaves for him.
    pub(crate) async fn settle(&self, place: Place) -> Place {
        if !place.is_kept {
            return place;
        }
        if let Some(own) = self.own() {
            return own;
        }
        if !self.line.send_one_away() {
            return place;
        }
        match timeout(LEAVING, Arc::clone(&self.limit).acquire_owned()).await {
            Ok(Ok(permit)) => Place::own(permit),
            _ => place,
        }
    }
}

impl LimitedListener {
    pub(crate) fn new(listener: TcpListener, connections: usize) -> io::Result<Self> {
        let local = listener.local_addr()?;
        Ok(Self {
            listener,
            local,
            places: Places::new(connections),
        })
    }

    pub(crate) const fn local(&self) -> SocketAddr {
        self.local
    }

    pub(crate) fn places(&self) -> Places {
        self.places.clone()
    }

    /// The next connection.
    ///
    /// # Errors
    /// None that a caller could cause: the places are never taken away.
    pub(crate) async fn accept(&self) -> io::Result<Accepted> {
        let place = self.places.next().await?;
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
