//! A TCP proxy that tests cut, freeze and mend.

use std::sync::Arc;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// What the network is like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Weather {
    Fair,
    /// Connections are closed, and new ones at once.
    Cut,
    /// Connections stay and nothing comes through.
    Frozen,
}

/// How the bytes that come from the server are passed on.
#[derive(Clone)]
enum Passing {
    /// As they are.
    Plain,
    /// In Kafka's frames, with one byte string replaced by another of the same length: that is how the address which
    /// a broker gives its clients becomes that of the proxy.
    Frames { from: Arc<[u8]>, to: Arc<[u8]> },
}

/// A proxy on a loopback port of its own, until it is dropped.
pub(crate) struct Proxy {
    address: String,
    weather: watch::Sender<Weather>,
    _serving: JoinSet<()>,
}

impl Proxy {
    /// In front of `server` (`host:port`).
    #[allow(dead_code, reason = "each test file uses its own kind of proxy")]
    pub(crate) async fn plain(server: &str) -> Self {
        Self::start(server, |_port| Passing::Plain).await
    }

    /// In front of a Kafka broker that gives its clients the address `server`.
    #[allow(dead_code, reason = "each test file uses its own kind of proxy")]
    pub(crate) async fn of_kafka(server: &str) -> Self {
        let (host, port) = server.rsplit_once(':').expect("host:port");
        let port: i32 = port.parse().expect("a port");
        let host = host.to_owned();
        Self::start(server, move |own_port| {
            let place = |port: i32| [host.as_bytes(), &port.to_be_bytes()[..]].concat().into();
            Passing::Frames {
                from: place(port),
                to: place(i32::from(own_port)),
            }
        })
        .await
    }

    async fn start(server: &str, passing: impl FnOnce(u16) -> Passing) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let passing = passing(port);
        let (weather, watching) = watch::channel(Weather::Fair);
        let server = server.to_owned();
        let mut serving = JoinSet::new();
        serving.spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (client, _) = listener.accept().await.expect("accept");
                let server = server.clone();
                let passing = passing.clone();
                let mut cut = watching.clone();
                let watching = watching.clone();
                connections.spawn(async move {
                    tokio::select! {
                        _ = cut.wait_for(|weather| *weather == Weather::Cut) => {}
                        () = connect(client, &server, passing, watching) => {}
                    }
                });
            }
        });
        Self {
            address: format!("127.0.0.1:{port}"),
            weather,
            _serving: serving,
        }
    }

    /// Where clients connect.
    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    /// Closes every connection, and new ones at once.
    pub(crate) fn cut(&self) {
        self.weather.send_replace(Weather::Cut);
    }

    /// Lets nothing through and closes nothing.
    #[allow(dead_code, reason = "each test file uses its own kind of weather")]
    pub(crate) fn freeze(&self) {
        self.weather.send_replace(Weather::Frozen);
    }

    /// All is well again.
    pub(crate) fn mend(&self) {
        self.weather.send_replace(Weather::Fair);
    }
}

async fn connect(
    client: TcpStream,
    server: &str,
    passing: Passing,
    watching: watch::Receiver<Weather>,
) {
    let Ok(server) = TcpStream::connect(server).await else {
        return;
    };
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    // Either end that closes closes both.
    tokio::select! {
        _ = pass(from_client, to_server, Passing::Plain, watching.clone()) => {}
        _ = pass(from_server, to_client, passing, watching) => {}
    }
}

async fn pass(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    passing: Passing,
    mut watching: watch::Receiver<Weather>,
) -> std::io::Result<()> {
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let bytes = match &passing {
            Passing::Plain => {
                let count = from.read(&mut buffer).await?;
                if count == 0 {
                    return Ok(());
                }
                buffer[..count].to_vec()
            }
            Passing::Frames { from: old, to: new } => {
                let length = from.read_u32().await?;
                let mut frame = length.to_be_bytes().to_vec();
                frame.resize(4 + usize::try_from(length).expect("it fits"), 0);
                from.read_exact(&mut frame[4..]).await?;
                replace(&mut frame[4..], old, new);
                frame
            }
        };
        let thawed = watching
            .wait_for(|weather| *weather != Weather::Frozen)
            .await
            .is_ok();
        if !thawed {
            return Ok(());
        }
        to.write_all(&bytes).await?;
    }
}

fn replace(bytes: &mut [u8], old: &[u8], new: &[u8]) {
    let mut at = 0;
    while at + old.len() <= bytes.len() {
        if bytes[at..].starts_with(old) {
            bytes[at..at + old.len()].copy_from_slice(new);
            at += old.len();
        } else {
            at += 1;
        }
    }
}
