//! A collector for tests: an HTTP server on loopback that keeps what it is sent, and can be made to fail.

use std::collections::BTreeMap;
use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTracePartialSuccess, ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message as _;

/// How a [`Collector`] treats those who send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Manner {
    /// Takes everything.
    Takes,
    /// Takes everything and says that it threw this many spans of each request away.
    Rejects(i64),
    /// Answers with this status and keeps nothing.
    Refuses(u16),
    /// Reads and never answers.
    Hangs,
}

/// A span as it arrived.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// The name of the service that sent it.
    pub service: String,
    /// What it is called.
    pub name: String,
    /// `SERVER`, `PRODUCER` and so on.
    pub kind: String,
    /// The trace, in hexadecimal.
    pub trace: String,
    /// The span, in hexadecimal.
    pub span: String,
    /// The span it is part of; empty where a trace begins.
    pub parent: String,
    /// Whether its parent is of another process.
    pub parent_is_remote: bool,
    /// The `tracestate`.
    pub state: String,
    /// Its attributes, numbers as text.
    pub attributes: BTreeMap<String, String>,
    /// What went wrong.
    pub error: Option<String>,
    /// How long it took.
    pub took: Duration,
}

/// Everything that a [`Collector`] was sent.
#[derive(Clone, Debug, Default)]
pub struct Collected {
    /// The spans it took, in the order of their arrival.
    pub spans: Vec<Seen>,
    /// How many requests came, whatever became of them.
    pub requests: usize,
    /// The head of the last of them.
    pub head: String,
}

/// Listens on a port of its own until the process ends.
#[derive(Clone, Debug)]
pub struct Collector {
    address: SocketAddr,
    state: Arc<State>,
}

#[derive(Debug)]
struct State {
    manner: Mutex<Manner>,
    collected: Mutex<Collected>,
    changed: Condvar,
}

impl Collector {
    /// Starts one that takes everything.
    ///
    /// # Errors
    /// When the system gives no port or no thread.
    pub fn start() -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let address = listener.local_addr()?;
        let state = Arc::new(State {
            manner: Mutex::new(Manner::Takes),
            collected: Mutex::default(),
            changed: Condvar::new(),
        });
        let collector = Self {
            address,
            state: Arc::clone(&state),
        };
        thread::Builder::new()
            .name("collector".to_owned())
            .spawn(move || {
                for stream in listener.incoming().flatten() {
                    let state = Arc::clone(&state);
                    // Who sends may break off at any time.
                    thread::spawn(move || drop(state.serve(&stream)));
                }
            })?;
        Ok(collector)
    }

    /// What `OTEL_EXPORTER_OTLP_ENDPOINT` is to be.
    #[must_use]
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// From the next request on it behaves so.
    pub fn behave(&self, manner: Manner) {
        *self.state.manner() = manner;
    }

    /// What it was sent so far.
    #[must_use]
    pub fn collected(&self) -> Collected {
        self.state.collected().clone()
    }

    /// Waits until what it was sent is as wanted; `None` when it is not within the time.
    #[must_use]
    pub fn wait(
        &self,
        patience: Duration,
        wanted: impl Fn(&Collected) -> bool,
    ) -> Option<Collected> {
        let collected = self.state.collected();
        let (collected, waited) = self
            .state
            .changed
            .wait_timeout_while(collected, patience, |collected| !wanted(collected))
            .unwrap_or_else(PoisonError::into_inner);
        (!waited.timed_out()).then(|| collected.clone())
    }
}

impl State {
    fn manner(&self) -> MutexGuard<'_, Manner> {
        self.manner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn collected(&self) -> MutexGuard<'_, Collected> {
        self.collected
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Serves one connection until it is closed.
    fn serve(&self, mut stream: &TcpStream) -> io::Result<()> {
        let mut reader = BufReader::new(stream);
        loop {
            let mut head = String::new();
            while !head.ends_with("\r\n\r\n") {
                if reader.read_line(&mut head)? == 0 {
                    return Ok(());
                }
            }
            let length = head
                .lines()
                .filter_map(|line| line.split_once(':'))
                .find(|(name, _)| name.eq_ignore_ascii_case("content-length"))
                .and_then(|(_, length)| length.trim().parse().ok())
                .unwrap_or(0);
            let mut body = vec![0; length];
            reader.read_exact(&mut body)?;
            let manner = *self.manner();
            let (status, answer) = self.take(head, &body, manner);
            if manner == Manner::Hangs {
                // Until who sent has had enough.
                let _ = reader.read_line(&mut String::new());
                return Ok(());
            }
            let length = answer.len();
            write!(
                stream,
                "HTTP/1.1 {status} -\r\ncontent-type: application/x-protobuf\r\ncontent-length: {length}\r\n\r\n"
            )?;
            stream.write_all(&answer)?;
        }
    }

    fn take(&self, head: String, body: &[u8], manner: Manner) -> (u16, Vec<u8>) {
        let mut answer = ExportTraceServiceResponse::default();
        let mut status = 200;
        let mut collected = self.collected();
        collected.requests += 1;
        match (manner, ExportTraceServiceRequest::decode(body)) {
            (Manner::Refuses(code), _) => status = code,
            (Manner::Hangs, _) => {}
            (_, Err(_)) => status = 400,
            (_, Ok(_)) if !head.starts_with("POST /v1/traces ") => status = 404,
            (_, Ok(request)) => collected.spans.extend(seen(request)),
        }
        if let Manner::Rejects(rejected_spans) = manner {
            answer.partial_success = Some(ExportTracePartialSuccess {
                rejected_spans,
                error_message: "a test".to_owned(),
            });
        }
        collected.head = head;
        drop(collected);
        self.changed.notify_all();
        (status, answer.encode_to_vec())
    }
}

fn seen(request: ExportTraceServiceRequest) -> Vec<Seen> {
    let mut all = Vec::new();
    for of_resource in request.resource_spans {
        let attributes = of_resource.resource.unwrap_or_default().attributes;
        let service = texts(attributes).remove("service.name").unwrap_or_default();
        let spans = of_resource.scope_spans.into_iter();
        let spans = spans.flat_map(|of_scope| of_scope.spans);
        all.extend(spans.map(|span| one(&service, span)));
    }
    all
}

fn one(service: &str, span: Span) -> Seen {
    let kind = span.kind().as_str_name();
    let took = span
        .end_time_unix_nano
        .saturating_sub(span.start_time_unix_nano);
    Seen {
        service: service.to_owned(),
        kind: kind.trim_start_matches("SPAN_KIND_").to_owned(),
        trace: hex(&span.trace_id),
        span: hex(&span.span_id),
        parent: hex(&span.parent_span_id),
        parent_is_remote: span.flags & 0x200 != 0,
        state: span.trace_state,
        error: span.status.map(|status| status.message),
        name: span.name,
        attributes: texts(span.attributes),
        took: Duration::from_nanos(took),
    }
}

fn texts(attributes: Vec<KeyValue>) -> BTreeMap<String, String> {
    let text = |pair: KeyValue| {
        let value = match pair.value.and_then(|any| any.value) {
            Some(Value::StringValue(text)) => text,
            Some(Value::IntValue(number)) => number.to_string(),
            other => format!("{other:?}"),
        };
        (pair.key, value)
    };
    attributes.into_iter().map(text).collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
