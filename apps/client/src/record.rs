//! Everything about one task, and why it is not done yet.

use reqwest::Method;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::{Client, Error, Repeat, Status};

/// Everything that is known of a task. Times are RFC 3339, as everywhere.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TaskRecord {
    /// The task.
    pub id: Uuid,
    /// The same.
    pub task_id: Uuid,
    /// What is to be processed.
    pub payload: String,
    /// How urgent it is.
    pub priority: u8,
    /// Where it is.
    pub status: Status,
    /// The processed payload, once it is done.
    pub result: Option<String>,
    /// The last error, if there was one.
    pub error: Option<String>,
    /// How many attempts have ended.
    pub attempts: u32,
    /// After how many failed attempts it ends failed.
    pub max_attempts: u32,
    /// How often it was taken back from a worker that died.
    pub rescues: u32,
    /// When it was stored.
    pub created_at: String,
    /// When its status last changed.
    pub updated_at: String,
    /// While it waits: not to be started before this time.
    pub not_before: Option<String>,
    /// While it is in hand: since when.
    pub claimed_at: Option<String>,
    /// While it is in hand: who has it.
    pub worker: Option<String>,
    /// When it came to rest.
    pub finished_at: Option<String>,
    /// When it became done.
    pub processed_at: Option<String>,
    /// Why it is not done yet; `None` when it is.
    pub reason: Option<Reason>,
    /// When it is likely to start; `None` while that is not known, once it has started and at rest.
    pub estimated_start: Option<String>,
}

/// Why a task is not done yet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Reason {
    /// For programs: `behind`, `no-worker`, `backing-off` and the others of the API's description. A newer server may know more.
    pub code: String,
    /// For people.
    pub sentence: String,
    /// With `behind`: how many wait for longer, counted up to 10,000.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ahead: Option<u64>,
    /// With `behind`: whether there are more than were counted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub more_ahead: Option<bool>,
}

impl Client {
    /// Reads everything that is known of a task, and why it is not done yet.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub async fn explain(&self, id: Uuid) -> Result<TaskRecord, Error> {
        let mut url = self.address(&["tasks", &id.to_string()]);
        url.set_query(Some("view=full"));
        let request = || self.http.request(Method::GET, url.clone());
        let timeout = self.options.timeout;
        self.read(self.send(Repeat::Always, timeout, request).await?)
            .await
    }
}
