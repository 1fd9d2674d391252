//! Just enough of Kafka's protocol to ask a broker what no client library asks for us.

use std::io::{self, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::Duration;

/// The longest answer that is read. Those asked for here have some kilobytes.
const LONGEST_ANSWER: i32 = 16 * 1024 * 1024;

/// How the refusal of TLS begins to speak with whoever does not speak it. As the length of an answer it would be 336 MiB.
const TLS_ALERT: [u8; 2] = [21, 3];

/// Why an exchange came to nothing.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Broken {
    #[error(transparent)]
    Io(io::Error),
    /// Whatever listens there, it takes or sends nothing.
    #[error("nothing answered within {0:?}")]
    Silent(Duration),
    #[error("the answer is not one of Kafka's")]
    Unreadable,
    #[error("it expects TLS and was not spoken to in it")]
    ExpectsTls,
    #[error("the broker answered with error code {0}")]
    Code(i16),
}

/// A connection to one broker.
pub(crate) struct Wire {
    stream: TcpStream,
    timeout: Duration,
    asked: i32,
}

impl Wire {
    /// Connects; `timeout` bounds this and every later read and write.
    pub(crate) fn open(broker: &str, timeout: Duration) -> Result<Self, Broken> {
        let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
        for address in broker.to_socket_addrs().map_err(Broken::Io)? {
            match TcpStream::connect_timeout(&address, timeout) {
                Ok(stream) => {
                    stream
                        .set_read_timeout(Some(timeout))
                        .and_then(|()| stream.set_write_timeout(Some(timeout)))
                        .and_then(|()| stream.set_nodelay(true))
                        .map_err(Broken::Io)?;
                    return Ok(Self {
                        stream,
                        timeout,
                        asked: 0,
                    });
                }
                Err(error) => last = error,
            }
        }
        Err(broken(last, timeout))
    }

    /// Sends one request (header version 1, without a client id) and returns the answer's body.
    pub(crate) fn ask(
        &mut self,
        api_key: i16,
        api_version: i16,
        body: &[u8],
    ) -> Result<Vec<u8>, Broken> {
        self.asked += 1;
        let length = i32::try_from(10 + body.len()).map_err(|_too_long| Broken::Unreadable)?;
        let mut request = Vec::with_capacity(14 + body.len());
        request.extend(length.to_be_bytes());
        request.extend(api_key.to_be_bytes());
        request.extend(api_version.to_be_bytes());
        request.extend(self.asked.to_be_bytes());
        request.extend((-1_i16).to_be_bytes());
        request.extend(body);
        let late = |error| broken(error, self.timeout);
        self.stream.write_all(&request).map_err(late)?;

        let mut head = [0_u8; 8];
        let (begin, rest) = head.split_at_mut(TLS_ALERT.len());
        self.stream.read_exact(begin).map_err(late)?;
        // What it says is shorter than an answer's head.
        if begin == TLS_ALERT {
            return Err(Broken::ExpectsTls);
        }
        self.stream.read_exact(rest).map_err(late)?;
        let mut reader = Reader::new(&head);
        let (length, correlation) = (reader.i32()?, reader.i32()?);
        if correlation != self.asked || !(4..=LONGEST_ANSWER).contains(&length) {
            return Err(Broken::Unreadable);
        }
        let rest = usize::try_from(length - 4).map_err(|_negative| Broken::Unreadable)?;
        let mut answer = vec![0; rest];
        self.stream.read_exact(&mut answer).map_err(late)?;
        Ok(answer)
    }
}

/// A time that ran out has the system's own words, such as 'Resource temporarily unavailable', which help nobody.
fn broken(error: io::Error, timeout: Duration) -> Broken {
    match error.kind() {
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => Broken::Silent(timeout),
        _ => Broken::Io(error),
    }
}

/// Reads the fields of an answer one after the other.
pub(crate) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    fn take<const COUNT: usize>(&mut self) -> Result<[u8; COUNT], Broken> {
        let (taken, rest) = self
            .rest
            .split_first_chunk::<COUNT>()
            .ok_or(Broken::Unreadable)?;
        self.rest = rest;
        Ok(*taken)
    }

    pub(crate) fn i16(&mut self) -> Result<i16, Broken> {
        self.take().map(i16::from_be_bytes)
    }

    pub(crate) fn i32(&mut self) -> Result<i32, Broken> {
        self.take().map(i32::from_be_bytes)
    }

    /// A text, or `None` where Kafka writes null.
    #[cfg(feature = "kafka")]
    pub(crate) fn text(&mut self) -> Result<Option<String>, Broken> {
        let length = self.i16()?;
        let Ok(length) = usize::try_from(length) else {
            return Ok(None);
        };
        let (taken, rest) = self
            .rest
            .split_at_checked(length)
            .ok_or(Broken::Unreadable)?;
        self.rest = rest;
        Ok(Some(String::from_utf8_lossy(taken).into_owned()))
    }

    #[cfg(feature = "kafka")]
    pub(crate) fn i64(&mut self) -> Result<i64, Broken> {
        self.take().map(i64::from_be_bytes)
    }

    /// Passes over bytes, and says whether there were any (`false`: Kafka's null).
    #[cfg(feature = "kafka")]
    pub(crate) fn skip_bytes(&mut self) -> Result<bool, Broken> {
        let length = self.i32()?;
        let Ok(length) = usize::try_from(length) else {
            return Ok(false);
        };
        let (_passed, rest) = self
            .rest
            .split_at_checked(length)
            .ok_or(Broken::Unreadable)?;
        self.rest = rest;
        Ok(true)
    }
}
