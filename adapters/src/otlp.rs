//! Spans to a collector of OpenTelemetry, over OTLP (HTTP, protobuf).
//!
//! Whoever works is never held up by the collector: a span that ends is put into a buffer of bounded size, and a task of its own
//! sends what is there, many together. What the collector does not take for the moment is sent again; meanwhile the buffer
//! fills, and what finds it full is dropped and counted.

#[cfg(feature = "otlp-collector")]
pub mod collector;
mod encode;
mod sampling;

use std::collections::VecDeque;
use std::fmt;
use std::num::NonZeroU64;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceResponse;
use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::trace::v1::Span;
use ports::{Dependency, Event, Observer, Random as _, TraceContext};
use prost::Message as _;
use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use reqwest::{Client, Request, Response, StatusCode, Url};
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use uuid::Uuid;

pub use self::sampling::{Sampling, Share};
use crate::system::SystemRandom;

/// How many spans wait to be sent at most.
const BUFFERED: usize = 16_384;

/// How many travel together.
const BATCH: usize = 1_024;

/// How long the first of a batch waits for others.
const DELAY: Duration = Duration::from_secs(1);

/// How long a collector that does not take spans is left alone; doubles up to [`LONGEST_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// How much of an answer is read, in bytes.
const ANSWER_LIMIT: usize = 64 * 1_024;

/// Where spans go, and which. `Debug` shows no header, and of the address the host alone.
#[derive(Clone, PartialEq, Eq)]
pub struct OtlpOptions {
    /// Where spans are posted: the whole address, with its path.
    pub endpoint: Url,
    /// Sent with every request; may be secret.
    pub headers: Vec<(String, String)>,
    /// How long one request may take.
    pub timeout: Duration,
    /// The name under which this program appears.
    pub service_name: String,
    /// Which traces are kept.
    pub sampling: Sampling,
}

impl fmt::Debug for OtlpOptions {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("OtlpOptions")
            .field("host", &self.endpoint.host_str())
            .field("timeout", &self.timeout)
            .field("service_name", &self.service_name)
            .field("sampling", &self.sampling)
            .finish_non_exhaustive()
    }
}

/// Why spans cannot be sent.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OtlpError {
    /// The HTTP client could not be made: the TLS library found no certificates it may trust.
    #[error("the HTTP client for traces cannot be made")]
    Client(#[source] reqwest::Error),
    /// HTTP does not allow this header.
    #[error("the header {0:?} for the collector of traces is none that HTTP allows")]
    Header(String),
}

/// Begins spans, and sends those that end.
pub struct OtlpTracer {
    spans: Arc<Spans>,
    sampling: Sampling,
    random: SystemRandom,
    stop: watch::Sender<bool>,
    // Dropping the tracer ends the sending.
    sending: Mutex<JoinSet<()>>,
}

impl OtlpTracer {
    /// Starts sending; `told` is told of what was sent, what was lost, and when the collector fails and recovers. Must be
    /// called within a tokio runtime; no collector need be up.
    ///
    /// # Errors
    /// [`OtlpError`].
    pub fn start(options: OtlpOptions, told: Arc<dyn Observer>) -> Result<Arc<Self>, OtlpError> {
        let exporter = Exporter::new(&options)?;
        let spans = Arc::new(Spans {
            waiting: Mutex::default(),
            on_their_way: AtomicUsize::new(0),
            wake: Notify::new(),
            told,
        });
        let stop = watch::Sender::new(false);
        let mut sending = JoinSet::new();
        sending.spawn(send_all(exporter, Arc::clone(&spans), stop.subscribe()));
        Ok(Arc::new(Self {
            spans,
            sampling: options.sampling,
            random: SystemRandom::new(),
            stop,
            sending: Mutex::new(sending),
        }))
    }

