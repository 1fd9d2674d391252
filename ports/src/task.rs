//! The task and the values it is made of. What makes one value valid is decided here, once, when it is parsed.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use uuid::Uuid;

use crate::time::Timestamp;

/// The identity of a task: a UUID. New ones are version 7; any version is accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TaskId(pub Uuid);

impl TaskId {
    /// The smallest version 7 id of this millisecond: ids of version 7 are in the order of the times at which they were made.
    #[must_use]
    pub fn first_at(time: Timestamp) -> Self {
        /// As many bits as such an id has for its time.
        const LATEST: u128 = (1 << 48) - 1;
        let millis = u128::try_from(time.as_micros().div_euclid(1_000)).unwrap_or(0);
        Self(Uuid::from_u128(millis.min(LATEST) << 80))
    }

    /// The millisecond at which an id of version 7 was made; of another version it says nothing.
    #[must_use]
    pub fn made_at(self) -> Timestamp {
        let millis = i64::try_from(self.0.as_u128() >> 80).unwrap_or(i64::MAX);
        Timestamp::from_micros(millis.saturating_mul(1_000))
    }
}

impl fmt::Display for TaskId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.hyphenated().fmt(formatter)
    }
}

impl FromStr for TaskId {
    type Err = uuid::Error;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Uuid::parse_str(text).map(Self)
    }
}

/// What a task is about: any text without the NUL character, which PostgreSQL cannot store.
///
/// Size limits belong to the edges (`submit` has one, the HTTP body another); rows that exist are read whatever their
/// size. A clone costs the same whatever its length: the text is shared.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Payload(Arc<String>);

/// The text holds a NUL character (U+0000).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("must not contain the NUL character (U+0000)")]
pub struct InvalidPayload;

impl Payload {
    /// Accepts any text without NUL.
    ///
    /// # Errors
    /// [`InvalidPayload`] when the text holds U+0000.
    pub fn new(text: impl Into<String>) -> Result<Self, InvalidPayload> {
        let text = text.into();
        if text.contains('\0') {
            return Err(InvalidPayload);
        }
        Ok(Self(Arc::new(text)))
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The text, owned; copied when it is shared.
    #[must_use]
    pub fn into_string(self) -> String {
        Arc::unwrap_or_clone(self.0)
    }
}

/// How urgent a task is among those that a worker takes at once: 0 (lowest, the default) to 10.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Priority(u8);

/// The number lies outside 0..=10.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("must be an integer from 0 to 10")]
pub struct InvalidPriority;

impl Priority {
    /// The highest priority.
    pub const MAX: Self = Self(10);

    /// Accepts 0..=10.
    ///
    /// # Errors
    /// [`InvalidPriority`] for any other number.
    pub fn new(value: i64) -> Result<Self, InvalidPriority> {
        match u8::try_from(value) {
            Ok(small) if small <= Self::MAX.0 => Ok(Self(small)),
            _ => Err(InvalidPriority),
        }
    }

    /// The nearest valid priority: rows of an adopted table may hold any integer.
    #[must_use]
    pub fn clamped(value: i64) -> Self {
        Self(u8::try_from(value.clamp(0, i64::from(Self::MAX.0))).unwrap_or(0))
    }

    /// The number.
    #[must_use]
    pub const fn get(self) -> u8 {
        self.0
    }
}

/// Where a task is in its life. The legal moves are a table in the domain's `lifecycle`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TaskStatus {
    /// Waits in the queue.
    Pending,
    /// In the hands of a worker, recorded in a claim.
    Processing,
    /// Has its result; final.
    Done,
    /// Gave up; at rest until someone retries it.
    Failed,
    /// Called off; final.
    Cancelled,
}

impl TaskStatus {
    /// Every status, in the order of the contract.
    pub const ALL: [Self; 5] = [
        Self::Pending,
        Self::Processing,
        Self::Done,
        Self::Failed,
        Self::Cancelled,
    ];

    /// The name used in JSON and in the database.
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

    /// The status of that name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|status| status.as_str() == name)
    }

    /// Whether nothing will happen to the task by itself any more.
    #[must_use]
    pub const fn is_at_rest(self) -> bool {
        matches!(self, Self::Done | Self::Failed | Self::Cancelled)
    }
}

