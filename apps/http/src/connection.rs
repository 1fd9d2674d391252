//! A connection that ends when its client takes too long, wherever in a request it stands.

use std::future::Future as _;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use poem::http::{StatusCode, Version};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep, sleep_until};

use crate::problem::{Kind, Problem};

/// For how long a client that sends no more is still answered. Most have hung up; a few close their half first and read then.
const AFTER_THE_END: Duration = Duration::from_secs(1);

/// How much time a client has.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Patience {
    /// For the header of a request, from its first byte; for the first one from when the connection was accepted.
    pub(crate) header: Duration,
    /// Between two requests, and between two moves in the middle of one.
    pub(crate) idle: Duration,
}

/// Why a connection was cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cut {
    /// TLS was not agreed on, or not in time.
    Handshake,
    /// The header of a request took too long.
    Header,
    /// Nothing was asked, or nothing moved, for too long.
    Idle,
}

impl Cut {
    pub(crate) const ALL: [Self; 3] = [Self::Handshake, Self::Header, Self::Idle];

    pub(crate) const fn reason(self) -> &'static str {
        match self {
            Self::Handshake => "handshake",
            Self::Header => "header",
            Self::Idle => "idle",
        }
    }
}

/// What the two sides of a connection, bytes and requests, know of each other.
#[derive(Debug, Default)]
pub(crate) struct Pulse {
    begun: AtomicU64,
    ended: AtomicU64,
    multiplexed: AtomicBool,
    cut: OnceLock<Cut>,
}

impl Pulse {
    /// A request whose header has arrived; it is under way until the answer is written or given up.
    pub(crate) fn begin(self: &Arc<Self>, version: Version) -> Underway {
        self.begun.fetch_add(1, Ordering::Relaxed);
        if version == Version::HTTP_2 {
            self.multiplexed.store(true, Ordering::Relaxed);
        }
        Underway(Arc::clone(self))
    }

    /// Why the connection was cut, if it was.
    pub(crate) fn cut(&self) -> Option<Cut> {
        self.cut.get().copied()
    }

    fn is_busy(&self) -> bool {
        self.begun.load(Ordering::Relaxed) != self.ended.load(Ordering::Relaxed)
    }
}

/// A request that is under way.
pub(crate) struct Underway(Arc<Pulse>);

impl Drop for Underway {
    fn drop(&mut self) {
        self.0.ended.fetch_add(1, Ordering::Relaxed);
    }
}

/// A connection that fails once its client has used up its patience.
pub(crate) struct Connection<S> {
    stream: S,
    pulse: Arc<Pulse>,
    patience: Patience,
    /// How many requests had begun when last looked.
    begun: u64,
    /// Since when the client has been sending the header of a request. In HTTP/2, where bytes belong to no single request, only
    /// that of the first.
    header_since: Option<Instant>,
    /// When a request last began; frames that keep an unused HTTP/2 connection alive are no use of it.
    used: Instant,
    last_move: Instant,
    alarm: Pin<Box<Sleep>>,
    /// Runs from the end of what the client sends: whatever then still waits to be answered is given up, so that it holds
    /// nothing.
    last_call: Option<Pin<Box<Sleep>>>,
    /// What is written in place of an answer without words.
    owed: Vec<u8>,
}

impl<S> Connection<S> {
    pub(crate) fn new(stream: S, accepted: Instant, patience: Patience, pulse: Arc<Pulse>) -> Self {
        let first = accepted + patience.header.min(patience.idle);
        Self {
            stream,
            pulse,
            patience,
            begun: 0,
            header_since: Some(accepted),
            used: accepted,
            last_move: accepted,
            alarm: Box::pin(sleep_until(first)),
            last_call: None,
            owed: Vec::new(),
        }
    }

    /// Notices that requests have begun since it last looked.
    fn look(&mut self) {
        let begun = self.pulse.begun.load(Ordering::Relaxed);
        if begun != self.begun {
            self.begun = begun;
            self.header_since = None;
            self.used = Instant::now();
        }
    }

    /// When the client's time is up, as it stands now.
    fn due(&self) -> (Instant, Cut) {
        if self.pulse.is_busy() {
            return (self.last_move + self.patience.idle, Cut::Idle);
        }
        let unused = if self.pulse.multiplexed.load(Ordering::Relaxed) {
            self.used
        } else {
            self.last_move
        };
        let idle = (unused + self.patience.idle, Cut::Idle);
        match self.header_since {
            Some(since) => {
                let header = (since + self.patience.header, Cut::Header);
                if header.0 <= idle.0 { header } else { idle }
            }
            None => idle,
        }
    }

