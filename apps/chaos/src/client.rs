//! An HTTP client that repeats nothing and says exactly why a request failed.

use std::io::{self, ErrorKind};
use std::net::Ipv4Addr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// How many connections are kept for the next request.
const KEPT: usize = 64;
/// The longest answer that is read.
const LONGEST: usize = 16 << 20;

/// Why there is no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Trouble {
    /// Nobody listens.
    Refused,
    /// The connection ended before the answer.
    Closed,
    /// No answer in time.
    TimedOut,
    /// An answer that is no HTTP.
    Garbled,
}

impl Trouble {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Refused => "connection refused",
            Self::Closed => "connection closed before the answer",
            Self::TimedOut => "no answer in time",
            Self::Garbled => "an answer that is no HTTP",
        }
    }
}

pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or(Value::Null)
    }
}

/// Talks to one port.
pub(crate) struct Client {
    port: u16,
    patience: Duration,
    idle: Mutex<Vec<TcpStream>>,
}

impl Client {
    pub(crate) fn new(port: u16, patience: Duration) -> Self {
        Self {
            port,
            patience,
            idle: Mutex::default(),
        }
    }

    pub(crate) async fn get(&self, path: &str, accept: &str) -> Result<Answer, Trouble> {
        let head = format!("GET {path} HTTP/1.1\r\nHost: chaos\r\nAccept: {accept}\r\n\r\n");
        self.request(head.into_bytes()).await
    }

    pub(crate) async fn post(&self, path: &str, body: &Value) -> Result<Answer, Trouble> {
        let body = body.to_string();
        let request = format!(
            "POST {path} HTTP/1.1\r\nHost: chaos\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        self.request(request.into_bytes()).await
    }

    async fn request(&self, request: Vec<u8>) -> Result<Answer, Trouble> {
        timeout(self.patience, self.exchange(&request))
            .await
            .unwrap_or(Err(Trouble::TimedOut))
    }

    async fn exchange(&self, request: &[u8]) -> Result<Answer, Trouble> {
        let mut stream = match self.take_idle() {
            Some(stream) => stream,
            None => TcpStream::connect((Ipv4Addr::LOCALHOST, self.port))
                .await
                .map_err(|_| Trouble::Refused)?,
        };
        stream.set_nodelay(true).ok();
        stream
            .write_all(request)
            .await
            .map_err(|_| Trouble::Closed)?;
        let (answer, keep) = read_answer(&mut stream).await?;
        if keep {
            let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
            if idle.len() < KEPT {
                idle.push(stream);
            }
        }
        Ok(answer)
    }

    /// A kept connection that the other side has not closed meanwhile, as every client looks for one.
    fn take_idle(&self) -> Option<TcpStream> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        while let Some(stream) = idle.pop() {
            let open = stream
                .try_read(&mut [0])
                .is_err_and(|error| error.kind() == ErrorKind::WouldBlock);
            if open {
                return Some(stream);
            }
        }
        None
    }
}

async fn read_answer(stream: &mut TcpStream) -> Result<(Answer, bool), Trouble> {
    let mut bytes = Vec::with_capacity(1_024);
    let head_end = loop {
        if let Some(at) = find(&bytes, b"\r\n\r\n") {
            break at + 4;
        }
        read_more(stream, &mut bytes).await?;
    };
    let head = String::from_utf8_lossy(&bytes[..head_end]).into_owned();
    let mut lines = head.lines();
    let status: u16 = lines
        .next()
        .and_then(|line| line.split(' ').nth(1)?.parse().ok())
        .ok_or(Trouble::Garbled)?;
    let header = |name: &str| {
        head.lines().skip(1).find_map(|line| {
            let (key, value) = line.split_once(':')?;
            key.eq_ignore_ascii_case(name)
                .then(|| value.trim().to_ascii_lowercase())
        })
    };
    let keep = header("connection").is_none_or(|value| value != "close");
    let mut body = bytes.split_off(head_end);
    if header("transfer-encoding").is_some_and(|value| value == "chunked") {
        body = read_chunks(stream, body).await?;
    } else {
        let length: usize = match header("content-length") {
            Some(text) => text.parse().map_err(|_| Trouble::Garbled)?,
            None => 0,
        };
        while body.len() < length {
            read_more(stream, &mut body).await?;
        }
    }
    Ok((Answer { status, body }, keep))
}

async fn read_chunks(stream: &mut TcpStream, mut raw: Vec<u8>) -> Result<Vec<u8>, Trouble> {
    let mut body = Vec::new();
    loop {
        let line_end = loop {
            if let Some(at) = find(&raw, b"\r\n") {
                break at;
            }
            read_more(stream, &mut raw).await?;
        };
        let length = std::str::from_utf8(&raw[..line_end])
            .ok()
            .and_then(|text| usize::from_str_radix(text.trim(), 16).ok())
            .filter(|length| *length <= LONGEST)
            .ok_or(Trouble::Garbled)?;
        let end = line_end + 2 + length + 2;
        while raw.len() < end {
            read_more(stream, &mut raw).await?;
        }
        body.extend_from_slice(&raw[line_end + 2..end - 2]);
        raw.drain(..end);
        if length == 0 {
            return Ok(body);
        }
    }
}

async fn read_more(stream: &mut TcpStream, bytes: &mut Vec<u8>) -> Result<(), Trouble> {
    if bytes.len() > LONGEST {
        return Err(Trouble::Garbled);
    }
    let read: io::Result<usize> = stream.read_buf(bytes).await;
    match read {
        Ok(0) | Err(_) => Err(Trouble::Closed),
        Ok(_) => Ok(()),
    }
}

fn find(bytes: &[u8], what: &[u8]) -> Option<usize> {
    bytes.windows(what.len()).position(|window| window == what)
}
