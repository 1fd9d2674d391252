//! A service that answers requests with whatever bytes it is told to.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

/// What is done about a request.
#[derive(Clone, Debug)]
pub(crate) enum Act {
    /// Answered, and the connection stays open.
    Answer(String),
    /// The same, with bytes that are no text.
    Bytes(Vec<u8>),
    /// Answered, and the connection is closed.
    AnswerAndClose(String),
    /// The connection is reset.
    Reset,
}

/// What was received.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    pub(crate) line: String,
    headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Request {
    pub(crate) fn header(&self, name: &str) -> &str {
        let found = self.headers.iter().find(|(known, _)| known == name);
        found.map_or("", |(_, value)| value)
    }
}

/// What a service has seen.
#[derive(Default)]
pub(crate) struct Seen {
    pub(crate) requests: Vec<Request>,
    pub(crate) connections: usize,
    /// Connections that have ended.
    pub(crate) closed: usize,
}

/// A service on a loopback port of its own, until it is dropped.
pub(crate) struct Service {
    pub(crate) address: String,
    seen: Arc<Mutex<Seen>>,
    _serving: JoinSet<()>,
}

impl Service {
    /// Answers the request of each number, counted from 0.
    pub(crate) async fn start(act: impl Fn(usize) -> Act + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let seen = Arc::<Mutex<Seen>>::default();
        let (shared, act) = (Arc::clone(&seen), Arc::new(act));
        let mut serving = JoinSet::new();
        serving.spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.expect("a connection");
                lock(&shared).connections += 1;
                let (shared, act) = (Arc::clone(&shared), Arc::clone(&act));
                connections.spawn(async move {
                    serve(stream, Arc::clone(&shared), act).await;
                    lock(&shared).closed += 1;
                });
            }
        });
        Self {
            address: format!("http://{address}"),
            seen,
            _serving: serving,
        }
    }

    /// An address at which nobody listens.
    pub(crate) async fn free_address() -> String {
        Self::start(|_| Act::Reset).await.address
    }

    pub(crate) fn requests(&self) -> Vec<Request> {
        lock(&self.seen).requests.clone()
    }

    pub(crate) fn connections(&self) -> usize {
        lock(&self.seen).connections
    }

    /// Waits until this can be said of what it has seen.
    pub(crate) async fn until(&self, said: impl Fn(&Seen) -> bool) {
        let patience = Duration::from_secs(20);
        let looking = async {
            while !said(&lock(&self.seen)) {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        let found = tokio::time::timeout(patience, looking).await;
        found.expect("it is seen in time");
    }
}

fn lock(seen: &Mutex<Seen>) -> std::sync::MutexGuard<'_, Seen> {
    seen.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn serve(
    stream: TcpStream,
    seen: Arc<Mutex<Seen>>,
    act: Arc<impl Fn(usize) -> Act + Send + Sync>,
) {
    let mut stream = BufReader::new(stream);
    while let Some(request) = receive(&mut stream).await {
        let number = {
            let mut seen = lock(&seen);
            seen.requests.push(request);
            seen.requests.len() - 1
        };
        // A client that had enough closes the connection, which is no failure of the service.
        match act(number) {
            Act::Answer(text) => drop(stream.write_all(text.as_bytes()).await),
            Act::Bytes(bytes) => drop(stream.write_all(&bytes).await),
            Act::AnswerAndClose(text) => return drop(stream.write_all(text.as_bytes()).await),
            Act::Reset => return stream.get_ref().set_zero_linger().expect("a socket"),
        }
    }
}

async fn receive(stream: &mut BufReader<TcpStream>) -> Option<Request> {
    let line = next_line(stream).await?;
    let mut headers = Vec::new();
    loop {
        let header = next_line(stream).await?;
        if header.is_empty() {
            break;
        }
        let (name, value) = header.split_once(':')?;
        headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
    }
    let mut request = Request {
        line,
        headers,
        body: Vec::new(),
    };
    // A request without a body may leave its length out.
    request.body = vec![0; request.header("content-length").parse().unwrap_or(0)];
    stream.read_exact(&mut request.body).await.ok()?;
    Some(request)
}

async fn next_line(stream: &mut BufReader<TcpStream>) -> Option<String> {
    let mut line = String::new();
    let read = stream.read_line(&mut line).await.ok()?;
    (read > 0).then(|| line.trim_end().to_owned())
}
