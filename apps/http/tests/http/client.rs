//! A client that can also be rude: it sends whatever bytes it is told to.

use std::net::SocketAddr;
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// Longer than any answer takes; a test that waits so long has failed.
const PATIENCE: Duration = Duration::from_secs(20);

/// One answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    /// The value of a header that must not come twice.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let mut values = self
            .headers
            .iter()
            .filter(|(found, _)| found.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_str());
        let first = values.next();
        assert_eq!(values.next(), None, "{name} comes twice");
        first
    }

    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("the body is UTF-8")
    }

    /// The count of a series, such as `name{label="value"}`, among meters.
    pub(crate) fn count_of(&self, series: &str) -> u64 {
        self.text()
            .lines()
            .find_map(|line| line.strip_prefix(series)?.strip_prefix(' '))
            .unwrap_or_else(|| panic!("{series} is not counted in {}", self.text()))
            .parse()
            .expect("a number")
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("{error} in {:?}", String::from_utf8_lossy(&self.body)))
    }

    /// The body of an answer that must be a well-formed problem.
    #[track_caller]
    pub(crate) fn problem(&self, status: u16) -> Value {
        assert_eq!(self.status, status, "{self:?}");
        assert_eq!(
            self.header("content-type"),
            Some("application/problem+json")
        );
        let problem = self.json();
        assert_eq!(problem["status"], status);
        for member in ["type", "title", "detail"] {
            assert!(
                problem[member]
                    .as_str()
                    .is_some_and(|text| !text.is_empty()),
                "{member} in {problem}"
            );
        }
        problem
    }
}

/// One connection.
pub(crate) struct Client {
    stream: TcpStream,
    unread: Vec<u8>,
}

impl Client {
    pub(crate) async fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address)
            .await
            .expect("the server listens");
        Self {
            stream,
            unread: Vec::new(),
        }
    }

    pub(crate) async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream
            .write_all(bytes.as_ref())
            .await
            .expect("the server reads");
    }

    /// Like [`send`](Self::send), for bytes that the server may refuse to read.
    pub(crate) async fn try_send(&mut self, bytes: impl AsRef<[u8]>) -> std::io::Result<()> {
        self.stream.write_all(bytes.as_ref()).await
    }

    /// The answer to a request other than HEAD.
    pub(crate) async fn receive(&mut self) -> Answer {
        self.receive_to(false).await
    }

    /// The answer to a HEAD.
    pub(crate) async fn receive_head(&mut self) -> Answer {
        self.receive_to(true).await
    }

    /// Whether the server closes the connection, without sending more.
    pub(crate) async fn is_closed(&mut self) -> bool {
        let mut byte = [0];
        match timeout(PATIENCE, self.stream.read(&mut byte)).await {
            Ok(Ok(read)) => read == 0 && self.unread.is_empty(),
            Ok(Err(_)) => true,
            Err(_) => false,
        }
    }

    /// Reads a byte, if there is one.
    pub(crate) async fn some_byte(&mut self) {
        let mut byte = [0];
        // What is cut may be reset.
        let _ = timeout(PATIENCE, self.stream.read(&mut byte)).await;
    }

    /// Whatever the server still sends before it closes the connection, which it must.
    pub(crate) async fn receive_rest(&mut self) {
        let mut rest = Vec::new();
        // A connection that is reset is closed too.
        let _ = timeout(PATIENCE, self.stream.read_to_end(&mut rest))
            .await
            .expect("the server closes the connection");
    }

    /// The head of an answer whose body does not end by itself, or the whole of one that is refused.
    pub(crate) async fn receive_opening(&mut self) -> Answer {
        self.receive_to(true).await
    }

    /// The next chunk of a body; empty for its end.
    pub(crate) async fn chunk(&mut self) -> String {
        let next = async {
            let line = self.line().await;
            let length = usize::from_str_radix(&line, 16).expect("a chunk has a length");
            let chunk = self.exactly(length).await;
            assert_eq!(self.line().await, "");
            String::from_utf8(chunk).expect("events are text")
        };
        timeout(PATIENCE, next)
            .await
            .expect("a chunk comes in time")
    }

    async fn receive_to(&mut self, head: bool) -> Answer {
        timeout(PATIENCE, self.receive_patiently(head))
            .await
            .expect("the server answers in time")
    }

    async fn receive_patiently(&mut self, head: bool) -> Answer {
        let line = self.line().await;
        let status = line
            .split(' ')
            .nth(1)
            .and_then(|code| code.parse().ok())
            .unwrap_or_else(|| panic!("no status in {line:?}"));
        let mut headers = Vec::new();
        loop {
            let line = self.line().await;
            if line.is_empty() {
                break;
            }
            let (name, value) = line.split_once(':').expect("a header has a colon");
            headers.push((name.to_owned(), value.trim().to_owned()));
        }
        let mut answer = Answer {
            status,
            headers,
            body: Vec::new(),
        };
        if !head && status >= 200 && status != 204 && status != 304 {
            answer.body = match answer.header("transfer-encoding") {
                Some("chunked") => self.chunks().await,
                _ => {
                    let length = answer
                        .header("content-length")
                        .and_then(|length| length.parse().ok())
                        .expect("the answer says its length");
                    self.exactly(length).await
                }
            };
        }
        answer
    }

    async fn line(&mut self) -> String {
        loop {
            if let Some(end) = self.unread.windows(2).position(|pair| pair == b"\r\n") {
                let line = self.take(end);
                self.take(2);
                return String::from_utf8(line).expect("heads are text");
            }
            self.more().await;
        }
    }

    async fn exactly(&mut self, length: usize) -> Vec<u8> {
        while self.unread.len() < length {
            self.more().await;
        }
        self.take(length)
    }

    async fn chunks(&mut self) -> Vec<u8> {
        let mut body = Vec::new();
        loop {
            let line = self.line().await;
            let length = usize::from_str_radix(&line, 16).expect("a chunk has a length");
            body.extend(self.exactly(length).await);
            assert_eq!(self.line().await, "");
            if length == 0 {
                return body;
            }
        }
    }

    fn take(&mut self, length: usize) -> Vec<u8> {
        let rest = self.unread.split_off(length);
        std::mem::replace(&mut self.unread, rest)
    }

    async fn more(&mut self) {
        let read = self
            .stream
            .read_buf(&mut self.unread)
            .await
            .expect("the server writes");
        assert!(
            read > 0,
            "the server closed the connection after {:?}",
            String::from_utf8_lossy(&self.unread)
        );
    }
}
