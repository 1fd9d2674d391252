#![doc = include_str!("../README.md")]
#![warn(missing_docs)]

mod error;
mod list;
mod options;
mod record;
mod task;
mod watch;

use std::time::Duration;

use reqwest::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue};
use reqwest::{Method, RequestBuilder, Response, Url};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::time::{Instant, sleep};
use uuid::Uuid;

pub use error::{Error, FieldError, InvalidOptions, Problem};
pub use list::{Filter, ListedTask, Listing};
pub use options::ClientOptions;
pub use record::{Reason, TaskRecord};
pub use task::{Accepted, Done, Metrics, NewTask, Status, Task, TaskDetails};
pub use watch::{Heard, TaskEvent, Watch};

/// The shortest and the longest pause between two looks at a task.
const LOOK: (Duration, Duration) = (Duration::from_millis(20), Duration::from_secs(1));

const IDEMPOTENCY_KEY: &str = "idempotency-key";

/// The longest time that a server is asked to wait at once: proxies on the way often cut what is silent for a minute.
const LONGEST_WAIT: Duration = Duration::from_secs(30);

/// A client of one server. Cloning it is cheap, and clones share their connections.
#[derive(Clone, Debug)]
pub struct Client {
    http: reqwest::Client,
    base: Url,
    options: ClientOptions,
}

impl Client {
    /// A client of the server at this address, with default limits and no API key.
    ///
    /// # Errors
    /// As [`with_options`](Self::with_options).
    pub fn new(url: &str) -> Result<Self, InvalidOptions> {
        Self::with_options(url, ClientOptions::default())
    }

    /// A client of the server at this address (`http://` or `https://`, perhaps with a path before the API's).
    ///
    /// # Errors
    /// [`InvalidOptions`] when the address is none, the API key cannot stand in a header, or the machine has no certificates
    /// to trust.
    pub fn with_options(url: &str, options: ClientOptions) -> Result<Self, InvalidOptions> {
        let mut base = Url::parse(url).map_err(InvalidOptions::Address)?;
        if !matches!(base.scheme(), "http" | "https") {
            return Err(InvalidOptions::Scheme);
        }
        if !base.path().ends_with('/') {
            let path = format!("{}/", base.path());
            base.set_path(&path);
        }
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
        if let Some(key) = &options.api_key {
            let mut value = HeaderValue::try_from(format!("Bearer {key}"))
                .map_err(|_| InvalidOptions::ApiKey)?;
            value.set_sensitive(true);
            headers.insert(AUTHORIZATION, value);
        }
        let mut http = reqwest::Client::builder()
            .default_headers(headers)
            .user_agent(concat!("task-processor-client/", env!("CARGO_PKG_VERSION")))
            .retry(reqwest::retry::never());
        if base.scheme() == "http" {
            // A machine without certificates must not fail for what it does not need.
            http = http.tls_certs_only([]);
        }
        Ok(Self {
            http: http.build().map_err(InvalidOptions::Client)?,
            base,
            options,
        })
    }

    /// Has a task stored and processed. When this has succeeded the task will come to rest whatever crashes next.
    ///
    /// # Errors
    /// [`Error`]. After [`Error::Unanswered`], or a status of 500 and above, the task may have been stored all the same.
    pub async fn submit(&self, task: &NewTask) -> Result<Accepted, Error> {
        self.post(&["tasks"], None, task).await
    }

    /// The same under an idempotency key, the caller's name for this request: however often it is sent within a day, by this call or by
    /// another one, one task is stored, and the answer is that of the first. So it is sent again when there was no answer.
    ///
    /// # Errors
    /// [`Error`]; [`Error::InvalidKey`] when the key is not one of 1 to 255 visible ASCII characters, and a [`Problem`] with status 422 when it came with
    /// another task before.
    pub async fn submit_keyed(&self, task: &NewTask, key: &str) -> Result<Accepted, Error> {
        self.post(&["tasks"], Some(key), task).await
    }

    /// Has up to 1,000 tasks stored in one commit, all of them or none. Answers them in their order.
    ///
    /// # Errors
    /// As [`submit`](Self::submit); the fields of a [`Problem`] are JSON pointers such as `/3/priority`.
    pub async fn submit_batch(&self, tasks: &[NewTask]) -> Result<Vec<Accepted>, Error> {
        self.post(&["tasks", "batch"], None, tasks).await
    }

