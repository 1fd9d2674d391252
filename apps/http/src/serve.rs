//! Serving an endpoint on a listener until it is to stop.

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};

use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use poem::http::uri::Scheme;
use poem::web::{LocalAddr, RemoteAddr};
use poem::{Endpoint, Response};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};
use tokio_rustls::server::TlsStream;

use crate::connection::{Connection, Cut, Patience, Pulse, Underway};
use crate::listener::{Accepted, LimitedListener};
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
            place: _place,
        } = accepted;
        let now = Instant::now();
        let cut = match &self.tls {
            None => self.converse(stream, now, Scheme::HTTP, peer).await,
            // In a box, so that connections without TLS need no room for it.
            Some(tls) => {
                Box::pin(async {
                    match self.agree(tls, stream).await {
                        Some(stream) => self.converse(stream, now, Scheme::HTTPS, peer).await,
                        None => Some(Cut::Handshake),
                    }
                })
                .await
            }
        };
        if let Some(cut) = cut {
            self.meters.cut(cut);
        }
    }

    /// TLS on a connection, unless its client fails to agree on it in the time that it has for its first header.
    async fn agree(&self, tls: &Tls, stream: TcpStream) -> Option<TlsStream<TcpStream>> {
        let mut closes = self.closes.clone();
        tokio::select! {
            agreed = timeout(self.patience.header, tls.acceptor().accept(stream)) => match agreed {
                Ok(Ok(stream)) => Some(stream),
                Ok(Err(error)) => {
                    tracing::debug!(event = "tls.refused", %error, "a client and this server do not agree on TLS");
                    None
                }
                Err(_) => None,
            },
            // Nothing was asked yet.
            _ = closes.wait_for(|closes| *closes) => None,
        }
    }

    /// Answers what is asked on a connection until its end; says why it was cut, if it was.
    async fn converse(
        self: &Arc<Self>,
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        accepted: Instant,
        scheme: Scheme,
        peer: SocketAddr,
    ) -> Option<Cut> {
        let pulse = Arc::new(Pulse::default());
        let connection = Connection::new(stream, accepted, self.patience, Arc::clone(&pulse));
        let service = service_fn(|request: hyper::Request<Incoming>| {
            let underway = pulse.begin(request.version());
            let host = Arc::clone(self);
            let addresses = (LocalAddr(host.local.into()), RemoteAddr(peer.into()));
            let request = (request, addresses.0, addresses.1, scheme.clone()).into();
            async move {
                let response = host.endpoint.get_response(request).await;
                let response: hyper::Response<_> = response.into();
                Ok::<_, Infallible>(response.map(|body| Answer {
                    body,
                    _underway: underway,
                }))
            }
        });
        let mut closes = self.closes.clone();
        let mut conversation = pin!(
            self.protocol
                .serve_connection(TokioIo::new(connection), service)
        );
        tokio::select! {
            ended = &mut conversation => {
                if ended.is_ok() || pulse.cut().is_some() {
                    return pulse.cut();
                }
                // A client that closed its half may still read: what is under way is answered.
            }
            // An error would mean that nobody can close any more, and the set of connections is gone with him.
            _ = closes.wait_for(|closes| *closes) => {}
        }
        conversation.as_mut().graceful_shutdown();
        // How it ends changes nothing any more.
        let _ = conversation.await;
        pulse.cut()
    }
}

/// The body of an answer; the request is under way until all of it is written.
struct Answer<B> {
    body: B,
    _underway: Underway,
}

impl<B: Body + Unpin> Body for Answer<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
