//! A TCP proxy that tests cut, freeze and mend.

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
    /// Connections stay, and of one over which anything was sent meanwhile nothing more ever arrives.
    Hole,
}

/// What becomes of the bytes that a server sends over one connection: takes a piece, returns what is passed on now.
pub(crate) type Passing = Box<dyn FnMut(Vec<u8>) -> Vec<u8> + Send>;

/// Passes everything on as it is.
pub(crate) fn plain() -> Passing {
    Box::new(|bytes| bytes)
}

/// A proxy on a loopback port of its own, until it is dropped.
pub(crate) struct Proxy {
    address: String,
    weather: watch::Sender<Weather>,
    _serving: JoinSet<()>,
}

impl Proxy {
    /// In front of `server` (`host:port`). `passing` is told the proxy's port and makes what each connection needs.
    pub(crate) async fn start(
        server: &str,
        passing: impl Fn(u16) -> Passing + Send + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let (weather, watching) = watch::channel(Weather::Fair);
        let server = server.to_owned();
        let mut serving = JoinSet::new();
        serving.spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (client, _) = listener.accept().await.expect("accept");
                let server = server.clone();
                let passing = passing(port);
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
    pub(crate) fn freeze(&self) {
        self.weather.send_replace(Weather::Frozen);
    }

    /// Swallows what is sent, for good, and closes nothing.
    pub(crate) fn swallow(&self) {
        self.weather.send_replace(Weather::Hole);
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
        _ = pass(from_client, to_server, plain(), watching.clone()) => {}
        _ = pass(from_server, to_client, passing, watching) => {}
    }
}

async fn pass(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    mut passing: Passing,
    mut watching: watch::Receiver<Weather>,
) -> std::io::Result<()> {
    let mut buffer = vec![0; 64 * 1024];
    let mut is_lost = false;
    loop {
        let count = from.read(&mut buffer).await?;
        if count == 0 {
            return Ok(());
        }
        let bytes = passing(buffer[..count].to_vec());
        is_lost |= *watching.borrow() == Weather::Hole;
        if is_lost {
            continue;
        }
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