    /// Sends what is left, for no longer than this, and answers how many spans were lost because of that. A span that ends
    /// later is lost too.
    pub async fn stop(&self, limit: Duration) -> usize {
        self.stop.send_replace(true);
        let mut sending =
            std::mem::take(&mut *self.sending.lock().unwrap_or_else(PoisonError::into_inner));
        let sent = timeout(limit, async {
            while sending.join_next().await.is_some() {}
        })
        .await;
        if sent.is_ok() {
            return 0;
        }
        let left = self.spans.lock().len() + self.spans.on_their_way.load(Ordering::Relaxed);
        self.spans.dropped(left);
        left
    }

    /// A number that is not zero.
    fn number(&self) -> u64 {
        self.random.next().max(1)
    }
}

impl fmt::Debug for OtlpTracer {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("OtlpTracer")
            .field("sampling", &self.sampling)
            .finish_non_exhaustive()
    }
}

impl Observer for OtlpTracer {
    fn observe(&self, event: &Event) {
        if let Event::Traced(span) = event {
            self.spans.push(encode::span(span, SystemTime::now()));
        }
    }

    fn begin_span(&self, parent: Option<TraceContext>) -> Option<TraceContext> {
        let span = self.number();
        let Some(parent) = parent else {
            let trace = u128::from(self.number()) << 64 | u128::from(self.number());
            return TraceContext::new(trace, span, self.sampling.keeps(None, trace));
        };
        let is_sampled = self.sampling.keeps(Some(&parent), parent.trace_id().get());
        Some(parent.at(NonZeroU64::new(span)?, is_sampled))
    }
}

/// What has ended and was not sent yet.
struct Spans {
    waiting: Mutex<VecDeque<Span>>,
    /// How many were taken out and not delivered yet.
    on_their_way: AtomicUsize,
    wake: Notify,
    told: Arc<dyn Observer>,
}

impl Spans {
    fn push(&self, span: Span) {
        let count = {
            let mut waiting = self.lock();
            if waiting.len() < BUFFERED {
                waiting.push_back(span);
                waiting.len()
            } else {
                BUFFERED + 1
            }
        };
        match count {
            BATCH => self.wake.notify_one(),
            _ if count > BUFFERED => self.dropped(1),
            _ => {}
        }
    }

    fn take(&self) -> Vec<Span> {
        let mut waiting = self.lock();
        let count = waiting.len().min(BATCH);
        waiting.drain(..count).collect()
    }

