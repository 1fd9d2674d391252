//! Serving an endpoint on a listener until it is to stop.

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use hyper::body::{Body, Bytes, Frame, Incoming, SizeHint};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use poem::http::uri::Scheme;
use poem::http::{HeaderValue, Version, header};
use poem::web::{LocalAddr, RemoteAddr};
use poem::{Endpoint, Request, Response};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};
use tokio_rustls::server::TlsStream;

use crate::connection::{Connection, Cut, Patience};
use crate::listener::{Accepted, LEAVING, LimitedListener, Places};
use crate::pulse::{Pulse, Underway};
use crate::routes::EVENT_STREAM;
use crate::{HttpConfig, Meters, Tls};

/// HTTP/2 streams that one connection may have open.
const STREAMS_PER_CONNECTION: u32 = 200;

/// HTTP/2 streams that a client may take back before they were looked at; one that goes on so is cut.
const TAKEN_BACK: usize = 20;

/// Header fields of a request.
const FIELDS: usize = 100;

/// Serves `endpoint` until `stop` completes; then no connection is accepted, and requests under way are finished within the
/// stop timeout. Dropping the future cuts every connection.
///
/// # Errors
/// When the address of the listener cannot be read. Failures of single connections end these only.
pub(crate) async fn serve(
    endpoint: impl Endpoint<Output = Response> + 'static,
    meters: Arc<Meters>,
    config: &HttpConfig,
    listener: TcpListener,
    stop: impl Future<Output = ()>,
) -> io::Result<()> {
    let listener = LimitedListener::new(listener, config.max_connections)?;
    let (closing, closes) = watch::channel(false);
    let host = Arc::new(Host {
        endpoint,
        meters,
        tls: config.tls.clone(),
        local: listener.local(),
        places: listener.places(),
        patience: Patience {
            header: config.header_timeout,
            idle: config.idle_timeout,
        },
        protocol: protocol(config.max_header_bytes),
        closes,
    });
    let mut connections = JoinSet::new();
    let mut stop = pin!(stop);
    loop {
        tokio::select! {
            () = &mut stop => break,
            accepted = listener.accept() => {
                connections.spawn(Arc::clone(&host).receive(accepted?));
            }
            // Only so that those that have ended are not kept. A panic was told by its hook, and ended one connection.
            Some(_) = connections.join_next() => {}
        }
    }
    drop(listener);
    closing.send_replace(true);
    let finished = async { while connections.join_next().await.is_some() {} };
    // Whatever is not finished by then is cut when it is dropped.
    let _ = timeout(config.stop_timeout, finished).await;
    Ok(())
}

fn protocol(max_header_bytes: usize) -> Builder<TokioExecutor> {
    let mut builder = Builder::new(TokioExecutor::new());
    builder
        .http1()
        .max_headers(FIELDS)
        // What a header may fill before it is whole.
        .max_buf_size(max_header_bytes)
        // The connection itself looks after time.
        .header_read_timeout(None);
    builder
        .http2()
        .max_concurrent_streams(STREAMS_PER_CONNECTION)
        .max_pending_accept_reset_streams(TAKEN_BACK)
        .max_header_list_size(u32::try_from(max_header_bytes).unwrap_or(u32::MAX));
    builder
}

/// What every connection is served with.
struct Host<E> {
    endpoint: E,
    meters: Arc<Meters>,
    tls: Option<Tls>,
    local: SocketAddr,
    places: Places,
    patience: Patience,
    protocol: Builder<TokioExecutor>,
    closes: watch::Receiver<bool>,
}

