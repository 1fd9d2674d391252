//! A processing function behind a URL: a service in any language, told of each task by a signed POST.
//!
//! `docs/PROCESSOR-HTTP.md` is for those who write that service. What an answer means:
//!
//! | answer | [`Failure`] |
//! |---|---|
//! | 2xx | none: the body, which must be UTF-8, is the result |
//! | 408, 425, 429 | `Retryable`, or `RetryableAfter` when it says `Retry-After` |
//! | any other 4xx | `Permanent` |
//! | 3xx, 5xx, broken or cut off, none within the time | `Retryable`; 503 may say `Retry-After` too |
//! | cannot be connected to, or the circuit is open | `Unavailable` |

mod answer;
mod circuit;
mod signature;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use ports::{CallOutcome, Clock, Event, Failure, Job, Observer, Processor};
use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, USER_AGENT};
use reqwest::{Client, Response, Url};
use serde::Serialize;
use tokio::sync::Semaphore;
use tokio::time::timeout;

use self::circuit::{Circuit, Verdict};
pub use self::signature::{InvalidSecret, SigningSecret};

/// How long a connection may take to be made. A host that answers nothing at all must not hold a call for its whole time.
const CONNECT: Duration = Duration::from_secs(5);

/// How long a connection is kept for the next call. Shorter than servers keep theirs (two seconds and more), so that no
/// call is sent into a connection that is just being closed.
const KEEP_ALIVE: Duration = Duration::from_secs(1);

/// Where the function is, and the limits of talking to it. `Debug` shows of the address the host alone: the rest may hold
/// a secret.
#[derive(Clone, PartialEq, Eq)]
pub struct HttpProcessorOptions {
    /// Where tasks are posted: `http://` or `https://`.
    pub url: Url,
    /// What requests are signed with; with several, by each of them, so that a receiver can change from one to another.
    pub secrets: Vec<SigningSecret>,
    /// Limits of the calls.
    pub limits: Limits,
}

impl fmt::Debug for HttpProcessorOptions {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("HttpProcessorOptions")
            .field("host", &self.url.host_str())
            .field("secrets", &self.secrets)
            .field("limits", &self.limits)
            .finish_non_exhaustive()
    }
}

/// Limits of the calls of an [`HttpProcessor`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// How long one call may take, from connecting to the last byte of the answer. Default 30 s.
    pub timeout: Duration,
    /// How many calls at once. Default 64.
    pub concurrency: usize,
    /// The longest result in bytes; a longer one is not read to its end. Default 256 KiB.
    pub max_result_bytes: usize,
    /// After how many calls in a row that found the service failing the circuit opens. Default 10.
    pub circuit_failures: u32,
    /// How long the circuit is open before one call tries the service again. Default 5 s.
    pub circuit_pause: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            timeout: Duration::from_secs(30),
            concurrency: 64,
            max_result_bytes: 256 * 1024,
            circuit_failures: 10,
            circuit_pause: Duration::from_secs(5),
        }
    }
}

/// The HTTP client could not be made: the TLS library found no certificates it may trust.
#[derive(Debug, thiserror::Error)]
#[error("the HTTP client of the processing function cannot be made")]
pub struct ClientError(#[source] reqwest::Error);

/// Has tasks processed by a service behind a URL.
///
/// Connections are kept and used again. Proxies that the environment names are not used, redirects are not followed. A
/// call has the deadline of the options in place of the worker's, counted from when its turn has come.
pub struct HttpProcessor {
    client: Client,
    clock: Arc<dyn Clock>,
    observer: Arc<dyn Observer>,
    options: HttpProcessorOptions,
    turns: Semaphore,
    circuit: Circuit,
}

impl fmt::Debug for HttpProcessor {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("HttpProcessor")
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}

/// What is posted.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Call<'job> {
    task_id: String,
    payload: &'job str,
    priority: u8,
    attempt: u32,
}

impl HttpProcessor {
    /// A processor that calls the service of these options, and tells how each call ended. Nothing is connected before the
    /// first task.
    ///
    /// # Errors
    /// [`ClientError`] when the address is `https://` and the machine has no certificates to trust.
    pub fn new(
        options: HttpProcessorOptions,
        clock: Arc<dyn Clock>,
        observer: Arc<dyn Observer>,
    ) -> Result<Self, ClientError> {
        let mut client = Client::builder()
            .connect_timeout(CONNECT.min(options.limits.timeout))
            .pool_idle_timeout(KEEP_ALIVE)
            .redirect(reqwest::redirect::Policy::none())
            .retry(reqwest::retry::never())
            .no_proxy();
        if options.url.scheme() == "http" {
            // A machine without certificates must not fail for what it does not need.
            client = client.tls_certs_only([]);
        }
        Ok(Self {
            client: client.build().map_err(ClientError)?,
            clock,
            turns: Semaphore::new(options.limits.concurrency.max(1)),
            circuit: Circuit::new(
                options.limits.circuit_failures.max(1),
                options.limits.circuit_pause,
                Arc::clone(&observer),
            ),
            observer,
            options,
        })
    }

    /// Waits for its turn, and calls the service unless the circuit is open.
    async fn call_in_turn(&self, job: &Job) -> Result<String, Failure> {
        // The semaphore is never closed.
        let _turn = self.turns.acquire().await.ok();
        let Some(pass) = self.circuit.enter() else {
            return Err(Failure::Unavailable(
                "the processing service keeps failing: the circuit is open".into(),
            ));
        };
        let limit = self.options.limits.timeout;
        let outcome = timeout(limit, self.call(job)).await.unwrap_or_else(|_| {
            let text = format!("the processing service did not answer within {limit:?}");
            Err(Failed::of_the_service(Failure::Retryable(text)).being(CallOutcome::Timeout))
        });
        let (outcome, verdict, result) = match outcome {
            Ok(result) => (CallOutcome::Success, Verdict::Alive, Ok(result)),
            Err(failed) => (failed.outcome, failed.verdict, Err(failed.failure)),
        };
        self.observer.observe(&Event::Called { outcome });
        pass.end(verdict);
        result
    }

