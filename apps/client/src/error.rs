//! Why there is no answer to work with.

use std::fmt;
use std::time::Duration;

use reqwest::Response;
use reqwest::header::RETRY_AFTER;
use serde::{Deserialize, Serialize};

use crate::task::Status;

/// A client that cannot be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidOptions {
    /// The address cannot be read.
    #[error("the address is not a URL")]
    Address(#[source] url::ParseError),
    /// The address is none of HTTP.
    #[error("the address must begin with http:// or https://")]
    Scheme,
    /// The API key has characters that cannot be sent.
    #[error("the API key has characters that cannot stand in a header")]
    ApiKey,
    /// The HTTP client cannot be made.
    #[error("the HTTP client cannot be made")]
    Client(#[source] reqwest::Error),
}

/// Why a request has no result.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The server refused, and says why.
    #[error("{0}")]
    Refused(Box<Problem>),
    /// There is no answer: the server cannot be reached, took too long, or broke off.
    #[error("the server did not answer")]
    Unanswered(#[source] Box<reqwest::Error>),
    /// The answer is none of this API's: something else answers at this address.
    #[error("the answer, with status {status}, is none of Task Processor's")]
    Unreadable {
        /// The status of the answer.
        status: u16,
        /// What is wrong with its body; `None` when a failure came without a problem document.
        #[source]
        cause: Option<serde_json::Error>,
    },
    /// The idempotency key is none that a server takes; nothing was sent.
    #[error("an idempotency key has 1 to 255 visible ASCII characters")]
    InvalidKey,
    /// A stream of events did not begin within the time that one request may take.
    #[error("the server did not answer in time")]
    Late,
    /// What was to be sent cannot be written as JSON.
    #[error("the request cannot be written")]
    Unwritable(#[source] serde_json::Error),
}

/// What a server says of a request that it refuses: a problem document (RFC 9457).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Problem {
    /// Names the kind of problem: `urn:task-processor:problem:…`, or `about:blank` where the status says it all.
    #[serde(rename = "type", default)]
    pub kind: String,
    /// The kind of problem in words.
    pub title: String,
    /// The status code of the answer.
    pub status: u16,
    /// What went wrong this time.
    #[serde(default)]
    pub detail: String,
    /// Every wrong field.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<FieldError>,
    /// The state of the task, when it does not allow what was asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task_status: Option<Status>,
    /// When the server asks to be asked again (`Retry-After`).
    #[serde(skip)]
    pub retry_after: Option<Duration>,
}

/// A wrong field.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FieldError {
    /// The name of the field; in a batch, a JSON pointer such as `/3/priority`.
    pub field: String,
    /// What is wrong with it.
    pub detail: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}", self.title)?;
        if !self.detail.is_empty() && self.detail != self.title {
            write!(formatter, ": {}", self.detail)?;
        }
        for error in &self.errors {
            write!(formatter, "; {} {}", error.field, error.detail)?;
        }
        Ok(())
    }
}

impl Error {
    pub(crate) fn unanswered(error: reqwest::Error) -> Self {
        Self::Unanswered(Box::new(error))
    }

    /// Reads why a request was refused.
    pub(crate) async fn refused(response: Response) -> Self {
        let status = response.status().as_u16();
        let retry_after = response
            .headers()
            .get(RETRY_AFTER)
            .and_then(|value| value.to_str().ok()?.trim().parse().ok())
            .map(Duration::from_secs);
        let Ok(body) = response.bytes().await else {
            return Self::Unreadable {
                status,
                cause: None,
            };
        };
        match serde_json::from_slice::<Problem>(&body) {
            Ok(problem) => Self::Refused(Box::new(Problem {
                retry_after,
                ..problem
            })),
            Err(_) => Self::Unreadable {
                status,
                cause: None,
            },
        }
    }

    /// The status of the answer; `None` when there is no answer.
    #[must_use]
    pub fn status(&self) -> Option<u16> {
        match self {
            Self::Refused(problem) => Some(problem.status),
            Self::Unreadable { status, .. } => Some(*status),
            Self::Unanswered(_) | Self::Late | Self::InvalidKey | Self::Unwritable(_) => None,
        }
    }

    /// What the server said, if it refused.
    #[must_use]
    pub fn problem(&self) -> Option<&Problem> {
        match self {
            Self::Refused(problem) => Some(problem),
            _ => None,
        }
    }

    /// Whether there is no answer, so that what became of the request is not known.
    #[must_use]
    pub const fn is_unanswered(&self) -> bool {
        matches!(self, Self::Unanswered(_) | Self::Late)
    }

    /// Whether the same request may succeed later, without anything being changed about it: there is no answer, or it is `429`, `502`, `503` or
    /// `504`.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        self.is_unanswered() || matches!(self.status(), Some(429 | 502..=504))
    }

    /// Whether the server cannot have received the request.
    #[must_use]
    pub fn is_unreached(&self) -> bool {
        matches!(self, Self::Unanswered(error) if error.is_connect())
    }

    /// Whether the server refused with the problem of this name.
    pub(crate) fn is_problem(&self, name: &str) -> bool {
        let kind = self.problem().map(|problem| problem.kind.as_str());
        kind.and_then(|kind| kind.strip_prefix("urn:task-processor:problem:")) == Some(name)
    }

    pub(crate) fn retry_after(&self) -> Option<Duration> {
        self.problem()?.retry_after
    }
}
