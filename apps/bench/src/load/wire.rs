//! One kept-alive HTTP/1.1 connection, with as little work per exchange as possible.

use std::io;
use std::time::Duration;

use tokio::time::Instant;

use super::stream::Stream;
use super::target::Target;

/// How much is read at once; answers of the API are far shorter.
const READ: usize = 8 * 1024;
/// An answer longer than this is not one of ours.
const LONGEST_ANSWER: usize = 16 * 1024 * 1024;
/// A connection that carried nothing for this long may have been closed by the server, or by what stands before it, and that is no failure of
/// theirs. Under load none is idle as long: there a connection that breaks off counts.
const IDLE: Duration = Duration::from_secs(1);

/// A connection that carries one exchange at a time.
pub(super) struct Connection {
    stream: Stream,
    /// When it was opened, or carried its last answer.
    used: Instant,
    received: Vec<u8>,
    /// Where the body of the last answer begins and ends in `received`.
    body: (usize, usize),
    closing: bool,
}

impl Connection {
    pub(super) async fn open(target: &Target) -> io::Result<Self> {
        Ok(Self {
            stream: Stream::open(target).await?,
            used: Instant::now(),
            received: Vec::with_capacity(READ),
            body: (0, 0),
            closing: false,
        })
    }

    /// Sends a whole request and reads the whole answer; answers its status. When it was idle, and ends before a byte of the answer, it is opened
    /// anew, once.
    pub(super) async fn exchange(&mut self, target: &Target, request: &[u8]) -> io::Result<u16> {
        let was_idle = self.used.elapsed() >= IDLE;
        let outcome = match self.exchange_once(request).await {
            Err(error) if was_idle && self.received.is_empty() && is_end(&error) => {
                *self = Self::open(target).await?;
                self.exchange_once(request).await
            }
            outcome => outcome,
        };
        self.used = Instant::now();
        outcome
    }

    async fn exchange_once(&mut self, request: &[u8]) -> io::Result<u16> {
        self.received.clear();
        self.stream.write_all(request).await?;
        let head = loop {
            self.read_more().await?;
            if let Some(end) = find(&self.received, b"\r\n\r\n") {
                break Head::read(&self.received[..end], end + 4)?;
            }
        };
        let end = match head.length {
            Length::Known(length) => {
                let end = head.body + length;
                self.read_to(end).await?;
                end
            }
            Length::Chunks => self.read_chunks(head.body).await?,
        };
        self.body = (head.body, end);
        self.closing = head.closing;
        Ok(head.status)
    }

    /// The body of the last answer.
    pub(super) fn body(&self) -> &[u8] {
        &self.received[self.body.0..self.body.1]
    }

    /// Whether the server said that it closes the connection after this answer.
    pub(super) const fn is_closing(&self) -> bool {
        self.closing
    }

    async fn read_to(&mut self, end: usize) -> io::Result<()> {
        while self.received.len() < end {
            self.read_more().await?;
        }
        Ok(())
    }

    /// Reads chunks, the first of which begins here, and moves what they hold together; answers where that ends.
    async fn read_chunks(&mut self, body: usize) -> io::Result<usize> {
        let (mut next, mut end) = (body, body);
        loop {
            let line = self.read_line(next).await?;
            let size = chunk_size(&self.received[next..line])?;
            let data = line + 2;
            if size == 0 {
                // Fields may follow, and then an empty line.
                let mut field = data;
                loop {
                    let line = self.read_line(field).await?;
                    if line == field {
                        return Ok(end);
                    }
                    field = line + 2;
                }
            }
            next = data + size + 2;
            self.read_to(next).await?;
            if &self.received[next - 2..next] != b"\r\n" {
                return Err(io::Error::other("a chunk longer than it says"));
            }
            self.received.copy_within(data..data + size, end);
            end += size;
        }
    }

    /// Where the line that begins here ends.
    async fn read_line(&mut self, begin: usize) -> io::Result<usize> {
        loop {
            let unread = self.received.get(begin..).unwrap_or_default();
            if let Some(end) = find(unread, b"\r\n") {
                return Ok(begin + end);
            }
            self.read_more().await?;
        }
    }

    async fn read_more(&mut self) -> io::Result<()> {
        if self.received.len() > LONGEST_ANSWER {
            return Err(io::Error::other("an answer of more than 16 MiB"));
        }
        self.received.reserve(READ);
        if self.stream.read_buf(&mut self.received).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(())
    }
}

/// Whether the other side has ended the connection.
fn is_end(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::UnexpectedEof
            | io::ErrorKind::BrokenPipe
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionAborted
    )
}

/// How long a chunk is, by the line before it.
fn chunk_size(line: &[u8]) -> io::Result<usize> {
    let text = std::str::from_utf8(line).map_err(io::Error::other)?;
    let digits = text.split(';').next().unwrap_or_default().trim();
    let size = usize::from_str_radix(digits, 16).map_err(io::Error::other)?;
    if size > LONGEST_ANSWER {
        return Err(io::Error::other("an answer of more than 16 MiB"));
    }
    Ok(size)
}

struct Head {
    status: u16,
    body: usize,
    length: Length,
    closing: bool,
}

/// How long a body is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Length {
    Known(usize),
    /// Each part says how long it is.
    Chunks,
}