    async fn call(&self, job: &Job) -> Result<String, Failed> {
        let (headers, body) = self.request(job)?;
        let request = self
            .client
            .post(self.options.url.clone())
            .headers(headers)
            .body(body);
        let answer = request.send().await.map_err(not_sent)?;
        let status = answer.status();
        if status.is_success() {
            return self.result(answer).await;
        }
        let headers = answer.headers().clone();
        let said = answer::beginning(answer).await;
        Err(answer::refusal(status, &headers, &said, self.clock.now()))
    }

    fn request(&self, job: &Job) -> Result<(HeaderMap, Vec<u8>), Failed> {
        let id = job.id.to_string();
        let body = serde_json::to_vec(&Call {
            task_id: id.clone(),
            payload: job.payload.as_str(),
            priority: job.priority.get(),
            attempt: job.attempt,
        })
        .map_err(not_written)?;
        let seconds = self.clock.now().as_micros().div_euclid(1_000_000);
        let timestamp = seconds.to_string();
        let secrets = &self.options.secrets;
        let signatures = signature::sign_with_all(secrets, &id, &timestamp, &body);
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(USER_AGENT, HeaderValue::from_static("task-processor"));
        for (name, value) in [
            ("webhook-id", id),
            ("webhook-timestamp", timestamp),
            ("webhook-signature", signatures),
        ] {
            let value = HeaderValue::try_from(value).map_err(not_written)?;
            headers.insert(HeaderName::from_static(name), value);
        }
        if let Some(trace) = &job.trace {
            let parent = HeaderValue::try_from(trace.traceparent()).map_err(not_written)?;
            headers.insert("traceparent", parent);
            if let Some(state) = trace.tracestate() {
                let state = HeaderValue::try_from(state).map_err(not_written)?;
                headers.insert("tracestate", state);
            }
        }
        Ok((headers, body))
    }

    async fn result(&self, mut answer: Response) -> Result<String, Failed> {
        let limit = self.options.limits.max_result_bytes;
        let too_long = || {
            let text = format!("the result is longer than the limit of {limit} bytes");
            Failed::of_the_task(Failure::Permanent(text))
        };
        let announced = answer.content_length().unwrap_or(0);
        if usize::try_from(announced).is_ok_and(|announced| announced > limit) {
            return Err(too_long());
        }
        let mut body = Vec::new();
        while let Some(piece) = answer.chunk().await.map_err(broken)? {
            if body.len() + piece.len() > limit {
                return Err(too_long());
            }
            body.extend_from_slice(&piece);
        }
        String::from_utf8(body).map_err(|_| {
            Failed::of_the_task(Failure::Permanent("the result is not UTF-8 text".into()))
        })
    }
}

#[async_trait]
impl Processor for HttpProcessor {
    async fn process(&self, job: Job) -> Result<String, Failure> {
        tokio::select! {
            biased;
            // Nobody looks at this answer. The call is dropped, which closes its connection.
            () = job.cancellation.cancelled() => {
                Err(Failure::Permanent("the task was called off".into()))
            }
            outcome = self.call_in_turn(&job) => outcome,
        }
    }

    fn timeout(&self, _: &Job) -> Option<Duration> {
        // A call has its own; waiting for its turn must not count.
        Some(Duration::ZERO)
    }
}

/// A failure, what it says of the service, and as what it is counted.
struct Failed {
    failure: Failure,
    verdict: Verdict,
    outcome: CallOutcome,
}

impl Failed {
    fn of_the_task(failure: Failure) -> Self {
        Self::new(failure, Verdict::Alive)
    }

    fn of_the_service(failure: Failure) -> Self {
        Self::new(failure, Verdict::Failing)
    }

    fn new(failure: Failure, verdict: Verdict) -> Self {
        let outcome = match &failure {
            Failure::Permanent(_) => CallOutcome::Permanent,
            Failure::RetryableAfter(..) => CallOutcome::Throttled,
            Failure::Unavailable(_) => CallOutcome::Unreachable,
            // `Retryable`, and kinds that a later version of the ports adds.
            _ => CallOutcome::Retryable,
        };
        Self {
            failure,
            verdict,
            outcome,
        }
    }

    /// Counted as something more precise than its failure says.
    fn being(self, outcome: CallOutcome) -> Self {
        Self { outcome, ..self }
    }
}

fn not_written(error: impl fmt::Display) -> Failed {
    let text = format!("the task cannot be written as a request: {error}");
    Failed::of_the_task(Failure::Permanent(text))
}

fn not_sent(error: reqwest::Error) -> Failed {
    let is_connect = error.is_connect();
    let text = causes(error);
    Failed::of_the_service(if is_connect {
        Failure::Unavailable(format!("the processing service cannot be reached: {text}"))
    } else {
        Failure::Retryable(format!("the call of the processing service broke: {text}"))
    })
}

fn broken(error: reqwest::Error) -> Failed {
    let text = causes(error);
    let text = format!("the answer of the processing service broke off: {text}");
    Failed::of_the_service(Failure::Retryable(text))
}

/// An error with its causes, without the address, which may hold a password.
fn causes(error: reqwest::Error) -> String {
    let error = error.without_url();
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(&error);
    while let Some(error) = cause {
        let said = error.to_string();
        if !text.contains(&said) {
            text.push_str(": ");
            text.push_str(&said);
        }
        cause = error.source();
    }
    text
}
