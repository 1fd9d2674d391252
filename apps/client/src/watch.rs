//! Following tasks across interruptions.

use std::time::Duration;

use reqwest::header::{ACCEPT, HeaderValue};
use reqwest::{Method, Response};
use serde::{Deserialize, Serialize};
use tokio::time::{Instant, sleep, timeout};
use uuid::Uuid;

use crate::{Client, Error, Status};

/// A server that lives says so every 15 s; after this silence another connection is made.
const SILENCE: Duration = Duration::from_secs(45);

/// How long a server is looked for when the caller does not say.
const PATIENCE: Duration = Duration::from_secs(60);

/// No message of the server is as long. What is longer is not from Task Processor.
const LONGEST_MESSAGE: usize = 64 * 1024;

/// A task came to this state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TaskEvent {
    /// The task.
    pub task_id: Uuid,
    /// Where it is now.
    pub status: Status,
    /// Rises with every change of the task: of two events the higher is later, however they arrive.
    pub revision: i64,
    /// When it came there.
    pub at: String,
}

/// What comes to who follows tasks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Heard {
    /// A change of state.
    Event {
        /// Its place among all events: [`Client::watch_after`] goes on behind it.
        id: u64,
        /// What changed.
        event: TaskEvent,
    },
    /// Events before the next one are missing: whatever must be known has to be read.
    Missed,
}

/// Follows tasks. Made by [`Client::watch`].
#[derive(Debug)]
pub struct Watch {
    client: Client,
    task: Option<Uuid>,
    /// As the server gave it; in an empty topic it is before the first.
    last_id: Option<i64>,
    stream: Option<Response>,
    unread: Vec<u8>,
    patience: Duration,
    /// How long the server asks to wait before another connection (`retry:`).
    pace: Duration,
}

impl Watch {
    pub(crate) async fn open(
        client: &Client,
        task: Option<Uuid>,
        last_id: Option<u64>,
    ) -> Result<Self, Error> {
        let mut watch = Self {
            client: client.clone(),
            task,
            last_id: last_id.map(|id| i64::try_from(id).unwrap_or(i64::MAX)),
            stream: None,
            unread: Vec::new(),
            patience: PATIENCE,
            pace: Duration::ZERO,
        };
        let attempts = client.options.attempts;
        let stream = watch.connect(|attempt| attempt < attempts).await?;
        watch.stream = Some(stream);
        Ok(watch)
    }

    /// The same, looking this long for a server when a connection has ended. Default a minute; [`Duration::MAX`] for ever.
    #[must_use]
    pub const fn with_patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// Waits for the next event. A connection that ends is made anew, at the pace that the server has asked for, and goes on behind the last event.
    ///
    /// # Errors
    /// [`Error`] when for as long as there is patience no server could be reached, or one refuses. Called again, it looks again.
    pub async fn next(&mut self) -> Result<Heard, Error> {
        loop {
            while let Some(message) = self.take_message() {
                if let Some(heard) = self.read(&message) {
                    return Ok(heard);
                }
            }
            let Some(stream) = &mut self.stream else {
                self.unread.clear();
                let lost = Instant::now();
                sleep(self.client.options.pause(1, Some(self.pace))).await;
                let stream = self.connect(|_| lost.elapsed() < self.patience).await?;
                self.stream = Some(stream);
                continue;
            };
            match timeout(SILENCE, stream.chunk()).await {
                Ok(Ok(Some(bytes))) if self.unread.len() < LONGEST_MESSAGE => {
                    self.unread.extend_from_slice(&bytes);
                }
                _ => self.stream = None,
            }
        }
    }

    /// Connects, again and again while `goes_on` after that many attempts.
    async fn connect(&self, goes_on: impl Fn(u32) -> bool) -> Result<Response, Error> {
        let options = &self.client.options;
        let mut attempt = 1;
        loop {
            let outcome = timeout(options.timeout, self.connect_once()).await;
            let error = match outcome.unwrap_or(Err(Error::Late)) {
                Ok(stream) => return Ok(stream),
                Err(error) => error,
            };
            if !error.is_transient() || !goes_on(attempt) {
                return Err(error);
            }
            let asked = error.retry_after().unwrap_or_default().max(self.pace);
            sleep(options.pause(attempt, Some(asked))).await;
            attempt = attempt.saturating_add(1);
        }
    }

    async fn connect_once(&self) -> Result<Response, Error> {
        let mut url = self.client.address(&["events"]);
        if let Some(task) = self.task {
            url.set_query(Some(&format!("task={task}")));
        }
        let mut request = self
            .client
            .http
            .request(Method::GET, url)
            // Who asks for `text/event-stream` by name is taken for a browser, and told in a stream what others are told in a refusal.
            .header(ACCEPT, HeaderValue::from_static("*/*"));
        if let Some(id) = self.last_id {
            request = request.header("Last-Event-ID", id);
        }
        let response = request.send().await.map_err(Error::unanswered)?;
        if response.status().is_success() {
            Ok(response)
        } else {
            Err(Error::refused(response).await)
        }
    }

    /// The next whole message; its end is an empty line.
    fn take_message(&mut self) -> Option<String> {
        let end = self.unread.windows(2).position(|pair| pair == b"\n\n")?;
        let message: Vec<u8> = self.unread.drain(..end + 2).collect();
        Some(String::from_utf8_lossy(&message).into_owned())
    }

    fn read(&mut self, message: &str) -> Option<Heard> {
        let (mut name, mut data) = ("message", None);
        for line in message.lines() {
            let (field, value) = line.split_once(':').unwrap_or((line, ""));
            let value = value.strip_prefix(' ').unwrap_or(value);
            match field {
                // An empty one takes back the last.
                "id" => self.last_id = value.parse().ok(),
                "event" => name = value,
                "data" => data = Some(value),
                "retry" => self.pace = value.parse().map_or(self.pace, Duration::from_millis),
                _ => {}
            }
        }
        match name {
            "message" => Some(Heard::Event {
                id: self.last_id?.try_into().ok()?,
                event: serde_json::from_str(data?).ok()?,
            }),
            "reset" => Some(Heard::Missed),
            _ => None,
        }
    }
}