impl Head {
    fn read(head: &[u8], body: usize) -> io::Result<Self> {
        let text = std::str::from_utf8(head).map_err(io::Error::other)?;
        let mut lines = text.split("\r\n");
        let status = lines
            .next()
            .and_then(|line| line.split(' ').nth(1))
            .and_then(|code| code.parse().ok())
            .ok_or_else(|| io::Error::other("an answer that is not HTTP/1.1"))?;
        let mut read = Self {
            status,
            body,
            length: Length::Known(0),
            closing: false,
        };
        for line in lines {
            let Some((name, value)) = line.split_once(':') else {
                continue;
            };
            let value = value.trim();
            if name.eq_ignore_ascii_case("content-length") {
                read.length = Length::Known(value.parse().map_err(io::Error::other)?);
            } else if name.eq_ignore_ascii_case("connection") {
                read.closing = value.eq_ignore_ascii_case("close");
            } else if name.eq_ignore_ascii_case("transfer-encoding") {
                if !value.eq_ignore_ascii_case("chunked") {
                    return Err(io::Error::other("an answer packed for its transfer"));
                }
                read.length = Length::Chunks;
            }
        }
        Ok(read)
    }
}

/// Where `wanted` begins.
pub(super) fn find(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    bytes
        .windows(wanted.len())
        .position(|window| window == wanted)
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;
    use tokio::task::JoinHandle;

    use super::*;

    #[test]
    fn heads_are_read_or_refused() {
        let head = Head::read(
            b"HTTP/1.1 201 Created\r\ncontent-LENGTH: 12\r\nconnection: close",
            70,
        )
        .expect("a head");
        assert_eq!(
            (head.status, head.length, head.body, head.closing),
            (201, Length::Known(12), 70, true)
        );
        for refused in [
            b"SSH-2.0-OpenSSH_9.2".as_slice(),
            b"HTTP/1.1 200 OK\r\ntransfer-encoding: gzip, chunked",
            b"HTTP/1.1 200 OK\r\ncontent-length: many",
        ] {
            assert!(Head::read(refused, 0).is_err());
        }
    }

    /// Answers the requests of each connection with these bytes, and then closes it.
    async fn server(connections: Vec<Vec<String>>) -> (Target, JoinHandle<()>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let serving = tokio::spawn(async move {
            for answers in connections {
                let (mut stream, _) = listener.accept().await.expect("a connection");
                for answer in answers {
                    let mut request = [0; 1_024];
                    let read = stream.read(&mut request).await.expect("a request");
                    assert!(read > 0, "it is closed");
                    for byte in answer.as_bytes().chunks(3) {
                        stream.write_all(byte).await.expect("it is read");
                        stream.flush().await.expect("it is read");
                    }
                }
            }
        });
        let target = format!("http://{address}").parse().expect("a target");
        (target, serving)
    }

    fn answer(body: &str) -> String {
        let length = body.len();
        format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n{body}")
    }

    fn chunked(chunks: &str) -> String {
        format!("HTTP/1.1 201 Created\r\nTransfer-Encoding: Chunked\r\n\r\n{chunks}")
    }

    #[tokio::test]
    async fn an_answer_in_chunks_is_read_whole_and_the_connection_goes_on() {
        let long = "x".repeat(20_000);
        let answers = vec![
            chunked("5\r\nHello\r\n00007;a=b\r\n world!\r\n0\r\n\r\n"),
            chunked(&format!(
                "4e20\r\n{long}\r\n0\r\na-field: behind it\r\n\r\n"
            )),
            chunked("0\r\n\r\n"),
            answer("plain"),
        ];
        let (target, serving) = server(vec![answers]).await;
        let mut connection = Connection::open(&target).await.expect("connected");
        for (status, body) in [
            (201, "Hello world!"),
            (201, &long),
            (201, ""),
            (200, "plain"),
        ] {
            let answered = connection.exchange(&target, b"GET").await.expect("read");
            assert_eq!((answered, connection.body()), (status, body.as_bytes()));
        }
        serving.await.expect("served");
    }

    #[tokio::test]
    async fn chunks_that_lie_are_refused() {
        for wrong in [
            "many\r\n",
            "-1\r\na\r\n",
            "2\r\nabc\r\n",
            "fffffffffffffff\r\n",
        ] {
            let (target, _serving) = server(vec![vec![chunked(wrong)]]).await;
            let mut connection = Connection::open(&target).await.expect("connected");
            let refused = connection.exchange(&target, b"GET").await;
            let error = refused.expect_err("it lies");
            assert!(!is_end(&error), "{wrong}: {error}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_that_was_closed_while_idle_is_opened_anew_once() {
        let (one, closed) = (vec![answer("a")], Vec::new());
        let (target, serving) = server(vec![one.clone(), one, closed]).await;
        let mut connection = Connection::open(&target).await.expect("connected");
        connection.exchange(&target, b"GET").await.expect("read");
        tokio::time::advance(IDLE).await;
        connection.exchange(&target, b"GET").await.expect("read");
        // Closed under load, it is a failure.
        let broken = connection.exchange(&target, b"GET").await;
        assert!(is_end(&broken.expect_err("closed")));
        // So it is when the new one ends too.
        tokio::time::advance(IDLE).await;
        let broken = connection.exchange(&target, b"GET").await;
        assert!(is_end(&broken.expect_err("closed")));
        serving.await.expect("served");
    }
}
