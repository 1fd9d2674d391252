//! What is sent and what is answered. Times are RFC 3339, UTC, with milliseconds: `2025-01-01T00:00:02.345Z`.

use std::fmt;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// A task to be stored and processed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NewTask {
    /// What to process: any text without U+0000.
    pub payload: String,
    /// How urgent it is, 0 to 10; 0 if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub priority: Option<u8>,
    /// Not to be started before this time (RFC 3339, any offset).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run_at: Option<String>,
    /// After how many failed attempts it ends failed, 1 to 100; the server's default if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_attempts: Option<u32>,
}

impl NewTask {
    /// A task with this payload and everything else left to the server.
    #[must_use]
    pub fn new(payload: impl Into<String>) -> Self {
        Self {
            payload: payload.into(),
            ..Self::default()
        }
    }
}

/// A task that is stored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Accepted {
    /// The id to ask for it with.
    pub id: Uuid,
    /// `pending`.
    pub status: Status,
    /// When it was stored.
    pub created_at: String,
}

/// Where a task is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// Waits.
    Pending,
    /// Is in hand.
    Processing,
    /// Has its result.
    Done,
    /// Gave up; at rest until someone retries it.
    Failed,
    /// Called off.
    Cancelled,
}

impl Status {
    /// Every status there is.
    pub const ALL: [Self; 5] = [
        Self::Pending,
        Self::Processing,
        Self::Done,
        Self::Failed,
        Self::Cancelled,
    ];

    /// The status of this name, as the API writes it.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|status| status.as_str() == name)
    }

    /// The name, as the API writes it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Processing => "processing",
            Self::Done => "done",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }
}

impl Status {
    /// Whether nothing will happen to the task by itself any more.
    #[must_use]
    pub const fn is_at_rest(self) -> bool {
        matches!(self, Self::Done | Self::Failed | Self::Cancelled)
    }
}

impl fmt::Display for Status {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(self.as_str())
    }
}

/// A task as it stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Task {
    /// It has its result.
    Done(Done),
    /// It has none.
    Open(TaskDetails),
}

/// The result of a task.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Done {
    /// The task.
    pub task_id: Uuid,
    /// The processed payload.
    pub result: String,
    /// When it became done.
    pub processed_at: String,
}

/// A task without a result: waiting, in hand, failed or cancelled.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TaskDetails {
    /// The task.
    pub id: Uuid,
    /// What is to be processed.
    pub payload: String,
    /// How urgent it is.
    pub priority: u8,
    /// Where it is.
    pub status: Status,
    /// When it was stored.
    pub created_at: String,
    /// When its status last changed.
    pub updated_at: String,
    /// How many attempts have failed.
    pub attempts: u32,
    /// Why the last one did, if the task failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

impl Task {
    /// Its id.
    #[must_use]
    pub const fn id(&self) -> Uuid {
        match self {
            Self::Done(done) => done.task_id,
            Self::Open(task) => task.id,
        }
    }

    /// Where it is.
    #[must_use]
    pub const fn status(&self) -> Status {
        match self {
            Self::Done(_) => Status::Done,
            Self::Open(task) => task.status,
        }
    }

    /// Whether nothing will happen to it by itself any more.
    #[must_use]
    pub const fn is_at_rest(&self) -> bool {
        self.status().is_at_rest()
    }
}

/// Numbers over all tasks that ever became done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Metrics {
    /// How many.
    pub total_tasks: u64,
    /// The mean time from creation to completion in milliseconds; `None` while there are none.
    pub average_processing_time_ms: Option<i64>,
}