impl fmt::Display for TaskStatus {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

/// A number that rises by one at every transition of a task and never falls.
///
/// Whoever wants to move a task names the fence it saw; if the task moved since, the write is [`Stale`].
///
/// [`Stale`]: crate::store::WriteOutcome::Stale
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Fence(pub i64);

impl Fence {
    /// The fence after one transition.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

/// A task to be stored. The caller makes the id, so that an insert whose answer was lost can be repeated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewTask {
    /// The identity; repeating an insert under the same id changes nothing.
    pub id: TaskId,
    /// What to process.
    pub payload: Payload,
    /// How urgent.
    pub priority: Priority,
    /// After how many failed attempts the task ends `failed`; at least 1.
    pub max_attempts: u32,
    /// Not to be claimed before this time; `None` is at once.
    pub run_at: Option<Timestamp>,
    /// Whether a message for it is about to be published. Claiming by age then waits a grace longer.
    pub messaged: bool,
}

/// The whole record of a task.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Task {
    /// Identity.
    pub id: TaskId,
    /// What to process.
    pub payload: Payload,
    /// How urgent.
    pub priority: Priority,
    /// Where it is in its life.
    pub status: TaskStatus,
    /// The processed text; `Some` exactly when `status` is `done`.
    pub result: Option<String>,
    /// The last error, kept while the task is retried and when it failed.
    pub error: Option<String>,
    /// Attempts that ended by themselves: in success, failure or timeout. Not counted: hand-backs and rescues.
    pub attempts: u32,
    /// After how many failed attempts it ends `failed`.
    pub max_attempts: u32,
    /// How often it was taken back from a worker that died with it in hand.
    pub rescues: u32,
    /// Rises at every transition.
    pub fence: Fence,
    /// When it was stored (store's clock).
    pub created_at: Timestamp,
    /// When it last moved (store's clock); of a done task, when it became done.
    pub updated_at: Timestamp,
}

impl Task {
    /// The result as clients, cache and `tasks-output` show it; `None` unless the task is done.
    #[must_use]
    pub fn to_result(&self) -> Option<TaskResult> {
        match (self.status, &self.result) {
            (TaskStatus::Done, Some(result)) => Some(TaskResult {
                id: self.id,
                result: result.clone(),
                processed_at: self.updated_at,
            }),
            _ => None,
        }
    }
}

/// What came of a done task. Final: two results of one id are equal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TaskResult {
    /// The task.
    pub id: TaskId,
    /// The processed text.
    pub result: String,
    /// When it became done (store's clock).
    pub processed_at: Timestamp,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn priority_accepts_exactly_0_to_10() {
        for value in 0..=10 {
            assert_eq!(Priority::new(value).map(|p| i64::from(p.get())), Ok(value));
        }
        for value in [-1, 11, 256, i64::MIN, i64::MAX] {
            assert_eq!(Priority::new(value), Err(InvalidPriority));
        }
        assert_eq!(Priority::clamped(-7).get(), 0);
        assert_eq!(Priority::clamped(99).get(), 10);
    }

    #[test]
    fn the_first_id_of_a_time_stands_before_every_other_of_it() {
        let time = |micros| TaskId::first_at(Timestamp::from_micros(micros)).to_string();
        assert_eq!(
            time(1_735_689_602_345_999),
            "01941f29-8529-0000-0000-000000000000"
        );
        assert_eq!(time(i64::MIN), "00000000-0000-0000-0000-000000000000");
        assert_eq!(time(i64::MAX), "ffffffff-ffff-0000-0000-000000000000");
    }

    #[test]
    fn an_id_tells_when_it_was_made() {
        let id: TaskId = "01941f29-8529-7abc-8def-0123456789ab"
            .parse()
            .expect("an id");
        assert_eq!(id.made_at().as_micros(), 1_735_689_602_345_000);
        assert_eq!(TaskId::first_at(id.made_at()).made_at(), id.made_at());
        assert_eq!(TaskId(Uuid::nil()).made_at(), Timestamp::EPOCH);
        assert!(TaskId(Uuid::max()).made_at() > id.made_at());
    }

    #[test]
    fn payload_refuses_nul_only() {
        assert_eq!(Payload::new("a\0b"), Err(InvalidPayload));
        assert_eq!(
            Payload::new("").map(Payload::into_string),
            Ok(String::new())
        );
        assert_eq!(
            Payload::new("👍🏽é\u{1}").map(Payload::into_string),
            Ok("👍🏽é\u{1}".into())
        );
    }

    #[test]
    fn a_clone_of_a_payload_shares_its_text() {
        let payload = Payload::new("large").expect("no NUL");
        let copy = payload.clone();
        assert!(std::ptr::eq(copy.as_str(), payload.as_str()));
        assert_eq!(copy.into_string(), "large");
        assert_eq!(payload.into_string(), "large");
    }

    #[test]
    fn status_names_round_trip() {
        for status in TaskStatus::ALL {
            assert_eq!(TaskStatus::from_name(status.as_str()), Some(status));
        }
        assert_eq!(TaskStatus::from_name("Done"), None);
    }
}
