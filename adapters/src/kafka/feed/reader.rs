//! The task that keeps the buffer filled.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use kafka::client::{FetchOffset, KafkaClient as Client};
use kafka::error::{Error as KafkaError, KafkaCode};
use ports::{Delivery, Position, RecordContent, TaskId, Timestamp};

use super::super::link::{Health, Link, LinkFault, partition_count};
use super::fetch::{Cursor, FETCH_BYTES, Fetched, Record, Unreadable, fetch_all};
use super::{Share, Shared};
use crate::kafka_partition::OwnPartition;

/// How long one fetch of everything may take.
const FETCH_LIMIT: Duration = Duration::from_secs(15);

/// How long finding out where to start may take.
const LOOK_LIMIT: Duration = Duration::from_secs(10);

/// How often the share is looked at anew: partitions may be added.
const LOOK_INTERVAL: Duration = Duration::from_secs(30);

/// After a failure, doubled each time.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// Failures in a row for less than this are no outage, as long as a broker answers.
const HICCUP: Duration = Duration::from_secs(1);

/// A batch that does not fit is asked for in twice the size, up to this.
const LARGEST_FETCH_BYTES: i32 = 64 * 1024 * 1024;

pub(super) struct Reader {
    link: Link,
    shared: Arc<Shared>,
    topic: String,
    group_id: String,
    share: Share,
    capacity: usize,
    cursors: BTreeMap<i32, Cursor>,
    looked_at: Option<Instant>,
}

/// Where a partition of the share begins.
struct Start {
    partition: i32,
    earliest: i64,
    /// Where the group has come to, if it has committed.
    committed: Option<i64>,
}

impl Reader {
    pub(super) fn new(
        link: Link,
        shared: Arc<Shared>,
        topic: String,
        group_id: String,
        share: Share,
        capacity: usize,
    ) -> Self {
        Self {
            link,
            shared,
            topic,
            group_id,
            share,
            capacity,
            cursors: BTreeMap::new(),
            looked_at: None,
        }
    }

