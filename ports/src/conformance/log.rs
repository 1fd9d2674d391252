//! The suite of [`TaskPublisher`] and [`TaskFeed`]: what goes in at one end of
//! `tasks-input` comes out at the other.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use crate::announcer::Announcer;
use crate::feed::{Delivery, Position, RecordContent, Standing, TaskFeed};
use crate::publisher::{TaskMessage, TaskPublisher};
use crate::task::{Priority, TaskId, TaskResult};
use crate::trace::TraceContext;

use super::{fresh_id, payload, priority};

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
    /// [`RecordContent::Unreadable`] with this key and value.
    async fn put_raw(&self, key: Option<Vec<u8>>, value: Option<Vec<u8>>);

    /// Everything on `tasks-output` from its beginning; waits (some seconds at most) until there are `at_least` records.
    async fn outputs(&self, at_least: usize) -> Vec<OutputRecord>;

    /// Everything on `tasks-dead-letter` from its beginning; waits (some seconds at most) until there are `at_least`
    /// records.
    async fn dead_letters(&self, at_least: usize) -> Vec<DeadLetterRecord>;

    /// Gives back what the subject holds (its topics, for example). Called after the case, failed or not.
    async fn close(&self) {}
}

/// Expands to a module of one test per promise of [`TaskPublisher`] and
/// [`TaskFeed`].
///
/// `log_conformance!(#[attribute]… module_name, expression_of_a_fresh_subject)`; see [`conformance`](crate::conformance).
#[macro_export]
macro_rules! log_conformance {
    ($(#[$attribute:meta])* $module:ident, $subject:expr $(,)?) => {
        $crate::__conformance_cases!(log, $module, [$(#[$attribute])*], $subject, [
            publish_confirms_each_message,
            receive_brings_the_trace_of_each_message,
            publish_takes_an_empty_slice,
            publish_takes_a_thousand_messages_at_once,
            publishes_at_once_lose_nothing,
            receive_brings_what_was_published,
            receive_returns_up_to_its_limit,
            receive_does_not_wait_for_a_batch_to_fill,
            receive_waits_until_a_record_is_there,
            receive_keeps_log_order_within_a_partition,
            receive_brings_repeated_messages_as_they_are,
            receive_brings_rubbish_as_unreadable_and_goes_on,
            receive_dropped_loses_no_record,
            what_was_not_acknowledged_comes_again_after_a_crash,
            what_was_acknowledged_does_not_come_again,
            acknowledge_is_cumulative,
            acknowledge_never_moves_backward,
            acknowledge_passes_over_partitions_of_others,
            acknowledge_takes_an_empty_slice,
            standing_tells_whether_more_is_waiting,
            ping_answers,
        ]);
    };
}

/// A key or a value as a case gives it.
pub(super) type Given = Option<&'static [u8]>;

/// A key or a value to compare: there are clients that cannot tell an empty one from none.
pub(super) fn bytes_of(given: &Option<Vec<u8>>) -> Vec<u8> {
    given.clone().unwrap_or_default()
}

/// How long a record may take: a broker that starts a group on a busy machine takes seconds.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long nothing must come to be taken as nothing coming.
const SILENCE: Duration = Duration::from_millis(500);

fn message() -> TaskMessage {
    TaskMessage {
        id: fresh_id(),
        payload: payload("Hello world!"),
        priority: Priority::default(),
        trace: None,
    }
}

fn messages(count: usize) -> Vec<TaskMessage> {
    std::iter::repeat_with(message).take(count).collect()
}

fn ids_of(messages: &[TaskMessage]) -> BTreeSet<TaskId> {
    messages.iter().map(|message| message.id).collect()
}

async fn published(subject: &dyn Subject, messages: &[TaskMessage]) {
    let outcomes = subject.publisher().publish(messages).await;
    assert_eq!(outcomes.len(), messages.len());
    for outcome in outcomes {
        outcome.expect("confirmed");
    }
}

/// One batch; an unavailable log is asked again, as the port says.
async fn received(feed: &dyn TaskFeed, limit: usize) -> Vec<Delivery> {
    let asking = async {
        loop {
            match feed.receive(limit).await {
                Ok(deliveries) => return deliveries,
                Err(_) => sleep(Duration::from_millis(100)).await,
            }
        }
    };
    let deliveries = timeout(PATIENCE, asking).await.expect("a record comes");
    assert!(
        !deliveries.is_empty(),
        "receive waits until a record is there"
    );
    assert!(
        deliveries.len() <= limit,
        "{} records for a limit of {limit}",
        deliveries.len()
    );
    deliveries
}

/// As many records as wanted, or more.
async fn collected(feed: &dyn TaskFeed, wanted: usize) -> Vec<Delivery> {
    let mut deliveries = Vec::new();
    while deliveries.len() < wanted {
        deliveries.extend(received(feed, 500).await);
    }
    deliveries
}

async fn expect_silence(feed: &dyn TaskFeed) {
    let outcome = timeout(SILENCE, feed.receive(10)).await;
    assert!(outcome.is_err(), "expected nothing and not {outcome:?}");
}

fn tasks_of(deliveries: &[Delivery]) -> Vec<TaskId> {
    deliveries
        .iter()
        .filter_map(|delivery| match &delivery.content {
            RecordContent::Task(id) => Some(*id),
            RecordContent::Unreadable { .. } => None,
        })
        .collect()
}

fn set_of(deliveries: &[Delivery]) -> BTreeSet<TaskId> {
    tasks_of(deliveries).into_iter().collect()
}

/// The highest position of each partition.
fn highest(deliveries: &[Delivery]) -> Vec<Position> {
    let mut offsets: BTreeMap<i32, i64> = BTreeMap::new();
    for delivery in deliveries {
        let offset = offsets
            .entry(delivery.position.partition)
            .or_insert(i64::MIN);
        *offset = delivery.position.offset.max(*offset);
    }
    offsets
        .into_iter()
        .map(|(partition, offset)| Position { partition, offset })
        .collect()
}

async fn acknowledged(feed: &dyn TaskFeed, upto: &[Position]) {
    let deadline = Instant::now() + PATIENCE;
    while let Err(error) = feed.acknowledge(upto).await {
        assert!(Instant::now() < deadline, "{error:?}");
        sleep(Duration::from_millis(100)).await;
    }
}

/// Waits until each is confirmed by the log or refused. One outcome per input.
pub async fn publish_confirms_each_message(subject: &dyn Subject) {
    let sent = [
        message(),
        TaskMessage {
            payload: payload(""),
            priority: priority(10),
            ..message()
        },
        TaskMessage {
            payload: payload("👍🏽é \"quoted\" \u{1} \n"),
            ..message()
        },
        TaskMessage {
            payload: payload(&"ж".repeat(100_000)),
            ..message()
        },
    ];
    published(subject, &sent).await;
    let feed = subject.feed().await;
    assert_eq!(set_of(&collected(&*feed, sent.len()).await), ids_of(&sent));
}

/// The trace arrives with the message; a message without one has none.
pub async fn receive_brings_the_trace_of_each_message(subject: &dyn Subject) {
    let trace =
        |number| TraceContext::new(number, 7, true).map(|trace| trace.with_state("vendor=a"));
    let mut sent = messages(3);
    sent[0].trace = trace(1);
    sent[2].trace = trace(u128::MAX);
    published(subject, &sent).await;
    let feed = subject.feed().await;
    let arrived: BTreeMap<TaskId, Option<TraceContext>> = collected(&*feed, sent.len())
        .await
        .into_iter()
        .filter_map(|delivery| match delivery.content {
            RecordContent::Task(id) => Some((id, delivery.trace)),
            RecordContent::Unreadable { .. } => None,
        })
        .collect();
    let expected = sent.into_iter().map(|message| (message.id, message.trace));
    assert_eq!(arrived, expected.collect());
}

/// An empty slice has no outcome.
pub async fn publish_takes_an_empty_slice(subject: &dyn Subject) {
    assert!(subject.publisher().publish(&[]).await.is_empty());
}

/// A slice of 1,000 is one call.
pub async fn publish_takes_a_thousand_messages_at_once(subject: &dyn Subject) {
    let sent = messages(1_000);
    published(subject, &sent).await;
    let feed = subject.feed().await;
    assert_eq!(set_of(&collected(&*feed, 1_000).await), ids_of(&sent));
}

/// What was confirmed is there, whoever else publishes.
pub async fn publishes_at_once_lose_nothing(subject: &dyn Subject) {
    let mut publishing = JoinSet::new();
    for _ in 0..20 {
        let publisher = subject.publisher();
        publishing.spawn(async move {
            let sent = messages(10);
            for outcome in publisher.publish(&sent).await {
                outcome.expect("confirmed");
            }
            sent
        });
    }
    let sent: Vec<TaskMessage> = publishing.join_all().await.into_iter().flatten().collect();
    let feed = subject.feed().await;
    assert_eq!(set_of(&collected(&*feed, 200).await), ids_of(&sent));
}

/// Receives records of `tasks-input`, from the earliest when the group has acknowledged nothing, and what is published
/// while it lives.
pub async fn receive_brings_what_was_published(subject: &dyn Subject) {
    let before = messages(5);
    published(subject, &before).await;
    let feed = subject.feed().await;
    let deliveries = collected(&*feed, 5).await;
    assert_eq!(set_of(&deliveries), ids_of(&before));
    assert!(
        deliveries
            .iter()
            .all(|delivery| delivery.recorded_at.as_micros() > 0)
    );
    let after = messages(5);
    published(subject, &after).await;
    assert_eq!(set_of(&collected(&*feed, 5).await), ids_of(&after));
}

/// Returns up to `limit`.
pub async fn receive_returns_up_to_its_limit(subject: &dyn Subject) {
    let sent = messages(30);
    published(subject, &sent).await;
    let feed = subject.feed().await;
    let mut found = BTreeSet::new();
    while found.len() < sent.len() {
        for limit in [1, 7] {
            if found.len() < sent.len() {
                found.extend(tasks_of(&received(&*feed, limit).await));
            }
        }
    }
    assert_eq!(found, ids_of(&sent));
}

/// Waits until at least one record is there; does not wait for a batch to fill.
pub async fn receive_does_not_wait_for_a_batch_to_fill(subject: &dyn Subject) {
    let sent = messages(1);
    published(subject, &sent).await;
    let feed = subject.feed().await;
    assert_eq!(set_of(&received(&*feed, 1_000).await), ids_of(&sent));
}

/// Waits until at least one record is there.
pub async fn receive_waits_until_a_record_is_there(subject: &dyn Subject) {
    let feed = subject.feed().await;
    expect_silence(&*feed).await;
    let sent = messages(1);
    let (deliveries, ()) = tokio::join!(received(&*feed, 10), async {
        sleep(Duration::from_millis(50)).await;
        published(subject, &sent).await;
    });
    assert_eq!(set_of(&deliveries), ids_of(&sent));
}

/// In log order within each partition, whatever the limit; a key always goes to the same partition.
pub async fn receive_keeps_log_order_within_a_partition(subject: &dyn Subject) {
    let sent = messages(40);
    for _ in 0..3 {
        published(subject, &sent).await;
    }
    let feed = subject.feed().await;
    let mut deliveries = Vec::new();
    while deliveries.len() < 120 {
        deliveries.extend(received(&*feed, 9).await);
    }
    let mut last: BTreeMap<i32, i64> = BTreeMap::new();
    let mut partitions: BTreeMap<TaskId, BTreeSet<i32>> = BTreeMap::new();
    for delivery in &deliveries {
        let Position { partition, offset } = delivery.position;
        let before = last.insert(partition, offset);
        assert!(
            before.is_none_or(|before| before < offset),
            "{before:?} then {offset}"
        );
        if let RecordContent::Task(id) = delivery.content {
            partitions.entry(id).or_default().insert(partition);
        }
    }
    assert!(
        partitions.values().all(|places| places.len() == 1),
        "{partitions:?}"
    );
    assert!(last.len() > 1, "40 keys went to one partition");
}

/// Records may be repeated: each is delivered as it stands in the log.
pub async fn receive_brings_repeated_messages_as_they_are(subject: &dyn Subject) {
    let sent = message();
    published(subject, &[sent.clone(), sent.clone(), sent.clone()]).await;
    let feed = subject.feed().await;
    let deliveries = collected(&*feed, 3).await;
    assert_eq!(tasks_of(&deliveries), [sent.id; 3]);
    let positions: BTreeSet<Position> = deliveries
        .iter()
        .map(|delivery| delivery.position)
        .collect();
    assert_eq!(positions.len(), 3);
}

/// Rubbish arrives as `Unreadable`, with key and value as received, and stops nothing.
pub async fn receive_brings_rubbish_as_unreadable_and_goes_on(subject: &dyn Subject) {
    let rubbish: [(Given, Given); 6] = [
        (None, Some(b"not json")),
        (Some(b"key"), Some(b"{\"payload\":\"no id\"}")),
        (Some(b"\xff\x00"), Some(b"\xff\xfe\x00")),
        (None, Some(b"")),
        (Some(b"tombstone"), None),
        (
            None,
            Some(b"{\"taskId\":\"not a uuid\",\"payload\":\"\",\"priority\":1}"),
        ),
    ];
    let owned = |bytes: Given| bytes.map(<[u8]>::to_vec);
    let sent = messages(rubbish.len() + 1);
    published(subject, &sent[..1]).await;
    for ((key, value), next) in rubbish.iter().zip(&sent[1..]) {
        subject.put_raw(owned(*key), owned(*value)).await;
        published(subject, std::slice::from_ref(next)).await;
    }
    let feed = subject.feed().await;
    let deliveries = collected(&*feed, sent.len() + rubbish.len()).await;
    assert_eq!(set_of(&deliveries), ids_of(&sent));
    let mut found: BTreeSet<(Vec<u8>, Vec<u8>)> = BTreeSet::new();
    for delivery in &deliveries {
        if let RecordContent::Unreadable { reason, key, value } = &delivery.content {
            assert!(!reason.is_empty());
            found.insert((bytes_of(key), bytes_of(value)));
        }
    }
    let expected = rubbish.map(|(key, value)| (bytes_of(&owned(key)), bytes_of(&owned(value))));
    assert_eq!(found, expected.into());
    acknowledged(&*feed, &highest(&deliveries)).await;
    drop(feed);
    expect_silence(&*subject.feed().await).await;
}

/// Dropping the future loses no record.
pub async fn receive_dropped_loses_no_record(subject: &dyn Subject) {
    let feed = subject.feed().await;
    let sent = messages(100);
    let found = async {
        let mut found = BTreeSet::new();
        let mut turn = 0;
        let deadline = Instant::now() + PATIENCE;
        while found.len() < sent.len() {
            assert!(
                Instant::now() < deadline,
                "{} of {} records came",
                found.len(),
                sent.len()
            );
            turn += 1;
            let patience = Duration::from_micros(turn % 40 * 500);
            if let Ok(Ok(deliveries)) = timeout(patience, feed.receive(3)).await {
                found.extend(tasks_of(&deliveries));
            }
        }
        found
    };
    let (found, ()) = tokio::join!(found, async {
        for batch in sent.chunks(10) {
            published(subject, batch).await;
            sleep(Duration::from_millis(5)).await;
        }
    });
    assert_eq!(found, ids_of(&sent));
}

/// At least once: what was not acknowledged comes again after a crash.
pub async fn what_was_not_acknowledged_comes_again_after_a_crash(subject: &dyn Subject) {
    let sent = messages(20);
    published(subject, &sent).await;
    let mut rounds = Vec::new();
    for _ in 0..2 {
        let feed = subject.feed().await;
        let mut deliveries = collected(&*feed, 20).await;
        deliveries.sort_by_key(|delivery| delivery.position);
        rounds.push(deliveries);
    }
    assert_eq!(set_of(&rounds[0]), ids_of(&sent));
    assert_eq!(rounds[0], rounds[1]);
}

/// Every record up to and including each position needs no redelivery.
pub async fn what_was_acknowledged_does_not_come_again(subject: &dyn Subject) {
    let sent = messages(20);
    published(subject, &sent).await;
    let feed = subject.feed().await;
    let deliveries = collected(&*feed, 20).await;
    acknowledged(&*feed, &highest(&deliveries)).await;
    expect_silence(&*feed).await;
    drop(feed);
    let late = messages(3);
    published(subject, &late).await;
    let feed = subject.feed().await;
    assert_eq!(set_of(&collected(&*feed, 3).await), ids_of(&late));
}

/// Cumulative: a position speaks for all before it in its partition, and for none after it.
pub async fn acknowledge_is_cumulative(subject: &dyn Subject) {
    let sent = messages(40);
    published(subject, &sent).await;
    let feed = subject.feed().await;
    let mut deliveries = collected(&*feed, 40).await;
    deliveries.sort_by_key(|delivery| delivery.position);
    // Half of each partition, in one position each.
    let mut upto = highest(&deliveries);
    for position in &mut upto {
        position.offset /= 2;
    }
    let limits: BTreeMap<i32, i64> = upto
        .iter()
        .map(|position| (position.partition, position.offset))
        .collect();
    acknowledged(&*feed, &upto).await;
    drop(feed);
    deliveries.retain(|delivery| delivery.position.offset > limits[&delivery.position.partition]);
    assert!(!deliveries.is_empty());
    let feed = subject.feed().await;
    let mut again = collected(&*feed, deliveries.len()).await;
    again.sort_by_key(|delivery| delivery.position);
    assert_eq!(again, deliveries);
}

/// Never moves backward.
pub async fn acknowledge_never_moves_backward(subject: &dyn Subject) {
    let sent = messages(40);
    published(subject, &sent).await;
    let feed = subject.feed().await;
    let deliveries = collected(&*feed, 40).await;
    let upto = highest(&deliveries);
    let first: Vec<Position> = upto
        .iter()
        .map(|position| Position {
            offset: 0,
            ..*position
        })
        .collect();
    acknowledged(&*feed, &upto).await;
    acknowledged(&*feed, &first).await;
    drop(feed);
    let late = messages(1);
    published(subject, &late).await;
    let feed = subject.feed().await;
    assert_eq!(tasks_of(&received(&*feed, 500).await), [late[0].id]);
    expect_silence(&*feed).await;
}

/// Positions of partitions that belong to another worker (or to nobody) are passed over; the others count.
pub async fn acknowledge_passes_over_partitions_of_others(subject: &dyn Subject) {
    let sent = messages(20);
    published(subject, &sent).await;
    let feed = subject.feed().await;
    let deliveries = collected(&*feed, 20).await;
    let mut upto = highest(&deliveries);
    upto.insert(
        0,
        Position {
            partition: 4_711,
            offset: 3,
        },
    );
    feed.acknowledge(&upto).await.expect("acknowledge");
    drop(feed);
    expect_silence(&*subject.feed().await).await;
}

/// An empty slice is nothing to do.
pub async fn acknowledge_takes_an_empty_slice(subject: &dyn Subject) {
    let sent = messages(1);
    published(subject, &sent).await;
    let feed = subject.feed().await;
    received(&*feed, 10).await;
    feed.acknowledge(&[]).await.expect("acknowledge");
    drop(feed);
    let feed = subject.feed().await;
    assert_eq!(set_of(&received(&*feed, 10).await), ids_of(&sent));
}

/// Whether more is waiting, as far as is known.
pub async fn standing_tells_whether_more_is_waiting(subject: &dyn Subject) {
    let sent = messages(50);
    published(subject, &sent).await;
    let feed = subject.feed().await;
    received(&*feed, 1).await;
    assert_eq!(feed.standing(), Standing::Behind);
    collected(&*feed, 49).await;
    // An adapter may need to ask once more before it knows that nothing follows.
    let deadline = Instant::now() + PATIENCE;
    while feed.standing() != Standing::CaughtUp {
        assert!(Instant::now() < deadline, "{:?}", feed.standing());
        let _ = timeout(Duration::from_millis(100), feed.receive(10)).await;
    }
}

/// The log answers.
pub async fn ping_answers(subject: &dyn Subject) {
    subject.publisher().ping().await.expect("ping");
}