    /// The alarm is not set anew at every move. It rings at least as often as the shortest patience, so that it is never later
    /// than the time that counts by then.
    fn poll_alarm(&mut self, context: &mut Context<'_>) -> Poll<io::Error> {
        loop {
            ready!(self.alarm.as_mut().poll(context));
            self.look();
            let now = Instant::now();
            let (due, cut) = self.due();
            if due <= now {
                // Only the first reason counts.
                let _ = self.pulse.cut.set(cut);
                return Poll::Ready(io::ErrorKind::TimedOut.into());
            }
            let shortest = now + self.patience.header.min(self.patience.idle);
            self.alarm.as_mut().reset(due.min(shortest));
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

    /// What is no move and may have to wait, as it does where TLS has bytes of its own to send.
    fn or_alarm(
        &mut self,
        polled: Poll<io::Result<()>>,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        if polled.is_ready() {
            return polled;
        }
        self.poll_alarm(context).map(Err)
    }

    /// Whether these bytes are an answer without words that HTTP itself gave; then it will be written with them.
    fn owes(&mut self, bytes: &[u8]) -> bool {
        if self.pulse.is_busy() || !self.owed.is_empty() {
            return false;
        }
        match with_words(bytes) {
            Some(owed) => {
                self.owed = owed;
                true
            }
            None => false,
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Connection<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.look();
        let before = buffer.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(context, buffer);
        let came = buffer.filled().len() > before;
        let is_end = matches!(polled, Poll::Ready(Ok(()))) && !came && buffer.remaining() > 0;
        if is_end && self.last_call.is_none() {
            self.last_call = Some(Box::pin(sleep(AFTER_THE_END)));
        }
        let polled = self.watched(polled, context);
        if came
            && self.header_since.is_none()
            && !self.pulse.is_busy()
            && !self.pulse.multiplexed.load(Ordering::Relaxed)
        {
            self.header_since = Some(self.last_move);
        }
        polled
    }
}

impl<S: AsyncWrite + Unpin> Connection<S> {
    fn poll_owed(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.owed.is_empty() {
            let polled = Pin::new(&mut self.stream).poll_write(context, &self.owed);
            let written = ready!(self.watched(polled, context))?;
            self.owed.drain(..written);
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Connection<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.owes(bytes) {
            return Poll::Ready(Ok(bytes.len()));
        }
        ready!(self.poll_owed(context))?;
        let polled = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.watched(polled, context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if let [bytes] = slices
            && self.owes(bytes)
        {
            return Poll::Ready(Ok(bytes.len()));
        }
        ready!(self.poll_owed(context))?;
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
        ready!(self.poll_owed(context))?;
        let polled = Pin::new(&mut self.stream).poll_flush(context);
        self.or_alarm(polled, context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_owed(context))?;
        let polled = Pin::new(&mut self.stream).poll_shutdown(context);
        self.or_alarm(polled, context)
    }
}

/// hyper refuses what it cannot read, and too large a header, before any route is asked, by an answer without a body. The
/// same answer as a problem; `None` for every other one.
fn with_words(bytes: &[u8]) -> Option<Vec<u8>> {
    const LINE: &[u8] = b"HTTP/1.1 4";
    // Ours have bodies; and hyper's answer is short.
    if !bytes.starts_with(LINE) || bytes.len() > 512 {
        return None;
    }
    let head = std::str::from_utf8(bytes).ok()?.strip_suffix("\r\n\r\n")?;
    head.lines()
        .any(|line| line.eq_ignore_ascii_case("content-length: 0"))
        .then_some(())?;
    let status = StatusCode::from_bytes(head.as_bytes().get(9..12)?).ok()?;
    let problem = match status {
        StatusCode::BAD_REQUEST => {
            Problem::new(Kind::MalformedRequest, "this is not a request of HTTP")
        }
        StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE => Problem::new(
            Kind::HeaderTooLarge,
            "the request line and the header fields together are too long, or too many",
        ),
        StatusCode::URI_TOO_LONG => Problem::new(Kind::Other(status), "the URI is too long"),
        _ => return None,
    };
    let body = problem.text("");
    let kept: String = head
        .lines()
        .filter(|line| !line.to_ascii_lowercase().starts_with("content-length:"))
        .flat_map(|line| [line, "\r\n"])
        .collect();
    let mut whole = format!(
        "{kept}{}\r\ncontent-type: {}\r\ncontent-length: {}\r\n\r\n",
        crate::protection::LINES,
        crate::problem::CONTENT_TYPE,
        body.len()
    )
    .into_bytes();
    whole.extend_from_slice(&body);
    Some(whole)
}