    /// The same under an idempotency key: all of them are stored once, however often this is asked for.
    ///
    /// # Errors
    /// As [`submit_batch`](Self::submit_batch), and for the key as [`submit_keyed`](Self::submit_keyed).
    pub async fn submit_batch_keyed(
        &self,
        tasks: &[NewTask],
        key: &str,
    ) -> Result<Vec<Accepted>, Error> {
        self.post(&["tasks", "batch"], Some(key), tasks).await
    }

    async fn post<T: DeserializeOwned>(
        &self,
        path: &[&str],
        key: Option<&str>,
        body: &(impl Serialize + ?Sized),
    ) -> Result<T, Error> {
        let key = key.map(checked).transpose()?;
        let body = serde_json::to_vec(body).map_err(Error::Unwritable)?;
        let request = || {
            let request = self
                .request(Method::POST, path)
                .header(CONTENT_TYPE, "application/json")
                .body(body.clone());
            match &key {
                None => request,
                Some(key) => request.header(IDEMPOTENCY_KEY, key),
            }
        };
        let repeat = match &key {
            None => Repeat::Refused,
            Some(_) => Repeat::Always,
        };
        let timeout = self.options.timeout;
        self.read(self.send(repeat, timeout, request).await?).await
    }

    async fn read_from<T: DeserializeOwned>(&self, path: &[&str]) -> Result<T, Error> {
        let request = || self.request(Method::GET, path);
        let timeout = self.options.timeout;
        self.read(self.send(Repeat::Always, timeout, request).await?)
            .await
    }

    /// Reads a task as it stands.
    ///
    /// # Errors
    /// [`Error`]; an unknown id is a [`Problem`] with status 404.
    pub async fn get(&self, id: Uuid) -> Result<Task, Error> {
        self.read_from(&["tasks", &id.to_string()]).await
    }

    /// Waits until a task is at rest, or until `patience` is at its end: then the task is given back as it stands. The server
    /// answers when it comes to rest; one that does not wait (it is older, or as many wait as may) is asked again after pauses
    /// that grow from 20 ms to 1 s. One that does not answer is asked again for as long as there is patience, however many attempts that takes.
    ///
    /// # Errors
    /// As [`get`](Self::get); what may pass by itself only when the patience is at its end.
    pub async fn wait(&self, id: Uuid, patience: Duration) -> Result<Task, Error> {
        let began = Instant::now();
        let remaining = || patience.saturating_sub(began.elapsed());
        let (mut pause, mut failures) = (LOOK.0, 0);
        loop {
            // After a failure it is asked without waiting: perhaps it was the wait that failed.
            let limit = match failures {
                0 => remaining().min(LONGEST_WAIT),
                _ => Duration::ZERO,
            };
            let asked = Instant::now();
            let outcome = match self.wait_once(id, limit).await {
                Err(error) if error.is_problem("too-many-waiters") => {
                    self.wait_once(id, Duration::ZERO).await
                }
                outcome => outcome,
            };
            let left = remaining();
            match outcome {
                Ok(task) if task.is_at_rest() || left.is_zero() => return Ok(task),
                Ok(_) => {
                    failures = 0;
                    if asked.elapsed() >= limit / 2 {
                        pause = LOOK.0;
                        continue;
                    }
                    sleep(pause.min(left)).await;
                    pause = (pause * 2).min(LOOK.1);
                }
                Err(error) if error.is_transient() && !left.is_zero() => {
                    failures += 1;
                    let pause = self.options.pause(failures, error.retry_after());
                    sleep(pause.min(left)).await;
                }
                Err(error) => return Err(error),
            }
        }
    }

    async fn wait_once(&self, id: Uuid, limit: Duration) -> Result<Task, Error> {
        let mut url = self.address(&["tasks", &id.to_string()]);
        if !limit.is_zero() {
            url.set_query(Some(&format!("wait={}ms", limit.as_millis())));
        }
        let timeout = self.options.timeout.saturating_add(limit);
        let request = self.http.request(Method::GET, url);
        self.read(self.send_once(timeout, request).await?).await
    }

    /// Goes through the tasks that match, the newest first. Nothing is asked before the first call of [`Listing::next`].
    #[must_use]
    pub fn list(&self, filter: Filter) -> Listing {
        Listing::new(self, filter)
    }

