//! A connection that ends when its client takes too long, wherever in a request it stands.

use std::future::Future as _;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use poem::http::StatusCode;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep, sleep_until};

use crate::problem::{Kind, Problem};
use crate::pulse::Pulse;

/// For how long a client that sends no more is still answered. Most have hung up; a few close their half first and read then.
const AFTER_THE_END: Duration = Duration::from_secs(1);

/// How much time a client has.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Patience {
    /// For the header of a request, from its first byte; for the first one from when the connection was accepted.
    pub(crate) header: Duration,
    /// Between two requests, and for taking what was written. While the client waits for an answer no time runs, nor while its body
    /// arrives, for which there is one of its own.
    pub(crate) idle: Duration,
}

/// Why a connection was cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cut {
    /// TLS was not agreed on, or not in time.
    Handshake,
    /// The header of a request took too long.
    Header,
    /// Nothing was asked for too long.
    Idle,
    /// What was written was not taken in time.
    Slow,
    /// It was the one that had been unused longest when another needed its place.
    Crowded,
}

impl Cut {
    pub(crate) const ALL: [Self; 5] = [
        Self::Handshake,
        Self::Header,
        Self::Idle,
        Self::Slow,
        Self::Crowded,
    ];

    pub(crate) const fn reason(self) -> &'static str {
        match self {
            Self::Handshake => "handshake",
            Self::Header => "header",
            Self::Idle => "idle",
            Self::Slow => "slow",
            Self::Crowded => "crowded",
        }
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
    last_move: Instant,
    /// Since when something that was written waits for the client to take it.
    stuck_since: Option<Instant>,
    /// When it is looked next whether a client of HTTP/2 leaves an answer unwritten.
    period_ends: Instant,
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
            last_move: accepted,
            stuck_since: None,
            period_ends: accepted + patience.idle,
            alarm: Box::pin(sleep_until(first)),
            last_call: None,
            owed: Vec::new(),
        }
    }

    /// Notices that requests have begun since it last looked.
    fn look(&mut self) {
        let begun = self.pulse.begun();
        if begun != self.begun {
            self.begun = begun;
            self.header_since = None;
        }
    }

    /// When the client's time is up, as it stands now. None runs while it is not the client who is waited for.
    fn due(&self) -> Option<(Instant, Cut)> {
        if let Some(since) = self.stuck_since {
            return Some((since + self.patience.idle, Cut::Slow));
        }
        if self.pulse.is_busy() {
            return None;
        }
        // Frames that keep an unused HTTP/2 connection alive are no use of it.
        let unused = if self.pulse.is_multiplexed() {
            self.pulse.used_at()
        } else {
            self.last_move
        };
        let idle = (unused + self.patience.idle, Cut::Idle);
        let header = self
            .header_since
            .map(|since| (since + self.patience.header, Cut::Header));
        Some(header.filter(|header| header.0 <= idle.0).unwrap_or(idle))
    }

    /// Whether a client of HTTP/2 has left an answer unwritten for a whole period; looks once in each.
    fn leaves_an_answer(&mut self, now: Instant) -> bool {
        if now < self.period_ends {
            return false;
        }
        self.period_ends = now + self.patience.idle;
        self.pulse.begin_period()
    }

    /// The alarm is not set anew at every move. It rings at least as often as the shortest patience, so that it is never later
    /// than the time that counts by then.
    fn poll_alarm(&mut self, context: &mut Context<'_>) -> Poll<io::Error> {
        loop {
            ready!(self.alarm.as_mut().poll(context));
            self.look();
            let now = Instant::now();
            let due = self.due();
            let mut over = due.filter(|(due, _)| *due <= now).map(|(_, cut)| cut);
            if self.leaves_an_answer(now) {
                over = over.or(Some(Cut::Slow));
            }
            if let Some(cut) = over {
                self.pulse.set_cut(cut);
                return Poll::Ready(io::ErrorKind::TimedOut.into());
            }
            let shortest = now + self.patience.header.min(self.patience.idle);
            let next = due.map_or(shortest, |(due, _)| due.min(shortest));
            self.alarm.as_mut().reset(next);
        }
    }

    /// Notices whether what is written has to wait for the client.
    fn notice<T>(&mut self, polled: &Poll<io::Result<T>>) {
        if polled.is_pending() && self.stuck_since.is_none() {
            self.stuck_since = Some(Instant::now());
            self.pulse.set_stuck(true);
        }
    }

    /// Everything that was written is on its way.
    fn is_taken(&mut self) {
        if self.stuck_since.take().is_some() {
            self.pulse.set_stuck(false);
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
            && !self.pulse.is_multiplexed()
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
            self.notice(&polled);
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
        self.notice(&polled);
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
        self.notice(&polled);
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
        self.notice(&polled);
        if matches!(polled, Poll::Ready(Ok(()))) {
            self.is_taken();
        }
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