    fn dropped(&self, count: usize) {
        self.told.observe(&Event::SpansDropped { count });
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<Span>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn send_all(exporter: Exporter, spans: Arc<Spans>, mut stop: watch::Receiver<bool>) {
    let mut is_failing = false;
    loop {
        let is_stopping = *stop.borrow();
        let batch = spans.take();
        if batch.is_empty() && is_stopping {
            return;
        }
        if !batch.is_empty() {
            spans.on_their_way.store(batch.len(), Ordering::Relaxed);
            deliver(&exporter, batch, &spans.told, &mut is_failing).await;
            spans.on_their_way.store(0, Ordering::Relaxed);
        }
        // A whole batch goes at once, and at a stop whatever there is.
        if is_stopping || spans.lock().len() >= BATCH {
            continue;
        }
        tokio::select! {
            biased;
            // A tracer that was dropped takes this task with it.
            _ = stop.wait_for(|stop| *stop) => {}
            () = spans.wake.notified() => {}
            () = sleep(DELAY) => {}
        }
    }
}

/// Sends a batch until the collector has taken or refused it.
async fn deliver(
    exporter: &Exporter,
    batch: Vec<Span>,
    told: &Arc<dyn Observer>,
    is_failing: &mut bool,
) {
    let count = batch.len();
    let body = encode::request(&exporter.service, batch).encode_to_vec();
    let mut pause = FIRST_PAUSE;
    loop {
        let (error, is_lost) = match exporter.post(&body).await {
            Ok(rejected) => {
                if std::mem::take(is_failing) {
                    let dependency = Dependency::Collector;
                    told.observe(&Event::DependencyRecovered { dependency });
                }
                let dropped = count.min(rejected);
                if dropped > 0 {
                    told.observe(&Event::SpansDropped { count: dropped });
                }
                let count = count - dropped;
                return told.observe(&Event::SpansSent { count });
            }
            Err(Refusal::ForNow(error)) => (error, false),
            Err(Refusal::ForGood(error)) => (error, true),
        };
        if !std::mem::replace(is_failing, true) {
            told.observe(&Event::DependencyFailed {
                dependency: Dependency::Collector,
                doing: "send spans",
                error,
            });
        }
        if is_lost {
            return told.observe(&Event::SpansDropped { count });
        }
        sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

/// Why the collector did not take a batch.
enum Refusal {
    /// It may take it later.
    ForNow(String),
    /// It never will.
    ForGood(String),
}

struct Exporter {
    client: Client,
    endpoint: Url,
    headers: HeaderMap,
    /// Who sends.
    service: Vec<KeyValue>,
}

impl Exporter {
    fn new(options: &OtlpOptions) -> Result<Self, OtlpError> {
        let mut client = Client::builder()
            .timeout(options.timeout)
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy();
        if options.endpoint.scheme() == "http" {
            // A machine without certificates must not fail for what it does not need.
            client = client.tls_certs_only([]);
        }
        let mut headers = HeaderMap::new();
        for (name, value) in &options.headers {
            let wrong = || OtlpError::Header(name.clone());
            let key = HeaderName::try_from(name).map_err(|_| wrong())?;
            let mut value = HeaderValue::try_from(value).map_err(|_| wrong())?;
            value.set_sensitive(true);
            headers.insert(key, value);
        }
        let protobuf = HeaderValue::from_static("application/x-protobuf");
        headers.insert(CONTENT_TYPE, protobuf);
        let service = vec![
            encode::text("service.name", &options.service_name),
            encode::text("service.version", env!("CARGO_PKG_VERSION")),
            encode::text("service.instance.id", &Uuid::now_v7().to_string()),
        ];
        Ok(Self {
            client: client.build().map_err(OtlpError::Client)?,
            endpoint: options.endpoint.clone(),
            headers,
            service,
        })
    }

    /// Answers how many spans the collector took note of and rejected.
    async fn post(&self, body: &[u8]) -> Result<usize, Refusal> {
        let mut request = Request::new(reqwest::Method::POST, self.endpoint.clone());
        *request.headers_mut() = self.headers.clone();
        *request.body_mut() = Some(body.to_vec().into());
        let mut answer = match self.client.execute(request).await {
            Ok(answer) => answer,
            Err(error) => return Err(Refusal::ForNow(chain(&error.without_url()))),
        };
        let status = answer.status();
        if status.is_success() {
            // A collector that breaks off in its answer has taken what was sent.
            let body = read(&mut answer).await.unwrap_or_default();
            return Ok(rejected(&body));
        }
        let text = format!("the collector answered {status}");
        // Of all failures the specification has these repeated.
        let is_for_now = [
            StatusCode::TOO_MANY_REQUESTS,
            StatusCode::BAD_GATEWAY,
            StatusCode::SERVICE_UNAVAILABLE,
            StatusCode::GATEWAY_TIMEOUT,
        ]
        .contains(&status);
        Err(if is_for_now {
            Refusal::ForNow(text)
        } else {
            Refusal::ForGood(text)
        })
    }
}

/// The body of an answer; `None` when it breaks off or is too long.
async fn read(answer: &mut Response) -> Option<Vec<u8>> {
    let mut body = Vec::new();
    while let Some(part) = answer.chunk().await.ok()? {
        body.extend_from_slice(&part);
        if body.len() > ANSWER_LIMIT {
            return None;
        }
    }
    Some(body)
}

fn rejected(body: &[u8]) -> usize {
    let answer = ExportTraceServiceResponse::decode(body).unwrap_or_default();
    let partial = answer.partial_success.unwrap_or_default();
    usize::try_from(partial.rejected_spans).unwrap_or(0)
}

/// An error with its causes. The address, which may hold a secret, is not among them.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}
