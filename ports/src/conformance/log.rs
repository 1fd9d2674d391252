//! The suite of [`TaskPublisher`](crate::TaskPublisher) and [`TaskFeed`](crate::TaskFeed): what goes in at one end of
//! `tasks-input` comes out at the other.

use std::sync::Arc;

use async_trait::async_trait;

use crate::announcer::Announcer;
use crate::feed::TaskFeed;
use crate::publisher::{TaskMessage, TaskPublisher};
use crate::task::{Priority, TaskId, TaskResult};

use super::{fresh_id, payload};

/// A record as it stands on `tasks-output`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutputRecord {
    /// The record's key.
    pub key: Option<Vec<u8>>,
    /// The record's value, read.
    pub result: TaskResult,
}

/// A record as it stands on `tasks-dead-letter`; its times and position are not compared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadLetterRecord {
    /// The record's key.
    pub key: Option<Vec<u8>>,
    /// Why it is there: never empty.
    pub reason: String,
    /// The bytes of the unreadable record's value (`value`, decoded as `valueEncoding` says); for a failed task the
    /// value of the message that would announce it, or whatever else the adapter keeps there.
    pub value: Option<Vec<u8>>,
    /// The task, for a failed one.
    pub task: Option<TaskId>,
    /// Attempts that ended, for a failed task.
    pub attempts: Option<u32>,
    /// The last error, for a failed task.
    pub error: Option<String>,
}

/// A fresh, empty log (topics of its own) with everything that writes to it and reads from it. Has at least two
/// partitions of `tasks-input` and room for 10,000 records there.
#[async_trait]
pub trait Subject: Send + Sync + 'static {
    /// Writes `tasks-input`.
    fn publisher(&self) -> Arc<dyn TaskPublisher>;

    /// Writes `tasks-output` and `tasks-dead-letter`.
    fn announcer(&self) -> Arc<dyn Announcer>;

    /// Starts a reader of `tasks-input` in the subject's one consumer group, which begins at the earliest record when
    /// the group has acknowledged nothing. The suite drops one feed before it starts the next, which is how it plays a
    /// crash: that drop must give up membership without acknowledging anything.
    async fn feed(&self) -> Box<dyn TaskFeed>;

    /// Writes a record to `tasks-input` as it is, on a partition of the adapter's choice; `None` as value is a tombstone.
    /// An adapter whose log cannot hold such bytes plants whatever comes out of its feed as
    /// [`RecordContent::Unreadable`](crate::RecordContent::Unreadable) with this key and value.
    async fn put_raw(&self, key: Option<Vec<u8>>, value: Option<Vec<u8>>);

    /// Everything on `tasks-output` from its beginning; waits (some seconds at most) until there are `at_least` records.
    async fn outputs(&self, at_least: usize) -> Vec<OutputRecord>;

    /// Everything on `tasks-dead-letter` from its beginning; waits (some seconds at most) until there are `at_least`
    /// records.
    async fn dead_letters(&self, at_least: usize) -> Vec<DeadLetterRecord>;

    /// Gives back what the subject holds (its topics, for example). Called after the case, failed or not.
    async fn close(&self) {}
}

/// Expands to a module of one test per promise of [`TaskPublisher`](crate::TaskPublisher) and
/// [`TaskFeed`](crate::TaskFeed).
///
/// `log_conformance!(#[attribute]… module_name, expression_of_a_fresh_subject)`; see [`conformance`](crate::conformance).
#[macro_export]
macro_rules! log_conformance {
    ($(#[$attribute:meta])* $module:ident, $subject:expr $(,)?) => {
        $crate::__conformance_cases!(log, $module, [$(#[$attribute])*], $subject, [
            publish_confirms_each_message,
        ]);
    };
}

fn message() -> TaskMessage {
    TaskMessage {
        id: fresh_id(),
        payload: payload("Hello world!"),
        priority: Priority::default(),
    }
}

/// Waits until each is confirmed by the log or refused. One outcome per input, in input order.
pub async fn publish_confirms_each_message(subject: &dyn Subject) {
    let messages = [message(), message(), message()];
    let outcomes = subject.publisher().publish(&messages).await;
    assert_eq!(outcomes.len(), 3);
    for outcome in outcomes {
        outcome.expect("confirmed");
    }
}