impl<E: Endpoint<Output = Response> + 'static> Host<E> {
    async fn receive(self: Arc<Self>, accepted: Accepted) {
        let _open = self.meters.connected();
        let Accepted {
            stream,
            peer,
            place,
        } = accepted;
        let place = self.places.settle(place).await;
        let member = self.places.join(&place);
        let guest = Guest {
            pulse: Arc::clone(&member.0),
            accepted: Instant::now(),
            peer,
            is_last: place.is_kept,
        };
        let cut = match &self.tls {
            None => self.converse(stream, guest, Scheme::HTTP).await,
            // In a box, so that connections without TLS need no room for it.
            Some(tls) => {
                Box::pin(async {
                    match self.agree(tls, stream, &guest).await {
                        Ok(stream) => self.converse(stream, guest, Scheme::HTTPS).await,
                        Err(cut) => Some(cut),
                    }
                })
                .await
            }
        };
        if let Some(cut) = cut {
            self.meters.cut(cut);
        }
    }

    /// TLS on a connection, unless its client fails to agree on it in the time that it has for its first header, or has to go.
    async fn agree(
        &self,
        tls: &Tls,
        stream: TcpStream,
        guest: &Guest,
    ) -> Result<TlsStream<TcpStream>, Cut> {
        let mut closes = self.closes.clone();
        tokio::select! {
            agreed = timeout(self.patience.header, tls.acceptor().accept(stream)) => match agreed {
                Ok(Ok(stream)) => Ok(stream),
                Ok(Err(error)) => {
                    tracing::debug!(event = "tls.refused", %error, "a client and this server do not agree on TLS");
                    Err(Cut::Handshake)
                }
                Err(_) => Err(Cut::Handshake),
            },
            () = guest.pulse.sent_away() => Err(Cut::Crowded),
            // Nothing was asked yet.
            _ = closes.wait_for(|closes| *closes) => Err(Cut::Handshake),
        }
    }

    /// Answers what is asked on a connection until its end; says why it was cut, if it was.
    async fn converse(
        self: &Arc<Self>,
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        guest: Guest,
        scheme: Scheme,
    ) -> Option<Cut> {
        let Guest {
            pulse,
            accepted,
            peer,
            is_last,
        } = guest;
        let connection = Connection::new(stream, accepted, self.patience, Arc::clone(&pulse));
        let service = service_fn(|request: hyper::Request<Incoming>| {
            let version = request.version();
            let mut underway = pulse.begin(version);
            let host = Arc::clone(self);
            let addresses = (LocalAddr(host.local.into()), RemoteAddr(peer.into()));
            let mut request: Request = (request, addresses.0, addresses.1, scheme.clone()).into();
            if is_last {
                request.set_data(LastPlace);
                pulse.send_away();
            }
            async move {
                let mut response = host.endpoint.get_response(request).await;
                // In HTTP/2 the connection says it by a frame of its own.
                if is_last && version <= Version::HTTP_11 {
                    let headers = response.headers_mut();
                    headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
                }
                if !is_stream(&response) {
                    underway.answers();
                }
                let response: hyper::Response<_> = response.into();
                Ok::<_, Infallible>(response.map(|body| Answer {
                    body,
                    rest: None,
                    underway,
                }))
            }
        });
        let mut closes = self.closes.clone();
        let mut conversation = pin!(
            self.protocol
                .serve_connection(TokioIo::new(connection), service)
        );
        let is_sent_away = tokio::select! {
            ended = &mut conversation => {
                if ended.is_ok() || pulse.cut().is_some() {
                    return pulse.cut();
                }
                // A client that closed its half may still read: what is under way is answered.
                false
            }
            () = pulse.sent_away() => true,
            // An error would mean that nobody can close any more, and the set of connections is gone with him.
            _ = closes.wait_for(|closes| *closes) => false,
        };
        // A request may have begun since it was asked; then that is answered.
        if is_sent_away && pulse.is_unused() {
            if pulse.is_multiplexed() {
                // What was answered may not be written yet.
                conversation.as_mut().graceful_shutdown();
                let _ = timeout(LEAVING, conversation).await;
            }
            return (!is_last).then_some(Cut::Crowded);
        }
        conversation.as_mut().graceful_shutdown();
        // How it ends changes nothing any more.
        let _ = conversation.await;
        pulse.cut()
    }
}

/// Whose connection it is.
struct Guest {
    pulse: Arc<Pulse>,
    accepted: Instant,
    peer: SocketAddr,
    /// It has one of the kept places: one request is answered.
    is_last: bool,
}

/// On a request: all places are in use, and this connection has one of those that are kept.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LastPlace;

/// Whether an answer goes on for as long as anybody takes it.
fn is_stream(response: &Response) -> bool {
    response.content_type() == Some(EVENT_STREAM)
}

/// How much of an answer is given to a connection of HTTP/2 at a time: it keeps for its client whatever it was given.
const PORTION: usize = 16 * 1024;

/// The body of an answer; the request is under way until all of it is written.
struct Answer<B> {
    body: B,
    /// What is left of a frame that is given portion by portion.
    rest: Option<Bytes>,
    underway: Underway,
}

impl<B: Body<Data = Bytes> + Unpin> Body for Answer<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let mut data = match self.rest.take() {
            Some(rest) => rest,
            None => match ready!(Pin::new(&mut self.body).poll_frame(context)) {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => data,
                    Err(frame) => return Poll::Ready(Some(Ok(frame))),
                },
                end => return Poll::Ready(end),
            },
        };
        if self.underway.is_portioned() && data.len() > PORTION {
            let portion = data.split_to(PORTION);
            self.rest = Some(data);
            data = portion;
        }
        Poll::Ready(Some(Ok(Frame::data(data))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_none() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let Some(rest) = self.rest.as_ref().map(|rest| rest.len() as u64) else {
            return self.body.size_hint();
        };
        let body = self.body.size_hint();
        let mut hint = SizeHint::new();
        hint.set_lower(body.lower() + rest);
        if let Some(upper) = body.upper() {
            hint.set_upper(upper + rest);
        }
        hint
    }
}