    /// Runs until it is aborted.
    pub(super) async fn run(mut self) {
        let mut pause = FIRST_PAUSE;
        let mut failing_since = None;
        loop {
            let Err(fault) = self.turn().await else {
                pause = FIRST_PAUSE;
                failing_since = None;
                continue;
            };
            // The worker is told of an outage by `receive`, and tells it.
            tracing::debug!(
                event = "kafka.feed.error",
                %fault,
                "reading the log failed and is repeated"
            );
            let since = *failing_since.get_or_insert_with(Instant::now);
            // A connection that had been idle for long, or a leader that moved, is put right by the next turn.
            let certain = matches!(fault, LinkFault::Probe(_) | LinkFault::Slow(_));
            if certain || since.elapsed() >= HICCUP {
                self.shared.lock().outage = Some(Arc::new(fault));
                self.shared.arrived.notify_one();
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    async fn turn(&mut self) -> Result<(), LinkFault> {
        let due = self
            .looked_at
            .is_none_or(|looked_at| looked_at.elapsed() >= LOOK_INTERVAL);
        if due {
            self.look().await?;
        }
        if self.cursors.is_empty() {
            self.shared.lock().outage = None;
            // More workers than partitions: nothing to do until some are added.
            tokio::time::sleep(LONGEST_PAUSE).await;
            return Ok(());
        }
        self.wait_for_room().await;
        self.fetch().await
    }

    async fn wait_for_room(&self) {
        loop {
            let room = self.shared.room.notified();
            if self.shared.lock().buffer.len() < self.capacity {
                return;
            }
            room.await;
        }
    }

    /// Finds out which partitions belong to the share and where they begin. Those that are being read go on where they are.
    async fn look(&mut self) -> Result<(), LinkFault> {
        let (topic, group_id, share) = (self.topic.clone(), self.group_id.clone(), self.share);
        let starts = self
            .link
            .call(LOOK_LIMIT, move |client| {
                starts(client, &topic, &group_id, share).map(|starts| (starts, Health::Sound))
            })
            .await?;
        let mut state = self.shared.lock();
        let owned = state.owned.get_or_insert_default();
        for start in starts {
            if self.cursors.contains_key(&start.partition) {
                continue;
            }
            // If that place was deleted meanwhile, the fetch says so.
            let offset = start.committed.unwrap_or(start.earliest);
            self.cursors.insert(
                start.partition,
                Cursor {
                    partition: start.partition,
                    offset,
                    bytes: FETCH_BYTES,
                },
            );
            owned.insert(
                start.partition,
                OwnPartition::committed_before(start.committed.unwrap_or(0)),
            );
        }
        drop(state);
        self.looked_at = Some(Instant::now());
        Ok(())
    }

    async fn fetch(&mut self) -> Result<(), LinkFault> {
        let topic = self.topic.clone();
        let cursors: Vec<Cursor> = self.cursors.values().copied().collect();
        let fetched = self
            .link
            .call(FETCH_LIMIT, move |client| {
                fetch_all(client, &topic, &cursors)
            })
            .await?;
        let (failed, lost) = self.take_in(fetched);
        if !lost.is_empty() {
            self.find_again(&lost).await?;
        }
        if failed {
            // The others were served; this one is tried again after a pause.
            return Err(KafkaError::Kafka(KafkaCode::LeaderNotAvailable).into());
        }
        Ok(())
    }

    /// Puts what was fetched into the buffer. Returns whether some partition failed, and those that lost their place.
    fn take_in(&mut self, fetched: BTreeMap<i32, Fetched>) -> (bool, Vec<i32>) {
        let mut failed = false;
        let mut lost = Vec::new();
        let mut state = self.shared.lock();
        for (partition, fetched) in fetched {
            let Some(cursor) = self.cursors.get_mut(&partition) else {
                continue;
            };
            let mut at_end = false;
            match fetched {
                Fetched::Records { records, end } => {
                    if let Some(last) = records.last() {
                        cursor.offset = last.offset + 1;
                        cursor.bytes = FETCH_BYTES;
                    } else if cursor.offset < end {
                        // There is more, and not even one record of it fitted.
                        if cursor.bytes < LARGEST_FETCH_BYTES {
                            cursor.bytes = cursor.bytes.saturating_mul(2);
                        } else {
                            cursor.offset += 1;
                            cursor.bytes = FETCH_BYTES;
                        }
                    }
                    at_end = cursor.offset >= end;
                    state
                        .buffer
                        .extend(records.into_iter().map(|record| read(partition, record)));
                }
                Fetched::OutOfRange => lost.push(partition),
                Fetched::Illegible(reason) => {
                    state
                        .buffer
                        .push_back(illegible(partition, cursor.offset, &reason));
                    cursor.offset += 1;
                }
                Fetched::Failed => failed = true,
            }
            if let Some(owned) = state.owned.as_mut().and_then(|all| all.get_mut(&partition)) {
                owned.at_end = at_end;
            }
        }
        if !failed {
            state.outage = None;
        }
        let arrived = !state.buffer.is_empty();
        drop(state);
        if arrived {
            self.shared.arrived.notify_one();
        }
        (failed, lost)
    }

    /// Goes to the beginning of partitions whose log no longer holds the place they were read at: its beginning was deleted,
    /// or the topic was made anew.
    async fn find_again(&mut self, lost: &[i32]) -> Result<(), LinkFault> {
        let (topic, group_id, share) = (self.topic.clone(), self.group_id.clone(), self.share);
        let starts = self
            .link
            .call(LOOK_LIMIT, move |client| {
                starts(client, &topic, &group_id, share).map(|starts| (starts, Health::Sound))
            })
            .await?;
        let mut state = self.shared.lock();
        for start in starts {
            if !lost.contains(&start.partition) {
                continue;
            }
            tracing::warn!(
                event = "kafka.feed.reset",
                partition = start.partition,
                offset = start.earliest,
                "the log no longer holds the place that was read; reading goes on at its beginning"
            );
            if let Some(cursor) = self.cursors.get_mut(&start.partition) {
                cursor.offset = start.earliest;
                cursor.bytes = FETCH_BYTES;
            }
            if let Some(owned) = state.owned.as_mut() {
                owned.insert(start.partition, OwnPartition::default());
            }
        }
        Ok(())
    }
}

fn starts(
    client: &mut Client,
    topic: &str,
    group_id: &str,
    share: Share,
) -> Result<Vec<Start>, KafkaError> {
    client.load_metadata(&[topic])?;
    let count = partition_count(client, topic);
    let mine: Vec<i32> = (0..count)
        .filter_map(|partition| i32::try_from(partition).ok())
        .filter(|partition| share.holds(*partition))
        .collect();
    if mine.is_empty() {
        return Ok(Vec::new());
    }
    let earliest = client.fetch_topic_offsets(topic, FetchOffset::Earliest)?;
    let committed = client.fetch_group_topic_offset(group_id, topic)?;
    mine.into_iter()
        .map(|partition| {
            let earliest = earliest
                .iter()
                .find(|found| found.partition == partition)
                .ok_or(KafkaError::Kafka(KafkaCode::LeaderNotAvailable))?
                .offset;
            let committed = committed
                .iter()
                .find(|found| found.partition == partition)
                .map(|found| found.offset)
                .filter(|offset| *offset >= 0);
            Ok(Start {
                partition,
                earliest: earliest.max(0),
                committed,
            })
        })
        .collect()
}

fn read(partition: i32, record: Record) -> Delivery {
    let position = Position {
        partition,
        offset: record.offset,
    };
    match record.content {
        Ok((id, trace)) => Delivery {
            position,
            recorded_at: time_of(id),
            content: RecordContent::Task(id),
            trace,
        },
        Err(Unreadable { reason, key, value }) => Delivery {
            position,
            recorded_at: now(),
            content: RecordContent::Unreadable { reason, key, value },
            trace: None,
        },
    }
}

fn illegible(partition: i32, offset: i64, reason: &str) -> Delivery {
    Delivery {
        position: Position { partition, offset },
        recorded_at: now(),
        content: RecordContent::Unreadable {
            reason: format!(
                "kafka-rust cannot read the record: {reason}; KAFKA_CLIENT=rdkafka can"
            ),
            key: None,
            value: None,
        },
        trace: None,
    }
}

/// When a task was made, as far as its id tells; not later than now.
fn time_of(id: TaskId) -> Timestamp {
    let now = now();
    if id.0.get_version_num() != 7 {
        return now;
    }
    // The first 48 bits of a version 7 UUID are milliseconds since the epoch.
    let millis = i64::try_from(id.0.as_u128() >> 80).unwrap_or(i64::MAX);
    now.min(Timestamp::from_micros(millis.saturating_mul(1_000)))
}

fn now() -> Timestamp {
    let since_epoch = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    Timestamp::from_micros(i64::try_from(since_epoch.as_micros()).unwrap_or(i64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_7_id_tells_its_time() {
        let id: TaskId = "0190a5d4-7b1c-7c3e-9f00-0123456789ab"
            .parse()
            .expect("a UUID");
        assert_eq!(time_of(id).to_string(), "2024-07-12T07:24:44.188Z");
        let future: TaskId = "ffffffff-ffff-7c3e-9f00-0123456789ab"
            .parse()
            .expect("a UUID");
        assert!(time_of(future) <= now());
        let random: TaskId = "3f2504e0-4f89-41d3-9a0c-0305e82c3301"
            .parse()
            .expect("a UUID");
        assert!(time_of(random).micros_since(now()).abs() < 10_000_000);
    }
}
