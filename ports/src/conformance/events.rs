//! The suite of [`EventFeed`] and of [`Announcer::tell`]: what is told comes to every reader.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::time::{Instant, sleep, timeout};

use super::fresh_id;
use crate::announcer::Announcer;
use crate::events::{EventFeed, EventReader, PlacedEvent, TaskEvent};
use crate::task::{Fence, TaskStatus};
use crate::time::Timestamp;

/// A fresh, empty log with everything that writes events to it and reads them.
#[async_trait]
pub trait Subject: Send + Sync + 'static {
    /// Writes `tasks-events`.
    fn announcer(&self) -> Arc<dyn Announcer>;

    /// Reads `tasks-events`.
    fn feed(&self) -> Arc<dyn EventFeed>;

    /// Gives back what the subject holds. Called after the case, failed or not.
    async fn close(&self) {}
}

/// Expands to a module of one test per promise of [`EventFeed`].
///
/// `events_conformance!(#[attribute]… module_name, expression_of_a_fresh_subject)`; see
/// [`conformance`](crate::conformance).
#[macro_export]
macro_rules! events_conformance {
    ($(#[$attribute:meta])* $module:ident, $subject:expr $(,)?) => {
        $crate::__conformance_cases!(events, $module, [$(#[$attribute])*], $subject, [
            tell_answers_once_per_input_and_every_reader_reads_all,
            open_begins_with_the_latest,
            read_waits_until_there_is_a_record,
            read_dropped_loses_nothing,
            a_reader_that_was_dropped_is_taken_up_by_another,
        ]);
    };
}

/// How long anything may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long nothing must come to be taken as nothing coming.
const SILENCE: Duration = Duration::from_millis(500);

/// Whole milliseconds: that is what the records keep.
const MOMENT: Timestamp = Timestamp::from_micros(1_704_067_202_345_000);

fn events(count: usize) -> Vec<TaskEvent> {
    let made = TaskStatus::ALL.into_iter().cycle().zip(0..);
    made.map(|(status, fence)| TaskEvent {
        id: fresh_id(),
        status,
        fence: Fence(fence),
        at: MOMENT,
    })
    .take(count)
    .collect()
}

async fn told(subject: &dyn Subject, events: &[TaskEvent]) {
    let outcomes = subject.announcer().tell(events).await;
    assert_eq!(outcomes.len(), events.len());
    for outcome in outcomes {
        outcome.expect("confirmed");
    }
}

async fn opened(subject: &dyn Subject, latest: usize) -> Box<dyn EventReader> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match subject.feed().open(latest).await {
            Ok(reader) => return reader,
            Err(error) => assert!(Instant::now() < deadline, "{error:?}"),
        }
        sleep(Duration::from_millis(100)).await;
    }
}

/// As many records as wanted, in calls of at most seven: each position one more than the one before.
async fn read(reader: &mut dyn EventReader, wanted: usize) -> Vec<PlacedEvent> {
    let mut found: Vec<PlacedEvent> = Vec::new();
    while found.len() < wanted {
        let limit = 7.min(wanted - found.len());
        let batch = timeout(PATIENCE, reader.read(limit))
            .await
            .expect("a record comes")
            .expect("it reads");
        assert!((1..=limit).contains(&batch.len()), "{}", batch.len());
        found.extend(batch);
    }
    for pair in found.windows(2) {
        assert_eq!(pair[1].position, pair[0].position + 1);
    }
    found
}

fn events_of(placed: &[PlacedEvent]) -> Vec<TaskEvent> {
    placed.iter().filter_map(|placed| placed.event).collect()
}

/// One outcome per input, and no group: every reader reads everything, in the same order at the same positions.
pub async fn tell_answers_once_per_input_and_every_reader_reads_all(subject: &dyn Subject) {
    assert!(subject.announcer().tell(&[]).await.is_empty());
    let (mut one, mut other) = (opened(subject, 10).await, opened(subject, 10).await);
    let sent = events(100);
    told(subject, &sent).await;
    let read_by_one = read(&mut *one, 100).await;
    assert_eq!(events_of(&read_by_one), sent);
    assert_eq!(read_by_one[0].position, one.end());
    assert_eq!(read(&mut *other, 100).await, read_by_one);
}

/// The `latest` last events, or all if there are fewer; what is told after the opening stands at its end or behind.
pub async fn open_begins_with_the_latest(subject: &dyn Subject) {
    let sent = events(50);
    told(subject, &sent).await;
    let mut all = opened(subject, 1_000).await;
    assert_eq!(events_of(&read(&mut *all, 50).await), sent);
    let mut last = opened(subject, 3).await;
    let three = read(&mut *last, 3).await;
    assert_eq!(three[0].position, last.begin());
    assert_eq!(events_of(&three), sent[47..]);
    assert_eq!(three[2].position + 1, last.end());
    let mut none = opened(subject, 0).await;
    let more = events(1);
    told(subject, &more).await;
    let next = read(&mut *none, 1).await;
    assert_eq!(events_of(&next), more);
    assert_eq!(next[0].position, none.end());
}

/// Waits until there is at least one record, and not for more.
pub async fn read_waits_until_there_is_a_record(subject: &dyn Subject) {
    let mut reader = opened(subject, 10).await;
    assert!(timeout(SILENCE, reader.read(10)).await.is_err());
    let sent = events(1);
    told(subject, &sent).await;
    assert_eq!(events_of(&read(&mut *reader, 1).await), sent);
}

/// A read that is given up loses no record.
pub async fn read_dropped_loses_nothing(subject: &dyn Subject) {
    let mut reader = opened(subject, 10).await;
    for _ in 0..20 {
        let given_up = timeout(Duration::from_millis(1), reader.read(10)).await;
        assert!(given_up.is_err());
    }
    let sent = events(20);
    told(subject, &sent).await;
    assert_eq!(events_of(&read(&mut *reader, 20).await), sent);
}

/// Positions are the log's and not the reader's.
pub async fn a_reader_that_was_dropped_is_taken_up_by_another(subject: &dyn Subject) {
    told(subject, &events(10)).await;
    let mut first = opened(subject, 10).await;
    let before = read(&mut *first, 10).await;
    drop(first);
    told(subject, &events(5)).await;
    let mut second = opened(subject, 15).await;
    let after = read(&mut *second, 15).await;
    assert_eq!(after[..10], before);
}
