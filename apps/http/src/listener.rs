//! Accepting connections within limits.

use std::future::Future as _;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use poem::http::uri::Scheme;
use poem::listener::Acceptor;
use poem::web::{LocalAddr, RemoteAddr};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, Sleep, sleep, sleep_until};

/// After a failed accept (out of file descriptors, for example) an immediate retry would only spin.
const PAUSE_AFTER_FAILURE: Duration = Duration::from_millis(50);

/// For how long a client that sends no more is still answered. Most have hung up; a few close their half first and read then.
const AFTER_THE_END: Duration = Duration::from_secs(1);

/// Accepts TCP connections: so many at a time, each closed when it is silent for too long.
pub(crate) struct LimitedListener {
    listener: TcpListener,
    local: LocalAddr,
    idle: Duration,
    places: Arc<Semaphore>,
}

impl LimitedListener {
    pub(crate) fn new(
        listener: TcpListener,
        connections: usize,
        idle: Duration,
    ) -> io::Result<Self> {
        let local = LocalAddr(listener.local_addr()?.into());
        Ok(Self {
            listener,
            local,
            idle,
            places: Arc::new(Semaphore::new(connections.min(Semaphore::MAX_PERMITS))),
        })
    }
}

impl Acceptor for LimitedListener {
    type Io = Connection;

    fn local_addr(&self) -> Vec<LocalAddr> {
        vec![self.local.clone()]
    }

    async fn accept(&mut self) -> io::Result<(Connection, LocalAddr, RemoteAddr, Scheme)> {
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
                    let connection = Connection::new(stream, self.idle, place);
                    return Ok((
                        connection,
                        self.local.clone(),
                        RemoteAddr(peer.into()),
                        Scheme::HTTP,
                    ));
                }
                Err(error) => {
                    tracing::warn!(event = "http.accept_failed", %error, "a connection was not accepted");
                    sleep(PAUSE_AFTER_FAILURE).await;
                }
            }
        }
    }
}

/// A connection that fails once nothing has moved on it for the idle time, in the middle of a head or a body too.
pub(crate) struct Connection {
    stream: TcpStream,
    idle: Duration,
    last_move: Instant,
    alarm: Pin<Box<Sleep>>,
    /// Runs from the end of what the client sends: whatever then still waits to be answered is given up, so that it holds
    /// nothing. (poem goes on with a connection that hyper has given up.)
    last_call: Option<Pin<Box<Sleep>>>,
    _place: OwnedSemaphorePermit,
}

impl Connection {
    fn new(stream: TcpStream, idle: Duration, place: OwnedSemaphorePermit) -> Self {
        let now = Instant::now();
        Self {
            stream,
            idle,
            last_move: now,
            alarm: Box::pin(sleep_until(now + idle)),
            last_call: None,
            _place: place,
        }
    }

    /// The alarm is not set anew at every move: when it rings it is set to when it should have rung.
    fn poll_alarm(&mut self, context: &mut Context<'_>) -> Poll<io::Error> {
        loop {
            ready!(self.alarm.as_mut().poll(context));
            let due = self.last_move + self.idle;
            if due <= Instant::now() {
                return Poll::Ready(io::ErrorKind::TimedOut.into());
            }
            self.alarm.as_mut().reset(due);
        }
    }

    fn watched<T>(
        &mut self,
        polled: Poll<io::Result<T>>,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<T>> {
        if polled.is_ready() {
            self.last_move = Instant::now();
            return polled;
        }
        self.poll_alarm(context).map(Err)
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(context, buffer);
        let is_end = matches!(polled, Poll::Ready(Ok(())))
            && buffer.filled().len() == before
            && buffer.remaining() > 0;
        if is_end && self.last_call.is_none() {
            self.last_call = Some(Box::pin(sleep(AFTER_THE_END)));
        }
        self.watched(polled, context)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.watched(polled, context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write_vectored(context, slices);
        self.watched(polled, context)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        // Everything that was answered is written by now.
        if let Some(last_call) = &mut self.last_call
            && last_call.as_mut().poll(context).is_ready()
        {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
