//! One kept-alive HTTP/1.1 connection, with as little work per exchange as possible.

use std::io;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::target::Target;

/// How much is read at once; answers of the API are far shorter.
const READ: usize = 8 * 1024;
/// An answer longer than this is not one of ours.
const LONGEST_ANSWER: usize = 16 * 1024 * 1024;

/// A connection that carries one exchange at a time.
pub(super) struct Connection {
    stream: TcpStream,
    received: Vec<u8>,
    /// Where the body of the last answer begins and ends in `received`.
    body: (usize, usize),
    closing: bool,
}

impl Connection {
    pub(super) async fn open(target: &Target) -> io::Result<Self> {
        let stream = TcpStream::connect((target.host.as_str(), target.port)).await?;
        stream.set_nodelay(true)?;
        Ok(Self {
            stream,
            received: Vec::with_capacity(READ),
            body: (0, 0),
            closing: false,
        })
    }

    /// Sends a whole request and reads the whole answer; answers its status.
    pub(super) async fn exchange(&mut self, request: &[u8]) -> io::Result<u16> {
        self.received.clear();
        self.stream.write_all(request).await?;
        let head = loop {
            self.read_more().await?;
            if let Some(end) = find(&self.received, b"\r\n\r\n") {
                break Head::read(&self.received[..end], end + 4)?;
            }
        };
        let end = head.body + head.length;
        while self.received.len() < end {
            self.read_more().await?;
        }
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

struct Head {
    status: u16,
    body: usize,
    length: usize,
    closing: bool,
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
            length: 0,
            closing: false,
        };
        for line in lines {
            let Some((name, value)) = line.split_once(':') else {
                continue;
            };
            let value = value.trim();
            if name.eq_ignore_ascii_case("content-length") {
                read.length = value.parse().map_err(io::Error::other)?;
            } else if name.eq_ignore_ascii_case("connection") {
                read.closing = value.eq_ignore_ascii_case("close");
            } else if name.eq_ignore_ascii_case("transfer-encoding") {
                return Err(io::Error::other(
                    "an answer in chunks, which this generator does not read",
                ));
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
            (201, 12, 70, true)
        );
        for refused in [
            b"SSH-2.0-OpenSSH_9.2".as_slice(),
            b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked",
            b"HTTP/1.1 200 OK\r\ncontent-length: many",
        ] {
            assert!(Head::read(refused, 0).is_err());
        }
    }
}