    /// Follows one task, or all: what happens after this call comes to [`Watch::next`].
    ///
    /// # Errors
    /// [`Error`]; a server without events answers a [`Problem`] with status 404.
    pub async fn watch(&self, task: Option<Uuid>) -> Result<Watch, Error> {
        Watch::open(self, task, None).await
    }

    /// The same from behind the event of this id ([`Heard::Event`]), which this or another process heard last, at any server. When the servers have
    /// no longer all of what happened since, the first thing heard is [`Heard::Missed`].
    ///
    /// # Errors
    /// As [`watch`](Self::watch).
    pub async fn watch_after(&self, task: Option<Uuid>, id: u64) -> Result<Watch, Error> {
        Watch::open(self, task, Some(id)).await
    }

    /// Calls a task off. Repeating it changes nothing.
    ///
    /// # Errors
    /// [`Error`]; of a task that is done or failed it is a [`Problem`] with status 409 that names the state.
    pub async fn cancel(&self, id: Uuid) -> Result<TaskDetails, Error> {
        self.command(id, "cancel", Repeat::Always).await
    }

    /// Puts a failed task back in the queue, with its attempts counted from 0.
    ///
    /// # Errors
    /// [`Error`]; of a task that has not failed it is a [`Problem`] with status 409 that names the state. After
    /// [`Error::Unanswered`] it may have been put back all the same.
    pub async fn retry(&self, id: Uuid) -> Result<TaskDetails, Error> {
        self.command(id, "retry", Repeat::Refused).await
    }

    async fn command(&self, id: Uuid, verb: &str, repeat: Repeat) -> Result<TaskDetails, Error> {
        let path = ["tasks", &id.to_string(), verb];
        let request = || self.request(Method::POST, &path);
        self.read(self.send(repeat, self.options.timeout, request).await?)
            .await
    }

    /// Numbers over all tasks.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn metrics(&self) -> Result<Metrics, Error> {
        self.read_from(&["metrics"]).await
    }

    fn request(&self, method: Method, path: &[&str]) -> RequestBuilder {
        self.http.request(method, self.address(path))
    }

    fn address(&self, path: &[&str]) -> Url {
        let mut url = self.base.clone();
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().extend(path);
        }
        url
    }

    /// Sends until it is answered in a way that another attempt would not change, or the attempts are used up.
    async fn send(
        &self,
        repeat: Repeat,
        timeout: Duration,
        request: impl Fn() -> RequestBuilder,
    ) -> Result<Response, Error> {
        let mut attempt = 1;
        loop {
            let outcome = self.send_once(timeout, request()).await;
            let error = match outcome {
                Ok(response) => return Ok(response),
                Err(error) => error,
            };
            if attempt >= self.options.attempts || !repeat.allows(&error) {
                return Err(error);
            }
            sleep(self.options.pause(attempt, error.retry_after())).await;
            attempt += 1;
        }
    }

    async fn send_once(
        &self,
        timeout: Duration,
        request: RequestBuilder,
    ) -> Result<Response, Error> {
        let response = request
            .timeout(timeout)
            .send()
            .await
            .map_err(Error::unanswered)?;
        if response.status().is_success() {
            Ok(response)
        } else {
            Err(Error::refused(response).await)
        }
    }

    async fn read<T: DeserializeOwned>(&self, response: Response) -> Result<T, Error> {
        let status = response.status();
        let body = response.bytes().await.map_err(Error::unanswered)?;
        serde_json::from_slice(&body).map_err(|cause| Error::Unreadable {
            status: status.as_u16(),
            cause: Some(cause),
        })
    }
}

/// An idempotency key that a server takes.
fn checked(key: &str) -> Result<HeaderValue, Error> {
    let is_one = (1..=255).contains(&key.len()) && key.bytes().all(|byte| byte.is_ascii_graphic());
    let value = HeaderValue::from_str(key).ok().filter(|_| is_one);
    value.ok_or(Error::InvalidKey)
}

/// When a request may be sent again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Repeat {
    /// Whatever became of it: doing it twice is doing it once.
    Always,
    /// Only when the server says that it did not do it, or cannot have received it.
    Refused,
}

impl Repeat {
    fn allows(self, error: &Error) -> bool {
        match self {
            Self::Always => error.is_transient(),
            Self::Refused => {
                let nothing_was_done =
                    error.status() == Some(429) || error.is_problem("overloaded");
                error.is_unreached() || nothing_was_done
            }
        }
    }
}
