//! Following tasks across interruptions.

use std::time::Duration;

use reqwest::header::{ACCEPT, HeaderValue};
use reqwest::{Method, Response};
use serde::{Deserialize, Serialize};
use tokio::time::{sleep, timeout};
use uuid::Uuid;

use crate::{Client, Error, Repeat, Status};

/// A server that lives says so every 15 s; after this silence another connection is made.
const SILENCE: Duration = Duration::from_secs(45);

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
    Event(TaskEvent),
    /// Events before the next one are missing: whatever must be known has to be read.
    Missed,
}

/// Follows tasks. Made by [`Client::watch`].
#[derive(Debug)]
pub struct Watch {
    client: Client,
    task: Option<Uuid>,
    last_id: Option<String>,
    stream: Option<Response>,
    unread: Vec<u8>,
}

impl Watch {
    pub(crate) async fn open(client: &Client, task: Option<Uuid>) -> Result<Self, Error> {
        let mut watch = Self {
            client: client.clone(),
            task,
            last_id: None,
            stream: None,
            unread: Vec::new(),
        };
        watch.stream = Some(watch.connect().await?);
        Ok(watch)
    }

    /// Waits for the next event. A connection that ends is made anew and goes on behind the last event.
    ///
    /// # Errors
    /// [`Error`] when no server can be reached, after the attempts that the options allow.
    pub async fn next(&mut self) -> Result<Heard, Error> {
        loop {
            while let Some(message) = self.take_message() {
                if let Some(heard) = self.read(&message) {
                    return Ok(heard);
                }
            }
            let Some(stream) = &mut self.stream else {
                self.unread.clear();
                self.stream = Some(self.connect_patiently().await?);
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

    async fn connect_patiently(&self) -> Result<Response, Error> {
        let options = &self.client.options;
        let mut attempt = 1;
        loop {
            let error = match self.connect().await {
                Ok(stream) => return Ok(stream),
                Err(error) => error,
            };
            if attempt >= options.attempts || !Repeat::Always.allows(&error) {
                return Err(error);
            }
            sleep(options.pause(attempt, error.retry_after())).await;
            attempt += 1;
        }
    }

    async fn connect(&self) -> Result<Response, Error> {
        let mut url = self.client.address(&["events"]);
        if let Some(task) = self.task {
            url.set_query(Some(&format!("task={task}")));
        }
        let mut request = self
            .client
            .http
            .request(Method::GET, url)
            .header(ACCEPT, HeaderValue::from_static("text/event-stream"));
        if let Some(id) = &self.last_id {
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
            match line.split_once(": ") {
                Some(("id", id)) => self.last_id = Some(id.to_owned()),
                Some(("event", value)) => name = value,
                Some(("data", value)) => data = Some(value),
                _ => {}
            }
        }
        match name {
            "message" => serde_json::from_str(data?).ok().map(Heard::Event),
            "reset" => Some(Heard::Missed),
            _ => None,
        }
    }
}
