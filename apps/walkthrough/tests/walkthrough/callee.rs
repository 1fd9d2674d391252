//! The processing function as a service elsewhere: what workers call in these tests, so that these decide how long it takes.

use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use serde_json::Value;

use crate::world::text;

const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

/// A call of a worker, not yet answered.
pub(crate) struct Call {
    pub(crate) id: String,
    pub(crate) payload: String,
    pub(crate) attempt: u64,
    stream: BufReader<TcpStream>,
}

impl Call {
    /// A worker that is gone, or has given the call up, does not read it.
    pub(crate) fn answer(mut self, status: &str, body: &str) -> io::Result<()> {
        let length = body.len();
        write!(
            self.stream.get_mut(),
            "HTTP/1.1 {status}\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{body}"
        )
    }

    /// Waits until the worker gives it up or is gone, which is answered with `true`, or until `is_over`: then it is answered.
    pub(crate) fn hold(mut self, is_over: impl Fn() -> bool) -> bool {
        /// How often `is_over` is asked.
        const PAUSE: Duration = Duration::from_millis(50);
        let stream = self.stream.get_ref();
        stream.set_read_timeout(Some(PAUSE)).expect("a time");
        loop {
            match self.stream.read(&mut [0]) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Ok(0) | Err(_) => return true,
                Ok(_) => panic!("nothing comes after a call"),
            }
            if is_over() {
                return self.answer("200 OK", "heard").is_err();
            }
        }
    }

    /// Waits until the worker gives it up or is gone.
    pub(crate) fn until_given_up(mut self) {
        // The connection ends, in whichever way.
        let more = self.stream.read(&mut [0]).unwrap_or(0);
        assert_eq!(more, 0, "nothing comes after a call");
    }
}

/// Starts the service, which takes every call on a thread of its own until the test process ends; its address.
pub(crate) fn serve(take: impl Fn(Call) + Send + Sync + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    let take = Arc::new(take);
    thread::spawn(move || {
        for stream in listener.incoming() {
            let take = Arc::clone(&take);
            thread::spawn(move || {
                // Whoever was killed before it had said anything did not call.
                if let Ok(call) = received(stream.expect("a connection")) {
                    take(call);
                }
            });
        }
    });
    url
}

/// What a worker is told so that it calls the service at `url`.
pub(crate) fn settings(url: &str) -> [(&str, &str); 4] {
    [
        ("PROCESSOR", "http"),
        ("PROCESSOR_URL", url),
        ("PROCESSOR_SECRET", SECRET),
        ("PROCESSOR_TIMEOUT", "10m"),
    ]
}

fn received(stream: TcpStream) -> io::Result<Call> {
    let mut stream = BufReader::new(stream);
    let mut length = 0;
    loop {
        let mut line = String::new();
        stream.read_line(&mut line)?;
        match line.trim_end().split_once(": ") {
            Some(("content-length", value)) => length = value.parse().map_err(io::Error::other)?,
            None if line.trim_end().is_empty() => break,
            _ => {}
        }
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body)?;
    let call: Value = serde_json::from_slice(&body)?;
    Ok(Call {
        id: text(&call["taskId"]),
        payload: text(&call["payload"]),
        attempt: call["attempt"].as_u64().expect("a number"),
        stream,
    })
}
